"""CoGAN: layers that two networks hold are one layer, in steps, averages, checkpoints, exports and counts."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.draw import pictures, reading
from gancli.draw.sheets import Part, save_sheet
from gancli.errors import CombinationError
from gancli.games.cogan import CoupledGame
from gancli.games.latent import Latent
from gancli.losses.adversarial import NonSaturating
from gancli.nets.cogan import Discriminator, Generator
from gancli.serve.service import Service, SheetRequest
from gancli.store import checkpoint
from gancli.store.rundir import RunDir
from gancli.train.engine import Engine
from tests.conftest import Gan
from tests.contract.cast import TINY, engine_of, tried
from tests.test_engine import same
from tests.test_train import same_run

KEYS = [*TINY["cogan"], "model.ema.decay=0.5", "dataset.n=24", "batch_size=4", "device=cpu"]
QUIET = ["observers.progress=null", "observers.report=null", "observers.grid.n=4", "observers.metrics.every=1"]
PLAYERS = {"G": ("G_A", "G_B"), "D": ("D_A", "D_B")}


def places(net: nn.Module) -> dict[str, int]:
    """Where the numbers of a layer lie."""
    return {name: t.data_ptr() for name, t in net.state_dict(keep_vars=True).items()}


def tied(engine: Engine) -> bool:
    """Whether the shared layers of each player lie in the same memory, and its other layers do not."""
    nets = engine.game.nets
    for first, second in PLAYERS.values():
        a, b = nets[first], nets[second]
        if not places(a.shared) or places(a.shared) != places(b.shared):
            return False
        if set(places(a.own).values()) & set(places(b.own).values()):
            return False
    return True


def test_tied_layers_stay_tied_after_steps_and_after_resume() -> None:
    engine = engine_of(KEYS)
    assert tied(engine)
    for _ in range(2):
        engine.step()
    assert tied(engine)
    other = engine_of([*KEYS, "seed=1"])
    other.load(copy.deepcopy(engine.state()))
    assert tied(other)
    other.seed = engine.seed
    other.streams = engine.streams
    for each in (engine, other):
        each.step()
    assert tied(other)
    same(other.state(), engine.state())


def test_each_parameter_is_in_one_optimizer_and_is_counted_once() -> None:
    engine = engine_of(KEYS)
    moved = [p for player in engine.players.values() for g in player.optimizer.param_groups for p in g["params"]]
    assert len({id(p) for p in moved}) == len(moved)
    assert {id(p) for p in moved} == {id(p) for p in engine.game.parameters()}
    for player, (first, second) in PLAYERS.items():
        nets = engine.game.nets
        sizes = [sum(p.numel() for p in part.parameters()) for part in (nets[first], nets[second].own)]
        assert sum(p.numel() for p in engine.players[player].params) == sum(sizes)


def gradients(engine: Engine, player: str) -> None:
    """The gradients of a player's move, left in the parameters."""
    move = next(m for m in engine.moves() if m.player == player)
    rng, batch = Rng(3, total=4, dtype=torch.float64), dict[str, Tensor]()
    for feed in move.feeds:
        batch |= {f"{feed}.{name}": x.double() for name, x in engine.streams[feed].batch(0, 4).items()}
    for p in engine.game.parameters():
        p.grad = None
        p.requires_grad_(True)
    losses = move.loss(batch, rng).losses
    torch.stack(list(losses.values())).sum().backward()


@pytest.mark.parametrize("player", PLAYERS)
def test_the_gradient_of_a_shared_layer_is_the_sum_of_both_sides(player: str) -> None:
    """Against the same game whose layers were taken apart again, with the same weights."""
    first, second = PLAYERS[player]
    engine = engine_of([*KEYS, "penalty=r1"], double=True)
    engine.step()
    gradients(engine, player)
    nets = engine.game.nets
    together = [p.grad.clone() for p in nets[first].shared.parameters()]
    own = [[p.grad.clone() for p in nets[name].own.parameters()] for name in (first, second)]
    for a, b in PLAYERS.values():
        nets[b].shared = copy.deepcopy(nets[a].shared)
    assert not tied(engine)
    gradients(engine, player)
    for whole, a, b in zip(together, nets[first].shared.parameters(), nets[second].shared.parameters(), strict=True):
        assert a.grad.abs().max() > 0
        assert b.grad.abs().max() > 0
        torch.testing.assert_close(whole, a.grad + b.grad, rtol=1e-11, atol=1e-14)
    for name, kept in zip((first, second), own, strict=True):
        for before, p in zip(kept, nets[name].own.parameters(), strict=True):
            torch.testing.assert_close(p.grad, before, rtol=1e-11, atol=1e-14)


