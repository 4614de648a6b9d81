"""The odd game through every verb, observer, file and page: players P, Q, R, two feeds, three phases, no image.

What it adds to the house stands in tests/oddgame; nothing outside that folder knows of it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gancli.cli import main
from gancli.compute.device import Compute
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.draw import reading
from gancli.draw.sampling import Sampler
from gancli.report.__main__ import main as report
from gancli.store import checkpoint
from gancli.store.rundir import RunDir
from gancli.train import assemble, checks, streams
from gancli.train.engine import Engine
from tests.conftest import Gan
from tests.oddgame import CONF, TRAIN, move_in
from tests.test_earlier import EARLIER, SAID
from tests.test_engine import same
from tests.test_report import data_of
from tests.test_train import rows

# Everything that looks at a run, at every chance.
WATCHED = [
    "observers=spectra", "observers.metrics.every=1", "observers.grid.every=2", "observers.grid.n=4",
    "observers.checkpoints.every=1", "observers.checkpoints.keep=null", "observers.alarms.every=1",
    "observers.spectra.every=2", "observers.spectra.count=1",
]  # fmt: skip
QUIET = ["observers=none", "observers.metrics.every=1"]
WORDS = ("sun", "moon", "rain", "wind", "snow")


@pytest.fixture(scope="module", autouse=True)
def moved_in() -> None:
    move_in()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of all three phases, watched by everything; nothing is written to it."""
    move_in()
    run = tmp_path_factory.mktemp("odd") / "r"
    before = Path.cwd()
    os.chdir(run.parent)
    try:
        assert main([*TRAIN, *WATCHED, "logger=tensorboard", "run_dir=r"]) == 0
    finally:
        os.chdir(before)
    return run


def whole(run: Path, step: int) -> dict[str, Any]:
    """All that a checkpoint keeps, but for how the run was looked at and how long that took."""
    state = checkpoint.read(RunDir(run).checkpoint(step))
    return {name: part for name, part in state.items() if name not in ("config", "seconds", "observers")}


def as_bytes(state: dict[str, Any]) -> bytes:
    """A state as a file holds it."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def here() -> dict[str, int]:
    """What lies in this folder, and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in Path().rglob("*")}


def of_row(line: str) -> list[float]:
    """The numbers of `height=1 weight=2`."""
    names, numbers = zip(*(part.split("=") for part in line.split(" ")), strict=True)
    assert names == ("height", "weight")
    return [float(number) for number in numbers]


# -- training, and whoever watches it ----------------------------------------------------------------------------------


def test_a_run_says_what_it_is(odd: Path) -> None:
    about = json.loads((odd / "run.json").read_text(encoding="utf-8"))
    assert (about["status"], about["step"], about["steps"]) == ("finished", 8, 8)
    assert about["parameters"] == {"P": 6 * 4 + 2 * (12 * 2 + 2), "Q": 3, "R": 4 * 18 + 18}
    assert about["frozen"] == {"R_eye": 2 * 4 + 4}
    assert about["data"]["rows"] == {"u": 24, "v": 27}
    assert {name: field["kind"] for name, field in about["data"]["fields"].items()} == {
        "u.words": "tokens",
        "v.row": "table",
    }
    assert [(each["name"], each["step"], each["batch_size"]) for each in about["stages"]] == [
        ("alone", 0, 8),
        ("pair", 2, 8),
        ("all", 4, 8),
    ]
    log = [line[20:] for line in (odd / "log.txt").read_text(encoding="utf-8").splitlines()]
    assert "data odd: u 24 sequences of 3 of 6 tokens · v 27 table rows of 2" in log
    assert "P 76 parameters · Q 3 parameters · R 90 parameters · R_eye 12 frozen · batches of 8" in log
    assert "stage pair begins after step 2: batches of 8" in log
    assert "stage all begins after step 4: batches of 8, the optimizer of P is reset" in log


