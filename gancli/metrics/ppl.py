"""Perceptual path length: the change of images over a small step of the latent, by torch-fidelity's code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.config.settings import at_least
from gancli.data.fields import Image
from gancli.errors import ConfigError, MetricError
from gancli.games.game import label_of
from gancli.games.latent import Latent
from gancli.metrics.extractor import Extractor
from gancli.metrics.fid import FIDELITY_SEED
from gancli.metrics.images import Progress, three_channels
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import FeatureRunMetric, Findings
from gancli.pretrained import weights as files
from gancli.pretrained.weights import fit

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

Distance = Callable[[Tensor, Tensor], Tensor]  # float images [B, C, H, W] in 0 ... 255, two sets -> [B]
CROPPED = 32  # smallest side of an image whose crop VGG-16 can process
SLICES = ((0, 4), (4, 9), (9, 16), (16, 23), (23, 30))  # of VGG-16's layers, as in LPIPS


@dataclass(frozen=True)
class Ppl(FeatureRunMetric):
    """Mean distance of G(z) and G(z + ε towards another latent), divided by ε², without the outer percentiles.

    distance: `lpips` is the papers', of VGG-16 (images resized to at most 64 pixels, as in torch-fidelity); `features`
    is the squared distance of the extractor's features, each scaled to length 1: its result is called ppl_NAME and
    is comparable only with itself. epsilon: null: 1e-4 with lpips; 0.1 with features, whose extractors take 8-bit
    images, in which smaller steps are rounded away. discard: percentiles discarded at each end. lpips, vgg16: weights
    files of LPIPS' linear layers and of torchvision's VGG-16; null: from torch's model cache or a download.
    definition: `torch_fidelity` steps from the start of straight lines between latents, on images of 64 pixels;
    `stylegan` is the released StyleGAN's: steps from t ~ U(0, 1), on images of up to 256 pixels, cropped to that
    paper's face region unless crop is false. space: with the latter z, on the great circle through both latents, or w,
    on the straight line between their styles; the results are called ppl_zfull and ppl_wfull, as there.
    Sources: Karras et al. 2019, section 4.1, eq. 2; Zhang et al. 2018 (LPIPS).
    """

    name: ClassVar[str] = "ppl"
    better: ClassVar[Mapping[str, Better]] = {"ppl": "low"}
    definition: Literal["torch_fidelity", "stylegan"] = "torch_fidelity"
    space: Literal["z", "w"] = "z"
    distance: Literal["lpips", "features"] = "features"
    epsilon: float | None = None
    discard: float = 1.0
    crop: bool | None = None
    lpips: str | None = None
    vgg16: str | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 0 < self.epsilon <= 1:
            raise ConfigError(f"metrics.ppl.epsilon={self.epsilon:g}: type a number above 0 and at most 1, or null")
        if not 0 <= self.discard < 50:
            raise ConfigError(f"metrics.ppl.discard={self.discard:g}: type a percentile from 0 to below 50")
        if self.distance == "features" and (self.lpips or self.vgg16):
            raise ConfigError("metrics.ppl.lpips and metrics.ppl.vgg16 are read with metrics.ppl.distance=lpips only")
        if self.space == "w" and self.definition != "stylegan":
            raise ConfigError("metrics.ppl.space=w needs metrics.ppl.definition=stylegan")
        if self.crop and self.definition != "stylegan":
            raise ConfigError("metrics.ppl.crop=true needs metrics.ppl.definition=stylegan")

    @property
    def _stylegan(self) -> bool:
        return self.definition == "stylegan"

    @property
    def _cropped(self) -> bool:
        return self._stylegan and self.crop is not False

    def needs_extractor(self) -> bool:
        """Whether the distance is one of features."""
        return self.distance == "features"

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Definition, distance, step, discarded percentiles; with torch-fidelity's definition the seed of its draws."""
        told = {
            "definition": self.definition,
            "distance": self.distance,
            "epsilon": self._epsilon(),
            "discard": self.discard,
            "interpolation": "lerp in w" if self.space == "w" else "slerp in z" if self._stylegan else "lerp in z",
            "t": "uniform in [0, 1]" if self._stylegan else "0",
        }
        if self.distance == "lpips":
            told["pixels"] = "averaged over blocks of side // 256" if self._stylegan else "64 at most"
        return told | ({"crop": self._cropped} if self._stylegan else {"seed": FIDELITY_SEED})

    def _epsilon(self) -> float:
        return self.epsilon or (1e-4 if self.distance == "lpips" else 0.1)

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for points, and for truncated latents."""
        if not isinstance(sampler.field, Image) or sampler.field.channels not in (1, 3):
            raise MetricError("metrics=ppl takes images of 1 or 3 channels: leave it out of metrics")
        if sampler.truncation is not None:
            raise MetricError("metrics=ppl interpolates latents of the whole distribution: leave truncation out")
        latent = latent_of(sampler)[1]
        if self.space == "w" and sampler.game.styles(sampler.direction) is None:
            raise MetricError("metrics.ppl.space=w: this generator has no styles: set metrics.ppl.space=z")
        if self._stylegan and latent.kind != "normal":
            raise MetricError(
                f"metrics.ppl.definition=stylegan interpolates normal latents, and this run's are {latent.kind}: type"
                " metrics.ppl.definition=torch_fidelity"
            )
        height, width = sampler.field.height, sampler.field.width
        if self._cropped and (height != width or height < CROPPED):
            raise MetricError(
                f"metrics.ppl.definition=stylegan crops the face region of square images of at least {CROPPED} pixels,"
                f" and these have {height}x{width}: type metrics.ppl.crop=false"
            )

    def measure(self, extractor: Extractor | None, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Return ppl (ppl_zfull or ppl_wfull by StyleGAN's definition), with features ppl_NAME.

        _std: deviation over the paths.
        """
        self.refuse(sampler)
        at_least(2, n=n)
        name = f"ppl_{self.space}full" if self._stylegan else "ppl"
        if self.distance == "lpips":
            distance = lpips(self.lpips, self.vgg16, None if self._stylegan else 64)
        else:
            assert extractor is not None
            name, distance = f"{name}_{extractor.name}", of_features(extractor)
        if self._stylegan:
            lengths = full_lengths(sampler, distance, n, self._epsilon(), seed, self._cropped, progress, self.space)
        else:
            lengths = path_lengths(sampler, distance, n, self._epsilon(), progress)
        if self.discard:
            low = np.percentile(lengths, self.discard, method="lower")
            high = np.percentile(lengths, 100 - self.discard, method="higher")
            lengths = lengths[(low <= lengths) & (lengths <= high)]
        values = {name: float(lengths.mean()), f"{name}_std": float(lengths.std())}
        return Findings(values, {"ppl_paths": len(lengths)}, notes=extractor.notes() if extractor is not None else ())