def test_shared_stages_of_the_generators_are_run_once_in_a_move() -> None:
    engine, calls = engine_of(KEYS), list[int]()
    engine.game.nets["G_B"].shared.register_forward_hook(lambda *_: calls.append(1))
    engine.step()
    assert len(calls) == 2  # a move of D, a move of G


def test_averages_of_a_shared_layer_are_equal_to_the_bit() -> None:
    engine = engine_of(KEYS)
    for _ in range(3):
        engine.step()
    nets = engine.networks()
    assert nets["G_A"] is engine.averages["G_A"]
    same(dict(nets["G_A"].shared.state_dict()), dict(nets["G_B"].shared.state_dict()))
    z = torch.randn(4, 100)
    raw = {name: copy.deepcopy(net).eval() for name, net in engine.game.nets.items()}
    made = engine.game.generate(raw, {"z": z})
    with torch.no_grad():
        assert torch.equal(made["A.x"], raw["G_A"](z))
        assert torch.equal(made["B.x"], raw["G_B"](z))


@pytest.mark.parametrize("penalty", ["mode_seeking", "feature_matching", "lecam", "historical_g"])
def test_penalties_are_paid_for_both_domains(penalty: str) -> None:
    engine = engine_of([*KEYS, f"penalty={penalty}"])
    engine.step()
    paid = {name for name in engine.step() if name.startswith("penalty_")}
    assert paid == {f"penalty_D_A_{penalty}", f"penalty_D_B_{penalty}"}


def test_nothing_shared_is_two_gans() -> None:
    engine = engine_of([*KEYS, "model.shared_g=0", "model.shared_d=0"])
    engine.step()
    for first, second in PLAYERS.values():
        a, b = (set(places(engine.game.nets[name]).values()) for name in (first, second))
        assert not a & b


WRONG = {
    "model.shared_g=5": "model.shared_g=5: G has 4 stages",
    "game.d_steps=0": "game.d_steps=0",
    "dataset.size=[1,8,8]": "at least 16 pixels",
    "penalty=[r1] penalty.r1.every=2": "set penalty.r1.every=1",
    "game=noise": "missing key model.G",
    "dataset=ring": "this game reads the column A.x, but dataset=ring has x",
}


@pytest.mark.parametrize("typed", WRONG)
def test_what_makes_no_sense_is_refused_in_a_line(typed: str) -> None:
    keys = [key for key in KEYS if not ("ring" in typed and key.startswith("dataset.size"))]
    engine, said = tried([*keys, *typed.split()])
    assert engine is None
    assert WRONG[typed] in said
    assert "\n" not in said


