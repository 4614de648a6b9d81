"""The training step: what moves, how it splits, what it averages, and that stopping leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Move
from gancli.losses.adversarial import Hinge, LeastSquares, NonSaturating, Wasserstein
from gancli.losses.penalties import R1, WganGp
from gancli.losses.weights import Clip
from gancli.nets.layers.minibatch import MinibatchDiscrimination
from gancli.nets.verdict import Verdict
from gancli.train.averages import Average
from gancli.train.engine import Engine
from gancli.train.rehearsal import Rehearsal
from gancli.train.schedule import Schedule
from tests import tiny

PENALTIES = {"none": {}, "wgan_gp": {"wgan_gp": WganGp()}, "r1": {"r1": R1()}, "lazy r1": {"r1": R1(every=2)}}


def run(engine: Engine, steps: int) -> Engine:
    for _ in range(steps):
        engine.step()
    return engine


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("micro_batch", [2, 3, 8])
def test_gradients_do_not_depend_on_the_split(penalty: str, micro_batch: int) -> None:
    moved = []
    for micro in (None, micro_batch):
        engine = tiny.engine(tiny.game(penalties=PENALTIES[penalty]), dtype=torch.float64, sgd=True, micro_batch=micro)
        before = tiny.weights(engine.game)
        run(engine, 1)
        moved.append((tiny.weights(engine.game) - before) / 0.01)  # SGD: the step is the gradient
    assert moved[0].abs().max() > 1e-3
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=1e-12)


def test_logs_do_not_depend_on_the_split() -> None:
    logs = [tiny.engine(dtype=torch.float64, micro_batch=m).step() for m in (None, 3)]
    assert set(logs[0]) == {"loss_D", "D_real", "D_fake", "loss_G", "grad_norm_D", "grad_norm_G"}
    for name in logs[0]:
        torch.testing.assert_close(logs[0][name], logs[1][name], rtol=1e-6, atol=1e-12)


def test_same_seed_same_bits_and_another_seed_differs() -> None:
    first, again, other = (tiny.weights(run(tiny.engine(seed=s), 5).game) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("options", [{}, {"g_norm": True, "dropout": 0.5}, {"penalties": {"r1": R1(every=3)}}])
def test_stop_and_resume_is_bit_exact(options: dict) -> None:  # type: ignore[type-arg]
    straight = run(tiny.engine(tiny.game(**options)), 10)
    first = run(tiny.engine(tiny.game(**options)), 4)
    state = copy.deepcopy(first.state())
    torch.rand(100)  # the random state of the process is nobody's business
    second = tiny.engine(tiny.game(**options))
    second.load(state)
    run(second, 6)
    assert straight.step_number == second.step_number == 10
    assert torch.equal(tiny.weights(straight.game), tiny.weights(second.game))
    same(straight.state(), second.state())


def same(a: object, b: object, path: str = "") -> None:
    """Assert two states equal to the bit."""
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor), path
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert isinstance(b, dict), path
        assert a.keys() == b.keys(), path
        for key in a:
            same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list):
        assert isinstance(b, list), path
        assert len(a) == len(b), path
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}/{k}")
    else:
        assert a == b, path


def test_rehearsal_leaves_no_trace() -> None:
    engine = tiny.engine(tiny.game(g_norm=True, dropout=0.5))
    before = copy.deepcopy(engine.state())
    rehearsal = Rehearsal(engine)
    assert rehearsal.footprint() is not None
    assert rehearsal.pace()[""] > 0
    same(before, engine.state())
    assert all(p.grad is None for p in engine.game.parameters())


def test_average_follows_its_formula() -> None:
    engine = tiny.engine(decay=0.9)
    expected = tiny.weights(engine.averages["G"])
    for _ in range(3):
        engine.step()
        expected = 0.9 * expected + 0.1 * tiny.weights(engine.game.nets["G"])
    torch.testing.assert_close(tiny.weights(engine.averages["G"]), expected)


def test_a_young_average_forgets_quickly() -> None:
    rule = Average(decay=0.999, start=5)
    assert [rule.at(5), rule.at(6), rule.at(15)] == [0.0, 2 / 11, 11 / 20]
    assert rule.at(10**6) == 0.999
    assert Average(decay=0.999, warmup=False).at(1) == 0.999


def test_average_is_a_copy_until_it_starts() -> None:
    engine = tiny.engine()
    engine.average_rule = Average(decay=0.9, start=2, warmup=False)
    run(engine, 2)
    assert torch.equal(tiny.weights(engine.averages["G"]), tiny.weights(engine.game.nets["G"]))
    run(engine, 1)
    assert not torch.equal(tiny.weights(engine.averages["G"]), tiny.weights(engine.game.nets["G"]))


def test_no_average_when_decay_is_zero() -> None:
    engine = run(tiny.engine(decay=0.0), 1)
    assert engine.averages == {}
    assert engine.networks()["G"] is engine.game.nets["G"]


def test_each_move_moves_its_own_player_only() -> None:
    engine = tiny.engine()
    d_move, g_move = engine.moves()
    for move, player, other in ((d_move, "D", "G"), (g_move, "G", "D")):
        before = {name: tiny.weights(net) for name, net in engine.game.nets.items()}
        engine.play(move, 0, {})
        assert not torch.equal(before[player], tiny.weights(engine.game.nets[player]))
        assert torch.equal(before[other], tiny.weights(engine.game.nets[other]))


def test_d_steps_consume_fresh_images_and_are_counted() -> None:
    engine = run(tiny.engine(tiny.game(d_steps=3, g_size=2)), 2)
    assert engine.seen == 2 * 3 * 8
    assert engine.positions == {"real": 2 * 3 * 8}


def test_lazy_terms_are_paid_rarely_and_in_full() -> None:
    """A penalty paid every 4 steps moves D four times as far as the same penalty paid once."""
    moved = {}
    for every in (1, 4):
        engine = tiny.engine(tiny.game(penalties={"r1": R1(every=4)}), dtype=torch.float64, sgd=True)
        (lazy,) = [m for m in engine.moves() if m.name == "r1"]
        assert lazy.every == 4
        before = tiny.weights(engine.game.nets["D"])
        engine.play(Move("D", lazy.loss, every=every, name="r1"), 0, {})
        moved[every] = tiny.weights(engine.game.nets["D"]) - before
    torch.testing.assert_close(moved[4], 4 * moved[1])
    engine = tiny.engine(tiny.game(penalties={"r1": R1(every=4)}))
    assert ["penalty_r1" in engine.step() for _ in range(6)] == [True, False, False, False, True, False]


def test_clip_bounds_the_gradient_and_the_weights() -> None:
    free, bound = (tiny.engine(sgd=True, clip=c) for c in (None, 1e-3))
    moved = []
    for engine in (free, bound):
        before = tiny.weights(engine.game.nets["D"])
        engine.play(engine.moves()[0], 0, {})
        moved.append((tiny.weights(engine.game.nets["D"]) - before).norm() / 0.01)
    assert moved[0] > 1e-2
    torch.testing.assert_close(moved[1], torch.tensor(1e-3), rtol=1e-3, atol=0)
    engine = run(tiny.engine(tiny.game(Wasserstein(), {"clip": Clip(value=0.01)})), 1)
    assert tiny.weights(engine.game.nets["D"]).abs().max() <= 0.01


def test_linear_schedule_ends_at_zero() -> None:
    engine = tiny.engine(steps=4, schedule=Schedule(kind="linear"))
    rates = []
    for _ in range(4):
        engine.step()
        rates.append(engine.players["G"].optimizer.param_groups[0]["lr"])
    assert rates == [0.01, 0.0075, 0.005, 0.0025]


def test_joint_pass_says_what_separate_passes_say() -> None:
    game = tiny.game().double()
    x, z = torch.rand(5, *tiny.SHAPE, dtype=torch.float64), torch.rand(3, *tiny.SHAPE, dtype=torch.float64)
    joint = game.critic.judge(None, real=(x, None), fake=(z, None))  # type: ignore[arg-type]
    torch.testing.assert_close(joint["real"].logits, game.nets["D"](x).logits)
    torch.testing.assert_close(joint["fake"].logits, game.nets["D"](z).logits)


def test_batch_statistics_do_not_cross_sources() -> None:
    game = tiny.game(d_norm=True)
    x, z = torch.rand(5, *tiny.SHAPE), torch.rand(3, *tiny.SHAPE) - 5
    verdicts = game.critic.judge(None, real=(x, None), fake=(z, None))  # type: ignore[arg-type]
    torch.testing.assert_close(verdicts["real"].logits, game.nets["D"](x).logits)


class Pairs(tiny.TinyD):
    couples = 2


class Whole(tiny.TinyD):
    couples = "all"


@pytest.mark.parametrize(
    ("net", "batch_size", "micro_batch", "good"),
    [(Pairs, 8, 4, True), (Pairs, 8, 3, False), (Pairs, 7, None, False), (Whole, 8, None, True), (Whole, 8, 4, False)],
)
def test_coupled_samples_are_not_torn_apart(
    net: type[nn.Module], batch_size: int, micro_batch: int | None, good: bool
) -> None:
    game = tiny.game()
    game.nets["D"] = net()
    if good:
        run(tiny.engine(game, batch_size=batch_size, micro_batch=micro_batch), 1)
        assert game.nets["D"].couples
    else:
        with pytest.raises(CombinationError, match="micro_batch"):
            tiny.engine(game, batch_size=batch_size, micro_batch=micro_batch)


def test_a_layer_that_compares_a_batch_is_not_split_wherever_it_lies() -> None:
    game = tiny.game()
    game.nets["D"].crowd = MinibatchDiscrimination(16, kernels=1)
    with pytest.raises(CombinationError, match="set micro_batch=null"):
        tiny.engine(game, micro_batch=4)


@pytest.mark.parametrize("loss", [Hinge(), NonSaturating(), LeastSquares()])
def test_combinations_that_make_no_sense_say_why(loss: object) -> None:
    with pytest.raises(CombinationError, match=r"model\.D\.norm"):
        tiny.game(loss, {"wgan_gp": WganGp()}, d_norm=True)  # type: ignore[arg-type]


def test_wasserstein_needs_a_bound() -> None:
    with pytest.raises(CombinationError, match="penalty=wgan_gp"):
        tiny.game(Wasserstein())


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="d_steps"):
        tiny.game(d_steps=0)
    with pytest.raises(ConfigError, match="decay"):
        Average(decay=1.0)


def test_verdicts_split_as_they_were_joined() -> None:
    scales, features = [torch.arange(5.0), torch.arange(10.0).view(5, 2)], [torch.arange(5.0)]
    verdict = Verdict(scales, torch.zeros(5, 3), features, torch.arange(5.0))
    first, second = verdict.split([2, 3])
    assert [s.tolist() for s in second.scales()] == [[2, 3, 4], [[4, 5], [6, 7], [8, 9]]]
    assert first.classes is not None
    assert first.classes.shape == (2, 3)
    assert first.features is not None
    assert first.features[0].tolist() == [0, 1]
    assert second.codes is not None
    assert second.codes.tolist() == [2, 3, 4]
