"""Runs of StyleGAN 2: resumed between lazy terms, of other shapes than squares of three channels, set by the data."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gancli.augment.ada import Ada
from gancli.config.compose import compose
from gancli.errors import ConfigError
from gancli.games.game import Game
from gancli.train import automatic
from tests.conftest import Gan
from tests.contract.cast import engine_of
from tests.test_engine import run, same
from tests.test_stylegan2 import KEYS, LABELS

NARROW = [*KEYS, "device=cpu", "observers.progress=null", "observers.grid.n=4", "model.D.group=4", "steps=6"]


def memory(game: Game, name: str) -> torch.Tensor:
    (found,) = (buffer for key, buffer in game.named_buffers() if key.endswith(name))
    return found


@pytest.mark.parametrize("extra", [[], LABELS], ids=["plain", "labels"])
def test_it_stops_between_lazy_terms_and_goes_on_to_the_same_bits(extra: list[str]) -> None:
    """R1 at steps 0 and 16, path lengths at every fourth; ADA's p, the mean length and the mean of w are state."""
    keys = [*KEYS, "augment=ada", "augment.interval=1", "augment.images=100", "augment.target=0.1", *extra]
    straight = engine_of(keys)
    middles: dict[int, Any] = {}
    for step in range(20):
        middles[step] = copy.deepcopy(straight.state())
        straight.step()
    for name in ("memory_path_length_mean", "mapping.mean", "augment.p"):
        values = {
            float(middles[stop]["game"][key].norm())
            for stop in (1, 5, 17)
            for key in middles[stop]["game"]
            if key.endswith(name)
        }
        assert len(values) > 1, name
    for stop in (1, 3, 4, 5, 15, 16, 17):
        again = engine_of(keys)
        again.load(middles[stop])
        run(again, 20 - stop)
        same(straight.state(), again.state())


@pytest.mark.parametrize("architecture", ["resnet", "orig", "skip"])
@pytest.mark.parametrize("extra", [[], LABELS, ["model.D.san=true"], [*LABELS, "model.D.san=true"]])
def test_every_discriminator_trains(architecture: str, extra: list[str]) -> None:
    found = engine_of([*KEYS, f"model.D.architecture={architecture}", *extra])
    before = {name: p.detach().clone() for name, p in found.game.nets["D"].named_parameters()}
    for _ in range(2):
        logs = found.step()
        assert all(value.isfinite() for value in logs.values())
    unmoved = [name for name, p in found.game.nets["D"].named_parameters() if torch.equal(before[name], p)]
    assert unmoved == []


@pytest.mark.parametrize(
    "size", ["[3,48,64]", "[4,16,16]", "[1,12,8]"], ids=["not square", "four channels", "grey and upright"]
)
def test_other_shapes_train_sample_evaluate_and_export(gan: Gan, tmp_path: Path, size: str) -> None:
    told = ["dataset=random", f"dataset.size={size}", "steps=2", "run_dir=run"]
    keys = [key for key in NARROW if key.partition("=")[0] not in ("dataset.size", "steps", "dataset")]
    assert gan("train", *keys, *told).code == 0
    drawn = gan("sample", "run=run", "n=4", "format=npz", "run_dir=drawn", "truncation=0.7")
    assert drawn.code == 0, drawn.err
    with np.load("drawn/samples.npz") as arrays:
        channels, *sides = json.loads(size)
        assert arrays["images"].shape == (4, *sides, channels)
    judged = gan("eval", "run=run", f"metrics={'swd' if min(sides) >= 16 else 'ms_ssim'}", "n=16", "device=cpu")
    assert judged.code == 0, judged.err
    if channels == 4:
        refused = gan("eval", "run=run", "metrics=kid", "n=16", "extractor=vgg16", "device=cpu")
        assert (refused.code, "Traceback" in refused.err) == (2, False)
    for kind in ("safetensors", "onnx"):
        made = gan("sample", "run=run", f"format={kind}", f"run_dir={kind}")
        assert made.code == 0, made.err
    again = gan(
        "sample", "run=safetensors/generator.safetensors", "n=4", "format=npz", "run_dir=again", "truncation=0.7"
    )
    assert again.code == 0, again.err
    with np.load("drawn/samples.npz") as a, np.load("again/samples.npz") as b:
        assert np.array_equal(a["images"], b["images"])


