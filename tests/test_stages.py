"""Stages and phases: known before a run begins, entered by the engine alone, and looked at whole."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gancli.compute import memory
from gancli.compute.device import Compute
from gancli.errors import CombinationError, ConfigError, DeviceError
from gancli.games.game import Batch, Game, Move, Outcome
from gancli.games.noise import NoiseGame
from gancli.games.stages import Moment, Stage
from gancli.observers.observer import RunView
from gancli.observers.progress import Progress
from gancli.train.course import Course
from gancli.train.rehearsal import Rehearsal
from tests import odd
from tests.conftest import TINY, Gan
from tests.odd import OddGame
from tests.test_engine import run, same

GROWTH = (
    Stage(name="4", batch_size=8),
    Stage(name="fade 8", start=20, batch_size=4, reset=("P",), level=2, rates={"P": 0.5}),
    Stage(name="8", start=30, batch_size=2, micro_batch=1, reset=("P", "Q"), level=1, rates=2.0, end=37),
)
PHASES = (
    Stage(name="pretrain", unit="steps"),
    Stage(name="warm", start=2, unit="steps", reset=("Q",)),
    Stage(name="adversarial", start=5, unit="steps", reset=("P",), rates=0.1, end=9),
)


class Staged(OddGame):
    """The odd game with the stages that it is given; P alone plays in the first one."""

    def __init__(self, stages: Sequence[Stage]):
        super().__init__()
        self._stages, self.entered = tuple(stages), list[Moment]()

    def stages(self) -> Sequence[Stage]:
        return self._stages

    def enter(self, at: Moment) -> None:
        self.entered.append(at)

    def moves(self, at: Moment) -> Sequence[Move]:
        every = super().moves(at)
        return every[:1] if at.stage is self._stages[0] else every


@pytest.mark.parametrize(
    ("stages", "batch_size", "spans"),
    [
        (GROWTH, None, [("4", 0, 0, 8, 3), ("fade 8", 3, 24, 4, 2), ("8", 5, 32, 2, None)]),
        (GROWTH, 16, [("4", 0, 0, 16, 2), ("8", 2, 32, 16, None)]),
        (PHASES, 8, [("pretrain", 0, 0, 8, 2), ("warm", 2, 16, 8, 3), ("adversarial", 5, 40, 8, None)]),
    ],
)
def test_a_stage_begins_with_the_first_step_at_or_after_its_start(
    stages: Sequence[Stage], batch_size: int | None, spans: list[tuple[object, ...]]
) -> None:
    course = Course(Staged(stages), batch_size)
    found = [(s.at.stage.name, s.at.step, s.at.seen, s.images, s.steps) for s in course.spans()]
    assert found == spans
    engine = odd.engine(Staged(stages), batch_size=batch_size)
    for _ in range(8):
        span = next(s for s in reversed(spans) if s[1] <= engine.step_number)
        assert (engine.at.stage.name, engine.batch_size) == (span[0], span[3])
        engine.step()
    assert [at.step for at in engine.game.entered[-8:]] == list(range(8))
    rest = engine.course.spans(2, found[0][2] + 2 * found[0][3], 8)
    assert sum(s.steps for s in rest) == 6
    assert engine.course.seen(8) == engine.seen


def test_a_run_without_a_number_of_steps_ends_with_its_last_stage() -> None:
    growth, phases, plain = Course(Staged(GROWTH), None), Course(Staged(PHASES), 8), Course(OddGame(), 8)
    assert growth.steps(None) == 5 + 3  # 32, 34, 36, 38 images
    assert growth.seen(8) == 38
    assert [growth.steps(None, images) for images in (1, 24, 25, 33)] == [1, 3, 4, 6]
    assert phases.steps(None) == 9
    assert phases.steps(20) == 20
    assert plain.steps(None, 20) == 3
    with pytest.raises(ConfigError, match="steps=null: this game has no default length: type steps=N or images=N"):
        plain.steps(None)


def test_a_phase_of_no_steps_is_left_out() -> None:
    none = (Stage(name="a", unit="steps"), Stage(name="b", unit="steps", reset=("P",)), Stage(name="c", unit="steps"))
    assert [span.at.stage.name for span in Course(Staged(none), 8).spans()] == ["c"]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ((), "the first must start at 0"),
        ((Stage(start=3),), "the first must start at 0"),
        ((Stage(name="a"), Stage(name="b", start=9), Stage(name="c", start=5)), "each at or after"),
        ((Stage(name="a"), Stage(name="a", start=9)), "each needs a unique name"),
        ((Stage(name="a"), Stage(name="b", start=9, unit="steps")), "all need the same unit"),
        ((Stage(name="a", end=9), Stage(name="b", start=9)), "a stage before the last has an end"),
        ((Stage(name="a"), Stage(name="b", start=9, end=8)), "ends before it starts"),
        ((Stage(name="a", reset=("Z",)),), "a names Z, but the players are P, Q, R"),
        ((Stage(name="a", rates={"P_one": 0.1}),), "a names P_one"),
    ],
)
def test_stages_that_make_no_course_are_refused(stages: Sequence[Stage], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        odd.engine(Staged(stages))


def test_every_stage_is_looked_at_before_the_first_step() -> None:
    with pytest.raises(ConfigError, match="the stage map of this game has no default batch size: type batch_size=N"):
        odd.engine(batch_size=None)
    odd_batch = (Stage(name="4", batch_size=8), Stage(name="8", start=16, batch_size=3))
    with pytest.raises(CombinationError, match=r"stage 8: batch_size=3: the move R takes 0\.5 times as many"):
        odd.engine(Staged(odd_batch), batch_size=None)


class Unsteady(OddGame):
    """Its first move is repeated from some step on, and no stage says so."""

    def moves(self, at: Moment) -> list[Move]:
        return [Move("P", self.map_loss, ("u",), remembers=("made",), repeat=1 if at.step < 2 else 2)]


def test_rows_that_change_within_a_stage_are_refused() -> None:
    engine = run(odd.engine(Unsteady()), 2)
    with pytest.raises(CombinationError, match=r"takes 16 rows a step after 8: .* must define a separate stage"):
        engine.step()


@pytest.mark.parametrize(("stages", "batch_size"), [(GROWTH, None), (PHASES, 8)], ids=["growth", "phases"])
@pytest.mark.parametrize("stop", [1, 3, 4, 5, 6])
def test_it_stops_and_goes_on_to_the_same_bits(stages: Sequence[Stage], batch_size: int | None, stop: int) -> None:
    """Within a stage, and at the moment when one begins."""
    straight, first = (odd.engine(Staged(stages), batch_size=batch_size) for _ in range(2))
    run(straight, 8)
    second = odd.engine(Staged(stages), batch_size=batch_size)
    second.load(copy.deepcopy(run(first, stop).state()))
    same(straight.state(), run(second, 8 - stop).state())


def test_optimizers_start_anew_and_rates_follow() -> None:
    engine, found = odd.engine(Staged(GROWTH), batch_size=None), []
    for _ in range(8):
        engine.step()
        ages = []
        for name in ("P", "Q"):
            state = engine.players[name].optimizer.state
            rate = engine.players[name].optimizer.param_groups[0]["lr"]
            ages.append((max((int(s["step"]) for s in state.values()), default=0), rate))
        found.append(ages)
    assert [p for p, _ in found] == [
        (1, 0.01),
        (2, 0.01),
        (0, 0.01),
        (1, 0.005),
        (0, 0.005),
        (1, 0.02),
        (2, 0.02),
        (3, 0.02),
    ]
    assert [q for _, q in found] == [(0, 0.01)] * 3 + [(1, 0.01), (0, 0.01), (1, 0.02), (2, 0.02), (3, 0.02)]


def test_rows_are_dealt_at_the_level_of_the_stage() -> None:
    engine = odd.engine(Staged(GROWTH), batch_size=None)
    run(engine, 8)
    assert engine.streams["u"].levels == {0, 1, 2}
    plain = run(odd.engine(), 3)
    assert plain.streams["u"].levels == {0}


def test_a_stage_may_split_its_batch_and_a_number_of_the_run_counts_for_all() -> None:
    engine, split = (odd.engine(Staged(GROWTH), batch_size=None, micro_batch=m) for m in (None, 3))
    assert [engine.course.micro_batch(stage) for stage in GROWTH] == [None, None, 1]
    assert [split.course.micro_batch(stage) for stage in GROWTH] == [3, 3, 3]
    for _ in range(8):
        engine.step()
        split.step()
    for a, b in zip(engine.game.parameters(), split.game.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# -- what is told of all stages before the first step ------------------------------------------------------------------


class Growing(Game):
    """One network that doubles its rows again and again: as often as its stage says, which is a buffer of it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.nets = nn.ModuleDict({"N": nn.Linear(3, 3)})
        self.register_buffer("size", torch.ones((), dtype=torch.int64))
        self.doubled = 0

    def stages(self) -> Sequence[Stage]:
        sizes = ((0, 16), (1, 8), (5, 4))
        return tuple(
            Stage(name=f"{2**k}", start=100 * n, batch_size=batch, end=1000 if k == 5 else None)
            for n, (k, batch) in enumerate(sizes)
        )

    def averaged(self) -> tuple[str, ...]:
        return ("N",)

    def enter(self, at: Moment) -> None:
        self.size.fill_(int(at.stage.name))
        self.doubled = int(at.stage.name)

    def moves(self, at: Moment) -> Sequence[Move]:
        return (Move("N", self.loss, ("u",)),)

    def loss(self, batch: Batch, rng: object) -> Outcome:
        wide = batch["u"].repeat(1, self.doubled).unflatten(1, (-1, 3))
        return Outcome({"loss_N": self.nets["N"](wide).square().mean()})