def test_domains_of_other_channels_share_all_but_what_sees_them() -> None:
    def game(a: tuple[int, ...], b: tuple[int, ...], shared: int | None = None) -> CoupledGame:
        nets: dict[str, nn.Module] = {f"G_{d}": Generator(s, 6, ch=8, shared=shared) for d, s in (("A", a), ("B", b))}
        nets |= {f"D_{d}": Discriminator(s, ch=2) for d, s in (("A", a), ("B", b))}
        return CoupledGame(nets, NonSaturating(), {}, Latent(dim=6))

    made = game((1, 16, 16), (3, 16, 16))
    found = made.generate(dict(made.nets.items()), {"z": torch.rand(2, 6)})
    assert [tuple(x.shape) for x in found.values()] == [(2, 1, 16, 16), (2, 3, 16, 16)]
    with pytest.raises(CombinationError, match="G_A and G_B cannot share their layers"):
        game((1, 16, 16), (3, 16, 16), shared=4)
    with pytest.raises(CombinationError, match="G_A and G_B cannot share their layers"):
        game((1, 16, 16), (1, 32, 32))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, left alone."""
    from gancli.cli import main

    folder = tmp_path_factory.mktemp("cogan") / "run"
    assert main(["train", *KEYS, *QUIET, "steps=3", f"run_dir={folder}"]) == 0
    return folder


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(gan: Gan, run: Path) -> None:
    assert gan("train", *KEYS, *QUIET, "steps=1", "run_dir=half").code == 0
    assert gan("train", "resume=half", "steps=3").code == 0
    same_run(run, Path("half"), 3)
    state = checkpoint.read(RunDir(Path("half")).checkpoint(3))["game"]
    keys = [name.removeprefix("nets.G_A.") for name in state if name.startswith("nets.G_A.shared.")]
    assert keys
    assert all(torch.equal(state[f"nets.G_A.{name}"], state[f"nets.G_B.{name}"]) for name in keys)
    about = json.loads((Path("half") / "run.json").read_text(encoding="utf-8"))
    game = reading.load("half").game
    assert sum(about["parameters"].values()) == sum(p.numel() for p in game.parameters())


def test_samples_are_pairs_and_a_direction_chooses_whose_image_is_first(gan: Gan, run: Path) -> None:
    a, b = (reading.load(str(run), direction=d) for d in ("A", "B"))
    pairs = [(0, k) for k in range(4)]
    first, second = (s.generate(s.inputs(pairs), pairs) for s in (a, b))
    assert (a.column, b.column) == ("A.x", "B.x")
    same(first, second)
    assert not torch.equal(first["A.x"], first["B.x"])
    for direction, other in (("A", "B.x"), ("B", "A.x")):
        made = first[f"{direction}.x"], first[other]
        answer = gan("sample", f"run={run}", "n=4", f"direction={direction}", f"run_dir={direction}")
        assert answer.code == 0, answer.err
        expected = [Part("" if k == 0 else other, "output", a.field, x) for k, x in enumerate(made)]
        save_sheet(Path(), expected)
        assert Path(direction, "grid.png").read_bytes() == Path("grid.png").read_bytes()
    answer = gan("sample", f"run={run}", "direction=A2B")
    assert (answer.code, answer.err) == (2, "gan: direction=A2B: this game has no such direction: type"
                                         " direction=A or B\n")  # fmt: skip


def test_the_page_shows_the_pairs_and_finds_them_under_the_mouse(gan: Gan, run: Path) -> None:
    service = Service(reading.load(str(run)))
    sheet = service.sheet(SheetRequest(0, 5))
    assert gan("sample", f"run={run}", "n=5", "run_dir=s").code == 0
    assert sheet.png == Path("s/grid.png").read_bytes()
    page = np.asarray(Image.open("s/grid.png"))
    (made,) = service.sampler.samples(5)
    height, width = (side - sheet.gap for side in sheet.cell)
    for k, image in enumerate(made):
        x, y = sheet.corner(k)
        large = pictures.to_pixels(image).repeat(height // 16, 0).repeat(height // 16, 1)
        np.testing.assert_array_equal(page[y : y + height, x : x + height], large)  # A's, at the left of its pair
        assert sheet.at(x, y) == sheet.at(x + width - 1, y + height - 1) == k
        assert sheet.at(x, sheet.top - 1) is None  # titles


def test_an_export_draws_the_same_pairs(gan: Gan, run: Path) -> None:
    assert gan("sample", f"run={run}", "format=safetensors", "run_dir=made").code == 0
    pairs = [(1, k) for k in range(3)]
    ours, theirs = reading.load(str(run)), reading.load("made/generator.safetensors")
    same(theirs.generate(theirs.inputs(pairs), pairs), ours.generate(ours.inputs(pairs), pairs))


def test_a_network_that_starts_from_another_run_takes_its_shared_layers_along(gan: Gan, run: Path) -> None:
    answer = gan("train", *KEYS, *QUIET, "seed=5", "steps=0", f"init={{G_B: 'run:{run}'}}", "run_dir=one")
    assert answer.code == 0, answer.err
    assert f"G_B starts from G_B of {run}/checkpoints/00000003.pt" in answer.err
    assert "the layers that G_A shares with G_B start from there, too" in answer.err
    assert gan("train", *KEYS, *QUIET, "seed=6", "steps=1", "run_dir=other").code == 0
    both = f"init={{G_A: 'run:{run}', G_B: 'run:other'}}"
    answer = gan("train", *KEYS, *QUIET, "steps=0", both, "run_dir=two")
    assert answer.code == 2
    assert "init.G_A and init.G_B" in answer.err
    assert not Path("two").exists()


def test_all_may_be_shared_where_images_have_one_shape() -> None:
    engine = engine_of([*KEYS, "model.shared_g=4", "model.shared_d=3"])
    engine.step()
    z = torch.rand(2, 100)
    made = engine.game.generate(dict(engine.game.nets.items()), {"z": z})
    assert torch.equal(made["A.x"], made["B.x"])
