"""Layers that use several samples at once: minibatch discrimination and deviation, virtual batch normalisation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gancli.compute.dist import gathered, gathered_from
from gancli.nets.layers.noise import Noisy

REFERENCE = 64  # rows of a reference batch
GROUP_EPS = 1e-8  # of a group's deviation


class MinibatchDiscrimination(nn.Module):
    """Concatenates to each sample its similarity to the rest of its batch (Salimans et al. 2016, section 3.2).

    [B, width] -> [B, width + kernels]: the sum over the others of exp(-‖M_i - M_j‖₁) for each of `kernels` maps M to
    `dims` numbers. couples: the batch must not be split, nor contain both real and fake samples.

    >>> layer = MinibatchDiscrimination(1, kernels=1, dims=1); _ = nn.init.ones_(layer.maps)
    >>> [round(v, 4) for v in layer(torch.tensor([[0.0], [0.0], [1.0]]))[:, 1].tolist()]  # 1 + e^-1, twice; 2 e^-1
    [1.3679, 1.3679, 0.7358]
    """

    couples: ClassVar[Literal["all"]] = "all"
    across = False  # whether the batch in training is that of all ranks

    def __init__(self, width: int, kernels: int, dims: int = 5):
        super().__init__()
        self.maps = nn.Parameter(torch.randn(width, kernels, dims) * 0.05)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width] -> [B, width + kernels]."""
        mapped = torch.einsum("bw,wkd->bkd", x, self.maps)
        others = gathered(mapped) if self.across and self.training else mapped
        distance = (mapped[:, None] - others[None]).abs().sum(3)
        near = (-distance).exp().sum(1) - 1  # less the sample itself
        return torch.cat([x, near], 1)


class MinibatchDeviation(nn.Module):
    """Concatenates to each sample the standard deviation of its group, as a map (Karras et al. 2018, section 3).

    [B, C, H, W] -> [B, C + 1, H, W]: the deviation over the group of each value, its mean over channels and pixels. As
    in the released code the B / group groups are strided: sample i is in group i mod (B / group). group: samples in
    one, or fewer if B is no multiple: the largest divisor of B. couples: the batch must not be split, nor contain both
    real and fake samples.

    >>> layer = MinibatchDeviation(group=2)
    >>> [round(v, 4) for v in layer(torch.tensor([0.0, 0.0, 2.0, 6.0]).view(4, 1, 1, 1))[:, 1].flatten().tolist()]
    [1.0, 3.0, 1.0, 3.0]
    """

    couples: ClassVar[Literal["all"]] = "all"
    across = False  # whether the batch in training is that of all ranks

    def __init__(self, group: int = 4):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C + 1, H, W]."""
        rows, first = gathered_from(x) if self.across and self.training else (x, 0)
        if rows.dtype == torch.float16:
            rows = rows.float()  # the eps below would be 0
        size = next(k for k in range(min(self.group, len(rows)), 0, -1) if len(rows) % k == 0)
        groups = rows.reshape(size, len(rows) // size, *rows.shape[1:])
        spread = (groups.var(0, correction=0) + GROUP_EPS).sqrt().mean((1, 2, 3))
        own = spread.repeat(size)[first : first + len(x)].to(x.dtype)
        return torch.cat([x, own.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])], 1)


class VirtualBatchNorm(nn.Module):
    """Batch norm by the statistics of a fixed reference batch and the sample (Salimans et al. 2016, section 3.5).

    The network puts `rows` reference samples before the batch. A sample's mean and second moment are those of the
    reference rows and itself, with weight 1 / (rows + 1) each, so no sample depends on another.
    [rows + B, C] or [rows + B, C, H, W].

    >>> out = VirtualBatchNorm(1, rows=2, eps=0.0)(torch.tensor([[0.0], [3.0], [6.0]]))
    >>> round(out[2].item(), 4)  # of 0, 3 and 6: mean 3, variance 6
    1.2247
    """

    def __init__(self, channels: int, rows: int = REFERENCE, eps: float = 1e-5):
        super().__init__()
        self.rows, self.eps = rows, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Normalise each channel of each sample over pixels and the reference batch."""
        pixels = tuple(range(2, input.dim()))
        mean = input.mean(pixels) if pixels else input
        square = input.square().mean(pixels) if pixels else input.square()
        share = 1 / (self.rows + 1)
        reference = (mean[: self.rows].mean(0), square[: self.rows].mean(0))
        # Reference rows are normalised by the reference alone, the others by the reference and themselves.
        own = torch.cat([mean.new_zeros(self.rows), mean.new_full((len(mean) - self.rows,), share)])[:, None]
        mean = torch.lerp(reference[0].expand_as(mean), mean, own)
        square = torch.lerp(reference[1].expand_as(square), square, own)
        scale = self.weight * (square - mean.square() + self.eps).rsqrt()
        shape = (*mean.shape, *[1] * len(pixels))
        return torch.addcmul((self.bias - mean * scale).view(shape), input, scale.view(shape))


class Referenced(nn.Module):
    """A network with virtual batch norms: contains their reference batch and puts it before each batch.

    The reference batch is random until `refer` sets it; checkpoints contain it.
    """

    reference: Tensor

    def __init__(self, body: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self.body = body
        self.register_buffer("reference", torch.randn(REFERENCE, *shape))
        for module in body.modules():
            if isinstance(module, Noisy):
                module.before = REFERENCE

    @torch.no_grad()
    def refer(self, batch: Tensor) -> None:
        """Set the reference batch, [REFERENCE, *shape]."""
        self.reference.copy_(batch)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] -> the body's output for these rows only."""
        out: Tensor = self.body(torch.cat([self.reference.to(x.dtype), x]))[REFERENCE:]
        return out


def unwrapped(body: nn.Module) -> nn.Sequential:
    """The layers of a body, with a reference batch or without."""
    layers = body.body if isinstance(body, Referenced) else body
    assert isinstance(layers, nn.Sequential)
    return layers
