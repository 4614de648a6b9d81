"""What a directory records is followed without asking this machine for its environment, or anything else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gancli.config.compose import compose
from gancli.config.resolved import pinned
from gancli.config.untrusted import Asks
from gancli.errors import ConfigError
from tests.conftest import TINY, Gan

COUNT = "batch_size='${oc.decode:${oc.env:COUNT}}'"
TOP = "# @package _global_\n"


def lab(text: str) -> Path:
    """A folder of group files with experiment=lab."""
    Path("lab/experiment").mkdir(parents=True, exist_ok=True)
    Path("lab/experiment/lab.yaml").write_text(TOP + text, encoding="utf-8")
    return Path("lab")


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANARY", "s3cr3t")
    monkeypatch.setenv("COUNT", "4")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("note: ${oc.env:CANARY}\n", "note"),
        ("note: a ${oc.env:CANARY} b\n", "note"),
        ("seed: ${oc.decode:${oc.env:CANARY}}\n", "seed"),
        ("model:\n  ch: ${oc.select:seed}\n", "model.ch"),
        ("observers:\n  scores:\n    options: [a, '${oc.env:CANARY}']\n", "observers.scores.options[1]"),
        ("defaults: [{override /loss: '${oc.env:CANARY}'}]\n", None),
        ("note: ${${model.name}:CANARY}\nmodel: {name: oc.env}\n", "note"),
        ("note: ${now:%Y}\n", "note"),
    ],
)
def test_recorded_files_ask_for_nothing(text: str, key: str | None) -> None:
    with pytest.raises(Asks) as caught:
        compose("train", ["experiment=lab"], [lab(text)])
    assert "s3cr3t" not in str(caught.value)
    assert str(caught.value).startswith(f"{key}: its" if key else "a recorded choice of a group uses a resolver")


def test_references_between_keys_are_followed() -> None:
    config = compose("train", ["experiment=lab"], [lab("note: seed ${seed}\nbatch_size: ${model.ch}\n")])
    assert config["note"] == "seed 0"
    assert config["batch_size"] == config["model"]["ch"]


def test_an_evaluation_within_a_run_asks_for_nothing_either() -> None:
    """A text that is a resolver only when it is composed once more."""
    with pytest.raises(ConfigError, match="uses a resolver"):
        compose("eval", ["extractor.weights='${oc.env:CANARY}'"])


@pytest.mark.parametrize("kind", ["pipe", "large", "dangling"])
def test_files_that_do_not_end_are_not_read(kind: str) -> None:
    path = lab("note: x\n") / "experiment" / "more.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.write_bytes(b"#" * (1 << 21))
    else:
        path.symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"lab/experiment/more\.yaml: not a regular file under 1 MiB"):
        compose("train", ["experiment=lab"], [Path("lab")])


def test_a_folder_that_cannot_be_read_to_its_end_is_not_followed() -> None:
    path = lab("note: x\n") / "experiment" / "more.yaml"
    path.symlink_to("x" * 300)  # which asking for raises OSError, as some of /proc does
    with pytest.raises(ConfigError, match=r"^--config-dir lab was not followed \(lab/experiment/more\.yaml: File name"):
        compose("train", ["experiment=lab"], [Path("lab")])


def test_what_resolvers_gave_is_pinned() -> None:
    folder = lab("note: it's ${oc.env:CANARY}\nmodel: {ch: '${oc.decode:${oc.env:COUNT}}'}\nseed: ${batch_size}\n")
    typed = ["experiment=lab", COUNT, "observers.scores.metrics=['${oc.env:CANARY}',kid]"]
    found = pinned(typed, [folder])
    assert sorted(found) == [
        "++batch_size=4",
        "++model.ch=4",
        "++note='it\\'s s3cr3t'",
        "++observers.scores.metrics=['s3cr3t','kid']",
    ]
    config = compose("train", [*typed, *found], [folder])
    assert config == compose("train", typed, [folder], typed=True)
    assert pinned(["model=mlp", "note=a: b"], []) == []


def test_an_own_run_resumes_without_its_environment(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--config-dir", str(lab("note: ${oc.env:CANARY}\n")), "experiment=lab", COUNT]
    assert gan("train", *TINY, "observers=none", *words, "steps=1", "run_dir=r").code == 0
    monkeypatch.delenv("CANARY")
    monkeypatch.delenv("COUNT")
    answer = gan("train", "resume=r", "steps=2")
    assert answer.code == 0, answer.err
    assert "note: s3cr3t\n" in Path("r/config.yaml").read_text(encoding="utf-8")


def rewrite(**values: Any) -> None:
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    about["overrides"] += values.pop("more", [])
    Path("r/run.json").write_text(json.dumps(about | values), encoding="utf-8")


def test_a_recorded_address_is_asked_for_again(gan: Gan) -> None:
    assert gan("train", *TINY, "observers=none", "steps=1", "run_dir=r").code == 0
    rewrite(more=["logger=mlflow", "observers.logger.uri=http://localhost:9"])
    answer = gan("train", "resume=r", "steps=2")
    assert answer.code == 2
    assert answer.err == (
        "gan: observers.logger.uri=http://localhost:9 comes from the recorded run, and data would be sent there: type"
        " observers.logger.uri= again, or observers.logger=null\n"
    )
    assert gan("train", "resume=r", "steps=2", "observers.logger=null").code == 0


EVIL = """# @package observers
report: {_target_: gancli.observers.log.MLflow, experiment: gan, uri: "http://localhost:9"}
"""


def test_an_address_is_one_wherever_it_stands(gan: Gan) -> None:
    Path("conf/observers").mkdir(parents=True)
    Path("conf/observers/mine.yaml").write_text(EVIL, encoding="utf-8")
    quiet = [word for word in TINY if not word.startswith("observers.")]
    assert gan("train", *quiet, "observers=none", "steps=1", "run_dir=r").code == 0
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    kept = [word for word in about["overrides"] if word != "observers=none"]
    rewrite(overrides=[f"--config-dir={Path('conf').resolve()}", *kept, "observers=mine"])
    said = "observers.report.uri=http://localhost:9 comes from the recorded run, and data would be sent there"
    for more, code in (
        ([], 2),
        (["observers.report.experiment=http://localhost:9"], 2),
        (["observers.report.uri=http://localhost:9"], 0),
        (["observers.report=null"], 0),
    ):
        answer = gan("train", "--cfg", "job", "resume=r", "steps=2", *more)
        assert (answer.code, said in answer.err) == (code, code == 2), answer.err
