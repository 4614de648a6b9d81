"""The training engine. The only place that runs backward, steps an optimizer, scales, reduces or averages.

The training step is `Engine.step`, and what one player does in it is `Engine.play`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.compute.rng import Rng
from gancli.data.loader import Stream
from gancli.errors import CombinationError
from gancli.games.game import Batch, Game, Move, Outcome, Result
from gancli.games.stages import Moment, Stage
from gancli.losses.adversarial import Couples
from gancli.nets.layers import noise
from gancli.nets.layers.norms import share_statistics
from gancli.train.averages import Average, copies_of, follow, frozen_copy
from gancli.train.carried import Carried
from gancli.train.course import Course, Span
from gancli.train.players import Player
from gancli.train.ramp import Ramp
from gancli.train.schedule import Schedule
from gancli.train.splitting import couplings, refuse_moves, refuse_uneven, unit

Tried = tuple[Rng, Batch]  # the random numbers of a move, and the rows that it carries


class Engine:
    """The training state of one run, and the training step.

    batch_size: rows of each feed in a move of size 1, over all ranks; None: from each stage. micro_batch: rows per
    forward pass; None: from the stage, or all. steps: of the whole run. schedules: of players that have their own.
    clip: largest gradient norm of a move, or None. ramp: values that change with the images seen. Raises
    CombinationError if the batch of a stage cannot be split as requested, ConfigError for inconsistent stages.
    """

    def __init__(
        self,
        game: Game,
        streams: Mapping[str, Stream],
        optimizers: Mapping[str, Optimizer],
        *,
        compute: Compute,
        batch_size: int | None,
        micro_batch: int | None = None,
        seed: int = 0,
        steps: int = 0,
        average: Average | None = None,
        schedule: Schedule | None = None,
        schedules: Mapping[str, Schedule] | None = None,
        ramp: Ramp | None = None,
        clip: float | None = None,
        world: World | None = None,
    ):
        self.game, self.streams, self.compute, self.world = game, dict(streams), compute, world or World()
        self.seed, self.steps = seed, steps
        self.average_rule, self.clip, self.ramp = average or Average(), clip, ramp
        self.step_number, self.seen = 0, 0
        self.positions = dict.fromkeys(self.streams, 0)
        self.dtype = next(game.parameters()).dtype
        self.unit = unit(game)
        self.course = Course(game, batch_size, micro_batch)
        self._moves: Sequence[Move] = ()  # the moves that were checked last
        self._checked_stage = self.course.stages[0]  # their stage
        self.rows: dict[str, int] = {}  # rows of the first feed per step, by stage name
        self._refuse_stages()
        self._whole = self.course.seen(steps)  # images of the whole run
        if self.world.size > 1:
            share_statistics(game)
        self.world.copy_from_first([*game.parameters(), *game.buffers()])
        own = schedules or {}
        self.players = {
            name: Player.of(
                game.nets_of(name), params, optimizers[name], own.get(name, schedule or Schedule()), compute
            )
            for name, params in game.parameters_by_player().items()
        }
        moved = {id(p) for player in self.players.values() for p in player.params}
        for p in game.parameters():  # also of networks that no player trains
            p.requires_grad_(id(p) in moved)
        game.enter(self.at)  # before its networks are copied, and sampled at step 0
        self.averages = {name: frozen_copy(game.nets[name]) for name in game.averaged() if self.average_rule.kept}
        self.copies, self._copied = copies_of(game), dict(game.copies())
        game.copied = self.copies
        self.kept = Carried(game.keeps(), self.world, self.unit, compute.device, self.dtype)
        self._trained: Player | None = None
        self._noisy = noise.layers({name: game.nets[name] for name in game.nets})
        self._starts: dict[str, int] = {}  # start of the step's last rows of each feed

    # -- the training step ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Tensor]:
        """Run one training step: every move that is due. Return losses and statistics as scalars on the device."""
        logs: dict[str, Tensor] = {}
        carry = self.kept.begin()
        self._starts = {}
        at = self.at
        self.game.enter(at)
        moves = self.game.moves(at)
        self._check_moves(moves, at)
        images = self.course.images(moves, at.stage)
        self._set_rates(moves, at)
        for move in moves:
            if self.step_number % move.every == 0 and (move.gate is None or bool(self.game.get_buffer(move.gate))):
                for repeat in range(move.repeat):
                    logs.update(self.play(move, repeat, carry))
        self.kept.end(carry)
        self._average(images)
        follow(self.copies, self._copied, self.game.nets, self.step_number + 1)
        self.seen += images
        self.step_number += 1
        self._reset_for_stage(at.stage)
        return logs

    def play(self, move: Move, repeat: int, carry: Batch) -> dict[str, Tensor]:
        """Run one optimizer step of one player, over all micro-batches."""
        player = self.players[move.player]
        self._freeze_others(player)
        for layer in player.spectral:
            layer.advance()
        rng = self._rng(move, repeat)
        first, last = self.world.rows(rng.total, self.unit)
        taken = self._carried(move, carry, last - first)
        outcomes = [
            self._backward(player, move, part, taken, rng, first, repeat) for part in self._micro_batches(rng.total)
        ]
        if move.corrects:
            player.reach_all()
        self.world.sum([p.grad for p in player.params if p.grad is not None])
        norm = self._update(player)
        for feed in move.feeds if not move.shared else ():
            self._starts[feed] = self.positions[feed]
            self.positions[feed] += rng.total
        result = self._join(outcomes, rng.total)
        result.stats[f"grad_norm_{move.name or move.player}"] = norm
        carry.update(result.carry)
        self.kept.totals.update(dict.fromkeys(result.carry, rng.total))
        whole = {name: self.world.joined(result.carry[name], rng.total, self.unit) for name in move.remembers}
        replaced = self.game.after(move, Result(result.stats, result.means, whole), rng, self.at)
        carry.update({name: rows[first:last] for name, rows in (replaced or {}).items()})
        return result.stats

    def _backward(
        self, player: Player, move: Move, part: tuple[int, int], taken: Batch, rng: Rng, first: int, repeat: int = 0
    ) -> tuple[int, Outcome]:
        """Forward and backward of one micro-batch, weighted with its exact share of the global batch.

        taken: the carried rows of the move. first: the row of the global batch at which they begin.
        """
        start, stop = part
        batch = self._batch(move, rng.total, start, stop)
        batch |= {name: rows[start - first : stop - first] for name, rows in taken.items()}
        self.compute.reseed(rng.seed("noise", start))  # for foreign layers, which use torch's default generators
        # Keyed without the move: a network's output for a row is the same in all moves of a step.
        inside = rng.beside(self.seed, self.step_number, "inside", repeat, total=rng.total)
        with self._autocast(), noise.keyed(self._noisy, inside.cut(start, stop)):
            outcome = move.loss(batch, rng.cut(start, stop))
        if outcome.losses:
            loss = torch.stack(list(outcome.losses.values())).sum() * (move.every * (stop - start) / rng.total)
            (player.scaler.scale(loss) if player.scaler else loss).backward()  # type: ignore[no-untyped-call]
        return stop - start, outcome

    def _update(self, player: Player) -> Tensor:
        """The optimizer's step; returns the norm of the gradient before clipping, a scalar on the device."""
        if all(p.grad is None for p in player.params):
            # A penalty without a gradient; the scaler would fail, since it records no check for infinities.
            return torch.zeros((), device=self.compute.device)
        if player.scaler:
            player.scaler.unscale_(player.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in player.params if p.grad is not None])
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(player.params, self.clip, norm)
        if player.scaler:
            player.scaler.step(player.optimizer)
            player.scaler.update()
        else:
            player.optimizer.step()
        player.optimizer.zero_grad(set_to_none=True)
        return norm

    def _freeze_others(self, player: Player) -> None:
        """Enable gradients for the moving player only: G's move must not compute D's."""
        if self._trained is not player:
            for other in self.players.values():
                for p in other.params:
                    p.requires_grad_(other is player)
            self._trained = player

    @torch.no_grad()
    def _average(self, images: int) -> None:
        decay = self.average_rule.at(self.step_number + 1, images, self.seen)
        if self.ramp is not None and self.ramp.half_life is not None:
            decay = self.ramp.decay(self.seen, images)
        for name, average in self.averages.items():
            torch._foreach_lerp_(list(average.parameters()), list(self.game.nets[name].parameters()), 1 - decay)

    def _set_rates(self, moves: Sequence[Move], at: Moment) -> None:
        """Set each optimizer's learning rate and betas for this step."""
        ramp = self.ramp
        for name, player in self.players.items():
            lazy = math.prod(m.every / (m.every + 1) for m in moves if m.corrects and m.player == name)
            factor = player.schedule.factor(at.step, self.steps, at.seen, self._whole) * lazy * at.stage.rate(name)
            if ramp is not None:
                factor *= ramp.rate(at.seen)
            player.set_rate(factor, lazy, lambda beta: beta if ramp is None else ramp.second_beta(beta, at.seen))

    def _check_moves(self, moves: Sequence[Move], at: Moment) -> None:
        if moves is not self._moves or at.stage is not self._checked_stage:  # in most games they never change
            refuse_moves(moves, self.course.batch_size(at.stage), self.unit, self.world.size)
            rows = self.course.images(moves, at.stage)
            if rows != self.rows.setdefault(at.stage.name, rows):
                first = f"the first move takes {rows} rows a step after {self.rows[at.stage.name]}"
                raise CombinationError(f"{first}: a game that changes it must define a separate stage")
            self._moves, self._checked_stage = moves, at.stage

    def _refuse_stages(self) -> None:
        """Raise CombinationError if the batches of a stage cannot be split, or its first moves are invalid."""
        for span in self.course.spans():
            stage, moves = span.at.stage, self.game.moves(span.at)
            try:
                refuse_uneven(self.course.batch_size(stage), self.course.micro_batch(stage), self.game, self.world)
                self._check_moves(moves, span.at)
            except CombinationError as error:
                raise (CombinationError(f"stage {stage.name}: {error}") if stage.name else error) from None

    def _reset_for_stage(self, before: Stage) -> None:
        """Reset the optimizers that a new stage resets, and carried rows if the batch size changes."""
        stage = self.at.stage
        for name in stage.reset if stage is not before else ():
            self.players[name].optimizer.state.clear()
        if self.course.batch_size(stage) != self.course.batch_size(before):
            self.kept.rows.clear()

    # -- where the run is ----------------------------------------------------------------------------------------------

    @property
    def at(self) -> Moment:
        """The moment at which the next step begins."""
        return self.course.at(self.step_number, self.seen)

    @property
    def batch_size(self) -> int:
        """Rows of each feed in a move of size 1 of this stage, over all ranks."""
        return self.course.batch_size(self.at.stage)

    @property
    def micro_batch(self) -> int | None:
        """Rows per forward pass in this stage; None: all rows of a move."""
        return self.course.micro_batch(self.at.stage)

    def moves(self) -> Sequence[Move]:
        """Return the moves of the next step."""
        return self.game.moves(self.at)

    def ahead(self) -> list[Span]:
        """Return the remaining stages of the run; for a run of 0 steps, all stages of the game."""
        return self.course.spans(self.step_number, self.seen, self.steps or None)

    # -- batches -------------------------------------------------------------------------------------------------------

    @property
    def main(self) -> Stream:
        """The first feed, whose rows `seen` counts."""
        return next(iter(self.streams.values()))

    @property
    def couples(self) -> Couples:
        """The number of rows that must stay together in a micro-batch."""
        return "all" if "all" in couplings(self.game) else self.unit

    def total(self, move: Move) -> int:
        """Return the rows of a move, over all ranks."""
        return self.course.total(move, self.at.stage)

    def _rng(self, move: Move, repeat: int, rows: int | None = None) -> Rng:
        total = rows or self.total(move)
        name = move.name or move.player
        return Rng(self.seed, self.step_number, name, repeat, total=total, device=self.compute.device, dtype=self.dtype)

    def _micro_batches(self, total: int) -> Iterator[tuple[int, int]]:
        """Yield this rank's micro-batches as (start, stop) rows of the global batch."""
        start, stop = self.world.rows(total, self.unit)
        size = self.micro_batch or stop - start
        for begin in range(start, stop, size):
            yield begin, min(begin + size, stop)

    def _batch(self, move: Move, total: int, start: int, stop: int) -> Batch:
        """Return rows of the move's feeds: by column name if there is one feed, else as FEED.COLUMN."""
        batch: Batch = {}
        places = self.positions | (self._starts if move.shared else {})
        for feed in move.feeds:
            rows = self.streams[feed].batch(places[feed], total, start, stop, self.at.stage.level)
            rows = {name: t.to(self.dtype) if t.is_floating_point() else t for name, t in rows.items()}
            batch |= rows if len(move.feeds) == 1 else {f"{feed}.{name}": t for name, t in rows.items()}
        return batch

    def _carried(self, move: Move, carry: Mapping[str, Tensor], count: int) -> Batch:
        """Return the `count` rows that this move needs from earlier ones. Raises CombinationError for other counts."""
        rows = {name: self.kept.beginning(name, count) for name in move.carried if name in self.kept.first}
        rows |= carry
        for name in move.carried:
            there = len(rows[name]) if name in rows else 0
            if there != count:
                asks = f"the move {move.name or move.player} needs {count} carried rows of {name}"
                raise CombinationError(f"{asks}, but there are {there}")
        return {name: rows[name] for name in move.carried}

    def _join(self, outcomes: list[tuple[int, Outcome]], total: int) -> Result:
        """Average losses and statistics over micro-batches and ranks; concatenate carried tensors."""
        logs: dict[str, Tensor] = {}
        means: dict[str, Tensor] = {}
        kept: dict[str, list[Tensor]] = {}
        for rows, outcome in outcomes:
            for found, values in ((logs, outcome.losses | outcome.stats), (means, outcome.means)):
                for name, value in values.items():
                    share = _summable(value.detach()) * (rows / total)
                    found[name] = found[name] + share if name in found else share
            for name, value in outcome.carry.items():
                kept.setdefault(name, []).append(value.detach())
        self.world.sum(logs.values())
        self.world.sum(means.values())
        return Result(logs, means, {name: torch.cat(parts) for name, parts in kept.items()})

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.compute.autocast is None:
            return nullcontext()
        return torch.autocast(self.compute.device.type, dtype=self.compute.autocast)

    # -- state ---------------------------------------------------------------------------------------------------------

    def networks(self, averaged: bool = True) -> dict[str, nn.Module]:
        """Return the networks for sampling: EMA weights if there are any, else the raw ones.

        Buffers (spectral-norm vectors, running statistics) are not averaged; they are the raw network's current ones.
        """
        nets = dict(self.game.nets.items())
        if averaged:
            for name, average in self.averages.items():
                average.load_state_dict(dict(nets[name].named_buffers()), strict=False)
                nets[name] = average
        return nets

    def state(self) -> dict[str, Any]:
        """Return everything for a bit-identical resume, as tensors and plain values."""
        self.networks()
        return {
            "step": self.step_number,
            "seen": self.seen,
            "positions": dict(self.positions),
            "game": self.game.state_dict(),
            "ema": {name: net.state_dict() for name, net in self.averages.items()},
            "copies": {name: net.state_dict() for name, net in self.copies.items()},
            "kept": dict(self.kept.rows),
            "optimizers": {name: p.optimizer.state_dict() for name, p in self.players.items()},
            "scalers": {name: p.scaler.state_dict() for name, p in self.players.items() if p.scaler},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a state, in place. Raises KeyError or RuntimeError if it belongs to other networks."""
        self.game.load_state_dict(state["game"])
        for name, net in self.averages.items():
            net.load_state_dict(state["ema"][name])
        for name, net in self.copies.items():
            net.load_state_dict(state["copies"][name])
        self.kept.load(state["kept"])
        for name, player in self.players.items():
            player.optimizer.load_state_dict(state["optimizers"][name])
            if player.scaler and name in state["scalers"]:
                player.scaler.load_state_dict(state["scalers"][name])
        self.step_number, self.seen = state["step"], state["seen"]
        self.positions.update(state["positions"])

    def try_micro_batch(self, move: Move, rows: int | None = None, carry: Mapping[str, Tensor] | None = None) -> Tried:
        """Run forward and backward of a move's first micro-batch, or of `rows` rows.

        carry: rows of earlier trial moves; they are repeated to the needed number.
        """
        self.game.enter(self.at)
        player, rng = self.players[move.player], self._rng(move, 0, rows)
        start, stop = (0, rows) if rows else next(self._micro_batches(rng.total))
        count = stop - start
        made = {name: t[torch.arange(count, device=t.device) % len(t)] for name, t in (carry or {}).items()}
        self._freeze_others(player)
        _, outcome = self._backward(player, move, (start, stop), self._carried(move, made, count), rng, start)
        return rng, {name: t.detach() for name, t in outcome.carry.items()}


def _summable(value: Tensor) -> Tensor:
    """Convert half precision to float32: a long sum would lose small values."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
