"""Feature extractors: uint8 images in, one vector an image out."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from gancli.config.settings import at_least
from gancli.errors import MetricError
from gancli.metrics import weights as files
from gancli.metrics.inception import FoldedInception


class Extractor(ABC):
    """What the metrics need to know of a pretrained network.

    name: as results bear it. dim: length of a feature vector. classes: length of the logits, 0 where there are none.
    batch_size: images at once.
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
        """What to bear in mind about every number of this network."""
        return []


class Inception(Extractor):
    """torch-fidelity's Inception-v3 of 2015, the network that FID, KID and the Inception Score are defined on.

    weights: a state dict with torch-fidelity's names; None: torch-fidelity's, from torch's model cache or a download.
    batch_size: images at once; None: 16 on a CPU, where larger batches leave its caches, and 64 elsewhere.
    Raises MetricError for weights that are missing, damaged or of another network. Source: Szegedy et al., 2015;
    Heusel et al., 2017 (the 2048 pooled features).
    """

    dim = 2048

    def __init__(self, weights: str | None = None, batch_size: int | None = None):
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        at_least(1, **{"extractor.batch_size": batch_size})
        self.name = "inception"
        path = files.fetched(URL_INCEPTION_V3) if weights is None else files.given(weights)
        state, self.sha256 = files.read(path, URL_INCEPTION_V3 if weights is None else None)
        # torch-fidelity's file bears the beginning of its own hash in its name.
        self.official = self.sha256.startswith(URL_INCEPTION_V3.rpartition("-")[2].removesuffix(".pth"))
        net = _network(state, str(path))
        # A file without the last layer has zeros there: every image would get the same score.
        self.classes = net.fc.out_features if bool(net.fc.weight.any()) else 0
        self._last: Tensor = net.fc.weight.detach()
        self._net: nn.Module = FoldedInception(net).eval()
        self._wanted, self._compiled = batch_size, False
        self.to("cpu")

    @property
    def batch_size(self) -> int:
        """Images at once."""
        return self._wanted or (16 if self._device.type == "cpu" else 64)

    def to(self, device: torch.device | str) -> None:
        """Move the network; on a CPU its weights lie channels-last, which gives the same features sooner."""
        self._device = torch.device(device)
        self._net.to(self._device).to(memory_format=torch.channels_last)

    def compile(self) -> str | None:
        """Have the network compiled at the first batch; what to say where that cannot be done, else None."""
        reason = no_compiler(self._device)
        if reason is None:
            self._net.compile(dynamic=False)
            self._compiled = True
        return reason

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W], resized to 299 × 299 as TensorFlow 1 does -> float32 [B, 2048] on the CPU."""
        if images.shape[1] == 3 and images.stride(1) == 0:
            images = images[:, :1]  # grey, as `three_channels` shows it: resized once
        rows = len(images)
        if self._compiled and rows < self.batch_size:  # another shape would be compiled anew
            images = torch.cat([images, images[:1].expand(self.batch_size - rows, -1, -1, -1)])
        pooled: Tensor = self._net(images.to(self._device, non_blocking=True))
        return pooled[:rows].cpu()

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """float32 [N, 2048] -> [N, 1008], without the bias, as the Inception Score's reference code has it."""
        return features @ self._last.T.to(features)

    def notes(self) -> list[str]:
        """Whether the weights are torch-fidelity's own, by their hash."""
        if self.official:
            return []
        return [
            f"the weights (SHA-256 {self.sha256[:8]}...) are not torch-fidelity's own file: these numbers compare with"
            " others only as far as the two networks are the same"
        ]

    def protocol(self) -> dict[str, Any]:
        """Name, weights and resize, as plain JSON values."""
        return {
            "extractor": self.name,
            "weights_sha256": self.sha256,
            "features": f"{self.dim} after pooling",
            "resize": "bilinear as in TensorFlow 1, to 299x299",
            "device": self._device.type,
        }


def no_compiler(device: torch.device) -> str | None:
    """Why torch.compile could make nothing for this device; None where it can."""
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return "compile: no C++ compiler was found (g++ or clang++), so the extractor runs uncompiled"
    return None


def _network(state: dict[str, Tensor], path: str) -> Any:
    """torch-fidelity's network with these weights. Raises MetricError where they belong to another one."""
    from torch_fidelity import FeatureExtractorInceptionV3

    try:
        # Its constructor draws initial weights, which must not move the random state of a run that is being watched;
        # and it unpickles any file without care, hence a repacked one.
        with torch.random.fork_rng(devices=[]):
            return FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(Inception.dim)], feature_extractor_weights_path=files.repacked(state)
            )
    except RuntimeError:  # load_state_dict's, with hundreds of names
        raise MetricError(
            f"{path} belongs to another network ({len(state)} tensors): type extractor.weights=FILE with the weights "
            "of torch-fidelity's Inception-v3"
        ) from None