@pytest.mark.parametrize("counted", [False, True])
def test_memory_and_time_are_those_of_the_fullest_stage(counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = odd.engine(Growing(), batch_size=None)
    before = copy.deepcopy(engine.state())
    if counted:
        monkeypatch.setattr("gancli.train.rehearsal.TRIED", -1.0)
    meta = Compute(torch.device("meta"))
    rehearsal = Rehearsal(engine, lambda: odd.engine(Growing().to("meta"), batch_size=None, compute=meta))
    need = rehearsal.footprint()
    assert need is not None
    assert rehearsal.real is not counted
    assert need.stages == ("1", "2", "32")
    assert [rows for rows, _ in need.moves] == [16, 8, 4]
    peaks = need._peaks(None)
    assert need.new(None) - need.optimizers == int(max(peaks)) == int(peaks[2])
    assert peaks[2] > 4 * peaks[0]  # of 4 × 32 rows, not 16
    assert "in stage 32" in need.line()
    with pytest.raises(DeviceError, match="a step in stage 32 needs"):
        memory.refuse(replace(need, free=int(peaks[0]) + need.optimizers))
    assert set(rehearsal.pace()) == {"1", "2", "32"}
    same(before, engine.state())
    assert engine.game.doubled == 1


def test_only_stages_that_the_run_comes_to_are_tried() -> None:
    engine = odd.engine(Growing(), batch_size=None, steps=8)
    need = Rehearsal(engine).footprint()
    assert need is not None
    assert need.stages == ("1", "2")


def test_time_left_and_rows_a_second_follow_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("gancli.observers.observer.time.perf_counter", lambda: now[0])
    engine = odd.engine(Growing(), batch_size=None)
    steps = engine.course.steps(None)
    assert steps == 7 + 11 + 200
    seconds = {"1": 1.0, "2": 2.0, "32": 10.0}
    view = RunView(engine, steps, estimates=seconds)
    assert view.left() == 7 + 22 + 2000
    view.begin()
    engine.step_number, engine.seen, now[0] = 6, 96, 12.0  # two seconds each
    assert view.left() == pytest.approx(2 * (1 + 22 + 2000))
    assert "8 rows/s" in Progress()._words(view)
    before = engine.at.stage
    engine.step_number, engine.seen, now[0] = 7, 112, 14.0
    view.next_stage(before)
    assert view.seconds_a_step() == pytest.approx(4.0)  # twice as long as was estimated, as before
    assert view.left() == pytest.approx(2 * (22 + 2000))
    assert "2 rows/s" in Progress()._words(view)
    engine.step_number, engine.seen, now[0] = 17, 192, 14.0 + 30
    assert view.seconds_a_step() == pytest.approx(3.0)  # measured in this stage alone
    assert view.left() == pytest.approx(1.5 * (2 + 2000))
    assert RunView(engine, steps, began_at=17).left() == 0  # nothing was measured


# -- the command itself ------------------------------------------------------------------------------------------------

WORDS = [word for word in TINY if not word.startswith("batch_size")]
TABLE = (
    Stage(name="low", batch_size=4),
    Stage(name="high", start=8, batch_size=2, reset=("G", "D"), rates=0.5, end=14),
)


def about(run: str) -> Mapping[str, object]:
    found: Mapping[str, object] = json.loads(Path(run, "run.json").read_text(encoding="utf-8"))
    return found


def test_a_run_follows_its_stages_and_is_taken_up_within_them(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoiseGame, "stages", lambda self: TABLE)
    answer = gan("train", *WORDS, "steps=null", "batch_size=null", "run_dir=whole")
    assert answer.code == 0, answer
    assert "batches of 4, then 2" in answer.err
    assert "in stage low" in answer.err
    assert "5 steps about" in answer.err
    assert "stage high begins after step 2: batches of 2, the optimizer of G and D is reset" in answer.err
    found = about("whole")
    assert (found["step"], found["steps"], found["status"]) == (5, 5, "finished")
    assert found["stages"] == [
        {"name": "low", "step": 0, "batch_size": 4},
        {"name": "high", "step": 2, "batch_size": 2},
    ]
    for steps in (1, 2, 3):
        assert gan("train", *WORDS, f"steps={steps}", "batch_size=null", f"run_dir=r{steps}").code == 0
        assert gan("train", f"resume=r{steps}", "steps=null").code == 0
        states = [torch.load(f"{r}/checkpoints/00000005.pt", weights_only=True) for r in ("whole", f"r{steps}")]
        for part in ("game", "ema", "optimizers", "positions", "seen"):
            same(states[0][part], states[1][part])
    answer = gan("train", "resume=whole", "steps=null")
    assert "step 5 of 5" in answer.err


def test_the_length_of_a_run_is_said_once(gan: Gan) -> None:
    answer = gan("train", *TINY, "images=9", "steps=3", "run_dir=r")
    assert answer.code == 2
    assert "images=9 and steps=3 both set the length of the run: leave one out, or type images=null" in answer.err
    answer = gan("train", *TINY, "steps=null", "run_dir=r")
    assert answer.code == 2
    assert "type steps=N or images=N" in answer.err
    answer = gan("train", *TINY, "batch_size=null", "run_dir=r")
    assert answer.code == 2
    assert "batch_size=null: this game has no default batch size: type batch_size=N" in answer.err
    assert not Path("r").exists()
    assert gan("train", *TINY, "images=9", "game.d_steps=2", "run_dir=r").code == 0
    assert (about("r")["step"], about("r")["steps"]) == (2, 2)
    answer = gan("train", "resume=r", "images=16")
    assert "the run is at step 2 of 2; continue with images=N" in answer.err
    assert gan("train", "resume=r", "images=17").code == 0
    assert about("r")["steps"] == 3
    assert gan("train", "resume=r", "images=null", "steps=4").code == 0
    assert about("r")["step"] == 4


def test_a_file_may_say_images_and_a_person_steps(gan: Gan) -> None:
    Path("mine/experiment").mkdir(parents=True)
    text = "# @package _global_\nimages: 1000\n"
    Path("mine/experiment/long.yaml").write_text(text, encoding="utf-8")
    words = [*TINY, "experiment=long", "--config-dir", "mine", "steps=1", "run_dir=r"]
    assert gan("train", *words).code == 0
    assert about("r")["step"] == 1
