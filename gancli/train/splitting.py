"""Splitting of batches over ranks and micro-batches; impossible splits are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gancli.compute.dist import World
from gancli.errors import CombinationError
from gancli.games.game import Game, Move
from gancli.losses.adversarial import Couples
from gancli.nets.layers.norms import AcrossRanks


def couplings(game: Game) -> list[Couples]:
    """Return the number of samples that each component of a game couples."""
    parts: list[Couples] = [getattr(module, "couples", 1) for module in game.nets.modules()]
    return [game.couples, *parts, *(couples for critic in game.judging() for couples in critic.couplings())]


def unit(game: Game) -> int:
    """Return the number of consecutive rows that must stay on one rank."""
    return math.lcm(*(k for k in couplings(game) if isinstance(k, int)))


def shares(total: int, world: World, together: int) -> list[int]:
    """Return the rows of each rank out of `total`; together: rows that must stay on one rank."""
    spans = (World(rank, world.size).rows(total, together) for rank in range(world.size))
    return [stop - start for start, stop in spans]


def refuse_uneven(batch_size: int, micro_batch: int | None, game: Game, world: World | None = None) -> None:
    """Raise CombinationError if ranks or micro-batches would split samples that are coupled."""
    world, together = world or World(), unit(game)
    counts = shares(batch_size, world, together)
    split = micro_batch is not None and micro_batch < max(counts)
    if "all" in couplings(game) and split:
        raise CombinationError(
            f"micro_batch={micro_batch} would split samples that this network couples: set micro_batch=null"
        )
    if batch_size % together or (split and micro_batch and micro_batch % together):
        raise CombinationError(
            f"this network couples {together} samples: batch_size and micro_batch must be multiples of {together}"
        )
    if min(counts) == 0:
        raise CombinationError(
            f"batch_size={batch_size} cannot be split over {world.size} ranks:"
            f" use at least {together * world.size}, or fewer ranks"
        )
    norms = any(isinstance(module, AcrossRanks) for module in game.modules())
    if micro_batch is not None and norms and len({-(-count // micro_batch) for count in counts}) > 1:
        raise CombinationError(
            f"micro_batch={micro_batch} splits the ranks' shares of {min(counts)} and {max(counts)} images"
            " into different counts, but batch norm is over all ranks: make batch_size a multiple of"
            f" {together * world.size}"
        )


def refuse_moves(moves: Sequence[Move], batch_size: int, together: int, ranks: int) -> None:
    """Raise CombinationError for moves with the same random numbers, or whose batches cannot be split evenly."""
    names = [move.name or move.player for move in moves]
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise CombinationError(
            f"two moves are named {twin} and would draw the same random numbers: give each its own name"
        )
    for move, name in zip(moves, names, strict=True):
        rows = move.rows(batch_size)
        if abs(rows - round(rows)) > 1e-6 or round(rows) % together or round(rows) < together * ranks:
            raise CombinationError(
                f"batch_size={batch_size}: the move {name} takes {move.size:g} times as many rows, which is no"
                f" multiple of {together} for each of {ranks} ranks: type another batch_size, such as"
                f" {2 * together * ranks * max(1, batch_size // (2 * together * ranks))}"
            )
