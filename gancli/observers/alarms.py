"""Says in words when a run goes wrong, with a remedy: a sure D, collapse, a vanishing gradient, an explosion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gancli.draw.standing import with_standing_statistics
from gancli.errors import ConfigError
from gancli.games.game import draws_freely, sample_of
from gancli.observers.drawn import data_of, shown
from gancli.observers.observer import Alarm, Event, Observer, RunView, Values, ended
from gancli.observers.remedies import MEANINGS, players, remedy

LARGE = 1e6  # a loss or logit beyond which nothing is learned any more
POOR, FALLEN = 0.25, 0.5  # diversity: less than this share of the data's, and of the run's own best so far
ALIKE = 0.01  # less than this share of the data's diversity is none
FAINT = 1e-3  # of the strongest gradient so far
MEMORIES = ("exp_avg_sq", "square_avg")  # where optimizers keep the mean square of gradients


class Alarms(Observer):
    """Looks every `every` steps; what was wrong at `patience` looks in a row is said, and again only after it was well.

    n: images that diversity is measured on, of the raw generator from latents that stay the same. A row of
    metrics.jsonl says how varied samples are (1: as the data) and how large the generator's gradient is. A run is
    stopped whose losses or logits explode, whose samples are all alike, or whose critic says the same of everything.
    """

    def __init__(self, every: int = 100, patience: int = 3, n: int = 64):
        if every < 1 or patience < 1 or n < 2:
            raise ConfigError(
                f"observers.alarms has every and patience of at least 1 and n of at least 2, not"
                f" every={every} patience={patience} n={n}"
            )
        self.every, self.patience, self.n = every, patience, n
        self._strikes: dict[str, int] = {}
        self._best = {"born": 0.0, "diversity": 0.0, "gradient": 0.0}
        self._data, self._words = 1.0, ""

    def refuse(self, view: RunView) -> None:
        """Refuse more samples than memory holds. Raises ConfigError."""
        view.refuse_many("alarms.n", self.n)

    def open(self, view: RunView) -> None:
        """Measure the data's own diversity, and G's at the start."""
        name, field = sample_of(view.engine.game)
        rows, self._words = data_of(view, name, self.n), field.words
        self._data = (0.0 if rows is None else field.variety(rows)) or 1.0
        self._best["born"] = self.diversity(view)

    def state(self) -> dict[str, Any]:
        """Looks in a row at which something was wrong, and the best of the run so far."""
        return {"strikes": dict(self._strikes), "best": dict(self._best)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self._strikes = {str(words): int(looks) for words, looks in state["strikes"].items()}
        self._best |= {name: float(state["best"].get(name, 0.0)) for name in self._best}

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Alarms that have just become true, with their figures; the end of a run that explodes."""
        if not view.logs or view.step % self.every:
            return
        values = view.values()
        wild = [name for name, value in values.items() if math.isfinite(value) and abs(value) > LARGE]
        if wild:
            yield ended(f"{wild[0]} is {values[wild[0]]:.2g} at step {view.step}", view.engine)
            return
        watched = view.engine.game.diagnostics()
        diversity, gradient = self.diversity(view), rms_gradient(view, watched.learner, values)
        told = {} if watched.learner is None else {f"gradient_{watched.learner}": gradient}
        yield Values({"step": view.step, "diversity": round(diversity, 5), **told})
        self._best["diversity"] = max(self._best["diversity"], min(1.0, diversity))
        once = max(self._best["born"], self._best["diversity"])
        who, critic = players(view.engine.game)
        given = "latent" if draws_freely(view.engine.game, view.engine.game.directions()[0]) else "row"
        dead = {
            # A G that begins at the mean image draws the same until it has learnt anything: that is no death.
            f"{who} has drawn the same for every {given}": diversity < ALIKE <= once,
            f"{critic} has said the same of every sample": _equal(values.get(watched.real), values.get(watched.fake)),
        }
        for words, true in dead.items():
            looks = self._strikes[words] = self._strikes.get(words, 0) + 1 if true else 0
            if looks >= self.patience:
                since = view.step - (self.patience - 1) * self.every
                yield ended(f"{words} since step {since}", view.engine)
                return
        for name, figures in self.wrong(view, values, diversity, gradient).items():
            strikes = self._strikes[name] = self._strikes.get(name, 0) + 1 if figures else 0
            if strikes == self.patience:
                yield Alarm(name, f"{figures}: {remedy(name, view.engine.game)}")

    def wrong(
        self, view: RunView, values: dict[str, float], diversity: float, gradient: float | None
    ) -> dict[str, str]:
        """Each alarm with the figures that speak for it at this step, empty where all is well."""
        found = dict.fromkeys(MEANINGS, "")
        watched = view.engine.game.diagnostics()
        real, fake = values.get(watched.real), values.get(watched.fake)
        if watched.sure is not None and real is not None and fake is not None and real - fake > watched.sure:
            who, critic = players(view.engine.game)
            found["saturated"] = f"{critic} says {real:.3g} of real {self._words} and {fake:.3g} of {who}'s"
        if diversity < POOR and diversity < FALLEN * self._best["diversity"]:
            found["collapse"] = f"the spread of samples is {diversity:.0%} of the data's"
        if gradient is not None and gradient < FAINT * self._best["gradient"]:
            found["vanishing"] = f"it is {gradient:.1e}, after {self._best['gradient']:.1e}"
        self._best["gradient"] = max(self._best["gradient"], gradient or 0.0)
        return found

    def diversity(self, view: RunView) -> float:
        """The variety of samples over the data's."""
        engine, game = view.engine, view.engine.game
        rows = min(self.n, engine.micro_batch or engine.batch_size)  # what the device is known to bear
        raw = dict(game.nets.items())
        nets = with_standing_statistics(game, raw, engine.compute, passes=2, batch=max(2, rows))
        name, field = sample_of(game)
        return field.variety(shown(view, "alarms", self.n, nets)[name]) / self._data


def _equal(a: float | None, b: float | None) -> bool:
    """Whether both are known and the same, but for rounding."""
    return a is not None and b is not None and abs(a - b) <= 1e-6 * max(1.0, abs(a))


def rms_gradient(view: RunView, learner: str | None, values: Mapping[str, float]) -> float | None:
    """The root mean square of a player's recent gradient, from its optimizer's own memory; of this step's without one.

    values: this step's, as the engine logs them. None where nothing is known.
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