def test_rows_hold_what_each_phase_plays(odd: Path) -> None:
    found = [row for row in rows(odd) if "lr_P" in row]
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["seen"] for row in found] == [8 * step for step in range(1, 9)]
    shared = {"step", "seen"} | {f"{what}_{player}" for what in ("lr", "weight_norm") for player in "PQR"}
    first, second, third = {"make_P", "grad_norm_P"}, {"judge_Q", "edge", "grad_norm_Q"}, {"guess_R", "grad_norm_R"}
    for row in found:
        played = first | (second if row["step"] > 2 else set()) | (third if row["step"] > 4 else set())
        assert set(row) == shared | played


def test_alarms_look_at_the_table_and_at_p(odd: Path) -> None:
    found = [row for row in rows(odd) if "diversity_forth" in row]
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    for row in found:
        assert set(row) == {"step", "diversity_forth", "diversity_back", "gradient_P"}
        assert 0.01 < row["diversity_forth"] < 10
        assert 0.01 < row["diversity_back"] < 10
        assert row["gradient_P"] > 0
    # P's optimizer starts anew after four steps: its memory is then that step's gradient alone.
    state = whole(odd, 5)
    squares = [each["exp_avg_sq"] for each in state["optimizers"]["P"]["state"].values()]
    rms = (sum(float(s.sum()) for s in squares) / sum(s.numel() for s in squares)) ** 0.5
    assert found[4]["gradient_P"] == pytest.approx(rms, rel=1e-6)
    assert {float(each["step"]) for each in state["optimizers"]["P"]["state"].values()} == {1.0}


def test_spectra_are_of_weights_that_move(odd: Path) -> None:
    found = [row for row in rows(odd) if "spectra" in row]
    assert [row["step"] for row in found] == [0, 2, 4, 6, 8]
    spectra: Any = found[-1]["spectra"]
    assert {net: set(layers) for net, layers in spectra.items()} == {
        "P_one": {"read", "out"},
        "P_two": {"read", "out"},
        "Q": {"out"},
        "R_eye": set(),
        "R": {"out"},
    }
    weight = whole(odd, 8)["game"]["nets.Q.out.weight"]
    assert spectra["Q"]["out"] == pytest.approx([float(weight.norm())], rel=1e-6)
    assert (odd / "samples" / "spectra.png").read_bytes().startswith(b"\x89PNG")


def test_the_grid_is_lines_of_text(odd: Path) -> None:
    steps = ["00000000", "00000002", "00000004", "00000006", "00000008"]
    assert sorted(path.name for path in (odd / "samples").iterdir()) == [*(f"{s}.txt" for s in steps), "spectra.png"]
    pages = [(odd / "samples" / f"{s}.txt").read_text(encoding="utf-8").splitlines() for s in steps]
    made = [[line.split("\t") for line in page] for page in pages]
    assert [len(page) for page in made] == [4] * 5
    assert all(set(words.split()) <= set(WORDS) for page in made for _, words in page)
    assert [[words for _, words in page] for page in made] == [[words for _, words in made[0]]] * 5  # the same inputs
    assert len({tuple(row for row, _ in page) for page in made}) == 5  # to which P gives others
    nets, words = reading.load(str(odd)).nets, [[WORDS.index(w) + 1 for w in line[1].split()] for line in made[-1]]
    with torch.no_grad():
        expected = nets["P_one"](torch.tensor(words)) + nets["P_two"](torch.tensor(words))
    np.testing.assert_allclose([of_row(line[0]) for line in made[-1]], expected.numpy(), rtol=1e-5)


