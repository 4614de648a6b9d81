"""Runs of StyleGAN 3: resumed while the blur fades, of other shapes, its equivariance before training."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gancli.augment.blur import Blur
from gancli.metrics.equivariance import EqR, EqT
from gancli.nets.layers.filtered import filtered
from gancli.nets.stylegan3 import Generator
from tests.bench import equivariance
from tests.conftest import Gan
from tests.contract.cast import engine_of
from tests.test_engine import run, same
from tests.test_stylegan3 import KEYS, LABELS

NARROW = [*KEYS, "device=cpu", "observers.progress=null", "observers.grid.n=4", "model.D.group=4", "steps=2"]


def test_it_stops_while_the_blur_fades_and_goes_on_to_the_same_bits() -> None:
    """R1 at steps 0 and 2; the averages of w and of magnitudes and the position of the blur are state."""
    keys = [*KEYS, *LABELS, "model.variant=R", "game.blur_sigma=2", "game.blur_images=15", "augment=ada"]
    keys += ["penalty.r1.every=2"]
    straight = engine_of(keys)
    middles: dict[int, Any] = {}
    for step in range(4):
        middles[step] = copy.deepcopy(straight.state())
        straight.step()
    magnitudes = {
        float(state["game"][key])
        for state in middles.values()
        for key in state["game"]
        if key.endswith("layers.3.magnitude")
    }
    assert len(magnitudes) == 4
    for stop in (1, 2, 3):
        again = engine_of(keys)
        again.load(middles[stop])
        run(again, 4 - stop)
        same(straight.state(), again.state())


@pytest.mark.parametrize(
    ("size", "variant"),
    [("[3,48,64]", "T"), ("[4,16,16]", "R"), ("[1,24,16]", "R")],
    ids=["not square", "four channels", "grey and upright"],
)
def test_other_shapes_train_sample_evaluate_and_export(gan: Gan, tmp_path: Path, size: str, variant: str) -> None:
    told = ["dataset=random", f"dataset.size={size}", f"model.variant={variant}", "run_dir=run"]
    keys = [key for key in NARROW if key.partition("=")[0] not in ("dataset.size", "dataset")]
    trained = gan("train", *keys, *told)
    assert trained.code == 0, trained.err
    drawn = gan("sample", "run=run", "n=4", "format=npz", "run_dir=drawn", "truncation=0.7")
    assert drawn.code == 0, drawn.err
    with np.load("drawn/samples.npz") as arrays:
        channels, *sides = json.loads(size)
        assert arrays["images"].shape == (4, *sides, channels)
    judged = gan("eval", "run=run", "metrics=ms_ssim", "n=8", "device=cpu")
    assert judged.code == 0, judged.err
    for kind in ("safetensors", "onnx"):
        made = gan("sample", "run=run", f"format={kind}", f"run_dir={kind}")
        assert made.code == 0, made.err
    again = gan(
        "sample", "run=safetensors/generator.safetensors", "n=4", "format=npz", "run_dir=again", "truncation=0.7"
    )
    assert again.code == 0, again.err
    with np.load("drawn/samples.npz") as a, np.load("again/samples.npz") as b:
        assert np.array_equal(a["images"], b["images"])


def test_half_precision_trains_with_filters_and_blur_in_float32(gan: Gan) -> None:
    """Also backward, which runs outside autocast."""
    trained = gan("train", *NARROW, "model.variant=R", "precision=bf16", "run_dir=run")
    assert trained.code == 0, trained.err
    G: Any = Generator((3, 16, 16), 6, w_dim=7, ch_base=64, ch_max=6)
    layer = G.layers[0]
    x = torch.randn(2, 6, *(side + 2 for side in G.signals[0].sides)).bfloat16()
    wide = filtered(x.float(), layer.filters, layer.up_filter, layer.down_filter)
    with torch.autocast("cpu", torch.bfloat16):
        half = filtered(x, layer.filters, layer.up_filter, layer.down_filter)
        image = Blur(2.0, 10)(torch.ones(1, 1, 16, 16), 0)
    assert torch.equal(half, wide.bfloat16())
    assert (image.dtype, torch.equal(image, Blur(2.0, 10)(torch.ones(1, 1, 16, 16), 0))) == (torch.float32, True)


def test_tools_for_styles_take_it(gan: Gan) -> None:
    assert gan("train", *NARROW, "run_dir=run").code == 0
    for words in (
        ["sample", "mixing=0-7", "n=4"],
        ["sample", "format=w", "n=2", "run_dir=styles"],
        ["sample", "w=styles/styles.npz"],
        ["interpolate", "axis=w", "rows=2", "frames=3"],
        ["interpolate", "axis=direction1", "rows=2", "frames=3", "layers=middle"],
        ["eval", "metrics=swd", "n=8", "device=cpu"],
    ):
        answer = gan(words[0], "run=run", *words[1:])
        assert answer.code == 0, (words, answer.err)


WANTED = {  # by network: the least or the most in dB that the metrics may say (Karras et al. 2021, appendix E)
    "T": {"eq_t": (70, 200)},
    "R": {"eq_t": (70, 200), "eq_r": (60, 200)},
    "T, nonlinearity not filtered": {"eq_t": (0, 60)},
    "T, no margin": {"eq_t": (0, 45)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WANTED])
def test_untrained_networks_tell_right_filters_from_wrong_ones(name: str) -> None:
    """Of one seed: over 14 seeds EQ-T of T is 60 to 77 dB, as that of the released code for the same weights."""
    wanted = WANTED[name]
    metrics = [metric for metric in (EqT(), EqR()) if metric.name in wanted]
    found = equivariance.measured(equivariance.settled(4, equivariance.SETTINGS[name]), metrics, 4)
    assert all(low <= found[key] < high for key, (low, high) in wanted.items()), found


def test_the_first_signal_is_never_above_its_rate() -> None:
    for side in (16, 20, 33, 64, 100, 257):
        found = Generator((1, side, side), 4, w_dim=4, ch_base=16, ch_max=2).signals
        assert all(s.cutoff <= s.rate / 2 for s in found)
        assert found[-1].rate == side


def test_refusals_are_one_line(gan: Gan) -> None:
    for keys, said in (
        (["dataset.size=[3,26,18]"], "halve exactly"),  # the discriminator's
        (["dataset.size=[3,8,8]"], "at least 16 pixels, not 8x8"),
        (["model.variant=S"], "model.G.variant=S"),
        (["game.blur_images=0", "model.variant=R"], "game.blur_images=0: must be at least 1"),
        (["game.blur_images=50"], "game.blur_images=50 has no effect without a blur"),
        (["model.G.margin=101"], "from 0 to 100"),
        (["game.mixing=2"], "game.mixing=2"),
    ):
        answer = gan("train", *NARROW, *keys)
        assert (answer.code, said in answer.err, answer.err.count("\n")) == (2, True, 1), answer.err
