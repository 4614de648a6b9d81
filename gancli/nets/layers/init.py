"""Weight initialisations of the papers: functions that fill a tensor from torch's default generator."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Init = Callable[[Tensor], Tensor]

RELU_GAIN = math.sqrt(2)  # a ReLU halves the second moment; this gain restores it


def normal(std: float = 0.02, mean: float = 0.0) -> Init:
    """N(mean, std²), as in DCGAN (Radford et al. 2016, section 4)."""
    return lambda weight: nn.init.normal_(weight, mean, std)


def uniform(bound: float) -> Init:
    """U(±bound)."""
    return lambda weight: nn.init.uniform_(weight, -bound, bound)


def xavier(gain: float = 1.0) -> Init:
    """U(±gain √(6 / (fan in + fan out))), as in SNGAN; fans count a kernel's taps (Glorot and Bengio 2010, eq. 16)."""
    return lambda weight: nn.init.xavier_uniform_(weight, gain)


def he(gain: float = RELU_GAIN) -> Init:
    """U(±gain √(3 / fan in)), with √2 that of WGAN-GP before a ReLU (He et al. 2015, eq. 10)."""
    return lambda weight: uniform(gain * math.sqrt(3 / weight[0].numel()))(weight)


def orthogonal(gain: float = 1.0) -> Init:
    """Orthonormal rows or columns of the weight as a matrix, as in BigGAN (Saxe et al. 2014)."""
    return lambda weight: nn.init.orthogonal_(weight, gain)


def dcgan_(net: nn.Module) -> None:
    """Initialise as DCGAN: convolutions N(0, 0.02²), norms' gains N(1, 0.02²), biases 0 (Radford et al. 2016, 4)."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            normal(0.02)(module.weight)
        elif isinstance(module, (_BatchNorm, nn.GroupNorm)) and module.affine:
            normal(0.02, mean=1.0)(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
