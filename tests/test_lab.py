"""Points, alarms, adaptive augmentation and semi-supervised learning, by the commands that a person types."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.augment.ada import SYM6, Ada, Draw, coloured, geometry, resampled, rotation, scaling, translation
from gancli.compute.device import Compute
from gancli.compute.rng import Rng
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.data.source import table
from gancli.errors import ConfigError, MetricError
from gancli.games.game import Game
from gancli.games.semisup import SemiSupervisedGame
from gancli.metrics.linear_probe import activations
from gancli.nets.improved import Discriminator, WeightNormLinear
from gancli.observers.alarms import Alarms
from gancli.observers.observer import Alarm, RunView, Stop, Values
from gancli.observers.plane import Plane
from gancli.observers.remedies import remedy
from gancli.observers.spread import Spread
from gancli.train import assemble, streams
from tests import tiny
from tests.conftest import Gan
from tests.tiny import facts_of

F64 = torch.float64
QUICK = ["batch_size=8", "dataset.n=200", "model.hidden=[16]", "observers.progress=null", "device.threads=1"]


# -- points ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "width"), [("gauss1d", 768), ("ring", 774), ("grid", 774), ("swissroll", 774)])
def test_a_run_on_points_leaves_pictures_and_a_film(gan: Gan, data: str, width: int) -> None:
    keys = [*QUICK, f"dataset={data}", "observers.plane.every=2", "observers.plane.n=50", "run_dir=r", "steps=4"]
    assert gan("train", "model=mlp", *keys).code == 0
    names = sorted(p.name for p in Path("r/samples").iterdir())
    assert names == ["00000000.png", "00000002.png", "00000004.png", "training.gif"]
    with Image.open("r/samples/00000004.png") as picture, Image.open("r/samples/training.gif") as film:
        assert picture.size[0] == width
        assert getattr(film, "n_frames", 1) == 3


def test_the_film_of_a_resumed_run_begins_at_its_start(gan: Gan) -> None:
    keys = [*QUICK, "dataset=ring", "observers.plane.every=2", "observers.plane.n=50", "run_dir=r"]
    assert gan("train", "model=mlp", *keys, "steps=2").code == 0
    assert gan("train", "resume=r", "steps=6").code == 0
    with Image.open("r/samples/training.gif") as film:
        assert getattr(film, "n_frames", 1) == 4


def test_where_d_says_real_is_blue() -> None:
    view = RunView(tiny.engine(), 10)
    observer = Plane()
    assert list(observer.on_step(view)) == []  # images: nothing to draw
    from gancli.observers.plane import FAKE, REAL, density, shade

    pixels = shade(torch.tensor([[0.0, 1.0]]).repeat(96, 48), FAKE, REAL)
    assert pixels.shape == (384, 384, 3)
    assert tuple(pixels[0, 0]) == FAKE
    assert tuple(pixels[0, 4]) == REAL
    corner = density(torch.tensor([[0.99, 0.99]]), torch.zeros(2), torch.ones(2))
    assert corner[0, -1] == 1  # the first row is the highest
    assert corner.sum() == 1


def test_modes_and_divergences_of_a_run(gan: Gan) -> None:
    assert gan("train", "model=mlp", *QUICK, "dataset=gauss1d", "run_dir=r", "steps=2").code == 0
    answer = gan("eval", "run=r", "metrics=[modes,divergences]", "n=100", "run_dir=e")
    assert answer.code == 0, answer.err
    found = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    assert {"modes", "good", "reverse_kl", "jsd", "w1", "mmd", "protocol", "protocol_id"} <= found.keys()
    assert found["protocol"]["modes"] == {"reach": 3.0}
    assert 0 <= found["jsd"] <= math.log(2)
    assert found["modes"] in (0, 1, 2)


def test_metrics_that_do_not_fit_the_run_say_so(gan: Gan, trained: Path, labelled: Path) -> None:
    for metric, words in (
        ("modes", "dataset=ring"),
        ("divergences", "use fid"),
        ("errors", "game=semisup"),
        ("linear_probe", "this D has the labels as input"),
    ):
        run = labelled if metric == "linear_probe" else trained
        answer = gan("eval", f"run={run}", f"metrics=[{metric}]", "n=8", "run_dir=e")
        assert answer.code != 0
        assert words in answer.err, (metric, answer.err)
        assert not Path("e").exists()


def test_a_single_gaussian_takes_one_mode_or_covers_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gancli import lab

    p = lab.mixture()
    assert float(p.sum()) * lab.STEP == pytest.approx(1, abs=1e-6)
    mean, sigma, _ = lab.fit(lab.DIVERGENCES["KL(p||q)"])
    assert mean == pytest.approx(-0.6, abs=1e-3)  # KL(p||q) matches the moments
    assert sigma**2 == pytest.approx(0.6 * (0.36 + 5.76) + 0.4 * (0.64 + 12.96), rel=1e-3)
    mean, sigma, value = lab.fit(lab.DIVERGENCES["KL(q||p)"])
    assert (mean, sigma) == pytest.approx((-3, 0.6), abs=2e-2)
    assert value == pytest.approx(-math.log(0.6), abs=1e-3)


# -- alarms ------------------------------------------------------------------------------------------------------------


def looks(observer: Alarms, view: RunView, rows: list[dict[str, float]]) -> list[object]:
    """What the observer says of steps with these values."""
    said: list[object] = []
    for k, row in enumerate(rows, start=1):
        view.engine.step_number = k
        view.logs = {name: torch.tensor(value) for name, value in row.items()}
        said += list(observer.on_step(view))
    return said


def test_a_sure_d_is_told_once_after_patience_and_again_only_after_it_was_well() -> None:
    observer, view = Alarms(every=1, patience=2, n=4), RunView(tiny.engine(), 100)
    observer.open(view)
    observer._spreads.data["x"] = 1e-3
    sure, well = {"D_real": 9.0, "D_fake": -9.0}, {"D_real": 1.0, "D_fake": -1.0}
    said = [a.name for a in looks(observer, view, [sure] * 5 + [well] + [sure] * 3) if isinstance(a, Alarm)]
    assert said == ["saturated", "saturated"]


def test_collapse_and_a_vanishing_gradient_are_told_with_remedies() -> None:
    observer, engine = Alarms(every=1, patience=1, n=16), tiny.engine()
    view = RunView(engine, 100)
    observer.open(view)
    observer._spreads.data["x"] *= 0.1  # what tiny networks draw is as varied as these data
    engine.step()
    well = {"D_real": 0.1, "D_fake": 0.0}
    (row,) = looks(observer, view, [well])
    assert isinstance(row, Values)
    assert {"step", "diversity", "gradient_G"} == row.values.keys()
    with torch.no_grad():
        engine.game.nets["G"].out.weight.mul_(0.05)
        for p in engine.players["G"].params:
            engine.players["G"].optimizer.state[p]["exp_avg_sq"].mul_(1e-12)
    said = {a.name: a.text for a in looks(observer, view, [well]) if isinstance(a, Alarm)}
    assert set(said) == {"collapse", "vanishing"}
    assert "penalty=" in said["collapse"]
    assert "lower optimizer.D.lr" in said["vanishing"]


def test_a_g_that_begins_at_the_mean_image_is_not_taken_for_dead() -> None:
    observer, engine = Alarms(every=1, patience=1, n=4), tiny.engine()
    observer.open(RunView(engine, 100))
    assert observer._best["born"] > 0.01
    observer.spreads = lambda view: [Spread("", 0.005, lone=True)]  # type: ignore[method-assign]
    view = RunView(engine, 100)
    well = {"D_real": 0.1, "D_fake": 0.0}
    assert [type(s) for s in looks(observer, view, [well])][-1] is Stop  # it drew many and now one
    observer.open(view)
    assert observer._best["born"] == 0.005
    assert Stop not in [type(s) for s in looks(observer, view, [well] * 5)]


def test_a_gradient_is_known_where_the_optimizer_remembers_none() -> None:
    engine = tiny.engine(sgd=True)
    observer, view = Alarms(every=1, n=4), RunView(engine, 100)
    observer.open(view)
    count = sum(p.numel() for p in engine.players["G"].params)
    row = looks(observer, view, [{"grad_norm_G": 3.0}])[0]
    assert isinstance(row, Values)
    assert row.values["gradient_G"] == pytest.approx(3 / count**0.5)


def test_networks_fit_themselves_to_the_data_before_the_first_step() -> None:
    for name, keys in {
        "G.head.bias": ["model=gan", "model.G.hidden=[8]", "model.D.hidden=[8]"],
        "D.layers.0.g": ["model=improved", "model.G.hidden=[8]", "model.D.hidden=[8]", "game.labels=4"],
    }.items():
        words = [*keys, "dataset=random", "dataset.size=[1,8,8]", "dataset.n=64", "dataset.classes=2", "batch_size=4"]
        config = compose("train", words)
        settings = make_as(TrainSettings, config, "")
        source = streams.data(settings)
        bare = assemble.game(config, DataFacts.of(source)).nets.state_dict()[name]
        fitted = [
            assemble.engine(
                settings, source, assemble.game(config, DataFacts.of(source)), Compute()
            ).game.nets.state_dict()[name]
            for _ in range(2)
        ]
        assert not torch.equal(bare, fitted[0])
        assert torch.equal(*fitted)
        if name == "G.head.bias":  # the mean of all 64 images
            mean = source.rows(np.arange(64))["x"].double().mean(0).flatten() / 255
            torch.testing.assert_close(fitted[0], mean.logit().float(), rtol=1e-4, atol=1e-4)


def game_of(*keys: str) -> Game:
    return assemble.game(compose("train", list(keys)), facts_of((1, 16, 16), tuple("abc")))


def test_remedies_are_those_that_the_run_would_take() -> None:
    plain = game_of("model=dcgan", "model.ch=4", "loss=minimax")
    assert remedy("vanishing", plain) == (
        "G's gradient is close to 0: lower optimizer.D.lr, set loss=ns or loss=hinge or add penalty=r1"
        " (with model.D.norm=auto if D has batch norm)"
    )
    assert remedy("collapse", plain).endswith("add penalty=mode_seeking or set model.D.minibatch=100")
    busy = ["game.pack=2", "penalty=[r1,mode_seeking]", "model.D.minibatch=4", "augment=diffaugment", "loss.noise=0.2"]
    used = game_of("model=dcgan", "model.ch=4", "loss=ns", *busy)
    for name, cure in (("saturated", "lower optimizer.D.lr"), ("collapse", "lower optimizer.G.lr")):
        assert remedy(name, used).endswith(f": {cure}")
    told = game_of("model=sngan", "model.ch=4", "model.conditioning=projection", "dataset.size=[1,32,32]")
    assert "game.pack" not in remedy("collapse", told)
    assert "game.pack" not in remedy("collapse", game_of("model=improved", "game.labels=3"))
    assert "minibatch" not in remedy("collapse", told)


def test_a_sure_d_is_no_alarm_where_g_learns_from_its_features() -> None:
    engine = tiny.engine()
    view, observer = RunView(engine, 100), Alarms(every=1, patience=1, n=4)
    observer.open(view)
    observer._spreads.data["x"] = 1e-3
    sure = {"D_real": 9.0, "D_fake": -9.0}
    engine.game.critic.adversarial = 0.0
    assert [a for a in looks(observer, view, [sure]) if isinstance(a, Alarm)] == []


def test_a_d_that_says_the_same_of_all_images_ends_the_run() -> None:
    observer, view = Alarms(every=1, patience=2), RunView(tiny.engine(), 100)
    observer.open(view)
    said = looks(observer, view, [{"D_real": 0.3, "D_fake": 0.3}] * 2)
    assert [type(s) for s in said if not isinstance(s, Values)] == [Stop]
    assert "same output for real samples and fakes since step 1" in said[-1].reason  # type: ignore[attr-defined]


def test_logits_beyond_all_bounds_end_the_run() -> None:
    observer, view = Alarms(every=1), RunView(tiny.engine(), 100)
    observer.open(view)
    (stop,) = looks(observer, view, [{"loss_D": 3e7}])
    assert isinstance(stop, Stop)
    assert stop.failed
    assert "loss_D is 3e+07 at step 1" in stop.reason


def test_a_thousandfold_rate_ends_by_itself_in_words_and_keeps_the_last_good_checkpoint(gan: Gan) -> None:
    keys = ["model=dcgan", "model.ch=4", "loss=hinge", "dataset=random", "dataset.size=[1,16,16]", "dataset.n=32"]
    keys += ["batch_size=8", "optimizer.G.lr=0.2", "optimizer.D.lr=0.2", "observers.alarms.every=5"]
    answer = gan("train", *keys, "observers.progress=null", "run_dir=r", "steps=2000", "device.threads=1")
    assert answer.code == 2
    assert "the run diverged" in answer.err
    assert "lower optimizer.G.lr" in answer.err
    assert answer.err.count("last good checkpoint") == 1
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert about["status"] == "failed"
    assert about["step"] < 2000
    assert gan("sample", "run=r", "n=4").code == 0


def test_alarms_are_kept_in_metrics_and_the_log(gan: Gan) -> None:
    keys = ["model=mlp", *QUICK, "dataset=ring", "loss=minimax", "optimizer.D.lr=0.05", "optimizer.G.lr=1e-7"]
    keys += ["observers.alarms.every=10", "observers.alarms.patience=1", "run_dir=r", "steps=400"]
    answer = gan("train", *keys)
    assert "alarm at step" in answer.err
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    alarms = [row for row in rows if "alarm" in row]
    assert {"step", "alarm", "text"} <= alarms[0].keys()
    assert alarms[0]["text"] in Path("r/log.txt").read_text(encoding="utf-8")


# -- adaptive augmentation ---------------------------------------------------------------------------------------------


def test_the_filter_is_an_orthogonal_wavelet() -> None:
    taps = torch.tensor(SYM6, dtype=F64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2), abs=1e-11)
    for k in range(6):
        assert (taps[2 * k :] * taps[: 12 - 2 * k]).sum().item() == pytest.approx(float(k == 0), abs=1e-11)


def test_resampling_by_nothing_is_the_image_and_by_whole_pixels_its_shift() -> None:
    taps = torch.tensor(SYM6, dtype=F64)
    taps = taps / taps.sum()
    x = torch.rand(2, 3, 16, 12, dtype=F64)
    still = torch.eye(3, dtype=F64).expand(2, 3, 3)
    torch.testing.assert_close(resampled(x, still, taps), x, rtol=0, atol=1e-10)
    right = translation(torch.full((2,), -3.0, dtype=F64), torch.zeros(2, dtype=F64))
    torch.testing.assert_close(resampled(x, right, taps)[..., 3:], x[..., :-3], rtol=0, atol=1e-10)
    mirror = scaling(torch.full((2,), -1.0, dtype=F64), torch.ones(2, dtype=F64))
    quarter = rotation(torch.full((2,), math.pi / 2, dtype=F64))
    square = x[..., :12, :]
    assert (resampled(x, mirror, taps) - x.flip(3)).abs().mean() < 0.25  # an even filter is half a pixel off
    assert resampled(square, quarter, taps).shape == square.shape


def test_without_probability_nothing_changes_and_with_it_all_samples_differ() -> None:
    x, rng = torch.rand(8, 3, 16, 16, dtype=F64), Rng(0, 0, total=8, dtype=F64)
    torch.testing.assert_close(Ada(p=0.0).double()(x, rng, "real"), x, rtol=0, atol=1e-6)
    changed = Ada(p=1.0).double()(x, rng, "real")
    assert (changed - x).abs().flatten(1).amax(1).min() > 0.05
    parts = torch.cat([Ada(p=1.0).double()(x[a:b], rng.cut(a, b), "real") for a, b in ((0, 3), (3, 8))])
    torch.testing.assert_close(parts, changed, rtol=0, atol=1e-10)


def test_colour_keeps_grey_grey() -> None:
    draw = Draw(Rng(1, total=6, dtype=F64), "real", torch.ones((), dtype=F64), F64)
    grey = torch.rand(6, 1, 4, 4, dtype=F64).expand(6, 3, 4, 4)
    out = coloured(draw, grey)
    torch.testing.assert_close(out[:, 0], out[:, 1], rtol=0, atol=1e-12)
    # Of one channel it makes what it makes of the same image in three.
    torch.testing.assert_close(coloured(draw, grey[:, :1]), out[:, :1], rtol=0, atol=1e-12)
    assert geometry(draw, torch.Size((8, 8))).shape == (6, 3, 3)


def test_p_follows_how_sure_d_is() -> None:
    ada = Ada(target=0.6, interval=2, images=100)
    for sign, want in ((1.0, 0.0), (1.0, 0.2), (0.0, 0.2), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)):
        ada.feedback({"D_sign": torch.tensor(sign)}, 10)
        assert ada.p.item() == pytest.approx(want, abs=1e-6)
    with pytest.raises(ConfigError, match="augment"):
        Ada(p=2.0)


@pytest.mark.parametrize("augment", ["diffaugment", "ada"])
def test_augmented_runs_train_resume_and_sample(gan: Gan, augment: str) -> None:
    keys = ["model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[3,16,16]", "dataset.n=24", "batch_size=4"]
    keys += [f"augment={augment}", "observers.progress=null", "run_dir=r"]
    assert gan("train", *keys, "steps=2").code == 0
    assert gan("train", "resume=r", "steps=4").code == 0
    assert gan("sample", "run=r", "n=4").code == 0
    refused = gan("train", "model=mlp", "dataset=ring", f"augment={augment}", "run_dir=x")
    assert refused.code == 2
    assert "augment=none" in refused.err


# -- semi-supervised ---------------------------------------------------------------------------------------------------


def test_the_fake_class_has_logit_zero() -> None:
    """D(x) = Z / (Z + 1), so that softplus(-logit) is -log of the share that the K classes have together."""
    D = Discriminator((1, 2, 2), 3, hidden=(4,)).eval()
    said = D(torch.randn(5, 1, 2, 2))
    assert said.classes is not None
    assert isinstance(said.logits, torch.Tensor)
    with_fake = torch.cat([said.classes, torch.zeros(5, 1)], 1).softmax(1)
    torch.testing.assert_close(said.logits.sigmoid(), with_fake[:, :3].sum(1))


def test_scales_are_fitted_to_a_batch() -> None:
    layer, x = WeightNormLinear(3, 4), torch.randn(50, 3) * 7 + 2
    out = layer.fit(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(layer(x), out)


def test_labels_are_as_many_of_each_class_and_the_same_every_time() -> None:
    labels = np.arange(60) % 3
    source = table("x", np.zeros((60, 1, 2, 2), np.uint8), labels, ["a", "b", "c"])
    game = SemiSupervisedGame.__new__(SemiSupervisedGame)
    torch.nn.Module.__init__(game)
    game.labels, game.label_seed = 12, 0
    rows = game.labelled_rows(source)
    assert np.bincount(labels[rows]).tolist() == [4, 4, 4]
    assert rows.tolist() == game.labelled_rows(source).tolist()
    game.labels = 13
    with pytest.raises(ConfigError, match="multiple of the 3 classes"):
        game.labelled_rows(source)


def test_semisup_trains_resumes_to_the_same_bits_and_counts_errors(gan: Gan) -> None:
    keys = ["model=improved", "model.D.hidden=[16,8]", "model.G.hidden=[8,8]", "game.labels=20", "batch_size=10"]
    keys += ["observers.progress=null", "observers.checkpoints.every=2", "device.threads=1"]
    assert gan("train", *keys, "steps=4", "run_dir=a").code == 0
    assert gan("train", *keys, "steps=2", "run_dir=b").code == 0
    assert gan("train", "resume=b", "steps=4").code == 0
    a, b = (torch.load(f"{run}/checkpoints/00000004.pt", weights_only=True) for run in "ab")
    assert all(torch.equal(a["game"][k], b["game"][k]) for k in a["game"])
    assert all(torch.equal(a["ema"]["D"][k], b["ema"]["D"][k]) for k in a["ema"]["D"])
    answer = gan("eval", "run=a", "metrics=[errors]", "run_dir=e")
    assert "train on a data set that has it" in answer.err  # the embedded clothes have one split
    assert gan("sample", "run=a", "n=4").code == 0
    assert "use model=improved" in gan("train", "model=dcgan", "game=semisup", "game.adversarial=1", "run_dir=x").err


def test_a_probe_finds_features_in_every_dense_d() -> None:
    keys = ["model=improved", "game.labels=3", "model.D.hidden=[8,4]"]
    assert len(activations(game_of(*keys).nets["D"])) == 2
    assert len(activations(game_of("model=mlp", "model.D.activation=softplus").nets["D"])) == 3
    assert len(activations(game_of("model=gan").nets["D"])) == 2
    with pytest.raises(MetricError, match="finds no layers"):
        activations(torch.nn.Linear(2, 2))


def test_likelihood_and_linear_probe_of_a_run(gan: Gan, trained: Path) -> None:
    pytest.importorskip("sklearn")
    keys = ["metrics.parzen.n_valid=10", "metrics.parzen.n_test=12", "metrics.parzen.sigmas=3"]
    shutil.copytree(trained, "r")  # results are kept in the run, which is not this test's
    answer = gan("eval", "run=r", "metrics=[parzen,linear_probe]", *keys, "n=16", "run_dir=e")
    assert answer.code == 0, answer.err
    found = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    assert found["sigma"] in (pytest.approx(0.1), pytest.approx(0.3162, abs=1e-4), pytest.approx(1.0))
    assert found["parzen"] <= max(found["valid"].values()) + 50
    assert found["parzen_error"] > 0
    assert 0 <= found["linear_probe"] <= 1
    assert found["probe_images"] == [24, 24]
    assert found["protocol"]["parzen"] == {"sigmas": 3, "n_valid": 10, "n_test": 12}
