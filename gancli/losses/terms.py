"""Named terms of a loss: a distance of two columns that a game has or makes, its weight, and who pays it.

Each distance is a pure function of two columns [B, ...] to a mean over rows, so that it may be split with its batch.
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
    """1 - the cosine of the angle between rows, each flattened; its mean.

    >>> cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])).item()
    0.5
    """
    return (1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean()


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)), summed over each row's numbers (Kingma and Welling 2014, appendix B).

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
    """One term: `weight` times the distance of two columns, paid by a player each `every` steps, `every` times as much.

    Raises ConfigError for numbers out of range, and for other than two columns.
    """

    columns: tuple[str, ...]
    distance: str = "l1"
    weight: float = 1.0
    player: str = "G"
    every: int = 1

    def __post_init__(self) -> None:
        if len(self.columns) != 2:
            raise ConfigError(f"terms.*.columns=[{','.join(self.columns)}]: two columns, which are compared")
        if not 0 <= self.weight < float("inf") or self.every < 1:
            raise ConfigError(
                f"terms.*.weight is at least 0 and terms.*.every at least 1, not {self.weight:g} and {self.every}"
            )


class Terms:
    """A game's named terms. Raises CombinationError for columns, players and distances that it does not have.

    columns: what the game has or makes, by name. players: who may pay. distances: beside those of this file, such as
    one of a pretrained network's features. lazy: whether the game plays the moves that `rhythms` asks for.
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
                told = f"terms.{name}.player={term.player}: no player of this game pays terms by that name"
                raise CombinationError(f"{told}; {suggestion(term.player, players)}")
            if term.distance not in self.distances:
                told = f"terms.{name}.distance={term.distance}: there is no such distance here"
                if term.distance in ("features", "features_l2"):
                    raise CombinationError(f"{told} without a frozen network: type pretrained=NAME")
                raise CombinationError(f"{told}; {suggestion(term.distance, self.distances)}")
            if term.every > 1 and not lazy:
                raise CombinationError(
                    f"terms.{name}.every={term.every}: this game pays its terms at each step: set terms.{name}.every=1"
                )

    def wanted(self, player: str, every: int = 1) -> set[str]:
        """The columns that a player's terms look at, so that no others need be made."""
        return {column for term in self._of(player, every).values() for column in term.columns}

    def rhythms(self, player: str) -> list[int]:
        """How often a player pays terms that it does not pay at each step: a lazy move for each of these."""
        return sorted({term.every for term in self.terms.values() if term.player == player and term.every > 1})

    def costs(self, player: str, columns: Mapping[str, Tensor], every: int = 1) -> dict[str, Tensor]:
        """What a player pays, weighted, by `term_NAME`; in float32 at least."""
        return {
            f"term_{name}": term.weight * self.distances[term.distance](*(_wide(columns[c]) for c in term.columns))
            for name, term in self._of(player, every).items()
        }

    def _of(self, player: str, every: int) -> dict[str, Term]:
        return {name: t for name, t in self.terms.items() if t.player == player and t.every == every and t.weight}


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
