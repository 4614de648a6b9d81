"""A Projected GAN cycle here beside the usual form, in turns: `python -m tests.bench.projected [ROUNDS]`.

FastGAN's light generator at 64 pixels, ch 32, EfficientNet-Lite0 at 224, batch 8 (BATCH, CH and RESOLUTION change
them). A cycle is a move of G and one of D, with both optimizers. The usual form, that of the released code: a power
iteration in each forward pass, upsampling before each convolution, batch norms in the frozen network, and the mixing's
convolutions as they are drawn, after the doubling. Weights are the same at the start. The ratio is of median times.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.device import keep_freed_memory
from gancli.nets.fastgan_projected import Generator
from gancli.nets.layers.equalized import pixel_norm
from gancli.nets.layers.excitation import Excitation, UpBlock
from gancli.nets.layers.mixing import drawn
from gancli.nets.layers.spectral import Weighted, advance_spectral
from gancli.nets.projected import Discriminator, Head
from gancli.pretrained.classifiers import efficientnet_lite0
from tests.bench.turns import timed

BATCH, CH = int(os.environ.get("BATCH", "8")), int(os.environ.get("CH", "32"))
RESOLUTION, SIDE = int(os.environ.get("RESOLUTION", "224")), 64
LAYERS = ["_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15"]
RATE, BETAS = 2e-4, (0.0, 0.99)


class Normed(nn.Module):
    """A layer's weight with torch's spectral norm, whose vectors move at every forward pass."""

    def __init__(self, layer: Weighted):
        super().__init__()
        assert layer.u is not None
        assert layer.v is not None
        self.weight = nn.Parameter(layer.weight.detach().clone().contiguous())
        bias = getattr(layer, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("u", layer.u.clone())
        self.register_buffer("v", layer.v.flatten().clone())

    def normal(self) -> Tensor:
        matrix = self.weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.v = F.normalize(matrix.t().mv(self.u), dim=0, eps=1e-12)
                self.u = F.normalize(matrix.mv(self.v), dim=0, eps=1e-12)
        return self.weight / torch.dot(self.u, matrix.mv(self.v))


class Conv(Normed):
    def __init__(self, layer: Weighted, stride: int = 1, pad: int = 0, groups: int = 1):
        super().__init__(layer)
        self.where = (stride, pad, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normal(), self.bias, *self.where)


class First(Normed):
    def forward(self, z: Tensor) -> Tensor:
        return F.conv_transpose2d(z[:, :, None, None], self.normal().transpose(0, 1))


class Block(nn.Module):
    def __init__(self, block: UpBlock):
        super().__init__()
        assert block.conv2 is None, "the light generator"
        self.conv, self.norm = Conv(block.conv1, pad=1), nn.BatchNorm2d(block.norm1.num_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.norm(self.conv(F.interpolate(x, scale_factor=2))), 1)


class Excite(nn.Module):
    def __init__(self, layer: Excitation):
        super().__init__()
        self.squeeze, self.excite = Conv(layer.squeeze), Normed(layer.excite)

    def forward(self, source: Tensor, x: Tensor) -> Tensor:
        h = F.silu(self.squeeze(F.adaptive_avg_pool2d(source, 4)))
        return x * F.conv2d(h, self.excite.normal()[:, :, None, None]).sigmoid()


class UsualG(nn.Module):
    """The generator, layer by layer."""

    def __init__(self, G: Generator):
        super().__init__()
        self.first, self.norm = First(G.trunk.first), nn.BatchNorm2d(G.trunk.norm.num_features)
        self.blocks = nn.ModuleList(map(Block, G.trunk.blocks))
        self.excite = nn.ModuleDict({k: Excite(e) for k, e in G.trunk.excitations.items()})
        self.to_image = Conv(G.to_image, pad=1)

    def forward(self, z: Tensor) -> Tensor:
        found = [F.glu(self.norm(self.first(pixel_norm(z))), 1)]
        for k, block in enumerate(self.blocks, start=1):
            x = block(found[-1])
            found.append(self.excite[str(k)](found[k - 4], x) if str(k) in self.excite else x)
        return self.to_image(found[-1])


class UsualHead(nn.Module):
    def __init__(self, head: Head):
        super().__init__()
        parts: list[nn.Module] = []
        for down in head.downs:
            norm = nn.BatchNorm2d(down.norm.num_features)
            parts += [Conv(down.convs[0], stride=2, pad=1), norm, nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*parts, Conv(head.last))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)


class UsualD(nn.Module):
    """The discriminator with its frozen network and mixing as they are."""

    def __init__(self, D: Discriminator):
        super().__init__()
        self.eyes = [efficientnet_lite0(layers=LAYERS, where="extractor")]  # in a list: not a part that is trained
        self.heads = nn.ModuleList(map(UsualHead, D.heads))
        ch = D.heads[0].downs[0].convs[0].weight.shape[1]
        self.weights = drawn(list(D.pretrained.channels.values()), [ch << k for k in range(4)], "scales", 0)

    def mixed(self, x: Tensor, name: str, k: int) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}{k}"][:, :, None, None], self.weights[f"{name}_bias{k}"])

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, [RESOLUTION] * 2, mode="bilinear", align_corners=False)
        maps = [self.mixed(m, "channel", k) for k, m in enumerate(self.eyes[0].maps(x, resize=False).values())]
        below: Tensor | None = None
        for k in (3, 2, 1, 0):
            joined = maps[k] if below is None else maps[k] + below
            up = F.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=True)
            below = maps[k] = self.mixed(up, "scale", k)
        return torch.cat([head(m) for head, m in zip(self.heads, maps, strict=True)], 1)


def cycle(G: nn.Module, D: nn.Module, logits: Callable[[Tensor], Tensor], own: bool) -> Callable[[], object]:
    """A move of G, then one of D, on the same data each time. own: power iterations come once per move, as here."""
    of_g, of_d = (torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS) for net in (G, D))
    draw = torch.Generator().manual_seed(0)
    z, real = torch.randn(2, BATCH, 256, generator=draw), torch.rand(BATCH, 3, SIDE, SIDE, generator=draw) * 2 - 1

    def step() -> None:
        D.requires_grad_(False)
        of_g.zero_grad()
        (-logits(G(z[0])).mean()).backward()
        of_g.step()
        D.requires_grad_(True)
        of_d.zero_grad()
        with torch.no_grad():
            fake = G(z[1])
        (F.relu(1 - logits(real)).mean() + F.relu(1 + logits(fake)).mean()).backward()
        of_d.step()
        if own:
            advance_spectral(G)
            advance_spectral(D)

    return step


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    keep_freed_memory()
    torch.manual_seed(0)
    eyes = efficientnet_lite0(layers=LAYERS)
    G, D = Generator((3, SIDE, SIDE), 256, ch=CH), Discriminator((3, SIDE, SIDE), eyes, resolution=RESOLUTION)
    usual_g, usual_d = UsualG(copy.deepcopy(G)), UsualD(D)
    G, D = (net.to(memory_format=torch.channels_last) for net in (G, D))
    z = torch.randn(4, 256)
    with torch.no_grad():
        for net in (G, D, usual_g, usual_d):
            net.eval()
        images = G(z)
        apart = (usual_g(z) - images).abs().max() / images.std()
        said = D(images).logits
        apart_d = (usual_d(images) - said).abs().max() / said.std()
        for net in (G, D, usual_g, usual_d):
            net.train()
    print(f"the same function: images to {float(apart):.1e}, logits to {float(apart_d):.1e} of their deviation")
    steps = {"here": cycle(G, D, lambda x: D(x).logits, True), "usual": cycle(usual_g, usual_d, usual_d, False)}
    taken = timed(steps, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    here, usual = (statistics.median(taken[name]) for name in ("here", "usual"))
    told = f"{here:.2f} s here, {usual:.2f} s in the usual form, {usual / here:.2f} times as fast"
    print(f"batch {BATCH}, {RESOLUTION} pixels: {told}")


if __name__ == "__main__":
    main()
