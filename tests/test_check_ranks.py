"""Two ranks move as one: the same weights as one rank with the same global batch, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from gancli.compute.dist import World
from gancli.games.game import Game
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.games.stages import Stage
from gancli.losses.adversarial import Hinge, RelativisticAverage
from gancli.losses.outputs import FeatureMatching, LeCam, PullingAway
from gancli.losses.penalties import R1, Dragan, WganGp
from gancli.nets.layers.minibatch import MinibatchDiscrimination
from gancli.nets.layers.norms import BatchNorm1d
from gancli.nets.mlp import Discriminator as Dense
from gancli.nets.verdict import Verdict
from gancli.train.engine import Engine
from gancli.train.rehearsal import Rehearsal
from tests import cycle, odd, tiny
from tests.conftest import TINY, Gan
from tests.cycle import CycleGame
from tests.odd import OddGame, Recurrent
from tests.test_train import rows, same_run

PENALTIES = {"wgan_gp": WganGp(), "r1": R1(every=2)}
PROJECTION = [
    "model=sngan", "model.ch=4", "model.conditioning=projection", "model.latent.dim=8", "dataset=random",
    "dataset.size=[3,16,16]", "dataset.classes=3", "dataset.n=24", "game.d_steps=2", "observers.progress=null",
    "observers.grid.n=4", "device=cpu", "model.ema.decay=0.5", "batch_size=5",
]  # fmt: skip


def normed() -> NoiseGame:
    """The tiny game with this project's batch norms in both networks."""
    game = tiny.game(d_norm=True, g_norm=True)
    for name in ("G", "D"):
        game.nets[name].norm = BatchNorm1d(16)
    return game


class CrowdedD(nn.Module):
    """Images, several at once, to logits [B]: a D that compares the images of a batch."""

    def __init__(self, pack: int = 1):
        super().__init__()
        self.dense = nn.Linear(64 * pack, 16)
        self.crowd = MinibatchDiscrimination(16, kernels=3)
        self.out = nn.Linear(19, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        hidden = torch.tanh(self.dense(x.flatten(1)))
        return Verdict(self.out(self.crowd(hidden)).squeeze(1), features=[hidden])


def crowded(pack: int = 1) -> NoiseGame:
    """A game whose D compares the images of a batch, and whose losses do, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        nets = {"G": tiny.TinyG(), "D": CrowdedD(pack)}
    penalties = {"fm": FeatureMatching(), "pt": PullingAway()}
    loss = RelativisticAverage() if pack == 1 else Hinge(flip=0.3)
    return NoiseGame(nets, loss, penalties, Latent(dim=4), pack=pack)


def noisy() -> NoiseGame:
    """A game whose D draws numbers of its own, for packs of two."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        D = Dense((2, 8, 8), hidden=(8, 8), dropout=0.5, input_dropout=0.2)
        nets = {"G": tiny.TinyG(), "D": D}
    return NoiseGame(nets, Hinge(), {"r1": R1()}, Latent(dim=4), pack=2)


class Staged(Recurrent):
    """With another batch and rate, and an optimizer anew, in its last stage."""

    batch = 12

    def stages(self) -> list[Stage]:
        last = Stage(name="adversarial", start=20, batch_size=self.batch - 2, reset=("P",), rates={"P": 0.5}, level=1)
        return [Stage(name="map", batch_size=self.batch), last]


GAMES: dict[str, Callable[[], Game]] = {
    "penalties": lambda: tiny.game(penalties=PENALTIES),
    "norms": normed,
    "average": lambda: tiny.game(RelativisticAverage(kind="hinge"), {"dragan": Dragan()}),
    "top": lambda: tiny.game(Hinge(top=0.4, flip=0.3)),
    "crowded": crowded,
    "packed": lambda: crowded(pack=2),
    "noise": noisy,
    "cycle": lambda: CycleGame(Hinge(noise=0.2, flip=0.3), {"r1": R1(), "lecam": LeCam(after=0)}),
    "odd": lambda: OddGame(gate=True, corrects=True),
    "recurrent": Recurrent,
    "staged": Staged,
}


def sizes(name: str) -> tuple[int, int]:
    """An even deal, and an uneven one: rows of 3 and 4, packs of 2 and 3; the odd game plays halves."""
    return {"packed": (12, 10), "noise": (12, 10), "odd": (12, 10), "recurrent": (12, 10), "staged": (12, 10)}.get(
        name, (12, 7)
    )


def trained(name: str, world: World, batch_size: int) -> tuple[Engine, list[dict[str, Tensor]]]:
    """Four steps of a game, in float64."""
    game = GAMES[name]()
    if isinstance(game, OddGame):
        if isinstance(game, Staged):
            game.batch = batch_size
        engine = odd.engine(game, batch_size=None if isinstance(game, Staged) else batch_size, world=world)
        engine.seen = 8  # where all moves are played: what is carried goes through a rehearsal, too
        assert Rehearsal(engine).footprint() is not None
        engine.seen = 0
    elif isinstance(game, CycleGame):
        engine = cycle.engine(game, batch_size=batch_size, world=world)
    else:
        assert isinstance(game, NoiseGame)
        engine = tiny.engine(game, dtype=torch.float64, sgd=True, batch_size=batch_size, world=world)
    return engine, [engine.step() for _ in range(4)]


def rank(number: int, folder: str) -> None:
    """One of two ranks: four steps of each game, then its weights into a file."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    found = dict[str, dict[str, object]]()
    for name in GAMES:
        for batch_size in sizes(name):
            engine, logs = trained(name, World.of_group(), batch_size)
            copies = [tiny.weights(net) for net in engine.copies.values()]
            moved = {"weights": tiny.weights(engine.game), "logs": logs, "copies": copies, "kept": engine.kept.rows}
            found[f"{name} {batch_size}"] = moved
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    mp.spawn(rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (0, 1))
    for name in GAMES:
        for batch_size in sizes(name):
            one, two = (found[f"{name} {batch_size}"] for found in (first, second))
            engine, logs = trained(name, World(), batch_size)
            assert torch.equal(one["weights"], two["weights"])
            # Features are compared in float32.
            near = {"crowded": 1e-8, "packed": 1e-8}.get(name, 1e-12)
            if name == "cycle":  # Adam divides a gradient that is all but 0, and rounded otherwise, by its own size
                near = 1e-9
            torch.testing.assert_close(one["weights"], tiny.weights(engine.game), rtol=0, atol=near)
            copies = [tiny.weights(net) for net in engine.copies.values()]
            for each in (one, two):
                torch.testing.assert_close(each["copies"], copies, rtol=0, atol=1e-12)
                torch.testing.assert_close(each["kept"], engine.kept.rows, rtol=0, atol=1e-12)
            for ours, theirs in zip(logs, one["logs"], strict=True):
                assert ours.keys() == theirs.keys()
                for key in ours:
                    torch.testing.assert_close(theirs[key].double(), ours[key].double(), rtol=1e-5, atol=1e-6)


# -- the command itself ------------------------------------------------------------------------------------------------


def start(*words: str, cwd: Path, launch: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """`gan WORDS` on two ranks; what is said goes into cwd/said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *launch]
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    with (cwd / "said").open("w") as said:
        return subprocess.Popen([*command, "-m", "gancli", *words], cwd=cwd, env=env, stdout=said, stderr=said)


