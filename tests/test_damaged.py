"""Run directories with something wrong in them are answered in one line, or work without it; nothing hangs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gancli.errors import RunError
from gancli.store.files import write_json
from gancli.store.rundir import RunDir
from tests.conftest import Gan

DIGITS = "7" * 400


@pytest.fixture
def run(tmp_path: Path, trained: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


JSONS: dict[str, bytes] = {
    "empty": b"", "cut": b'{"status": "fin', "bytes": b'{"note": "caf\xe9"}', "list": b"[1, 2]", "text": b'"x"',
    "nested": b"[" * 30_000, "digits": b'{"step": ' + b"7" * 9000 + b"}", "mark": b"\xef\xbb\xbf{}",
}  # fmt: skip


@pytest.mark.parametrize("content", JSONS.values(), ids=JSONS)
def test_a_damaged_run_json_is_named(gan: Gan, run: Path, content: bytes) -> None:
    (run / "run.json").write_bytes(content)
    answer = gan("train", "resume=run", "steps=8")
    assert (answer.code, answer.err.count("\n"), "run.json" in answer.err) == (2, 1, True)


VALUES: dict[str, object] = {
    "overrides": ["steps=3", 4], "status": ["running"], "step": float("nan"), "seed": float("inf"),
    "parameters": {"G": "x"}, "notes": "none", "job": 3, "init": {"a": 1}, "data": [], "memory": True, "reason": 5,
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_another_kind_is_named(run: Path, name: str) -> None:
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    write_json(run / "run.json", about | {name: VALUES[name]})
    with pytest.raises(RunError, match=rf"run\.json is damaged: its {name} has a wrong type"):
        RunDir(run).about()
    write_json(run / "run.json", about | {name: None, "more": VALUES})
    assert RunDir(run).about()["more"]["notes"] == "none"


YAMLS: dict[str, str] = {
    "empty": "", "tab": "\t", "list": "- 1", "sexagesimal": "seed: 1:30\nobservers: 2001-01-01", "merge": "<<: 3",
    "equals": "a: =", "binary": "a: !!binary x", "alias": "a: &b [1]\nc: *b", "digits": f"seed: {DIGITS * 20}",
    "deep": "[" * 900, "numbers": "1: 2", "null": "null: 3", "broken": "a: '", "asks": "seed: ${oc.env:HOME}",
}  # fmt: skip


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_a_damaged_config_is_named_or_is_not_the_runs(gan: Gan, run: Path, text: str) -> None:
    (run / "config.yaml").write_text(text, encoding="utf-8")
    answer = gan("train", "resume=run", "steps=8")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "config.yaml" in answer.err or "the configuration differs from the run's" in answer.err
    assert os.environ["HOME"] not in answer.err


def test_lines_that_are_no_rows_are_left_out_and_counted(gan: Gan, run: Path) -> None:
    rows = (run / "metrics.jsonl").read_bytes()
    odd = b'\xff\xfe\n{"step": "4"}\n{"step": NaN}\n[[1]]\n{"step"\n' + b"[" * 9000 + b'\n{"step": 1e999}\n\n'
    (run / "metrics.jsonl").write_bytes(odd + rows + b'{"st')
    answer = gan("train", "resume=run", "steps=7", "observers.metrics.every=1")
    assert answer.code == 0
    assert "8 damaged lines of metrics.jsonl were removed" in answer.err
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [step for k, step in enumerate(steps) if step not in steps[:k]] == [1, 2, 3, 4, 5, 6, 7]


FILES = [
    "run.json",
    "config.yaml",
    "metrics.jsonl",
    "log.txt",
    ".lock",
    "checkpoints/00000006.pt",
    "checkpoints/00000006.json",
]


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling"])
@pytest.mark.parametrize("name", [*FILES, "samples", "eval", "checkpoints"])
def test_what_stands_in_a_files_place_is_no_hang_and_no_crash(gan: Gan, run: Path, name: str, kind: str) -> None:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
        (path / "file").write_text("x")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    for words in (["train", "resume=run", "steps=7"], ["sample", "run=run", "n=1", "run_dir=drawn"]):
        answer = gan(*words)
        assert answer.code in (0, 2)
        assert answer.code == 0 or len([line for line in answer.err.splitlines() if line.startswith("gan: ")]) == 1
        assert "unexpected error" not in answer.err


def _signed(run: Path, state: dict[str, Any]) -> None:
    """A checkpoint with other content, whose check sum is right."""
    path = run / "checkpoints" / "00000006.pt"
    torch.save(state, path)
    beside = path.with_suffix(".json")
    write_json(
        beside,
        json.loads(beside.read_text(encoding="utf-8")) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )


def _change(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        node: Any = state
        for key in keys[:-1]:
            node = node[key]
        if to is KeyError:
            del node[keys[-1]]
        else:
            node[keys[-1]] = to(node[keys[-1]]) if callable(to) else to

    return change


ADAM = ("optimizers", "G")
CHANGES = {
    "a rate that is a text": _change(*ADAM, "param_groups", 0, "lr", to="x"),
    "no rate": _change(*ADAM, "param_groups", 0, "lr", to=KeyError),
    "an endless rate": _change(*ADAM, "param_groups", 0, "lr", to=float("inf")),
    "betas of one": _change(*ADAM, "param_groups", 0, "betas", to=[0.5]),
    "groups that are none": _change(*ADAM, "param_groups", to={}),
    "a memory of another shape": _change(*ADAM, "state", 0, "exp_avg", to=torch.zeros(1)),
    "a memory that is missing": _change(*ADAM, "state", 0, "exp_avg_sq", to=KeyError),
    "a memory of no parameter": _change(*ADAM, "state", to=lambda state: state | {999: state[0]}),
    "a memory that is a number": _change(*ADAM, "state", 0, "exp_avg", to=3),
    "no optimizer": _change("optimizers", "D", to=KeyError),
    "complex weights": _change("game", to=lambda game: {k: t.to(torch.complex64) for k, t in game.items()}),
    "sparse weights": _change("game", to=lambda game: {k: t.float().to_sparse() for k, t in game.items()}),
    "a time that is no number": _change("seconds", to=float("nan")),
    "a position that is missing": _change("positions", to={}),
    "strikes that are texts": _change("observers", "alarms", to={"strikes": {"x": "y"}, "best": {}}),
    "strikes without end": _change("observers", "alarms", to={"strikes": {"x": float("inf")}, "best": {}}),
    "columns that are numbers": _change("data", "fields", to=3),
    "classes that are numbers": _change("data", "fields", "y", "names", to=3),
    "images of a billion pixels a side": _change("data", "fields", "x", "height", to=10**9),
    "a data set without rows": _change("data", "rows", "", to=0),
    "an average of another shape": _change("ema", "G", to=lambda net: {k: t.unsqueeze(0) for k, t in net.items()}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_the_run_could_not_have_written_is_refused(gan: Gan, run: Path, change: Any) -> None:
    state = torch.load(run / "checkpoints" / "00000006.pt", weights_only=True)
    change(state)
    _signed(run, state)
    answer = gan("train", "resume=run", "steps=8")
    last = answer.err.splitlines()[-1]
    assert answer.code == 2
    assert last.startswith(("gan: resume=run: ", "gan: run/checkpoints/00000006.pt "))
    assert "unexpected error" not in last


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD", "Adagrad", "Adamax"])
def test_every_optimizer_goes_on_from_its_own_memory(name: str) -> None:
    from gancli.store import compatible
    from gancli.train.players import Player

    def stepped() -> torch.optim.Optimizer:
        weights = torch.nn.Parameter(torch.ones(3))
        made: torch.optim.Optimizer = getattr(torch.optim, name)([weights], lr=0.1)
        weights.grad = torch.ones(3)
        made.step()
        return made

    first = stepped()
    state, player = first.state_dict(), Player(first.param_groups[0]["params"], stepped(), [], [], None)
    compatible._optimizer(state, player, "G")
    assert state["param_groups"] == first.state_dict()["param_groups"]  # looked at, and not changed
    state["param_groups"][0]["params"] = [7]
    with pytest.raises(ValueError, match="has other parameters than this model's"):
        compatible._optimizer(state, player, "G")


def test_a_film_leaves_out_what_is_no_picture(gan: Gan, tmp_path: Path) -> None:
    from PIL import Image

    keys = ["model=mlp", "model.hidden=[4]", "dataset=ring", "dataset.n=30", "batch_size=4", "observers.plane.every=1"]
    keys += ["observers.progress=null", "observers.report=null", "device=cpu"]
    assert gan("train", *keys, "steps=2", "run_dir=r").code == 0
    samples = tmp_path / "r" / "samples"
    (samples / "00000000.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    os.mkfifo(samples / "00000001b.png")
    Image.new("L", (3, 3)).save(samples / "0.png")
    assert gan("train", "resume=r", "steps=3").code == 0
    with Image.open(samples / "training.gif") as film:
        assert getattr(film, "n_frames", 1) == 3
