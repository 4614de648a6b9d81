"""FCN score: outputs of label maps, segmented by a network, against their label maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.errors import ConfigError, MetricError, WeightsError, suggestion
from gancli.metrics.images import Shown, three_channels
from gancli.metrics.metric import Better, PairMetric
from gancli.pretrained import weights as files
from gancli.pretrained.prepare import IMAGENET

Network = Callable[[Tensor], Tensor]  # normalised colour images [B, 3, H, W] -> scores [B, K, h, w], on the CPU
Colour = tuple[int, ...]

KEY = "metrics.fcn"
AT_ONCE = 8  # images per batch

# The colours of Cityscapes' 19 evaluated classes, in the order of their training numbers, and the ignored colours.
CITYSCAPES: tuple[Colour, ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
UNJUDGED: tuple[Colour, ...] = (
    (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
    (150, 120, 90), (0, 0, 90), (0, 0, 110),
)  # fmt: skip


@dataclass
class Fcn(PairMetric):
    """FCN score: pixel accuracy, class accuracy and mean IoU of segmented outputs against their inputs.

    Inputs are label maps; the class of a pixel is that of the nearest colour. Means are over the classes that occur in
    them. weights: an .onnx file of any network [B, 3, H, W] -> [B, classes, h, w], or a state dict of torchvision's
    `network`. palette: one colour per class, in the order of the network's classes, or cityscapes. ignore: colours of
    ignored pixels; None: those of cityscapes for that palette, else none. mean, std: of the network's inputs in [0, 1];
    None: ImageNet's. Sources: Long et al. 2015, section 5; Isola et al. 2017, section 4.1.
    """

    name: ClassVar[str] = "fcn"
    words: ClassVar[tuple[str, ...]] = ("fcn_accuracy", "fcn_class_accuracy", "fcn_iou")
    better: ClassVar[Mapping[str, Better]] = dict.fromkeys(words, "high")
    wants = "given"
    weights: str | None = None
    network: str = "fcn_resnet50"
    palette: list[list[int]] | Literal["cityscapes"] = "cityscapes"
    ignore: list[list[int]] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    _net: Network | None = field(default=None, init=False, repr=False)
    _sha256: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        named = isinstance(self.palette, str)
        self.colours: tuple[Colour, ...] = CITYSCAPES
        if not isinstance(self.palette, str):
            self.colours = tuple(tuple(colour) for colour in self.palette)
        self.left_out: tuple[Colour, ...] = UNJUDGED if named else ()
        if self.ignore is not None:
            self.left_out = tuple(tuple(colour) for colour in self.ignore)
        for key, colours in (("palette", self.colours), ("ignore", self.left_out)):
            odd = next((c for c in colours if len(c) != 3 or not all(0 <= level <= 255 for level in c)), None)
            if odd is not None:
                raise ConfigError(
                    f"{KEY}.{key}: {list(odd)} is not a colour: type three levels from 0 to 255, such as [128,64,128]"
                )
        if len(self.colours) < 2 or len({*self.colours, *self.left_out}) < len(self.colours) + len(self.left_out):
            raise ConfigError(f"{KEY}.palette: type at least two colours, distinct, and none of {KEY}.ignore")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) != 3 or (key == "std" and min(values) <= 0)):
                above = " above 0" if key == "std" else ""
                raise ConfigError(f"{KEY}.{key}={values}: type three numbers{above}, of channels with values in [0, 1]")

    @property
    def width(self) -> int:
        """The number of entries of a confusion matrix."""
        return len(self.colours) ** 2

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The network, the normalisation of its inputs, and the colours."""
        kind = {} if self._onnx else {"network": self.network}
        told = {"weights_sha256": self._sha256, "mean": self._prepared[0], "std": self._prepared[1]}
        return {**kind, **told, "palette": self.palette, "ignore": [list(c) for c in self.left_out]}

    def refuse(self, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
        """Raises MetricError if inputs are not RGB label maps of the outputs' size, or without a weights file.

        Raises WeightsError for a file that does not exist, ConfigError for a network that torchvision does not have.
        """
        if given[0] != 3 or shape[0] not in (1, 3) or shape[1:] != given[1:]:
            raise MetricError(
                f"metrics=fcn needs inputs that are RGB label maps of the outputs' size, got inputs"
                f" {'×'.join(map(str, given))} and outputs {'×'.join(map(str, shape))}: leave it out of metrics"
            )
        if self.weights is None:
            raise MetricError(
                f"metrics=fcn needs a segmentation network, which is not downloaded: type {KEY}.weights=FILE, an .onnx"
                f" file or a state dict of torchvision's {KEY}.network={self.network}"
            )
        files.given(self.weights, f"{KEY}.weights")
        if not self._onnx:
            _known(self.network)

    def begin(self, device: torch.device | str) -> None:
        """Read the network. Raises WeightsError for a file that is damaged or of another one."""
        if self._net is None:
            assert self.weights is not None
            path = files.given(self.weights, f"{KEY}.weights")
            if self._onnx:
                self._net, self._sha256 = from_onnx(path)
            else:
                self._net, self._sha256 = from_torchvision(path, self.network, len(self.colours), device)

    @torch.no_grad()
    def see(self, shown: Shown) -> Tensor:
        """Return each image's confusion matrix, one row per true class, as shares of its pixels."""
        truth = self.labelled(shown.given)
        return torch.stack([self._confusion(*pair) for pair in zip(truth, self._predicted(shown.made), strict=True)])

    def labelled(self, given: Tensor) -> Tensor:
        """Label maps [B, 3, H, W] in [0, 1] -> classes, int64 [B, H, W]; ignored ones are numbered after all others."""
        colours = torch.tensor([*self.colours, *self.left_out], dtype=torch.float64)
        pixels = given.movedim(1, -1).double() * 255
        return torch.stack([torch.cdist(each.flatten(0, 1), colours).argmin(1).view(each.shape[:2]) for each in pixels])

    def told(self, mean: Tensor) -> dict[str, Tensor]:
        """Return fcn_accuracy, fcn_class_accuracy, fcn_iou."""
        matrix = mean.view(len(self.colours), -1)
        right, true, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        occur = true > 0
        iou = right[occur] / (true + predicted - right)[occur]
        found = (right.sum() / matrix.sum(), (right[occur] / true[occur]).mean(), iou.mean())
        return dict(zip(self.words, found, strict=True))

    @property
    def _onnx(self) -> bool:
        return Path(self.weights or "").suffix.lower() == ".onnx"

    @property
    def _prepared(self) -> tuple[list[float], list[float]]:
        return self.mean or list(IMAGENET[0]), self.std or list(IMAGENET[1])

    def _predicted(self, made: Tensor) -> Tensor:
        """Segment outputs: the class of each pixel, int64 [B, H, W]. Raises MetricError for another class count."""
        assert self._net is not None
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in self._prepared)
        found = []
        for part in torch.split(made.float(), AT_ONCE):
            scores = self._net((three_channels(part) - mean) / std)
            if scores.dim() != 4 or scores.shape[:2] != (len(part), len(self.colours)):
                raise MetricError(
                    f"{KEY}.weights={self.weights} outputs {list(scores.shape)} for {len(part)} images, and the palette"
                    f" has {len(self.colours)} colours: type {KEY}.palette=[[R,G,B],...], one for each of its classes"
                )
            if scores.shape[2:] != part.shape[2:]:
                scores = F.interpolate(scores, part.shape[2:], mode="bilinear", align_corners=False)
            found.append(scores.argmax(1))
        return torch.cat(found)

    def _confusion(self, truth: Tensor, predicted: Tensor) -> Tensor:
        count = len(self.colours)
        judged = truth < count
        cells = truth[judged] * count + predicted[judged]
        return cells.bincount(minlength=count**2).double() / truth.numel()


