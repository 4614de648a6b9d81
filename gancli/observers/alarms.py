"""Says in words when a run goes wrong, with a remedy: a sure D, collapse, a vanishing gradient, an explosion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gancli.compute.rng import Rng
from gancli.draw.sampling import settle
from gancli.errors import ConfigError
from gancli.observers.observer import Alarm, Event, Observer, Row, RunView, Stop
from gancli.observers.remedies import MEANINGS, remedy

LARGE = 1e6  # a loss or logit beyond which nothing is learned any more
POOR, FALLEN = 0.25, 0.5  # diversity: less than this share of the data's, and of the run's own best so far
ALIKE = 0.01  # less than this share of the data's diversity is none
FAINT = 1e-3  # of the strongest gradient so far
MEMORIES = ("exp_avg_sq", "square_avg")  # where optimizers keep the mean square of gradients


class Alarms(Observer):
    """Looks every `every` steps; what was wrong at `patience` looks in a row is said, and again only after it was well.

    n: images that diversity is measured on, of the raw generator from latents that stay the same. A row of
    metrics.jsonl says how varied samples are (1: as the data) and how large G's gradient is. A run is stopped whose
    losses or logits explode, whose samples are all alike, or whose D says the same of all images.
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
        self._data = 1.0

    def refuse(self, view: RunView) -> None:
        """Refuse more samples than memory holds. Raises ConfigError."""
        view.refuse_many("alarms.n", self.n)

    def open(self, view: RunView) -> None:
        """Measure the data's own diversity, and G's at the start."""
        stream = view.engine.main
        self._data = spread(stream.batch(0, min(self.n, len(stream.source)))["x"]) or 1.0
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
            yield Stop(
                f"{wild[0]} is {values[wild[0]]:.2g} at step {view.step}: the run diverged;"
                " lower optimizer.G.lr and optimizer.D.lr, add a penalty, or set optimizer.clip",
                failed=True,
            )
            return
        diversity, gradient = self.diversity(view), rms_gradient(view, values.get("grad_norm_G"))
        yield Row({"step": view.step, "diversity": round(diversity, 5), "gradient_G": gradient})
        self._best["diversity"] = max(self._best["diversity"], min(1.0, diversity))
        once = max(self._best["born"], self._best["diversity"])
        dead = {
            # A G that begins at the mean image draws the same until it has learnt anything: that is no death.
            "G has drawn the same for every latent": diversity < ALIKE <= once,
            "D has said the same of every image": _equal(values.get("D_real"), values.get("D_fake")),
        }
        for words, true in dead.items():
            looks = self._strikes[words] = self._strikes.get(words, 0) + 1 if true else 0
            if looks >= self.patience:
                yield Stop(
                    f"{words} since step {view.step - (self.patience - 1) * self.every}: the run diverged;"
                    " lower optimizer.G.lr and optimizer.D.lr, add a penalty, or set optimizer.clip",
                    failed=True,
                )
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
        game = view.engine.game
        # Where the objective's weight is 0, G learns from D's features, however sure D is.
        gap = next((critic.loss.sure for critic in game.judging() if critic.adversarial), None)
        if gap is not None and {"D_real", "D_fake"} <= values.keys() and values["D_real"] - values["D_fake"] > gap:
            found["saturated"] = f"D says {values['D_real']:.3g} of real images and {values['D_fake']:.3g} of G's"
        if diversity < POOR and diversity < FALLEN * self._best["diversity"]:
            found["collapse"] = f"the spread of samples is {diversity:.0%} of the data's"
        if gradient is not None and gradient < FAINT * self._best["gradient"]:
            found["vanishing"] = f"it is {gradient:.1e}, after {self._best['gradient']:.1e}"
        self._best["gradient"] = max(self._best["gradient"], gradient or 0.0)
        return found

    @torch.no_grad()
    def diversity(self, view: RunView) -> float:
        """The spread of samples over the data's."""
        engine, game = view.engine, view.engine.game
        noise = Rng(engine.seed, "alarms", total=self.n, device=engine.compute.device, dtype=engine.dtype)
        rows = min(self.n, engine.micro_batch or engine.batch_size)  # what the device is known to bear
        nets = {"G": settle(game.nets["G"], game, engine.compute, passes=2, batch=max(2, rows))}
        y = noise.integers("y", game.classes) if game.labelled else None
        z = game.latents(noise)
        parts = [slice(k, k + rows) for k in range(0, self.n, rows)]
        return spread(torch.cat([game.render(nets, z[k], None if y is None else y[k]) for k in parts])) / self._data


def _equal(a: float | None, b: float | None) -> bool:
    """Whether both are known and the same, but for rounding."""
    return a is not None and b is not None and abs(a - b) <= 1e-6 * max(1.0, abs(a))


def spread(samples: Tensor) -> float:
    """The mean over pixels of the standard deviation over samples [n, ...].

    >>> spread(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    0.5
    """
    return float(samples.float().flatten(1).std(0, correction=0).mean())


def rms_gradient(view: RunView, norm: float | None) -> float | None:
    """The root mean square of G's recent gradient, from its optimizer's own memory; of this step's, where it has none.

    norm: of this step's gradient, as the engine logs it. None where nothing is known.
    """
    player = view.engine.players.get("G")
    if player is None:
        return None
    states = (player.optimizer.state.get(p, {}) for p in player.params)
    squares = [state[name] for state in states for name in MEMORIES if name in state]
    if not squares:
        return None if norm is None else norm / math.sqrt(sum(p.numel() for p in player.params))
    return math.sqrt(sum(float(s.sum()) for s in squares) / sum(s.numel() for s in squares))
