"""What the extractors of ordinary networks share: resize, normalise, run; weights fitted whatever prefix they bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.config.settings import at_least
from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor

# What trainers put before a network's own names: data parallelism, Lightning, and the robustness libraries.
PREFIXES = ("module.", "model.", "attacker.", "backbone.", "net.", "_orig_mod.")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Preparation:
    """What is done to images before a network sees them, as its training had it.

    size: pixels a side, reached by an antialiased bicubic filter, the aspect given up as FID's extractor does. mean,
    std: of the channels, of values in [0, 1].
    """

    size: int
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, 3, size, size].

        >>> Preparation(2, [0.5] * 3, [0.5] * 3)(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)).unique().tolist()
        [-1.0]
        """
        x = images.float()
        if x.shape[2:] != (self.size, self.size):
            # A bicubic filter overshoots: cut back to what an image can hold.
            x = F.interpolate(x, [self.size, self.size], mode="bicubic", antialias=True, align_corners=False)
            x = x.clamp(0, 255)
        mean, std = (x.new_tensor(list(v)).view(3, 1, 1) for v in (self.mean, self.std))
        return (x / 255 - mean) / std

    def protocol(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "resize": f"antialiased bicubic, to {self.size}x{self.size}",
            "normalisation": {"mean": list(self.mean), "std": list(self.std)},
        }


class Pretrained(Extractor):
    """A network with its preparation, as an extractor.

    net: prepared images to features [B, dim]. head: what turns features into class scores, where there is such a layer.
    prepare: uint8 images to what the net eats; None: the net takes them as they are and `told` says what it does.
    told: more for the protocol. batch_size: images at once; None: 16 on a CPU, 64 elsewhere.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        dim: int,
        sha256: str,
        *,
        prepare: Preparation | None,
        head: nn.Linear | None = None,
        batch_size: int | None = None,
        told: Mapping[str, Any] | None = None,
    ):
        at_least(1, **{"extractor.batch_size": batch_size})
        self.name, self.dim, self.sha256 = name, dim, sha256
        self.classes = head.out_features if head is not None else 0
        self._net, self._prepare, self._head = net.eval().requires_grad_(False), prepare, head
        self._told, self._wanted = dict(told or {}), batch_size
        self.to("cpu")

    @property
    def batch_size(self) -> int:
        """Images at once."""
        return self._wanted or (16 if self._device.type == "cpu" else 64)

    def to(self, device: torch.device | str) -> None:
        """Move the network; channels-last, which convolutions go through sooner."""
        self._device = torch.device(device)
        self._net.to(self._device)
        self._net.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] on any device -> float32 [B, dim] on the CPU."""
        x = images.to(self._device, non_blocking=True)
        found = self._net(self._prepare(x) if self._prepare else x)
        vectors: Tensor = found[0] if isinstance(found, tuple) else found
        return vectors.float().cpu()

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """float32 [N, dim] -> [N, classes], both on the CPU."""
        assert self._head is not None
        bias = None if self._head.bias is None else self._head.bias.to(features)
        return F.linear(features, self._head.weight.to(features), bias)

    def protocol(self) -> dict[str, Any]:
        """Name, weights, resize and normalisation, as plain JSON values."""
        prepared = self._prepare.protocol() if self._prepare else {}
        told = {"extractor": self.name, "weights_sha256": self.sha256, "features": f"{self.dim}"}
        return told | prepared | self._told | {"device": self._device.type}


def fit(net: nn.Module, state: Mapping[str, Tensor], path: str, what: str) -> None:
    """Load a state dict into `net`, without the prefixes that trainers add. Raises MetricError where it does not fit.

    Robustly trained networks often hold their normalisation and a copy for the attack beside the weights: what is not
    this network's is left out, what is missing is refused.
    """
    wanted = net.state_dict()
    loaded = stripped(state, wanted)
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in loaded]
    odd = [name for name in needed if name in loaded and loaded[name].shape != wanted[name].shape]
    if missing or odd:
        lack = f"lacks {missing[0]}" if missing else f"has {odd[0]} of shape {list(loaded[odd[0]].shape)}"
        raise MetricError(
            f"{path} belongs to another network than {what}: it {lack} ({len(missing) + len(odd)} of {len(needed)} "
            "tensors do not fit); type extractor.weights=FILE with its state dict, or another extractor.arch"
        )
    net.load_state_dict({name: loaded.get(name, wanted[name]) for name in wanted})


def stripped(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of `state` that name something in `wanted`, after any number of known prefixes.

    Where several do, the one with the fewest prefixes counts: the network itself, not the attacker's copy of it.
    """
    found: dict[str, tuple[int, Tensor]] = {}
    for name, value in state.items():
        depth, rest = 0, name
        while rest not in wanted:
            prefix = next((p for p in PREFIXES if rest.startswith(p)), None)
            if prefix is None:
                break
            depth, rest = depth + 1, rest.removeprefix(prefix)
        if rest in wanted and (rest not in found or depth < found[rest][0]):
            found[rest] = depth, value
    return {name: value for name, (_, value) in found.items()}