def test_checkpoints_hold_pool_copy_and_averages(odd: Path) -> None:
    assert list(RunDir(odd).listing()) == list(range(9))
    states = [whole(odd, step) for step in range(9)]
    assert [int(state["game"]["filled"]) for state in states] == [0, 6, 6, 6, 6, 6, 6, 6, 6]
    for state in states:
        assert set(state["ema"]) == {"P_one", "P_two"}
        assert set(state["copies"]) == {"delayed"}
        assert set(state["optimizers"]) == {"P", "Q", "R"}
        # Two networks share a layer.
        assert torch.equal(state["game"]["nets.P_one.read.weight"], state["game"]["nets.P_two.read.weight"])
        assert torch.equal(state["game"]["nets.R_eye.look.weight"], states[0]["game"]["nets.R_eye.look.weight"])
    for before, after in pairwise(states):
        for name, weight in before["ema"]["P_one"].items():  # decay 0.5
            now = after["game"][f"nets.P_one.{name}"]
            torch.testing.assert_close(after["ema"]["P_one"][name], (weight + now) / 2)
        for name, weight in before["copies"]["delayed"].items():  # 0.8
            now = after["game"][f"nets.P_one.{name}"]
            torch.testing.assert_close(after["copies"]["delayed"][name], 0.8 * weight + 0.2 * now)

    def moved(player: str, a: int, b: int) -> bool:
        name = f"nets.{player}.out.weight"
        return not torch.equal(states[a]["game"][name], states[b]["game"][name])

    assert [moved("P_two", step, step + 1) for step in range(8)] == [True] * 8
    assert [moved("Q", step, step + 1) for step in range(8)] == [False] * 2 + [True] * 6
    assert [moved("R", step, step + 1) for step in range(8)] == [False] * 4 + [True] * 4


def test_the_plane_is_of_points_and_says_so(gan: Gan) -> None:
    answer = gan(*TRAIN, *QUIET, "observers.plane.every=1", "steps=1", "run_dir=r")
    assert answer.code == 0
    assert answer.err.splitlines().count("observers.plane.every has no effect with data of table rows") == 1
    assert sorted(path.name for path in Path("r/samples").iterdir()) == ["00000000.txt", "00000001.txt"]


def test_progress_counts_what_its_first_feed_has(gan: Gan) -> None:
    answer = gan(*TRAIN, "observers.report=null", "steps=3", "run_dir=r")
    (line,) = [line for line in answer.err.splitlines() if line.startswith("step 3/3")]
    said = [part.split(" ")[0] for part in line.split(" · ")]
    assert said[1:4] == ["make_P", "judge_Q", "edge"]
    assert "sequences/s" in line


