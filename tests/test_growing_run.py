"""Runs that grow: resumed in every stage, drawn at every size, mixed, and announced before they begin."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.cli import main
from gancli.compute.rng import Rng
from gancli.draw import reading
from gancli.errors import CombinationError, ConfigError
from gancli.losses.penalties import input_gradient
from gancli.nets.layers.minibatch import MinibatchDeviation
from gancli.nets.layers.noise import NoiseMap
from gancli.store import export
from gancli.train.engine import Engine
from gancli.train.rehearsal import Rehearsal
from gancli.train.tracing import OverTime
from gancli.verbs import mixing
from tests.conftest import Gan
from tests.contract.cast import engine_of
from tests.test_engine import run, same
from tests.test_growing import KEYS, STYLE
from tests.test_train import same_run

TABLE = ["game.batches=[8,4,2]", "game.rates=[1,1,2]"]
COMMON = [*KEYS, *TABLE, "device=cpu", "dataset.n=24", "observers.progress=null", "observers.grid.n=4"]


def keys_of(kind: str) -> list[str]:
    return [f"model={kind}", *COMMON, *(STYLE if kind == "stylegan" else [])]


def engine(kind: str, *extra: str) -> Engine:
    return engine_of([*keys_of(kind), "game.first_side=4", "batch_size=null", *extra])


def test_the_stages_are_those_of_the_released_code() -> None:
    found = engine_of(["model=progan", "dataset=random", "dataset.size=[3,64,64]", "model.ch_max=4", "dataset.n=8"])
    stages = [(s.name, s.start, s.batch_size, s.level, s.rate("G"), s.reset, s.end) for s in found.course.stages]
    k, both = 600_000, ("G", "D")
    assert stages == [
        ("4x4", 0, 512, 4, 1, (), None),
        ("8x8 fade", k, 256, 3, 1, both, None),
        ("8x8", 2 * k, 256, 3, 1, both, None),
        ("16x16 fade", 3 * k, 128, 2, 1, both, None),
        ("16x16", 4 * k, 128, 2, 1, both, None),
        ("32x32 fade", 5 * k, 64, 1, 1, both, None),
        ("32x32", 6 * k, 64, 1, 1, both, None),
        ("64x64 fade", 7 * k, 32, 0, 1, both, None),
        ("64x64", 8 * k, 32, 0, 1, both, 9 * k),
    ]
    large = engine_of(
        [
            "model=stylegan",
            "dataset=random",
            "dataset.size=[3,256,256]",
            "model.ch_max=4",
            "dataset.n=8",
            "steps=1",
        ]
    )
    shown = [(s.name, s.batch_size, s.rate("D")) for s in large.course.stages if "fade" not in s.name]
    assert shown == [
        ("8x8", 256, 1), ("16x16", 128, 1), ("32x32", 64, 1), ("64x64", 32, 1), ("128x128", 32, 1.5), ("256x256", 32, 2)
    ]  # fmt: skip


def test_growth_may_begin_at_any_size_or_not_at_all() -> None:
    assert [s.name for s in engine("progan", "game.first_side=8").course.stages] == ["8x8", "16x16 fade", "16x16"]
    still = engine("progan", "game.first_side=16")
    assert [(s.name, s.level, s.end) for s in still.course.stages] == [("16x16", 0, 8)]
    run(still, 1)
    assert not still.game.growth.fading  # type: ignore[attr-defined]
    wide = engine_of([*keys_of("progan"), "dataset.size=[3,8,16]"])
    assert [s.name for s in wide.course.stages] == ["4x8", "8x16 fade", "8x16"]
    run(wide, 4)


@pytest.mark.parametrize("kind", ["progan", "stylegan"])
def test_it_stops_in_every_stage_and_goes_on_to_the_same_bits(kind: str) -> None:
    """8 images of 4×4, 24 of a fade, 8, 24 of a fade, 8: in the middle of a fade, at a border, after a reset."""
    straight = engine(kind, "steps=null")
    count, stages, middles = straight.steps, [], {}
    for step in range(count):
        at = straight.at
        stages.append(at.stage.name)
        middles[step] = copy.deepcopy(straight.state())
        straight.step()
    assert stages == ["4x4"] + ["8x8 fade"] * 6 + ["8x8"] * 2 + ["16x16 fade"] * 12 + ["16x16"] * 4
    for stop in (1, 4, 7, 8, 9, 15, 21, 22):
        again = engine(kind, "steps=null")
        again.load(middles[stop])
        run(again, count - stop)
        same(straight.state(), again.state())


def test_optimizers_begin_anew_at_both_ends_of_a_fade_and_rates_follow_the_size() -> None:
    found = engine("progan", "steps=null")
    ages = []
    for _ in range(found.steps):
        found.step()
        state = found.players["G"].optimizer
        ages.append((max((int(s["step"]) for s in state.state.values()), default=0), state.param_groups[0]["lr"]))
    assert [age for age, _ in ages[:10]] == [0, 1, 2, 3, 4, 5, 0, 1, 0, 1]
    assert ages[0][1] == ages[8][1] == 1e-3
    assert ages[9][1] == ages[-1][1] == 2e-3


def test_the_average_has_grown_as_far_as_the_network() -> None:
    found = run(engine("progan", "model.ema.decay=0.5"), 4)
    average = found.networks()["G"]
    growth = average.growth
    assert growth is not found.game.nets["G"].growth
    assert (growth.doublings, growth.fading) == (1, True)
    assert float(growth.share) == pytest.approx(8 / 24)  # of the last step, which began after 8 + 8 images
    assert average(torch.randn(2, 6)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("kind", ["progan", "stylegan"])
@pytest.mark.parametrize("augment", ["ada", "diffaugment"])
def test_augmentation_goes_with_every_size(kind: str, augment: str) -> None:
    extra = ["augment.p=1", "augment.target=null"] if augment == "ada" else []
    found = engine(kind, f"augment={augment}", *extra, "steps=null")
    for _ in range(found.steps):
        logs = found.step()
        assert all(value.isfinite() for value in logs.values())


def test_labels_of_d_s_fakes_are_those_of_its_images() -> None:
    found = engine("progan", "model.conditioning=ac", "dataset.classes=3")
    game: Any = found.game
    asked: list[torch.Tensor] = []
    game.nets["G"].register_forward_pre_hook(lambda _, args: asked.append(args[1]))
    batch = found._batch(game.moves(found.at)[0], 8, 0, 8)
    found.step()
    assert torch.equal(asked[0], batch["y"])
    assert not torch.equal(asked[1], batch["y"])


def test_networks_that_do_not_grow_are_refused() -> None:
    with pytest.raises(CombinationError, match="G does not grow: use model=progan or model=stylegan"):
        engine_of(
            ["model=dcgan", "game=progan", "dataset=random", "dataset.size=[1,8,8]", "dataset.n=8", "batch_size=4"]
        )
    with pytest.raises(CombinationError, match="needs a generator with styles: use model=stylegan"):
        engine_of([*keys_of("progan"), "game=stylegan"])
    with pytest.raises(ConfigError, match=r"game\.batches=\[\]: one or more numbers above 0"):
        engine("progan", "game.batches=[]")


def test_a_growing_model_trains_without_growth_in_the_noise_game() -> None:
    found = run(engine_of(["model=progan", *KEYS[:5], "game=noise", "batch_size=4", "steps=2", "dataset.n=8"]), 1)
    assert found.game.nets["G"].growth.doublings == 2


# -- styles ------------------------------------------------------------------------------------------------------------


def test_the_average_of_w_follows_the_batches() -> None:
    found = engine("stylegan", "game.w_decay=0.75")
    game: Any = found.game
    wanted = torch.zeros(7)
    found.game.enter(found.at)
    for name in ("D", "G"):
        move = next(m for m in game.moves(found.at) if m.player == name)
        z = game.latent.draw(found._rng(move, 0))
        wanted = wanted.lerp(game.generator.mapping(z).mean(0), 0.25)
    found.step()
    torch.testing.assert_close(game.generator.mapping.mean, wanted.detach())


def styled(game: Any, rng: Rng) -> tuple[torch.Tensor, torch.Tensor]:
    own = game.generator.mapping(game.latent.draw(rng))
    return game._styled(rng, own, None), own


def test_one_cut_serves_the_whole_batch_and_lies_within_the_active_layers() -> None:
    found = engine("stylegan", "game.mixing=1")
    game: Any = found.game
    cuts = set()
    for step in range(40):
        found.step_number = step
        game.enter(found.at)
        rng = found._rng(game.moves(found.at)[0], 0)
        w, own = styled(game, rng)
        same_rows = [(w[:, k] == own).all().item() for k in range(w.shape[1])]
        cut = same_rows.index(False)
        assert not any(same_rows[cut:])
        cuts.add(cut)
    assert cuts == {1}  # two layers are active at 4×4
    game.growth.set(2)
    for step in range(60):
        found.step_number = step
        rng = found._rng(game.moves(found.at)[0], 0)
        w, own = styled(game, rng)
        cuts.add([(w[:, k] == own).all().item() for k in range(6)].index(False))
    assert cuts == {1, 2, 3, 4, 5}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that stopped at 8×8 of 16×16."""
    folder = tmp_path_factory.mktemp("grown")
    for kind in ("progan", "stylegan"):
        words = ["train", *keys_of(kind), "game.first_side=4", "steps=8", f"run_dir={folder / kind}"]
        assert main([word for word in words if word != "steps=20"]) == 0
    return folder


