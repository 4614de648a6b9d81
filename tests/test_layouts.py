"""StyleGAN 2 weights of other code bases: the same numbers here, and files that the commands read and write."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gancli.errors import RunError
from gancli.nets import layouts
from gancli.nets.layers.noise import NoiseMap
from gancli.nets.layouts import NVIDIA, ROSINALITY, LayoutError
from gancli.nets.stylegan2 import Discriminator, Generator
from gancli.store import layouts as files
from tests import foreign
from tests.conftest import Gan

WIDTHS, W, LAYERS = [8, 8, 4], 6, 2
RUN = [
    "train", "model=stylegan2", "model.ch_base=64", "model.ch_max=8", "model.latent.dim=6", "model.G.w_dim=6",
    "model.mapping_layers=2", "dataset=random", "dataset.size=16", "dataset.n=8", "batch_size=4", "observers=none",
    "device=cpu", "steps=0", "run_dir=r",
]  # fmt: skip
DIGITS = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run here is long enough for its memory and time to matter."""
    for name in ("TRIED", "COUNTED"):
        monkeypatch.setattr(f"gancli.train.rehearsal.{name}", 0.0)


def near(found: Tensor, wanted: Tensor, most: float) -> None:
    assert found.shape == wanted.shape
    assert float((found.double() - wanted).abs().max() / wanted.abs().max()) < most


def doubled(state: foreign.State) -> foreign.State:
    return {name: t.double() for name, t in state.items()}


def fixed(net: Generator, maps: Sequence[Tensor]) -> None:
    layers = [layer for layer in net.modules() if isinstance(layer, NoiseMap)]
    assert len(layers) == len(maps)
    for layer, one in zip(layers, maps, strict=True):
        layer.fixed = one


GENERATORS = {
    "rosinality": (ROSINALITY, foreign.rosinality_g(WIDTHS, W, LAYERS), 6, 3, 0),
    "nvidia": (NVIDIA, foreign.nvidia_g(WIDTHS, 5, W, 3), 5, 3, 0),
    "labels": (NVIDIA, foreign.nvidia_g(WIDTHS, 5, W, 3, channels=1, labels=4), 5, 1, 4),
}


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("name", GENERATORS)
def test_generators_make_the_same_images(name: str, dtype: torch.dtype, noise: float) -> None:
    layout, state, latent, channels, labels = GENERATORS[name]
    state = {k: t * noise if k.endswith(("noise.weight", "noise_strength")) else t for k, t in state.items()}
    found = layouts.ours(layout, "G", state)
    net = Generator(
        (channels, 16, 16), latent, labels, ch_base=64, ch_max=8, w_dim=W,
        mapping_layers=2 if layout is ROSINALITY else 3, conditioning="projection" if labels else "none",
    )  # fmt: skip
    net.load_state_dict({"mapping.mean": torch.zeros(W)} | found)
    new = foreign.drawn(9)
    z, w, maps = new(4, latent).double(), new(4, 6, W).double(), [new(1, 1, s, s).double() for s in (4, 8, 8, 16, 16)]
    y = torch.arange(4) % labels if labels else None
    hot = None if y is None else torch.eye(labels).double()[y]
    net.to(dtype)
    fixed(net, [one.to(dtype) for one in maps])
    wide = doubled(state)
    with torch.no_grad():
        own = net.mapping(z.to(dtype), y)
        near(own, foreign.mapped(wide, z, hot), DIGITS[dtype])
        made = net(None, w=w.to(dtype))
        near(made, foreign.generated(wide, w, maps, eps_of(layout, wide)), DIGITS[dtype])
        near(made, foreign.generated(wide, w, maps), max(DIGITS[dtype], 1e-7))


def eps_of(layout: layouts.Layout, state: foreign.State) -> float:
    """The eps of demodulation with which theirs is exactly ours: rosinality's weights are scaled before it."""
    return foreign.EPS / state["conv1.conv.weight"][0, 0].numel() if layout is ROSINALITY else foreign.EPS


