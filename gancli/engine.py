"""Plays a game's moves. The only place that runs backward, steps an optimizer, scales, reduces or averages.

The training step is `Engine.step`, and what one player does in it is `Engine.play`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gancli.data.loader import Stream
from gancli.device import Compute
from gancli.dist import World
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Batch, Couples, Game, Move, Outcome
from gancli.nets.layers.norms import AcrossRanks, share_statistics
from gancli.nets.layers.spectral import is_spectral
from gancli.ramp import Ramp
from gancli.rng import Rng


@dataclass(frozen=True, kw_only=True)
class Average:
    """Exponential moving average of G's weights: `decay` a step, a copy until step `start`; decay 0 keeps none.

    warmup: never remember more than about a tenth of the steps since then, so that a young average is not made of the
    first, random weights: the decay at step n is at most (1 + n) / (10 + n).
    """

    decay: float = 0.999
    start: int = 0
    warmup: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1 or self.start < 0:
            raise ConfigError(
                f"model.ema has decay in [0, 1) and start >= 0, not decay={self.decay:g} start={self.start}"
            )

    def at(self, step: int) -> float:
        """The decay when `step` steps are done.

        >>> Average(decay=0.999).at(80), Average(decay=0.999).at(100_000), Average(decay=0.999, start=9).at(9)
        (0.9, 0.999, 0.0)
        """
        age = step - self.start
        if age <= 0:
            return 0.0
        return min(self.decay, (1 + age) / (10 + age)) if self.warmup else self.decay


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate over a run: constant, or from step `start` in a straight line to 0 at the last step."""

    kind: Literal["constant", "linear"] = "constant"
    start: int = 0

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` of `steps`.

        >>> Schedule(kind="linear").factor(25, 100)
        0.75
        """
        if self.kind == "constant" or step < self.start:
            return 1.0
        return max(0.0, 1 - (step - self.start) / max(1, steps - self.start))


@dataclass
class Player:
    """A player's share of the engine: its parameters, its optimizer, and the layers that advance with its moves.

    groups: the optimizer's rate and betas as they were configured, which a schedule starts from.
    """

    params: list[nn.Parameter]
    optimizer: Optimizer
    groups: list[dict[str, Any]]
    spectral: list[Any]
    scaler: torch.amp.GradScaler | None


class Engine:
    """One run's training state and how it moves on.

    batch_size: real images a move of D, over all ranks. micro_batch: rows that go through at once (None: all).
    clip: largest gradient norm of a move, or None. ramp: what changes with the images seen. Raises CombinationError
    where a batch cannot be split as asked.
    """

    def __init__(
        self,
        game: Game,
        streams: Mapping[str, Stream],
        optimizers: Mapping[str, Optimizer],
        *,
        compute: Compute,
        batch_size: int,
        micro_batch: int | None = None,
        seed: int = 0,
        steps: int = 0,
        average: Average | None = None,
        schedule: Schedule | None = None,
        ramp: Ramp | None = None,
        clip: float | None = None,
        world: World | None = None,
    ):
        self.game, self.streams, self.compute, self.world = game, dict(streams), compute, world or World()
        self.batch_size, self.micro_batch, self.seed, self.steps = batch_size, micro_batch, seed, steps
        self.average_rule, self.schedule, self.clip = average or Average(), schedule or Schedule(), clip
        self.ramp = ramp
        self.step_number, self.seen = 0, 0
        self.positions = dict.fromkeys(self.streams, 0)
        self.dtype = next(game.parameters()).dtype
        self.unit = unit(game)
        refuse_uneven(batch_size, micro_batch, game, self.world)
        if self.world.size > 1:
            share_statistics(game)
        self.world.copy_from_first([*game.parameters(), *game.buffers()])
        self.players = {name: self._player(nets, optimizers[name]) for name, nets in game.players().items()}
        self.averages = {name: frozen_copy(game.nets[name]) for name in game.averaged() if self.average_rule.decay}
        self._focused: Player | None = None

    # -- the training step ---------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Tensor]:
        """Play every move that is due once; return the losses and statistics, as scalars on the device."""
        logs: dict[str, Tensor] = {}
        carry: Batch = {}
        self.game.enter(self.seen)
        moves = self.game.moves(self.seen)
        self._set_rates()
        for move in moves:
            if self.step_number % move.every == 0:
                for repeat in range(move.repeat):
                    logs.update(self.play(move, repeat, carry))
        images = self.batch_size * moves[0].size * moves[0].repeat
        self._average(images)
        self.seen += images
        self.step_number += 1
        return logs

    def play(self, move: Move, repeat: int, carry: Batch) -> dict[str, Tensor]:
        """One optimizer step of one player, however its batch is split."""
        player = self.players[move.player]
        self._focus(player)
        for layer in player.spectral:
            layer.advance()
        rng = self._rng(move, repeat)
        outcomes = [self._backward(player, move, part, carry, rng) for part in self._parts(rng.total)]
        self.world.sum([p.grad for p in player.params if p.grad is not None])
        norm = self._update(player)
        for feed in move.feeds:
            self.positions[feed] += rng.total
        logs, kept = self._join(outcomes, rng.total)
        logs[f"grad_norm_{move.name or move.player}"] = norm
        carry.update(kept)
        self.game.after(move, logs, kept, rng, self.seen)
        return logs

    def _backward(
        self, player: Player, move: Move, part: tuple[int, int], carry: Batch, rng: Rng
    ) -> tuple[int, Outcome]:
        """Forward and backward of one micro-batch, weighted with its exact share of the global batch."""
        start, stop = part
        batch = self._deal(move, rng.total, start, stop, carry)
        self.compute.reseed(rng.seed("noise", start))
        with self._autocast():
            outcome = move.loss(batch, rng.part(start, stop))
        if outcome.losses:
            loss = torch.stack(list(outcome.losses.values())).sum() * (move.every * (stop - start) / rng.total)
            (player.scaler.scale(loss) if player.scaler else loss).backward()  # type: ignore[no-untyped-call]
        return stop - start, outcome

    def _update(self, player: Player) -> Tensor:
        """The optimizer's step; returns the norm of the gradient before clipping, a scalar on the device."""
        if all(p.grad is None for p in player.params):
            # A penalty that asks nothing of the gradient; a scaler would miss its check for infinities.
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

    def _focus(self, player: Player) -> None:
        """Only the player whose move it is collects gradients: G's move must not pay for D's."""
        if self._focused is not player:
            for other in self.players.values():
                for p in other.params:
                    p.requires_grad_(other is player)
            self._focused = player

    @torch.no_grad()
    def _average(self, images: int) -> None:
        decay = self.average_rule.at(self.step_number + 1)
        if self.ramp is not None and self.ramp.half_life is not None:
            decay = self.ramp.decay(self.seen, images)
        for name, average in self.averages.items():
            torch._foreach_lerp_(list(average.parameters()), list(self.game.nets[name].parameters()), 1 - decay)

    def _set_rates(self) -> None:
        if self.schedule.kind == "constant" and self.ramp is None:
            return
        factor = self.schedule.factor(self.step_number, self.steps)
        if self.ramp is not None:
            factor *= self.ramp.rate(self.seen)
        for player in self.players.values():
            for group, first in zip(player.optimizer.param_groups, player.groups, strict=True):
                group["lr"] = first["lr"] * factor
                if self.ramp is not None and "betas" in first:
                    beta1, beta2 = first["betas"]
                    group["betas"] = (beta1, self.ramp.second_beta(beta2, self.seen))

    # -- batches -------------------------------------------------------------------------------------------------------

    def _rng(self, move: Move, repeat: int, rows: int | None = None) -> Rng:
        total = rows or self.batch_size * move.size
        name = move.name or move.player
        return Rng(self.seed, self.step_number, name, repeat, total=total, device=self.compute.device, dtype=self.dtype)

    def _parts(self, total: int) -> Iterator[tuple[int, int]]:
        """This rank's micro-batches as rows of the global batch."""
        start, stop = self.world.rows(total, self.unit)
        size = self.micro_batch or stop - start
        for begin in range(start, stop, size):
            yield begin, min(begin + size, stop)

    def _deal(self, move: Move, total: int, start: int, stop: int, carry: Batch) -> Batch:
        batch: Batch = {}
        for feed in move.feeds:
            rows = self.streams[feed].batch(self.positions[feed], total, start, stop)
            rows = {name: t.to(self.dtype) if t.is_floating_point() else t for name, t in rows.items()}
            batch |= rows if feed == "real" else {f"{feed}_{name}": t for name, t in rows.items()}
        offset = self.world.rows(total, self.unit)[0]
        return batch | {name: t[start - offset : stop - offset] for name, t in carry.items()}

    def _join(self, outcomes: list[tuple[int, Outcome]], total: int) -> tuple[dict[str, Tensor], Batch]:
        """Means over micro-batches and ranks; carried tensors one after another."""
        logs: dict[str, Tensor] = {}
        kept: dict[str, list[Tensor]] = {}
        for rows, outcome in outcomes:
            for name, value in (outcome.losses | outcome.stats).items():
                part = value.detach() * (rows / total)
                logs[name] = logs[name] + part if name in logs else part
            for name, value in outcome.carry.items():
                kept.setdefault(name, []).append(value.detach())
        self.world.sum(logs.values())
        return logs, {name: torch.cat(parts) for name, parts in kept.items()}

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.compute.autocast is None:
            return nullcontext()
        return torch.autocast(self.compute.device.type, dtype=self.compute.autocast)

    # -- state ---------------------------------------------------------------------------------------------------------

    def networks(self, averaged: bool = True) -> dict[str, nn.Module]:
        """The networks to draw samples with: averaged where there is an average, raw otherwise.

        Buffers (spectral-norm vectors, running statistics) are not averaged; they are the raw network's of this step.
        """
        nets = dict(self.game.nets.items())
        if averaged:
            for name, average in self.averages.items():
                for kept, current in zip(average.buffers(), nets[name].buffers(), strict=True):
                    kept.copy_(current)
                nets[name] = average
        return nets

    def state(self) -> dict[str, Any]:
        """Everything a run needs to go on to the same bits, as tensors and plain values."""
        self.networks()
        return {
            "step": self.step_number,
            "seen": self.seen,
            "positions": dict(self.positions),
            "game": self.game.state_dict(),
            "ema": {name: net.state_dict() for name, net in self.averages.items()},
            "optimizers": {name: p.optimizer.state_dict() for name, p in self.players.items()},
            "scalers": {name: p.scaler.state_dict() for name, p in self.players.items() if p.scaler},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take a state back, in place. Raises KeyError or RuntimeError where it belongs to other networks."""
        self.game.load_state_dict(state["game"])
        for name, net in self.averages.items():
            net.load_state_dict(state["ema"][name])
        for name, player in self.players.items():
            player.optimizer.load_state_dict(state["optimizers"][name])
            if player.scaler and name in state["scalers"]:
                player.scaler.load_state_dict(state["scalers"][name])
        self.step_number, self.seen = state["step"], state["seen"]
        self.positions.update(state["positions"])

    def try_part(self, move: Move, rows: int | None = None) -> Rng:
        """Forward and backward of a move's first micro-batch, or of `rows` alone; the numbers that it drew."""
        self.game.enter(self.seen)
        player, rng = self.players[move.player], self._rng(move, 0, rows)
        part = (0, rows) if rows else next(self._parts(rng.total))
        self._focus(player)
        self._backward(player, move, part, {}, rng)
        return rng

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """A place to try moves in: afterwards buffers and gradients are as before, whatever happened."""
        before = [buffer.clone() for buffer in self.game.buffers()]
        try:
            yield
        finally:
            for player in self.players.values():
                player.optimizer.zero_grad(set_to_none=True)
            for buffer, value in zip(self.game.buffers(), before, strict=True):
                buffer.copy_(value)

    def _player(self, nets: list[nn.Module], optimizer: Optimizer) -> Player:
        params = [p for net in nets for p in net.parameters()]
        spectral = [layer for net in nets for layer in net.modules() if is_spectral(layer)]
        scaler = torch.amp.GradScaler(self.compute.device.type) if self.compute.autocast == torch.float16 else None
        first: list[dict[str, Any]] = [
            {key: group[key] for key in ("lr", "betas") if key in group} for group in optimizer.param_groups
        ]
        return Player(params, optimizer, first, spectral, scaler)


def frozen_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation mode that collects no gradients."""
    return copy.deepcopy(net).requires_grad_(False).eval()


def couplings(game: Game) -> list[Couples]:
    """How many samples the parts of a game judge together."""
    parts: list[Couples] = [game.couples, *(getattr(net, "couples", 1) for net in game.nets.values())]
    return [*parts, getattr(game, "pack", 1)]


def unit(game: Game) -> int:
    """How many rows in a row belong to one rank."""
    return math.lcm(*(k for k in couplings(game) if isinstance(k, int)))


def refuse_uneven(batch_size: int, micro_batch: int | None, game: Game, world: World | None = None) -> None:
    """Raise CombinationError where ranks or micro-batches would tear apart samples that are judged together."""
    world, together = world or World(), unit(game)
    shares = [World(rank, world.size).rows(batch_size, together) for rank in range(world.size)]
    counts = [stop - start for start, stop in shares]
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
