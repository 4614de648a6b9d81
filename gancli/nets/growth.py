"""Progressive growing: networks whose images start small and double, each new size faded in (Karras et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.shapes import base, halvings, image, positive


class Growth(nn.Module):
    """How far a network has grown: how often its base is doubled, and the share of the newest size's block.

    most: doublings of the complete network, which it starts with. `state` holds both numbers for checkpoints; `share`,
    in [0, 1], is a tensor, so that a compiled network does not depend on its value.
    """

    state: Tensor

    def __init__(self, most: int):
        super().__init__()
        self.most, self.doublings, self.fading = most, most, False
        self.register_buffer("state", torch.tensor([float(most), 1.0]))

    @property
    def share(self) -> Tensor:
        """The share of the newest block, a scalar on the device."""
        return self.state[1]

    def set(self, doublings: int, share: float = 1.0) -> None:
        """Set how far the network has grown; a share below 1 fades the newest size in."""
        self.doublings, self.fading = doublings, share < 1
        self.state[0].fill_(doublings)
        self.state[1].fill_(share)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        if self.state.is_meta:
            return
        doublings, share = self.state.tolist()
        if not (doublings.is_integer() and 0 <= doublings <= self.most and 0 <= share <= 1):
            raise ValueError(f"a network of {self.most} doublings cannot have grown to {doublings:g} and {share:g}")
        self.set(int(doublings), share)


def growth_of(net: nn.Module) -> Growth | None:
    """The growth of a network; None if it does not grow."""
    found = getattr(net, "growth", None)
    return found if isinstance(found, Growth) else None


def plan(shape: tuple[int, ...], model: str, ch_base: int, ch_max: int) -> tuple[int, tuple[int, int], list[int]]:
    """The image's channels, the size of the base, and the features' channels at each size from the base up.

    These are ch_base / side, at most ch_max, for square powers of two. Raises ConfigError for points, sides
    that do not halve, and counts below 1.

    >>> plan((3, 64, 64), "progan", 16384, 512)
    (3, (4, 4), [512, 512, 512, 512, 256])
    """
    channels, height, width = image(shape, model)
    small = base(height, width)
    doublings = halvings(min(height, width))
    if small is None or not doublings:
        raise ConfigError(
            f"model={model} generates images whose sides halve exactly until the shorter one has 4 to 7 pixels, not"
            f" {height}x{width}: set dataset.size=[C,SIDE,SIDE] with SIDE such as 32, 64 or 128, or use model=dcgan"
        )
    positive("model.ch_base", ch_base)
    positive("model.ch_max", ch_max)
    return channels, small, [max(1, min(ch_base // (4 << k), ch_max)) for k in range(doublings + 1)]


def faded(old: Tensor, new: Tensor, share: Tensor) -> Tensor:
    """Mix the outputs of an old and of a new size; in float32 at least, in which a share near 1 is not 1."""
    dtype = torch.promote_types(new.dtype, torch.float32)
    return torch.lerp(old.to(dtype), new.to(dtype), share.to(dtype))


def doubled(x: Tensor, times: int = 1) -> Tensor:
    """Nearest-neighbour upsampling by 2^times, [B, C, H, W] -> [B, C, H · 2^times, W · 2^times]."""
    return F.interpolate(x, scale_factor=float(1 << times), mode="nearest") if times else x


def halved(x: Tensor, times: int = 1) -> Tensor:
    """Means of blocks of 2^times pixels a side; the inverse of `doubled`."""
    return F.avg_pool2d(x, 1 << times) if times else x
