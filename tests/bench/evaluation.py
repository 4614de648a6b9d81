"""What an evaluation costs: beside the extractor alone, beside the first one, beside torch-fidelity's own command.

    python -m tests.bench.evaluation [--weights FILE] [--n 256] [--rounds 3] [--threads T] [--compile]

Both sides run in this process, in turns, on the same PNG files or the same generator; a ratio is the median over the
rounds. Without --weights the network has random ones, which take as long.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch_fidelity
from PIL import Image
from torch import Tensor

from gancli.compute.device import Compute
from gancli.data.embedded import fashion
from gancli.data.facts import DataFacts
from gancli.data.folder import folder
from gancli.draw.sampling import Sampler
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import NonSaturating
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Inception
from gancli.metrics.feature_cache import FeatureCache
from gancli.metrics.fid import Fid, Kid, Prc
from gancli.metrics.images import ImageSet, batches, extract, from_sampler, from_source, three_channels
from gancli.nets.dcgan import Discriminator, Generator

Timed = Callable[[], object]


def random_weights(path: Path) -> Path:
    """torch-fidelity's Inception with weights that keep the size of the activations."""
    empty = path.with_suffix(".empty")
    torch.save({}, empty)

    class Untrained(torch_fidelity.FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *args: object, **kwargs: object) -> None:
            return None

    torch.manual_seed(0)
    net = Untrained("untrained", ["2048"], feature_extractor_weights_path=str(empty))
    for weight in net.parameters():
        if weight.dim() == 4:
            torch.nn.init.kaiming_normal_(weight)
    torch.save(net.state_dict(), path)
    return path


def pictures(top: Path, first: int, n: int) -> Path:
    """n images of Fashion as PNG files."""
    top.mkdir()
    for k, image in enumerate(fashion().rows(np.arange(first, first + n))["x"]):
        Image.fromarray(image[0].numpy()).convert("RGB").save(top / f"{k:05}.png")
    return top


def sampler() -> Sampler:
    """The paper's DCGAN at 28 pixels; untrained, it takes as long."""
    shape = (1, 28, 28)
    nets = {"G": Generator(shape, 100).eval(), "D": Discriminator(shape)}
    game = NoiseGame(nets, NonSaturating(), {}, Latent(dim=100, kind="uniform"), classes=10)
    facts = DataFacts.of(fashion())
    game.fields = facts.fields
    return Sampler(game, nets, facts, Compute())


def turns(rounds: int, pairs: dict[str, Timed]) -> dict[str, list[float]]:
    """Seconds of each, in turns whose order alternates."""
    times: dict[str, list[float]] = {name: [] for name in pairs}
    for k in range(rounds):
        for name, run in pairs.items() if k % 2 else reversed(pairs.items()):
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def said(times: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {statistics.median(seconds):.1f} s" for name, seconds in times.items())


def ours(top: Path, weights: str, compiled: Inception | None = None) -> dict[str, float]:
    """Two folders from nothing to numbers, as `gan eval input= reference= cache=false`."""
    extractor = compiled or Inception(weights)
    one, two = (from_source(folder(str(top / name)), None, 0) for name in ("mine", "theirs"))
    return Evaluator([Fid(), Kid(), Prc()], two, extractor, intervals=True).evaluate(one).values


def theirs(top: Path, weights: str, n: int, compiled: bool = False) -> dict[str, float]:
    """The same by torch-fidelity's own entry point, with its defaults: 64 images at once, worker processes."""
    found: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=str(top / "mine"), input2=str(top / "theirs"), fid=True, kid=True, prc=True, cuda=False, verbose=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=weights, kid_subset_size=min(n, 1000),
        cache=False,
    )  # fmt: skip
    return found


def overhead(extractor: Inception, n: int, rounds: int) -> None:
    """Looking at generated images, over the network's own forward time on them."""
    drawn: ImageSet = from_sampler(sampler(), n, 0)
    ready = list(batches(drawn.chunks(), extractor.batch_size))

    def alone() -> Tensor:
        return torch.cat([extractor.features(three_channels(batch)) for batch in ready])

    alone()
    times = turns(rounds, {"extractor alone": alone, "evaluation's look at samples": lambda: extract(drawn, extractor)})
    print(f"{n} generated images: {said(times)}; ratio {ratio(times, *reversed(times)):.3f} (the bar is 1.05)")


def second(extractor: Inception, top: Path, n: int, rounds: int) -> None:
    """The first evaluation against a reference, and another of as many images with its features kept."""
    kept, fakes = FeatureCache(top / "kept"), iter(range(10**6))

    def evaluate() -> None:
        real = from_source(fashion(), n, 1)
        Evaluator([Fid(), Kid(), Prc()], real, extractor, kept=kept, intervals=True).evaluate(
            from_sampler(sampler(), n, next(fakes))
        )

    def first() -> None:
        for file in (top / "kept").glob("*"):
            file.unlink()
        evaluate()

    times: dict[str, list[float]] = {"first": [], "second": []}
    for _ in range(rounds):
        for name, run in (("first", first), ("second", evaluate)):
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    print(f"{n} images, reference kept: {said(times)}; ratio {ratio(times, 'second', 'first'):.3f} (the bar is 0.6)")


def against_theirs(top: Path, weights: str, n: int, rounds: int, compiled: bool) -> None:
    """Two folders, ours and torch-fidelity's; compile time apart."""
    extractor: Inception | None = None
    bar = 0.75
    if compiled:
        extractor, bar = Inception(weights), 0.65
        said_of_it = extractor.compile()
        if said_of_it is not None:
            raise SystemExit(said_of_it)
        began = time.perf_counter()
        extractor.features(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))
        extractor.features(torch.zeros(1, 1, 28, 28, dtype=torch.uint8).expand(-1, 3, -1, -1))
        print(f"compiled in {time.perf_counter() - began:.0f} s")
    numbers: dict[str, dict[str, float]] = {}
    pairs: dict[str, Timed] = {
        "ours": lambda: numbers.update(ours=ours(top, weights, extractor)),
        "torch-fidelity": lambda: numbers.update(theirs=theirs(top, weights, n)),
    }
    times = turns(rounds, pairs)
    names = {"fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean", "recall": "recall"}
    apart = ", ".join(
        f"{a} {abs(numbers['ours'][a] - numbers['theirs'][b]) / max(abs(numbers['theirs'][b]), 1e-12):.0e}"
        for a, b in names.items()
    )
    how = "compiled" if compiled else "eager"
    print(f"two folders of {n}, {how}: {said(times)}; ratio {ratio(times, *pairs):.3f} (the bar is {bar})")
    print(f"  relative differences: {apart}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="fewer threads than cores where other programs are busy, too")
    parser.add_argument("--compile", action="store_true", help="compiled, too: a minute or more")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        weights = args.weights or str(random_weights(top / "weights.pth"))
        extractor = Inception(weights)
        overhead(extractor, args.n, args.rounds)
        second(extractor, top, args.n, args.rounds)
        pictures(top / "mine", 0, args.n), pictures(top / "theirs", args.n, args.n)
        for compiled in (False, True) if args.compile else (False,):
            against_theirs(top, weights, args.n, args.rounds, compiled)


if __name__ == "__main__":
    main()
