"""Layers that draw random numbers, dropout and noise, independent of how a batch is split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import CombinationError

Law = Literal["normal", "uniform"]


class Noisy(nn.Module):
    """Base of layers that draw random numbers in a forward pass.

    Inside `keyed` the numbers are a function of the layer and of each row's position in the whole batch; elsewhere they
    come from torch's default generator. joins: rows of the batch that form one row of the layer (packing). before: rows
    put before the batch (a reference batch).
    """

    joins = 1
    before = 0

    def __init__(self) -> None:
        super().__init__()
        self._source: Source | None = None
        self._draw = _draw

    def numbers(self, law: Law, x: Tensor) -> Tensor:
        """Random numbers of a distribution in the shape of x [B, ...], in float32 at least."""
        return self._draw(self._source, law, x, self.joins, self.before)

    def hide(self) -> None:
        """Exclude the drawing from compilation, which would otherwise recompile for each step's numbers."""
        self._draw = torch.compiler.disable(_draw)  # type: ignore[no-untyped-call]


class Dropout(Noisy):
    """Sets values to 0 with probability `p` in training and scales the others by 1 / (1 - p) (Srivastava et al. 2014).

    always: also in evaluation, if it is a network's source of noise (Isola et al. 2017, section 3.2).

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


class NoiseMap(Noisy):
    """Adds one map of standard normal noise per image, times a learned scale per channel that starts at 0.

    It does so in evaluation, too (Karras et al. 2019, section 2). channels: 1: one scale for all. fixed: a map
    [1, 1, H, W], or one per image, to use instead; fixes: keep the next image's as this map.

    >>> layer, x = NoiseMap(2), torch.zeros(1, 2, 3, 3)
    >>> layer(x).abs().max().item(), layer.scale.data.fill_(1.0).tolist(), layer(x).unique().numel()
    (0.0, [1.0, 1.0], 9)
    """

    fixed: Tensor | None = None
    fixes = False

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[B, C, H, W] -> the same, with the noise times the gain."""
        noise = self.numbers("normal", x[:, :1]) if self.fixed is None else self.fixed.to(x.dtype)
        if self.fixes:
            self.fixed, self.fixes = noise[:1].clone(), False
        scale = self.scale if gain == 1 else self.scale * gain
        return torch.addcmul(x, noise.to(x.dtype), scale[:, None, None].to(x.dtype))


class Source:
    """The random numbers of one layer for one part of a batch. rngs: one for the part, or one for each of its rows.

    If a network runs several times, or on several sources in one pass, it gets the part's rows repeatedly: each
    repetition gets new numbers, so that one joint pass draws the same as separate passes.
    """

    def __init__(self, name: str, rngs: Sequence[Rng]):
        self.name, self.rngs, self.passed = name, rngs, 0

    def draw(self, law: Law, x: Tensor, joins: int, before: int) -> Tensor:
        """Numbers in the shape of x. Raises CombinationError unless its rows are a multiple of the part's."""
        rows = sum(rng.rows for rng in self.rngs) // joins
        times, rest = divmod(len(x) - before, rows)
        if rest:
            raise CombinationError(
                f"the layer {self.name} draws random numbers for {rows} rows, but its input has {len(x) - before}:"
                " its network must not change the number of rows of a batch"
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
    """The layers that draw random numbers, by name; a layer that several networks share occurs once."""
    found: dict[int, tuple[str, Noisy]] = {}
    for name, net in nets.items():
        for path, module in net.named_modules():
            if isinstance(module, Noisy):
                found.setdefault(id(module), (f"{name}.{path}" if path else name, module))
    return dict(found.values())


@contextmanager
def rewound(nets: Mapping[str, nn.Module]) -> Iterator[None]:
    """After this context the networks' layers draw again what they drew in it.

    Inside `keyed` only: elsewhere each pass has new numbers.

    >>> x, layers = torch.ones(1, 100), {"net": Dropout(0.5)}
    >>> with keyed(layers, Rng(0, total=1)):
    ...     with rewound(layers):
    ...         first = layers["net"](x)
    ...     second, third = layers["net"](x), layers["net"](x)
    >>> torch.equal(first, second), torch.equal(second, third)
    (True, False)
    """
    sources = [layer._source for layer in layers(nets).values() if layer._source is not None]
    passed = [source.passed for source in sources]
    yield
    for source, count in zip(sources, passed, strict=True):
        source.passed = count


@contextmanager
def keyed(nets: Mapping[str, nn.Module], rng: Rng | Sequence[Rng]) -> Iterator[None]:
    """In this context, what the networks' layers draw is a function of `rng`'s key, the layer and the row.

    rng: for the rows [start, stop) of a batch; or a list with one for each row, if each sample must be independent of
    the others drawn with it. nets: networks by constant names, or the result of `layers`.
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


@contextmanager
def fixed(net: nn.Module, maps: Mapping[str, Tensor]) -> Iterator[None]:
    """In this context, a network's NoiseMap layers of these names use these maps, [1, 1, H, W] or [B, 1, H, W]."""
    layers = [(m, maps[name]) for name, m in net.named_modules() if isinstance(m, NoiseMap) and name in maps]
    before = [layer.fixed for layer, _ in layers]
    for layer, rows in layers:
        layer.fixed = rows
    try:
        yield
    finally:
        for (layer, _), old in zip(layers, before, strict=True):
            layer.fixed = old


@contextmanager
def seen_inputs(net: nn.Module, kind: type[nn.Module], note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """In this context, `note` is called with the name and the input of each layer of a kind that runs."""

    def watch(name: str) -> Callable[..., None]:
        return lambda layer, args: note(name, args[0])

    hooks = [m.register_forward_pre_hook(watch(name)) for name, m in net.named_modules() if isinstance(m, kind)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
