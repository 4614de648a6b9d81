"""The SNGAN's networks and training cycle written the usual way: what the project's own are compared with.

Same weights and singular vectors as the networks given (shared, not copied), plain upsampling and pooling around 3x3
convolutions, a power iteration at every forward pass unless held.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers.conv import Conv
from gancli.nets.layers.spectral import Weighted, as_matrix, as_weight
from gancli.nets.resnet import Block, Discriminator, Generator


class TextbookWeight(nn.Module):
    """The weight of one of our layers with the usual spectral norm: the vectors move whenever the layer is used."""

    def __init__(self, layer: Weighted):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.u, self.v, self.hold = layer.u, layer.v, False

    def normal(self) -> Tensor:
        if self.u is None:
            return self.weight
        matrix = as_matrix(self.weight)
        if not self.hold:
            with torch.no_grad():
                v = F.normalize(matrix.t().mv(self.u), dim=0, eps=1e-12)
                self.u.copy_(F.normalize(matrix.mv(v), dim=0, eps=1e-12))
                self.v.copy_(as_weight(v, like=self.weight))
        # Copies, as in torch's own: the next pass moves the vectors while this pass's graph still needs them.
        u, v = self.u.clone(), as_matrix(self.v.clone(), like=self.weight).squeeze(0)
        sigma = torch.dot(u, matrix.mv(v))
        return self.weight / sigma


class TextbookConv(TextbookWeight):
    def __init__(self, layer: Conv):
        super().__init__(layer)
        self.padding = layer.kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normal(), self.bias, padding=self.padding)


class TextbookLinear(TextbookWeight):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normal(), self.bias)


class TextbookBlock(nn.Module):
    """Upsample, then convolve; convolve, then pool. The first block of D pools before its 1x1 shortcut, as released."""

    def __init__(self, block: Block):
        super().__init__()
        self.first = block.norm1 is None
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.conv1, self.conv2 = TextbookConv(block.conv1), TextbookConv(block.conv2)
        self.shortcut = None if block.shortcut is None else TextbookConv(block.shortcut)
        self.up, self.down = block.conv1.resample == "up", block.conv2.resample == "down"

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else F.relu(self.norm1(x))
        h = self.conv1(F.interpolate(h, scale_factor=2) if self.up else h)
        h = self.conv2(F.relu(self.norm2(h), inplace=True))
        h = F.avg_pool2d(h, 2) if self.down else h
        return h + self._skip(x)

    def _skip(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return x
        if self.first:
            return self.shortcut(F.avg_pool2d(x, 2))
        x = self.shortcut(F.interpolate(x, scale_factor=2) if self.up else x)
        return F.avg_pool2d(x, 2) if self.down else x


class TextbookGenerator(nn.Module):
    def __init__(self, net: Generator):
        super().__init__()
        self.dense, self.conv, self.norm, self.base = (
            TextbookLinear(net.dense),
            TextbookConv(net.conv),
            net.norm,
            net.base,
        )
        self.blocks = nn.ModuleList(map(TextbookBlock, net.blocks))

    def forward(self, z: Tensor) -> Tensor:
        h = self.dense(z).view(len(z), -1, *self.base)
        for block in self.blocks:
            h = block(h)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))


class TextbookDiscriminator(nn.Module):
    def __init__(self, net: Discriminator):
        super().__init__()
        self.blocks = nn.ModuleList(map(TextbookBlock, net.blocks))
        self.head = TextbookLinear(net.head)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(F.relu(x).sum((2, 3))).squeeze(1)


def hold(net: nn.Module, still: bool) -> None:
    """Whether the power iterations of a textbook network stand still."""
    for module in net.modules():
        if isinstance(module, TextbookWeight):
            module.hold = still


def textbook_cycle(
    G: nn.Module,
    D: nn.Module,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    x: Tensor,
    z: Tensor,
) -> None:
    """One step of D and one of G under the hinge loss; z is [2, B, latent_dim]. D keeps its gradients in G's step."""
    d_optimizer.zero_grad()
    fake = G(z[0]).detach()
    loss = F.relu(1 - D(x)).mean() + F.relu(1 + D(fake)).mean()
    loss.backward()
    d_optimizer.step()
    g_optimizer.zero_grad()
    (-D(G(z[1])).mean()).backward()
    g_optimizer.step()
