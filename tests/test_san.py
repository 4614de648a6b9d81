"""SAN: the last layer's direction has unit norm and learns from its own term, all else from the objective."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu, softplus

from gancli.compute.rng import Rng
from gancli.config.compose import compose, groups
from gancli.errors import CombinationError
from gancli.games.critic import Critic
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import (
    AdversarialLoss,
    Energy,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Wasserstein,
)
from gancli.losses.penalties import R1
from gancli.nets import biggan_deep, cogan, dcgan, mlp, patch, progan, r3gan, resnet
from gancli.nets import gan as dense
from gancli.nets.layers.direction import has_direction, renormalise, unit
from gancli.nets.layers.spectral import is_spectral
from gancli.nets.verdict import Verdict
from gancli.train import assemble
from tests import tiny
from tests.conftest import TINY as COMMAND
from tests.conftest import Gan
from tests.contract.cast import TINY, engine_of, tried
from tests.tiny import facts_of

F64 = torch.float64
SMALL, LARGE = (2, 8, 8), (2, 16, 16)
OBJECTIVES = [loss for loss in groups("train")["loss"] if loss != "none"]
SHARED = ("cogan", "cyclegan", "cyclegan_unet")  # both D have one key
REFUSED = ("ebgan", "improved")


def key_of(model: str) -> str:
    return "model.san=true" if model in SHARED else "model.D.san=true"


# Each with the names of the weights that make up its direction.
NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "gan": (lambda **k: dense.Discriminator(SMALL, hidden=(8,), **k), SMALL, ("head.weight",)),
    "mlp": (lambda **k: mlp.Discriminator((5,), hidden=(8,), **k), (5,), ("head.weight",)),
    "mlp minibatch": (lambda **k: mlp.Discriminator((5,), hidden=(8,), minibatch=3, **k), (5,), ("head.weight",)),
    "dcgan": (lambda **k: dcgan.Discriminator(LARGE, ch=4, **k), LARGE, ("head.weight",)),
    "dcgan virtual": (lambda **k: dcgan.Discriminator(LARGE, ch=4, norm="virtual", **k), LARGE, ("head.weight",)),
    "dcgan minibatch": (lambda **k: dcgan.Discriminator(LARGE, ch=4, minibatch=3, **k), LARGE, ("head.2.weight",)),
    "sngan": (lambda **k: resnet.Discriminator(LARGE, ch=4, **k), LARGE, ("head.logit.weight",)),
    "biggan_deep": (
        lambda **k: biggan_deep.Discriminator(LARGE, 3, ch=4, **k),
        LARGE,
        ("head.logit.weight", "head.embed.weight"),
    ),
    "cogan": (lambda **k: cogan.Discriminator(LARGE, ch=2, **k), LARGE, ("shared.1.0.weight",)),
    "patch": (lambda **k: patch.Discriminator(LARGE, ch=2, layers=1, norm="instance", **k), LARGE, ("head.weight",)),
    "pixel": (lambda **k: patch.Discriminator(LARGE, ch=2, layers=0, norm="batch", **k), LARGE, ("head.weight",)),
    "r3gan": (lambda **k: r3gan.Discriminator(LARGE, ch=4, **k), LARGE, ("head.weight",)),
    "r3gan projection": (
        lambda **k: r3gan.Discriminator(LARGE, 3, ch=4, conditioning="projection", **k),
        LARGE,
        ("embed.weight",),
    ),
}
for kind, weights in (
    ("input", ("head.logit.weight",)),
    ("hidden", ("head.logit.weight",)),
    ("ac", ("head.logit.weight",)),
    ("projection", ("head.logit.weight", "head.embed.weight")),
):
    NETWORKS[f"sngan {kind}"] = (
        lambda kind=kind, **k: resnet.Discriminator(LARGE, 3, ch=4, conditioning=kind, **k),
        LARGE,
        weights,
    )
for kind in ("none", "ac", "projection"):
    NETWORKS[f"progan {kind}"] = (
        lambda kind=kind, **k: progan.Discriminator(LARGE, 3, ch_base=64, ch_max=8, conditioning=kind, **k),
        LARGE,
        ("last.out.weight",),
    )


def made(name: str, san: bool = True) -> nn.Module:
    torch.manual_seed(5)
    return NETWORKS[name][0](san=san).double().eval()


def judged(net: nn.Module, name: str, rows: int = 4) -> tuple[Tensor, Verdict]:
    x = torch.randn(rows, *NETWORKS[name][1], dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    verdict: Verdict = net(x) if name in ("patch", "pixel") else net(x, torch.arange(rows) % 3)
    assert isinstance(verdict.logits, Tensor)
    assert isinstance(verdict.direction, Tensor)
    return x, verdict


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_term_trains_the_direction_only_and_the_logits_all_else(name: str) -> None:
    net, directions = made(name), NETWORKS[name][2]
    x, verdict = judged(net, name)
    assert torch.equal(verdict.direction, verdict.logits)  # type: ignore[arg-type]
    named = dict(net.named_parameters())
    for logits, reached in ((verdict.direction, True), (verdict.logits, False)):
        assert isinstance(logits, Tensor)
        slopes = torch.autograd.grad(logits.square().sum(), [x, *named.values()], allow_unused=True, retain_graph=True)
        assert (slopes[0] is None) == reached
        for parameter, slope in zip(named, slopes[1:], strict=True):
            if reached or parameter in directions:
                assert (slope is not None) == (reached and parameter in directions), parameter


@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_direction_of_its_weights_counts(name: str) -> None:
    net = made(name)
    before = judged(net, name)[1].logits
    with torch.no_grad():
        for parameter in NETWORKS[name][2]:
            net.get_parameter(parameter).mul_(7.0)
    after = judged(net, name)[1]
    torch.testing.assert_close(after.logits, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "minibatch" not in name and name != "r3gan projection"])
def test_the_direction_has_unit_norm(name: str) -> None:
    """The gradient of a logit with respect to the features before the last layer is the direction."""
    _, verdict = judged(made(name), name, rows=3)
    assert verdict.features is not None
    assert isinstance(verdict.logits, Tensor)
    logits = verdict.logits
    if logits.dim() > 1:  # a patch in the middle, which lies inside the image
        logits = logits[:, 0, logits.shape[2] // 2, logits.shape[3] // 2]
    (slopes,) = torch.autograd.grad(logits.sum(), verdict.features[-1])
    torch.testing.assert_close(slopes.flatten(1).norm(dim=1), torch.ones(3, dtype=F64), rtol=1e-12, atol=0)


def test_the_embedding_is_the_direction_of_a_product_of_outputs() -> None:
    net = made("r3gan projection")
    assert isinstance(net, r3gan.Discriminator)
    _, verdict = judged(net, "r3gan projection", rows=3)
    assert verdict.features is not None
    rows = net.embed.weight.t()  # type: ignore[union-attr]
    rows = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(verdict.logits, (net.head(verdict.features[-1]) * rows).sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_stored_directions_start_with_norm_1_and_return_to_it(name: str) -> None:
    net = made(name).float()
    before = judged(net.double(), name)[1].logits
    rows = net.directions()  # type: ignore[operator]
    assert len(rows) == (0 if name in ("sngan projection", "biggan_deep") else 1)
    for weight in rows:
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(len(weight), dtype=F64), rtol=1e-6, atol=0)
        weight.data.mul_(5.0)
    renormalise(net)
    for weight in rows:
        torch.testing.assert_close(unit(weight), weight)
    torch.testing.assert_close(judged(net, name)[1].logits, before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_it_nothing_changes(name: str) -> None:
    plain, sliced = made(name, san=False), made(name)
    assert not has_direction(plain)
    assert {k: v.shape for k, v in plain.named_parameters()} == {k: v.shape for k, v in sliced.named_parameters()}
    before = copy.deepcopy(plain.state_dict())
    renormalise(plain)
    assert all(torch.equal(before[k], v) for k, v in plain.state_dict().items())
    x = torch.zeros(3, *NETWORKS[name][1], dtype=F64)
    verdict = plain(x) if name in ("patch", "pixel") else plain(x, torch.arange(3))
    assert verdict.direction is None


def test_spectral_norm_is_left_out_of_the_last_layer_only() -> None:
    net = resnet.Discriminator(LARGE, 3, ch=4, conditioning="projection", san=True)
    assert not any(is_spectral(m) for m in net.head.modules())
    assert all(is_spectral(block.conv1) for block in net.blocks)


def test_a_verdict_splits_its_direction() -> None:
    a, b = torch.arange(3.0), torch.arange(6.0).view(3, 2)
    first, second = Verdict([a, b], direction=[a + 1, b + 1]).split([1, 2])
    assert isinstance(first.direction, list)
    assert isinstance(second.direction, list)
    assert [x.tolist() for x in first.direction] == [[1.0], [[1.0, 2.0]]]
    assert [x.tolist() for x in second.along().scales()] == [[2.0, 3.0], [[3.0, 4.0], [5.0, 6.0]]]


# -- the term ----------------------------------------------------------------------------------------------------------


def gap(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


@pytest.mark.parametrize(
    ("loss", "term"),
    [
        (Hinge(), gap),
        (Wasserstein(), gap),
        (RelativisticPairing(), gap),
        (RelativisticAverage(kind="ns"), lambda r, f: 2 * gap(r, f)),
        (RelativisticAverage(kind="lsgan"), lambda r, f: 8 * gap(r, f)),
        (NonSaturating(smooth=0.1), lambda r, f: softplus(-r).mean() - softplus(-f).mean()),
        (Energy(plain=True), lambda r, f: softplus(-r).mean() - softplus(-f).mean()),
        (Minimax(), lambda r, f: softplus(f).mean() - softplus(r).mean()),
        (LeastSquares(), lambda r, f: (softplus(1 - r) ** 2 - softplus(1 - f) ** 2).mean() / 2),
    ],
)
def test_the_term_of_each_objective(loss: AdversarialLoss, term: Callable[[Tensor, Tensor], Tensor]) -> None:
    real, fake = torch.randn(2, 7, dtype=F64, generator=torch.Generator().manual_seed(2))
    assert loss.direction(real, fake).item() == pytest.approx(term(real, fake).item(), abs=1e-12)


@pytest.mark.parametrize(
    "loss", [Hinge(), Wasserstein(), RelativisticPairing(), RelativisticAverage(kind="hinge"), NonSaturating(),
             Energy(plain=True), Minimax(), LeastSquares(), RelativisticAverage(kind="lsgan"), RelativisticAverage()]
)  # fmt: skip
def test_the_term_never_rises_with_real_logits_nor_falls_with_fake_ones(loss: AdversarialLoss) -> None:
    real, fake = (torch.linspace(-6, 6, 25, dtype=F64).requires_grad_() for _ in range(2))
    up, down = torch.autograd.grad(loss.direction(real, fake), (real, fake))
    assert (up <= 1e-12).all()
    assert (down >= -1e-12).all()


def step_of(loss: AdversarialLoss, **keys: Any) -> tuple[Any, dict[str, Tensor], Tensor, Tensor]:
    """The engine before D's step, its weights, and the real images and fakes of that step."""
    torch.manual_seed(7)
    built = tiny.game(loss)
    nets = {"G": built.nets["G"], "D": mlp.Discriminator(tiny.SHAPE, hidden=(16,), san=True)}
    game = NoiseGame(nets, loss, {}, Latent(dim=4), **keys)
    game.fields = built.fields
    engine = tiny.engine(game, dtype=F64, sgd=True)
    move = game.moves(engine.at)[0]
    rng = engine._rng(move, 0)
    real = engine._batch(move, 8, 0, 8)["x"]
    with torch.no_grad():
        fake = game.nets["G"](game.latent.draw(rng))
    return engine, {k: v.detach().clone() for k, v in game.nets["D"].named_parameters()}, real, fake