def latent_of(sampler: Sampler) -> tuple[str, Latent]:
    """Return the latents' column and distribution. Raises MetricError if the game has no latents."""
    paths = sampler.game.interpolation_paths(sampler.direction).values()
    known = next(((path.column, path.latent) for path in paths if path.latent is not None), None)
    if known is None:
        raise MetricError(
            "metrics=ppl interpolates normal or uniform latents, and this system has none: leave it out of metrics"
        )
    return known


def drawn_of(sampler: Sampler, z: Tensor, y: Tensor | None) -> Tensor:
    """Generate images [n, C, H, W] in 0 ... 255 from latents [n, dim] and classes; of pairs, as `_both`."""
    return _both(sampler, inputs_of(sampler, z, y))


def inputs_of(sampler: Sampler, z: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    """The inputs of the generator."""
    label = label_of(sampler.game, sampler.direction)
    return {latent_of(sampler)[0]: z} | ({} if y is None or label is None else {label[0]: y})


def _both(sampler: Sampler, inputs: dict[str, Tensor]) -> Tensor:
    """Generate images of the beginnings and ends of steps; noise inside the network is that of the pair."""
    half = len(next(iter(inputs.values()))) // 2
    keys = [(0, k) for k in range(half)] * 2
    return (sampler.generate(inputs, keys)[sampler.column] + 1) * 127.5


def of_features(extractor: Extractor) -> Distance:
    """Return the squared distance of an extractor's features, each scaled to length 1."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        both = torch.cat([a, b]).round().clamp(0, 255).to(torch.uint8)
        parts = [extractor.features(three_channels(p)) for p in torch.split(both, extractor.batch_size)]
        features = torch.cat(parts)
        first, second = nn.functional.normalize(features, dim=1).chunk(2)
        return (first - second).square().sum(1)

    return distance


def path_lengths(sampler: Sampler, distance: Distance, n: int, epsilon: float, progress: Progress) -> Any:
    """Return the distance divided by ε² of n pairs of latents, float [n], by torch-fidelity's loop."""
    from torch_fidelity.generative_model_base import GenerativeModelBase
    from torch_fidelity.metric_ppl import KEY_METRIC_PPL_RAW, calculate_ppl
    from torch_fidelity.sample_similarity_base import SampleSimilarityBase

    latent, label = latent_of(sampler)[1], label_of(sampler.game, sampler.direction)
    uniform = latent.kind == "uniform"

    class Model(GenerativeModelBase):  # type: ignore[misc]
        """The sampler as a torch-fidelity generator: float images in 0 ... 255."""

        z_size = latent.dim
        z_type = "uniform_0_1" if uniform else "normal"
        num_classes = 0 if label is None else len(label[1].names)

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return drawn_of(sampler, 2 * z - 1 if uniform else z, y)

    done = 0

    class Similarity(SampleSimilarityBase):  # type: ignore[misc]
        """The distance as a torch-fidelity similarity."""

        def __init__(self, name: str, **options: Any):
            super().__init__(name)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            nonlocal done
            done += len(a)
            progress("ppl: paths", done, n)
            return distance(a, b)

    with _registered(Similarity) as name:
        result = calculate_ppl(
            1,
            input1=Model(),
            input1_model_num_samples=n,
            input1_model_num_classes=Model.num_classes,
            batch_size=16,
            cuda=False,
            verbose=False,
            rng_seed=FIDELITY_SEED,
            ppl_epsilon=epsilon,
            ppl_reduction="none",
            ppl_sample_similarity=name,
            # torch-fidelity's discarding uses a keyword argument that NumPy has removed.
            ppl_discard_percentile_lower=None,
            ppl_discard_percentile_higher=None,
        )
    return result[KEY_METRIC_PPL_RAW]


def full_lengths(
    sampler: Sampler,
    distance: Distance,
    n: int,
    epsilon: float,
    seed: int,
    crop: bool,
    progress: Progress,
    space: str = "z",
) -> Any:
    """Return the distance divided by ε² between t and t + ε on paths between n pairs of samples, float [n].

    space: z, on great circles of latents with length √dim, to which StyleGAN's mapping network normalises them, or w,
    on straight lines between the latents' styles. crop: keep of images [B, C, H, H] the rows from 3/8 to 7/8 and the
    columns from 1/4 to 3/4 of the side.
    """
    label = label_of(sampler.game, sampler.direction)
    rng = Rng(seed, "ppl", total=n, dtype=torch.float64)
    ends = [rng.normal(f"end {k}", latent_of(sampler)[1].dim) for k in range(2)]
    t = rng.uniform("t", 1)
    y = None if label is None else rng.integers(label[0], len(label[1].names))
    styles = sampler.game.styles(sampler.direction) if space == "w" else None
    parts = []
    for rows in torch.split(torch.arange(n), 16):
        labels = None if y is None else y[rows].repeat(2)
        if styles is None:
            places = [_slerp(ends[0][rows], ends[1][rows], t[rows] + step).float() for step in (0.0, epsilon)]
            images = drawn_of(sampler, torch.cat(places), labels)
        else:
            both = inputs_of(sampler, torch.cat([end[rows] for end in ends]).float(), labels)
            first, last = sampler.computed(styles.made, both).double().chunk(2)
            places = [torch.lerp(first, last, t[rows] + step).float() for step in (0.0, epsilon)]
            images = _both(sampler, {styles.column: torch.cat(places)})
        if crop:
            c = images.shape[2] // 8
            images = images[:, :, 3 * c : 7 * c, 2 * c : 6 * c]
        factor = images.shape[2] // 256
        images = nn.functional.avg_pool2d(images, factor) if factor > 1 else images
        parts.append(distance(*images.chunk(2)).double() / epsilon**2)
        progress("ppl: paths", int(rows[-1]) + 1, n)
    return torch.cat(parts).cpu().numpy()


def _slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return the points at t [n, 1] on the great circles from a to b [n, D], scaled to length √D."""
    a, b = (nn.functional.normalize(x, dim=1) for x in (a, b))
    cosine = (a * b).sum(1, keepdim=True).clamp(-1, 1)
    angle = t * cosine.acos()
    across = nn.functional.normalize(b - cosine * a, dim=1)
    place: Tensor = a * angle.cos() + across * angle.sin()
    return place * math.sqrt(a.shape[1])


@contextmanager
def _registered(kind: type) -> Iterator[str]:
    """Register a similarity in torch-fidelity's registry within the context; yields its name."""
    from torch_fidelity.registry import SAMPLE_SIMILARITY_REGISTRY

    name = "gancli"
    SAMPLE_SIMILARITY_REGISTRY[name] = kind
    try:
        yield name
    finally:
        del SAMPLE_SIMILARITY_REGISTRY[name]


def lpips(linear: str | None = None, vgg16: str | None = None, resize: int | None = 64) -> Distance:
    """Return torch-fidelity's LPIPS of VGG-16, with safely read weights.

    linear, vgg16: weights files; None: from torch's model cache or a download. resize: larger images are downsampled to
    this side in pixels; None: no resize. Raises WeightsError for weights that are missing, damaged or of another
    network.
    """
    import torchvision
    from torch_fidelity.sample_similarity_base import SampleSimilarityBase
    from torch_fidelity.sample_similarity_lpips import (
        URL_VGG16_LPIPS,
        NetLinLayer,
        SampleSimilarityLPIPS,
        VGG16features,
    )

    class Features(VGG16features):  # type: ignore[misc]
        """torch-fidelity's slices of VGG-16, without its own download of the weights."""

        def __init__(self, layers: nn.Sequential):
            nn.Module.__init__(self)
            for k, (start, stop) in enumerate(SLICES):
                setattr(self, f"slice{k + 1}", layers[start:stop])
            self.N_slices = len(SLICES)

    class Lpips(SampleSimilarityLPIPS):  # type: ignore[misc]
        """torch-fidelity's LPIPS, built from tensors."""

        def __init__(self, state: dict[str, Tensor], path: str, layers: nn.Sequential):
            SampleSimilarityBase.__init__(self, "lpips")
            self.sample_similarity_resize = self.sample_similarity_dtype = None
            self.chns = [64, 128, 256, 512, 512]
            self.L = len(self.chns)
            self.lins = [NetLinLayer(c, use_dropout=True) for c in self.chns]
            for k, lin in enumerate(self.lins):
                setattr(self, f"lin{k}", lin)
            fit(self, state, path, "LPIPS", "metrics.ppl.lpips")
            self.net = Features(layers)
            self.eval().requires_grad_(False)

    url = torchvision.models.VGG16_Weights.IMAGENET1K_V1.url
    parts = []
    for key, file, address in (("lpips", linear, URL_VGG16_LPIPS), ("vgg16", vgg16, url)):
        full = f"metrics.ppl.{key}"
        path = files.fetched(address, key=full) if file is None else files.given(file, full)
        parts.append((files.read(path, address if file is None else None, full)[0], str(path)))
    with torch.random.fork_rng(devices=[]):
        net = torchvision.models.vgg16()
        fit(net, parts[1][0], parts[1][1], "vgg16", "metrics.ppl.vgg16")
        net = Lpips(parts[0][0], parts[0][1], net.features)

    @torch.no_grad()
    def distance(a: Tensor, b: Tensor) -> Tensor:
        small = [three_channels(x) for x in (a, b)]
        if resize is not None and min(a.shape[2:]) > resize:
            small = [net.resize(x, resize) for x in small]
        found: Tensor = net(*small)
        return found.flatten()

    return distance
