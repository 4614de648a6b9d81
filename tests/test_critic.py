"""Several critics in one game, objectives that look further and remember, named terms: played by a tiny CycleGAN."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from gancli.augment.ada import Ada
from gancli.augment.augment import DiffAugment
from gancli.compute.rng import Rng
from gancli.errors import CombinationError, ConfigError
from gancli.games.critic import Critic
from gancli.losses.adversarial import AdversarialLoss, Hinge, Judged, NonSaturating
from gancli.losses.outputs import LeCam, ModeSeeking
from gancli.losses.penalties import R1, Penalty
from gancli.losses.terms import Term, Terms
from gancli.losses.weights import HistoricalG
from gancli.nets.verdict import Verdict
from gancli.train.rehearsal import Rehearsal
from tests import cycle, tiny
from tests.cycle import CycleGame
from tests.test_engine import run, same


@dataclass(frozen=True, kw_only=True)
class Balanced(AdversarialLoss):
    """BEGAN's: k holds the energies of fakes and real images at a ratio, and is moved after each of D's steps."""

    rate: float = 0.1

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        raise AssertionError

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return fake.square().mean()

    def of_discriminator(self, judged: Judged) -> Tensor:
        (real,), (fake,) = (judged.verdicts[name].scales() for name in ("real", "fake"))
        return real.square().mean() - judged.memory["k"].detach() * fake.square().mean()

    def memory(self, net: nn.Module) -> dict[str, Tensor]:
        return {"k": torch.full((), 0.5)}

    @torch.no_grad()
    def remember(self, memory: dict[str, Tensor], net: nn.Module, stats: dict[str, Tensor]) -> None:
        if "D_real" in stats:
            memory["k"].add_((0.5 * stats["D_real"].abs() - stats["D_fake"].abs()).to(memory["k"]) * self.rate)


@dataclass(frozen=True, kw_only=True)
class Margin(AdversarialLoss):
    """LS-GAN's: the logits of a pair are to lie as far apart as its images do."""

    beyond_logits = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        raise AssertionError

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake.mean()

    def of_discriminator(self, judged: Judged) -> Tensor:
        (x, *_), (fake, *_) = (judged.columns[name] for name in ("real", "fake"))
        assert x is not None
        assert fake is not None
        apart = (x - fake).abs().flatten(1).mean(1)
        return torch.relu(apart + judged.verdicts["fake"].scores() - judged.verdicts["real"].scores()).mean()


def games() -> dict[str, CycleGame]:
    penalties = {"r1": R1(), "lecam": LeCam(after=0), "historical_g": HistoricalG()}
    ada = Ada(interval=1, images=40, p=0.3, xflip=0.0, rotate90=0.0)
    return {
        "plain": CycleGame(),
        "penalties": CycleGame(Hinge(noise=0.2, flip=0.3), penalties, ada),
        "balanced": CycleGame(Balanced()),
        "margin": CycleGame(Margin(), augment=DiffAugment()),
    }


@pytest.mark.parametrize("name", games())
def test_a_game_of_two_critics_stops_and_goes_on_to_the_same_bits(name: str) -> None:
    straight, first = run(cycle.engine(games()[name]), 3), run(cycle.engine(games()[name]), 2)
    second = cycle.engine(games()[name])
    second.load(copy.deepcopy(first.state()))
    same(straight.state(), run(second, 1).state())
    assert int(straight.game.filled) == cycle.POOL


