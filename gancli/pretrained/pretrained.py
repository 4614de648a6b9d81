"""Frozen pretrained networks: the features and layers that networks, games, loss terms and metrics read."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError, RunError, WeightsError, suggestion
from gancli.nets.layers.spectral import full_precision
from gancli.pretrained.prepare import Prepare

OWN = ("random", "run#")  # starts of names of networks of no training or a run's
# Words in the names of networks that were not trained on ImageNet's classes.
ELSEWHERE = frozenset({"clip", "siglip", "dinov2", "dinov3"})


@dataclass(frozen=True)
class PretrainedFacts:
    """What configurations and checkpoints record of a pretrained network: enough to build networks on its features.

    sha256: of its weights. dim: length of its final features, 0 if it has none. channels: of its layers, by name.
    """

    name: str
    sha256: str
    dim: int
    channels: Mapping[str, int]

    @property
    def of_imagenet(self) -> bool:
        """Whether the network was trained on ImageNet's classes: all but random ones, a run's own, CLIP and DINOv2.

        >>> [PretrainedFacts(name, "", 8, {}).of_imagenet for name in ("vgg16", "random", "run#D", "clip_vit_b_32")]
        [True, False, False, False]
        """
        return not (self.name.startswith(OWN) or ELSEWHERE & set(re.split(r"[^a-z0-9]", self.name.lower())))

    @staticmethod
    def read(plain: Mapping[str, Any]) -> PretrainedFacts:
        """Return the facts that a checkpoint records."""
        layers = {str(name): int(count) for name, count in dict(plain["layers"]).items()}
        return PretrainedFacts(str(plain["name"]), str(plain["sha256"]), int(plain["dim"]), layers)

    def plain(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {"name": self.name, "sha256": self.sha256, "dim": self.dim, "layers": dict(self.channels)}

    def differences(self, now: PretrainedFacts) -> str:
        """Describe how another network differs; empty for the same one.

        >>> facts = PretrainedFacts("vgg16", "ab" * 32, 4096, {"features.3": 64})
        >>> facts.differences(PretrainedFacts("vgg16", "cd" * 32, 4096, {}))
        'SHA-256 abababab... -> cdcdcdcd...; layers features.3 -> none'
        """

        def shown(facts: PretrainedFacts) -> dict[str, str]:
            layers = ", ".join(facts.channels) or "none"
            return {"name": facts.name, "SHA-256": f"{facts.sha256[:8]}...", "layers": layers}

        pairs = [(name, old, shown(now)[name]) for name, old in shown(self).items()]
        changed = "; ".join(f"{name} {old} -> {new}" for name, old, new in pairs if old != new)
        return changed or ("" if self == now else "same name, different contents")


class Pretrained:
    """A network that is never trained. Not an nn.Module, so that no optimizer, checkpoint or requires_grad reaches it.

    An object that keeps it as an attribute shares it with its copies. Calls are differentiable with respect to the
    inputs. prepare: converts levels (0 ... 255) to the input of `net`; None: inputs go to `net` unchanged. trunk: the
    network whose layers are addressed by name; None: `net`. layers: those that `maps` returns by default. dim: length
    of the final features [B, dim], 0 if `net` returns something else. head: the layer that turns features into class
    scores, if there is one. says: describes the final features. where: the config group that requested it, for
    messages. Raises ConfigError for a missing layer.
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
        self._runs: dict[str, int] = {}  # how often a forward pass runs each requested layer
        self.to("cpu")
        self.channels: dict[str, int] = {}
        if self.layers:
            self.channels = self.channels_of(self.layers)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretrained:
        """Return itself: copies of a network that holds it share it, since it never changes."""
        return self

    @property
    def facts(self) -> PretrainedFacts:
        """The facts that a checkpoint records."""
        return PretrainedFacts(self.name, self.sha256, self.dim, self.channels)

    def to(self, device: torch.device | str) -> None:
        """Move the network, in channels-last format, in which convolutions are faster."""
        self.device = torch.device(device)
        self.net.to(self.device)
        self.net.to(memory_format=torch.channels_last)

    def tensors(self) -> Iterator[Tensor]:
        """Yield all parameters and buffers, for counting."""
        yield from self.net.parameters()
        yield from self.net.buffers()

    def shapes_only(self) -> Pretrained:
        """Return the same network without memory, on the meta device, for counting operations."""
        empty: dict[int, Any] = {id(t): torch.empty_like(t, device="meta") for t in self.tensors()}
        for parameter in self.net.parameters():
            empty[id(parameter)] = nn.Parameter(empty[id(parameter)], requires_grad=False)
        other = copy.copy(self)
        other.net, other.trunk = copy.deepcopy((self.net, self.trunk), empty)
        other.device = torch.device("meta")
        return other

    def __call__(self, *inputs: Any) -> Any:
        """Images [B, C, H, W] in [-1, 1], of any size, C 1 or 3 -> the final features [B, dim].

        Without preprocessing: the network's own inputs and outputs.
        """
        return self.net(*self._prepared(inputs))

    def maps(self, *inputs: Any, layers: Sequence[str] | None = None, resize: bool = True) -> dict[str, Tensor]:
        """Return the outputs of inner layers for the same inputs, by name: [B, channels, h, w] for convolutions.

        layers: None: the configured ones. resize: false: images keep their size, whatever the preprocessing's is.
        Raises ConfigError if there are no layers, or if one is missing.
        """
        return self._maps(self._prepared(inputs, resize), layers)

    def of_levels(self, levels: Tensor) -> Tensor:
        """Return the final features of levels in 0 ... 255, as in uint8 images."""
        found: Tensor = self.net(self._eaten(levels))
        return found

    def maps_of_levels(self, levels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return what `maps` does, for levels in 0 ... 255."""
        return self._maps((self._eaten(levels),), layers)

    def _eaten(self, levels: Tensor) -> Tensor:
        assert self.prepare is not None
        self._compute_in([levels])
        with full_precision(levels):
            return self.prepare(levels)

    def _compute_in(self, inputs: Sequence[Any]) -> torch.dtype:
        """Let the network compute in float64 if any input is float64, else in float32."""
        double = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in inputs)
        dtype = torch.float64 if double else torch.float32
        if dtype != self._dtype:  # float64 holds every float32: converting back loses nothing
            self.net.to(dtype)
            self._dtype = dtype
        return dtype

    def _prepared(self, inputs: Sequence[Any], resize: bool = True) -> Sequence[Any]:
        """Prepare inputs for the network, in float64 if they are, else in float32, even under autocast."""
        dtype = self._compute_in(inputs)
        if self.prepare is None:
            return [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]
        (x,) = inputs
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ConfigError(
                f"{self.where}={self.name} takes images of 1 or 3 channels, but was given {list(x.shape[1:])}:"
                f" choose another data set, or {self.where}=none"
            )
        with full_precision(x):
            return [self.prepare((x.to(dtype) + 1) * 127.5, cut=False, resize=resize)]

    def _maps(self, inputs: Sequence[Any], layers: Sequence[str] | None) -> dict[str, Tensor]:
        wanted = tuple(self.layers if layers is None else dict.fromkeys(layers))
        if not wanted:
            raise ConfigError(f"{self.where}={self.name} returns layers only if they are named: type {self._key}")
        for name in wanted:
            self.check_layer(name)
        left = sum(self._runs.get(name, 0) for name in wanted) if all(n in self._runs for n in wanted) else None
        found: dict[str, Any] = {}
        runs = dict.fromkeys(wanted, 0)

        def caught(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                runs[name] += 1
                last = sum(runs.values()) == left
                # A later layer may overwrite it in place; after the last requested one, none runs.
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
                raise ConfigError(f"{self.where}: the layer {name} of {self.name} returns no tensor: type {self._key}")
        return {name: found[name] for name in wanted}

    @property
    def _key(self) -> str:
        return f"{self.where}.layers=[NAME,...]"

    def check_layer(self, layer: str, key: str | None = None) -> None:
        """Raise ConfigError for a layer that this network lacks. key: the key that named it."""
        names = [name for name, _ in self.trunk.named_modules() if name]
        if layer not in names:
            near = [name for name in names if name.count(".") <= 1]
            typed = f"{key or f'{self.where}.layers'}={layer}"
            raise ConfigError(f"{typed}: this network has no such layer; {suggestion(layer, near)}")

    @torch.no_grad()
    def channels_of(self, layers: Sequence[str]) -> dict[str, int]:
        """Return the number of channels of layers, measured with one image. Raises ConfigError for a missing layer."""
        if self.prepare is None:
            raise ConfigError(f"{self.where}.layers is not supported for {self.name}: leave it out")
        side = self.prepare.size or 64
        return {name: x.shape[1] for name, x in self.maps(torch.zeros(1, 3, side, side), layers=layers).items()}


class _Reached(Exception):  # noqa: N818
    """Not an error: the last requested layer has run, so the forward pass stops."""


class LazyPretrained(Pretrained):
    """A pretrained network known by a checkpoint's facts, and loaded on first use.

    So sampling from a generator that does not use its features needs no weights file. Constructors find the
    checkpoint's facts in it: name, dim and channels. build: loads it. Raises WeightsError if the loaded network is
    another one. way: what to type instead.
    """

    def __init__(self, facts: PretrainedFacts, build: Callable[[], Pretrained], way: str):
        self.name, self.dim, self.sha256 = facts.name, facts.dim, facts.sha256
        self.channels, self.layers, self.notes = dict(facts.channels), tuple(facts.channels), ()
        self.device = torch.device("cpu")
        self._build, self._way = build, way
        self._held: Pretrained | None = None

    def read(self) -> None:
        """Load and verify it now."""
        assert self.held

    @property
    def held(self) -> Pretrained:
        """The network itself, loaded on first access."""
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
        """Set the device, also for when it is loaded later."""
        self.device = torch.device(device)
        if self._held is not None:
            self._held.to(device)

    def tensors(self) -> Iterator[Tensor]:
        """Yield nothing until it is loaded."""
        yield from self._held.tensors() if self._held is not None else ()

    def shapes_only(self) -> Pretrained:
        """See `Pretrained`."""
        return self.held.shapes_only()

    def __call__(self, *inputs: Any) -> Any:
        """See `Pretrained`."""
        return self.held(*inputs)

    def maps(self, *inputs: Any, layers: Sequence[str] | None = None, resize: bool = True) -> dict[str, Tensor]:
        """See `Pretrained`."""
        return self.held.maps(*inputs, layers=layers, resize=resize)

    def of_levels(self, levels: Tensor) -> Tensor:
        """See `Pretrained`."""
        return self.held.of_levels(levels)

    def channels_of(self, layers: Sequence[str]) -> dict[str, int]:
        """See `Pretrained`; layers whose channels the checkpoint records do not load the network."""
        known = self.channels
        return {n: known[n] for n in layers} if set(layers) <= known.keys() else self.held.channels_of(layers)

    def check_layer(self, layer: str, key: str | None = None) -> None:
        """See `Pretrained`."""
        self.held.check_layer(layer, key)

    def maps_of_levels(self, levels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """See `Pretrained`."""
        return self.held.maps_of_levels(levels, layers)


def refuse_other(before: PretrainedFacts, now: PretrainedFacts, way: str) -> None:
    """Raise WeightsError unless both describe the same network. way: what to type."""
    changed = before.differences(now)
    if changed:
        raise WeightsError(f"the pretrained network is not the one that the run was trained with: {changed}; {way}")
