"""`gan train`: what a run directory holds, and that no stop changes where a run ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.compute.dist import World
from gancli.observers.checkpoints import Checkpoints
from gancli.observers.grid import Grid
from gancli.observers.observer import RunView, Say
from gancli.store import checkpoint
from gancli.store.files import write_json
from gancli.store.rundir import RunDir
from gancli.verbs.session import Session, _answer
from tests.conftest import TINY, Answer, Gan
from tests.test_engine import same

STATE = ("step", "seen", "positions", "game", "ema", "optimizers", "scalers", "data")
TIMES = ("seconds", "images_per_second")


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without its time fields."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def same_run(a: Path, b: Path, step: int) -> None:
    """Assert that two runs ended with the same bits and the same rows."""
    states = [checkpoint.read(RunDir(run).checkpoint(step)) for run in (a, b)]
    same({k: states[0][k] for k in STATE}, {k: states[1][k] for k in STATE})
    assert rows(a) == rows(b)


def test_a_run_directory_holds_what_it_says(trained: Path) -> None:
    about = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    assert about["status"] == "finished"
    assert about["step"] == 6
    assert about["parameters"] == {"G": 100 * 4 * 16 + 8 + 4 * 16, "D": 4 * 16 + 4 * 16}
    assert about["frozen"] == {}
    assert about["seed"] == 0
    assert about["device"] == "cpu"
    assert set(about["versions"]) >= {"python", "torch", "gancli"}
    assert about["data"]["rows"] == {"": 24}
    assert about["data"]["fields"]["x"] == {"kind": "image", "channels": 1, "height": 8, "width": 8}
    assert sorted(p.name for p in trained.iterdir()) == [
        "checkpoints", "config.yaml", "log.txt", "metrics.jsonl", "run.json", "samples",
    ]  # fmt: skip
    steps = ["00000000", "00000002", "00000004", "00000006"]
    assert sorted(p.stem for p in (trained / "samples").iterdir()) == steps
    assert sorted({p.stem for p in (trained / "checkpoints").iterdir()}) == steps
    assert [row["step"] for row in rows(trained)] == [1, 2, 3, 4, 5, 6]
    assert [row["seen"] for row in rows(trained)] == [4, 8, 12, 16, 20, 24]
    of_players = {f"{name}_{player}" for name in ("lr", "grad_norm", "weight_norm") for player in "GD"}
    assert set(rows(trained)[0]) == {"step", "seen", "loss_D", "loss_G", "D_real", "D_fake"} | of_players
    assert "finished at step 6" in (trained / "log.txt").read_text(encoding="utf-8")
    state = checkpoint.read(trained / "checkpoints" / "00000006.pt")
    assert state["step"] == 6
    assert state["config"]["model"]["name"] == "dcgan"
    with Image.open(trained / "samples" / "00000006.png") as picture:
        assert picture.size == (2 * 66 + 2, 2 * 66 + 2)


def test_zero_steps_build_count_and_stop(gan: Gan) -> None:
    assert gan("train", *TINY, "steps=0", "run_dir=r").code == 0
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert (about["status"], about["step"]) == ("finished", 0)
    assert about["parameters"]["G"] > 0
    assert not list(Path("r").glob("samples/*"))  # a network that is only counted may be too large to draw
    assert Path("r/checkpoints/00000000.pt").exists()


def test_runs_go_to_outputs_by_date_model_and_data(gan: Gan) -> None:
    assert gan("train", *TINY, "steps=1").code == 0
    (run,) = Path("outputs/train").iterdir()
    assert run.name.endswith("-dcgan-random")
    assert len(run.name.split("-dcgan")[0]) == len("2026-01-01_00-00-00")
    assert sorted(p.name for p in Path().iterdir()) == ["outputs"]


@pytest.mark.parametrize("first", [1, 3])
def test_stop_and_resume_ends_with_the_same_bits(gan: Gan, trained: Path, first: int) -> None:
    keys = ["observers.checkpoints.every=2", "observers.grid.every=2", "observers.metrics.every=1"]
    assert gan("train", *TINY, *keys, f"steps={first}", "run_dir=r").code == 0
    answer = gan("train", "resume=r", "steps=6")
    assert answer.code == 0
    assert f"resumed at step {first}" in answer.err
    same_run(trained, Path("r"), 6)


def test_resume_goes_back_past_a_damaged_checkpoint(gan: Gan, trained: Path) -> None:
    keys = ["observers.checkpoints.every=2", "observers.grid.every=2", "observers.metrics.every=1"]
    assert gan("train", *TINY, *keys, "steps=4", "run_dir=r").code == 0
    last = Path("r/checkpoints/00000004.pt")
    last.write_bytes(last.read_bytes()[:1000])
    answer = gan("train", "resume=r", "steps=6")
    assert answer.code == 0
    assert "resumed at step 2" in answer.err
    assert "skipped" in Path("r/log.txt").read_text(encoding="utf-8")
    same_run(trained, Path("r"), 6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_leave_cleanly(gan: Gan, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def soon() -> None:  # at most 20 s
        for _ in range(4000):
            if Path("r/metrics.jsonl").exists():
                os.kill(os.getpid(), number)
                break
            time.sleep(0.005)

    sender = threading.Thread(target=soon)
    sender.start()
    answer = gan("train", *TINY, "steps=1000000", "observers.metrics.every=1", "run_dir=r")
    sender.join()
    assert answer.code == 0
    assert "resume=r" in answer.err
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert about["status"] == "stopped"
    assert 0 < about["step"] < 1_000_000
    assert Path(f"r/checkpoints/{about['step']:08d}.pt").exists()
    assert Path(f"r/samples/{about['step']:08d}.png").exists()
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so(gan: Gan) -> None:
    """As under nohup, when the terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    found = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Grid, "on_step", lambda *_: found.append(os.kill(os.getpid(), signal.SIGHUP)) or iter(()))
            assert gan("train", *TINY, "steps=3", "run_dir=r").code == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(found) == 4
    assert RunDir(Path("r")).about()["status"] == "finished"


