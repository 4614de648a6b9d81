"""What moves may ask of the engine beyond those of noise and images: played by the odd game."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Batch, Move, Outcome, Result
from gancli.games.stages import Copy, Moment, Stage
from gancli.store import compatible
from gancli.train.engine import Engine
from gancli.train.players import counts
from gancli.train.rehearsal import Rehearsal
from gancli.train.schedule import Schedule
from tests import odd, tiny
from tests.odd import OddGame, Recurrent
from tests.test_engine import run, same


def test_each_parameter_is_in_one_optimizer_and_frozen_ones_in_none() -> None:
    engine = odd.engine()
    held = [id(p) for player in engine.players.values() for p in player.params]
    assert len(held) == len(set(held))
    assert [len(player.params) for player in engine.players.values()] == [6, 2, 2]  # `first` is P's, the eye nobody's
    eye, first = copy.deepcopy(engine.game.nets["R_eye"]), copy.deepcopy(engine.game.nets["R"][1])
    run(engine, 5)
    assert torch.equal(tiny.weights(eye), tiny.weights(engine.game.nets["R_eye"]))
    assert not any(p.requires_grad for p in engine.game.nets["R_eye"].parameters())
    assert not torch.equal(tiny.weights(first), tiny.weights(engine.game.nets["R"][1]))
    assert engine.game.nets["P_one"][0] is engine.game.nets["P_two"][0]


def test_frozen_parts_are_counted_apart_and_nobody_trains_them() -> None:
    class Watched(OddGame):
        """A network that is no player's."""

        def __init__(self) -> None:
            super().__init__()
            self.nets["eye"] = nn.Linear(2, 5)

    engine = odd.engine(Watched())
    trained, frozen = counts(engine.players, dict(engine.game.nets.items()))
    assert trained == {"P": 16 + 10 + 10, "Q": 3, "R": 15}
    assert frozen == {"R_eye": 12, "eye": 15}  # `first`, which R shares, is trained by P
    assert not any(p.requires_grad for p in engine.game.nets["eye"].parameters())
    run(engine, 3)
    assert all(p.grad is None for p in engine.game.parameters())


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_a_step_does_not_depend_on_how_it_is_split(micro_batch: int) -> None:
    whole, split = (run(odd.engine(OddGame(gate=True, corrects=True), micro_batch=m), 6) for m in (None, micro_batch))
    assert int(whole.game.filled) == odd.POOL
    for a, b in ((whole.game, split.game), (whole.averages["P_two"], split.averages["P_two"])):
        torch.testing.assert_close(tiny.weights(a), tiny.weights(b), rtol=0, atol=1e-12)
    for name in ("pool", "mean", "open"):
        torch.testing.assert_close(getattr(whole.game, name), getattr(split.game, name), rtol=0, atol=1e-12)


def test_it_stops_and_goes_on_to_the_same_bits() -> None:
    straight, first = run(odd.engine(), 7), run(odd.engine(), 3)
    second = odd.engine()
    second.load(copy.deepcopy(first.state()))
    same(straight.state(), run(second, 4).state())


def test_a_rehearsal_hands_carried_rows_on_and_leaves_no_trace() -> None:
    engine = odd.engine()
    engine.seen = 8  # where all moves are played
    before = copy.deepcopy(engine.state())
    rehearsal = Rehearsal(engine)
    assert rehearsal.footprint() is not None
    assert len(rehearsal.costs) == 4
    assert rehearsal.pace()["adversarial"] > 0
    same(before, engine.state())


def test_a_pool_gives_the_rows_that_the_next_move_gets() -> None:
    engine, dealt = odd.engine(), list[Tensor]()
    judged = engine.game.judge_loss

    def judge_loss(batch: Batch, rng: object) -> Outcome:
        dealt.append(batch["made"].clone())
        return judged(batch, rng)

    engine.game.judge_loss = judge_loss
    after, given = engine.game.after, list[Tensor]()

    def remembered(move: Move, result: Result, *rest: object) -> dict[str, Tensor] | None:
        replaced = after(move, result, *rest)
        if replaced:
            given.append(replaced["made"])
        return replaced

    engine.game.after = remembered
    run(engine, 3)
    assert torch.equal(dealt[-1], given[-1])
    assert len(dealt) == 2


def test_a_gate_lets_a_player_rest() -> None:
    engine = odd.engine(OddGame(gate=True))
    engine.seen = 8
    logs = []
    for _ in range(12):
        was = bool(engine.game.open)
        logs.append((was, "judge_Q" in engine.step()))
    assert all(was == played for was, played in logs)
    engine.game.open.zero_()
    assert "judge_Q" not in engine.step()


def test_a_lazy_move_may_correct_rate_and_betas() -> None:
    plain, corrected = (run(odd.engine(OddGame(corrects=c)), 3) for c in (False, True))
    groups = [e.players["R"].optimizer.param_groups[0] for e in (plain, corrected)]
    assert (groups[0]["lr"], groups[0]["betas"]) == (0.01, (0.5, 0.9))
    assert groups[1]["lr"] == pytest.approx(0.01 * 2 / 3)
    assert groups[1]["betas"] == pytest.approx((0.5 ** (2 / 3), 0.9 ** (2 / 3)))
    assert corrected.players["P"].optimizer.param_groups[0]["lr"] == 0.01


