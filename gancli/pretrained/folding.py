"""Batch norms of a frozen network, folded into the convolutions before them, so that no pass is left for them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def fold(net: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Replace each pair of a convolution and the batch norm after it, by name, by one convolution with a bias.

    With running statistics a norm is γ (x - μ) / √(σ² + ε) + β, which is linear. Products are computed in float64.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
    >>> net[1].running_mean.fill_(3.0); x = torch.ones(1, 1, 2, 2); before = net(x)
    tensor([3., 3.])
    >>> fold(net, [("0", "1")]); bool((net(x) - before).abs().max() < 1e-5), net[1]
    (True, Identity())
    """
    for of_conv, of_norm in pairs:
        conv, norm = net.get_submodule(of_conv), net.get_submodule(of_norm)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        start = 0.0 if conv.bias is None else conv.bias.double()
        shift = (start - norm.running_mean.double()) * scale + norm.bias.double()
        conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
        conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
        parent, _, name = of_norm.rpartition(".")
        setattr(net.get_submodule(parent), name, nn.Identity())