def _known(name: str) -> None:
    """Raise ConfigError for a network that torchvision does not have."""
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models.segmentation)
    if name not in known:
        raise ConfigError(f"{KEY}.network={name}: torchvision has no such network; {suggestion(name, known)}")


def from_torchvision(path: Path, name: str, classes: int, device: torch.device | str) -> tuple[Network, str]:
    """Load a torchvision segmentation network; returns it and its file's SHA-256. Raises WeightsError."""
    import torchvision

    state, sha256 = files.read(path, None, f"{KEY}.weights")
    with torch.random.fork_rng(devices=[]):
        net = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=classes, aux_loss=False
        )
    files.fit(net, state, str(path), f"{name} of {classes} classes", f"{KEY}.weights")
    net.eval().requires_grad_(False).to(device)

    def run(x: Tensor) -> Tensor:
        found: Tensor = net(x.to(device))["out"]
        return found.cpu()

    return run, sha256


def from_onnx(path: Path) -> tuple[Network, str]:
    """Load an .onnx file, which is run on the CPU; returns the network and the file's SHA-256.

    Raises WeightsError if it cannot be run or has several inputs, MetricError if onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MetricError(f"{KEY}.weights={path} needs onnxruntime: type pip install 'gancli[export]'") from None
    content = files.content_of(path, f"{KEY}.weights")
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises kinds of its own for a damaged file
        raise WeightsError(f"{path} is not an ONNX network that can be run: type {KEY}.weights=FILE") from None
    given = session.get_inputs()
    if len(given) != 1:
        raise WeightsError(f"{path} takes {len(given)} inputs: type {KEY}.weights=FILE of a network with one input")

    def run(x: Tensor) -> Tensor:
        try:
            (found, *_) = session.run(None, {given[0].name: x.numpy()})
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise MetricError(f"{path} does not take images {list(x.shape)}: {reason}") from None
        return torch.from_numpy(np.asarray(found, np.float32))

    return run, hashlib.sha256(content).hexdigest()