CRITICS = {
    "rosinality": (ROSINALITY, foreign.rosinality_d(WIDTHS), "resnet", 3, 0),
    "resnet": (NVIDIA, foreign.nvidia_d(WIDTHS, "resnet"), "resnet", 3, 0),
    "orig": (NVIDIA, foreign.nvidia_d(WIDTHS, "orig", 1, 3), "orig", 1, 3),
    "skip": (NVIDIA, foreign.nvidia_d(WIDTHS, "skip", 3, 3), "skip", 3, 3),
}


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("name", CRITICS)
def test_discriminators_give_the_same_logits(name: str, dtype: torch.dtype) -> None:
    layout, state, kind, channels, labels = CRITICS[name]
    net = Discriminator(
        (channels, 16, 16), labels, ch_base=64, ch_max=8, architecture=kind, mapping_layers=2, group=4,  # type: ignore[arg-type]
        conditioning="projection" if labels else "none",
    )  # fmt: skip
    found = layouts.ours(layout, "D", state)
    net.load_state_dict(found | ({"mapping.mean": torch.zeros(8)} if labels else {}))
    x = foreign.drawn(9)(8, channels, 16, 16).double()
    y = torch.arange(8) % labels if labels else None
    hot = None if y is None else torch.eye(labels).double()[y]
    with torch.no_grad():
        logits = net.to(dtype)(x.to(dtype), y).logits
        near(logits, foreign.judged(doubled(state), x, hot, kind, 4), DIGITS[dtype])


@pytest.mark.parametrize(
    ("layout", "role", "state"),
    [(ROSINALITY, "G", GENERATORS["rosinality"][1]), *((c[0], "D", c[1]) for c in CRITICS.values())],
)
def test_a_round_trip_keeps_every_parameter(layout: layouts.Layout, role: str, state: foreign.State) -> None:
    found = layouts.ours(layout, role, state)
    back = layouts.theirs(layout, role, found, layouts.planned(layout, role, state))
    assert {k for k in state if k not in back} == {k for k in state if "kernel" in k or "filter" in k or "noises" in k}
    assert all(torch.equal(back[k], state[k]) and back[k].shape == state[k].shape for k in back)


# -- files -------------------------------------------------------------------------------------------------------------


def trained(**more: Any) -> dict[str, Any]:
    """What rosinality's train.py saves."""
    parts = {k: foreign.rosinality_g(WIDTHS, W, LAYERS, seed) for k, seed in (("g", 4), ("g_ema", 5))}
    adam = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}},
        "param_groups": [{"lr": 0.1, "p": [0]}],
    }
    options = argparse.Namespace(path="x", iter=800000, r1=10.0, ckpt=None, wandb=False)
    return parts | {"d": foreign.rosinality_d(WIDTHS), "g_optim": adam, "args": options, "ada_aug_p": 0.0} | more


def checkpoint(run: str = "r") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(f"{run}/checkpoints/00000000.pt", weights_only=True)
    return found


def held(state: dict[str, Any], name: str) -> dict[str, Tensor]:
    prefix = f"nets.{name}."
    return {k.removeprefix(prefix): t for k, t in state["game"].items() if k.startswith(prefix)}


def same(found: dict[str, Tensor], layout: layouts.Layout, role: str, state: foreign.State) -> None:
    wanted = layouts.ours(layout, role, state)
    assert [k for k, t in wanted.items() if not torch.equal(found[k], t)] == []
    assert found.keys() - wanted.keys() <= {"mapping.mean"}