def test_splitting_batch_norm_is_said_once(gan: Gan) -> None:
    answer = gan("train", *TINY, "micro_batch=2", "steps=2", "run_dir=r")
    assert answer.code == 0
    assert answer.err.count("micro_batch=2: batch norm") == 1
    assert "batch norm" not in gan("train", *TINY, "steps=1", "run_dir=s").err


def test_max_time_stops(gan: Gan) -> None:
    assert gan("train", *TINY, "steps=1000000", "max_time=0.005", "run_dir=r").code == 0
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert about["status"] == "stopped"
    assert "max_time" in about["reason"]


def test_a_diverged_run_fails_in_words_and_keeps_its_last_good_checkpoint(gan: Gan) -> None:
    answer = gan("train", *TINY, "optimizer=sgd", "optimizer.D.lr=1e30", "optimizer.G.lr=1e30", "loss=lsgan",
                 "steps=50", "observers.metrics.every=1", "run_dir=r")  # fmt: skip
    assert answer.code == 2
    assert "is not finite at step" in answer.err.splitlines()[-1]
    assert "00000000.pt" in answer.err.splitlines()[-1]
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert about["status"] == "failed"
    assert "diverged" in about["reason"]
    assert all(torch.isfinite(v).all() for v in checkpoint.read(Path("r/checkpoints/00000000.pt"))["game"].values())


def test_weights_that_are_no_numbers_are_never_saved(gan: Gan) -> None:
    answer = gan("train", *TINY, "optimizer=sgd", "optimizer.D.lr=1e30", "optimizer.G.lr=1e30", "loss=lsgan", "steps=9",
                 "observers.metrics=null", "observers.checkpoints.every=1", "run_dir=r")  # fmt: skip
    assert answer.code == 2
    assert "the run diverged" in answer.err
    for path in RunDir(Path("r")).listing().values():
        assert all(torch.isfinite(v).all() for v in checkpoint.read(path)["game"].values())


def test_first_and_last_checkpoint_stand_without_an_observer(gan: Gan) -> None:
    assert gan("train", *TINY, "observers.checkpoints=null", "steps=3", "run_dir=r").code == 0
    assert list(RunDir(Path("r")).listing()) == [0, 3]


