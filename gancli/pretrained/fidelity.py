"""torch-fidelity's VGG-16, CLIP and DINOv2, with its own resize and normalisation."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import WeightsError
from gancli.pretrained import weights as files
from gancli.pretrained.prepare import AsTensorFlow
from gancli.pretrained.pretrained import Pretrained
from gancli.pretrained.weights import fit

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Dense(nn.Module):
    """VGG-16 up to its second dense layer and the ReLU after it."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 224, 224] -> [B, 4096]."""
        return F.relu(self.net(x))


def vgg16(weights: str | None = None, layers: list[str] | None = None, where: str = "pretrained") -> Pretrained:
    """torch-fidelity's VGG-16: 4096 features of the second dense layer, after ReLU.

    weights: a state dict with torchvision's names; None: torchvision's, from torch's model cache or a download.
    layers: those returned beside the features, by torchvision's names. where: the config group that requests it. Raises
    WeightsError for weights that are missing, damaged or of another network. Source: Simonyan, Zisserman 2015.
    """
    from torchvision.models import VGG16_Weights, vgg16

    key = f"{where}.weights"
    url = VGG16_Weights.IMAGENET1K_V1.url if weights is None else None
    path = files.fetched(url, key=key) if url is not None else files.given(str(weights), key)
    state, sha256 = files.read(path, url, key)
    with torch.random.fork_rng(devices=[]):
        net = vgg16()
    fit(net, state, str(path), "vgg16", key)
    head = net.classifier[6]
    for last in (6, 5, 4):  # the layers after the second dense layer
        del net.classifier[last]
    return Pretrained(
        "vgg16",
        Dense(net),
        4096,
        sha256,
        prepare=AsTensorFlow(224),
        trunk=net,
        layers=layers or (),
        head=head,
        says="of the second dense layer",
        where=where,
    )


ClipArch = Literal[
    "clip-rn50", "clip-rn101", "clip-rn50x4", "clip-rn50x16", "clip-rn50x64",
    "clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "clip-vit-l-14-336px",
]  # fmt: skip


def clip(
    arch: ClipArch = "clip-vit-b-32",
    weights: str | None = None,
    layers: list[str] | None = None,
    where: str = "pretrained",
) -> Pretrained:
    """torch-fidelity's CLIP: the image encoder's output.

    weights: OpenAI's own TorchScript file, recognised by its hash, or a state dict with its names; None: OpenAI's, from
    torch's model cache or a download. layers: those of the image encoder returned beside its output. where: the config
    group that requests it. Raises WeightsError for weights that are missing, damaged or of another network. Source:
    Radford et al. 2021.
    """
    from torch_fidelity.feature_extractor_clip import MODEL_BASE_URL, MODEL_METADATA, build_model

    key, known = f"{where}.weights", MODEL_METADATA[arch]
    # torch-fidelity's name of the file ends with its hash.
    name = f"{arch}-{known['hash']}.pt"
    url = f"{MODEL_BASE_URL}/{known['hash']}/{known['filename']}.pt"
    path = files.given(weights, key) if weights is not None else files.fetched(url, name, key)
    hashes = {each["hash"] for each in MODEL_METADATA.values()}
    state, sha256 = _clip_state(path, hashes, name if weights is None else None, key)
    try:
        dim = int(state["text_projection"].shape[1])
        with torch.random.fork_rng(devices=[]):
            net = build_model(state, torch.float32).visual
        size = int(net.input_resolution)
    except (KeyError, RuntimeError, AssertionError, ValueError, IndexError):
        raise WeightsError(
            f"{path} belongs to another network ({len(state)} tensors): type {key}=FILE with CLIP's weights"
        ) from None
    return Pretrained(
        arch.replace("-", "_"),
        net,
        dim,
        sha256,
        prepare=AsTensorFlow(size, CLIP_MEAN, CLIP_STD),
        layers=layers or (),
        says="of the image encoder",
        where=where,
    )


