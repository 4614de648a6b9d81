"""Where penalties look, what they cost by hand, and whose gradients they stop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gancli.augment.ada import Ada
from gancli.augment.transforms import flip, shift
from gancli.compute.rng import Rng
from gancli.errors import CombinationError
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import LabelLoss, LeastSquares, NonSaturating, RelativisticPairing
from gancli.losses.outputs import Consistency, LatentConsistencyD, LatentConsistencyG, LeCam, ModeSeeking
from gancli.losses.penalties import R1, R2, Context, Dragan, Penalty, ZeroCentred
from gancli.losses.weights import HistoricalG
from gancli.nets.autoencoder import Discriminator as AutoEncoder
from gancli.nets.verdict import Verdict
from tests import tiny

F64 = torch.float64
ROWS = 6


def context(judge: object, real: Tensor | None, fake: Tensor | None, **keys: object) -> Context:
    return Context({}, judge, real, fake, None, None, Rng(0, total=ROWS, dtype=F64), **keys)  # type: ignore[arg-type]


def constant(value: float, *shape: int) -> Tensor:
    return torch.full((ROWS, *(shape or (1,))), value, dtype=F64)


# -- the best D --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "best"),
    [(NonSaturating(), lambda p, q: torch.log(p / q)), (LeastSquares(), lambda p, q: p / (p + q))],
)
def test_the_best_d_is_where_its_gradient_is_zero(loss: LabelLoss, best: object) -> None:
    """D = p / (p + q): Goodfellow et al. 2014, proposition 1, and Mao et al. 2017, equation 4, of labels 1 and 0."""
    p, q = torch.tensor([5, 3, 2]), torch.tensor([1, 3, 6])  # in tenths: every point as often as it is likely
    at = best(p.double(), q.double()).requires_grad_(True)  # type: ignore[operator]
    loss.discriminator(at.repeat_interleave(p), at.repeat_interleave(q)).backward()
    assert at.grad.abs().max() < 1e-15
    away = (at.detach() + 0.1).requires_grad_(True)
    loss.discriminator(away.repeat_interleave(p), away.repeat_interleave(q)).backward()
    assert away.grad.min() > 1e-3  # a minimum: above it the loss rises


# -- slopes ------------------------------------------------------------------------------------------------------------


def test_slopes_are_taken_at_real_images_at_fakes_or_between() -> None:
    """For the critic x²/2 the gradient is x itself, so a penalty shows where it was taken."""
    real, fake = constant(5.0), constant(2.0)
    told = context(lambda x, *_: x.square().sum(1) / 2, real, fake)
    assert R1()(told).item() == pytest.approx(25 / 2, abs=1e-12)
    assert R2()(told).item() == pytest.approx(4 / 2, abs=1e-12)
    share = told.rng.uniform("wgan_gp")
    assert ZeroCentred()(told).item() == pytest.approx((2 + 3 * share).square().mean().item(), abs=1e-12)
    spread = torch.linspace(4, 6, ROWS, dtype=F64).view(-1, 1)
    told = context(told.judge, spread, None)
    noise, share = told.rng.uniform("dragan", 1), told.rng.uniform("dragan share").view(-1, 1)
    near = spread + share * 0.5 * spread.std(correction=0) * noise
    assert Dragan()(told).item() == pytest.approx((near - 1).square().mean().item(), abs=1e-12)


# -- answers -----------------------------------------------------------------------------------------------------------


def test_consistency_by_hand_and_with_both_gradients() -> None:
    """CR is (l(x) - l(T(x)))², bCR the same of fakes on top; D learns from both of the logits."""
    weight = torch.tensor(0.5, dtype=F64, requires_grad=True)
    pixels = torch.arange(64.0, dtype=F64).view(8, 8)
    judge = lambda x, *_: weight * (x * pixels).sum((1, 2, 3))  # noqa: E731
    images = {name: torch.rand(ROWS, 1, 8, 8, dtype=F64) for name in ("real", "fake")}
    told = context(judge, images["real"], images["fake"])
    apart = {}
    for name, x in images.items():
        moved = flip(x, told.rng.uniform(f"{name} flip") < 0.5)
        by = [told.rng.integers(f"{name} shift {k}", 3) - 1 for k in (0, 1)]  # an eighth of 8 pixels: -1, 0 or 1
        apart[name] = ((x - shift(moved, *by)) * pixels).sum((1, 2, 3)).square().mean().item()
    assert Consistency()(told).item() == pytest.approx(apart["real"] / 4, rel=1e-12)
    cost = Consistency(fakes=True)(told)
    assert cost.item() == pytest.approx((apart["real"] + apart["fake"]) / 4, rel=1e-12)
    cost.backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 * 0.5 * (apart["real"] + apart["fake"]), rel=1e-12)


def test_latent_consistency_by_hand() -> None:
    """D's term moves D alone; G's is negative, and G learns from both of its images."""
    slope = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=F64, requires_grad=True)
    weight = torch.tensor([1.0, -2.0], dtype=F64, requires_grad=True)
    z = torch.randn(ROWS, 2, dtype=F64)
    keys = {"z": z, "generate": lambda z, y: z @ slope}
    judge = lambda x, *_: x @ weight  # noqa: E731
    told = context(judge, None, (z @ slope).detach(), **keys)
    delta = told.rng.normal("zcr", 2)
    apart = 0.03 * delta @ slope.detach()
    cost = LatentConsistencyD()(told)
    assert cost.item() == pytest.approx((apart @ weight.detach()).square().mean().item(), rel=1e-9)
    cost.backward()
    assert slope.grad is None
    assert weight.grad is not None
    weight.grad = None
    cost = LatentConsistencyG()(context(judge, None, z @ slope, **keys))
    assert cost.item() == pytest.approx(-apart.square().mean().item(), rel=1e-9)
    cost.backward()
    assert weight.grad is None
    want = -2 * (0.03 * delta).t() @ apart / apart.numel()
    torch.testing.assert_close(slope.grad, want, rtol=1e-8, atol=1e-12)


def test_lecams_averages_have_no_gradient() -> None:
    memory = {"real": torch.tensor(2.0), "fake": torch.tensor(-1.0), "moves": torch.tensor(9)}
    real, fake = constant(0.5).requires_grad_(True), constant(0.0).requires_grad_(True)
    cost = LeCam(after=0)(context(lambda x, *_: x.sum(1), real, fake, memory=memory))
    assert cost.item() == pytest.approx(1.5**2 + 2**2, abs=1e-12)
    cost.backward()
    torch.testing.assert_close(real.grad, constant(2 * 1.5 / ROWS))
    torch.testing.assert_close(fake.grad, constant(-2 * 2 / ROWS))


# -- variety -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_mode_seekings_partners_have_the_law_of_the_latents(kind: str) -> None:
    game = tiny.game(penalties={"mode_seeking": ModeSeeking()})
    game.latent = Latent(dim=4, kind=kind)  # type: ignore[arg-type]
    rng = Rng(0, total=ROWS)
    told = game._context(rng, {})
    assert told.draw is not None
    other = told.draw("mode seeking")
    drawn = rng.normal("mode seeking", 4) if kind == "normal" else rng.uniform("mode seeking", 4) * 2 - 1
    assert torch.equal(other, drawn)
    assert not torch.equal(other, game.latent.draw(rng))


def test_mode_seeking_by_hand() -> None:
    z, other = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 3.0], [1.0, 2.0]])
    keys = {"z": z, "generate": lambda z, y: 2 * z + 1, "draw": lambda purpose: other}
    # Distances of latents 2 and 1/2, of images twice as large.
    assert ModeSeeking()(context(None, None, 2 * z + 1, **keys)).item() == pytest.approx(0.5, abs=1e-4)


def test_historical_averaging_of_g_is_paid_by_g() -> None:
    engine = tiny.engine(tiny.game(penalties={"historical_g": HistoricalG()}))
    assert engine.step()["penalty_historical_g"].item() == 0  # no history yet
    first = tiny.weights(engine.game.nets["G"])
    torch.testing.assert_close(engine.game.critic.memory_historical_g_mean, first)
    assert engine.step()["penalty_historical_g"].item() == 0  # where it stood after its only step
    second = tiny.weights(engine.game.nets["G"])
    cost = engine.step()["penalty_historical_g"]
    torch.testing.assert_close(cost, (second - (first + second) / 2).square().sum())


# -- pairs, packs, adaptation ------------------------------------------------------------------------------------------


class LabelledG(tiny.TinyG):
    conditional = True


class LabelledD(tiny.TinyD):
    conditional = True
    seen: list[Tensor]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        assert y is not None
        self.seen.append(y)
        return super().forward(x)


@pytest.mark.parametrize("paired", [True, False])
def test_a_pair_is_of_one_class(paired: bool) -> None:
    """A real image is compared with a fake that was asked for the real one's class, as R3GAN's released code does."""
    D = LabelledD()
    D.seen = []
    loss = RelativisticPairing() if paired else NonSaturating()
    game = NoiseGame({"G": LabelledG(), "D": D}, loss, {}, Latent(dim=4), classes=9)
    batch = {"x": torch.rand(ROWS, *tiny.SHAPE), "y": torch.arange(ROWS)}
    game.discriminator_loss(batch, Rng(0, total=ROWS))
    real, fake = D.seen[0].split(ROWS)
    assert torch.equal(real, batch["y"])
    assert torch.equal(real, fake) == paired
    game.generator_loss(batch if paired else {}, Rng(1, total=ROWS))
    assert torch.equal(D.seen[1], batch["y"]) == paired


def test_packs_stay_whole_whatever_else_couples() -> None:
    game = tiny.game(NonSaturating(top=0.5))
    game.critic.pack = 2
    with pytest.raises(CombinationError, match="multiples of 2"):
        tiny.engine(game, batch_size=5)


def test_adaptive_augmentation_hears_d_in_semi_supervised_games() -> None:
    from gancli.compute.device import Compute
    from gancli.config.build import make_as
    from gancli.config.compose import compose
    from gancli.config.settings import TrainSettings
    from gancli.data.facts import DataFacts
    from gancli.train import assemble, streams

    keys = ["model=improved", "model.D.hidden=[8,8]", "augment=ada", "augment.interval=1", "batch_size=4"]
    data = ["dataset=random", "dataset.size=[1,8,8]", "dataset.classes=2", "dataset.n=16", "game.labels=4"]
    config = compose("train", [*keys, *data, "augment.images=8", "augment.target=0.01"])
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    engine = assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())
    ada = engine.game.critic.augment
    assert isinstance(ada, Ada)
    sign = engine.step()["D_sign"].item()
    assert ada.p.item() == (0.5 if sign > 0.01 else 0.0)
    assert ada.moves.item() == 0  # the interval is over: it was told of the move


# -- energy ------------------------------------------------------------------------------------------------------------


def test_an_auto_encoders_energy_is_its_error() -> None:
    D = AutoEncoder((3, 12, 20), ch=2, norm="none").double()
    x = torch.randn(4, 3, 12, 20, dtype=F64)
    said = D(x)
    again = D.decoder(D.encoder(x))
    assert again.shape == x.shape
    assert isinstance(said.logits, Tensor)
    torch.testing.assert_close(said.logits, -((again - x) ** 2).sum((1, 2, 3)).sqrt())
    assert said.features is not None
    assert torch.equal(said.features[0], D.encoder(x).flatten(1))
    nn.init.zeros_(D.decoder[-1].weight)
    nn.init.zeros_(D.decoder[-1].bias)
    assert isinstance(D(x).logits, Tensor)
    torch.testing.assert_close(D(x).logits, -x.square().sum((1, 2, 3)).sqrt())


@pytest.mark.parametrize(
    "penalty", [Consistency(fakes=True), LatentConsistencyD(), LatentConsistencyG(), ModeSeeking()]
)
def test_terms_do_not_depend_on_the_split(penalty: Penalty) -> None:
    moved = []
    for micro in (None, 3):
        engine = tiny.engine(tiny.game(penalties={"x": penalty}), dtype=F64, sgd=True, micro_batch=micro)
        before = tiny.weights(engine.game)
        engine.step()
        moved.append(tiny.weights(engine.game) - before)
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=1e-11)
