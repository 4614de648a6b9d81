"""Devices and precisions: what is chosen, what is refused, and what is said about it."""

from __future__ import annotations

import pytest
import torch

from gancli import device
from gancli.device import DeviceChoice, PrecisionChoice, compile_networks, resolve
from gancli.errors import DeviceError
from tests import tiny

Patch = pytest.MonkeyPatch


def machine(monkeypatch: Patch, cuda: bool = False, mps: bool = False, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "a GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("has", "kind", "precision", "where", "autocast"),
    [
        ({}, "auto", "auto", "cpu", None),
        ({"cuda": True}, "auto", "auto", "cuda", torch.bfloat16),
        ({"cuda": True, "bf16": False}, "auto", "auto", "cuda", None),
        ({"cuda": True}, "cpu", "auto", "cpu", None),
        ({"cuda": True}, "cuda", "fp16", "cuda", torch.float16),
        ({"mps": True}, "auto", "auto", "mps", None),
        ({"mps": True}, "mps", "bf16", "mps", torch.bfloat16),
        ({}, "cpu", "bf16", "cpu", torch.bfloat16),
    ],
)
def test_choices(
    monkeypatch: Patch, has: dict[str, bool], kind: str, precision: str, where: str, autocast: torch.dtype | None
) -> None:
    machine(monkeypatch, **has)
    got = resolve(DeviceChoice(kind=kind), PrecisionChoice(kind=precision))  # type: ignore[arg-type]
    assert got.device.type == where
    assert got.autocast is autocast
    assert got.notes[0].startswith(f"device {where}")
    assert got.notes[1].startswith("precision ")


@pytest.mark.parametrize(
    ("has", "kind", "precision"),
    [
        ({}, "cuda", "auto"),
        ({}, "mps", "auto"),
        ({}, "cpu", "fp16"),
        ({"mps": True}, "mps", "fp16"),
        ({"cuda": True, "bf16": False}, "cuda", "bf16"),
    ],
)
def test_refusals_name_what_to_type(monkeypatch: Patch, has: dict[str, bool], kind: str, precision: str) -> None:
    machine(monkeypatch, **has)
    with pytest.raises(DeviceError, match=r"(device|precision)=(auto|fp16)"):
        resolve(DeviceChoice(kind=kind), PrecisionChoice(kind=precision))  # type: ignore[arg-type]


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        resolve(DeviceChoice(kind="cpu", threads=2), PrecisionChoice())
        assert torch.get_num_threads() == 2
        with pytest.raises(DeviceError, match="at least 1"):
            resolve(DeviceChoice(kind="cpu", threads=0), PrecisionChoice())
    finally:
        torch.set_num_threads(before)


def test_bf16_on_the_cpu_trains_close_to_fp32() -> None:
    losses = []
    for autocast in (None, torch.bfloat16):
        engine = tiny.engine()
        engine.compute = device.Compute(autocast=autocast)
        losses.append(engine.step()["loss_D"].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[0] != losses[1]


def test_compile_leaves_penalised_networks_and_machines_without_a_compiler(monkeypatch: Patch) -> None:
    game = tiny.game()
    nets = dict(game.nets.items())
    monkeypatch.setattr(device.shutil, "which", lambda name: name)
    notes = compile_networks(nets, twice={"D"}, device=torch.device("cpu"))
    assert "D stays uncompiled" in " ".join(notes)
    assert nets["G"]._compiled_call_impl is not None
    assert nets["D"]._compiled_call_impl is None
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in compile_networks(nets, twice=set(), device=torch.device("cpu"))[0]


def test_several_processes_are_refused_in_words(monkeypatch: Patch) -> None:
    from gancli.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "dataset=random", "steps=1"]) == 2