@pytest.mark.parametrize("name", games())
def test_a_game_of_two_critics_does_not_depend_on_the_split(name: str) -> None:
    whole, split = (run(cycle.engine(games()[name], micro_batch=m), 3) for m in (None, 1))
    for a, b in zip(whole.game.state_dict().values(), split.game.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert (tiny.weights(whole.game) - tiny.weights(games()[name])).abs().max() > 1e-3


def test_each_critic_has_its_own_terms_statistics_and_memories() -> None:
    engine = cycle.engine(games()["penalties"])
    assert Rehearsal(engine).footprint() is not None
    logs = engine.step()
    pairs = [("D_A", "G_B2A"), ("D_B", "G_A2B")]
    own = {f"{kind}_{D}" for D, _ in pairs for kind in ("loss", "penalty")} - {"penalty_D_A", "penalty_D_B"}
    own |= {f"{D}_{kind}" for D, _ in pairs for kind in ("real", "fake", "sign")}
    own |= {f"penalty_{D}_{name}" for D, _ in pairs for name in ("r1", "lecam", "historical_g")}
    own |= {f"loss_{G}_{D}" for D, G in pairs}
    terms = {"term_cycle_A", "term_cycle_B", "term_colour", "term_same_A"}
    assert set(logs) == own | terms | {"grad_norm_G", "grad_norm_D", "grad_norm_terms_2"}
    state = engine.game.state_dict()
    for key in ("memory_lecam_real", "memory_historical_g_mean", "augment.p"):
        assert not torch.equal(state[f"critics.D_A.{key}"], torch.zeros_like(state[f"critics.D_A.{key}"]))
    assert state["critics.D_A.memory_lecam_real"] == logs["D_A_real"]
    assert state["critics.D_B.memory_lecam_real"] == logs["D_B_real"]
    assert [critic.name for critic in engine.game.judging()] == ["D_A", "D_B"]
    assert engine.game.remedies("saturated")[0] == "lower optimizer.D.lr"
    assert "term_same_A" not in engine.step()  # every 2 steps


def test_a_balance_is_kept_between_steps() -> None:
    engine = cycle.engine(CycleGame(Balanced()))
    for critic in engine.game.judging():
        assert critic.memory("objective")["k"].item() == 0.5
    logs = engine.step()
    for D in cycle.OF:
        k = 0.5 + 0.1 * (0.5 * logs[f"{D}_real"].abs() - logs[f"{D}_fake"].abs())
        assert engine.game.state_dict()[f"critics.{D}.objective_k"].item() == pytest.approx(k.item(), abs=1e-12)


def test_an_objective_beyond_logits_refuses_what_is_done_to_logits() -> None:
    for option in ({"flip": 0.1}, {"top": 0.5}):
        with pytest.raises(CombinationError, match=r"set loss\.flip=0 loss\.top=1"):
            tiny.game(Margin(**option))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("penalty", "said"),
    [(R1(every=2), r"set penalty\.x\.every=1"), (ModeSeeking(), "this game has no latents: leave it out")],
)
def test_a_penalty_that_a_game_cannot_play_is_refused(penalty: Penalty, said: str) -> None:
    with pytest.raises(CombinationError, match=said):
        CycleGame(penalties={"x": penalty})


# -- columns -----------------------------------------------------------------------------------------------------------


