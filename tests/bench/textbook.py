"""The residual networks and their training cycle written the usual way: what the project's own are compared with.

Same weights and singular vectors as the networks given (shared, not copied), plain upsampling and pooling around 3x3
convolutions, attention by matrix products, a power iteration at every forward pass unless held.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers.attention import Attention
from gancli.nets.layers.condition import Judge
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.norms import BatchNorm2d, LabelBatchNorm2d, LinearBatchNorm2d, NoNorm
from gancli.nets.layers.spectral import Weighted, as_matrix, as_weight
from gancli.nets.resnet import Block, Discriminator, Generator


class TextbookWeight(nn.Module):
    """The weight of one of our layers with the usual spectral norm: the vectors move whenever the layer is used."""

    def __init__(self, layer: Weighted):
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, getattr(layer, "bias", None), layer.eps
        self.u, self.v, self.hold = layer.u, layer.v, False

    def normal(self) -> Tensor:
        if self.u is None:
            return self.weight
        matrix = as_matrix(self.weight)
        if not self.hold:
            with torch.no_grad():
                v = F.normalize(matrix.t().mv(self.u), dim=0, eps=self.eps)
                self.u.copy_(F.normalize(matrix.mv(v), dim=0, eps=self.eps))
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


class TextbookEmbedding(TextbookWeight):
    def forward(self, y: Tensor) -> Tensor:
        return F.embedding(y, self.normal())


class TextbookNorm(nn.Module):
    """Batch norm, then a gain and a bias of each sample where the layer is conditional."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm, kind = norm, {LabelBatchNorm2d: TextbookEmbedding, LinearBatchNorm2d: TextbookLinear}.get(type(norm))
        self.gain = kind(norm.gain) if kind else None
        self.shift = kind(norm.shift) if kind else None
        self.offset = 1.0 if kind is TextbookLinear else 0.0

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        if self.gain is None:
            return self.norm(x)
        gain, shift = (self.offset + self.gain(y))[:, :, None, None], self.shift(y)[:, :, None, None]
        return BatchNorm2d.forward(self.norm, x) * gain + shift


class TextbookAttention(nn.Module):
    def __init__(self, layer: Attention):
        super().__init__()
        self.theta, self.phi, self.g, self.o = (TextbookConv(c) for c in (layer.theta, layer.phi, layer.g, layer.o))
        self.gamma = layer.gamma

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        theta = self.theta(x).reshape(b, -1, h * w)
        phi = F.max_pool2d(self.phi(x), 2).reshape(b, -1, h * w // 4)
        g = F.max_pool2d(self.g(x), 2).reshape(b, -1, h * w // 4)
        beta = F.softmax(torch.bmm(theta.transpose(1, 2), phi), -1)
        o = self.o(torch.bmm(g, beta.transpose(1, 2)).view(b, -1, h, w))
        return self.gamma * o + x


class TextbookBlock(nn.Module):
    """Upsample, then convolve; convolve, then pool. The first block of D pools before its 1x1 shortcut, as released."""

    def __init__(self, block: Block):
        super().__init__()
        self.first = block.norm1 is None
        self.norm1 = None if self.first else TextbookNorm(block.norm1)
        self.norm2 = TextbookNorm(block.norm2)
        self.plain = isinstance(block.norm2, NoNorm)
        self.conv1, self.conv2 = TextbookConv(block.conv1), TextbookConv(block.conv2)
        self.shortcut = None if block.shortcut is None else TextbookConv(block.shortcut)
        self.up, self.down = block.conv1.resample == "up", block.conv2.resample == "down"

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = x if self.norm1 is None else F.relu(self.norm1(x, y))
        h = self.conv1(F.interpolate(h, scale_factor=2) if self.up else h)
        h = self.conv2(F.relu(self.norm2(h, y), inplace=True))
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
        self.condition, self.norm, self.base = net.condition, net.norm, net.base
        self.dense, self.conv = TextbookLinear(net.dense), TextbookConv(net.conv)
        self.blocks = nn.ModuleList(map(TextbookBlock, net.blocks))
        self.attention = nn.ModuleDict({k: TextbookAttention(layer) for k, layer in net.attention.items()})

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, heard = self.condition(z, y)
        h = self.dense(first).view(len(z), -1, *self.base)
        for k, block in enumerate(self.blocks):
            h = block(h, heard[k])
            if str(k) in self.attention:
                h = self.attention[str(k)](h)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))


class TextbookDiscriminator(nn.Module):
    def __init__(self, net: Discriminator):
        super().__init__()
        self.blocks = nn.ModuleList(map(TextbookBlock, net.blocks))
        self.attention = nn.ModuleDict({k: TextbookAttention(layer) for k, layer in net.attention.items()})
        head: Judge = net.head
        self.head = TextbookLinear(head.logit)
        self.embed = None if head.embed is None else TextbookEmbedding(head.embed)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        for k, block in enumerate(self.blocks):
            x = block(x)
            if str(k) in self.attention:
                x = self.attention[str(k)](x)
        h = F.relu(x).sum((2, 3))
        out = self.head(h).squeeze(1)
        return out if self.embed is None else out + (self.embed(y) * h).sum(1)


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
    y: Tensor | None = None,
) -> None:
    """One step of D and one of G under the hinge loss; z is [2, B, latent_dim]. D keeps its gradients in G's step."""
    d_optimizer.zero_grad()
    fake = G(z[0], y).detach()
    loss = F.relu(1 - D(x, y)).mean() + F.relu(1 + D(fake, y)).mean()
    loss.backward()
    d_optimizer.step()
    g_optimizer.zero_grad()
    (-D(G(z[1], y), y).mean()).backward()
    g_optimizer.step()
