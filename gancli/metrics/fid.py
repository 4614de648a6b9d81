"""FID, KID, precision and recall, and the Inception Score, each computed by torch-fidelity from features.

torch-fidelity's own entry point would read the weights unsafely, start worker processes, draw random numbers and
extract features at each call. Its functions from features to numbers are called instead: the same numbers, with one
pass over the images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from gancli.config.settings import at_least
from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.frechet import frechet_influences, kernel_influences
from gancli.metrics.metric import Better, Metric, named
from gancli.metrics.reference import Reference, statistics

# torch-fidelity's default seed (of KID's subsets and the Inception Score's splits): with another seed, the numbers
# would differ from those of its command.
FIDELITY_SEED = 2020

# Above this many images, precision and recall are computed in blocks: the full distance matrix would take over 1.6 GB.
_WHOLE = 20_000


@dataclass(frozen=True)
class Fid(Metric):
    """Fréchet distance of two Gaussians fitted to the features. Source: Heusel et al., 2017, eq. 6."""

    name: ClassVar[str] = "fid"
    better: ClassVar[Mapping[str, Better]] = {"fid": "low", "fd": "low"}
    by_statistics: ClassVar[bool] = True

    def check(self, extractor: Extractor, n_fake: int, n_real: int) -> list[str]:
        """Warns if the covariance cannot have full rank. Raises MetricError for fewer than 2 images."""
        n = _least(self.name, 2, n_fake, n_real)
        if n >= extractor.dim:
            return []
        return [
            f"{named('fid', extractor)}: {n} images are fewer than the {extractor.dim} features, so the value is biased"
            " upwards and comparable only with others of as many images; use kid, or a larger n"
        ]

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Return {}: there are no settings."""
        return {}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """fid."""
        from torch_fidelity import KEY_METRIC_FID
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        found = fid_statistics_to_metric(
            fid_features_to_statistics(fake), fid_features_to_statistics(real), verbose=False
        )
        return {named("fid", extractor): _not_below_0(float(found[KEY_METRIC_FID]))}

    def score_statistics(self, fake: Tensor, reference: Reference, extractor: Extractor) -> dict[str, float]:
        """fid."""
        return {named("fid", extractor): _of_statistics(statistics(fake), (reference.mu, reference.sigma))}

    def influences(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, tuple[Tensor, Tensor]]:
        """fid's."""
        return {named("fid", extractor): frechet_influences(fake, real)}


def _of_statistics(*sides: tuple[Any, Any]) -> float:
    """Return torch-fidelity's distance from means and covariances, float64; NaN if it cannot be computed."""
    from torch_fidelity import KEY_METRIC_FID
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    try:
        found = fid_statistics_to_metric(*({"mu": mu, "sigma": sigma} for mu, sigma in sides), verbose=False)
    except np.linalg.LinAlgError:  # an untrusted file's statistics: the product of the covariances overflows float64
        return math.nan
    return _not_below_0(float(found[KEY_METRIC_FID]))


def _not_below_0(distance: float) -> float:
    """Clip a squared distance at 0, below which rounding may bring that of equal sets; NaN stays NaN."""
    return 0.0 if distance < 0 else distance


@dataclass(frozen=True)
class Kid(Metric):
    """Squared maximum mean discrepancy with a cubic kernel, unbiased. Source: Bińkowski et al., 2018, section 4.

    subsets: how many draws are averaged. subset_size: images in each; a smaller set is used completely.
    """

    name: ClassVar[str] = "kid"
    better: ClassVar[Mapping[str, Better]] = {"kid": "low", "kd": "low"}
    subsets: int = 100
    subset_size: int = 1000

    def __post_init__(self) -> None:
        at_least(1, **{"metrics.kid.subsets": self.subsets})
        at_least(2, **{"metrics.kid.subset_size": self.subset_size})

    def check(self, extractor: Extractor, n_fake: int, n_real: int) -> list[str]:
        """Warns if every subset is the whole set. Raises MetricError for fewer than 2 images."""
        n = _least(self.name, 2, n_fake, n_real)
        if not self.subset_size >= n_fake == n_real:
            return []
        name = named(self.name, extractor)
        return [
            f"{name}: each subset is all {n} images, so {name}_std is 0; type metrics.kid.subset_size="
            f"{max(2, n // 2)} for a meaningful one"
        ]

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Subsets, their actual size, and the seed that draws them."""
        size = min(self.subset_size, n_fake, n_real)
        return {"subsets": self.subsets, "subset_size": size, "kernel": "cubic", "seed": FIDELITY_SEED}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """kid: mean over the subsets, possibly slightly below 0 (it is unbiased). kid_std: standard deviation."""
        from torch_fidelity import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD
        from torch_fidelity.metric_kid import kid_features_to_metric

        size = min(self.subset_size, len(fake), len(real))
        # If each subset is the whole of both sets, the subsets differ only in their order.
        subsets = 1 if size == len(fake) == len(real) else self.subsets
        options = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": FIDELITY_SEED, "verbose": False}
        found = kid_features_to_metric(fake, real, **options)
        name = named("kid", extractor)
        return {name: found[KEY_METRIC_KID_MEAN], f"{name}_std": found[KEY_METRIC_KID_STD]}

    def influences(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, tuple[Tensor, Tensor]]:
        """kid's."""
        return {named("kid", extractor): kernel_influences(fake, real)}


