"""The layers of a convolutional network at which its maps have strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError

Layers = list[str] | Literal["stages"] | None
STRIDES, SIDE = (4, 8, 16, 32), 256


def named_layers(layers: Layers, net: nn.Module, trunk: nn.Module, where: str) -> list[str]:
    """Return the layers' names, those of `trunk`; "stages" are found by a forward pass of `net`.

    where: the config group. Raises ConfigError for a network without maps of these strides.
    """
    if layers != "stages":
        return list(layers or ())
    found = last_of_strides(net, trunk)
    if len(found) < len(STRIDES):
        missing = ", ".join(str(stride) for stride in STRIDES if stride not in found)
        raise ConfigError(
            f"{where}.layers=stages: this network has no maps of stride {missing}: type {where}.layers=[NAME,...]"
        )
    return [found[stride] for stride in STRIDES]


@torch.no_grad()
def last_of_strides(net: nn.Module, trunk: nn.Module) -> dict[int, str]:
    """Return, for each stride, the last module of `trunk` whose output is a map of it, of those nested least.

    So a stage ends with a whole block, not with the first layers of the block that halves the map.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 2, 2)))
    >>> last_of_strides(net, net)
    {4: '0', 8: '1'}
    """
    found: dict[int, str] = {}
    sides = {SIDE // stride: stride for stride in STRIDES}

    def noted(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not (isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] == output.shape[3] in sides):
                return
            stride = sides[int(output.shape[2])]
            if stride not in found or name.count(".") <= found[stride].count("."):
                found[stride] = name

        return hook

    handles = [module.register_forward_hook(noted(name)) for name, module in trunk.named_modules() if name]
    try:
        net.eval()(torch.zeros(1, 3, SIDE, SIDE))
    # A network for another size, or without the expected methods, has no maps of these strides.
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
        found.clear()
    finally:
        for handle in handles:
            handle.remove()
    return dict(sorted(found.items()))
