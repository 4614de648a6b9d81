"""torch-fidelity's other extractors: VGG-16, CLIP and DINOv2, with its own resize and normalisation."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.config.settings import at_least
from gancli.errors import MetricError
from gancli.metrics import weights as files
from gancli.metrics.extractor import Extractor
from gancli.metrics.pretrained import IMAGENET, Pretrained, fit

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _told(size: int, what: str, mean: tuple[float, ...] = IMAGENET[0], std: tuple[float, ...] = IMAGENET[1]) -> Any:
    """What the protocol says of torch-fidelity's preparation."""
    return {
        "features": what,
        "resize": f"bilinear as in TensorFlow 1, to {size}x{size}",
        "normalisation": {"mean": list(mean), "std": list(std)},
    }


def vgg16(weights: str | None = None, batch_size: int | None = None) -> Extractor:
    """torch-fidelity's VGG-16: 4096 features of the second dense layer, after ReLU.

    weights: a state dict with torchvision's names; None: torchvision's, from torch's model cache or a download. Raises
    MetricError for weights that are missing, damaged or of another network. Source: Simonyan, Zisserman 2015.
    """
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
    from torchvision.models import VGG16_Weights, vgg16

    at_least(1, **{"extractor.batch_size": batch_size})
    url = VGG16_Weights.IMAGENET1K_V1.url if weights is None else None
    path = files.fetched(url) if url is not None else files.given(str(weights))
    state, sha256 = files.read(path, url)
    with torch.random.fork_rng(devices=[]):
        whole = vgg16()
        fit(whole, state, str(path), "vgg16")
        # It unpickles whatever it is given, hence a file of our own writing.
        net = FeatureExtractorVGG16(
            "vgg16", ["fc2_relu"], feature_extractor_weights_path=files.repacked(dict(whole.state_dict()))
        )
    told = _told(224, "4096 of the second dense layer")
    return Pretrained(
        "vgg16", net, 4096, sha256, prepare=None, head=whole.classifier[6], batch_size=batch_size, told=told
    )


ClipArch = Literal[
    "clip-rn50", "clip-rn101", "clip-rn50x4", "clip-rn50x16", "clip-rn50x64",
    "clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "clip-vit-l-14-336px",
]  # fmt: skip


def clip(arch: ClipArch = "clip-vit-b-32", weights: str | None = None, batch_size: int | None = None) -> Extractor:
    """torch-fidelity's CLIP: the image encoder's output.

    weights: OpenAI's own TorchScript file, known by its hash, or a state dict with its names; None: OpenAI's, from
    torch's model cache or a download. Raises MetricError for weights that are missing, damaged or of another network.
    Source: Radford et al. 2021.
    """
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.feature_extractor_clip import MODEL_BASE_URL, MODEL_METADATA, FeatureExtractorCLIP, build_model

    class Encoder(FeatureExtractorCLIP):  # type: ignore[misc]
        """torch-fidelity's, built from tensors instead of a file that it would run."""

        def __init__(self, state: dict[str, Tensor]):
            FeatureExtractorBase.__init__(self, arch, ["clip"])
            self.feature_extractor_internal_dtype = torch.float32
            self.model = build_model(state, torch.float32)
            self.resolution = self.model.visual.input_resolution

    at_least(1, **{"extractor.batch_size": batch_size})
    known = MODEL_METADATA[arch]
    # The name under which torch-fidelity keeps it ends with its hash.
    name = f"{arch}-{known['hash']}.pt"
    url = f"{MODEL_BASE_URL}/{known['hash']}/{known['filename']}.pt"
    path = files.given(weights) if weights is not None else files.fetched(url, name)
    state, sha256 = _clip_state(path, {m["hash"] for m in MODEL_METADATA.values()}, name if weights is None else None)
    try:
        dim = int(state["text_projection"].shape[1])
        with torch.random.fork_rng(devices=[]):
            net = Encoder(state)
    except (KeyError, RuntimeError, AssertionError, ValueError, IndexError):
        raise MetricError(
            f"{path} belongs to another network ({len(state)} tensors): type extractor.weights=FILE with CLIP's weights"
        ) from None
    told = _told(net.resolution, f"{dim} of the image encoder", CLIP_MEAN, CLIP_STD)
    return Pretrained(arch.replace("-", "_"), net, dim, sha256, prepare=None, batch_size=batch_size, told=told)


