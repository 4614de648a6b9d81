"""Networks that start from other runs' weights, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gancli.config import paths
from gancli.errors import ConfigError
from gancli.store.networks import StoredNetwork
from gancli.train import assemble
from gancli.verbs import starting
from tests import odd, tiny
from tests.conftest import TINY, Gan
from tests.test_engine import run, same
from tests.test_moves import Followed

PLAIN = [word for word in TINY if not word.startswith("model.ema")]


def state(run: Path | str, step: int) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(Path(run) / "checkpoints" / f"{step:08d}.pt", weights_only=True)
    return found


def net(state: dict[str, Any], name: str) -> dict[str, Any]:
    prefix = f"nets.{name}."
    return {key.removeprefix(prefix): t for key, t in state["game"].items() if key.startswith(prefix)}


def test_networks_start_from_runs_averaged_where_they_are(gan: Gan, trained: Path) -> None:
    words = [*TINY, "seed=5", "steps=1", "observers.checkpoints.every=1"]
    answer = gan("train", *words, f"init={{G: run:{trained}, D: 'run:{trained}#D'}}", "run_dir=new")
    assert answer.code == 0, answer
    assert f"G starts from G of {trained}/checkpoints/00000006.pt at step 6, EMA weights" in answer.err
    assert f"D starts from D of {trained}/checkpoints/00000006.pt at step 6, raw weights" in answer.err
    there, here = state(trained, 6), state("new", 0)
    same(there["ema"]["G"], net(here, "G"))
    same(there["ema"]["G"], here["ema"]["G"])
    same(net(there, "D"), net(here, "D"))
    about = json.loads(Path("new/run.json").read_text(encoding="utf-8"))
    assert about["init"] == {"G": f"run:{trained}", "D": f"run:{trained}#D"}
    assert gan("train", "resume=new", "steps=2").code == 0


def test_a_part_of_a_run_leaves_the_others_as_they_were(gan: Gan, trained: Path) -> None:
    words = [*PLAIN, "model.ema.decay=0", "steps=1", "seed=5"]
    assert gan("train", *words, "run_dir=plain").code == 0
    assert gan("train", *words, f"init={{D: run:{trained}/checkpoints/00000002.pt}}", "run_dir=new").code == 0
    plain, here = state("plain", 0), state("new", 0)
    same(net(plain, "G"), net(here, "G"))
    same(net(state(trained, 2), "D"), net(here, "D"))
    assert gan("train", *words, "init={G: run:plain}", "run_dir=raw").err.count("raw weights") == 1
    same(net(state("plain", 1), "G"), net(state("raw", 0), "G"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("init={Q: run:RUN}", "init.Q: this model has no such network; it has G, D"),
        ("init={G: RUN}", "init.G=RUN: expected run:PATH, where PATH is a run directory"),
        ("init={G: 3}", "init.G=3: expected run:PATH"),
        ("init={G: 'run:#G'}", "init.G=run:#G: expected run:PATH"),
        ("init={}", "init={} names no network: type init='{G: run:PATH}', or init=null"),
        ("init.G=run:RUN", "unknown key init.G: to start a network from a run type 'init={G: run:PATH}'"),
        ("init={G: run:nowhere}", "nowhere: no such run"),
        ("init={G: 'run:RUN#Q'}", "init.G=run:RUN#Q: this run has no network Q; "),
        ("init={G: 'run:RUN#D'}", "tensors of D do not fit: "),
        ("init={G: run:RUN} model.ch=8", "tensors of G do not fit: "),
    ],
)
def test_what_cannot_start_a_network_is_refused_before_it_is_built(
    gan: Gan, trained: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    def engine(*_: object) -> None:
        raise AssertionError("the networks were built")

    monkeypatch.setattr(assemble, "engine", engine)
    first, *others = word.replace("RUN", str(trained)).split(" model")
    answer = gan("train", *TINY, "steps=1", "run_dir=r", first, *(f"model{other}" for other in others))
    assert answer.code == 2, answer
    assert said.replace("RUN", str(trained)) in answer.err
    assert answer.err.count("\n") == 1
    assert not Path("r").exists()


def test_pools_of_fakes_are_left_behind(gan: Gan) -> None:
    words = ["train", "model=cyclegan", "model.ch=2", "model.blocks=0", "model.layers=1", "dataset.size=8"]
    words += ["dataset.limit=4", "batch_size=1", "device=cpu", "observers=none"]
    assert gan(*words, "steps=1", "run_dir=old", "game.pool=3").code == 0
    assert gan(*words, "steps=0", "run_dir=new", "game.pool=2", "init=old").code == 0
    old, new = state("old", 1)["game"], state("new", 0)["game"]
    pools = {f"pools.{domain}.images" for domain in "AB"}
    assert all(old[name].any() and not new[name].any() and new[name].shape[0] == 2 for name in pools)
    same(*({k: t for k, t in each.items() if k not in pools} for each in (old, new)))


def test_a_damaged_run_is_refused(gan: Gan, trained: Path) -> None:
    Path("bad.pt").write_bytes(b"no checkpoint")
    answer = gan("train", *TINY, "steps=1", "run_dir=r", "init={G: run:bad.pt}")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert not Path("r").exists()


def test_paths_are_recorded_whole(tmp_path: Path) -> None:
    config = {"init": {"G": "run:a", "D": "run:/b#E", "Q": 3}}
    found = paths.with_whole(config, tmp_path)
    assert found["init"] == {"G": f"run:{tmp_path}/a", "D": "run:/b#E", "Q": 3}
    (word,) = paths.typed(["init={G: run:a}"], {"init": {"G": "run:/x y"}})
    assert word == "init={G:'run:/x y'}"
    with pytest.raises(ConfigError, match="expected run:PATH"):
        paths.split_source("a", "init.G", "G")


def test_averages_and_copies_begin_with_the_network() -> None:
    there, engine = run(odd.engine(Followed()), 4), odd.engine(Followed())
    raw = there.game.nets["P_one"].state_dict()
    starting.take({"P_one": StoredNetwork("P_one", Path(), 0, False, raw, {}, {}, None, "")}, engine)
    assert torch.equal(tiny.weights(engine.averages["P_one"]), tiny.weights(there.game.nets["P_one"]))
    assert torch.equal(tiny.weights(engine.copies["slow"]), tiny.weights(there.game.nets["P_one"]))
    # The first layer is P_two's, too.
    assert torch.equal(engine.averages["P_two"][0].weight, there.game.nets["P_one"][0].weight)
    assert not torch.equal(tiny.weights(engine.copies["late"]), tiny.weights(there.game.nets["Q"]))