@pytest.mark.parametrize("modern", [True, False])
def test_a_run_starts_from_a_training_checkpoint(gan: Gan, modern: bool) -> None:
    content = trained()
    torch.save(content, "x.pt", _use_new_zipfile_serialization=modern)
    answer = gan(*RUN, "init=x.pt")
    assert answer.code == 0, answer.err
    here = Path("x.pt").absolute()
    assert f"G starts from g of {here}, in rosinality's layout, its EMA from the file's average" in answer.err
    assert "G: the mean of w is computed from 10,000 latents: the file has none" in answer.err
    assert "model.D.group=8 here" in answer.err
    state = checkpoint()
    same(held(state, "G"), ROSINALITY, "G", content["g"])
    same(state["ema"]["G"], ROSINALITY, "G", content["g_ema"])
    same(held(state, "D"), ROSINALITY, "D", content["d"])
    w = foreign.mapped(content["g_ema"], foreign.drawn(3)(20_000, W))
    for found in (held(state, "G"), state["ema"]["G"]):
        assert float((found["mapping.mean"] - w.mean(0)).abs().max()) < 5 * float(w.std()) / 100
    assert gan("sample", "run=r", "n=4", "truncation=0.7", "run_dir=s").code == 0
    assert not modern or gan("train", "resume=r", "steps=1").code == 0


def test_an_average_that_does_not_fit_is_refused(gan: Gan) -> None:
    wide = foreign.rosinality_g([2 * width for width in WIDTHS], W, LAYERS)
    torch.save(trained(g_ema=wide), "x.pt")
    answer = gan(*RUN, "init=x.pt")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "these weights do not fit G" in answer.err


def test_an_average_is_not_discarded_by_a_ramp(gan: Gan) -> None:
    torch.save(trained(), "x.pt")
    answer = gan(*RUN, "init=x.pt", "model.ema.ramp=0.05")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "would discard at the first step: type model.ema.ramp=null" in answer.err


def test_numbers_of_other_types_are_refused(gan: Gan) -> None:
    content = foreign.rosinality_g(WIDTHS, W, LAYERS)
    torch.save({"g": content | {"input.input": content["input.input"].to(torch.float8_e4m3fn)}}, "x.pt")
    answer = gan(*RUN, "init=x.pt")
    assert (answer.code, answer.err.count("\n")) == (2, 1)


def test_an_average_alone_and_its_mean(gan: Gan) -> None:
    mean = torch.arange(6.0)
    content = {"g_ema": foreign.rosinality_g(WIDTHS, W, LAYERS), "latent_avg": mean}
    torch.save(content, "x.pt")
    answer = gan(*RUN, "init=x.pt", "model.ema.decay=0")
    assert answer.code == 0, answer.err
    assert "G starts from g_ema of" in answer.err
    assert "which has no g\n" in answer.err
    assert "D starts from new weights" in answer.err
    assert "computed" not in answer.err
    assert torch.equal(held(checkpoint(), "G")["mapping.mean"], mean)


@pytest.mark.parametrize("form", ["dictionary", "flat", "safetensors"])
def test_nvidia_files(gan: Gan, form: str) -> None:
    nets = {name: foreign.nvidia_g(WIDTHS, 5, W, 3, labels=4, seed=seed) for name, seed in (("G", 6), ("G_ema", 7))}
    nets["G"]["mapping.w_avg"] = nets["G_ema"]["mapping.w_avg"].clone()  # as their code has it
    nets["D"] = foreign.nvidia_d(WIDTHS, "orig", labels=4)
    flat = {f"{net}.{name}": t for net, state in nets.items() for name, t in state.items()}
    name = "x.safetensors" if form == "safetensors" else "x.pt"
    if form == "safetensors":
        save_file(flat, name)
    else:
        torch.save(flat if form == "flat" else nets, name)
    words = ["model.latent.dim=5", "model.mapping_layers=3", "model.conditioning=projection", "dataset.classes=4"]
    words += ["model.D.architecture=orig", "model.D.mapping_layers=2", "model.D.group=4"]
    answer = gan(*RUN, *words, f"init={name}")
    assert answer.code == 0, answer.err
    assert "group" not in answer.err
    state = checkpoint()
    same(held(state, "G"), NVIDIA, "G", nets["G"])
    same(state["ema"]["G"], NVIDIA, "G", nets["G_ema"])
    same(held(state, "D"), NVIDIA, "D", nets["D"])


