"""pix2pix and CycleGAN in the plainest form that says what their released PyTorch code does, to compare ours with.

Nothing of ours is used here. One network a pass, modules as torch has them, losses one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, mse_loss


def norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


class UNet(nn.Module):
    """One level of the U-Net around the next one; `drop` stands in for the dropout of that level."""

    def __init__(
        self, level: int, depth: int, ch: int, inputs: int, outputs: int, kind: str = "batch", drop: bool = True
    ):
        super().__init__()
        wide, biased = ch * min(2**level, 8), kind == "instance"
        self.first, last = level == 0, level == depth - 1
        self.conv = nn.Conv2d(inputs, wide, 4, 2, 1, bias=biased)
        self.norm_down = nn.Identity() if self.first or last else norm(kind, wide)
        self.inner = None if last else UNet(level + 1, depth, ch, wide, wide, kind, drop)
        self.conv_up = nn.ConvTranspose2d(wide if last else 2 * wide, outputs, 4, 2, 1, bias=biased or self.first)
        self.norm_up = nn.Identity() if self.first else norm(kind, outputs)
        self.dropout = nn.Dropout(0.5) if drop and not last and level >= 4 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else torch.nn.functional.leaky_relu(x, 0.2)
        h = self.norm_down(self.conv(h))
        if self.inner is not None:
            h = self.inner(h)
        h = self.norm_up(self.conv_up(torch.relu(h)))
        return torch.tanh(h) if self.first else torch.cat([x, self.dropout(h)], 1)

    def levels(self) -> list[UNet]:
        return [self, *(self.inner.levels() if self.inner is not None else [])]


class Residual(nn.Module):
    def __init__(self, ch: int, kind: str):
        super().__init__()
        biased = kind == "instance"
        pair = [[nn.ReflectionPad2d(1), nn.Conv2d(ch, ch, 3, bias=biased), norm(kind, ch)] for _ in range(2)]
        self.body = nn.Sequential(*pair[0], nn.ReLU(), *pair[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def resnet(inputs: int, outputs: int, ch: int, blocks: int, kind: str = "instance") -> nn.Sequential:
    biased = kind == "instance"
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, ch, 7, bias=biased), norm(kind, ch), nn.ReLU()]
    for k in (1, 2):
        layers += [nn.Conv2d(k * ch, 2 * k * ch, 3, 2, 1, bias=biased), norm(kind, 2 * k * ch), nn.ReLU()]
    layers += [Residual(4 * ch, kind) for _ in range(blocks)]
    for k in (4, 2):
        up = nn.ConvTranspose2d(k * ch, k * ch // 2, 3, 2, 1, output_padding=1, bias=biased)
        layers += [up, norm(kind, k * ch // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ch, outputs, 7), nn.Tanh())


def patches(inputs: int, ch: int, layers: int = 3, kind: str = "batch") -> nn.Sequential:
    biased = kind == "instance"
    body: list[nn.Module] = [nn.Conv2d(inputs, ch, 4, 2, 1), nn.LeakyReLU(0.2)]
    for n in range(1, layers + 1):
        narrow, wide = ch * min(2 ** (n - 1), 8), ch * min(2**n, 8)
        body += [
            nn.Conv2d(narrow, wide, 4, 2 if n < layers else 1, 1, bias=biased),
            norm(kind, wide),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*body, nn.Conv2d(ch * min(2**layers, 8), 1, 4, 1, 1))


def adam(*nets: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(chain(*(net.parameters() for net in nets)), lr=2e-4, betas=(0.5, 0.999))


def bce(logits: Tensor, real: bool) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def square(logits: Tensor, real: bool) -> Tensor:
    return mse_loss(logits, torch.full_like(logits, float(real)))


class Pix2Pix:
    """One step: D on the fake and the real pair, half of the sum; then G on the same fake."""

    def __init__(self, G: nn.Module, D: nn.Module):
        self.G, self.D, self.adam_G, self.adam_D = G, D, adam(G), adam(D)

    def step(self, a: Tensor, b: Tensor) -> None:
        fake = self.G(a)
        self.adam_D.zero_grad()
        judged = self.D(torch.cat([a, fake.detach()], 1)), self.D(torch.cat([a, b], 1))
        ((bce(judged[0], False) + bce(judged[1], True)) / 2).backward()
        self.adam_D.step()
        self.adam_G.zero_grad()
        for p in self.D.parameters():
            p.requires_grad_(False)
        (bce(self.D(torch.cat([a, fake], 1)), True) + 100 * l1_loss(fake, b)).backward()
        self.adam_G.step()
        for p in self.D.parameters():
            p.requires_grad_(True)


class Remembered:
    """The pool, a list: decide(image number) says which old one is shown, None for the new one."""

    def __init__(self, size: int, decide: Callable[[int], int | None]):
        self.size, self.decide, self.images, self.count = size, decide, list[Tensor](), 0

    def query(self, fakes: Tensor) -> Tensor:
        shown = []
        for fake in fakes.detach():
            if len(self.images) < self.size:
                self.images.append(fake)
                shown.append(fake)
            else:
                old = self.decide(self.count)
                shown.append(fake if old is None else self.images[old])
                if old is not None:
                    self.images[old] = fake
            self.count += 1
        return torch.stack(shown)


class CycleGAN:
    """One step: both G at once, D frozen or not; then D_A and D_B on what the pools return."""

    def __init__(
        self,
        G_A2B: nn.Module,
        G_B2A: nn.Module,
        D_A: nn.Module,
        D_B: nn.Module,
        pools: dict[str, Remembered],
        frozen: bool = True,
    ):
        self.G_A2B, self.G_B2A, self.D_A, self.D_B, self.pools, self.frozen = G_A2B, G_B2A, D_A, D_B, pools, frozen
        self.adam_G, self.adam_D = adam(G_A2B, G_B2A), adam(D_A, D_B)

    def step(self, a: Tensor, b: Tensor) -> None:
        critics = [*self.D_A.parameters(), *self.D_B.parameters()]
        fake_b = self.G_A2B(a)
        back_a = self.G_B2A(fake_b)
        fake_a = self.G_B2A(b)
        back_b = self.G_A2B(fake_a)
        for p in critics if self.frozen else ():
            p.requires_grad_(False)
        self.adam_G.zero_grad()
        loss = 5 * (l1_loss(self.G_A2B(b), b) + l1_loss(self.G_B2A(a), a))
        loss = loss + square(self.D_B(fake_b), True) + square(self.D_A(fake_a), True)
        (loss + 10 * (l1_loss(back_a, a) + l1_loss(back_b, b))).backward()
        self.adam_G.step()
        for p in critics:
            p.requires_grad_(True)
        self.adam_D.zero_grad()
        for name, D, real, fake in (("A", self.D_A, a, fake_a), ("B", self.D_B, b, fake_b)):
            shown = self.pools[name].query(fake)
            ((square(D(real), True) + square(D(shown), False)) / 2).backward()
        self.adam_D.step()