# -- auto --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "ranks", "wanted"),
    [
        (64, 1, (32, 0.0002 * 64**2 / 32, 10_000, 16384, 4, 2.5e-3)),
        (256, 1, (16, 0.0002 * 256**2 / 16, 5_000, 16384, 4, 2.5e-3)),
        (512, 8, (64, 0.0002 * 512**2 / 64, 20_000, 32768, 4, 2.5e-3)),
        (1024, 8, (32, 0.0002 * 1024**2 / 32, 10_000, 32768, 4, 2e-3)),
        (1024, 1, (4, 0.0002 * 1024**2 / 4, 1_250, 32768, 4, 2e-3)),
    ],
)
def test_the_rules_are_those_of_the_released_code(side: int, ranks: int, wanted: tuple[float, ...]) -> None:
    case = automatic.Case(side, automatic.batch_of(side, ranks), ranks)
    assert tuple(rule(case) for rule in automatic.RULES.values()) == pytest.approx((*wanted, wanted[-1]))


def test_auto_is_settled_printed_and_stored(gan: Gan) -> None:
    keys = ["experiment=auto", "dataset=random", "dataset.size=[3,48,64]", "dataset.n=24", "model.ch_max=8"]
    keys += ["model.latent.dim=8", "model.G.w_dim=8", "observers.progress=null", "device=cpu", "run_dir=run"]
    answer = gan("train", *keys, "images=64", "batch_size=8", "model.ch_base=64")
    assert answer.code == 0, answer.err
    line = next(line for line in (answer.out + answer.err).splitlines() if line.startswith("auto"))
    assert line == (
        "auto, for 48×64 pixels: penalty.r1.weight=0.0768 model.ema.half_life=2500 model.D.group=4"
        " optimizer.G.lr=0.0025 optimizer.D.lr=0.0025"
    )
    stored = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert (stored["batch_size"], stored["penalty"]["r1"]["weight"]) == (8, pytest.approx(0.0768))
    assert stored["model"]["ema"]["half_life"] == 2500
    assert "auto" not in yaml.safe_dump({k: stored[k] for k in ("batch_size", "model", "optimizer", "penalty")})
    more = gan("train", "resume=run", "images=80")
    assert more.code == 0, more.err


def test_a_resumed_run_keeps_the_numbers_that_were_settled(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of processes would give another batch size."""
    keys = ["experiment=auto", "dataset=random", "dataset.size=[3,16,16]", "dataset.n=24", "model.ch_max=8"]
    keys += ["model.latent.dim=8", "model.G.w_dim=8", "observers.progress=null", "device=cpu", "run_dir=run"]
    assert gan("train", *keys, "images=64", "model.ch_base=64").code == 0
    monkeypatch.setitem(automatic.RULES, "batch_size", lambda case: 16)
    monkeypatch.setitem(automatic.RULES, "penalty.r1.weight", lambda case: 1.0)
    more = gan("train", "resume=run", "images=96")
    assert more.code == 0, more.err
    assert "auto, for" not in more.out + more.err


def test_auto_needs_images() -> None:
    from gancli.train import streams

    config = compose("train", ["model=mlp", "dataset=ring", "batch_size=auto"])
    with pytest.raises(ConfigError, match="batch_size=auto: its rule is for images"):
        automatic.settled(config, streams.data_set(config["dataset"], config["game"]))


# -- little data -------------------------------------------------------------------------------------------------------


def test_ada_may_rise_above_1_no_further() -> None:
    """The released code does not limit p; a probability above 1 acts as 1, and would only fall later."""
    ada = Ada(interval=1, images=10)
    for _ in range(3):
        ada.feedback({"D_sign": torch.tensor(1.0)}, 8)
    assert float(ada.p) == 1.0


def test_the_copy_of_a_run_samples_alike(gan: Gan, tmp_path: Path) -> None:
    assert gan("train", *NARROW, *LABELS, "run_dir=run").code == 0
    shutil.copytree("run", "moved")
    for name in ("run", "moved"):
        assert gan("sample", f"run={name}", "n=6", "format=npz", f"run_dir={name}-s", "mixing=null").code == 0
    with np.load("run-s/samples.npz") as a, np.load("moved-s/samples.npz") as b:
        assert np.array_equal(a["images"], b["images"])
        assert sorted(set(a["labels"].tolist())) <= [0, 1, 2]