def test_shared_rows_are_dealt_again_and_counted_once() -> None:
    engine = run(odd.engine(), 3)
    # u: P at 3 steps; R's half batch at step 2 alone, with v; v: Q at 2 steps.
    assert engine.positions == {"u": 3 * 8 + 4, "v": 2 * 8 + 4}
    assert engine.seen == 24


def test_a_player_may_have_a_schedule_of_its_own_in_images() -> None:
    own = {"Q": Schedule(kind="linear", unit="images", start=8, end=24)}
    engine, rates = odd.engine(steps=4, schedules=own), []
    for _ in range(4):
        engine.step()
        rates.append([engine.players[n].optimizer.param_groups[0]["lr"] for n in ("P", "Q")])
    assert [p for p, _ in rates] == [0.01] * 4
    assert [q for _, q in rates] == [0.01, 0.01, 0.005, 0.0]
    with pytest.raises(ConfigError, match="end above start"):
        Schedule(kind="linear", start=5, end=5)


class Twice(OddGame):
    def moves(self, at: Moment) -> list[Move]:
        return [Move("P", self.map_loss, ("u",)), Move("P", self.map_loss, ("u",))]


class Half(OddGame):
    def moves(self, at: Moment) -> list[Move]:
        return [Move("P", self.map_loss, ("u",), size=0.5)]


class Torn(OddGame):
    def moves(self, at: Moment) -> list[Move]:
        return [
            Move("P", self.map_loss, ("u",), remembers=("made",)),
            Move("Q", self.judge_loss, ("v",), size=2, carried=("made",)),
        ]


def test_moves_that_cannot_be_played_are_refused() -> None:
    with pytest.raises(CombinationError, match="two moves are named P"):
        odd.engine(Twice())
    with pytest.raises(CombinationError, match=r"P takes 0\.5 times as many"):
        odd.engine(Half(), batch_size=3)
    with pytest.raises(CombinationError, match="needs 16 carried rows of made, but there are 8"):
        odd.engine(Torn()).step()


def test_means_of_any_shape_reach_the_game_and_no_log() -> None:
    engine = odd.engine()
    logs = engine.step()
    assert set(logs) == {"map_P", "grad_norm_P"}
    made = sum(engine.game.nets[n](torch.zeros(1, 3, dtype=torch.float64)) for n in ("P_one", "P_two"))
    assert engine.game.mean.shape == made.shape[1:]
    assert engine.game.mean.abs().sum() > 0


def test_the_same_engine_type_plays_both() -> None:
    assert isinstance(odd.engine(), Engine)
    assert isinstance(tiny.engine(), Engine)


class Passing(OddGame):
    """Its lazy move is there for a while."""

    def moves(self, at: Moment) -> list[Move]:
        lazy = Move("R", self.again_loss, ("u",), every=2, corrects=8 <= at.seen < 16, name="again")
        return [Move("P", self.map_loss, ("u",), remembers=("made",)), lazy]


def test_a_rate_is_what_it_was_when_its_correction_ends() -> None:
    engine, rates = odd.engine(Passing()), []
    for _ in range(3):
        engine.step()
        group = engine.players["R"].optimizer.param_groups[0]
        rates.append((group["lr"], group["betas"]))
    assert rates[0] == rates[2] == (0.01, (0.5, 0.9))
    assert rates[1][0] == pytest.approx(0.01 * 2 / 3)


class Later(OddGame):
    """From some step on, and in its last stage, it has two moves of one name."""

    def __init__(self, start: int, **options: bool):
        super().__init__(**options)
        self.start = start

    def moves(self, at: Moment) -> list[Move]:
        return [Move("P", self.map_loss, ("u",), remembers=("made",))] * (1 if at.seen < self.start else 2)


def test_moves_of_a_later_phase_are_looked_at_too() -> None:
    with pytest.raises(CombinationError, match="stage adversarial: two moves are named P"):
        odd.engine(Later(8))
    engine = run(odd.engine(Later(16)), 2)
    with pytest.raises(CombinationError, match="two moves are named P"):
        engine.step()


# -- delayed copies ----------------------------------------------------------------------------------------------------


class Followed(OddGame):
    """Copies of each kind."""

    def copies(self) -> Mapping[str, Copy]:
        plain = {"late": Copy(of="Q", every=3), "waiting": Copy(of="Q", decay=0.5, every=2, start=2)}
        return {**super().copies(), **plain}


