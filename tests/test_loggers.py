"""Loggers: each is told what the observers found, at the steps at which they found it."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, Gan

KEYS = ["steps=4", "observers.grid.every=2", "observers.metrics.every=2", "run_dir=r"]


def test_tensorboard_holds_every_row_and_sheet_over_a_resume(gan: Gan) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert gan("train", *TINY, *KEYS, "logger=tensorboard").code == 0
    assert gan("train", "resume=r", "steps=6").code == 0
    found = EventAccumulator("r/tensorboard", size_guidance={"images": 0}).Reload()
    assert [e.step for e in found.Scalars("loss_D")] == [2, 4, 6]
    assert [e.step for e in found.Scalars("lr_G")] == [2, 4, 6]
    assert [e.step for e in found.Images("samples")] == [0, 2, 4, 6]


def test_a_missing_logger_is_named(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    answer = gan("train", *TINY, *KEYS, "logger=wandb")
    assert answer.code == 2
    assert "pip install 'gancli[wandb]'" in answer.err
    assert not Path("r").exists()


def test_wandb_is_told_and_taken_up_again(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in with the service's interface, since the service is not at hand."""
    began: list[dict[str, Any]] = []
    told: list[tuple[int, set[str]]] = []

    class Run:
        id = "abc"

        def log(self, values: dict[str, Any], step: int) -> None:
            told.append((step, set(values)))

        def alert(self, title: str, text: str) -> None:
            raise AssertionError(text)

        def finish(self) -> None:
            told.append((-1, set()))

    def init(**keys: Any) -> Run:
        began.append(keys)
        return Run()

    stand_in = types.ModuleType("wandb")
    stand_in.init = init  # type: ignore[attr-defined]
    stand_in.Image = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    assert gan("train", *TINY, *KEYS, "logger=wandb", "observers.logger.project=mine").code == 0
    assert gan("train", "resume=r", "steps=6").code == 0
    assert began[0]["project"] == "mine"
    assert began[0]["name"] == "r"
    assert began[0]["config"]["batch_size"] == 4
    assert "id" not in began[0]
    assert began[1]["id"] == "abc"
    assert [step for step, names in told if "loss_D" in names] == [2, 4, 6]
    assert [step for step, names in told if "samples" in names] == [0, 2, 4, 6]


def test_mlflow_is_told(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in with the client's interface; `pip install mlflow` is no part of the tests."""
    calls: list[tuple[str, Any]] = []

    class Client:
        def __init__(self, uri: str):
            calls.append(("uri", uri))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return "1"

        def create_run(self, number: str, run_name: str) -> Any:
            calls.append(("run", run_name))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="x"))

        def log_param(self, run: str, name: str, value: str) -> None:
            calls.append(("param", name))

        def log_batch(self, run: str, metrics: list[Any]) -> None:
            calls.append(("batch", {m.key: m.step for m in metrics}))

        def log_image(self, run: str, image: Any, artifact_file: str) -> None:
            calls.append(("image", artifact_file))

        def set_terminated(self, run: str) -> None:
            calls.append(("end", run))

    class Entity:
        def __init__(self, key: str, value: float, timestamp: int, step: int):
            self.key, self.value, self.timestamp, self.step = key, value, timestamp, step

    stand_in = types.ModuleType("mlflow")
    stand_in.MlflowClient = Client  # type: ignore[attr-defined]
    stand_in.entities = types.SimpleNamespace(Metric=Entity)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    assert gan("train", *TINY, *KEYS, "logger=mlflow").code == 0
    assert ("uri", "sqlite:///mlruns.db") in calls
    assert [what["loss_D"] for name, what in calls if name == "batch" and "loss_D" in what] == [2, 4]
    assert ("image", "samples-00000002.png") in calls
    assert calls[-1] == ("end", "x")