def _clip_state(path: Path, known: set[str], name: str | None) -> tuple[dict[str, Tensor], str]:
    """A CLIP's tensors and their file's hash; of a TorchScript archive, which may hold code, where that is known."""
    sha256 = hashlib.sha256(files.content_of(path)).hexdigest()
    if sha256 not in known:
        return files.read(path, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that TorchScript is on its way out
        archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return dict(archive.state_dict()), sha256


DINO = {"dinov2-vit-s-14": "small", "dinov2-vit-b-14": "base", "dinov2-vit-l-14": "large", "dinov2-vit-g-14": "giant"}
DinoArch = Literal["dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14"]


def dinov2(arch: DinoArch = "dinov2-vit-l-14", weights: str | None = None, batch_size: int | None = None) -> Extractor:
    """torch-fidelity's DINOv2: the class token after the last norm.

    weights: Meta's file of this network, fitted into timm's form of it, since torch-fidelity takes no file; None: as
    torch-fidelity does, through torch's hub, which downloads Meta's code and weights. Raises MetricError for weights
    that are missing, damaged or of another network, or without timm where a file is given. Source: Oquab et al. 2023.
    """
    at_least(1, **{"extractor.batch_size": batch_size})
    if weights is None:
        net, sha256 = _dino_by_hub(arch)
    else:
        path = files.given(weights)
        state, sha256 = files.read(path)
        net = DinoFile(arch, state, str(path))
    dim = {"small": 384, "base": 768, "large": 1024, "giant": 1536}[DINO[arch]]
    told = _told(224, f"{dim} of the class token")
    return Pretrained(arch.replace("-", "_"), net, dim, sha256, prepare=None, batch_size=batch_size, told=told)


def _dino_by_hub(arch: str) -> tuple[nn.Module, str]:
    """torch-fidelity's network by its own download. Raises MetricError, with the ways out, where that fails."""
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    try:
        with torch.random.fork_rng(devices=[]), files.patience():
            net: nn.Module = FeatureExtractorDinoV2(arch, ["dinov2"])
    except Exception as error:  # urllib's, torch.hub's, zipfile's, and whatever the downloaded code raises
        reason = " ".join(str(getattr(error, "reason", error)).split())[:200] or type(error).__name__
        raise MetricError(
            f"no weights for the extractor, and their download failed ({reason}): type extractor.weights=FILE with "
            f"Meta's file of {arch}, or {files.OFFLINE}"
        ) from None
    content = hashlib.sha256()
    for name, value in net.state_dict().items():
        content.update(name.encode() + value.cpu().numpy().tobytes())
    return net, content.hexdigest()


class DinoFile(nn.Module):
    """DINOv2 in timm's form with Meta's weights, at 224 pixels. Raises MetricError where they do not fit."""

    def __init__(self, arch: str, state: dict[str, Tensor], path: str):
        super().__init__()
        try:
            from timm import create_model
            from timm.models.vision_transformer import checkpoint_filter_fn
        except ImportError:
            raise MetricError(
                "extractor=dinov2 with a weights file needs timm: type pip install 'gancli[dinov2]' or pip install timm"
            ) from None
        with torch.random.fork_rng(devices=[]):
            self.net = create_model(f"vit_{DINO[arch]}_patch14_dinov2", pretrained=False, num_classes=0, img_size=224)
        try:
            sized = state | {"pos_embed": at_16(state["pos_embed"])}
            convert: Callable[..., dict[str, Tensor]] = checkpoint_filter_fn
            fit(self.net, convert(sized, self.net), path, arch)
        except (KeyError, RuntimeError, AttributeError, IndexError):
            raise MetricError(
                f"{path} belongs to another network ({len(state)} tensors): type extractor.weights=FILE with Meta's"
                f" file of {arch}"
            ) from None

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> [B, dim], prepared as torch-fidelity does."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(224, 224), align_corners=False)
        mean, std = (x.new_tensor(v).view(3, 1, 1) for v in IMAGENET)
        found: Tensor = self.net((x / 255 - mean) / std)
        return found


def at_16(positions: Tensor) -> Tensor:
    """Position embeddings [1, 1 + M², D] for 16×16 patches, [1, 257, D], as Meta's code resizes them.

    Its scale is 16.1 / M, an offset of old that the published weights are used with; timm's own resize differs.
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if side == 16:
        return positions
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (16 + 0.1) / side
    sized = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], sized.permute(0, 2, 3, 1).reshape(1, 256, -1)], 1)