def test_single_networks_by_their_names_in_the_file(gan: Gan) -> None:
    content = trained()
    torch.save(content, "x.pt")
    torch.save(content["d"], "d.pt")
    answer = gan(*RUN, "init={G: 'run:x.pt#g_ema', D: run:d.pt}")
    assert answer.code == 0, answer.err
    assert "which has no g" not in answer.err
    state = checkpoint()
    same(held(state, "G"), ROSINALITY, "G", content["g_ema"])
    same(state["ema"]["G"], ROSINALITY, "G", content["g_ema"])
    same(held(state, "D"), ROSINALITY, "D", content["d"])
    words = [word for word in RUN if word != "run_dir=r"]
    assert "the file has no such network for G; it has g, g_ema" in gan(*words, "init={G: 'run:x.pt#d'}").err


def test_an_export_is_read_again(gan: Gan) -> None:
    content = trained(latent_avg=torch.arange(6.0))
    torch.save(content, "x.pt")
    assert gan(*RUN, "init=x.pt").code == 0
    answer = gan("sample", "run=r", "format=rosinality", "run_dir=made")
    assert answer.code == 0, answer.err
    assert "verified bit by bit" in answer.out
    assert "generate.py --size 16 --channel_multiplier 1, once its constants are changed (model.ch_max=8" in answer.out
    found = torch.load("made/generator.pt", weights_only=True)
    assert found.keys() == {"g", "g_ema", "latent_avg"}
    assert torch.equal(found["latent_avg"], content["latent_avg"])
    for name in ("g", "g_ema"):
        assert found[name].keys() == content[name].keys()
        for key, value in content[name].items():
            assert found[name][key].shape == value.shape
            assert key.startswith("noises.") or torch.equal(found[name][key], value), key
    words = [word for word in RUN if word != "run_dir=r"]
    assert gan(*words, "init=made/generator.pt", "run_dir=again").code == 0
    assert all(torch.equal(t, checkpoint()["ema"]["G"][k]) for k, t in checkpoint("again")["ema"]["G"].items())
    assert gan("sample", "run=r", "format=rosinality", "ema=false", "run_dir=raw").code == 0
    raw = torch.load("raw/generator.pt", weights_only=True)
    assert raw.keys() == {"g_ema", "latent_avg"}
    assert torch.equal(raw["g_ema"]["conv1.conv.weight"], content["g"]["conv1.conv.weight"])


@pytest.mark.parametrize(
    ("shape", "latent", "labels", "said"),
    [
        ((3, 16, 16), 6, 2, "takes labels"),
        ((3, 16, 32), 6, 0, "3×16×32"),
        ((1, 16, 16), 6, 0, "1×16×16"),
        ((3, 24, 24), 6, 0, "3×24×24"),
        ((3, 16, 16), 5, 0, "latents of 5 numbers"),
    ],
)
def test_what_their_code_cannot_express_is_not_exported(
    shape: tuple[int, ...], latent: int, labels: int, said: str
) -> None:
    kind: Any = "projection" if labels else "none"
    net = Generator(shape, latent, labels, ch_base=64, ch_max=8, w_dim=W, mapping_layers=2, conditioning=kind)
    with pytest.raises(RunError, match=said):
        files.refuse_other(net, "stylegan2")


def test_another_rate_of_the_mapping_is_not_exported() -> None:
    net = Generator((3, 16, 16), W, ch_base=64, ch_max=8, w_dim=W, mapping_layers=2, mapping_rate=1.0)
    with pytest.raises(RunError, match=r"mapping_rate=1, and theirs 0\.01"):
        files.refuse_other(net, "stylegan2")


def test_another_model_is_not_exported(gan: Gan, trained: Path) -> None:
    answer = gan("sample", f"run={trained}", "format=rosinality")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "is for model=stylegan2" in answer.err


