"""Detection of batch norm over a single value per channel, before the first step, with a remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.errors import CombinationError
from gancli.train.splitting import shares

if TYPE_CHECKING:
    from gancli.games.game import Move
    from gancli.train.engine import Engine


@contextmanager
def norms_watched(engine: Engine, move: Move, rows: int, values: list[float]) -> Iterator[None]:
    """A context that appends to `values` the values per channel of each batch norm, in a move of `rows`.

    Raises CombinationError if a batch norm sees a single value per channel.
    """

    def look(module: nn.Module, inputs: Sequence[Any]) -> None:
        if not module.training or getattr(module, "across", False):  # over all ranks there are several values
            return
        many = inputs[0].numel() / inputs[0].shape[1]
        if many < 2:
            refuse_single(engine, move, many / rows, least=rows)
        values.append(many)

    norms = [module for module in engine.game.modules() if isinstance(module, _BatchNorm)]
    handles = [module.register_forward_pre_hook(look) for module in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def refuse_single(engine: Engine, move: Move, values: float, least: int | None = None) -> None:
    """Raise CombinationError if a micro-batch of a move would give batch norm a single value per channel.

    values: values per channel and row. least: rows of the smallest micro-batch, if known.
    """
    micro, batch = engine.micro_batch, engine.batch_size
    parts = [share for share in shares(engine.total(move), engine.world, engine.unit) if share]
    last = [share % micro or micro if micro and micro < share else share for share in parts]
    smallest = min([*last, *([micro] if micro and micro < max(parts) else [])]) if least is None else least
    if values * smallest >= 2:
        return
    need = math.ceil(2 / values)
    if not micro or micro >= max(parts):
        ranks = engine.world.size
        remedy = f"type batch_size={need * ranks}" + (f", {need} for each rank" if ranks > 1 else "") + " or more"
        what = f"batch_size={batch} gives batch norm"
    elif micro * values < 2:
        remedy = f"type micro_batch={need} or more, or micro_batch=null"
        what = f"micro_batch={micro} gives batch norm"
    else:
        remedy = f"type batch_size={math.ceil(batch / micro) * micro}, or micro_batch=null"
        what = f"batch_size={batch} split by micro_batch={micro} gives the last batch norm"
    raise CombinationError(f"{what} a single value per channel: {remedy}; or choose another norm")


@contextmanager
def single_rows_explained(engine: Engine) -> Iterator[None]:
    """Raise CombinationError instead of torch's error of a batch norm over a single value, if there was no forecast."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        refuse_single(engine, engine.moves()[0], 1.0, least=1)