def test_the_page_holds_samples_and_curves(odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a comparison is written here
    run = Path(shutil.copytree(odd, tmp_path / "r"))
    (run / "report.html").unlink()
    assert report([str(run)]) == 0
    text, data = (run / "report.html").read_text(encoding="utf-8"), data_of(run / "report.html")
    for line in (run / "samples" / "00000008.txt").read_text(encoding="utf-8").splitlines():
        assert line in text
    assert set(data["figures"]) == {"others", "rates", "gradients", "weights", "diversity", "speed"}
    others: Any = data["figures"]["others"]
    assert {curve["name"] for curve in others["data"]} == {"make_P", "judge_Q", "edge", "guess_R"}
    losses = [row["make_P"] for row in rows(odd) if "make_P" in row]
    assert next(curve["y"] for curve in others["data"] if curve["name"] == "make_P") == losses
    assert f"gan train --config-dir {CONF} model=odd" in text or f"--config-dir={CONF} model=odd" in text
    assert (odd / "report.html").exists()  # the run wrote its own
    assert report([str(odd), str(run)]) == 0  # beside each other
    assert data_of(Path("comparison.html"))["figures"].keys() == {
        "make_P",
        "judge_Q",
        "edge",
        "guess_R",
        "diversity_forth",
        "diversity_back",
    }


def test_tensorboard_is_told_numbers_and_lines(odd: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(odd / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in found.Scalars("guess_R")] == [5, 6, 7, 8]
    sheets = found.Tensors("samples/text_summary")
    assert [event.step for event in sheets] == [0, 2, 4, 6, 8]
    said = sheets[-1].tensor_proto.string_val[0].decode()
    lines = (odd / "samples" / "00000008.txt").read_text(encoding="utf-8").splitlines()
    assert said == "\n".join(f"    {line}" for line in lines)


def test_who_looks_changes_nothing(gan: Gan, odd: Path) -> None:
    """A bar or none, every observer or none: the same bits."""
    assert gan(*TRAIN, *QUIET, "run_dir=unseen").code == 0
    assert gan(*TRAIN, "observers.progress.every=1e-9", "observers.report=null", "run_dir=seen").code == 0
    for run in ("unseen", "seen"):
        assert as_bytes(whole(Path(run), 8)) == as_bytes(whole(odd, 8))


def test_a_run_that_diverges_names_its_players(gan: Gan) -> None:
    answer = gan(*TRAIN, *QUIET, "optimizer.P.lr=1e30", "run_dir=r")
    assert answer.code == 2
    line = answer.err.splitlines()[-1]
    assert "is not finite at step" in line
    assert "lower optimizer.P.lr, optimizer.Q.lr and optimizer.R.lr or set optimizer.clip" in line


# -- stop, resume, start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 3, 6], ids=["alone", "pair", "all"])
def test_stopped_inside_a_phase_it_ends_as_left_alone(gan: Gan, odd: Path, first: int) -> None:
    assert gan(*TRAIN, *WATCHED, "observers.report=null", f"steps={first}", "run_dir=r").code == 0
    answer = gan("train", "resume=r", "steps=8")
    assert answer.code == 0
    assert f"resumed at step {first}" in answer.err
    for step in range(9):
        same(whole(odd, step), whole(Path("r"), step))
    alarms = [checkpoint.read(RunDir(run).checkpoint(8))["observers"]["alarms"] for run in (odd, Path("r"))]
    assert alarms[0] == alarms[1]
    assert alarms[0]["best"]["gradient"] > 0
    straight, resumed = ([row for row in rows(run) if "spectra" not in row] for run in (odd, Path("r")))
    assert straight == resumed
    sheets = [sorted(path.name for path in (run / "samples").glob("*.txt")) for run in (odd, Path("r"))]
    ends = {f"{first:08d}.txt"}  # the last step of a process is looked at, too
    assert set(sheets[1]) - ends == set(sheets[0]) - ends
    for name in sheets[0]:
        assert (odd / "samples" / name).read_bytes() == Path("r/samples", name).read_bytes()


def test_going_back_forgets_what_came_after(gan: Gan, odd: Path) -> None:
    shutil.copytree(odd, "r")
    assert gan("train", "resume=r/checkpoints/00000003.pt", "steps=5").code == 0
    for step in range(6):
        same(whole(odd, step), whole(Path("r"), step))
    assert list(RunDir(Path("r")).listing()) == list(range(6))
    assert sorted(path.name for path in Path("r/samples").glob("*.txt")) == [f"{step:08d}.txt" for step in (0, 2, 4, 5)]


def test_a_longer_run_lengthens_the_last_phase(gan: Gan, odd: Path) -> None:
    shutil.copytree(odd, "r")
    assert gan("train", "resume=r", "observers.report=null", "logger=none", "steps=10").code == 0
    assert gan(*TRAIN, *QUIET, "steps=10", "run_dir=straight").code == 0
    same(whole(Path("straight"), 10), whole(Path("r"), 10))
    assert json.loads(Path("r/run.json").read_text(encoding="utf-8"))["steps"] == 10


def test_init_takes_weights_and_nothing_else(gan: Gan, odd: Path) -> None:
    assert gan(*TRAIN, *QUIET, f"init={odd}", "steps=0", "run_dir=r").code == 0
    before, now = whole(odd, 8), whole(Path("r"), 0)
    same(before["game"], now["game"])
    same(before["ema"], now["ema"])
    same(now["copies"]["delayed"], {k: now["game"][f"nets.P_one.{k}"] for k in now["copies"]["delayed"]})
    assert (now["step"], now["seen"], now["positions"]) == (0, 0, {"u": 0, "v": 0})
    assert all(not optimizer["state"] for optimizer in now["optimizers"].values())


def test_init_takes_one_network(gan: Gan, odd: Path) -> None:
    assert gan(*TRAIN, *QUIET, f"init={{Q: run:{odd}}}", "seed=3", "steps=0", "run_dir=one").code == 0
    assert gan(*TRAIN, *QUIET, "seed=3", "steps=0", "run_dir=none").code == 0
    one, none, other = whole(Path("one"), 0)["game"], whole(Path("none"), 0)["game"], whole(odd, 8)["game"]
    for name in one:
        assert torch.equal(one[name], (other if name.startswith("nets.Q.") else none)[name]), name
    assert not torch.equal(one["nets.Q.out.weight"], none["nets.Q.out.weight"])


# -- batches -----------------------------------------------------------------------------------------------------------


def engine_of(*keys: str) -> Engine:
    """An engine as `gan train` would make it, in float64."""
    config = compose("train", ["model=odd", "device=cpu", *keys], [CONF])
    settings = make_as(TrainSettings, config, "")
    checks.check_sections(settings)
    source = streams.data(settings)
    game = assemble.game(config, DataFacts.of(source)).double()
    return assemble.engine(settings, source, game, Compute())


def everything(engine: Engine) -> dict[str, Tensor]:
    """All that a step moves, averages, copies and remembers."""
    state = engine.state()
    parts = {"ema": state["ema"], "copies": state["copies"]}
    flat = {f"{part}.{net}.{k}": t for part, nets in parts.items() for net, own in nets.items() for k, t in own.items()}
    return dict(state["game"]) | flat


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_micro_batches_are_the_batch(micro_batch: int) -> None:
    whole_batch, split = engine_of(), engine_of(f"micro_batch={micro_batch}")
    for _ in range(8):
        ours, theirs = whole_batch.step(), split.step()
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(theirs[name], ours[name], rtol=1e-6, atol=1e-6)
    for name, value in everything(whole_batch).items():
        torch.testing.assert_close(everything(split)[name], value, rtol=1e-6, atol=1e-6)


def test_half_precision_trains_it(gan: Gan) -> None:
    answer = gan(*TRAIN, *QUIET, "precision=bf16", "run_dir=r")
    assert answer.code == 0, answer.err
    assert {t.dtype for t in whole(Path("r"), 8)["game"].values()} == {torch.float32, torch.int64}


def test_random_data_serve_both_feeds(gan: Gan) -> None:
    answer = gan(*TRAIN, *QUIET, "dataset=random", "dataset.n=20", "run_dir=r")
    assert answer.code == 0, answer.err
    facts = json.loads(Path("r/run.json").read_text(encoding="utf-8"))["data"]
    assert facts["rows"] == {"u": 20, "v": 20}
    assert {name: field["kind"] for name, field in facts["fields"].items()} == {"u.words": "tokens", "v.row": "table"}


# -- samples -----------------------------------------------------------------------------------------------------------


def drawn(gan: Gan, *words: str) -> list[list[str]]:
    """The lines of samples.txt, cut at tabs."""
    answer = gan("sample", *words, "run_dir=drawn")
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["sample.json", "samples.txt"]
    lines = Path("drawn/samples.txt").read_text(encoding="utf-8").splitlines()
    shutil.rmtree("drawn")
    return [line.split("\t") for line in lines]


@pytest.mark.parametrize("direction", ["forth", "back"])
def test_samples_of_both_directions(gan: Gan, odd: Path, direction: str) -> None:
    few = drawn(gan, f"run={odd}", "n=4", f"direction={direction}")
    assert drawn(gan, f"run={odd}", "n=6", f"direction={direction}")[:4] == few
    assert drawn(gan, f"run={odd}", "n=4", "seed=1", f"direction={direction}") != few
    kinds = [[any("=" in part for part in line[:1])] for line in few]
    assert kinds == [[direction == "forth"]] * 4
    assert drawn(gan, f"run={odd}", "n=4", "ema=false", f"direction={direction}") != few or direction == "back"


def test_the_first_direction_is_taken_and_held_out_rows_are_shown(gan: Gan, odd: Path) -> None:
    from gancli.data.odd import odd as data  # type: ignore[import-not-found]

    lines = drawn(gan, f"run={odd}")
    assert len(lines) == 24  # all that there are
    assert lines == drawn(gan, f"run={odd}", "direction=forth")
    held = data("test").feeds["u"]
    texts = held.fields["words"].text(held.rows(np.arange(24))["words"])
    assert sorted(words for _, words in lines) == sorted(texts)


@pytest.mark.parametrize("direction", ["forth", "back"])
def test_an_array_holds_what_was_made_of_what(gan: Gan, odd: Path, direction: str) -> None:
    answer = gan("sample", f"run={odd}", "n=5", "format=npz", f"direction={direction}", "run_dir=s")
    assert answer.code == 0, answer.err
    with np.load("s/samples.npz") as file:
        found = dict(file)
    nets = reading.load(str(odd)).nets
    with torch.no_grad():
        if direction == "forth":
            assert set(found) == {"table_rows", "u.words", "seeds"}
            words = torch.from_numpy(found["u.words"])
            expected = nets["P_one"](words) + nets["P_two"](words)
            np.testing.assert_allclose(found["table_rows"], expected.numpy(), rtol=1e-5, atol=1e-6)
        else:
            assert set(found) == {"sequences", "v.row", "seeds"}
            logits = nets["R"](nets["R_eye"](torch.from_numpy(found["v.row"])))
            assert found["sequences"].tolist() == logits.argmax(2).tolist()
    assert found["seeds"].tolist() == [[0, k] for k in range(5)]
    about = json.loads(Path("s/sample.json").read_text(encoding="utf-8"))
    assert (about["direction"], about["n"], about["step"], about["ema"]) == (direction, 5, 8, True)


def test_a_file_a_sample(gan: Gan, odd: Path) -> None:
    lines = drawn(gan, f"run={odd}", "n=3")
    answer = gan("sample", f"run={odd}", "n=3", "format=png", "run_dir=s")
    assert answer.code == 0, answer.err
    files = sorted(path.name for path in Path("s").iterdir())
    assert files == ["000000.txt", "000001.txt", "000002.txt", "sample.json"]
    assert [Path(f"s/{k:06d}.txt").read_text(encoding="utf-8").rstrip("\n") for k in range(3)] == [a for a, _ in lines]
    assert gan("sample", f"run={odd}", "seeds=4,7", "format=png", "direction=back", "run_dir=t").code == 0
    assert sorted(path.name for path in Path("t").iterdir()) == ["sample.json", "seed4.txt", "seed7.txt"]


@pytest.mark.parametrize("direction", ["forth", "back"])
def test_an_export_draws_as_the_run(gan: Gan, odd: Path, direction: str) -> None:
    way = f"direction={direction}"
    assert gan("sample", f"run={odd}", "format=safetensors", way, "run_dir=made").code == 0
    for words in ((), (way,)):
        assert drawn(gan, "run=made/generator.safetensors", "n=5", *words) == drawn(gan, f"run={odd}", "n=5", way)
    exported = reading.load("made/generator.safetensors")
    assert exported.direction == direction
    assert set(exported.nets) == ({"P_one", "P_two"} if direction == "forth" else {"R_eye", "R"})
    assert not exported.whole
    other = "back" if direction == "forth" else "forth"
    answer = gan("sample", "run=made/generator.safetensors", f"direction={other}")
    assert answer.code == 2
    assert answer.err == (
        f"gan: made/generator.safetensors holds the networks of direction {direction} only: type direction={direction},"
        " or leave it out\n"
    )
    answer = gan("sample", "run=made/generator.safetensors", "ema=false")
    assert (answer.code, answer.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("direction", ["forth", "back"])
def test_onnx_makes_the_same(gan: Gan, odd: Path, direction: str) -> None:
    import onnxruntime

    answer = gan("sample", f"run={odd}", "format=onnx", f"direction={direction}", "run_dir=made")
    assert answer.code == 0, answer.err
    what = "table rows" if direction == "forth" else "sequences"
    assert answer.out.splitlines()[-1].find(f"(differs from PyTorch's {what} by at most ") > 0
    session = onnxruntime.InferenceSession("made/generator.onnx", providers=["CPUExecutionProvider"])
    found = reading.load(str(odd), direction=direction)
    pairs = [(3, k) for k in range(7)]
    inputs = found.inputs(pairs)
    assert [each.name for each in session.get_inputs()] == [name.replace(".", "_") for name in inputs]
    (made,) = session.run(None, {name.replace(".", "_"): each.numpy() for name, each in inputs.items()})
    np.testing.assert_allclose(made, found.generate(inputs, pairs)[found.column].numpy(), atol=1e-5)


def test_chunks_change_no_sample(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Sampler = reading.load(str(odd))
    pairs = [(0, k) for k in range(10)]
    at_once = found.sample(pairs)
    monkeypatch.setattr("gancli.draw.sampling.CHUNK", 4)
    torch.testing.assert_close(found.sample(pairs), at_once)


def test_a_run_without_averages_says_that_the_raw_networks_draw(gan: Gan) -> None:
    assert gan(*TRAIN, *QUIET, "model.ema.decay=0", "steps=1", "run_dir=r").code == 0
    answer = gan("sample", "run=r", "n=2")
    assert answer.code == 0
    assert answer.err == "note: this run keeps no EMA: the raw weights are used\n"
    assert gan("sample", "run=r", "n=2", "ema=false").err == ""
    asked = gan("sample", "run=r", "n=2", "standing_stats=4")
    assert asked.code == 2
    assert asked.err.startswith("gan: standing_stats=4 needs latents, and samples of this game are made from data")


# -- what has no place here --------------------------------------------------------------------------------------------

NO_IMAGES = "draws images and this run draws table rows of 2: its samples/ show them"
OF_RUNS = {
    "interpolate": (["interpolate"], f"gan interpolate {NO_IMAGES}"),
    "interpolate back": (
        ["interpolate", "direction=back"],
        "gan interpolate draws images and this run draws sequences of 3 of 6 tokens: its samples/ show them",
    ),
    "page": (["sample", "serve=true", "open=false"], f"gan sample serve=true {NO_IMAGES}"),
    "attention": (["sample", "attention=true"], f"gan sample attention=true {NO_IMAGES}"),
    "arithmetic": (["sample", "arithmetic=1 + 2"], f"gan sample arithmetic {NO_IMAGES}"),
    "truncation": (["sample", "truncation=0.5"], "truncation=0.5: this game has no latents that can be truncated"),
    "classes": (["sample", "classes=1"], "classes=1: this generator is unconditional; leave classes out"),
    "standing": (
        ["sample", "standing_stats=4"],
        "standing_stats=4 needs latents, and samples of this game are made from data",
    ),
    "direction": (
        ["sample", "direction=up"],
        "direction=up: this game has no such direction: type direction=forth or back",
    ),
    "many": (["sample", "n=40"], "40 samples are made from one row each, and u has 24 rows"),
    "eval": (["eval"], f"gan eval {NO_IMAGES}"),
    "several": (["eval", "metrics=[swd,modes]"], f"gan eval {NO_IMAGES}"),
    "back": (["eval", "metrics=[swd]", "direction=back"], "gan eval draws images and this run draws sequences"),
    "modes": (["eval", "metrics=[modes]"], "an evaluation takes one table, but dataset=odd has the feeds u, v"),
    "divergences": (["eval", "metrics=[divergences]"], "metrics=divergences compares points"),
    "parzen": (["eval", "metrics=[parzen]"], "metrics=parzen takes images"),
    "ppl": (["eval", "metrics=[ppl]"], "metrics=ppl takes images"),
    "memorisation": (["eval", "metrics=[memorisation]"], "metrics=memorisation takes images"),
    "errors": (["eval", "metrics=[errors]"], "metrics=errors counts test errors of a D that classifies"),
    "linear_probe": (["eval", "metrics=[linear_probe]"], "metrics=linear_probe needs classes and odd has none"),
    "cas": (["eval", "metrics=[cas]"], "metrics=cas needs samples conditioned on a class"),
    "class_accuracy": (["eval", "metrics=[class_accuracy]"], "metrics=class_accuracy compares samples with their"),
    "fid_per_class": (["eval", "metrics=[fid_per_class]"], "metrics=fid_per_class needs samples conditioned on"),
}
SCORES = ["observers.scores.every=2", "observers.scores.n=4"]
OF_TRAINING = {
    "loss": (["loss=ns"], "this game does not use loss=: set loss=none"),
    "penalty": (["penalty=r1"], "this game does not use penalty=: set penalty=none"),
    "augment": (["augment=diffaugment"], "this game does not use augment=: set augment=none"),
    "ramp": (["ramp=r3gan"], "this game does not use ramp=: set ramp=none"),
    "pretrained": (["pretrained=random"], "neither this game nor a network of this model uses pretrained="),
    "latent": (["+model.latent.dim=3"], "unknown key model.latent.dim"),
    "scores of images": (
        [*SCORES, "observers.scores.metrics=[swd]"],
        "these metrics compare images, got table rows of 2: choose a data set of images",
    ),
    "scores of a run": (
        [*SCORES, "observers.scores.metrics=[modes]"],
        "observers.scores.metrics: modes needs a finished run: use gan eval",
    ),
    "data": (
        ["dataset=fashion"],
        "this game reads the column u.words, but dataset=fashion has x, y: choose another data set",
    ),
    "half a batch": (["batch_size=7"], "stage all: batch_size=7: the move R takes 0.5 times as many"),
    "game": (["game=noise"], "model.P_one needs words from its game"),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_RUNS)
def test_what_it_cannot_draw_or_judge_is_refused_in_a_line(gan: Gan, odd: Path, case: str) -> None:
    (verb, *words), said = OF_RUNS[case]
    before = {path: path.stat().st_mtime_ns for path in odd.rglob("*")}
    answer = gan(verb, f"run={odd}", *words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"gan: {said}")
    assert answer.err.count("\n") == 1
    assert here() == {}
    assert {path: path.stat().st_mtime_ns for path in odd.rglob("*")} == before


@pytest.mark.parametrize("case", OF_TRAINING)
def test_parts_that_it_has_no_use_for_are_refused_in_a_line(gan: Gan, case: str) -> None:
    words, said = OF_TRAINING[case]
    answer = gan(*TRAIN, *words, "run_dir=r")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"gan: {said}")
    assert answer.err.count("\n") == 1
    assert here() == {}


@pytest.fixture
def earlier(odd: Path, gan: Gan) -> Path:
    """A run whose newest checkpoint tells of its data as it was done before data had columns."""
    run = Path(shutil.copytree(odd, "earlier"))
    path = RunDir(run).checkpoint(8)
    state = torch.load(path, weights_only=True) | {"data": EARLIER}
    checkpoint.save(path.parent, state, {})
    return run


@pytest.mark.parametrize(
    "words",
    [["train", "resume=earlier", "steps=9"], [*TRAIN, "init=earlier", "run_dir=new"], ["sample", "run=earlier"]],
    ids=["resume", "init", "sample"],
)
def test_a_checkpoint_of_an_earlier_form_is_refused(gan: Gan, earlier: Path, words: Sequence[str]) -> None:
    answer = gan(*words)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].endswith(f"00000008.pt {SAID}")
    assert "Traceback" not in answer.err
    assert sorted(path.name for path in Path().iterdir()) == ["earlier"]


# -- several runs ------------------------------------------------------------------------------------------------------


def test_a_sweep_over_seeds(gan: Gan) -> None:
    answer = gan("train", "-m", *TRAIN[1:], *QUIET, "seed=1,2", "sweep_dir=all")
    assert answer.code == 0, answer.err
    assert "ranked by make_P, lower is better" in answer.out
    found = sorted(path.name for path in Path("all").iterdir() if not path.name.startswith("."))
    assert found == ["01-seed1", "02-seed2", "comparison.html", "ranking.csv", "ranking.png", "sweep.json"]
    assert gan(*TRAIN, *QUIET, "seed=2", "run_dir=alone").code == 0
    same(whole(Path("alone"), 8), whole(Path("all/02-seed2"), 8))
    first, second = (whole(Path("all", run), 8)["game"] for run in found[:2])
    assert not torch.equal(first["nets.Q.out.weight"], second["nets.Q.out.weight"])
    assert {"make_P", "judge_Q", "guess_R"} <= data_of(Path("all/comparison.html"))["figures"].keys()
    before = here()
    again = gan("train", "-m", "resume_sweep=all")
    assert again.code == 0
    assert "2 of 2 jobs done" in again.err
    assert {path for path in here() if path not in before} == set()
