"""torch-fidelity's Inception-v3 (2015), with the same features in half the time on a CPU.

Four changes, each exact up to rounding: batch norm is folded into the preceding convolutions (in float64); 1x1
convolutions of the same input run as one; a 1x1 convolution runs before an average pool instead of after it, with fewer
channels; images up to 299 pixels are resized by two matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import WeightsError
from gancli.pretrained import weights as files
from gancli.pretrained.prepare import Bare, floating
from gancli.pretrained.pretrained import Pretrained

SIDE = 299
DIM = 2048


class Inception(Pretrained):
    """The network that FID, KID and the Inception Score are defined on. official: whether these are its own weights."""

    official: bool


def inception(weights: str | None = None, layers: list[str] | None = None, where: str = "pretrained") -> Pretrained:
    """Inception-v3 as in FID's TensorFlow original: 2048 features after pooling.

    weights: a state dict with torch-fidelity's names; None: torch-fidelity's, from torch's model cache or a download.
    layers: those returned beside the features, such as blocks.2. where: the config group that requests it. Raises
    WeightsError for weights that are missing, damaged or of another network. Source: Szegedy et al., 2015; Heusel et
    al., 2017.
    """
    return whole(weights, layers, where)


def whole(weights: str | None, layers: list[str] | None, where: str) -> Inception:
    """Build what `inception` returns, with its own type."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    key = f"{where}.weights"
    path = files.fetched(URL_INCEPTION_V3, key=key) if weights is None else files.given(weights, key)
    state, sha256 = files.read(path, URL_INCEPTION_V3 if weights is None else None, key)
    net = _network(state, str(path), key)
    made = Inception(
        "inception",
        FoldedInception(net),
        DIM,
        sha256,
        prepare=Bare(SIDE, "bilinear as in TensorFlow 1, to 299x299"),
        layers=layers or (),
        # A file without the last layer has zeros there: every image would get the same score.
        head=net.fc if bool(net.fc.weight.any()) else None,
        says="after pooling",
        where=where,
    )
    # The name of torch-fidelity's file contains the start of its hash.
    made.official = sha256.startswith(files.hash_prefix(URL_INCEPTION_V3))
    return made


def _network(state: dict[str, Tensor], path: str, key: str) -> Any:
    """Build torch-fidelity's network with these weights. Raises WeightsError if they belong to another one."""
    from torch_fidelity import FeatureExtractorInceptionV3

    try:
        # Its constructor draws initial weights, which must not change the random state of a training run; and it
        # unpickles any file without checks, hence a repacked one.
        with torch.random.fork_rng(devices=[]):
            return FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(DIM)], feature_extractor_weights_path=files.repacked(state)
            )
    except RuntimeError:  # load_state_dict's, with hundreds of names
        raise WeightsError(
            f"{path} belongs to another network ({len(state)} tensors): type {key}=FILE with the weights "
            "of torch-fidelity's Inception-v3"
        ) from None


class _Folded(nn.Module):
    """Convolution, batch norm and ReLU of one or more branches that read the same input, as one convolution."""

    def __init__(self, *blocks: Any):
        super().__init__()
        kernels, shifts = [], []
        for block in blocks:
            conv, norm = block.conv, block.bn
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            kernels.append(conv.weight.double() * scale[:, None, None, None])
            shifts.append(norm.bias.double() - norm.running_mean.double() * scale)
        self.register_buffer("weight", torch.cat(kernels).float())
        self.register_buffer("bias", torch.cat(shifts).float())
        self.weight: Tensor
        self.bias: Tensor
        self.stride, self.padding = blocks[0].conv.stride, blocks[0].conv.padding
        self.widths = [len(kernel) for kernel in kernels]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding).relu_()

    def branches(self, x: Tensor) -> Sequence[Tensor]:
        """Return the output, split into its branches."""
        parts: Sequence[Tensor] = self(x).split(self.widths, 1)
        return parts


class _Pooled(_Folded):
    """Average pool and 1x1 convolution: both are linear and commute; the shift and the ReLU come last."""

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(F.conv2d(x, self.weight), 3, 1, 1, count_include_pad=False)
        return mean.add_(self.bias[:, None, None]).relu_()


