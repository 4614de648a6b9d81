"""Named loss terms: a weighted distance between two columns of a game, in the loss of one player.

Each distance maps two columns [B, ...] to a mean over rows, so it may be split with its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.errors import CombinationError, ConfigError, suggestion

Distance = Callable[[Tensor, Tensor], Tensor]


def l1(a: Tensor, b: Tensor) -> Tensor:
    """The mean absolute difference.

    >>> l1(torch.tensor([[1.0, 4.0]]), torch.tensor([[0.0, 1.0]])).item()
    2.0
    """
    return (a - b).abs().mean()


def l2(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference.

    >>> l2(torch.tensor([[1.0, 4.0]]), torch.tensor([[0.0, 1.0]])).item()
    5.0
    """
    return (a - b).square().mean()


def huber(a: Tensor, b: Tensor) -> Tensor:
    """The mean of d² / 2 for differences d below 1, and of |d| - 1/2 above (Huber 1964).

    >>> huber(torch.tensor([[0.5, 4.0]]), torch.tensor([[0.0, 1.0]])).item()  # (0.125 + 2.5) / 2
    1.3125
    """
    return F.huber_loss(a, b)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The mean of 1 - the cosine of the angle between rows, each flattened.

    >>> cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])).item()
    0.5
    """
    return (1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean()


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)), summed over each row's dimensions (Kingma and Welling 2014, appendix B).

    >>> kl(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2)).item()  # (1/2 + 0) / 2
    0.25
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean() / 2


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log of the label's probability, logits [B, K, ...] and labels int64 [B, ...].

    >>> round(cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, 2])).item(), 4)  # log 4
    1.3863
    """
    return F.cross_entropy(logits, labels)


DISTANCES: Mapping[str, Distance] = MappingProxyType(
    {"l1": l1, "l2": l2, "huber": huber, "cosine": cosine, "kl": kl, "cross_entropy": cross_entropy}
)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term: `weight` times the distance of two columns, in the loss of `player`.

    every: applied every `every` steps, multiplied by `every`. Raises ConfigError for numbers out of range, and unless
    there are two columns.
    """

    columns: tuple[str, ...]
    distance: str = "l1"
    weight: float = 1.0
    player: str = "G"
    every: int = 1

    def __post_init__(self) -> None:
        if len(self.columns) != 2:
            raise ConfigError(f"terms.*.columns=[{','.join(self.columns)}]: must be the two columns to compare")
        if not 0 <= self.weight < float("inf") or self.every < 1:
            raise ConfigError(
                f"terms.*.weight must be at least 0 and terms.*.every at least 1, not {self.weight:g} and {self.every}"
            )


class Terms:
    """A game's named terms. Raises CombinationError for columns, players and distances that it does not have.

    columns: names of the game's columns. players: those that may have terms. distances: in addition to those of this
    module, such as one between a pretrained network's features. lazy: whether the game plays the moves for `rhythms`.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        *,
        columns: Collection[str],
        players: Collection[str] = ("G",),
        distances: Mapping[str, Distance] | None = None,
        lazy: bool = False,
    ):
        self.terms, self.distances = dict(terms), {**DISTANCES, **(distances or {})}
        for name, term in self.terms.items():
            for column in term.columns:
                if column not in columns:
                    raise CombinationError(
                        f"terms.{name}.columns: this game has no column {column}; {suggestion(column, columns)}"
                    )
            if term.player not in players:
                raise CombinationError(
                    f"terms.{name}.player={term.player}: this game has no terms for such a player;"
                    f" {suggestion(term.player, players)}"
                )
            if term.distance not in self.distances:
                given = f"terms.{name}.distance={term.distance}"
                if term.distance in ("features", "features_l2", "features_unit"):
                    raise CombinationError(f"{given}: needs a frozen network: set pretrained=NAME")
                raise CombinationError(f"{given}: unknown distance; {suggestion(term.distance, self.distances)}")
            if term.every > 1 and not lazy:
                raise CombinationError(
                    f"terms.{name}.every={term.every}: this game applies its terms at every step:"
                    f" set terms.{name}.every=1"
                )

    def wanted(self, player: str, every: int = 1) -> set[str]:
        """The columns that a player's terms use; a game need not compute others."""
        return {column for term in self._of(player, every).values() for column in term.columns}

    def rhythms(self, player: str) -> list[int]:
        """The intervals `every` above 1 of a player's terms: each needs a lazy move."""
        return sorted({term.every for term in self.terms.values() if term.player == player and term.every > 1})

    def costs(self, player: str, columns: Mapping[str, Tensor], every: int = 1) -> dict[str, Tensor]:
        """A player's weighted terms, by `term_NAME`; in float32 at least."""
        return {
            f"term_{name}": term.weight * self.distances[term.distance](*(_wide(columns[c]) for c in term.columns))
            for name, term in self._of(player, every).items()
        }

    def _of(self, player: str, every: int) -> dict[str, Term]:
        return {name: t for name, t in self.terms.items() if t.player == player and t.every == every and t.weight}


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
