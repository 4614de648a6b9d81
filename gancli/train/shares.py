"""How a game's batches may be shared out: over ranks, micro-batches and moves. What cannot be is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gancli.compute.dist import World
from gancli.errors import CombinationError
from gancli.games.game import Game, Move
from gancli.losses.adversarial import Couples
from gancli.nets.layers.norms import AcrossRanks


def couplings(game: Game) -> list[Couples]:
    """How many samples the parts of a game judge together."""
    parts: list[Couples] = [getattr(module, "couples", 1) for module in game.nets.modules()]
    return [game.couples, *parts, *(couples for critic in game.judging() for couples in critic.couplings())]


def unit(game: Game) -> int:
    """How many rows in a row belong to one rank."""
    return math.lcm(*(k for k in couplings(game) if isinstance(k, int)))


def shares(total: int, world: World, together: int) -> list[int]:
    """How many of `total` rows each rank has; `together`: that belong to one rank."""
    spans = (World(rank, world.size).rows(total, together) for rank in range(world.size))
    return [stop - start for start, stop in spans]


def refuse_uneven(batch_size: int, micro_batch: int | None, game: Game, world: World | None = None) -> None:
    """Raise CombinationError where ranks or micro-batches would tear apart samples that are judged together."""
    world, together = world or World(), unit(game)
    counts = shares(batch_size, world, together)
    split = micro_batch is not None and micro_batch < max(counts)
    if "all" in couplings(game) and split:
        raise CombinationError(
            f"micro_batch={micro_batch} would split samples that this network judges together: leave micro_batch=null"
        )
    if batch_size % together or (split and micro_batch and micro_batch % together):
        raise CombinationError(
            f"this network judges {together} samples at once:"
            f" batch_size and micro_batch must be multiples of {together}"
        )
    if min(counts) == 0:
        raise CombinationError(
            f"batch_size={batch_size} cannot be dealt to {world.size} ranks:"
            f" at least {together * world.size}, or fewer ranks"
        )
    norms = any(isinstance(module, AcrossRanks) for module in game.modules())
    if micro_batch is not None and norms and len({-(-count // micro_batch) for count in counts}) > 1:
        raise CombinationError(
            f"micro_batch={micro_batch} cuts the ranks' shares of {min(counts)} and {max(counts)} images into unequally"
            f" many, and batch norm goes over all ranks: make batch_size a multiple of {together * world.size}"
        )


def refuse_moves(moves: Sequence[Move], batch_size: int, together: int, ranks: int) -> None:
    """Raise CombinationError for moves that draw the same numbers, or whose batches are no whole, even rows."""
    names = [move.name or move.player for move in moves]
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise CombinationError(f"two moves are called {twin}, and would draw the same numbers: name each by itself")
    for move, name in zip(moves, names, strict=True):
        rows = batch_size * move.size
        if abs(rows - round(rows)) > 1e-6 or round(rows) % together or round(rows) < together * ranks:
            raise CombinationError(
                f"batch_size={batch_size}: the move {name} takes {move.size:g} times as many, and that is no multiple"
                f" of {together} for each of {ranks} ranks"
            )
