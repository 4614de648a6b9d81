"""Files from strangers: no code of theirs runs, and no memory is taken on their word."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gancli.data.npz import npz
from gancli.errors import DataError, RunError, WeightsError
from gancli.pretrained import weights
from gancli.store import checkpoint
from gancli.store.rundir import RunDir
from gancli.store.safe import BrokenError, UnsafeError, examine
from tests.conftest import Gan

Change = Callable[[dict[str, Any]], Any]


class Bomb:
    """Makes a directory when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, ("canary",)


def repacked(source: Path, target: Path, change: Callable[[str, bytes], tuple[str, bytes]], packing: int = 0) -> None:
    """The same archive with records changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", packing) as new:
        for name in old.namelist():
            new.writestr(*change(name, old.read(name)))


def code(good: Path, bad: Path) -> None:
    state = torch.load(good, weights_only=True)
    torch.save(state | {"extra": Bomb()}, bad)


def bare_code(good: Path, bad: Path) -> None:
    bad.write_bytes(pickle.dumps(Bomb()))


def foreign_target(good: Path, bad: Path) -> None:
    state = torch.load(good, weights_only=True)
    state["config"]["model"]["G"] = {"_target_": "os.mkdir", "path": "canary"}
    torch.save(state, bad)


def giant_storage(good: Path, bad: Path) -> None:
    """A storage that says it has 2^31 - 1 numbers."""

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name.endswith("data.pkl"):
            at = content.index(b"FloatStorage")
            mark = content.index(b"cpu", at)
            number = min(i for i in (content.find(b"K", mark), content.find(b"M", mark)) if i > 0)
            width = 2 if content[number : number + 1] == b"K" else 3
            content = content[:number] + b"J" + struct.pack("<i", 2**31 - 1) + content[number + width :]
        return name, content

    repacked(good, bad, change)


def giant_tensor(good: Path, bad: Path) -> None:
    """A tensor of stride 0 that unfolds to a terabyte."""
    state = torch.load(good, weights_only=True)
    name = next(k for k, v in state["game"].items() if v.dim() == 4)
    state["game"][name] = torch.zeros(1).expand(1 << 20, 1 << 20, 1, 1)
    torch.save(state, bad)


def giant_network(good: Path, bad: Path) -> None:
    """A configuration whose networks are far larger than the weights that are there."""
    state = torch.load(good, weights_only=True)
    state["config"]["model"]["G"]["ch"] = 1 << 22
    torch.save(state, bad)


def traversal(good: Path, bad: Path) -> None:
    repacked(good, bad, lambda name, content: (name.replace("data/0", "../../canary"), content))


def packed(good: Path, bad: Path) -> None:
    repacked(good, bad, lambda name, content: (name, content), zipfile.ZIP_DEFLATED)


def no_end(good: Path, bad: Path) -> None:
    """Lists within lists, each twice in the next: thirty of them unfold to a billion."""
    state = torch.load(good, weights_only=True)
    level: list[Any] = [1]
    for _ in range(30):
        level = [level, level]
    state["config"]["note"] = level
    torch.save(state, bad)


HOSTILE = [code, bare_code, foreign_target, giant_storage, giant_tensor, giant_network, traversal, packed, no_end]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda f: f.__name__)
def test_every_verb_refuses_a_hostile_checkpoint(gan: Gan, trained: Path, make: Callable[[Path, Path], None]) -> None:
    shutil.copytree(trained, "run")
    bad = Path("run/checkpoints/00000006.pt")
    good = bad.read_bytes()
    Path("good").write_bytes(good)
    make(Path("good"), bad)
    bad.with_suffix(".json").unlink()
    before = sorted(Path().rglob("*"))
    keys = ["model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[1,8,8]", "dataset.n=24", "batch_size=4"]
    lines = [
        ["sample", f"run={bad}"],
        ["sample", "run=run"],
        ["interpolate", f"run={bad}"],
        ["eval", f"run={bad}"],
        ["train", *keys, "device=cpu", f"init={bad}", "steps=1"],
    ]
    # Resuming builds nothing that a checkpoint names: its configuration is the run's own.
    if make not in (foreign_target, giant_network, packed):
        lines.append(["train", f"resume={bad}", "steps=8"])
    if make in (foreign_target, giant_network):
        lines.pop(4)  # init takes weights only, of tensors that are right
    for words in lines:
        answer = gan(*words)
        assert answer.code == 2, (words, answer.err)
        assert answer.err.startswith("gan: ")
        assert answer.err.count("\n") == 1
        assert "Traceback" not in answer.err
    assert not list(Path().rglob("canary"))
    assert [p for p in sorted(Path().rglob("*")) if p.name != ".lock"] == before


def examined(content: object) -> Any:
    """The content as it is read back after it was examined."""
    file = io.BytesIO()
    torch.save(content, file)
    examine(file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_what_torch_saves_passes() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.zeros(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    kinds = [torch.zeros(3, dtype=kind) for kind in (torch.bool, torch.uint8, torch.int64, torch.half, torch.bfloat16)]
    content = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "kinds": kinds,
              "view": torch.arange(9)[2:5], "empty": torch.empty(0, 3), "scalar": torch.tensor(1.0),
              "plain": [1, -70_000, 2**40, 1.5, None, True, "é"],
              "parameter": torch.nn.Parameter(torch.ones(2)), "ordered": OrderedDict(a=1)}  # fmt: skip
    back = examined(content)
    assert back.keys() == content.keys()
    assert torch.equal(back["view"], torch.arange(2, 5))


@pytest.mark.parametrize("content", [{"x": torch.zeros(1).expand(5)}, {"x": torch.device("cpu")}, {1, 2}, b"bytes"])
def test_what_we_never_save_does_not(content: object) -> None:
    with pytest.raises(UnsafeError):
        examined(content)


def test_instructions_that_take_memory_on_their_word_are_refused() -> None:
    for pickled in (b"\x80\x02]r\xff\xff\xff\x7f.", b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"."):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", pickled)
        with pytest.raises((UnsafeError, BrokenError)):
            examine(file)


def test_old_files_of_weights_are_read_and_measured(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"w": torch.arange(6.0)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(weights.read(path)[0]["w"], torch.arange(6.0))
    content = path.read_bytes()
    at = content.index(b"K\x06", content.index(b"cpu"))
    path.write_bytes(content[:at] + b"J" + struct.pack("<i", 2**31 - 1) + content[at + 2 :])
    with pytest.raises(WeightsError, match="not a weights file"):
        weights.read(path)


def test_an_archive_behind_an_old_file_is_refused() -> None:
    """torch.load would read the old file and zipfile the archive: one would be examined, the other loaded."""
    old, new = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    torch.save({"w": torch.ones(2)}, new)
    with pytest.raises(UnsafeError, match="an archive behind other content"):
        examine(io.BytesIO(old.getvalue() + new.getvalue()), legacy=True)


def test_a_changed_byte_is_seen_without_a_json(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, {"step": 1, "x": torch.zeros(1000)}, {})
    path.with_suffix(".json").unlink()
    checkpoint.read(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\0" * 2000) + 1000] = 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1,1]\nb: [*a,*a]\n",
        "a: " + "[" * 100 + "]" * 100,
        "a: !!python/object/apply:os.mkdir [canary]\n",
        "a: !!python/object/apply:pathlib.Path [x]\n",
        "x" * (2 << 20),
        "[1,2]",
    ],
    ids=["aliases", "depth", "code", "tag", "size", "list"],
)
def test_a_hostile_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml"):
        RunDir(tmp_path).config()


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("hydra.searchpath=[file:///tmp]", "no key of a run"),
        ("+hydra.callbacks.x._target_=os.mkdir", "no key of a run"),
        ("hydra/launcher=joblib", "no key of a run"),
        ("~hydra.job", "no key of a run"),
        ("note=${oc.env:HOME}", "give note= on the command line"),
        ("loss._target_=os.mkdir", "are allowed here"),
        ("--config-dir=evil", "hydra.callbacks"),
    ],
)
def test_a_strangers_run_directory_runs_nothing(gan: Gan, trained: Path, override: str, remedy: str) -> None:
    shutil.copytree(trained, "run")
    Path("evil/experiment").mkdir(parents=True)
    evil = "# @package _global_\nhydra:\n  callbacks:\n    x: {_target_: os.mkdir, path: canary}\n"
    Path("evil/experiment/evil.yaml").write_text(evil, encoding="utf-8")
    about = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    about["overrides"] += [override, *(["experiment=evil"] if "config-dir" in override else [])]
    Path("run/run.json").write_text(json.dumps(about), encoding="utf-8")
    answer = gan("train", "resume=run", "steps=8")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert remedy in answer.err
    assert not Path("canary").exists()


def test_arrays_that_say_more_than_they_have(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 3, 1000, 1000), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 100)
    with pytest.raises(DataError, match="but 100 bytes"):
        npz(str(tmp_path / "a.npz"))
