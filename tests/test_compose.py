"""Every file in conf/ composes, and every model, loss and penalty goes with every other, or says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from gancli.compute.device import Compute
from gancli.config.build import SECTIONS, check, convert, find, make_as
from gancli.config.compose import compose, conf_dir, expand, groups, quote
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.errors import CombinationError, ConfigError
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.terms import Term, Terms
from gancli.nets.layers.attention import Attention
from gancli.train import assemble, automatic, streams
from gancli.train.checks import check_sections
from gancli.train.optimizers import schedules
from gancli.train.schedule import Schedule
from tests.conftest import Gan
from tests.contract.cast import TINY
from tests.tiny import facts_of, weights

GROUPS = groups("train")
NEEDS = {"dataset=folder": ["dataset.root=x"], "dataset=npz": ["dataset.root=x"]}
NEEDS |= {f"game={name}": [f"model={name}"] for name in ("cogan", "cyclegan", "fastgan", "pix2pix")}
NEEDS |= {f"generator={name}": ["model=projected"] for name in GROUPS["generator"] if name != "none"}
NEEDS |= {f"terms={name}": [f"model={name.partition('_')[0]}"] for name in GROUPS["terms"] if name != "none"}


@pytest.mark.parametrize("choice", [f"{g}={c}" for g, cs in GROUPS.items() for c in cs])
def test_every_file_composes(choice: str) -> None:
    config = automatic.filled(compose("train", [choice, *NEEDS.get(choice, [])]))
    settings = make_as(TrainSettings, config, "")
    if settings.pretrained and choice.startswith("pretrained="):  # which the default model does not take
        check(settings.pretrained, "pretrained", ("where",))
        with pytest.raises(CombinationError, match="uses pretrained=: set pretrained=none"):
            check_sections(settings)
        return
    if not settings.loss:  # which the default game cannot do without
        with pytest.raises(CombinationError, match="this game needs an adversarial loss: type loss=NAME"):
            check_sections(settings)
        return
    check_sections(settings)
    assert settings.steps is None or settings.steps >= 0


@pytest.mark.parametrize("choice", [f"{g}={c}" for g, cs in groups("eval").items() for c in cs])
def test_every_evaluation_file_composes(choice: str) -> None:
    config = compose("eval", [choice])
    for name, node in config["metrics"].items():
        check(node, f"metrics.{name}")
    check(config["extractor"], "extractor")
    assert config["metrics"]


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        (["experiment=wgan_gp_robustness", "loss=ns", "penalty=none"], {}),
        (["experiment=wgan_gp_toy", "penalty=r1"], {"r1": 10.0}),
        (["experiment=r3gan_small", "penalty=[r1,ortho]"], {"r1": 1.0, "ortho": 1e-4}),
        (["model=improved", "penalty=lecam", "game=noise"], {"lecam": 0.1}),
        (["model=improved"], {"feature_matching": 0.004}),
    ],
)
def test_a_weight_of_a_penalty_that_was_replaced_says_nothing(keys: list[str], left: dict[str, float]) -> None:
    config = compose("train", keys)
    check_sections(make_as(TrainSettings, config, ""))
    assert {name: node["weight"] for name, node in (config["penalty"] or {}).items()} == left


def test_a_weight_that_was_typed_for_a_penalty_that_is_not_there_is_answered() -> None:
    with pytest.raises(ConfigError, match=r"penalty\.r1"):
        check_sections(make_as(TrainSettings, compose("train", ["penalty=none", "penalty.r1.weight=3"]), ""))


TRANSLATORS, OF_LATENTS = {"pix2pix", "cyclegan", "cyclegan_unet"}, {"mode_seeking", "zcr_d", "zcr_g"}
OF_STYLES, STYLED = (
    {"path_length": ("path_length",), "stylegan2": ("path_length", "r1")},
    {"stylegan", "stylegan2", "stylegan3"},
)
LAZY = OF_STYLES | {"stylegan3": ("r1",)}
SPECTRAL = {"sngan", "sagan", "biggan", "biggan_deep", "fastgan", "projected"}
BOUNDING = {
    "progan",
    "stylegan2",
    "stylegan3",
    "wgan_gp",
    "r1",
    "r2",
    "r1_r2",
    "r1_approx",
    "r2_approx",
    "zero_centred",
    "dragan",
    "clip",
}


OBJECTIVES = [loss for loss in GROUPS["loss"] if loss != "none"]
# Every loss with every penalty on the quick networks; on the others every loss and every penalty.
COMBINATIONS = [
    (model, loss, penalty)
    for model, loss, penalty in product(GROUPS["model"], OBJECTIVES, GROUPS["penalty"])
    if model in ("mlp", "dcgan") or penalty == "none" or loss == ("energy" if model == "ebgan" else "hinge")
]


@pytest.mark.parametrize(("model", "loss", "penalty"), COMBINATIONS)
def test_every_combination_trains_or_says_why(model: str, loss: str, penalty: str) -> None:
    keys = [*TINY[model], f"loss={loss}", f"penalty={penalty}", "dataset.n=8", "batch_size=4"]
    keys += ["game.d_steps=1"] if "d_steps" in compose("train", TINY[model])["game"] else []
    keys += ["model.norm=instance"] if model == "pix2pix" and penalty != "none" else []
    keys += [f"penalty.{name}.every=1" for name in LAZY.get(penalty, ())]
    config = compose("train", keys)
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    unbound = loss == "wasserstein" and penalty not in BOUNDING and model not in SPECTRAL
    no_energy = loss == "energy" and model != "ebgan"
    if unbound or no_energy or (penalty == "clip" and model in SPECTRAL):
        with pytest.raises(CombinationError, match="loss=energy" if no_energy else "penalty="):
            assemble.game(config, DataFacts.of(source))
        return
    if penalty in OF_STYLES and model not in STYLED:
        with pytest.raises(CombinationError, match="penalty=path_length needs a generator with styles"):
            assemble.game(config, DataFacts.of(source))
        return
    if model in TRANSLATORS | STYLED and penalty in OF_LATENTS:
        with pytest.raises(CombinationError, match=r"(no latents|does not draw): leave it out"):
            assemble.game(config, DataFacts.of(source))
        return
    engine = assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())
    before = {name: weights(net) for name, net in engine.game.nets.items()}
    for _ in range(2):
        logs = engine.step()
    assert all(value.isfinite() for value in logs.values())
    several = {"r1_r2": {"penalty_r1", "penalty_r2"}, "progan": {"penalty_wgan_gp", "penalty_drift"}}
    several |= {"stylegan2": {"penalty_path_length", "penalty_r1"}, "stylegan3": {"penalty_r1"}}
    paid = ({"none": set(), "clip": set()} | several).get(penalty, {f"penalty_{penalty}"})
    critics = [critic for critic in engine.game.judging() if not critic.lone]  # several say whose a penalty is
    paid = {name.replace("penalty", f"penalty_{c.name}", 1) for c in critics for name in paid} if critics else paid
    assert {name for name in logs if name.startswith("penalty_")} == paid
    assert all(not before[name].equal(weights(net)) for name, net in engine.game.nets.items())


@pytest.mark.parametrize("keys", [["penalty=none"], ["penalty=[r1,wgan_gp]", "penalty.r1.every=2"]])
def test_real_networks_do_not_depend_on_the_split(keys: list[str]) -> None:
    moved = []
    for micro in ("null", "1"):
        config = compose(
            "train", [*TINY["sngan"], *keys, "optimizer=sgd", "dataset.n=8", "batch_size=4", f"micro_batch={micro}"]
        )
        settings = make_as(TrainSettings, config, "")
        source = streams.data(settings)
        game = assemble.game(config, DataFacts.of(source)).double()
        for norm in [m for m in game.nets["G"].modules() if isinstance(m, nn.BatchNorm2d)]:
            norm.eval()  # batch norm's statistics are those of the micro-batch, by its nature
        engine = assemble.engine(settings, source, game, Compute())
        before = weights(game)
        engine.step()
        moved.append(weights(game) - before)
    assert moved[0].abs().max() > 1e-4
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["input", "hidden", "ac", "projection"])
@pytest.mark.parametrize("penalty", ["none", "wgan_gp"])
def test_every_conditioning_trains_whatever_the_split(kind: str, penalty: str) -> None:
    moved = []
    for micro in ("null", "3"):
        keys = [f"model.conditioning={kind}", "model.attention=[8]", f"penalty={penalty}", f"micro_batch={micro}"]
        data = ["dataset=random", "dataset.size=[1,16,16]", "dataset.n=8", "dataset.classes=3", "batch_size=4"]
        config = compose("train", ["model=sngan", "model.ch=4", "game.d_steps=1", "optimizer=sgd", *data, *keys])
        settings = make_as(TrainSettings, config, "")
        source = streams.data(settings)
        game = assemble.game(config, DataFacts.of(source)).double()
        for module in game.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # batch norm's statistics are those of the micro-batch, by its nature
            elif isinstance(module, Attention):
                nn.init.constant_(module.gamma, 0.5)
        engine = assemble.engine(settings, source, game, Compute())
        before = weights(game)
        logs = engine.step()
        assert ({"class_D", "class_G"} <= logs.keys()) == (kind == "ac")
        moved.append(weights(game) - before)
    assert moved[0].abs().max() > 1e-4
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("data", ["ring", "grid", "swissroll"])
def test_points_train_too(data: str) -> None:
    config = compose("train", ["model=mlp", f"dataset={data}", "dataset.n=100", "batch_size=8"])
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    engine = assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())
    assert engine.step()["loss_D"].isfinite()


def test_layer_norm_replaces_batch_norm_under_a_penalty_on_single_images() -> None:
    facts, sized = facts_of((1, 16, 16), ()), [*TINY["dcgan"], "dataset.size=16"]
    for penalty, kind in (
        ("none", "BatchNorm2d"),
        ("wgan_gp", "LayerNorm"),
        ("r1", "LayerNorm"),
        ("clip", "BatchNorm2d"),
    ):
        game = assemble.game(compose("train", [*sized, f"penalty={penalty}"]), facts)
        assert {type(m).__name__ for m in game.nets["D"].modules() if "Norm" in type(m).__name__} == {kind}


def test_a_loss_on_the_command_line_beats_the_models_own() -> None:
    assert compose("train", ["model=sngan"])["loss"]["_target_"].endswith("Hinge")
    assert compose("train", ["model=sngan", "loss=ns"])["loss"]["_target_"].endswith("NonSaturating")
    assert compose("train", ["model=sngan"])["game"]["d_steps"] == 5
    assert compose("train", ["model=sngan", "optimizer=sgd"])["optimizer"]["G"]["_target_"] == "torch.optim.SGD"


def test_several_penalties_add_up() -> None:
    config = compose(
        "train", [*TINY["dcgan"], "penalty=[r1,wgan_gp]", "penalty.r1.weight=2", "dataset.n=8", "batch_size=4"]
    )
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    engine = assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())
    assert {"penalty_r1", "penalty_wgan_gp"} <= engine.step().keys()
    assert engine.game.critic.penalties["r1"].weight == 2


@pytest.mark.parametrize(
    "target",
    ["os.system", "gancli.cli.main", "torch.load", "torch.optim.lr_scheduler.StepLR", "builtins.eval", "", None,
     "gancli.nets.dcgan.nn", "gancli.nets.dcgan.LEAK", "gancli.nets..os.system", "gancli.nets.dcgan.Generator.forward"],
)  # fmt: skip
def test_only_parts_of_gan_can_be_built(target: str | None) -> None:
    for section in SECTIONS:
        with pytest.raises(ConfigError):
            find(target, section)


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("model.G", "gancli.pretrained.weights.fetched"),
        ("model.G", "gancli.nets.layers.norms.norm"),
        ("loss", "gancli.losses.penalties.R1"),
        ("loss", "gancli.losses.adversarial.AdversarialLoss"),
        ("loss", "gancli.data.noise.noise"),
        ("dataset", "gancli.data.cache.store"),
        ("observers.x", "gancli.observers.observer.Stop"),
        ("game", "gancli.games.latent.Latent"),
        ("extractor", "gancli.metrics.extractor.averaged"),
    ],
)
def test_each_section_builds_its_own_kind_of_part(section: str, target: str) -> None:
    with pytest.raises(ConfigError, match="_target_"):
        find(target, section)


def test_values_are_converted_or_refused() -> None:
    assert convert("auto", str | None, "k") == "auto"
    assert convert(None, str | None, "k") is None
    assert convert([1, 2], list[int], "k") == [1, 2]
    assert convert(3, float, "k") == 3.0
    for value, hint in (("3", int), (True, int), (1.5, int), ("x", bool), ([1], tuple[int, int]), (None, int)):
        with pytest.raises(ConfigError, match=r"^k="):
            convert(value, hint, "k")


def test_texts_and_paths_need_no_quotes() -> None:
    for text in (
        "Food & Drink",
        "/data/[x]/a b",
        "it's",
        "a=b",
        "50% (of) {all}",
        "x\\",
        "ends with \\'",
        "a,b",
        "${x}y"[1:],
    ):
        assert compose("train", quote([f"note={text}"]))["note"] == text
    assert quote(["note=null", "steps=3", "note='a'"]) == ["note=null", "steps=3", "note='a'"]
    assert quote(["run=[a,b]"]) == ["run=[a,b]"]


def test_sweeps_expand() -> None:
    assert expand(["seed=1,2", "loss=ns"]) == [["seed=1", "loss=ns"], ["seed=2", "loss=ns"]]


def test_own_group_files(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: gancli.losses.adversarial.Hinge\n")
    assert compose("train", ["loss=mine"], [tmp_path])["loss"]["_target_"].endswith("Hinge")
    assert "mine" in groups("train", [tmp_path])["loss"]
    with pytest.raises(ConfigError, match="did you mean mine"):
        compose("train", ["loss=mines"], [tmp_path])


def test_every_key_at_the_top_is_explained() -> None:
    from gancli.config.help import keys

    for verb in ("train", "sample", "eval", "interpolate"):
        config = compose(verb, [])
        assert {k.partition(".")[0] for k, _, _ in keys(verb)} == set(config) - set(groups(verb))
    assert conf_dir().is_dir()


def test_a_player_may_have_its_own_schedule() -> None:
    config = compose("train", ["+optimizer.D.schedule.kind=linear", "+optimizer.D.schedule.unit=images"])
    shared, own = schedules(config["optimizer"])
    assert (shared.schedule or Schedule()).kind == "constant"
    assert own == {"D": Schedule(kind="linear", unit="images")}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("+optimizer.D.schedule.kin=linear", "optimizer.D.schedule"),
        ("loss=null", "loss"),
    ],
)
def test_a_part_that_does_not_fit_the_game_is_refused(gan: Gan, typed: str, said: str) -> None:
    answer = gan("train", typed, "steps=0")
    assert answer.code == 2
    assert said in answer.err


def test_a_part_that_a_game_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(NoiseGame):
        def __init__(self, nets: Mapping[str, nn.Module], loss: AdversarialLoss, latent: Latent, *, d_steps: int = 1):
            super().__init__(nets, loss, {}, latent, d_steps=d_steps)

    Bare.__module__ = "gancli.games.noise"
    monkeypatch.setattr("gancli.games.noise.Bare", Bare, raising=False)
    node = {"_target_": "gancli.games.noise.Bare"}

    def settings(*more: str) -> TrainSettings:
        return replace(make_as(TrainSettings, compose("train", [*TINY["dcgan"], *more]), ""), game=node)

    check_sections(settings())
    for typed in ("penalty=r1", "augment=diffaugment", "ramp=r3gan"):
        group = typed.partition("=")[0]
        with pytest.raises(CombinationError, match=f"does not use {group}=: set {group}=none"):
            check_sections(settings(typed))
    with pytest.raises(CombinationError, match="does not use terms=: set terms=none"):
        check_sections(replace(settings(), terms={"t": {"columns": ["a", "b"]}}))


def test_a_game_that_takes_terms_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Termed(NoiseGame):
        def __init__(
            self, nets: Mapping[str, nn.Module], loss: AdversarialLoss, latent: Latent, terms: Mapping[str, Term]
        ):
            super().__init__(nets, loss, {}, latent)
            self.terms = Terms(terms, columns=("z", "x"))

    Termed.__module__ = "gancli.games.noise"
    monkeypatch.setattr("gancli.games.noise.Termed", Termed, raising=False)
    config = compose("train", TINY["dcgan"])
    config["game"] = {"_target_": "gancli.games.noise.Termed"}
    config["terms"] = {"t": {"columns": ["z", "x"], "weight": 2}}
    check_sections(make_as(TrainSettings, config, ""))
    built = assemble.game(config, facts_of((1, 8, 8)))
    assert isinstance(built, Termed)
    assert built.terms.terms == {"t": Term(columns=("z", "x"), weight=2.0)}
    config["terms"]["t"]["colums"] = 1
    with pytest.raises(ConfigError, match=r"unknown key terms\.t\.colums: did you mean columns\?"):
        check_sections(make_as(TrainSettings, config, ""))
