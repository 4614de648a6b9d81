"""FastGAN's game: both players' losses against their formulas, drawn margins, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.compute.rng import Rng
from gancli.errors import CombinationError, ConfigError
from gancli.games.fastgan import FastGANGame
from gancli.losses.adversarial import Judged
from gancli.losses.drawn import DrawnHinge
from gancli.nets.verdict import Verdict
from gancli.pretrained.pretrained import Pretrained
from gancli.train.engine import Engine
from tests.contract.cast import TINY, engine_of, tried

ROWS = 4


def engine(*keys: str) -> Engine:
    return engine_of([*TINY["fastgan"], "dataset.n=8", f"batch_size={ROWS}", *keys], double=True)


def game_of(engine: Engine) -> FastGANGame:
    game = engine.game
    assert isinstance(game, FastGANGame)
    return game


def rng_of(rows: int = ROWS) -> Rng:
    return Rng(0, 1, "move", total=rows, dtype=torch.float64)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(ROWS, 1, 32, 32, generator=generator, dtype=torch.float64) * 2 - 1


def perceived(net: Pretrained, a: Tensor, b: Tensor) -> Tensor:
    """Twice 1 - the cosine of the angle between features, the mean over pixels and rows, summed over layers."""
    wanted = net.maps(b)
    distances = [2 - 2 * F.cosine_similarity(x, wanted[name]) for name, x in net.maps(a).items()]
    return torch.stack([distance.mean() for distance in distances]).sum()


def margins(rng: Rng, source: str, k: int) -> Tensor:
    return 0.8 + 0.2 * rng.uniform(f"margin {source} {k}", 5, 5).double()


def test_the_whole_loss_of_d_is_the_papers_formula() -> None:
    game, x = game_of(engine()), images()
    D, rng, augment = game.nets["D"], rng_of(), game.critic.augment
    assert augment is not None
    losses = game.discriminator_loss({"x": x}, rng).losses

    full, small = game.nets["G"](game.latent.draw(rng), None, both=True)
    shown = augment(x, rng, "real")
    seen = D(shown, None, shown[:, :, ::2, ::2])
    told = D(augment(full, rng, "fake"), None, augment(small, rng, "fake small"))
    real = torch.cat([(margins(rng, "real", k) - seen.logits[k]).clamp_min(0).flatten() for k in (0, 1)])
    fake = torch.cat([(margins(rng, "fake", k) + told.logits[k]).clamp_min(0).flatten() for k in (0, 1)])
    torch.testing.assert_close(losses["loss_D"], real.mean() + fake.mean(), rtol=1e-9, atol=1e-9)

    which = rng.integers("quarter", 4).tolist()
    assert len(set(which)) > 1
    cut = [(slice(h, h + 16), slice(w, w + 16)) for h, w in ((16 * (k // 2), 16 * (k % 2)) for k in which)]
    quarter = torch.stack([shown[row, :, h, w] for row, (h, w) in enumerate(cut)])
    part = torch.stack(
        [
            seen.features[2][row, :, 8 * (k // 2) : 8 * (k // 2) + 8, 8 * (k % 2) : 8 * (k % 2) + 8]
            for row, k in enumerate(which)
        ]
    )
    decoded = [decoder(f) for decoder, f in zip(D.decoders, (*seen.features[:2], part), strict=True)]
    targets = {"full": shown[:, :, ::2, ::2], "small": shown[:, :, ::2, ::2], "quarter": quarter}
    assert game.pretrained is not None
    for made, (name, target) in zip(decoded, targets.items(), strict=True):
        expected = perceived(game.pretrained, made, target)
        assert expected > 0
        torch.testing.assert_close(losses[f"term_{name}"], expected, rtol=1e-5, atol=1e-5)  # norms have an epsilon
    assert losses.keys() == {"loss_D", "term_full", "term_small", "term_quarter"}


def test_the_loss_of_g_is_minus_the_mean_of_all_logits() -> None:
    game = game_of(engine())
    rng, augment = rng_of(), game.critic.augment
    assert augment is not None
    losses = game.generator_loss({}, rng).losses
    full, small = game.nets["G"](game.latent.draw(rng), None, both=True)
    told = game.nets["D"](augment(full, rng, "fake"), None, augment(small, rng, "fake small"))
    assert losses.keys() == {"loss_G"}
    expected = -torch.cat([logits.flatten() for logits in told.logits]).mean()
    torch.testing.assert_close(losses["loss_G"], expected, rtol=1e-12, atol=1e-12)


def test_reconstructions_train_no_frozen_network_and_all_decoders() -> None:
    game = game_of(engine())
    losses = game.discriminator_loss({"x": images()}, rng_of()).losses
    torch.stack([cost for name, cost in losses.items() if name.startswith("term_")]).sum().backward()
    D = game.nets["D"]
    assert all(p.grad is not None and p.grad.any() for p in D.decoders.parameters())
    assert D.enter[0].weight.grad is not None
    assert D.head.weight.grad is None
    assert game.pretrained is not None
    assert not any(t.requires_grad for t in game.pretrained.tensors())


def test_decoders_see_real_images_only() -> None:
    """Running statistics of their norms change once a step of D."""
    made = engine()
    made.step()
    D = game_of(made).nets["D"]
    assert [block.norm1.num_batches_tracked.item() for d in D.decoders for block in d.body[:1]] == [1, 1, 1]
    assert D.halves[0].norm1.num_batches_tracked.item() == 3  # real, fake, and G's move


def test_margins_are_drawn_for_each_logit_and_do_not_depend_on_the_split() -> None:
    loss, rng = DrawnHinge(), rng_of(6)
    zeros = Verdict([torch.zeros(6, 5, 5, dtype=torch.float64), torch.zeros(6, 3, dtype=torch.float64)])

    def cost(rng: Rng, rows: slice) -> Tensor:
        verdict = Verdict([x[rows] for x in zeros.scales()])

        def draw(purpose: str, like: Tensor) -> Tensor:
            return rng.uniform(purpose, *like.shape[1:]).double()

        return loss.of_discriminator(Judged({"real": verdict, "fake": verdict}, draw=draw))

    whole = cost(rng, slice(6))
    assert 1.6 < whole.item() < 2
    parts = cost(rng.cut(0, 2), slice(2)) * 2 / 6 + cost(rng.cut(2, 6), slice(2, 6)) * 4 / 6
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    assert DrawnHinge(margin=1.0).of_discriminator(
        Judged({"real": zeros, "fake": zeros}, draw=lambda purpose, like: torch.rand_like(like))
    ).item() == pytest.approx(2, abs=1e-12)


def test_a_margin_out_of_range_is_refused() -> None:
    for margin in (-0.1, 1.5):
        with pytest.raises(ConfigError, match=rf"loss\.margin={margin:g}: the smallest margin, from 0 to 1"):
            DrawnHinge(margin=margin)


def test_without_a_frozen_network_pixels_are_compared() -> None:
    terms = [f"terms.{name}.distance=l1" for name in ("full", "small", "quarter")]
    made = engine("pretrained=none", *terms)
    losses = game_of(made).discriminator_loss({"x": images()}, rng_of()).losses
    assert {"term_full", "term_small", "term_quarter"} <= losses.keys()
    refused, said = tried([*TINY["fastgan"], "pretrained=none"])
    assert refused is None
    assert said == "terms.full.distance=features_unit: needs a frozen network: set pretrained=NAME"


def test_penalties_see_full_images_and_layer_norm_takes_the_place_of_batch_norm() -> None:
    made = engine("penalty=r1", "augment=none")
    logs = made.step()
    assert logs["penalty_r1"] > 0
    D = game_of(made).nets["D"]
    assert not [m for m in D.modules() if "BatchNorm" in type(m).__name__]
    x = images().requires_grad_()
    slope = torch.autograd.grad(game_of(made).critic.context(rng_of(), real=(x, None, None)).judge(x, None).sum(), x)[0]
    expected = torch.autograd.grad(sum(s.mean((1, 2)).sum() for s in D(x, None, F.interpolate(x, 16)).logits), x)[0]
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)


def test_labels_reach_both_networks() -> None:
    logs = engine("model.conditioning=projection", "dataset.classes=3").step()
    assert all(value.isfinite() for value in logs.values())


def test_the_networks_of_another_model_are_refused() -> None:
    refused, said = tried([*TINY["dcgan"], "game=fastgan"])
    assert refused is None
    assert said == "game=fastgan needs the networks of model=fastgan: use it, or game=noise"
    with pytest.raises(CombinationError, match=r"terms\.full\.player=G: this game has no terms for such a player"):
        engine("terms.full.player=G")
