"""What a run says of itself before its first step, how it stops there, and what it is refused for."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from gancli import waiting
from gancli.compute import memory
from gancli.compute.dist import World
from gancli.compute.memory import Footprint, Line
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.errors import CombinationError, ConfigError, DeviceError, RunError
from gancli.games.game import Move
from gancli.observers.metrics import Metrics
from gancli.observers.observer import RunView
from gancli.observers.progress import Progress
from gancli.store.rundir import RunDir
from gancli.train import assemble, rehearsal, streams
from gancli.train.engine import Engine
from gancli.train.rehearsal import Rehearsal, Speed
from gancli.train.tracing import LiveTensors, OverTime
from gancli.verbs import session, stopping
from gancli.verbs.forecast import default_steps, noise_left
from tests import tiny
from tests.conftest import TINY, Gan

Patch = pytest.MonkeyPatch
POINTS = ["model=mlp", "dataset=grid", "observers=none", "device=cpu", "model.hidden=[8,8]", "steps=1", "run_dir=r"]


def built(*words: str) -> tuple[Engine, Callable[[], Engine]]:
    """An engine as configured, and what makes its twin of shapes alone."""
    config = compose("train", list(words))
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    facts = DataFacts.of(source)
    engine = assemble.engine(settings, source, assemble.game(config, facts), assemble.Compute())
    return engine, lambda: assemble.twin(settings, config, source, facts)


SMALL = ["dataset=random", "dataset.n=24", "device=cpu"]


@pytest.mark.parametrize(
    "words",
    [
        ["model=dcgan", "model.ch=4", "dataset.size=[1,16,16]"],
        ["model=sngan", "model.ch=4", "model.conditioning=projection", "model.attention=[8]", "dataset.size=[3,16,16]"],
        ["model=mlp", "model.hidden=[8]", "dataset.size=[1,8,8]", "penalty=r1_r2", "loss=pairing"],
        ["model=dcgan", "model.ch=4", "dataset.size=[1,16,16]", "penalty=[wgan_gp,ortho]"],
    ],
    ids=lambda words: words[0],
)
def test_shapes_alone_tell_what_real_rows_do(words: list[str]) -> None:
    engine, twin = built(*SMALL, *words)
    real, counted = Rehearsal(engine), Rehearsal(engine, twin)
    couples = engine.couples
    for a, b in zip(real._tried(couples), counted._counted(couples), strict=True):
        assert a.operations == b.operations
        assert (a.rows, a.few.drawn) == (b.rows, b.few.drawn)
        heights = [max(line.fixed + line.per_row * a.rows for line in growth.lines) for growth in (a, b)]
        # A convolution without memory does not change the order of its images' numbers to that of its weight, as one
        # with memory does, so that one of the at least four largest tensors may be copied in one and not in the other.
        assert heights[1] == pytest.approx(heights[0], rel=0.25)


def test_what_takes_too_long_is_counted(monkeypatch: Patch) -> None:
    engine, twin = built(*SMALL, "model=dcgan", "model.ch=4", "dataset.size=[1,16,16]", "batch_size=64")
    monkeypatch.setattr(rehearsal, "TRIED", -1.0)
    trial = Rehearsal(engine, twin)
    need = trial.footprint()
    assert need is not None
    assert not trial.real
    moves, speed = engine.moves(), Speed(1000.0, 1e30)
    monkeypatch.setattr(Speed, "measured", staticmethod(lambda engine: speed))
    done = [cost.operations for cost in trial.costs]
    assert trial.pace() == pytest.approx({"": sum((d.fixed + d.per_row * 64) / 1000 for d in done)}, rel=1e-6)
    assert len(done) == len(moves)
    monkeypatch.setattr(rehearsal, "COUNTED", -1.0)
    nothing = Rehearsal(engine, twin)
    assert nothing.footprint() is None
    assert nothing.pace() == {}


def test_a_rehearsal_ends_between_two_operations(monkeypatch: Patch) -> None:
    engine, tried = tiny.engine(), list[int]()
    monkeypatch.setattr(rehearsal, "TRIED", 0.2)
    before = engine.try_micro_batch

    def slow(move: Move, rows: int | None = None, carry: Any = None) -> Any:
        for _ in range(50):
            time.sleep(0.05)
            torch.ones(1)
            tried.append(1)
        return before(move, rows, carry)

    monkeypatch.setattr(engine, "try_micro_batch", slow)
    began = time.monotonic()
    assert Rehearsal(engine).footprint() is None
    assert time.monotonic() - began < 2
    assert 1 <= len(tried) < 10
    with pytest.raises(OverTime), LiveTensors(until=time.monotonic() - 1):
        torch.ones(1)


def test_few_rows_stand_for_many(monkeypatch: Patch) -> None:
    engine = tiny.engine(batch_size=1024, micro_batch=512)
    trial = Rehearsal(engine)
    assert trial.footprint() is not None
    asked: list[int | None] = []

    def linear(move: Move, rows: int | None) -> float:
        asked.append(rows)
        return 0.5 + 0.01 * (rows or 512)

    monkeypatch.setattr(trial, "_run", linear)
    monkeypatch.setattr(rehearsal.time, "monotonic", lambda: 0.0)
    (d, _), growth = engine.moves(), trial.costs[0]
    assert trial._timed(d, growth, 1.2) == pytest.approx(2 * (0.5 + 5.12))
    assert asked == [2, 4, 16, 64]  # four times more would take 3 s
    asked.clear()
    assert trial._timed(d, growth, 60.0) == pytest.approx(2 * (0.5 + 5.12))
    assert asked == [2, 4, 16, 64, 256, None, None]


def test_a_step_of_a_thousand_million_rows_is_refused_at_once(gan: Gan) -> None:
    answer = gan("train", *POINTS, "batch_size=1000000000", "micro_batch=1")
    assert answer.code == 2
    assert "set a batch_size below 1000000000" in answer.err
    assert not Path("r").exists()
    many = Footprint(0, 0, ((10**12, (Line(10.0, 3.0),)),), 10**9, 8, 10**12, None)
    largest = many.largest()
    assert largest == (10**9 - 10) // 3 // 8 * 8
    assert many.largest(below=100) == 96
    drawn = replace(many, draws=((10**12, 4.0),), batch_size=10**12)
    assert drawn.largest() is None
    assert "batch_size below" in drawn.remedy()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["batch_size=1"], "batch_size=2 or more"),
        (["batch_size=6", "micro_batch=1"], "micro_batch=2 or more"),
        (["batch_size=7", "micro_batch=3"], "batch_size=9, or micro_batch=null"),
        (["batch_size=4", "game.g_size=2", "micro_batch=7"], "batch_size=7"),
        (["batch_size=2", "game.pack=2", "model.G.norm=none", "model.D.norm=batch"], "batch_size=4 or more"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, list) else "",
)
def test_batch_norm_of_one_is_refused_before_the_run_is_made(gan: Gan, words: list[str], remedy: str) -> None:
    answer = gan("train", *POINTS, "model.G.norm=batch", *words)
    assert answer.code == 2, answer
    assert "batch norm a single value per channel" in answer.err
    assert remedy in answer.err
    assert answer.err.count("\n") == 1
    assert not Path("r").exists()


def test_batch_norm_of_one_image_has_its_pixels(gan: Gan) -> None:
    words = [w for w in TINY if not w.startswith("batch_size")]
    assert gan("train", *words, "observers=none", "batch_size=1", "steps=1", "run_dir=r").code == 0


def test_the_smallest_share_of_a_rank_counts() -> None:
    engine = tiny.engine(tiny.game(g_norm=True), batch_size=3)
    engine.world = World(0, 2)
    move = engine.moves()[0]
    with pytest.raises(CombinationError, match="2 for each rank"):
        rehearsal.refuse_single(engine, move, 1.0)
    rehearsal.refuse_single(engine, move, 2.0)
    engine.world = World()
    rehearsal.refuse_single(engine, move, 1.0)


def test_a_first_step_that_fails_leaves_nothing(gan: Gan, monkeypatch: Patch) -> None:
    cases: list[tuple[BaseException, int]] = [
        (torch.OutOfMemoryError("CUDA out of memory"), 2),
        (ValueError("Expected more than 1 value per channel when training, got input size [1, 8]"), 2),
        (RuntimeError("an error of no known kind"), 1),
        (KeyboardInterrupt(), 130),
    ]
    for failure, code in cases:
        monkeypatch.setattr(Engine, "step", Mock(side_effect=failure))
        answer = gan("train", *TINY, "steps=2", "run_dir=here/run")
        assert answer.code == code, answer
        assert list(Path().iterdir()) == []
        assert "resume=" not in answer.err
    Path("mine").mkdir()
    assert gan("train", *TINY, "steps=2", "run_dir=mine").code == 130
    assert list(Path("mine").iterdir()) == []
    assert gan("train", *TINY, "steps=2").code == 130
    assert [path.name for path in Path().iterdir()] == ["mine"]


def test_a_resumed_run_that_is_stopped_before_its_step_stays_as_it_was(gan: Gan, monkeypatch: Patch) -> None:
    assert gan("train", *TINY, "steps=2", "run_dir=r").code == 0
    kept = sorted(path.name for path in Path("r/checkpoints").iterdir())
    monkeypatch.setattr(Metrics, "open", lambda self, view: os.kill(os.getpid(), signal.SIGTERM))
    answer = gan("train", "resume=r", "steps=4")
    assert answer.code == 130
    assert sorted(path.name for path in Path("r/checkpoints").iterdir()) == kept
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert (about["status"], about["reason"], about["step"]) == ("stopped", "interrupted", 2)


@pytest.fixture
def terminal(monkeypatch: Patch) -> Iterator[int]:
    """What signals are answered with, to be read from."""
    read, write = os.pipe()
    monkeypatch.setattr(stopping, "TERMINAL", write)
    yield read
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("train.streams.data", signal.SIGTERM),
        ("train.rehearsal.Rehearsal.footprint", signal.SIGINT),
        ("train.rehearsal.Rehearsal.pace", signal.SIGTERM),
        ("verbs.train.begin", signal.SIGHUP),
        ("observers.metrics.Metrics.open", signal.SIGINT),
    ],
)
def test_a_signal_before_the_first_step_ends_at_once(
    gan: Gan, monkeypatch: Patch, terminal: int, place: str, number: signal.Signals
) -> None:
    def come(*_: object) -> None:
        os.kill(os.getpid(), number)
        for _ in range(500):
            time.sleep(0.01)
        raise AssertionError("the signal was not obeyed")

    monkeypatch.setattr(f"gancli.{place}", come)
    handler = signal.getsignal(number)
    assert gan("train", *TINY, "steps=2", "run_dir=r").code == 130
    assert os.read(terminal, 1000) == b"stopping before the first step ...\n"
    assert list(Path().iterdir()) == []
    assert signal.getsignal(number) is handler


def test_a_signal_is_answered_while_the_main_thread_is_busy(gan: Gan, monkeypatch: Patch, terminal: int) -> None:
    step, answered, over = Engine.step, list[float](), list[float]()

    def watch() -> None:
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        assert os.read(terminal, 1000).startswith(b"stopping after this step ...")
        answered.append(time.monotonic())

    def busy(self: Engine) -> Any:
        if self.step_number == 1:
            thread = threading.Thread(target=watch)
            thread.start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)  # one call of C, in which no handler of Python's runs
            over.append(time.monotonic())
            thread.join()
        return step(self)

    monkeypatch.setattr(Engine, "step", busy)
    assert gan("train", *TINY, "steps=9", "run_dir=r").code == 0
    assert answered[0] < over[0]
    assert json.loads(Path("r/run.json").read_text(encoding="utf-8"))["step"] == 2


@pytest.mark.parametrize(("long", "drawn"), [(60.0, True), (0.0, False)])
def test_whoever_stops_a_run_does_not_wait_for_a_slow_look(
    gan: Gan, monkeypatch: Patch, terminal: int, long: float, drawn: bool
) -> None:
    step = Engine.step

    def stopped(self: Engine) -> Any:
        if self.step_number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(Engine, "step", stopped)
    monkeypatch.setattr(session, "LONG", long)
    words = [*TINY, "observers.grid.every=2", "observers.metrics.every=2"]
    assert gan("train", *words, "steps=9", "run_dir=r").code == 0
    assert Path("r/checkpoints/00000003.pt").exists()
    assert (
        sorted(path.stem for path in Path("r/samples").iterdir()) == ["00000000", "00000002", "00000003"][: 2 + drawn]
    )


def test_what_takes_a_moment_is_said_and_no_more(monkeypatch: Patch) -> None:
    said: list[str] = []
    monkeypatch.setattr(waiting, "MOMENT", 0.01)
    with waiting.told("reading", said.append):
        time.sleep(0.1)
    with waiting.told("building", said.append, after=5):
        pass
    assert said == ["reading ..."]


def test_a_run_says_what_it_measures(gan: Gan, monkeypatch: Patch) -> None:
    monkeypatch.setattr(waiting, "MOMENT", 0.0)
    footprint = Rehearsal.footprint

    def slow(self: Rehearsal) -> Footprint | None:
        time.sleep(0.05)
        return footprint(self)

    monkeypatch.setattr(Rehearsal, "footprint", slow)
    answer = gan("train", *TINY, "steps=1", "run_dir=r")
    assert answer.code == 0
    lines = answer.err.splitlines()
    assert lines.index("measuring the memory and time of a step ...") < lines.index("run r")
    assert "a step takes about" in Path("r/log.txt").read_text(encoding="utf-8")


def test_no_steps_forecast_the_steps_there_would_be(gan: Gan, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Rehearsal, "pace", lambda self: {"": 60.0})
    answer = gan("train", *TINY, "steps=0", "run_dir=r")
    assert answer.code == 0
    assert "a step takes about 60 s, 10,000 steps about 6 days 22:40:00" in answer.err
    assert "memory about" in answer.err
    assert answer.err.splitlines()[-1] == (
        "finished at step 0: the run is built; train it with gan train resume=r steps=N, then try: gan sample run=r"
    )
    assert not Path("r/samples").exists()
    assert gan("sample", "run=r", "n=1").code == 0  # what was said can be typed
    assert gan("train", "resume=r", "steps=1").code == 0
    course = tiny.engine().course
    assert (
        default_steps([*TINY, "steps=0", "experiment=demo"], course, 8)
        == compose("train", ["experiment=demo"])["steps"]
    )
    few = default_steps([*TINY, "experiment=few_shot", "steps=0"], course, 1200)
    assert few == course.steps(None, 1_200_000)


def test_no_steps_are_not_refused_for_what_a_step_would_need(gan: Gan, monkeypatch: Patch) -> None:
    def too_large(self: Rehearsal) -> Footprint:
        return Footprint(100, 20, ((4, (Line(0.0, 1e12),)),), 400, 1, 4, None)

    monkeypatch.setattr(Rehearsal, "footprint", too_large)
    monkeypatch.setattr(Rehearsal, "pace", lambda self: {})
    answer = gan("train", *TINY, "steps=0", "run_dir=r")
    assert answer.code == 0
    assert "not even the smallest micro-batch fits" in answer.err
    assert "the time of a step: not measured" in answer.err
    assert gan("train", *TINY, "steps=1", "run_dir=s").code == 2
    assert not Path("s").exists()

    def impossible(self: Rehearsal) -> Footprint:
        raise DeviceError("not even a few images fit")

    monkeypatch.setattr(Rehearsal, "footprint", impossible)
    assert "no forecast: not even a few images fit" in gan("train", *TINY, "steps=0", "run_dir=t").err


def test_the_last_line_names_only_what_is_there(gan: Gan) -> None:
    answer = gan("train", *[w for w in TINY if "grid" not in w], "observers.grid=null", "steps=1", "run_dir=r")
    assert "samples" not in answer.err.splitlines()[-1]
    assert (
        gan("train", *TINY, "steps=1", "run_dir=s").err.splitlines()[-1].count("samples are in s/samples; next:") == 1
    )


def test_time_left_leaves_out_what_came_before_the_first_step(monkeypatch: Patch) -> None:
    now = [0.0]
    monkeypatch.setattr("gancli.observers.observer.time.perf_counter", lambda: now[0])
    engine = tiny.engine()
    view = RunView(engine, 100, _opened=0.0)
    now[0] = 1000.0  # a first sheet, a first evaluation
    view.begin()
    engine.step_number, now[0] = 10, 1020.0
    assert view.seconds_a_step() == pytest.approx(2.0)
    view.logs = {"loss_D": torch.zeros(())}
    assert "3:00 left" in Progress()._words(view)
    view.config = {"max_time": 18}
    assert Progress()._words(view).endswith("1:00 left · then max_time ends it")
    engine.step_number = 0
    assert RunView(engine, 100).seconds_a_step() == 0
    assert "left" not in Progress()._words(RunView(engine, 100))  # nothing was measured


@pytest.mark.parametrize(
    "words",
    [
        "sample n=1000000000",
        "sample n=1000000000 format=npz",
        "sample n=200000000000 format=png",
        "interpolate rows=1000000000",
        "interpolate frames=1000000000",
        "interpolate rows=300000 frames=300000",
        "eval n=2000000000000",
        "sample standing_stats=1000000000",
        "sample n=" + "9" * 400,
    ],
)
def test_counts_that_no_machine_holds_are_refused(gan: Gan, trained: Path, words: str) -> None:
    began = time.monotonic()
    answer = gan(*words.split(), f"run={trained}", "device=cpu")
    assert answer.code == 2, answer
    assert answer.err.count("\n") == 1
    assert len(answer.err) < 300
    assert time.monotonic() - began < 10
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("key", ["grid.n", "alarms.n", "batch_size", "steps", "micro_batch"])
def test_absurd_counts_of_a_run_are_refused(gan: Gan, key: str) -> None:
    word = f"observers.{key}=100000000000" if "." in key else f"{key}={10**30}"
    answer = gan("train", *TINY, "steps=1", "run_dir=r", word)
    assert answer.code == 2, answer
    assert answer.err.count("\n") == 1 or "." in key
    assert not Path("r").exists()


def test_what_fits_is_told_from_what_is_free(monkeypatch: Patch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    memory.refuse_many("n=10", 10, 100, "n")
    with pytest.raises(ConfigError, match=r"n=11: 11 of them need about .* set n=5 or less"):
        memory.refuse_many("n=11", 11, 100, "n")


def test_a_second_signal_does_not_disturb_the_taking_away(gan: Gan, monkeypatch: Patch) -> None:
    def begin(*_: object) -> None:
        raise KeyboardInterrupt

    taken = RunDir.withdraw

    def withdraw(self: RunDir) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        taken(self)

    monkeypatch.setattr("gancli.verbs.train.begin", begin)
    monkeypatch.setattr(RunDir, "withdraw", withdraw)
    assert gan("train", *TINY, "steps=2", "run_dir=r").code == 130
    assert not Path("r").exists()


def test_a_log_that_cannot_be_written_does_not_silence_a_wait(capsys: pytest.CaptureFixture[str]) -> None:
    def full(text: str) -> None:
        raise RunError("disk full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "MOMENT", 0.0)
        with waiting.told("measuring", full):
            time.sleep(0.2)
    assert capsys.readouterr().err == "measuring ...\n"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, True),
        ({"loss": {"noise": 0.5, "noise_until": 3000}}, False),
        ({"loss": {"noise": 0.0, "noise_until": 9000}}, False),
        ({"loss": {"noise": 0.5, "noise_until": None}}, False),
        ({"max_time": None}, False),
        ({"max_time": 9.0}, False),  # the run ends by itself
        ({"resume": "last"}, False),
    ],
)
def test_noise_that_max_time_leaves_is_told(keys: dict[str, Any], told: bool) -> None:
    engine = tiny.engine(batch_size=64, steps=400)
    options = {"loss": {"noise": 0.5, "noise_until": 9000}, "max_time": 1.0, "resume": None} | keys
    found = noise_left({"": 1.0}, Mock(spec=TrainSettings, **options), engine)
    wanted = "loss.noise_until=9000: max_time=1 ends the run after about 3,800 images, before the noise is 0"
    assert found == ([wanted] if told else [])
