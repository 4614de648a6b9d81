"""Devices and precisions: what is chosen, what is refused, and what is said about it."""

from __future__ import annotations

import pytest
import torch

from gancli.compute import device
from gancli.compute.device import DeviceChoice, PrecisionChoice, compile_networks, resolve
from gancli.errors import DeviceError
from tests import tiny

Patch = pytest.MonkeyPatch


def machine(monkeypatch: Patch, cuda: bool = False, mps: bool = False, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "a GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)


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
        with pytest.raises(DeviceError, match="must be 1 to 1024"):
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
    notes = compile_networks(nets, eager={"D": "it grows"}, device=torch.device("cpu"))
    assert "D is not compiled: it grows" in " ".join(notes)
    assert nets["G"]._compiled_call_impl is not None
    assert nets["D"]._compiled_call_impl is None
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in compile_networks(nets, eager={}, device=torch.device("cpu"))[0]


def test_compile_says_what_a_device_lacks(monkeypatch: Patch) -> None:
    nets = dict(tiny.game().nets.items())
    assert "does not support mps" in compile_networks(nets, eager={}, device=torch.device("mps"))[0]
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in compile_networks(nets, eager={}, device=torch.device("cuda"))[0]
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (6, 1))
    assert "this one has 6.1" in compile_networks(nets, eager={}, device=torch.device("cuda"))[0]
    assert all(net._compiled_call_impl is None for net in nets.values())


def test_a_compiler_that_fails_is_done_without(monkeypatch: Patch) -> None:
    from gancli.train.rehearsal import Rehearsal
    from gancli.verbs.forecast import timed

    def broken(*_: object) -> None:
        raise RuntimeError("inductor: no such instruction")

    engine = tiny.engine()
    rehearsal, notes = Rehearsal(engine), list[str]()
    assert rehearsal.footprint() is not None
    engine.game.nets["G"]._compiled_call_impl = broken
    assert timed(rehearsal, None, notes)[""] > 0
    assert notes == [
        "compile: the compiler failed (RuntimeError: inductor: no such instruction); the networks run uncompiled"
    ]
    assert engine.step()["loss_G"].isfinite()
    monkeypatch.setattr(engine, "try_micro_batch", broken)
    with pytest.raises(RuntimeError, match="no such instruction"):
        timed(rehearsal, None, notes)  # nothing is compiled any more: it is not the compiler's fault


def test_a_job_leaves_no_settings_behind(monkeypatch: Patch) -> None:
    machine(monkeypatch, cuda=True)
    cudnn, matmul, threads = torch.backends.cudnn, torch.backends.cuda.matmul, torch.get_num_threads()
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    with device.settings_kept():
        resolve(DeviceChoice(kind="cuda", threads=threads + 1), PrecisionChoice(kind="bf16"))
        assert (cudnn.benchmark, matmul.allow_tf32, torch.get_num_threads()) == (True, True, threads + 1)
    assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before
    assert torch.get_num_threads() == threads


def test_half_precision_scales_each_player_and_skips_what_overflows() -> None:
    game = tiny.game()
    engine = tiny.engine(game)
    engine = type(engine)(
        game,
        engine.streams,
        {name: player.optimizer for name, player in engine.players.items()},
        compute=device.Compute(autocast=torch.float16),
        batch_size=8,
        clip=1.0,
    )
    G, D = (engine.players[name] for name in "GD")
    assert G.scaler is not None
    assert D.scaler is not None
    assert G.scaler is not D.scaler
    D.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)  # D overflows, G does not
    before = {name: tiny.weights(net) for name, net in game.nets.items()}
    engine.step()
    assert torch.equal(before["D"], tiny.weights(game.nets["D"]))
    assert not torch.equal(before["G"], tiny.weights(game.nets["G"]))
    assert D.scaler.get_scale() == 2.0**119
    assert G.scaler.get_scale() == 2.0**16
    assert engine.state()["scalers"]["D"]["scale"] == 2.0**119


def test_several_processes_are_refused_in_words(monkeypatch: Patch) -> None:
    from gancli.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "dataset=random", "steps=1"]) == 2


def test_networks_over_time_and_over_lines_are_placed() -> None:
    net = torch.nn.ModuleList([torch.nn.Conv3d(2, 3, 3), torch.nn.Conv2d(2, 3, 3), torch.nn.Conv1d(2, 3, 3)])
    weights = [conv.weight for conv in net]
    before = [weight.detach().clone() for weight in weights]
    device.Compute().place(net)
    assert all(
        conv.weight is weight for conv, weight in zip(net, weights, strict=True)
    )  # the same tensors, which optimizers may hold
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert weights[1].is_contiguous(memory_format=torch.channels_last)
    assert all(weight.is_contiguous() for weight in (weights[0], weights[2]))
    assert net[0](torch.zeros(1, 2, 3, 3, 3)).shape == (1, 3, 1, 1, 1)