def worker(job: subprocess.Popen[bytes], number: int) -> int:
    """The process id of a rank."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            if parent == job.pid and f"\0RANK={number}\0".encode() in (place / "environ").read_bytes():
                return int(place.name)
        except OSError:
            continue
    raise AssertionError(f"no rank {number}")


def until(happened: Callable[[], bool], job: subprocess.Popen[bytes], said: Path) -> None:
    end = time.monotonic() + 240
    while not happened():
        assert job.poll() is None, said.read_text(encoding="utf-8")
        assert time.monotonic() < end, said.read_text(encoding="utf-8")
        time.sleep(0.02)


def gone_or_ended(words: str) -> None:
    """Assert that rank 0 named the killed rank, or was ended by torchrun, which may notice the death first.

    gloo does not always report a closed connection; the rank then waits in its collective call until torchrun kills it.
    """
    assert "rank 1 is gone" in words or "forcefully exiting via 9" in words, words


def lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("keys", [[*TINY, "batch_size=6"], PROJECTION], ids=["dcgan", "projection"])
def test_the_command_on_two_ranks_is_the_command_on_one(gan: Gan, tmp_path: Path, keys: list[str]) -> None:
    keys = [*keys, "observers.metrics.every=1", "steps=5"]
    job = start("train", *keys, "run_dir=two", cwd=tmp_path)
    assert gan("train", *keys, "run_dir=one").code == 0
    assert job.wait(timeout=900) == 0, (tmp_path / "said").read_text(encoding="utf-8")
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == 5
    for ours, theirs in zip(one, two, strict=True):
        # Norms are sums of thousands of numbers that were themselves summed in another order.
        norms = {name for name in ours if "_norm_" in name}
        assert {n: theirs[n] for n in norms} == pytest.approx({n: ours[n] for n in norms}, rel=1e-4)
        rest = ours.keys() - norms
        assert {n: theirs[n] for n in rest} == pytest.approx({n: ours[n] for n in rest}, rel=1e-6, abs=1e-6)
    about = json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))
    assert (about["world"], about["backend"], about["status"]) == (2, "gloo", "finished")
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert said.count("finished at step 5") == 1
    assert "batch norm computes its statistics over all ranks" in said


@pytest.mark.slow
def test_a_killed_rank_changes_nothing(tmp_path: Path) -> None:
    keys = [*TINY, "steps=60", "observers.checkpoints.every=10", "observers.metrics.every=1", "observers.alarms=null"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone = start("train", *keys, cwd=tmp_path / "a")
    assert alone.wait(timeout=900) == 0, (tmp_path / "a" / "said").read_text(encoding="utf-8")
    job = start("train", *keys, cwd=tmp_path / "b", launch=("--max-restarts=1",))
    said, runs = tmp_path / "b" / "said", tmp_path / "b" / "outputs" / "train"
    until(lambda: any(lines(path) > 24 for path in runs.glob("*/metrics.jsonl")), job, said)
    os.kill(worker(job, 1), signal.SIGKILL)
    assert job.wait(timeout=900) == 0, said.read_text(encoding="utf-8")
    (killed,), (undisturbed,) = runs.iterdir(), (tmp_path / "a" / "outputs" / "train").iterdir()
    assert "resumed at step" in (killed / "log.txt").read_text(encoding="utf-8")
    gone_or_ended(said.read_text(encoding="utf-8"))
    same_run(undisturbed, killed, 60)


@pytest.mark.slow
def test_a_rank_that_stops_ends_the_others_in_words(tmp_path: Path) -> None:
    keys = [*TINY, "steps=100000", "observers.metrics.every=1", "device.timeout=6", "run_dir=run"]
    job = start("train", *keys, cwd=tmp_path)
    said = tmp_path / "said"
    until(lambda: lines(tmp_path / "run" / "metrics.jsonl") > 2, job, said)
    stopped = worker(job, 1)
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    try:
        until(lambda: "gan: rank 1 has not responded for 6 s" in said.read_text(encoding="utf-8"), job, said)
        assert time.monotonic() - began < 30
    finally:
        os.kill(stopped, signal.SIGKILL)
    assert job.wait(timeout=120) == 1
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert about["status"] == "failed"
    assert about["reason"].startswith("rank 1 has not responded")
    assert said.read_text(encoding="utf-8").count("gan: ") == 1


@pytest.mark.slow
def test_samples_and_scores_of_two_ranks_are_those_of_one(
    gan: Gan, trained_run: Path, weights_file: Path, tmp_path: Path
) -> None:
    drawing = ["sample", f"run={trained_run}", "n=70", "device=cpu", "format=npz"]
    measuring = ["eval", f"run={trained_run}", f"extractor.weights={weights_file}", "metrics=[fid,kid]", "n=40"]
    measuring += ["n_real=24", "metrics.kid.subset_size=6", "device=cpu"]
    for words in (drawing, measuring):
        job = start(*words, f"run_dir=two-{words[0]}", cwd=tmp_path)
        assert gan(*words, f"run_dir=one-{words[0]}").code == 0
        assert job.wait(timeout=900) == 0, (tmp_path / "said").read_text(encoding="utf-8")
    one, two = ((tmp_path / f"{count}-sample" / "samples.npz").read_bytes() for count in ("one", "two"))
    assert one == two
    first, second = (
        json.loads((tmp_path / f"{count}-eval" / "results.json").read_text(encoding="utf-8"))
        for count in ("one", "two")
    )
    # The distance's matrix root is rounded otherwise on another number of threads.
    assert second["fid"] == pytest.approx(first["fid"], rel=1e-6)
    assert second["kid"] == pytest.approx(first["kid"], rel=1e-6)
    assert first["protocol_id"] == second["protocol_id"]


@pytest.fixture
def trained_run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that results may be written to."""
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.slow
def test_scores_while_training_are_shared_out(gan: Gan, tmp_path: Path, weights_file: Path) -> None:
    keys = [*TINY, "steps=2", "observers.scores.every=2", "observers.scores.metrics=[kid]", "observers.scores.n=40"]
    keys += [f"observers.{name}.weights={weights_file}" for name in ("scores", "copies", "final")]
    keys += ["observers.copies.every=2", "observers.copies.n=40", "observers.copies.quantile=0.5"]
    keys += ["observers.final.metrics=[kid,memorisation]", "observers.final.n=40"]
    job = start("train", *keys, "run_dir=two", cwd=tmp_path)
    assert gan("train", *keys, "run_dir=one").code == 0
    assert job.wait(timeout=900) == 0, (tmp_path / "said").read_text(encoding="utf-8")
    one, two = (sorted((tmp_path / name / "eval").glob("*.json")) for name in ("one", "two"))
    assert len(one) == len(two) == 3
    shares = [[row["copies"] for row in rows(tmp_path / name) if "copies" in row] for name in ("one", "two")]
    assert shares[0] == shares[1]
    assert len(shares[0]) == 1
    for ours, theirs in zip(one, two, strict=True):
        assert json.loads(theirs.read_text(encoding="utf-8"))["kid"] == pytest.approx(
            json.loads(ours.read_text(encoding="utf-8"))["kid"], rel=1e-6
        )