class Pairs(nn.Module):
    """A condition and an image, in this order, to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(32, 1)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, condition: Tensor, x: Tensor) -> Verdict:
        self.seen.append((condition, x))
        return Verdict(self.dense(torch.cat([condition, x], 1).flatten(1)).squeeze(1))


def pair_critic(augment: DiffAugment | None = None, **keys: object) -> Critic:
    nets = nn.ModuleDict({"D": Pairs(), "G": nn.Linear(1, 1)})
    shown = {"columns": ("a", "x"), "images": ("a", "x")}
    return Critic("D", nets, NonSaturating(noise=0.0), {}, augment, **shown, **keys)  # type: ignore[arg-type]


def test_all_images_of_a_pair_are_augmented_by_one_draw() -> None:
    critic, x = pair_critic(DiffAugment()), torch.rand(6, 1, 4, 4)
    same_a, same_x = critic.shown((x, x), Rng(0, total=6), "real")
    assert torch.equal(same_a, same_x)
    assert not torch.equal(same_x, x)
    with pytest.raises(CombinationError, match="judges together differ in size: set augment=none"):
        critic.shown((x, x[..., :2]), Rng(0, total=6), "real")


def test_instance_noise_differs_between_the_images_of_a_pair() -> None:
    critic, x = pair_critic(), torch.zeros(6, 1, 4, 4)
    critic.loss = NonSaturating(noise=0.5)
    a, b = critic.shown((x, x), Rng(0, total=6), "real")
    assert not torch.equal(a, b)


def test_a_slope_is_that_of_the_image_beside_its_condition() -> None:
    critic, rng = pair_critic(), Rng(0, total=3)
    condition, x = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    cost = R1()(critic.context(rng, real=(condition, x)))
    weight = critic.net.dense.weight[0, 16:]
    torch.testing.assert_close(cost, weight.square().sum() / 2)
    assert torch.equal(critic.net.seen[0][0], condition)
    joint = critic.judge(rng, real=(condition, x), fake=(condition, -x))
    torch.testing.assert_close(joint["fake"].scores(), critic.said(condition, -x))
    assert len(critic.net.seen[-2][0]) == 6


def test_what_d_says_leaves_its_modes_as_they_were() -> None:
    game = tiny.game(d_norm=True, dropout=0.5)
    D, x = game.nets["D"], torch.rand(5, *tiny.SHAPE)
    D.norm.eval()
    first, again = game.critic.said(x), game.critic.said(x, None)
    assert torch.equal(first, again)
    assert not first.requires_grad
    assert (D.training, D.norm.training, D.dropout.training) == (True, False, True)
    torch.testing.assert_close(game.critic.said(x[:1]), first[:1])


def test_networks_that_are_missing_are_named() -> None:
    nets = nn.ModuleDict({"G": tiny.TinyG()})
    with pytest.raises(ConfigError, match=r"missing key model\.D_A: this game needs the networks G and D_A"):
        Critic("D_A", nets, Hinge())


# -- terms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ({"columns": ("x", "mad")}, r"terms\.t\.columns: this game has no column mad; did you mean made\?"),
        ({"columns": ("x", "made"), "player": "D"}, r"terms\.t\.player=D: this game has no terms .* choices: G"),
        ({"columns": ("x", "made"), "distance": "hubr"}, r"terms\.t\.distance=hubr: .* did you mean huber\?"),
        ({"columns": ("x", "made"), "every": 2}, r"set terms\.t\.every=1"),
    ],
)
def test_a_term_that_a_game_cannot_pay_is_refused(term: dict[str, object], said: str) -> None:
    with pytest.raises(CombinationError, match=said):
        Terms({"t": Term(**term)}, columns=("x", "made"))  # type: ignore[arg-type]


def test_a_term_of_other_than_two_columns_or_no_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"columns=\[x\]: must be the two columns"):
        Term(columns=("x",))
    with pytest.raises(ConfigError, match="weight must be at least 0"):
        Term(columns=("x", "y"), weight=-1.0)


def test_terms_are_paid_by_their_players_in_their_rhythm() -> None:
    made = {"x": torch.zeros(2, 3), "y": torch.ones(2, 3), "z": torch.full((2, 3), 2.0, dtype=torch.bfloat16)}
    terms = Terms(
        {
            "a": Term(columns=("x", "y"), weight=3.0),
            "b": Term(columns=("x", "z"), distance="l2", every=4),
            "c": Term(columns=("y", "z"), player="E"),
            "d": Term(columns=("x", "z"), weight=0.0),
            "e": Term(columns=("x", "y"), distance="mine", player="E"),
        },
        columns=made,
        players=("G", "E"),
        distances={"mine": lambda a, b: (a - b).sum()},
        lazy=True,
    )
    assert {name: cost.item() for name, cost in terms.costs("G", made).items()} == {"term_a": 3.0}
    assert {name: cost.item() for name, cost in terms.costs("G", made, 4).items()} == {"term_b": 4.0}
    assert {name: cost.item() for name, cost in terms.costs("E", made).items()} == {"term_c": 1.0, "term_e": -6.0}
    assert (terms.rhythms("G"), terms.rhythms("E")) == ([4], [])
    assert terms.wanted("G") == {"x", "y"}
    assert terms.costs("E", made)["term_c"].dtype == torch.float32
