"""Feature extractors: uint8 images in, one vector per image out. The networks are those of `gancli.pretrained`."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.config.settings import LARGEST, at_least, at_most
from gancli.errors import ConfigError, MetricError
from gancli.pretrained import classifiers, fidelity, inception, untrained
from gancli.pretrained.fidelity import ClipArch, DinoArch
from gancli.pretrained.pretrained import Pretrained

WHERE = "extractor"


class Extractor(ABC):
    """The interface of a pretrained network that the metrics use.

    name: suffix of the results' names. dim: length of a feature vector. classes: length of the logits, 0 if there are
    none. batch_size: images per batch.
    """

    name: str
    dim: int
    classes: int

    @property
    @abstractmethod
    def batch_size(self) -> int: ...

    @abstractmethod
    def to(self, device: torch.device | str) -> None:
        """Move the network."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] on any device -> float32 [B, dim] on the CPU."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """float32 [N, dim] -> [N, classes], both on the CPU."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Name, weights and resize, as plain JSON values."""

    def notes(self) -> list[str]:
        """Return warnings about every number of this network."""
        return []


class Frozen(Extractor):
    """A pretrained network as an extractor: uint8 in, no gradient.

    layer: features of this layer, averaged over pixels, instead of the final ones; the protocol calls it `says`.
    batch_size: images per batch; None: 16 on a CPU, whose caches larger batches exceed, and 64 elsewhere. Raises
    ConfigError for an unknown layer.
    """

    def __init__(self, net: Pretrained, batch_size: int | None = None, layer: str | None = None, says: str = ""):
        at_least(1, **{f"{WHERE}.batch_size": batch_size})
        self.name, self.sha256, self.net, self._layer = net.name, net.sha256, net, layer
        self._head = net.head if layer is None else None
        self.classes = self._head.out_features if self._head is not None else 0
        self._wanted = batch_size
        self.dim, self._says = net.dim, f"{net.dim} {net.says}".rstrip()
        if layer is not None:
            side = (net.prepare.size if net.prepare is not None else None) or 224
            self.dim = self.features(torch.zeros(1, 3, side, side, dtype=torch.uint8)).shape[1]
            self._says = f"{self.dim} of {says or layer}, averaged over pixels"
        self.to("cpu")

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self._wanted or (16 if self.net.device.type == "cpu" else 64)

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.net.to(device)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] on any device -> float32 [B, dim] on the CPU."""
        x = images.to(self.net.device, non_blocking=True)
        if self._layer is None:
            return self.net.of_levels(x).float().cpu()
        return averaged(self.net.maps_of_levels(x, [self._layer])[self._layer], len(x), self._layer).float().cpu()

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """float32 [N, dim] -> [N, classes], both on the CPU."""
        assert self._head is not None
        bias = None if self._head.bias is None else self._head.bias.to(features)
        return F.linear(features, self._head.weight.to(features), bias)

    def protocol(self) -> dict[str, Any]:
        """Name, weights, resize and normalisation, as plain JSON values."""
        told = {"extractor": self.name, "weights_sha256": self.sha256, "features": self._says}
        prepared = self.net.prepare.protocol() if self.net.prepare is not None else {}
        return told | prepared | {"device": self.net.device.type}


def averaged(found: Tensor, rows: int, layer: str) -> Tensor:
    """Average a layer's output, [B, dim, H, W] or [B, N, dim], to [B, dim]. Raises MetricError for other shapes."""
    if found.dim() not in (2, 3, 4) or len(found) != rows:
        raise MetricError(f"{WHERE}.layer={layer} does not output one feature vector per image: type another layer")
    if found.dim() == 4:
        return found.mean((2, 3))
    return found.mean(1) if found.dim() == 3 else found


class Inception(Frozen):
    """torch-fidelity's Inception-v3 of 2015, the network that FID, KID and the Inception Score are defined on.

    weights: a state dict with torch-fidelity's names; None: torch-fidelity's, from torch's model cache or a download.
    batch_size: images per batch; None: 16 on a CPU, 64 elsewhere. Raises WeightsError for weights that are missing,
    damaged or of another network. Source: Szegedy et al., 2015; Heusel et al., 2017 (the 2048 pooled features).
    """

    def __init__(self, weights: str | None = None, batch_size: int | None = None):
        at_least(1, **{f"{WHERE}.batch_size": batch_size})
        net = inception.whole(weights, None, WHERE)
        super().__init__(net, batch_size)
        self.official, self._compiled = net.official, False

    def compile(self) -> str | None:
        """Compile the network at its first batch. Returns a message if that is not possible, else None."""
        reason = no_compiler(self.net.device)
        if reason is None:
            self.net.net.compile(dynamic=False)
            self._compiled = True
        return reason

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W], resized to 299 × 299 as TensorFlow 1 does -> float32 [B, 2048] on the CPU."""
        if images.shape[1] == 3 and images.stride(1) == 0:
            images = images[:, :1]  # greyscale expanded by `three_channels`: one channel is resized, not three
        rows = len(images)
        if self._compiled and rows < self.batch_size:  # another shape would be compiled again
            images = torch.cat([images, images[:1].expand(self.batch_size - rows, -1, -1, -1)])
        return super().features(images)[:rows]

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """float32 [N, 2048] -> [N, 1008], without the bias, as in the Inception Score's reference code."""
        assert self._head is not None
        return features @ self._head.weight.T.to(features)

    def notes(self) -> list[str]:
        """Return a warning if the weights are not torch-fidelity's file, by their hash."""
        if self.official:
            return []
        return [
            f"the weights (SHA-256 {self.sha256[:8]}...) are not torch-fidelity's own file: these numbers can be"
            " compared only with others of the same weights"
        ]


