"""The extractors of observers: one network for all that choose the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gancli.compute import ranks
from gancli.config.build import make
from gancli.config.grammar import in_quotes
from gancli.errors import WeightsError
from gancli.metrics.extractor import Extractor
from gancli.observers.observer import Observer


class ExtractorChoice:
    """An extractor by its configuration as composed for `gan eval`; its network is loaded once.

    observer: key of the observer that chose it, for messages. samples: features [n, dim] of the newest samples of `gan
    eval` with its default keys, by step and n; equal choices share them, too.
    """

    def __init__(self, observer: str, config: Mapping[str, Any]):
        self.observer, self.config = observer, dict(config)
        self.network: Extractor | None = None
        self.samples: dict[tuple[int, int], Tensor] = {}

    def load(self, others: Sequence[Observer] = ()) -> Extractor:
        """Return the network; of equal choices of other observers, if one is loaded. Raises WeightsError."""
        for other in others:
            same = other.chosen if isinstance(other, ReadsFeatures) else None
            if self.network is None and same is not None and same.config == self.config:
                self.network, self.samples = same.network, same.samples
        if self.network is None:
            try:
                with ranks.one_first():
                    self.network = make(self.config, "extractor")
            except WeightsError as error:  # it names the keys of gan eval
                raise WeightsError(re.sub(r"\bextractor([=.])", self._key, str(error))) from None
        assert self.network is not None
        return self.network

    def keep(self, step: int, n: int, samples: Tensor) -> None:
        """Keep the features of the newest samples, in place of earlier ones."""
        self.samples.clear()
        self.samples[step, n] = samples

    def _key(self, found: re.Match[str]) -> str:
        """Return the observer's key: extractor= and extractor.weights become observers.NAME.extractor and .weights."""
        return f"{self.observer}.extractor=" if found[1] == "=" else f"{self.observer}."


class ReadsFeatures(Observer):
    """Base class of observers that read an extractor's features. chosen: None if the observer is off."""

    chosen: ExtractorChoice | None = None


def words(extractor: str, weights: str | None) -> list[str]:
    """Return the overrides of `gan eval` that choose an extractor and its weights file."""
    return [f"extractor={extractor}", *([] if weights is None else [f"extractor.weights={in_quotes(weights)}"])]
