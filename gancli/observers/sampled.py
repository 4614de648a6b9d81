"""The sampler that `gan sample` would use at a step of a run in progress."""

from __future__ import annotations

from gancli.data.facts import DataFacts
from gancli.data.source import Sources
from gancli.draw.given import Rows
from gancli.draw.reading import passes_of
from gancli.draw.sampling import Sampler
from gancli.draw.standing import with_standing_statistics
from gancli.observers.observer import RunView


def sampler_of(view: RunView, standing_stats: int | None = None, rows: Rows | None = None) -> Sampler:
    """Return a sampler of copies of the averaged networks, so that the run does not change.

    standing_stats: as in `gan eval`. rows: what samples are made from, if the game has inputs; None: loaded.
    """
    engine = view.engine
    nets, averaged = engine.networks(), bool(engine.averages)
    passes = passes_of(engine.game, standing_stats) if averaged else 0
    nets = with_standing_statistics(engine.game, nets, engine.compute, passes)
    sampler = Sampler(engine.game, nets, _facts(view), engine.compute, rows=rows)
    sampler.run, sampler.step, sampler.config = view.folder, view.step, dict(view.config)
    sampler.about = {"ema": averaged, "standing_stats": passes, "seen": view.seen}
    return sampler


def _facts(view: RunView) -> DataFacts:
    """Return the facts of the run's data; with several feeds, columns have their feed's name as prefix."""
    engine = view.engine
    main = engine.main.source
    if not any("." in name for name in engine.game.fields):
        return DataFacts.of(main)
    return DataFacts.of(Sources(main.name, {name: stream.source for name, stream in engine.streams.items()}))