def flattered(trained_with: Pretrained | None, extractor: Extractor | None) -> list[str]:
    """Return a warning if a run was trained with a network of the extractor's kind, which its numbers then flatter.

    Generators match the ImageNet classes that a discriminator on ImageNet features sees, and distances in such features
    fall without better images. Source: Kynkäänniemi et al. 2022.
    """
    judge = getattr(extractor, "net", None)
    if trained_with is None or not isinstance(judge, Pretrained):
        return []
    one, other = trained_with.facts, judge.facts
    if not (one.of_imagenet and other.of_imagenet) and (one.name, one.sha256) != (other.name, other.sha256):
        return []
    also = [name for name in ("random", "dinov2", "clip") if not one.name.startswith(name)]
    return [
        f"this run was trained with pretrained={one.name}, which lowers the distances of {other.name}, trained on"
        f" {'ImageNet, too' if one.name != other.name else 'the same images'}, without better images (Kynkäänniemi et"
        f" al. 2022): report extractor={' or extractor='.join(also)} beside them"
    ]


def no_compiler(device: torch.device) -> str | None:
    """Return why torch.compile does not work for this device; None if it does."""
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return "compile: no C++ compiler was found (g++ or clang++), so the extractor runs uncompiled"
    return None


def vgg16(weights: str | None = None, batch_size: int | None = None) -> Extractor:
    """Return torch-fidelity's VGG-16, as `gancli.pretrained.fidelity.vgg16` reads it."""
    at_least(1, **{f"{WHERE}.batch_size": batch_size})
    return Frozen(fidelity.vgg16(weights, where=WHERE), batch_size)


def clip(arch: ClipArch = "clip-vit-b-32", weights: str | None = None, batch_size: int | None = None) -> Extractor:
    """Return torch-fidelity's CLIP, as `gancli.pretrained.fidelity.clip` reads it."""
    at_least(1, **{f"{WHERE}.batch_size": batch_size})
    return Frozen(fidelity.clip(arch, weights, where=WHERE), batch_size)


def dinov2(arch: DinoArch = "dinov2-vit-l-14", weights: str | None = None, batch_size: int | None = None) -> Extractor:
    """Return torch-fidelity's DINOv2, as `gancli.pretrained.fidelity.dinov2` reads it."""
    at_least(1, **{f"{WHERE}.batch_size": batch_size})
    return Frozen(fidelity.dinov2(arch, weights, where=WHERE), batch_size)


def torchvision(
    arch: str,
    weights: str | None = None,
    layer: str | None = None,
    size: int = 224,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    batch_size: int | None = None,
) -> Extractor:
    """Return any torchvision classifier, as `gancli.pretrained.classifiers.torchvision` reads it.

    layer: features of this layer, averaged over pixels; None: those before the last dense layer.
    """
    at_least(1, **{f"{WHERE}.batch_size": batch_size})
    net = classifiers.torchvision(arch, weights, None, size, mean, std, WHERE)
    if layer is not None:
        net.check_layer(layer, f"{WHERE}.layer")
    return Frozen(net, batch_size, layer)


def robust(
    weights: str | None = None, arch: str = "resnet50", size: int = 224, batch_size: int | None = None
) -> Extractor:
    """Return a robustly trained classifier, as `gancli.pretrained.classifiers.robust` reads it."""
    at_least(1, **{f"{WHERE}.batch_size": batch_size})
    at_most(LARGEST, **{f"{WHERE}.size": size})
    return Frozen(classifiers.robust(weights, arch, None, size, WHERE), batch_size)


def efficientnet_lite0(
    weights: str | None = None, block: int | None = None, batch_size: int | None = None
) -> Extractor:
    """Return EfficientNet-Lite0, as `gancli.pretrained.classifiers.efficientnet_lite0` reads it.

    block: features of this block, 0 to 15, instead of the last ones.
    """
    at_least(1, **{f"{WHERE}.batch_size": batch_size})
    if block is not None and not 0 <= block <= 15:
        raise ConfigError(f"{WHERE}.block={block}: type a block from 0 to 15, or null for the last features")
    net = classifiers.efficientnet_lite0(weights, where=WHERE)
    return Frozen(net, batch_size, None if block is None else f"_blocks.{block}", f"block {block}")


def random(seed: int = 0, size: int = 64, batch_size: int | None = None) -> Extractor:
    """Return VGG-16 with random weights, as `gancli.pretrained.untrained.random_vgg16` builds it."""
    at_least(1, **{f"{WHERE}.batch_size": batch_size})
    return Frozen(untrained.random_vgg16(seed, size, WHERE), batch_size)
