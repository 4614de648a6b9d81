"""One network of a run, read by itself: `run:PATH#NAME`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gancli.config.paths import split_source
from gancli.errors import ConfigError, RunError
from gancli.store import checkpoint
from gancli.store.networks import read_network, refuse_shapes


def test_a_network_is_read_with_its_configuration_and_hash(trained: Path) -> None:
    stored = read_network(f"run:{trained}#D", "init.D")
    file = trained / "checkpoints" / "00000006.pt"
    state = checkpoint.read_run(file)
    assert stored.file == file
    assert stored.sha256 == checkpoint.sha256(file)
    assert (stored.name, stored.step, stored.averaged) == ("D", 6, False)
    assert stored.config == state["config"]
    assert stored.data == state["data"]
    wanted = {name: value for name, value in state["game"].items() if name.startswith("nets.D.")}
    assert {f"nets.D.{name}" for name in stored.state} == set(wanted)
    assert all(torch.equal(value, wanted[f"nets.D.{name}"]) for name, value in stored.state.items())


def test_averaged_weights_are_those_of_the_average(trained: Path) -> None:
    stored = read_network(f"run:{trained / 'checkpoints' / '00000004.pt'}", "init.G", "G", averaged=True)
    state = checkpoint.read_run(stored.file)
    assert (stored.step, stored.averaged) == (4, True)
    assert all(torch.equal(stored.state[name], value) for name, value in state["ema"]["G"].items())
    assert not read_network(f"run:{trained}#D", "init.D", averaged=True).averaged  # D has none


@pytest.mark.parametrize("source", ["last", "run:", "run:#G", "run:x", ""])
def test_another_form_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match=r"^pretrained\.source=.*: expected run:PATH#NAME"):
        split_source(source, "pretrained.source")


def test_what_is_not_there_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^init\.G=run:.*#E: this run has no network E; .*choices: D, G"):
        read_network(f"run:{trained}#E", "init.G")
    with pytest.raises(RunError, match=r"^init\.G=.*no such run"):
        read_network(f"run:{tmp_path / 'none'}", "init.G", "G")
    cut = tmp_path / "cut.pt"
    cut.write_bytes((trained / "checkpoints" / "00000006.pt").read_bytes()[:-100])
    with pytest.raises(RunError, match="truncated, damaged"):
        read_network(f"run:{cut}#G", "init.G")


def test_other_shapes_are_refused(trained: Path) -> None:
    stored = read_network(f"run:{trained}#G", "init.G")
    refuse_shapes(stored.state, stored, "init.G")
    first = sorted(stored.state)[0]
    with pytest.raises(RunError, match=rf"^init\.G: 1 of .* tensors of G do not fit: {first} is .* should be \[3\]"):
        refuse_shapes(stored.state | {first: torch.empty(3, device="meta")}, stored, "init.G")
