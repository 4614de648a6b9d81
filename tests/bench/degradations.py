"""Do the metrics say what the eye says? Fashion against Fashion made worse, a little and a lot.

    python -m tests.bench.degradations --weights FILE [--n 1000]

Noise, blur and mode dropping of rising strength; the reference is another part of the same data set. Prints the table
that stands in the README. Features are kept in the user's cache directory, so that a second run is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.data import source as data
from gancli.data.embedded import fashion
from gancli.data.source import Source, order
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor, Inception
from gancli.metrics.fid import Fid, Kid, Prc
from gancli.metrics.images import from_source

KINDS = {"noise": (8, 32, 96), "blur": (0.5, 1.0, 2.0), "classes left": (7, 4, 2)}


def noisy(images: Tensor, deviation: float) -> Tensor:
    """uint8 [N, 1, H, W] with Gaussian noise of this deviation, in steps of 256."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """uint8 [N, 1, H, W] under a Gaussian of this deviation, in pixels."""
    reach = int(4 * sigma + 1)
    line = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    line = line / line.sum()
    padded = F.pad(images.float(), (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1)).round().to(torch.uint8)


def degraded(source: Source, n: int) -> Iterator[tuple[str, Source, Source]]:
    """(what was done, the images, the reference), n each; both are cut from the same shuffle and share no image."""
    index = order(len(source), "degradations")
    reference, clean = source.only(np.sort(index[:n])), source.only(np.sort(index[n : 2 * n]))
    images = clean.rows(np.arange(n))["x"]
    yield "nothing", clean, reference
    for kind, strengths in KINDS.items():
        for strength in strengths:
            if kind == "classes left":
                keep = index[n:][source.labels[index[n:]] < strength]
                yield f"{kind}: {strength}", source.only(np.sort(keep[:n])), reference
            else:
                worse = noisy(images, strength) if kind == "noise" else blurred(images, strength)
                yield f"{kind} {strength}", data.table("fashion", worse.numpy()), reference


def table(extractor: Extractor, n: int, **options: object) -> dict[str, dict[str, float]]:
    """FID, KID, precision and recall of every degradation."""
    found: dict[str, dict[str, float]] = {}
    evaluator: Evaluator | None = None
    for name, images, reference in degraded(fashion(), n):
        if evaluator is None:
            evaluator = Evaluator(
                [Fid(), Kid(subset_size=n), Prc()], from_source(reference, None, 0), extractor, **options
            )
        fake = from_source(images, None, 0)
        found[name] = {"n": fake.n, **evaluator.evaluate(fake).values}
        line = " | ".join(f"{key} {value:.4f}" for key, value in found[name].items())
        print(f"{name}: {line}", flush=True)
    return found


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="Inception's; otherwise downloaded once")
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    found = table(Inception(args.weights), args.n)
    print("\n| Fashion with | FID | KID | precision | recall |\n| --- | --- | --- | --- | --- |")
    for name, values in found.items():
        row = [f"{values['fid']:.1f}", f"{values['kid']:.4f}", f"{values['precision']:.2f}", f"{values['recall']:.2f}"]
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