def _clip_state(path: Path, known: set[str], name: str | None, key: str) -> tuple[dict[str, Tensor], str]:
    """Return a CLIP's tensors and its file's hash. A TorchScript archive may hold code: it needs a known hash."""
    sha256 = hashlib.sha256(files.content_of(path, key)).hexdigest()
    if sha256 not in known:
        return files.read(path, name, key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's deprecation of TorchScript
        archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return dict(archive.state_dict()), sha256


DINO = {"dinov2-vit-s-14": "small", "dinov2-vit-b-14": "base", "dinov2-vit-l-14": "large", "dinov2-vit-g-14": "giant"}
DinoArch = Literal["dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14"]


def dinov2(
    arch: DinoArch = "dinov2-vit-l-14",
    weights: str | None = None,
    layers: list[str] | None = None,
    where: str = "pretrained",
) -> Pretrained:
    """torch-fidelity's DINOv2: the class token after the last norm.

    weights: Meta's file of this network, converted to timm's version, since torch-fidelity takes no file; None:
    torch-fidelity's, from torch's hub, which downloads Meta's code and weights. layers: those returned beside the
    token. where: the config group that requests it. Raises WeightsError for weights that are missing, damaged or of
    another network, or if a file is given without timm. Source: Oquab et al. 2023.
    """
    key = f"{where}.weights"
    if weights is None:
        net, sha256 = _dino_by_hub(arch, key)
    else:
        path = files.given(weights, key)
        state, sha256 = files.read(path, key=key)
        net = _dino_of_file(arch, state, str(path), key)
    return Pretrained(
        arch.replace("-", "_"),
        net,
        {"small": 384, "base": 768, "large": 1024, "giant": 1536}[DINO[arch]],
        sha256,
        prepare=AsTensorFlow(224, shares=weights is not None),
        layers=layers or (),
        says="of the class token",
        where=where,
    )


def _dino_by_hub(arch: str, key: str) -> tuple[nn.Module, str]:
    """Load torch-fidelity's network by its own download. Raises WeightsError, with the remedies, if that fails."""
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    where = key.partition(".")[0]
    try:
        with torch.random.fork_rng(devices=[]), files.patience():
            net: nn.Module = FeatureExtractorDinoV2(arch, ["dinov2"])
    except Exception as error:  # urllib's, torch.hub's, zipfile's, and what the downloaded code raises
        reason = " ".join(str(getattr(error, "reason", error)).split())[:200] or type(error).__name__
        raise WeightsError(
            f"no weights for {where}=, and their download failed ({reason}): type {key}=FILE with "
            f"Meta's file of {arch}, or {files.offline(where)}"
        ) from None
    content = hashlib.sha256()
    for name, value in net.state_dict().items():
        content.update(name.encode() + value.cpu().numpy().tobytes())
    return net.get_submodule("model"), content.hexdigest()


def _dino_of_file(arch: str, state: dict[str, Tensor], path: str, key: str) -> nn.Module:
    """Build DINOv2 in timm's version with Meta's weights, at 224 pixels. Raises WeightsError if they do not fit."""
    try:
        from timm import create_model
        from timm.models.vision_transformer import checkpoint_filter_fn
    except ImportError:
        where = key.partition(".")[0]
        raise WeightsError(
            f"{where}=dinov2 with a weights file needs timm: type pip install 'gancli[dinov2]' or pip install timm"
        ) from None
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = create_model(f"vit_{DINO[arch]}_patch14_dinov2", pretrained=False, num_classes=0, img_size=224)
    try:
        sized = state | {"pos_embed": at_16(state["pos_embed"])}
        convert: Callable[..., dict[str, Tensor]] = checkpoint_filter_fn
        fit(net, convert(sized, net), path, arch, key)
    except (KeyError, RuntimeError, AttributeError, IndexError):
        raise WeightsError(
            f"{path} belongs to another network ({len(state)} tensors): type {key}=FILE with Meta's file of {arch}"
        ) from None
    return net


def at_16(positions: Tensor) -> Tensor:
    """Resize position embeddings [1, 1 + M², D] to 16×16 patches, [1, 257, D], as Meta's code does.

    Its scale is 16.1 / M, a historical offset that the published weights are used with; timm's own resize differs.
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if side == 16:
        return positions
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (16 + 0.1) / side
    sized = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], sized.permute(0, 2, 3, 1).reshape(1, 256, -1)], 1)
