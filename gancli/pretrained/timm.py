"""Any convolutional network of the package timm, with the weights of a file."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError, WeightsError, suggestion
from gancli.pretrained import weights as files
from gancli.pretrained.classifiers import prepared, sized, with_weights
from gancli.pretrained.pretrained import Pretrained
from gancli.pretrained.stages import Layers, named_layers


class Pooled(nn.Module):
    """A network of timm up to the input of its classifier."""

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, dim]."""
        found: Tensor = self.net.forward_head(self.net.forward_features(x), pre_logits=True)
        return found


def timm(
    arch: str,
    weights: str | None = None,
    layers: Layers = "stages",
    size: int | None = 224,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    where: str = "pretrained",
) -> Pretrained:
    """A network of timm, with the weights of a state dict's file (torch.save or safetensors); nothing is downloaded.

    arch: timm's name. layers: names, or "stages": the last of strides 4, 8, 16 and 32. size: side that images are
    resized to; None: they keep their size. mean, std: None: the network's own, as timm states them. where: the config
    group that requests it. Raises ConfigError for a network that is unknown or returns no features, WeightsError
    without weights or the package.
    """
    sized(where, size, 32)
    try:
        import timm as library
    except ImportError:
        raise WeightsError(
            f"{where}=timm needs its package: type pip install 'gancli[timm]', or pip install timm"
        ) from None
    known = library.list_models()
    if arch not in known:
        raise ConfigError(f"{where}.arch={arch}: timm has no such network; {suggestion(arch, known)}")
    key = f"{where}.weights"
    if weights is None:
        raise WeightsError(f"{where}=timm downloads nothing: type {key}=FILE with the state dict of {arch}")
    path = files.given(weights, key)
    state, sha256 = files.read(path, None, key)
    net: Any = with_weights(partial(_built, library, arch, where), state, str(path), arch, where)[0]
    own = net.pretrained_cfg
    preparation = prepared(where, size, mean or list(own["mean"]), std or list(own["std"]))
    pooled = Pooled(net)
    return Pretrained(
        arch,
        pooled,
        int(getattr(net, "head_hidden_size", net.num_features)),
        sha256,
        prepare=preparation,
        trunk=net,
        layers=named_layers(layers, pooled, net, where),
        says="before the classifier",
        where=where,
    )


def _refuse(net: Any, arch: str, where: str) -> None:
    """Raise ConfigError for a network without the methods by which timm's networks return their features."""
    features, head = getattr(net, "forward_features", None), getattr(net, "forward_head", None)
    pooled = head is not None and "pre_logits" in signature(head).parameters
    if features is None or not pooled or not hasattr(net, "num_features"):
        raise ConfigError(
            f"{where}.arch={arch}: this network of timm does not return the input of its classifier (forward_head with"
            " pre_logits): type another one, such as resnet18"
        )


def _built(library: Any, arch: str, where: str, classes: int | None) -> Any:
    """Build timm's network, untrained, without changing the random state. Raises ConfigError as `_refuse`."""
    with torch.random.fork_rng(devices=[]):
        net = library.create_model(arch, pretrained=False, **({} if classes is None else {"num_classes": classes}))
    _refuse(net, arch, where)
    return net
