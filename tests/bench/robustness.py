"""Does noise that nobody sees move FID? Real images, changed by a level or two of 256 against Inception's features.

    python -m tests.bench.robustness --weights FILE [--robust FILE] [--n 200] [--steps 4] [--json FILE]

Half of the emoji chosen are the reference; the others are judged as they are, with random signs of so many levels, and
with the signs that move Inception's features furthest: projected gradient ascent on the squared distance of an image's
features from its own before (Madry et al. 2018; of FID: Alfarra et al. 2022, section 4). Every set is judged by every
extractor. Prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gancli.data import source as data
from gancli.data.embedded import emoji
from gancli.data.source import order
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor, Frozen, Inception, efficientnet_lite0, random, robust
from gancli.metrics.fid import Fid
from gancli.metrics.images import from_source
from gancli.metrics.metric import named
from gancli.store.environment import environment

LEVELS, BATCH, SIDE = (1, 2), 10, 64


def signs(images: Tensor, levels: int) -> Tensor:
    """uint8 [N, C, H, W] with every number moved by ± levels, as a coin says."""
    coin = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(levels)) * 2 - 1
    return (images.int() + levels * coin).clamp(0, 255).to(torch.uint8)


def attacked(images: Tensor, extractor: Frozen, levels: int, steps: int) -> Tensor:
    """uint8 [N, C, H, W], each number within ± levels of its own, moved so that the features go far."""
    parts = [_ascent(part, extractor, levels, steps) for part in torch.split(images, BATCH)]
    return torch.cat(parts)


def _ascent(images: Tensor, extractor: Frozen, levels: int, steps: int) -> Tensor:
    clean = images.float()
    with torch.no_grad():
        before = extractor.net.of_levels(clean)
    start = torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1  # at 0 the gradient is 0
    moved, rate = (clean + levels * start).clamp(0, 255), 2 * levels / steps
    for _ in range(steps):
        moved.requires_grad_()
        away = (extractor.net.of_levels(moved) - before).square().sum()
        (slope,) = torch.autograd.grad(away, moved)
        with torch.no_grad():
            moved = clean + (moved + rate * slope.sign() - clean).clamp(-levels, levels)
            moved = moved.clamp(0, 255)
    return moved.detach().round().to(torch.uint8)


def psnr(a: Tensor, b: Tensor) -> float:
    """Of all numbers of two sets, in dB."""
    return float(10 * torch.log10(255**2 / (a.double() - b.double()).square().mean()))


def table(judges: list[Extractor], attack: Frozen, n: int, steps: int) -> list[dict[str, Any]]:
    """Every set's distances, a row each: what was done, PSNR in dB (null: unchanged), and the distance by its name."""
    source = emoji(size=SIDE)
    index = order(len(source), "robustness")
    reference, half = source.only(np.sort(index[:n])), source.only(np.sort(index[n : 2 * n]))
    images = half.rows(np.arange(n))["x"]
    sets: list[tuple[str, Tensor]] = [("nothing", images)]
    for levels in LEVELS:
        sets.append((f"random signs, ±{levels}", signs(images, levels)))
        sets.append((f"against Inception, ±{levels}", attacked(images, attack, levels, steps)))
    rows: list[dict[str, Any]] = []
    evaluators = [Evaluator([Fid()], from_source(reference, None, 0), judge) for judge in judges]
    for name, changed in sets:
        fake = from_source(data.table("emoji", changed.numpy()), None, 0)
        row: dict[str, Any] = {"change": name, "psnr": None if name == "nothing" else psnr(images, changed)}
        for evaluator in evaluators:
            row |= evaluator.evaluate(fake).values
        rows.append(row)
        print(" | ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    return rows


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="Inception's; otherwise downloaded once")
    parser.add_argument("--robust", help="a robustly trained ResNet-50's; otherwise it does not judge")
    parser.add_argument("--n", type=int, default=200, help="images on each side, at most 953")
    parser.add_argument("--steps", type=int, default=4, help="of the ascent")
    parser.add_argument("--json", help="file to write the rows to, with their protocol")
    args = parser.parse_args()
    attack = Inception(args.weights)
    judges: list[Extractor] = [attack, efficientnet_lite0(), random()]
    judges += [robust(args.robust)] if args.robust else []
    rows = table(judges, attack, args.n, args.steps)
    names = [named("fid", judge) for judge in judges]
    print(f"\n| change | PSNR | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}")
    for row in rows:
        shown = "" if row["psnr"] is None else f"{row['psnr']:.1f} dB"
        print(f"| {row['change']} | {shown} | {' | '.join(f'{row[name]:.4g}' for name in names)} |")
    if args.json:
        told = {"data": f"emoji, {SIDE} pixels", "n_fake": args.n, "n_real": args.n, "steps": args.steps}
        told |= {"extractors": [judge.protocol() for judge in judges], "versions": environment()["versions"]}
        text = json.dumps({"rows": rows, "protocol": told}, indent=2, ensure_ascii=False, allow_nan=False)
        Path(args.json).write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
