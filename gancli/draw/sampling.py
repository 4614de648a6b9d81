"""Drawing from a trained generator: latents by seed, standing statistics, paths between latents."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.compute.memory import refuse_many
from gancli.compute.rng import Rng
from gancli.data.facts import DataFacts
from gancli.data.layout import printable
from gancli.errors import ConfigError, RunError, suggestion
from gancli.games.game import Game
from gancli.nets.layers.norms import share_statistics
from gancli.store import checkpoint, export, rundir
from gancli.train import assemble

CHUNK = 32  # images are always drawn in chunks of this many, the last one filled up: the same seed gives the same bits


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, rounded to the nearest."""
    return ((images.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """A point on the great circle from a to b, [..., D], with the length between theirs (White 2016, section 2.1).

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5).tolist()
    [0.7071067690849304, 0.7071067690849304]
    """
    cosine = nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).clamp(-1, 1).unsqueeze(-1)
    angle = torch.acos(cosine)
    flat = angle.sin().abs() < 1e-6  # parallel latents have no circle: walk straight
    sine = torch.where(flat, torch.ones_like(angle), angle.sin())
    first = torch.where(flat, torch.full_like(angle, 1 - share), ((1 - share) * angle).sin() / sine)
    second = torch.where(flat, torch.full_like(angle, share), (share * angle).sin() / sine)
    return (first * a + second * b).to(a.dtype)


def path(a: Tensor, b: Tensor, frames: int, mode: Literal["slerp", "lerp"]) -> Tensor:
    """`frames` latents from a to b, both included, [frames, D]."""
    shares = [k / (frames - 1) for k in range(frames)]
    return torch.stack([slerp(a, b, s) if mode == "slerp" else torch.lerp(a, b, s) for s in shares])


@torch.no_grad()
def settle(net: nn.Module, game: Game, compute: Compute, passes: int, batch: int = 64) -> nn.Module:
    """A copy in evaluation mode whose batch norms hold the mean statistics of `passes` batches of latents.

    Running statistics belong to the raw weights they were collected with; averaged weights need their own
    (Brock et al. 2019, appendix D).
    """
    net = copy.deepcopy(net).eval()
    share_statistics(net, False)  # of several ranks, the one that is here may be the only one
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # torch's word for a plain mean over all passes
            module.train()
    if not any(isinstance(m, _BatchNorm) for m in net.modules()):
        return net
    for k in range(passes):
        noise = Rng("standing statistics", k, total=batch, device=compute.device)
        y = noise.integers("y", game.classes) if game.labelled else None
        game.render({"G": net}, game.latents(noise), y)
    return net.eval()


class Sampler:
    """A trained generator, ready to draw: `images(n, seed)`, or `latents` and `render` one after the other."""

    def __init__(
        self,
        game: Game,
        nets: Mapping[str, nn.Module],
        facts: DataFacts,
        compute: Compute,
        truncation: float | None = None,
    ):
        self.game, self.nets, self.facts, self.compute, self.truncation = game, dict(nets), facts, compute, truncation
        self.run, self.step, self.about, self.config = Path(), 0, dict[str, Any](), dict[str, Any]()

    @property
    def whole(self) -> bool:
        """Whether all networks are there: an export holds the generator alone."""
        return self.nets.keys() >= self.game.nets._modules.keys()

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images, or (D,) of points."""
        return self.facts.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the data's classes."""
        return self.facts.classes

    @property
    def name(self) -> str:
        """The run's name without its date, for what is made from it."""
        return re.sub(
            r"^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-",
            "",
            self.run.stem if self.run.suffix in (".pt", export.SUFFIX) else self.run.name,
        )

    def refuse_many(self, asked: str, n: int, name: str = "n", times: int = 1) -> None:
        """Raise ConfigError where n images (or points), `times` over, do not fit into memory with what they are of.

        They are held as they are drawn, in float32, once more joined, as bytes, and in a sheet. asked: what was typed.
        """
        numbers = math.prod(self.shape)
        sheet = 3 * max(64, self.shape[-2]) * max(64, self.shape[-1]) if len(self.shape) == 3 else 0
        refuse_many(asked, n, times * (9 * numbers + sheet + 1000), name)

    def latents(self, seeds: Sequence[tuple[int, int]]) -> Tensor:
        """One latent for each (seed, number), [n, latent_dim]: a function of these two alone."""
        draws = [self.game.latents(Rng(seed, "sample", k, total=1), truncation=self.truncation) for seed, k in seeds]
        return torch.cat(draws)

    def render(self, latents: Tensor, y: Tensor | None = None) -> Tensor:
        """Images [n, C, H, W] in [-1, 1], or points [n, D], on the CPU; of several ranks, each draws its share."""
        world, n = World.of_group(), len(latents)
        start, stop = world.rows(n, CHUNK)
        return world.joined(self.draw(latents[start:stop], None if y is None else y[start:stop]), n, CHUNK)

    @torch.no_grad()
    def draw(self, latents: Tensor, y: Tensor | None = None) -> Tensor:
        """As `render`, by this rank alone."""
        outputs = [torch.empty(0, *self.shape)]
        for start in range(0, len(latents), CHUNK):
            z = latents[start : start + CHUNK]
            rows = len(z)
            labels = None if y is None else _fill(y[start : start + CHUNK]).to(self.compute.device)
            outputs.append(self.game.render(self.nets, _fill(z).to(self.compute.device), labels)[:rows].float().cpu())
        return torch.cat(outputs)

    def images(self, n: int, seed: int = 0, classes: str | int | None = None) -> Iterator[Tensor]:
        """n images as uint8 chunks [b, C, H, W]; image k of a seed is the same whatever n is.

        classes: a class's name, or its number as an int, for a conditional generator; None: drawn evenly. Raises
        ConfigError.
        """
        for images, _ in self.labelled_images(n, seed, classes):
            yield images

    def labelled_images(
        self, n: int, seed: int = 0, classes: str | int | None = None, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `images`, each chunk with the classes asked for, int64 [b] (zeros where the generator knows none).

        first: the image to begin with. Drawn by this rank alone.
        """
        one = None if classes is None else self.class_number(classes)
        for start in range(first, n, CHUNK):
            seeds = [(seed, k) for k in range(start, min(start + CHUNK, n))]
            y = self.labels(seeds) if one is None else torch.full((len(seeds),), one)
            images = to_uint8(self.draw(self.latents(seeds), y))
            yield images, torch.zeros(len(seeds), dtype=torch.int64) if y is None else y

    def class_number(self, word: str | int) -> int:
        """The number of a class: an int is the number itself; a text is a name, else a number where no name is one.

        Raises ConfigError with the names there are.
        """
        if not self.game.labelled:
            raise ConfigError(
                f"classes={word}: this generator knows no classes; leave classes out, or train one that does"
                " (model.conditioning=projection)"
            )
        text = printable(str(word).strip())  # as names are kept
        if isinstance(word, str) and text in self.classes:
            return self.classes.index(text)
        numbered = isinstance(word, str) and any(map(_is_number, self.classes))
        if _is_number(text) and not numbered and int(text) < len(self.classes):
            return int(text)
        raise ConfigError(f"classes={word}: no such class; {suggestion(text, self.classes)}")

    def class_word(self, number: int) -> str:
        """What `class_number` takes for this class."""
        return self.classes[number] if any(map(_is_number, self.classes)) else str(number)

    def truncated(self, threshold: float | None) -> Sampler:
        """The same generator with latents cut off at another threshold."""
        other = copy.copy(self)
        other.truncation = threshold
        return other

    def labels(self, seeds: Sequence[tuple[int, int]]) -> Tensor | None:
        """A class for each (seed, number), drawn evenly, for a conditional generator; None otherwise."""
        if not self.game.labelled:
            return None
        return torch.cat([Rng(s, "label", k, total=1).integers("y", self.game.classes) for s, k in seeds])

    def rows(
        self, pairs: Sequence[tuple[int, int]], classes: Sequence[int]
    ) -> tuple[list[tuple[int, int]], Tensor | None]:
        """The pairs once a class, and the labels: the same latents in each; without classes, labels drawn evenly."""
        if not classes:
            return list(pairs), self.labels(pairs)
        return list(pairs) * len(classes), torch.tensor(classes).repeat_interleave(len(pairs))

    def protocol(self) -> dict[str, Any]:
        """What the samples depend on, as plain values."""
        return {"run": str(self.run), "step": self.step, "truncation": self.truncation, **self.about}


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", text) is not None


def _fill(tensor: Tensor) -> Tensor:
    """Fill a chunk up with its first row: kernels may round differently for another number of rows."""
    return (
        torch.cat([tensor, tensor[:1].expand(CHUNK - len(tensor), *tensor.shape[1:])])
        if len(tensor) < CHUNK
        else tensor
    )


def load(
    run: str = "last",
    which: int | str = "last",
    *,
    ema: bool = True,
    truncation: float | None = None,
    standing_stats: int = 16,
    compute: Compute | None = None,
) -> Sampler:
    """A run's generator from one of its checkpoints.

    run: a run directory, a checkpoint file, or "last". which: "last", "best" or a step. ema: averaged weights.
    Raises RunError for a run or checkpoint that is missing, damaged, or does not fit its configuration.
    """
    compute, world = compute or Compute(), World.of_group()

    def read() -> tuple[Path, Path, dict[str, Any]]:
        found, file = rundir.find(run)
        if file is not None and which != "last":
            raise RunError(
                f"run={run} is a checkpoint already: leave checkpoint={which} out, or give the run's directory"
            )
        file = file or found.checkpoint(which)
        return found.path, file, export.read(file) if file.suffix == export.SUFFIX else checkpoint.read_run(file)

    place, file, state = world.from_first(read)
    try:
        if file.suffix == export.SUFFIX:
            export.refuse_other(file, state, ema, standing_stats)
        sampler = _restore(state, ema, truncation, standing_stats, compute)
    except RunError:
        raise
    except Exception as error:  # all of it comes from the file: whatever goes wrong is the file's doing
        words = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise RunError(f"{file} does not fit its own configuration: {words or type(error).__name__}") from None
    sampler.run = place
    return sampler


def _restore(
    state: Mapping[str, Any], ema: bool, truncation: float | None, standing_stats: int, compute: Compute
) -> Sampler:
    """The sampler that a checkpoint's state describes. Raises RunError before networks of other sizes are allocated."""
    facts = DataFacts.read(state["data"])
    real = state.get("nets")  # of an export, the generator alone
    refuse_sizes(assemble.game(state["config"], facts, real=()), state["game"], real)
    game = assemble.game(state["config"], facts, real=real)
    if real is None:
        game.load_state_dict(state["game"])
    for name in real or ():  # each by itself: the others are shapes alone, which take no weights
        held = f"nets.{name}."
        own = {key.removeprefix(held): t for key, t in state["game"].items() if key.startswith(held)}
        game.nets[name].load_state_dict(own)
    nets: dict[str, nn.Module] = {name: net for name, net in game.nets.items() if real is None or name in real}
    for net in nets.values():
        compute.place(net)
    averaged = bool(ema and state["ema"])
    if averaged:
        for name, weights in state["ema"].items():
            nets[name].load_state_dict(weights)
            if standing_stats and name != "D":  # D's are statistics of images, not of latents
                nets[name] = settle(nets[name], game, compute, standing_stats)
    for net in nets.values():
        net.eval().requires_grad_(False)
    sampler = Sampler(game, nets, facts, compute, truncation)
    sampler.step, sampler.config = int(state["step"]), dict(state["config"])
    sampler.about = {"ema": averaged, "standing_stats": standing_stats if averaged else 0, "seen": int(state["seen"])}
    sampler.about |= state.get("about", {})
    return sampler


def refuse_sizes(shapes: Game, state: Mapping[str, Tensor], real: Sequence[str] | None = None) -> None:
    """Raise RunError unless a game of shapes only has just the tensors of a file: a file must not claim more memory.

    real: the networks that the file holds; None: it holds the whole game.
    """
    held = None if real is None else tuple(f"nets.{name}." for name in real)
    wanted = {k: v.shape for k, v in shapes.state_dict().items() if held is None or k.startswith(held)}
    there = {k: getattr(v, "shape", None) for k, v in state.items()}
    other = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if other:
        name = other[0]
        said, held_as = ("none" if s is None else list(s) for s in (wanted.get(name), there.get(name)))
        raise RunError(
            f"the file does not fit its own configuration: {len(other)} tensors differ, {name[:80]} is {held_as} and"
            f" should be {said}"
        )
