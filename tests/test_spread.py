"""Alarms on the spread of samples: of translators beside the spread of their inputs, each direction by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gancli.data.columns import Column
from gancli.data.fields import Image
from gancli.data.loader import Stream
from gancli.data.source import Source
from gancli.observers.alarms import Alarms
from gancli.observers.observer import Alarm, RunView, Stop, Values
from gancli.observers.spread import Spread
from gancli.train.engine import Engine
from tests.contract.cast import TINY, engine_of
from tests.test_lab import looks

N = 8
IMAGES = ["dataset=random", "dataset.n=16", "batch_size=4", "device=cpu"]
CYCLE = ["model=cyclegan", "model.ch=2", "model.blocks=0", "dataset.size=[1,24,24]", *IMAGES]
PIX = ["model=pix2pix", "model.ch=2", "model.D.layers=1", "dataset.size=[1,32,32]", *IMAGES]
WELL = {"D_A_real": 0.1, "D_A_fake": 0.0}


class Faint(nn.Module):
    """A made-up translator: its input, `factor` times as strong, so that outputs vary as much less."""

    def __init__(self, factor: float, noisy: bool = True):
        super().__init__()
        self.factor, self.noisy = factor, noisy

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + 0.25


def watched(keys: list[str], factors: dict[str, float]) -> tuple[Alarms, RunView, Engine]:
    """An observer of a run whose generators are as good as their inputs at its beginning."""
    engine = engine_of(keys)
    for name in factors:
        engine.game.nets[name] = Faint(1.0)
    observer, view = Alarms(every=1, patience=2, n=N), RunView(engine, 100)
    observer.open(view)
    return observer, view, engine


def alike(engine: Engine, feed: str) -> None:
    """Let a feed's images be all the same."""
    source = Source("same", {"x": Column(Image(1, 24, 24), np.full((16, 1, 24, 24), 200, np.uint8))})
    engine.streams[feed] = Stream(source, 0, feed, engine.compute.device)


def test_outputs_are_measured_beside_their_inputs_in_each_direction() -> None:
    factors = {"G_A2B": 0.5, "G_B2A": 2.0}
    observer, view, engine = watched(CYCLE, factors)
    for name, factor in factors.items():
        engine.game.nets[name] = Faint(factor)
    (row,) = looks(observer, view, [WELL])
    assert isinstance(row, Values)
    assert observer._spreads is not None
    data = observer._spreads.data
    found = row.values
    assert found["diversity_A2B"] == pytest.approx(0.5 * data["A.x"] / data["B.x"], abs=1e-5)
    assert found["diversity_B2A"] == pytest.approx(2.0 * data["B.x"] / data["A.x"], abs=1e-5)
    spreads = {spread.direction: spread for spread in observer.spreads(view)}
    rows = {d: spread.given for d, spread in spreads.items()}
    assert all(0.9 < given < 1.1 for given in rows.values() if given is not None)
    assert spreads["A2B"].made == pytest.approx(0.5 * spreads["A2B"].given * data["A.x"] / data["B.x"], rel=1e-5)  # type: ignore[operator]


def test_a_translator_that_loses_its_inputs_variety_alarms_with_direction_and_both_figures() -> None:
    observer, view, engine = watched(CYCLE, {"G_A2B": 1, "G_B2A": 1})
    assert [type(said) for said in looks(observer, view, [WELL])] == [Values]
    engine.game.nets["G_A2B"] = Faint(0.1)
    (alarm,) = [said for said in looks(observer, view, [WELL] * 3) if isinstance(said, Alarm)]
    spread = observer.spreads(view)[0]
    assert alarm.name == "collapse"
    figures = (
        f"A2B: the spread of outputs is {spread.made:.0%} of the data's, that of their inputs {spread.given:.0%}: G"
    )
    assert alarm.text.startswith(figures)
    assert 0.09 < spread.made < 0.11
    assert "mode_seeking" not in alarm.text  # which compares what is made of latents


def test_one_image_for_all_inputs_ends_the_run_unless_inputs_are_alike() -> None:
    observer, view, engine = watched(CYCLE, {"G_A2B": 1, "G_B2A": 1})
    engine.game.nets["G_B2A"] = Faint(0.0)
    *_, stop = looks(observer, view, [WELL] * 2)
    assert isinstance(stop, Stop)
    given = observer.spreads(view)[1].given
    assert stop.reason.startswith(
        "G has generated the same sample for every row in direction B2A since step 1 (B2A: the spread of outputs is 0%"
        f" of the data's, that of their inputs {given:.0%}): the run diverged"
    )
    observer, view, engine = watched(CYCLE, {"G_A2B": 1, "G_B2A": 1})
    alike(engine, "B")
    observer.open(view)
    engine.game.nets["G_B2A"] = Faint(0.0)
    said = looks(observer, view, [WELL] * 4)
    assert {type(each) for each in said} == {Values}
    assert all(set(row.values) == {"step", "diversity_A2B", "gradient_G"} for row in said)  # type: ignore[attr-defined]


@pytest.mark.parametrize("noisy", [True, False])
def test_a_generator_without_noise_is_no_alarm_but_is_said_in_one(noisy: bool) -> None:
    observer, view, engine = watched(PIX, {"G": 1})
    engine.game.nets["G"] = Faint(1.0, noisy)
    assert {type(said) for said in looks(observer, view, [{"D_real": 0.1, "D_fake": 0.0}] * 4)} == {Values}
    engine.game.nets["G"] = Faint(0.1, noisy)
    (alarm,) = [said for said in looks(observer, view, [{"D_real": 0.1, "D_fake": 0.0}] * 3) if isinstance(said, Alarm)]
    assert alarm.text.startswith("A2B: the spread of outputs is ")
    remark = " (it has no noise at this size, so one input has one output): G's samples"
    assert (remark in alarm.text) != noisy


def test_the_unet_of_32_pixels_says_that_it_has_no_noise() -> None:
    assert not engine_of(PIX).game.nets["G"].noisy
    assert engine_of([*PIX, "dataset.size=[1,64,64]"]).game.nets["G"].noisy


def test_both_domains_of_a_pair_are_watched() -> None:
    engine = engine_of(TINY["cogan"])
    observer, view = Alarms(every=1, patience=1, n=N), RunView(engine, 100)
    observer.open(view)
    (row, *_) = looks(observer, view, [WELL])
    assert isinstance(row, Values)
    assert {"diversity_A", "diversity_B"} < set(row.values)
    with torch.no_grad():
        for p in engine.game.nets["G_B"].own.parameters():
            p.mul_(0.02)
    (alarm,) = [said for said in looks(observer, view, [WELL]) if isinstance(said, Alarm)]
    share = observer.spreads(view)[1].made
    assert alarm.text.startswith(
        f"B: the spread of samples is {share:.0%} of the data's: G's samples have lost diversity"
    )
    assert "add penalty=mode_seeking" in alarm.text


def test_a_share_is_none_where_inputs_are_alike() -> None:
    assert Spread("A2B", 0.0, 0.009).share is None
    assert Spread("A2B", 0.0, 0.01).share == 0.0
    assert (Spread("A2B", 1.0).mark, Spread("A2B", 1.0, lone=True).mark) == ("_A2B", "")