@dataclass(frozen=True)
class Prc(Metric):
    """Precision and recall of manifolds of balls around the features. Source: Kynkäänniemi et al., 2019, eq. 1-3.

    neighborhood: k; the radius of a ball is the distance to its centre's k-th nearest neighbour.
    """

    name: ClassVar[str] = "prc"
    words: ClassVar[tuple[str, ...]] = ("precision", "recall")
    better: ClassVar[Mapping[str, Better]] = {"precision": "high", "recall": "high"}
    neighborhood: int = 3

    def __post_init__(self) -> None:
        at_least(1, **{"metrics.prc.neighborhood": self.neighborhood})

    def check(self, extractor: Extractor, n_fake: int, n_real: int) -> list[str]:
        """Raises MetricError if there are too few images for `neighborhood`."""
        _least(self.name, self.neighborhood + 1, n_fake, n_real)
        return []

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The neighbourhood."""
        return {"neighborhood": self.neighborhood}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """precision: share of samples within the real manifold. recall: share of real images within the samples'."""
        from torch_fidelity import KEY_METRIC_PRECISION, KEY_METRIC_RECALL
        from torch_fidelity.metric_prc import prc_features_to_metric

        blocks = max(len(fake), len(real)) > _WHOLE
        found = prc_features_to_metric(
            fake, real, prc_neighborhood=self.neighborhood, save_cpu_ram=blocks, verbose=False
        )
        names = named("precision", extractor), named("recall", extractor)
        return {names[0]: found[KEY_METRIC_PRECISION], names[1]: found[KEY_METRIC_RECALL]}


@dataclass(frozen=True)
class Is(Metric):
    """Inception Score: exp of the mean KL divergence of each image's class distribution from the mean over all images.

    splits: parts whose scores are averaged. Source: Salimans et al., 2016, section 4.
    """

    name: ClassVar[str] = "is"
    better: ClassVar[Mapping[str, Better]] = {"is": "high"}
    compares: ClassVar[bool] = False
    splits: int = 10

    def __post_init__(self) -> None:
        at_least(1, **{"metrics.is.splits": self.splits})

    def check(self, extractor: Extractor, n_fake: int, n_real: int) -> list[str]:
        """Warns about small splits. Raises MetricError if the extractor has no classes or a split no images."""
        if not extractor.classes:
            raise MetricError(f"metrics=is needs the extractor's class logits, which {_lack(extractor)}")
        if n_fake < self.splits:
            raise MetricError(
                f"metrics.is.splits={self.splits} is more than the {n_fake} images: type at most {n_fake}, or a larger"
                " n"
            )
        each = n_fake // self.splits
        if each >= extractor.classes:
            return []
        return [
            f"{named('is', extractor)}: {each} images in each split are fewer than the {extractor.classes} classes, "
            "so the value is biased downwards"
        ]

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Splits, and the seed of the shuffle."""
        return {"splits": self.splits, "seed": FIDELITY_SEED}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """is: mean over the splits. is_std: standard deviation over the splits."""
        from torch_fidelity import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD
        from torch_fidelity.metric_isc import isc_features_to_metric

        found = isc_features_to_metric(extractor.logits(fake), self.splits, shuffle=True, rng_seed=FIDELITY_SEED)
        name = named("is", extractor)
        return {name: found[KEY_METRIC_ISC_MEAN], f"{name}_std": found[KEY_METRIC_ISC_STD]}


def _lack(extractor: Extractor) -> str:
    """Return why there are no class logits, and the remedy."""
    if extractor.name != "inception":
        return f"{extractor.name} does not have: leave is out of metrics, or choose a classifier as extractor"
    return (
        "these weights lack (their last layer is zero): leave is out of metrics, or give torch-fidelity's own file by "
        "extractor.weights=FILE"
    )


def _least(name: str, least: int, n_fake: int, n_real: int) -> int:
    """Return the smaller count. Raises MetricError if it is below `least`."""
    n = min(n_fake, n_real)
    if n < least:
        raise MetricError(
            f"metrics={name} needs at least {least} samples and {least} real images, got {n_fake} and {n_real}"
        )
    return n
