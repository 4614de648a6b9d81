"""Alarms of a failing run, with remedies: saturated D, mode collapse, vanishing gradient, divergence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gancli.errors import ConfigError
from gancli.games.game import sample_of
from gancli.observers.observer import Alarm, Event, Observer, RunView, Values, ended
from gancli.observers.remedies import MEANINGS, players, remedy
from gancli.observers.spread import ALIKE, Spread, Spreads, noiseless

LARGE = 1e6  # the absolute value of a loss or logit above which a run has diverged
POOR, FALLEN = 0.25, 0.5  # collapse: diversity below these shares of the data's and of the run's best so far
FAINT = 1e-3  # vanishing: share of the largest gradient so far
MEMORIES = ("exp_avg_sq", "square_avg")  # optimizers' state with the mean square of gradients


class Alarms(Observer):
    """Checks a run every `every` steps; raises an alarm after `patience` failed checks in a row, once until one passes.

    n: samples that diversity is measured on, of the raw generator from fixed latents. A row of metrics.jsonl has the
    diversity of samples (1: that of the data) and the generator's gradient norm. For outputs made from data, diversity
    is relative to that of the inputs, by direction (each relative to its domain's data): outputs of different inputs
    are compared, so a G without noise raises no alarm. The run is stopped if losses or logits explode, all samples
    are equal, or the critic's output is the same for real images and fakes.
    """

    def __init__(self, every: int = 100, patience: int = 3, n: int = 64):
        if every < 1 or patience < 1 or n < 2:
            raise ConfigError(
                f"observers.alarms: every and patience must be at least 1 and n at least 2, got"
                f" every={every} patience={patience} n={n}"
            )
        self.every, self.patience, self.n = every, patience, n
        self._strikes: dict[str, int] = {}
        self._best = {"gradient": 0.0}
        self._spreads: Spreads | None = None
        self._words = ""

    def refuse(self, view: RunView) -> None:
        """Raises ConfigError if n samples do not fit in memory."""
        view.refuse_many("alarms.n", self.n)

    def open(self, view: RunView) -> None:
        """Measure the diversity of the data, and of G at the start."""
        self._spreads, self._words = Spreads(view, self.n), sample_of(view.engine.game)[1].words
        for spread in self.spreads(view):
            self._best |= {f"born{spread.mark}": spread.share or 0.0, f"diversity{spread.mark}": 0.0}

    def state(self) -> dict[str, Any]:
        """Return the failed checks in a row, and the best values of the run so far."""
        return {"strikes": dict(self._strikes), "best": dict(self._best)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the counts and best values."""
        self._strikes = {str(words): int(looks) for words, looks in state["strikes"].items()}
        self._best |= {name: float(state["best"].get(name, 0.0)) for name in self._best}

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield new alarms with their values; Stop for a run that diverged."""
        if not view.logs or view.step % self.every:
            return
        values = view.values()
        wild = [name for name, value in values.items() if math.isfinite(value) and abs(value) > LARGE]
        if wild:
            yield ended(f"{wild[0]} is {values[wild[0]]:.2g} at step {view.step}", view.engine)
            return
        watched = view.engine.game.diagnostics()
        spreads, gradient = self.spreads(view), rms_gradient(view, watched.learner, values)
        told: dict[str, Any] = {} if watched.learner is None else {f"gradient_{watched.learner}": gradient}
        shares = {f"diversity{spread.mark}": spread.share for spread in spreads if spread.share is not None}
        yield Values({"step": view.step, **{name: round(share, 5) for name, share in shares.items()}, **told})
        for name, share in shares.items():
            self._best[name] = max(self._best[name], min(1.0, share))
        critic = players(view.engine.game)[1]
        dead = dict(self._dead(view, spread) for spread in spreads)
        equal = _equal(values.get(watched.real), values.get(watched.fake))
        dead[f"{critic} has had the same output for real samples and fakes"] = "" if equal else None
        for words, figures in dead.items():
            looks = self._strikes[words] = 0 if figures is None else self._strikes.get(words, 0) + 1
            if looks >= self.patience:
                since = view.step - (self.patience - 1) * self.every
                yield ended(f"{words} since step {since}{figures}", view.engine)
                return
        for key, figures in self.wrong(view, values, spreads, gradient).items():
            strikes = self._strikes[key] = self._strikes.get(key, 0) + 1 if figures else 0
            if strikes == self.patience:
                name = key.partition("_")[0]
                yield Alarm(name, f"{figures}: {remedy(name, view.engine.game)}")

    def _dead(self, view: RunView, spread: Spread) -> tuple[str, str | None]:
        """Return the message that all samples of a direction are equal, and its values; None if they are not."""
        where = "latent" if spread.given is None else "row"
        words = f"{players(view.engine.game)[0]} has generated the same sample for every {where}"
        if spread.direction:
            words += f" in direction {spread.direction}"
        once = max(self._best[f"born{spread.mark}"], self._best[f"diversity{spread.mark}"])
        # A G initialised to the mean image has equal samples until it has learned something: that is not a collapse.
        true = spread.share is not None and spread.share < ALIKE <= once
        return words, (f" ({spread})" if spread.direction else "") if true else None

    def wrong(
        self, view: RunView, values: dict[str, float], spreads: Sequence[Spread], gradient: float | None
    ) -> dict[str, str]:
        """Return each alarm with its values at this step, empty if the check passes; collapse by direction."""
        found = dict.fromkeys((name for name in MEANINGS if name != "collapse"), "")
        watched = view.engine.game.diagnostics()
        real, fake = values.get(watched.real), values.get(watched.fake)
        if watched.sure is not None and real is not None and fake is not None and real - fake > watched.sure:
            who, critic = players(view.engine.game)
            found["saturated"] = f"{critic}'s output is {real:.3g} for real {self._words} and {fake:.3g} for {who}'s"
        for spread in spreads:
            key, share = f"collapse{spread.mark}", spread.share
            poor = share is not None and share < POOR and share < FALLEN * self._best[f"diversity{spread.mark}"]
            found[key] = f"{spread}{noiseless(view.engine.game, spread)}" if poor else ""
        if gradient is not None and gradient < FAINT * self._best["gradient"]:
            found["vanishing"] = f"gradient norm {gradient:.1e}, after a maximum of {self._best['gradient']:.1e}"
        self._best["gradient"] = max(self._best["gradient"], gradient or 0.0)
        return found

    def spreads(self, view: RunView) -> list[Spread]:
        """Measure the diversity of samples of each direction."""
        assert self._spreads is not None
        return self._spreads.now(view)


def _equal(a: float | None, b: float | None) -> bool:
    """Whether both are known and equal up to rounding."""
    return a is not None and b is not None and abs(a - b) <= 1e-6 * max(1.0, abs(a))


def rms_gradient(view: RunView, learner: str | None, values: Mapping[str, float]) -> float | None:
    """Return the RMS of a player's recent gradient from its optimizer's state, else of this step's gradient.

    values: this step's, as the engine logs them. None if neither is known.
    """
    player = None if learner is None else view.engine.players.get(learner)
    if player is None:
        return None
    norm = values.get(f"grad_norm_{learner}")
    states = (player.optimizer.state.get(p, {}) for p in player.params)
    squares = [state[name] for state in states for name in MEMORIES if name in state]
    if not squares:
        return None if norm is None else norm / math.sqrt(sum(p.numel() for p in player.params))
    return math.sqrt(sum(float(s.sum()) for s in squares) / sum(s.numel() for s in squares))