def objective_of(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    if kind == "hinge":
        return relu(1 - real).mean() + relu(1 + fake).mean()
    return softplus(-real).mean() + softplus(fake).mean() if kind == "ns" else fake.mean() - real.mean()


@pytest.mark.parametrize(
    ("kind", "loss"), [("hinge", Hinge()), ("ns", NonSaturating()), ("wasserstein", Wasserstein())]
)
def test_the_whole_step_of_d_is_that_of_its_formula(
    kind: str, loss: AdversarialLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features h = leaky(Wx + a) and bias b by the objective with ω constant; ω by the closed form of its gradient."""
    monkeypatch.setattr(Wasserstein, "lipschitz", False)  # a test of one step needs no bound
    engine, old, real, fake = step_of(loss)
    w = old["head.weight"][0]
    omega, length = w / w.norm(), w.norm()
    weight, bias, b = (old[k].requires_grad_() for k in ("body.0.weight", "body.0.bias", "head.bias"))

    def features(x: Tensor) -> Tensor:
        return leaky_relu(x.flatten(1) @ weight.t() + bias, 0.2)

    h_real, h_fake = features(real), features(fake)
    logits = h_real @ omega + b, h_fake @ omega + b
    slopes = torch.autograd.grad(objective_of(kind, *logits), (weight, bias, b))
    h_real, h_fake, *logits = (t.detach() for t in (h_real, h_fake, *logits))
    # The slope of G's loss, by which the term weights each sample: sigmoid(-l) for ns, 1 for the others.
    shares = [(-x).sigmoid() if kind == "ns" else torch.ones_like(x) for x in logits]
    along = (shares[1][:, None] * h_fake).mean(0) - (shares[0][:, None] * h_real).mean(0)
    turned = (along - omega * (omega @ along)) / length
    moved = w - 0.01 * turned
    engine.step()
    new = dict(engine.game.nets["D"].named_parameters())
    for name, slope in zip(("body.0.weight", "body.0.bias", "head.bias"), slopes, strict=True):
        torch.testing.assert_close(new[name].detach(), old[name].detach() - 0.01 * slope, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(new["head.weight"][0].detach(), moved / moved.norm(), rtol=1e-12, atol=1e-13)
    assert (moved - w).norm() > 1e-5


def test_flipped_labels_are_flipped_for_the_direction_too() -> None:
    torch.manual_seed(0)
    nets = nn.ModuleDict({"G": tiny.TinyG(), "D": mlp.Discriminator(tiny.SHAPE, hidden=(8,), san=True)})
    critic = Critic("D", nets, Wasserstein(flip=0.5), {"r1": R1()})
    rng, x = Rng(0, total=16), torch.randn(2, 16, *tiny.SHAPE)
    sides = {"real": (x[0], None), "fake": (x[1], None)}
    losses = critic.discriminator_losses(critic.judge(rng, **sides), rng, **sides)
    assert losses["direction_D"].item() == pytest.approx(losses["loss_D"].item(), rel=1e-6)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TINY)
def test_every_discriminator_with_every_objective_trains_or_says_why(model: str) -> None:
    for loss in OBJECTIVES:
        keys = [*TINY[model], key_of(model), f"loss={loss}", "dataset.n=8", "batch_size=4"]
        keys += ["loss.plain=true"] if loss == "energy" and model != "ebgan" else []
        keys += ["penalty=r1_approx", *(["model.norm=instance"] if model == "pix2pix" else [])]
        engine, said = tried(keys)
        if model in REFUSED:
            assert engine is None
            assert "needs a last layer that is linear" in said
            continue
        assert engine is not None, said
        nets = {name: net for name, net in engine.game.nets.items() if name.startswith("D")}
        before = {name: [w.detach().clone() for w in net.directions()] for name, net in nets.items()}
        logs = engine.step()
        assert {f"direction_{name}" for name in nets} <= logs.keys(), loss
        assert all(value.isfinite() for value in logs.values())
        for name, net in nets.items():
            for old, new in zip(before[name], net.directions(), strict=True):
                assert not torch.equal(old, new)
                torch.testing.assert_close(new.flatten(1).norm(dim=1), torch.ones(len(new)))


@pytest.mark.parametrize("conditioning", ["input", "hidden", "ac", "projection"])
@pytest.mark.parametrize("keys", [[], ["penalty=[r1,r2_approx]", "penalty.r1.every=2"]])
def test_micro_batches_change_nothing(conditioning: str, keys: list[str]) -> None:
    moved = []
    for micro in ("null", "3"):
        data = ["dataset=random", "dataset.size=[1,16,16]", "dataset.n=8", "dataset.classes=3", "batch_size=4"]
        small = ["model=sngan", "model.ch=4", "game.d_steps=1", "optimizer=sgd", f"model.conditioning={conditioning}"]
        own = [*small, *data, *keys, "model.D.san=true", f"micro_batch={micro}"]
        engine = engine_of(own, double=True, still_norms=True)
        before = tiny.weights(engine.game)
        engine.step()
        moved.append(tiny.weights(engine.game) - before)
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("penalty", ["r1", "wgan_gp", "zero_centred", "lecam", "consistency", "r1_approx"])
def test_penalties_leave_the_direction_alone(penalty: str) -> None:
    engine = engine_of([*TINY["mlp"], "model.D.san=true", f"penalty={penalty}", f"penalty.{penalty}.every=2"])
    weight = engine.game.nets["D"].head.weight
    moves = {move.name or move.player: move for move in engine.game.moves(engine.at)}
    before = weight.detach().clone()
    if penalty == "lecam":
        engine.game.critic.memory("memory_lecam")["moves"].add_(10_000)
    engine.play(moves[penalty], 0, {})
    torch.testing.assert_close(weight.detach(), before, rtol=1e-6, atol=1e-7)  # only its norm is set to 1 again


@pytest.mark.parametrize(
    "keys",
    [
        ["game.pack=2"],
        ["augment=ada"],
        ["augment=diffaugment", "loss.noise=0.1", "loss.flip=0.2", "loss.top=0.5"],
        ["model.D.minibatch=4"],
        ["model.D.norm=virtual"],
        ["game.adversarial=0", "penalty=feature_matching"],
    ],
)
def test_other_parts_go_with_it(keys: list[str]) -> None:
    assert engine_of([*TINY["dcgan"], "model.D.san=true", *keys]).step()["direction_D"].isfinite()


def test_weights_of_an_objective_are_those_of_its_direction() -> None:
    logs = []
    for weight in (1, 3):
        logs.append(engine_of([*TINY["cyclegan"], "model.san=true", f"game.d_weight={weight}"]).step())
    for name in ("direction_D_A", "direction_D_B"):
        assert logs[1][name].item() == pytest.approx(3 * logs[0][name].item(), rel=1e-4)
    mixed = engine_of([*TINY["pix2pix"], "model.D.san=true", "game.mismatched=0.5"]).step()
    assert {"direction_D", "direction_D_mismatched"} <= mixed.keys()


def test_clipping_is_refused() -> None:
    with pytest.raises(CombinationError, match="SAN normalises"):
        engine_of([*TINY["dcgan"], "model.D.san=true", "penalty=clip"])


def test_an_objective_beyond_logits_is_refused() -> None:
    class Beyond(Hinge):
        beyond_logits = True

    nets = nn.ModuleDict({"G": tiny.TinyG(), "D": mlp.Discriminator(tiny.SHAPE, hidden=(8,), san=True)})
    with pytest.raises(CombinationError, match="uses more than the logits"):
        Critic("D", nets, Beyond())


def test_a_run_from_before_the_key_has_none() -> None:
    config = compose("train", TINY["dcgan"])
    del config["model"]["D"]["san"]
    assert not has_direction(assemble.game(config, facts_of((1, 8, 8))).nets["D"])


@pytest.mark.parametrize("model", REFUSED)
def test_a_d_without_a_linear_last_layer_is_refused_in_one_line(gan: Gan, model: str) -> None:
    answer = gan("train", *TINY[model], "model.D.san=true", "dataset.n=8", "batch_size=4", "steps=1")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "set model.D.san=false" in answer.err


RUNS = ["observers.progress=null", "observers.report=null", "device=cpu", "dataset.n=24", "batch_size=4"]


@pytest.mark.parametrize("model", ["dcgan", "mlp", "sagan", "r3gan", "stylegan", "pix2pix", "cogan"])
def test_a_resumed_run_ends_with_the_same_bits(gan: Gan, model: str) -> None:
    keys = ["train", *TINY[model], *RUNS, key_of(model)]
    assert gan(*keys, "steps=2", "run_dir=whole").code == 0
    assert gan(*keys, "steps=1", "run_dir=part").code == 0
    assert gan("train", "resume=part", "steps=2").code == 0
    whole, part = (torch.load(Path(run) / "checkpoints/00000002.pt", weights_only=True) for run in ("whole", "part"))
    assert whole["game"].keys() == part["game"].keys()
    assert all(torch.equal(part["game"][k], v) for k, v in whole["game"].items())
    flag = whole["config"]["model"]["D_A" if model == "cogan" else "D"]["san"]
    assert flag is True


def test_a_run_can_be_sampled_and_exported(gan: Gan) -> None:
    assert gan("train", *COMMAND, "model.D.san=true", "steps=2", "run_dir=run").code == 0
    assert gan("sample", "run=run", "n=2").code == 0
    assert gan("interpolate", "run=run").code == 0