def arrays(said: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(said.strip().rpartition(": ")[2]) as found:
        return dict(found)


@pytest.mark.parametrize("kind", ["progan", "stylegan"])
def test_an_early_checkpoint_draws_at_its_own_size_or_enlarged(gan: Gan, grown: Path, kind: str) -> None:
    words = ["sample", f"run={grown / kind}", "format=npz", "n=5"]
    whole, small = gan(*words), gan(*words, "size=active")
    assert (whole.code, small.code) == (0, 0)
    large, own = (arrays(answer.out)["images"] for answer in (whole, small))
    assert (large.shape, own.shape) == ((5, 16, 16, 3), (5, 8, 8, 3))
    assert np.array_equal(own.repeat(2, 1).repeat(2, 2), large)
    for answer, told in ((whole, [8, 8]), (small, None)):
        beside = Path(answer.out.strip().rpartition(": ")[2]).with_name("sample.json")
        assert json.loads(beside.read_text(encoding="utf-8")).get("enlarged_from") == told


@pytest.mark.parametrize("kind", ["progan", "stylegan"])
def test_an_early_checkpoint_is_judged_and_exported(gan: Gan, grown: Path, kind: str) -> None:
    scored = gan("eval", f"run={grown / kind}", "metrics=[swd]", "n=16")
    assert scored.code == 0, scored.err
    made = gan("sample", f"run={grown / kind}", "format=safetensors")
    assert made.code == 0, made.err
    file = made.out.partition(": ")[2].partition(" (")[0]
    first, again = (gan("sample", f"run={run}", "format=npz", "n=3", "size=active") for run in (grown / kind, file))
    assert np.array_equal(arrays(first.out)["images"], arrays(again.out)["images"])


@pytest.mark.parametrize("kind", ["progan", "stylegan"])
def test_onnx_gives_the_same_images(gan: Gan, grown: Path, kind: str) -> None:
    made = gan("sample", f"run={grown / kind}", "format=onnx")
    assert made.code == 0, made.err
    assert ("the same noise maps for every image" in made.out) == (kind == "stylegan")


def test_onnx_has_the_noise_of_one_image(grown: Path, tmp_path: Path) -> None:
    import onnxruntime

    sampler, inputs = reading.load(str(grown / "stylegan")), torch.randn(3, 6)
    made = {}
    for scale in (0.0, 1.0):
        for layer in sampler.nets["G"].modules():
            if isinstance(layer, NoiseMap):
                layer.scale.data.fill_(scale)
        folder = tmp_path / str(scale)
        folder.mkdir()
        file, worst = export.write(sampler, "onnx", folder)
        assert worst < 0.05
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        made[scale], again = (session.run(None, {"z": inputs.numpy()})[0] for _ in range(2))
        assert np.array_equal(made[scale], again)
    assert np.abs(made[1.0] - made[0.0]).max() > 0.05


def test_a_run_resumed_within_a_fade_by_the_command_is_the_same_run(gan: Gan) -> None:
    keys = [word for word in keys_of("stylegan") if word != "steps=20"] + ["observers.metrics.every=1"]
    keys += ["observers.scores.every=4", "observers.scores.metrics=[swd]", "observers.scores.n=8"]
    assert gan("train", *keys, "game.first_side=4", "steps=12", "run_dir=a").code == 0
    assert gan("train", *keys, "game.first_side=4", "steps=4", "run_dir=b").code == 0
    assert gan("train", "resume=b", "steps=12").code == 0
    same_run(Path("a"), Path("b"), 12)
    assert "stage 8x8 begins after step 7: batches of 4, the optimizer of G and D is reset" in (
        Path("b") / "log.txt"
    ).read_text(encoding="utf-8")


def test_truncation_moves_the_first_styles_to_their_mean(grown: Path) -> None:
    sampler = reading.load(str(grown / "stylegan"))
    game: Any = sampler.game
    pairs = [(0, k) for k in range(3)]
    kept: list[torch.Tensor] = []
    sampler.nets["G"].register_forward_pre_hook(lambda _, args, keys: kept.append(keys["w"][:3]), with_kwargs=True)
    for one in (sampler, sampler.truncated(0.25).layered(2)):
        one.generate(one.inputs(pairs), pairs)
    plain, cut = kept[0][:, None].expand(-1, 6, -1), kept[1]
    mean = game.generator.mapping.mean
    torch.testing.assert_close(cut[:, :2], mean + 0.25 * (plain[:, :2] - mean))
    assert torch.equal(cut[:, 2:], plain[:, 2:])
    assert sampler.truncated(0.5).inputs(pairs)["psi"].unique().tolist() == [0.5]  # six layers, all below the eighth


def test_a_mixture_differs_from_its_row_in_the_chosen_layers_only(grown: Path) -> None:
    sampler = reading.load(str(grown / "stylegan"))
    kept: list[torch.Tensor] = []
    sampler.nets["G"].register_forward_pre_hook(lambda _, args, keys: kept.append(keys["w"]), with_kwargs=True)
    rows, columns = [(0, 0), (0, 1)], [(0, 2), (0, 3), (0, 4)]
    layers = mixing.layers_of(sampler, [0, 3])
    page = mixing.sheet(sampler, rows, columns, layers)
    assert page.ndim == 3
    w = torch.cat(kept)
    own, mixed = w[:5], w[5:11].unflatten(0, (2, 3))
    for j in range(2):
        for k in range(3):
            for layer in range(6):
                assert torch.equal(mixed[j, k, layer], own[2 + k if layer in layers else j, layer])
    again = mixing.sheet(sampler, rows, columns, mixing.layers_of(sampler, [3, 0]))
    assert np.array_equal(page, again)


def test_the_sheet_of_mixing_by_the_command(gan: Gan, grown: Path) -> None:
    answer = gan("sample", f"run={grown / 'stylegan'}", "mixing=coarse", "n=2")
    assert answer.code == 2
    assert "choose some, but not all, of the 4 layers in use, 0-3" in answer.err
    answer = gan("sample", f"run={grown / 'stylegan'}", "mixing=0-1", "n=2", "truncation=0.7", "size=active")
    assert answer.code == 0, answer.err
    with Image.open(answer.out.strip().rpartition(": ")[2]) as sheet:
        assert sheet.size[0] == sheet.size[1]
    for words, said in (
        (["mixing=corse"], "0-3, or coarse, middle, fine for those of sides"),
        (["mixing=0", "attention=true"], "attention= and mixing= are two figures"),
        (["mixing=0", "format=npz"], "mixing= draws one picture; leave format out"),
        (["mixing=0", "seeds=1,2,3"], "as many seeds for its rows as for its columns"),
        (["mixing=0", "classes=1"], "leave classes out"),
        (["truncation_layers=2"], "add truncation="),
        (["truncation_layers=2", "truncation=1", "run=" + str(grown / "progan")], "has no styles"),
        (["mixing=0", "run=" + str(grown / "progan")], "has no styles to mix"),
    ):
        refused = gan("sample", f"run={grown / 'stylegan'}", *words)
        assert refused.code == 2, words
        assert said in refused.err


def test_size_active_needs_a_network_that_grows(gan: Gan, trained: Path) -> None:
    for verb in ("sample", "interpolate"):
        answer = gan(verb, f"run={trained}", "size=active")
        assert answer.code == 2
        assert "size=active: this generator does not grow" in answer.err


def test_paths_in_w_are_straight_lines_of_styles(gan: Gan, grown: Path) -> None:
    answer = gan("interpolate", f"run={grown / 'stylegan'}", "axis=w", "rows=2", "frames=3")
    assert answer.code == 0, answer.err
    sampler = reading.load(str(grown / "stylegan"))
    made = sampler.game.interpolation_paths()["w"].made
    assert made is not None
    pairs = [(0, k) for k in range(2)]
    w = sampler.computed(made, sampler.inputs(pairs))
    torch.testing.assert_close(w, sampler.nets["G"].mapping(sampler.inputs(pairs)["z"]))
    ends = sampler.generate({"w": w}, pairs)["x"]
    assert torch.equal(ends, sampler.generate(sampler.inputs(pairs), pairs)["x"])


def test_path_length_in_w(gan: Gan, grown: Path) -> None:
    keys = ["metrics=[ppl]", "metrics.ppl.definition=stylegan", "metrics.ppl.crop=false", "n=8"]
    keys += ["extractor=efficientnet_lite0", "metrics.ppl.space=w"]
    answer = gan("eval", f"run={grown / 'stylegan'}", *keys)
    assert answer.code == 0, answer.err
    assert "ppl_wfull_efficientnet_lite0" in answer.out
    refused = gan("eval", f"run={grown / 'progan'}", *keys)
    assert refused.code == 2
    assert "this generator has no styles" in refused.err


# -- before it begins --------------------------------------------------------------------------------------------------


def test_a_fade_stands_for_the_hold_after_it(gan: Gan) -> None:
    found = engine("progan", "steps=null")
    rehearsal = Rehearsal(found)
    need = rehearsal.footprint()
    assert need is not None
    assert need.stages == ("4x4",) * 2 + ("8x8 fade",) * 2 + ("16x16 fade",) * 2
    pace = rehearsal.pace()
    assert list(pace) == ["4x4", "8x8 fade", "16x16 fade", "8x8", "16x16"]
    assert pace["8x8"] == pace["8x8 fade"]


def test_without_time_the_last_stage_is_measured_and_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = engine("progan", "steps=null")
    rehearsal = Rehearsal(found)
    cost, calls = rehearsal._cost, []

    def counted(*words: Any) -> Any:
        calls.append(words[1].player)
        if len(calls) > 2:
            raise OverTime
        return cost(*words)

    monkeypatch.setattr(rehearsal, "_cost", counted)
    need = rehearsal.footprint()
    assert need is not None
    assert need.stages == ("16x16 fade", "16x16 fade")
    assert set(rehearsal.pace()) == {"4x4", "8x8 fade", "8x8", "16x16 fade", "16x16"}


def test_half_precision_of_equal_rows_has_finite_gradients() -> None:
    layer, x = MinibatchDeviation(4), torch.ones(5, 2, 3, 3, dtype=torch.float16, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_growing_run_is_not_compiled_in_silence() -> None:
    assert {"G", "D"} <= set(engine("stylegan").game.eager)


def test_penalties_see_gradients_of_the_last_size_and_samples_as_they_are() -> None:
    found = engine("progan")
    game: Any = found.game
    game.enter(found.at)
    rng = found._rng(game.moves(found.at)[0], 0)
    x = torch.randn(8, 3, 4, 4)
    context = game._context(rng, {}, (x, None), (x, None))
    assert torch.equal(context.fake, x)
    plain = input_gradient(context.judge, x, None)
    torch.testing.assert_close(context.gradient(x, None), plain / 4)
    large = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(
        input_gradient(lambda each, *_: game.critic.net(each).logits, large, None).norm(dim=1), plain.norm(dim=1) / 4
    )


def test_penalties_on_pairs_of_latents_are_refused_with_styles() -> None:
    with pytest.raises(CombinationError, match="penalty=mode_seeking compares samples of single latents"):
        engine("stylegan", "penalty=mode_seeking")


def test_paths_in_w_keep_the_class_of_their_row(gan: Gan) -> None:
    keys = [*keys_of("stylegan"), "model.conditioning=projection", "dataset.classes=3", "game.first_side=16"]
    assert gan("train", *(k for k in keys if k != "steps=20"), "steps=2", "run_dir=r").code == 0
    for chosen in (0, 2):
        asked = ["axis=w", "rows=1", "frames=2", f"classes={chosen}", f"run_dir=c{chosen}"]
        assert gan("interpolate", "run=r", *asked).code == 0
    first, second = (np.asarray(Image.open(f"c{k}/paths.png")) for k in (0, 2))
    assert not np.array_equal(first, second)
    answer = gan("interpolate", "run=r", "axis=w", "mode=lerp")
    assert answer.code == 2
    assert "mode= has no effect with axis=w" in answer.err


@pytest.mark.parametrize("decay", ["0.5", "0"])
def test_a_run_begins_at_its_first_size_with_and_without_an_average(gan: Gan, decay: str) -> None:
    """Also after the rehearsal, which looks at later sizes."""
    keys = [word for word in keys_of("progan") if word != "steps=20"] + [f"model.ema.decay={decay}"]
    assert gan("train", *keys, "steps=2", "run_dir=r").code == 0
    answer = gan("sample", "run=r", "checkpoint=0", "format=npz", "n=2", "size=active")
    assert answer.code == 0, answer.err
    assert arrays(answer.out)["images"].shape == (2, 4, 4, 3)


def test_trials_of_later_stages_leave_the_network_as_grown_as_before() -> None:
    found = run(engine("progan", "steps=null"), 7)
    before = copy.deepcopy(found.game.nets["G"].growth)
    assert Rehearsal(found).footprint() is not None
    after = found.game.nets["G"].growth
    assert (after.doublings, after.fading) == (before.doublings, before.fading) == (1, True)
    assert torch.equal(after.state, before.state)
