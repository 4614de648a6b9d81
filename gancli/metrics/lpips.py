"""LPIPS between outputs and targets: torchmetrics' network and linear heads, with a backbone from a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gancli.errors import MetricError
from gancli.metrics.images import Shown, three_channels
from gancli.metrics.metric import Better, PairMetric
from gancli.metrics.pairs import library, truth_of, version
from gancli.pretrained import weights as files

BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}  # as torchvision calls them
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}  # smallest side, in pixels, for a non-empty last feature map
KEY = "metrics.lpips.weights"


@dataclass
class Lpips(PairMetric):
    """Mean learned perceptual distance (Zhang et al. 2018, eq. 1, version 0.1 of the released heads).

    net: the backbone. weights: a file of its torchvision state dict; nothing is downloaded.
    """

    name: ClassVar[str] = "lpips"
    better: ClassVar[Mapping[str, Better]] = {"lpips": "low"}
    net: Literal["alex", "vgg", "squeeze"] = "alex"
    weights: str | None = None
    _net: nn.Module | None = field(default=None, init=False, repr=False)
    _sha256: str = field(default="", init=False, repr=False)
    _device: torch.device = field(default_factory=lambda: torch.device("cpu"), init=False, repr=False)

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Backbone, hash of its file, version of the heads."""
        return {"net": self.net, "weights_sha256": self._sha256, "heads": "0.1", "torchmetrics": version()}

    def refuse(self, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
        """Raises MetricError for images that the backbone does not take, or if weights or torchmetrics are missing.

        Raises WeightsError for a file that does not exist.
        """
        if shape[0] not in (1, 3) or min(shape[1:]) < SMALLEST[self.net]:
            raise MetricError(
                f"metrics=lpips takes images of 1 or 3 channels and at least {SMALLEST[self.net]} pixels per side, and"
                f" these are {'×'.join(map(str, shape))}: leave it out of metrics"
            )
        if self.weights is None:
            raise MetricError(
                f"metrics=lpips needs the weights of torchvision's {BACKBONES[self.net]}, and downloads none: type"
                f" {KEY}=FILE with its state dict"
            )
        library(self.name)
        files.given(self.weights, KEY)

    def begin(self, device: torch.device | str) -> None:
        """Read the backbone. Raises WeightsError for a file that is damaged or of another network."""
        self._device = torch.device(device)
        if self._net is None:
            assert self.weights is not None
            path = files.given(self.weights, KEY)
            state, self._sha256 = files.read(path, None, KEY)
            self._net = network(self.net, state, str(path))
        self._net.to(self._device)

    @torch.no_grad()
    def see(self, shown: Shown) -> Tensor:
        """Return each image's distance."""
        assert self._net is not None
        pair = (three_channels(x.float()).to(self._device) for x in (shown.made, truth_of(shown)))
        found: Tensor = self._net(*pair, normalize=True)
        return found.reshape(-1, 1).double().cpu()


def network(
    net: Literal["alex", "vgg", "squeeze"], state: Mapping[str, Tensor], path: str, key: str = KEY
) -> nn.Module:
    """Build LPIPS from this backbone and the linear heads in torchmetrics' package. Raises WeightsError naming key."""
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.random.fork_rng(devices=[]):
        found = _LPIPS(pretrained=True, net=net, pnet_rand=True)
    # torchmetrics splits torchvision's `features` into slices, whose layers keep their numbers.
    layers = {k: layer for part in _slices(found.net) for k, layer in part.named_children()}
    whole = nn.ModuleDict({"features": nn.ModuleDict(layers)})
    files.fit(whole, state, path, BACKBONES[net], key)
    return found.eval().requires_grad_(False)


def _slices(net: nn.Module) -> list[nn.Module]:
    children = list(net.children())
    return list(children[0]) if isinstance(children[0], nn.ModuleList) else children
