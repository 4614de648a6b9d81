"""Layers that draw numbers as they go: dropout and noise, the same however a batch is split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import CombinationError

Law = Literal["normal", "uniform"]


class Noisy(nn.Module):
    """Base of layers that draw numbers in a forward pass.

    Inside `keyed` these are a function of the layer and of each row's place in the whole batch; elsewhere they come
    from torch's default generator. joins: rows of the batch that make one of its own (packing). before: rows in front
    of its batch that are none of it (a reference batch).
    """

    joins = 1
    before = 0

    def __init__(self) -> None:
        super().__init__()
        self._source: Source | None = None
        self._draw = _draw

    def numbers(self, law: Law, x: Tensor) -> Tensor:
        """Numbers of a law in the shape of x [B, ...], in float32 at least."""
        return self._draw(self._source, law, x, self.joins, self.before)

    def hide(self) -> None:
        """Keep the compiler away from what draws: it would make a graph of each step's numbers."""
        self._draw = torch.compiler.disable(_draw)  # type: ignore[no-untyped-call]


class Dropout(Noisy):
    """Sets a share `p` of numbers to 0 in training, and lets the others grow as much (Srivastava et al. 2014).

    always: in evaluation too, where it is a network's source of noise (Isola et al. 2017, section 3.2).

    >>> x, layers = torch.ones(4, 100), {"net": Dropout(0.5)}
    >>> with keyed(layers, Rng(0, total=4)):
    ...     whole = layers["net"](x)
    >>> with keyed(layers, Rng(0, total=4).cut(2, 4)):
    ...     half = layers["net"](x[2:])
    >>> whole.unique().tolist(), torch.equal(whole[2:], half), layers["net"].eval()(x).unique().tolist()
    ([0.0, 2.0], True, [1.0])
    """

    def __init__(self, p: float, always: bool = False):
        super().__init__()
        self.p, self.always = p, always

    def forward(self, x: Tensor) -> Tensor:
        """Any shape [B, ...] -> the same."""
        if not (self.training or self.always) or not self.p:
            return x
        if self._source is None:
            return F.dropout(x, self.p)
        return x * ((self.numbers("uniform", x) >= self.p).to(x.dtype) / (1 - self.p))


class GaussianNoise(Noisy):
    """Adds noise of standard deviation `sigma` in training.

    >>> layer = GaussianNoise(0.5)
    >>> 0.45 < layer(torch.zeros(10_000)).std().item() < 0.55, layer.eval()(torch.zeros(1)).item()
    (True, 0.0)
    """

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """Any shape [B, ...] -> the same."""
        return x + self.sigma * self.numbers("normal", x).to(x.dtype) if self.training and self.sigma else x


class Source:
    """Where one layer's numbers come from, of one part of a batch: `rngs`, one of the part, or one of each of its rows.

    A network that is asked several times, or for several sources in one pass, has the part's rows again and again:
    each time they get other numbers, so that one joint pass draws what separate passes draw.
    """

    def __init__(self, name: str, rngs: Sequence[Rng]):
        self.name, self.rngs, self.passed = name, rngs, 0

    def draw(self, law: Law, x: Tensor, joins: int, before: int) -> Tensor:
        """Numbers in the shape of x. Raises CombinationError where it has other rows than the part, so many times."""
        rows = sum(rng.rows for rng in self.rngs) // joins
        times, rest = divmod(len(x) - before, rows)
        if rest:
            raise CombinationError(
                f"the layer {self.name} draws numbers for each of {rows} rows and was given {len(x) - before}:"
                " its network has to keep the rows of a batch together"
            )
        found = [self._rows(rng, law, x, joins, self.passed + k) for k in range(times) for rng in self.rngs]
        self.passed += times
        if before:
            front = self.rngs[0].beside(*self.rngs[0].parts, self.name, "before", total=before)
            found.insert(0, _drawn(front, law, x))
        return torch.cat(found) if len(found) > 1 else found[0]

    def _rows(self, rng: Rng, law: Law, x: Tensor, joins: int, time: int) -> Tensor:
        whole = rng.beside(*rng.parts, self.name, time, total=rng.total // joins)
        return _drawn(whole.cut(rng.start // joins, rng.stop // joins), law, x)


def _drawn(rng: Rng, law: Law, x: Tensor) -> Tensor:
    return rng.normal("", *x.shape[1:]) if law == "normal" else rng.uniform("", *x.shape[1:])


def _draw(source: Source | None, law: Law, x: Tensor, joins: int, before: int) -> Tensor:
    if source is not None:
        return source.draw(law, x, joins, before)
    make = torch.randn if law == "normal" else torch.rand
    return make(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)


def layers(nets: Mapping[str, nn.Module]) -> dict[str, Noisy]:
    """The layers of some networks that draw numbers, by their names; one that several share, once."""
    found: dict[int, tuple[str, Noisy]] = {}
    for name, net in nets.items():
        for path, module in net.named_modules():
            if isinstance(module, Noisy):
                found.setdefault(id(module), (f"{name}.{path}" if path else name, module))
    return dict(found.values())


@contextmanager
def keyed(nets: Mapping[str, nn.Module], rng: Rng | Sequence[Rng]) -> Iterator[None]:
    """Inside, what the layers of these networks draw is a function of `rng`'s key, of the layer and of the row.

    rng: of the rows [start, stop) of a batch that go through the networks; or one of a single row for each of them, as
    where samples are drawn by number, whatever else is drawn with them. nets: by names that stay the same; or `layers`.
    """
    rngs = [rng] if isinstance(rng, Rng) else list(rng)
    noisy = layers(nets)
    for name, layer in noisy.items():
        layer._source = Source(name, rngs)
    try:
        yield
    finally:
        for layer in noisy.values():
            layer._source = None
