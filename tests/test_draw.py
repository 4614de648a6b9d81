"""`gan sample`, `gan interpolate`, and `gancli.load`: the same seed is the same image, however it is asked for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gancli
from gancli.compute.device import Compute
from gancli.compute.rng import Rng
from gancli.data.fields import Image as Pictures
from gancli.data.fields import Label
from gancli.draw import pictures
from gancli.draw.interpolation import slerp, walk
from gancli.draw.sampling import Sampler
from gancli.draw.standing import with_standing_statistics
from gancli.errors import ConfigError
from gancli.games.latent import Latent
from gancli.verbs.sample import class_list, seed_list
from tests import tiny
from tests.conftest import Gan
from tests.tiny import facts_of


def npz(folder: str = "s") -> dict[str, np.ndarray]:
    with np.load(Path(folder) / "samples.npz") as arrays:
        return dict(arrays)


def test_same_seed_same_images_whatever_the_batch(gan: Gan, trained: Path) -> None:
    sampler = gancli.load(str(trained))
    many = torch.cat(list(sampler.samples(70, seed=3)))
    assert many.shape == (70, 1, 8, 8)
    assert many.dtype == torch.uint8
    for n in (1, 5, 32, 33):
        assert torch.equal(torch.cat(list(sampler.samples(n, seed=3))), many[:n])
    assert not torch.equal(torch.cat(list(sampler.samples(5, seed=4))), many[:5])
    assert gan("sample", f"run={trained}", "seed=3", "n=40", "format=npz", "run_dir=s").code == 0
    np.testing.assert_array_equal(npz()["images"], many[:40].permute(0, 2, 3, 1).numpy())


def test_one_image_a_seed(gan: Gan, trained: Path) -> None:
    assert gan("sample", f"run={trained}", "seeds=2-4,9", "format=npz", "run_dir=s").code == 0
    assert npz()["seeds"][:, 0].tolist() == [2, 3, 4, 9]
    sampler = gancli.load(str(trained))
    for image, seed in zip(npz()["images"], (2, 3, 4, 9), strict=True):
        np.testing.assert_array_equal(image, next(sampler.samples(1, seed))[0].permute(1, 2, 0).numpy())


def test_formats(gan: Gan, trained: Path) -> None:
    assert gan("sample", f"run={trained}", "n=9", "run_dir=a").code == 0
    with Image.open("a/grid.png") as picture:
        assert picture.size == (3 * 66 + 2, 3 * 66 + 2)
    assert gan("sample", f"run={trained}", "n=3", "format=png", "run_dir=b").code == 0
    assert sorted(p.name for p in Path("b").iterdir()) == ["000000.png", "000001.png", "000002.png", "sample.json"]
    about = json.loads(Path("b/sample.json").read_text(encoding="utf-8"))
    assert (about["step"], about["ema"], about["n"]) == (6, True, 3)
    answer = gan("sample", f"run={trained}", "checkpoint=2", "n=1")
    assert "at step 2: outputs/sample/" in answer.out


def test_checkpoints_and_averages_differ(trained: Path) -> None:
    first, last, raw = (
        torch.cat(list(gancli.load(str(trained), **options).samples(4)))
        for options in ({"checkpoint": 0}, {"checkpoint": "last"}, {"ema": False})
    )
    assert not torch.equal(first, last)
    assert not torch.equal(raw, last)


def test_a_checkpoint_file_is_enough(trained: Path) -> None:
    by_file = gancli.load(str(trained / "checkpoints" / "00000004.pt"))
    assert by_file.step == 4
    assert torch.equal(next(by_file.samples(3)), next(gancli.load(str(trained), 4).samples(3)))


def test_interpolation_ends_at_its_latents(gan: Gan, trained: Path) -> None:
    assert gan("interpolate", f"run={trained}", "rows=2", "frames=4", "run_dir=p").code == 0
    with Image.open("p/paths.png") as picture:
        assert picture.size == (4 * 66 + 2, 2 * 66 + 2)
        page = np.array(picture)
    ends = next(gancli.load(str(trained)).samples(4))
    np.testing.assert_array_equal(page[2:66, 2:66], pictures.sheet(ends[:1], 1)[2:66, 2:66])
    np.testing.assert_array_equal(page[68:132, 200:264], pictures.sheet(ends[3:], 1)[2:66, 2:66])
    assert gan("interpolate", f"run={trained}", "rows=4", "frames=5", "format=gif", "run_dir=g").code == 0
    with Image.open("g/paths.gif") as animation:
        assert animation.n_frames == 8  # there and back without the ends twice


def test_slerp_walks_the_great_circle() -> None:
    a, b = torch.tensor([3.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 3.0], dtype=torch.float64)
    for share in (0.0, 0.25, 1.0):
        angle = share * math.pi / 2
        expected = torch.tensor([3 * math.cos(angle), 3 * math.sin(angle)], dtype=torch.float64)
        torch.testing.assert_close(slerp(a, b, share), expected)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)
    torch.testing.assert_close(walk(a, b, 3, "lerp"), torch.tensor([[3, 0], [1.5, 1.5], [0, 3]], dtype=torch.float64))


def test_truncation_is_the_truncated_normal() -> None:
    latent, rng = Latent(dim=400), Rng(0, total=200)
    free, cut = latent.draw(rng), latent.draw(rng, 0.5)
    assert cut.abs().max() <= 0.5
    assert cut.flatten()[free.flatten().argsort()].diff().min() >= 0  # the order of the numbers stays
    # variance of a normal truncated to ±t: 1 - 2 t φ(t) / (2 Φ(t) - 1)
    phi = math.exp(-0.125) / math.sqrt(2 * math.pi)
    assert cut.var().item() == pytest.approx(1 - phi / math.erf(0.5 / math.sqrt(2)), rel=0.01)
    uniform = Latent(dim=400, kind="uniform").draw(rng)
    assert -1 <= uniform.min() < -0.99
    assert 0.99 < uniform.max() <= 1


def test_standing_statistics_are_those_of_the_given_weights() -> None:
    engine = tiny.engine(tiny.game(g_norm=True))
    game, net = engine.game, engine.game.nets["G"]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    settled = with_standing_statistics(game, dict(game.nets.items()), engine.compute, passes=4, batch=16)["G"]
    hidden = [net.dense(game.inputs(Rng("standing statistics", k, total=16), {})["z"]) for k in range(4)]
    torch.testing.assert_close(settled.norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(settled.norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert net.training
    assert not settled.training


def test_uint8_is_rounded_to_the_nearest() -> None:
    values = torch.tensor([-1.0, 1.0, 0.0, -1.2, 1.2, -1 + 2 * 100.4 / 255, -1 + 2 * 100.6 / 255])
    assert Pictures(1, 1, 7).stored(values).tolist() == [0, 255, 128, 0, 255, 100, 101]


def named(classes: tuple[str, ...]) -> Sampler:
    """A sampler whose game is asked for these classes."""
    game = tiny.game()
    game.labelled, game.fields = True, {**game.fields, "y": Label(classes)}
    return Sampler(game, {}, facts_of((1, 8, 8), classes), Compute())


def test_lists_of_seeds_and_classes() -> None:
    assert seed_list(None) == []
    assert seed_list([4, 2]) == [4, 2]
    with pytest.raises(ConfigError, match="million"):
        seed_list("0-9999999")
    names = named(("Food & Drink", "Flags", "a, b"))
    assert class_list("Food & Drink", names) == [0]
    assert class_list("a, b", names) == [2]
    assert class_list("Flags,0", names) == [1, 0]
    assert class_list("a, b,Flags", names) == [2, 1]
    assert class_list("all", names) == [0, 1, 2]
    assert class_list(None, names) == []
    with pytest.raises(ConfigError, match="did you mean Flags"):
        class_list("Flag", names)
    for odd in ("²", "9" * 5000, "3"):
        with pytest.raises(ConfigError, match="no such class"):
            class_list(odd, names)


def test_names_that_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    found = named(("1", "5", r"caf\xe9"))
    assert class_list("1,5", found) == [0, 1]
    assert capsys.readouterr().err == "classes=1,5: these are names: 1 (class number 0), 5 (class number 1)\n"
    assert class_list([5], found) == [1]
    assert [found.class_number(k) for k in range(3)] == [0, 1, 2]  # an int is a number whatever the names are
    assert [class_list(found.class_word(k), found) for k in range(3)] == [[0], [1], [2]]
    assert class_list("caf\udce9", found) == [2]
    for other in ("0", "2", "05"):
        with pytest.raises(ConfigError, match=f"classes={other}: no such class"):
            class_list(other, found)
    plain = named(("0", "1", "2"))
    capsys.readouterr()
    assert class_list("2,0", plain) == [2, 0]
    assert capsys.readouterr().err == ""


def test_sheets_place_images_row_by_row() -> None:
    images = torch.arange(3, dtype=torch.uint8).mul(50).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    page = pictures.sheet(images, columns=2, scale=1)
    assert page.shape == (22, 22, 3)
    assert [page[5, 5, 0], page[5, 15, 0], page[15, 5, 0], page[15, 15, 0]] == [0, 50, 100, 255]
    two = pictures.to_pixels(torch.tensor([[[1]], [[2]]], dtype=torch.uint8))
    assert two.tolist() == [[[1, 2, 2]]]


def test_points_are_drawn_where_they_are() -> None:
    square = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    page = pictures.scatter(torch.tensor([[1.0, 1.0]]), square, size=101)
    red = np.argwhere((page == pictures.INK).all(-1))
    assert red.mean(0).round().tolist() == [8, 92]  # up and to the right