def test_going_back_to_an_older_checkpoint_forgets_what_came_after(gan: Gan, trained: Path) -> None:
    keys = ["observers.checkpoints.every=2", "observers.grid.every=2", "observers.metrics.every=1"]
    assert gan("train", *TINY, *keys, "steps=6", "run_dir=r").code == 0
    assert gan("train", "resume=r/checkpoints/00000002.pt", "steps=4").code == 0
    assert list(RunDir(Path("r")).listing()) == [0, 2, 4]
    assert sorted(p.stem for p in Path("r/samples").iterdir()) == ["00000000", "00000002", "00000004"]
    assert gan("train", "resume=r", "steps=6").code == 0
    same_run(trained, Path("r"), 6)


def test_seconds_add_up_over_resumes(gan: Gan) -> None:
    assert gan("train", *TINY, "observers.metrics.every=1", "steps=3", "run_dir=r").code == 0
    assert gan("train", "resume=r", "steps=6").code == 0
    seconds = [json.loads(line)["seconds"] for line in Path("r/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert seconds == sorted(seconds)
    assert seconds[3] >= seconds[2]


def test_texts_survive_being_recorded(gan: Gan) -> None:
    assert gan("train", *TINY, "steps=1", "note=it's ${seed} & more", "run_dir=it's").code == 0
    assert json.loads(Path("it's/run.json").read_text(encoding="utf-8"))["note"] == "it's 0 & more"
    assert gan("train", "resume=it's", "steps=2").code == 0


def test_a_failed_job_does_not_end_a_sweep(gan: Gan) -> None:
    answer = gan("train", "-m", *TINY, "loss=lsgan", "optimizer=sgd", "optimizer.D.lr=1e30,0.01", "steps=4",
                 "observers.metrics.every=1")  # fmt: skip
    assert answer.code == 2
    assert "1 of 2 jobs failed: [" in answer.err.splitlines()[-1]
    states = sorted(
        json.loads(p.read_text(encoding="utf-8"))["status"] for p in Path("outputs/sweeps").glob("*/*/run.json")
    )
    assert states == ["failed", "finished"]


def test_init_takes_weights_and_nothing_else(gan: Gan, trained: Path) -> None:
    assert gan("train", *TINY, "steps=0", f"init={trained}", "run_dir=r").code == 0
    old, new = checkpoint.read(RunDir(trained).checkpoint(6)), checkpoint.read(Path("r/checkpoints/00000000.pt"))
    same(old["game"], new["game"])
    assert new["step"] == new["seen"] == 0
    assert new["optimizers"]["G"]["state"] == {}


def test_observers_leave_training_alone(gan: Gan, trained: Path) -> None:
    assert gan("train", *TINY, "observers=none", "steps=6", "run_dir=r").code == 0
    old, new = checkpoint.read(RunDir(trained).checkpoint(6)), checkpoint.read(Path("r/checkpoints/00000006.pt"))
    same({k: old[k] for k in STATE}, {k: new[k] for k in STATE})


def test_only_the_newest_the_first_and_the_best_are_kept(gan: Gan) -> None:
    keys = ["observers.checkpoints.every=1", "observers.checkpoints.keep=2", "steps=5", "run_dir=r"]
    assert gan("train", *TINY, *keys).code == 0
    assert list(RunDir(Path("r")).listing()) == [0, 4, 5]
    assert Checkpoints(every=1, keep=None).keep is None


def test_the_estimate_stands_before_the_first_step(gan: Gan) -> None:
    shown = [w for w in TINY if not w.startswith("observers.progress")]
    answer = gan("train", *shown, "steps=3", "run_dir=r")
    lines = [line for line in answer.err.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 0/3 · ")
    assert "images/s · about 0:00 left" in lines[0]
    assert lines[-1].startswith("step 3/3 · D ")


def test_a_sweep_makes_a_run_of_every_choice(gan: Gan) -> None:
    answer = gan("train", "-m", *TINY, "loss=ns,hinge", "seed=1,2", "steps=1")
    assert answer.code == 0
    runs = [json.loads(p.read_text(encoding="utf-8")) for p in Path("outputs/sweeps").glob("*/*/run.json")]
    assert sorted((r["seed"], [o for o in r["overrides"] if o.startswith("loss=")]) for r in runs) == [
        (s, [f"loss={k}"]) for s in (1, 2) for k in ("hinge", "ns")
    ]
    assert {r["status"] for r in runs} == {"finished"}


def test_jobs_of_a_sweep_do_not_leak_into_each_other(gan: Gan) -> None:
    assert gan("train", "-m", *TINY, "seed=5,6", "steps=2").code == 0
    assert gan("train", *TINY, "seed=6", "steps=2", "run_dir=alone").code == 0
    runs = [p.parent for p in Path("outputs/sweeps").glob("*/*/run.json")]
    (second,) = [run for run in runs if json.loads((run / "run.json").read_text(encoding="utf-8"))["seed"] == 6]
    same_run(second, Path("alone"), 2)


def test_cfg_shows_the_job_and_writes_nothing(gan: Gan) -> None:
    answer: Answer = gan("train", "--cfg", "job", "loss=hinge", "note=Food & Drink")
    assert answer.code == 0
    assert "gancli.losses.adversarial.Hinge" in answer.out
    assert "note: Food & Drink" in answer.out
    assert list(Path().iterdir()) == []


def test_other_data_are_refused_with_the_difference(gan: Gan) -> None:
    np.savez("data.npz", images=np.zeros((24, 8, 8), np.uint8))
    keys = [w for w in TINY if not w.startswith("dataset")] + ["dataset=npz", "dataset.root=data.npz"]
    assert gan("train", *keys, "steps=1", "run_dir=r").code == 0
    np.savez("data.npz", images=np.zeros((48, 8, 8), np.uint8), labels=np.arange(48) % 3)
    answer = gan("train", "resume=r", "steps=2")
    assert answer.code == 2
    assert "rows 24 -> 48; y none -> labels of 3 classes" in answer.err


def test_alarms_go_on_counting(gan: Gan) -> None:
    keys = ["observers.alarms.every=1", "observers.alarms.patience=3", "observers.metrics.every=1",
            "observers.checkpoints.every=1"]  # fmt: skip
    assert gan("train", *TINY, *keys, "steps=4", "run_dir=r").code == 0
    assert gan("train", "resume=r", "steps=8").code == 0
    assert gan("train", *TINY, *keys, "steps=8", "run_dir=s").code == 0
    same_run(Path("r"), Path("s"), 8)
    remembered = [checkpoint.read(Path(f"{run}/checkpoints/00000008.pt"))["observers"] for run in "rs"]
    assert remembered[0] == remembered[1]
    assert remembered[0]["alarms"]["best"]["diversity"] > 0


def test_the_best_by_a_metric_is_kept(gan: Gan) -> None:
    keys = ["observers.checkpoints.every=1", "observers.checkpoints.keep=1", "observers.checkpoints.best=recall"]
    assert gan("train", *TINY, *keys, "steps=2", "run_dir=r").code == 0
    assert list(RunDir(Path("r")).listing()) == [0, 2]
    write_json(Path("r/eval/a.json"), {"recall": 0.5, "fid": 9.0, "step": 2, "protocol_id": "a"})
    assert gan("train", "resume=r", "steps=5").code == 0
    assert list(RunDir(Path("r")).listing()) == [0, 2, 5]
    assert gan("sample", "run=r", "checkpoint=best", "n=2").code == 0


def test_a_damaged_newest_checkpoint_is_passed_over_aloud(gan: Gan) -> None:
    assert gan("train", *TINY, "observers.checkpoints.every=2", "steps=4", "run_dir=r").code == 0
    Path("r/checkpoints/00000004.pt").write_bytes(b"")
    answer = gan("train", "resume=r", "steps=6")
    assert answer.code == 0
    assert answer.err.splitlines()[0].startswith("skipped: r/checkpoints/00000004.pt is ")


def test_a_run_that_never_began_leaves_its_place_free(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", fail)
        assert gan("train", *TINY, "steps=1", "run_dir=r").code == 130
    assert not Path("r/run.json").exists()
    assert gan("train", *TINY, "steps=1", "run_dir=r").code == 0


def test_an_observer_says_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(tmp_path)
    for world, lines in ((World(0, 2), 1), (World(1, 2), 0)):
        session = SimpleNamespace(run=run, world=world)
        _answer(cast(Session, session), cast(RunView, None), Say("kid 0.025 of 1,000 samples"))
        assert capsys.readouterr().err.splitlines() == ["kid 0.025 of 1,000 samples"] * lines
    assert run.log_file.read_text(encoding="utf-8").endswith(" kid 0.025 of 1,000 samples\n")