def test_copies_follow_by_their_rules_and_are_frozen() -> None:
    engine = odd.engine(Followed())
    first = tiny.weights(engine.game.nets["Q"])
    slow, late, waiting = (tiny.weights(engine.copies[name]) for name in ("slow", "late", "waiting"))
    for step in range(1, 8):
        engine.step()
        P, Q = (tiny.weights(engine.game.nets[name]) for name in ("P_one", "Q"))
        slow, late = torch.lerp(slow, P, 1 - 0.8), Q if step % 3 == 0 else late
        waiting = Q if step <= 2 else torch.lerp(waiting, Q, 0.5) if step % 2 == 0 else waiting
        assert torch.equal(tiny.weights(engine.copies["slow"]), slow)
        assert torch.equal(tiny.weights(engine.copies["late"]), late)
        assert torch.equal(tiny.weights(engine.copies["waiting"]), waiting)
    assert not torch.equal(late, first)
    assert not any(p.requires_grad for net in engine.copies.values() for p in net.parameters())
    assert engine.game.copied is engine.copies
    held = {id(p) for player in engine.players.values() for p in player.params}
    assert not held & {id(p) for net in engine.copies.values() for p in net.parameters()}
    assert not any(name.startswith("copied") for name in engine.state()["game"])


def test_copies_take_buffers_along_and_are_counted_as_memory() -> None:
    class Normed(Followed):
        def __init__(self) -> None:
            super().__init__()
            self.nets["Q"] = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))

    engine = run(odd.engine(Normed()), 6)
    norm, kept = engine.game.nets["Q"][0], engine.copies["late"][0]
    assert (
        int(norm.num_batches_tracked) == int(kept.num_batches_tracked) == 6 + 2 * 5
    )  # P's moves, and Q's, of real and made
    assert torch.equal(norm.running_mean, kept.running_mean)
    need = Rehearsal(engine).footprint()
    modules = [engine.game, *engine.averages.values(), *engine.copies.values()]
    held = {t.data_ptr(): t.nbytes for m in modules for t in [*m.parameters(), *m.buffers()]}
    assert need is not None
    assert need.held == sum(held.values())


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_copies_go_on_to_the_same_bits(stop: int) -> None:
    straight, first, second = (odd.engine(Followed()) for _ in range(3))
    second.load(copy.deepcopy(run(first, stop).state()))
    same(run(straight, 7).state(), run(second, 7 - stop).state())


def test_copies_that_cannot_be_kept_are_refused() -> None:
    class Nobody(OddGame):
        def copies(self) -> Mapping[str, Copy]:
            return {"slow": Copy(of="Z")}

    with pytest.raises(
        ConfigError, match="the copy slow is of Z, but this game has the networks P_one, P_two, Q, R_eye"
    ):
        odd.engine(Nobody())
    for wrong in ({"decay": 1.0}, {"every": 0}, {"start": -1}):
        with pytest.raises(ConfigError, match="a copy of G has decay in"):
            Copy(of="G", **wrong)


# -- columns that live on ----------------------------------------------------------------------------------------------


class Shrinking(Recurrent):
    """Its last stage has smaller batches."""

    def stages(self) -> Sequence[Stage]:
        return (Stage(name="map", batch_size=8), Stage(name="adversarial", start=24, batch_size=4))


def test_rows_live_on_to_the_next_step() -> None:
    engine, seen = odd.engine(Recurrent()), list[Tensor]()
    mapped = engine.game.map_loss

    def map_loss(batch: Batch, rng: Rng) -> Outcome:
        seen.append(batch["last"].clone())
        return mapped(batch, rng)

    engine.game.map_loss = map_loss
    assert engine.state()["kept"] == {}
    before = torch.full((8, 2), 0.25, dtype=torch.float64)
    for step in range(3):
        engine.step()
        assert engine.kept.rows["age"].tolist() == [step + 1] * 8
        assert torch.equal(seen[-1], before)
        before = engine.kept.rows["last"].clone()
    assert engine.kept.rows["last"].dtype == torch.float64


def test_kept_rows_begin_anew_with_another_batch_size() -> None:
    engine, found = odd.engine(Shrinking(), batch_size=None), []
    for _ in range(5):
        engine.step()
        found.append(engine.kept.rows.get("age", torch.zeros(0)).tolist())
    assert found == [[1] * 8, [2] * 8, [], [1] * 4, [2] * 4]


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_kept_rows_do_not_depend_on_the_split(micro_batch: int) -> None:
    whole, split = (run(odd.engine(Recurrent(), micro_batch=m), 6) for m in (None, micro_batch))
    torch.testing.assert_close(tiny.weights(whole.game), tiny.weights(split.game), rtol=0, atol=1e-12)
    torch.testing.assert_close(whole.kept.rows, split.kept.rows, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_kept_rows_go_on_to_the_same_bits(stop: int) -> None:
    straight, first, second = (odd.engine(Shrinking(), batch_size=None) for _ in range(3))
    assert Rehearsal(second).footprint() is not None
    second.load(copy.deepcopy(run(first, stop).state()))
    same(run(straight, 7).state(), run(second, 7 - stop).state())


def test_kept_rows_of_another_shape_are_refused() -> None:
    engine = run(odd.engine(Recurrent()), 2)
    state = copy.deepcopy(engine.state())
    compatible.refuse_other(state, engine)
    for wrong in ({"last": torch.zeros(8, 3).double()}, {"last": torch.zeros(8, 2)}, {"other": torch.zeros(8, 2)}):
        with pytest.raises(ValueError, match="is not state that this game keeps between steps"):
            compatible.refuse_other(state | {"kept": wrong}, engine)