class Bomb:
    """Makes a directory when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, ("canary",)


def test_what_cannot_be_read_is_refused_in_a_line(gan: Gan) -> None:
    content = trained()
    torch.save(content, "x.pt")
    whole = Path("x.pt").read_bytes()

    def refused(*words: str) -> str:
        answer = gan(*RUN, *words)
        assert answer.code == 2, words
        assert answer.err.count("\n") == 1, answer.err
        assert not Path("r").exists()
        return answer.err

    Path("x.pkl").write_bytes(pickle.dumps(Bomb()))
    assert "legacy.load_network_pkl" in refused("init=x.pkl")
    Path("cut.pt").write_bytes(whole[:-100])
    assert "truncated, damaged" in refused("init=cut.pt")
    Path("flip.pt").write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    assert "damaged" in refused("init=flip.pt")
    torch.save({"g_ema": content["g_ema"], "args": Bomb()}, "bomb.pt")
    assert "more than tensors and plain values" in refused("init=bomb.pt")
    torch.save(trained(args=argparse.Namespace(path=Bomb())), "bomb.pt")
    assert "more than tensors and plain values" in refused("init=bomb.pt")
    torch.save(trained(args=argparse.Namespace(__setstate__=3)), "bomb.pt")
    assert "without plain names" in refused("init=bomb.pt")
    torch.save({"generator": content["g"]}, "other.pt")
    assert "neither a checkpoint of this program nor" in refused("init=other.pt")
    torch.save({"g": {"weight": torch.ones(2)}, "d": content["d"]}, "other.pt")
    assert "its g is neither" in refused("init=other.pt")
    save_file({"weight": torch.ones(2)}, "other.safetensors")
    assert "neither a checkpoint" in refused("init=other.safetensors")
    torch.save({"d": content["d"]}, "d.pt")
    assert "the file has no weights for G" in refused("init={G: run:d.pt}")
    assert not Path("canary").exists()


def test_what_does_not_fit_names_the_command_that_does(gan: Gan) -> None:
    torch.save(trained(), "x.pt")
    here = Path("x.pt").absolute()
    answer = gan(*RUN, "init=x.pt", "model.mapping_layers=3", "dataset.size=32", "model.ch_max=4")
    assert answer.code == 2
    fits = "model=stylegan2 dataset.size=16 model.ch_base=64 model.ch_max=8 model.latent.dim=6 model.G.w_dim=6"
    assert f"type gan train {fits} model.mapping_layers=2 init={here}\n" in answer.err
    assert "it differs in dataset.size, model.ch_max, model.mapping_layers;" in answer.err
    answer = gan(*RUN, "init=x.pt", "model.G.mapping_rate=0.1")
    assert "for model.G.mapping_rate=0.01, and it is 0.1 here" in answer.err
    answer = gan(
        "train", "model=dcgan", "dataset=random", "dataset.size=[3,16,16]", "device=cpu", "init=x.pt", "steps=0"
    )
    assert "add model=stylegan2" in answer.err


def test_usual_widths_are_told_by_their_multiplier() -> None:
    from gancli.nets import fitting
    from gancli.train.assemble import shapes_only

    for multiplier, base in ((1, 16384), (2, 32768)):
        with shapes_only():
            net = Generator((3, 256, 256), 512, ch_base=16384 * multiplier)
        found = fitting.settings("G", net.state_dict())
        assert (found["model.ch_base"], found["dataset.size"]) == (base, [3, 256, 256])
        assert fitting.words(found) == ["dataset.size=256", f"model.ch_base={base}"]
        assert files.command_of(net) == f"generate.py --size 256 --channel_multiplier {multiplier}"


def test_networks_of_another_architecture_are_refused() -> None:
    state = foreign.nvidia_g(WIDTHS, 5, W, 3)
    for change, said in [
        ({"synthesis.b8.skip.weight": torch.ones(8, 8, 1, 1)}, "has synthesis.b8.skip.weight"),
        ({"synthesis.b8.resample_filter": torch.ones(4, 4)}, r"another filter than \[1, 3, 3, 1\]"),
        ({"synthesis.b4.const": torch.full((8, 4, 4), float("nan"))}, "not finite"),
        ({"synthesis.b4.conv1.noise_strength": torch.ones(2)}, r"is \[2\] of torch.float32"),
    ]:
        with pytest.raises(LayoutError, match=said):
            layouts.ours(NVIDIA, "G", state | change)
    del state["synthesis.b8.conv1.bias"]
    with pytest.raises(LayoutError, match=r"lacks synthesis.b8.conv1.bias"):
        layouts.ours(NVIDIA, "G", state)