class _MaxPooled(_Folded):
    """The last block's pool, which is a maximum as in the network of 2015."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.max_pool2d(x, 3, 1, 1))


class _Chain(nn.Sequential):
    """The convolutions of one branch, in sequence."""

    def __init__(self, block: Any, *names: str):
        super().__init__(*(_Folded(getattr(block, name)) for name in names))


class _Three(nn.Module):
    """Blocks A and C: a 1x1 convolution, a short and a long chain that start with one, and a pooled branch."""

    def __init__(self, block: Any, short: Sequence[str], long: Sequence[str]):
        super().__init__()
        self.heads = _Folded(block.branch1x1, getattr(block, short[0]), getattr(block, long[0]))
        self.short, self.long = _Chain(block, *short[1:]), _Chain(block, *long[1:])
        self.pool = _Pooled(block.branch_pool)

    def forward(self, x: Tensor) -> Tensor:
        one, short, long = self.heads.branches(x)
        return torch.cat([one, self.short(short), self.long(long), self.pool(x)], 1)


class _Halving(nn.Module):
    """Blocks B and D: two chains of stride 2 and a max pool."""

    def __init__(self, short: nn.Module, long: nn.Module, heads: _Folded | None = None):
        super().__init__()
        self.short, self.long, self.heads = short, long, heads

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x, x) if self.heads is None else self.heads.branches(x)
        return torch.cat([self.short(a), self.long(b), F.max_pool2d(x, 3, 2)], 1)


class _Wide(nn.Module):
    """Block E: chains that end in a row and a column convolution side by side."""

    def __init__(self, block: Any, pool: nn.Module):
        super().__init__()
        self.heads = _Folded(block.branch1x1, block.branch3x3_1, block.branch3x3dbl_1)
        self.second = _Folded(block.branch3x3dbl_2)
        ends = ("branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b")
        self.ends = nn.ModuleList(_Folded(getattr(block, name)) for name in ends)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        one, short, long = self.heads.branches(x)
        long = self.second(long)
        inputs = (short, short, long, long)
        return torch.cat([one, *(end(y) for end, y in zip(self.ends, inputs, strict=True)), self.pool(x)], 1)


class FoldedInception(nn.Module):
    """Levels in 0 ... 255, [B, C, H, W], C 1 or 3 -> the 2048 pooled features, [B, 2048].

    net: torch-fidelity's FeatureExtractorInceptionV3; its weights are copied, so it can be freed.
    """

    def __init__(self, net: Any):
        super().__init__()
        self.stem = _Chain(net, "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
        self.middle = _Chain(net, "Conv2d_3b_1x1", "Conv2d_4a_3x3")
        a = (["branch5x5_1", "branch5x5_2"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"])
        c = ([f"branch7x7_{k}" for k in (1, 2, 3)], [f"branch7x7dbl_{k}" for k in (1, 2, 3, 4, 5)])
        b, d = net.Mixed_6a, net.Mixed_7a
        self.blocks = nn.Sequential(
            *(_Three(block, *a) for block in (net.Mixed_5b, net.Mixed_5c, net.Mixed_5d)),
            _Halving(_Folded(b.branch3x3), _Chain(b, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")),
            *(_Three(block, *c) for block in (net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e)),
            _Halving(
                _Chain(d, "branch3x3_2"),
                _Chain(d, "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"),
                _Folded(d.branch3x3_1, d.branch7x7x3_1),
            ),
            _Wide(net.Mixed_7b, _Pooled(net.Mixed_7b.branch_pool)),
            _Wide(net.Mixed_7c, _MaxPooled(net.Mixed_7c.branch_pool)),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = resized(images)
        # Grey images get three equal channels after the resize, which then runs once.
        x = ((x - 128) / 128).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(self.stem(x), 3, 2)
        x = F.max_pool2d(self.middle(x), 3, 2)
        features: Tensor = self.blocks(x).mean((2, 3))
        return features


def resized(images: Tensor) -> Tensor:
    """Resize [B, C, H, W] -> [B, C, 299, 299], bilinear as in TensorFlow 1, without half-pixel shift.

    Larger images would need large matrices: they are resized by torch-fidelity's own function.
    """
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    height, width = images.shape[-2:]
    x = floating(images)
    if max(height, width) > SIDE:
        large: Tensor = interpolate_bilinear_2d_like_tensorflow1x(x, size=(SIDE, SIDE), align_corners=False)
        return large
    return _weights(height, x.device).to(x.dtype) @ (x @ _weights(width, x.device).to(x.dtype).T)


def _weights(size: int, device: torch.device) -> Tensor:
    """Return the matrix of a resize, float32 [299, size]: row i weights the `size` pixels for pixel i of 299."""
    at = torch.arange(SIDE, dtype=torch.float32, device=device) * torch.tensor(size / SIDE, dtype=torch.float32)
    low = at.long()
    share, pixel = (at - low).unsqueeze(1), torch.arange(size, device=device)
    high = (low + 1).clamp_max(size - 1)
    return (pixel == low.unsqueeze(1)) * (1 - share) + (pixel == high.unsqueeze(1)) * share
