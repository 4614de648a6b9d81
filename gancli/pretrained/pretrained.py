"""A frozen network as networks, games, terms and metrics look through it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError, RunError, WeightsError, suggestion
from gancli.nets.layers.spectral import full_precision
from gancli.pretrained.prepare import Prepare


@dataclass(frozen=True)
class PretrainedFacts:
    """What configuration and checkpoints keep of a pretrained network: enough to build what stands on its features.

    sha256: of its weights. dim: length of its final features, 0 where it has none. channels: of its layers, by name.
    """

    name: str
    sha256: str
    dim: int
    channels: Mapping[str, int]

    @staticmethod
    def read(plain: Mapping[str, Any]) -> PretrainedFacts:
        """The facts that a checkpoint carries."""
        layers = {str(name): int(count) for name, count in dict(plain["layers"]).items()}
        return PretrainedFacts(str(plain["name"]), str(plain["sha256"]), int(plain["dim"]), layers)

    def plain(self) -> dict[str, Any]:
        """As plain values for a file."""
        return {"name": self.name, "sha256": self.sha256, "dim": self.dim, "layers": dict(self.channels)}

    def differences(self, now: PretrainedFacts) -> str:
        """In words, what another network has otherwise; empty for the same one.

        >>> facts = PretrainedFacts("vgg16", "ab" * 32, 4096, {"features.3": 64})
        >>> facts.differences(PretrainedFacts("vgg16", "cd" * 32, 4096, {}))
        'SHA-256 abababab... -> cdcdcdcd...; layers features.3 -> none'
        """

        def shown(facts: PretrainedFacts) -> dict[str, str]:
            layers = ", ".join(facts.channels) or "none"
            return {"name": facts.name, "SHA-256": f"{facts.sha256[:8]}...", "layers": layers}

        pairs = [(name, old, shown(now)[name]) for name, old in shown(self).items()]
        changed = "; ".join(f"{name} {old} -> {new}" for name, old, new in pairs if old != new)
        return changed or ("" if self == now else "of the same name, with other contents")


class Pretrained:
    """A network that is never trained. No nn.Module, so that no optimizer, checkpoint or requires_grad reaches it.

    Whoever is given it may keep it as an attribute; a copy of that one shares it. Calling it keeps the gradient with
    respect to what goes in. prepare: levels (0 ... 255) to what `net` eats; None: what goes in goes to `net` as it is.
    trunk: the network whose layers are known by their names; None: `net`. layers: those that `maps` gives unasked.
    dim: length of the final features [B, dim], 0 where what `net` gives is something else. head: what turns these into
    class scores, where there is such a layer. says: in words, what the final features are. where: the group that asked
    for it, for messages. Raises ConfigError for a layer that there is not.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        dim: int,
        sha256: str,
        *,
        prepare: Prepare | None,
        trunk: nn.Module | None = None,
        layers: Sequence[str] = (),
        head: nn.Linear | None = None,
        says: str = "",
        notes: Sequence[str] = (),
        where: str = "pretrained",
    ):
        self.name, self.dim, self.sha256, self.head, self.says = name, dim, sha256, head, says
        self.net, self.trunk, self.prepare, self.where = net.eval().requires_grad_(False), trunk or net, prepare, where
        self.layers, self.notes = tuple(layers), tuple(notes)
        self.device, self._dtype = torch.device("cpu"), torch.float32
        self._runs: dict[str, int] = {}  # how often a pass runs each layer that was asked for
        self.to("cpu")
        self.channels: dict[str, int] = {}
        if self.layers:
            self.channels = self.channels_of(self.layers)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretrained:
        """A copy of a network that holds this one shares it: it never changes."""
        return self

    @property
    def facts(self) -> PretrainedFacts:
        """What a checkpoint keeps of it."""
        return PretrainedFacts(self.name, self.sha256, self.dim, self.channels)

    def to(self, device: torch.device | str) -> None:
        """Move the network; channels-last, which convolutions go through sooner."""
        self.device = torch.device(device)
        self.net.to(self.device)
        self.net.to(memory_format=torch.channels_last)

    def tensors(self) -> Iterator[Tensor]:
        """All its numbers, to be counted."""
        yield from self.net.parameters()
        yield from self.net.buffers()

    def shapes_only(self) -> Pretrained:
        """The same network without memory, on the meta device, to count operations in."""
        empty: dict[int, Any] = {id(t): torch.empty_like(t, device="meta") for t in self.tensors()}
        for parameter in self.net.parameters():
            empty[id(parameter)] = nn.Parameter(empty[id(parameter)], requires_grad=False)
        other = copy.copy(self)
        other.net, other.trunk = copy.deepcopy((self.net, self.trunk), empty)
        other.device = torch.device("meta")
        return other

    def __call__(self, *inputs: Any) -> Any:
        """Images [B, C, H, W] in [-1, 1], of any size, C being 1 or 3 -> the final features [B, dim].

        Of a network without preparation: whatever that one takes and gives.
        """
        return self.net(*self._prepared(inputs))

    def maps(self, *inputs: Any, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """What inner layers give for the same inputs, by name: [B, channels, h, w] of convolutions.

        layers: None: those of the configuration. Raises ConfigError where there are none, or not these.
        """
        return self._maps(self._prepared(inputs), layers)

    def of_levels(self, levels: Tensor) -> Tensor:
        """The final features of levels in 0 ... 255, as uint8 images have them."""
        found: Tensor = self.net(self._eaten(levels))
        return found

    def maps_of_levels(self, levels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """As `maps`, of levels in 0 ... 255."""
        return self._maps((self._eaten(levels),), layers)

    def _eaten(self, levels: Tensor) -> Tensor:
        assert self.prepare is not None
        self._compute_in([levels])
        with full_precision(levels):
            return self.prepare(levels)

    def _compute_in(self, inputs: Sequence[Any]) -> torch.dtype:
        """Let the network compute in float64 where something of it goes in, else in float32."""
        double = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in inputs)
        dtype = torch.float64 if double else torch.float32
        if dtype != self._dtype:  # float64 holds every float32: nothing is lost on the way and back
            self.net.to(dtype)
            self._dtype = dtype
        return dtype

    def _prepared(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Inputs as the network eats them, in float64 where they are, else in float32, whatever is cast later."""
        dtype = self._compute_in(inputs)
        if self.prepare is None:
            return [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]
        (x,) = inputs
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ConfigError(
                f"{self.where}={self.name} looks at images of 1 or 3 channels, and was given {list(x.shape[1:])}:"
                f" choose another data set, or {self.where}=none"
            )
        with full_precision(x):
            return [self.prepare((x.to(dtype) + 1) * 127.5, cut=False)]

    def _maps(self, inputs: Sequence[Any], layers: Sequence[str] | None) -> dict[str, Tensor]:
        wanted = tuple(self.layers if layers is None else dict.fromkeys(layers))
        if not wanted:
            raise ConfigError(f"{self.where}={self.name} gives no layers unless they are named: type {self._key}")
        for name in wanted:
            self.check_layer(name)
        left = sum(self._runs.get(name, 0) for name in wanted) if all(n in self._runs for n in wanted) else None
        found: dict[str, Any] = {}
        runs = dict.fromkeys(wanted, 0)

        def caught(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                runs[name] += 1
                last = sum(runs.values()) == left
                # What comes next may overwrite it; after the last of them nothing comes.
                found[name] = output.clone() if isinstance(output, Tensor) and not last else output
                if last:
                    raise _Reached

            return hook

        handles = [self.trunk.get_submodule(name).register_forward_hook(caught(name)) for name in wanted]
        try:
            self.net(*inputs)
            self._runs |= runs
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        for name in wanted:
            if not isinstance(found.get(name), Tensor):
                raise ConfigError(f"{self.where}: the layer {name} of {self.name} gives no tensor: type {self._key}")
        return {name: found[name] for name in wanted}

    @property
    def _key(self) -> str:
        return f"{self.where}.layers=[NAME,...]"

    def check_layer(self, layer: str, key: str | None = None) -> None:
        """Raise ConfigError for a layer that this network lacks. key: where it was typed."""
        names = [name for name, _ in self.trunk.named_modules() if name]
        if layer not in names:
            near = [name for name in names if name.count(".") <= 1]
            typed = f"{key or f'{self.where}.layers'}={layer}"
            raise ConfigError(f"{typed}: this network has no such layer; {suggestion(layer, near)}")

    @torch.no_grad()
    def channels_of(self, layers: Sequence[str]) -> dict[str, int]:
        """How many channels layers have, found by one image. Raises ConfigError for one that there is not."""
        if self.prepare is None:
            raise ConfigError(f"{self.where}.layers: {self.name} takes no images alone: leave {self.where}.layers out")
        side = self.prepare.size or 64
        return {name: x.shape[1] for name, x in self.maps(torch.zeros(1, 3, side, side), layers=layers).items()}


class _Reached(Exception):  # noqa: N818
    """Not an error: the last layer that was asked for has been run, and the rest of the network need not be."""


class Promised(Pretrained):
    """A checkpoint's word for a pretrained network, which is read when something is first put through it.

    So a sample of a generator that stands on no features needs no weights file. A constructor that is given one finds
    in it what the checkpoint says: name, dim and channels. build: reads it. Raises WeightsError where what is read is
    another one. way: what to type instead.
    """

    def __init__(self, facts: PretrainedFacts, build: Callable[[], Pretrained], way: str):
        self.name, self.dim, self.sha256 = facts.name, facts.dim, facts.sha256
        self.channels, self.layers, self.notes = dict(facts.channels), tuple(facts.channels), ()
        self.device = torch.device("cpu")
        self._build, self._way = build, way
        self._held: Pretrained | None = None

    def read(self) -> None:
        """Read it now, and verify it."""
        assert self.held

    @property
    def held(self) -> Pretrained:
        """The network itself."""
        if self._held is None:
            try:
                found = self._build()
            except (WeightsError, RunError) as error:
                said = "type pretrained.weights=" in str(error)
                raise WeightsError(f"{error}" if said else f"{error}; {self._way}") from None
            refuse_other(self.facts, found.facts, self._way)
            found.to(self.device)
            self._held = found
        return self._held

    def to(self, device: torch.device | str) -> None:
        """Where it goes once it is read."""
        self.device = torch.device(device)
        if self._held is not None:
            self._held.to(device)

    def tensors(self) -> Iterator[Tensor]:
        """None until it is read."""
        yield from self._held.tensors() if self._held is not None else ()

    def shapes_only(self) -> Pretrained:
        """As the network itself."""
        return self.held.shapes_only()

    def __call__(self, *inputs: Any) -> Any:
        """As the network itself."""
        return self.held(*inputs)

    def maps(self, *inputs: Any, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """As the network itself."""
        return self.held.maps(*inputs, layers=layers)

    def of_levels(self, levels: Tensor) -> Tensor:
        """As the network itself."""
        return self.held.of_levels(levels)

    def channels_of(self, layers: Sequence[str]) -> dict[str, int]:
        """As the network itself, which is not read for layers that the checkpoint tells of."""
        known = self.channels
        return {n: known[n] for n in layers} if set(layers) <= known.keys() else self.held.channels_of(layers)

    def check_layer(self, layer: str, key: str | None = None) -> None:
        """As the network itself."""
        self.held.check_layer(layer, key)

    def maps_of_levels(self, levels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """As the network itself."""
        return self.held.maps_of_levels(levels, layers)


def refuse_other(before: PretrainedFacts, now: PretrainedFacts, way: str) -> None:
    """Raise WeightsError unless both are of the same network. way: what to type."""
    changed = before.differences(now)
    if changed:
        raise WeightsError(f"the pretrained network is another one than the run was trained with: {changed}; {way}")
