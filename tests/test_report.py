"""report.html of one run, and a page of several: what stands in them, and how large they may grow."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from gancli.draw.pictures import save_png
from gancli.report import figures, page
from gancli.report.__main__ import main
from gancli.report.record import read
from gancli.report.sheets import Sheets
from tests.conftest import TINY, Gan
from tests.test_train import same_run

Capsys = pytest.CaptureFixture[str]
SEEN = [word for word in TINY if word != "observers.report=null"]


def data_of(path: Path) -> dict[str, dict[str, object]]:
    """What the page's script reads."""
    found = re.search(
        r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    data: dict[str, dict[str, object]] = json.loads(found[1])
    return data


def test_a_run_leaves_a_page_of_itself(gan: Gan) -> None:
    keys = ["steps=6", "observers.grid.every=2", "observers.metrics.every=1", "note=a<b>"]
    assert gan("train", *SEEN, "loss=hinge", "optimizer.G.lr=1e-3", *keys, "run_dir=r").code == 0
    text, data = Path("r/report.html").read_text(encoding="utf-8"), data_of(Path("r/report.html"))
    assert {"losses", "verdicts", "rates", "gradients", "weights", "speed"} <= data["figures"].keys()
    assert [step for step, _ in data["sheets"]["r"]] == [0, 2, 4, 6]
    curves = {c["name"]: c["y"] for c in data["figures"]["losses"]["data"]}
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert curves["loss_D"] == [row["loss_D"] for row in rows]
    assert "finished" in text
    assert "a&lt;b&gt;" in text
    assert "<code>optimizer.G.lr</code></td><td><code>0.0002</code></td><td><code>0.001</code>" in text
    assert "gan train model=dcgan" in text
    assert "http-equiv" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_the_page_names_the_data(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    assert ("data", "random: 24 items of 1×8×8") in page._facts(read(run))
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps(about | {"data": {"name": "random"}}), encoding="utf-8")
    assert ("data", "unknown") in page._facts(read(run))


def test_the_page_of_a_running_run_loads_itself_anew(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "r")
    about = json.loads((tmp_path / "r" / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "r" / "run.json").write_text(json.dumps(about | {"status": "running"}))
    with (tmp_path / "r" / "metrics.jsonl").open("a") as rows:
        rows.write('{"step": 7, "loss_')  # not finished yet
    text = page.write(tmp_path / "r").read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh" content="30">' in text


def test_norms_and_rates_stand_in_the_rows(trained: Path) -> None:
    rows = read(trained).rows
    assert len(rows) == 6
    for row in rows:
        assert row["lr_G"] == 2e-4
        assert row["grad_norm_D"] > 0
        assert row["grad_norm_G"] > 0
        assert row["weight_norm_D"] > 0


def test_a_page_stays_small(trained: Path, tmp_path: Path) -> None:
    """A run of 100,000 steps, a row each ten, two hundred sheets that hardly compress."""
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    noise = np.random.default_rng(0)
    for step in range(0, 100_001, 2000):
        save_png(run / "samples" / f"{step:08d}.png", noise.integers(0, 256, (530, 530, 3), dtype=np.uint8))
    one = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    rows = (json.dumps(one | {"step": step, "loss_D": noise.normal()}) for step in range(10, 100_001, 10))
    (run / "metrics.jsonl").write_text("\n".join(rows))
    began = time.perf_counter()
    target = page.write(run)
    assert target.stat().st_size < 15e6
    assert time.perf_counter() - began < 60
    data = data_of(target)
    steps = [step for step, _ in data["sheets"]["r"]]
    assert steps[0] == 0
    assert steps[-1] == 100_000
    assert sum(len(uri) for _, uri in data["sheets"]["r"]) <= Sheets().budget
    assert len(data["figures"]["losses"]["data"][0]["x"]) <= figures.MOST


def test_several_runs_stand_beside_each_other(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, fid in (("a", 9.5), ("b", 7.25)):
        shutil.copytree(trained, tmp_path / name)
        (tmp_path / name / "eval").mkdir(exist_ok=True)
        result = {"fid": fid, "step": 6, "protocol_id": "p", "protocol": {}}
        (tmp_path / name / "eval" / "00000006-p.json").write_text(json.dumps(result))
    config = tmp_path / "b" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("seed: 0", "seed: 1"))
    text = page.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "both.html").read_text(encoding="utf-8")
    data = data_of(tmp_path / "both.html")
    assert [c["name"] for c in data["figures"]["score-fid"]["data"]] == ["a", "b"]
    assert "<th><code>seed</code></th>" in text
    assert "9.5" in text
    assert "7.25" in text
    assert data["sheets"].keys() == {"a", "b"}


def test_runs_of_one_name_are_told_apart(trained: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "P" / "0", tmp_path / "Q" / "0", tmp_path / "Q" / "1"]
    for k, path in enumerate(paths):
        shutil.copytree(trained, path)
        config = path / "config.yaml"
        config.write_text(config.read_text(encoding="utf-8").replace("seed: 0", f"seed: {k}"))
    text = page.compare([*paths, paths[0]], tmp_path / "all.html").read_text(encoding="utf-8")
    data = data_of(tmp_path / "all.html")
    assert list(data["sheets"]) == ["P/0", "Q/0", "1"]
    assert [c["name"] for c in data["figures"]["loss_D"]["data"]] == ["P/0", "Q/0", "1"]
    assert [text.count(f"<tr><td>{name}</td>") for name in data["sheets"]] == [1, 1, 1]
    assert page.varied([read(path, str(k)) for k, path in enumerate(paths)])["2"]["seed"] == "2"


def test_the_module_makes_pages(trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "r")
    assert main(["r"]) == 0
    assert capsys.readouterr().out.strip() == "r/report.html"
    assert main(["r", "r"]) == 0
    assert Path("comparison.html").exists()
    assert main(["nowhere"]) == 2
    assert capsys.readouterr().err.startswith("gan: run=nowhere: no such run")


def test_the_same_run_again_can_be_typed(gan: Gan) -> None:
    keys = [*TINY, "observers.metrics.every=1", "note=two words"]
    assert gan("train", *keys, "steps=1", "run_dir=A").code == 0
    assert gan("train", *keys, "steps=2", "init=A", "run_dir=B").code == 0
    assert gan("train", "resume=B", "steps=3").code == 0
    words = shlex.split(read(Path("B")).command())
    assert words[:3] == ["gan", "train", "model=dcgan"]
    assert [w for w in words if w.startswith(("run_dir=", "resume=", "init=", "steps="))] == [
        "steps=3",
        f"init='{Path('A').absolute()}'",
    ]
    assert gan(*words[1:], "run_dir=C").code == 0
    same_run(Path("B"), Path("C"), 3)


def test_alarms_and_dead_runs_are_on_the_page(gan: Gan) -> None:
    keys = ["optimizer=sgd", "optimizer.G.lr=1e30", "steps=40", "observers.metrics.every=1"]
    answer = gan("train", *SEEN, *keys, "run_dir=r")
    assert answer.code == 2
    assert "failed" in Path("r/report.html").read_text(encoding="utf-8")
    record = read(Path("r"))
    assert record.about["status"] == "failed"
