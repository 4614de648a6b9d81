"""Files of styles, and projection: the styles and noise of which a generator makes a given image."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.draw import projection, reading
from gancli.draw.distances import Own, normalised
from gancli.draw.projection import Projector, correlation, standardise
from gancli.verbs import projecting
from tests import styled
from tests.conftest import Gan
from tests.test_directions import last

KINDS = ("stylegan", "stylegan2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("styled")
    return {kind: styled.train(folder, kind) for kind in KINDS}


def arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


# -- files of styles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [[], ["truncation=0.5"]])
def test_styles_give_the_images_of_their_seeds_to_the_bit(
    gan: Gan, runs: dict[str, Path], kind: str, words: list[str]
) -> None:
    keys = ["sample", f"run={runs[kind]}", "seeds=4-6"]
    saved = gan(*keys, *words, "format=w")
    assert saved.code == 0, saved.err
    found = arrays(last(saved.out))
    assert (found["w"].shape, found["w"].dtype) == ((3, 6, 10), np.float32)
    assert found["seeds"].tolist() == [[4, 0], [5, 0], [6, 0]]
    assert str(found["model"]) == f"{kind} step 3"
    own, again = gan(*keys, *words, "format=npz"), gan(*keys[:2], f"w={last(saved.out)}", "format=npz")
    assert again.code == 0, again.err
    assert np.array_equal(arrays(last(own.out))["images"], arrays(last(again.out))["images"])
    files = gan(*keys[:2], f"w={last(saved.out)}", "format=png")
    with Image.open(last(files.out) / "000002.png") as image:
        assert np.array_equal(np.asarray(image), arrays(last(own.out))["images"][2])


def test_rows_of_a_file_are_walked_and_moved(gan: Gan, runs: dict[str, Path]) -> None:
    run = f"run={runs['stylegan2']}"
    file = last(gan("sample", run, "seeds=4-6", "format=w").out)
    grid = gan("sample", run, "seeds=4-6", "format=npz")
    images = arrays(last(grid.out))["images"].repeat(4, 1).repeat(4, 2)
    walked = gan("interpolate", run, f"w={file}", "frames=3")
    assert walked.code == 0, walked.err
    assert walked.out.startswith("2 paths of")
    with Image.open(last(walked.out)) as sheet:
        page = np.asarray(sheet)
    assert np.array_equal(page[2:66, 2:66], images[0])  # of which the noise is the first row's
    assert np.array_equal(page[68:132, 2:66], images[1])
    moved = gan("interpolate", run, f"w={file}", "axis=direction1", "frames=3", "rows=2")
    assert moved.code == 0, moved.err
    assert "note: the first 2 of 3 rows of the file; rows=3 shows them all" in moved.err
    with Image.open(last(moved.out)) as sheet:
        assert np.array_equal(np.asarray(sheet)[68:132, 68:132], images[1])


def damaged(change: Callable[[dict[str, Any]], object]) -> str:
    """A file of styles of the tiny run in which something is changed."""
    content: dict[str, Any] = {"w": np.zeros((2, 6, 10), np.float32), "seeds": np.array([[0, 0], [1, 0]])}
    change(content)
    np.savez("bad.npz", **content)
    return "w=bad.npz"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("w"), "w=bad.npz has no array w"),
        (lambda c: c.update(w=np.zeros((2, 6, 9), np.float32)), "takes [n, 6, 10] or [n, 10]"),
        (lambda c: c.update(w=np.zeros((0, 10), np.float32)), "takes [n, 6, 10] or [n, 10]"),
        (lambda c: c.update(w=np.zeros(10, np.float32)), "takes [n, 6, 10] or [n, 10]"),
        (lambda c: c.update(w=np.zeros((2, 10), np.int64)), "holds int64, and needs floating-point numbers"),
        (lambda c: c.update(w=np.full((2, 10), np.nan)), "numbers that are not finite"),
        (lambda c: c.update(w=np.full((2, 10), 1e300)), "numbers that are not finite"),
        (lambda c: c.update(w=np.array([object()])), "cannot be read"),
        (lambda c: c.update(seeds=np.zeros((3, 2), np.int64)), "seeds has to be [n, 2] whole numbers"),
        (lambda c: c.update(seeds=np.full((2, 2), -1)), "seeds has to be [n, 2] whole numbers"),
        (lambda c: c.update({"noise.blocks.0.conv.noise": np.zeros((2, 5, 4), np.float32)}), "needs [2, 4, 4]"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    gan: Gan, runs: dict[str, Path], change: Callable[[dict[str, Any]], object], said: str
) -> None:
    answer = gan("sample", f"run={runs['stylegan2']}", damaged(change))
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_an_array_that_states_more_than_it_has_is_refused(gan: Gan, runs: dict[str, Path]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 45,)})
    with zipfile.ZipFile("bad.npz", "w") as archive:
        archive.writestr("w.npy", header.getvalue())
    answer = gan("sample", f"run={runs['stylegan2']}", "w=bad.npz")
    assert (answer.code, len(answer.err.strip().splitlines())) == (2, 1)
    assert f"w.npy has the header [{1 << 45}] of float32, but 0 bytes of data" in answer.err


def test_other_files_and_keys_are_refused(gan: Gan, runs: dict[str, Path], trained: Path) -> None:
    run = f"run={runs['stylegan2']}"
    Path("text.npz").write_text("no archive", encoding="utf-8")
    good = damaged(lambda c: None)
    for verb, words, said in (
        ("sample", ["w=none.npz"], "w=none.npz does not exist"),
        ("sample", ["w=text.npz"], "w=text.npz cannot be read"),
        ("sample", [good, "n=3"], "n= and w=: the file gives the styles"),
        ("sample", [good, "seed=3"], "has the noise of its images: leave seed out"),
        ("sample", [good, "format=onnx"], "w= makes images"),
        ("sample", [good, f"run={trained}"], "has no styles"),
        ("sample", ["format=w", f"run={trained}"], "has no styles"),
        ("sample", ["format=w", "mixing=0"], "mixing= draws one picture; leave format out"),
        ("interpolate", [good, "axis=z"], "rows of a file are walked by axis=w, or moved by axis=direction1"),
        ("interpolate", [good, "classes=1"], "leave classes out"),
        ("interpolate", [good, "mode=lerp"], "mode= has no effect"),
        ("sample", ["project_steps=3"], "project_steps= has no effect with project=null"),
        ("sample", ["project=a.png", "truncation=0.5"], "truncation= and project="),
        ("sample", ["project=a.png", "format=png"], "leave format out"),
        ("sample", ["project=none.png"], "project=none.png does not exist"),
        ("sample", ["project=text.npz", "w=a"], "project= and w="),
    ):
        answer = gan(verb, run, *words)
        assert answer.code == 2, words
        assert said in answer.err, answer.err


# -- projection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "space"), [("stylegan2", "w"), ("stylegan2", "w+"), ("stylegan", "w+")])
def test_an_own_image_is_found(gan: Gan, runs: dict[str, Path], kind: str, space: str) -> None:
    run = f"run={runs[kind]}"
    assert gan("sample", run, "seed=9", "n=2", "format=png", "run_dir=own").code == 0
    Path("own/sample.json").unlink()
    keys = ["sample", run, "project=own", "project_steps=30", f"project_space={space}"]
    answer = gan(*keys, "run_dir=p")
    assert answer.code == 0, answer.err
    assert "000000.png: distance" in answer.out
    assert "steps 1/60" in answer.err
    about = json.loads(Path("p/sample.json").read_text(encoding="utf-8"))
    assert (about["steps"], about["space"], about["distance"]["pixels"]) == (30, space, 0.1)
    assert [file["input"] for file in about["files"]] == ["000000.png", "000001.png"]
    assert all(file["share"] == pytest.approx(file["distance"] / about["between_samples"]) for file in about["files"])

    sampler: Any = reading.load(str(runs[kind]))
    targets = [projecting.target_of(Path(f"own/{name}.png"), sampler.field) for name in ("000000", "000001")]
    start = sampler.generate({"w": Projector(sampler, Own(sampler)).mean[None]}, [(0, 0)])["x"]
    for target, file in zip(targets, about["files"], strict=True):
        begun = Own(sampler).to(sampler.field.ready(target.clone())[None])(start)
        assert file["distance"] < 0.7 * float(begun)

    found = arrays(Path("p/styles.npz"))
    assert found["w"].shape == (2, 6, 10)
    assert (np.ptp(found["w"], axis=1) == 0).all() == (space == "w")
    maps = [rows for name, rows in found.items() if name.startswith("noise.")]
    assert [rows.shape[1] for rows in maps] == ([4, 8, 8, 16, 16] if kind == "stylegan2" else [4, 4, 8, 8])
    for rows in maps:
        np.testing.assert_allclose(rows.mean((1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(rows.std((1, 2)), 1, atol=1e-4)

    with Image.open("p/projected.png") as image:
        pairs = np.asarray(image)
    again = gan("sample", run, "w=p/styles.npz", "format=npz")
    assert again.code == 0, again.err
    made = arrays(last(again.out))["images"].repeat(4, 1).repeat(4, 2)
    for k, target in enumerate(targets):
        assert np.array_equal(pairs[2 + 66 * k : 66 + 66 * k, 68:132], made[k])
        shown = target.permute(1, 2, 0).numpy().repeat(4, 0).repeat(4, 1)
        assert np.array_equal(pairs[2 + 66 * k : 66 + 66 * k, 2:66], shown)
    walked = gan("interpolate", run, "w=p/styles.npz", "frames=3")
    assert walked.code == 0, walked.err
    with Image.open(last(walked.out)) as image:
        page = np.asarray(image)
    assert np.array_equal(page[2:66, 2:66], made[0])
    assert np.array_equal(page[2:66, 2 + 2 * 66 : 66 + 2 * 66], made[1])
    assert gan("interpolate", run, "w=p/styles.npz", "axis=direction1", "frames=3").code == 0


def test_a_projection_is_the_same_bits_again_and_alone(gan: Gan, runs: dict[str, Path]) -> None:
    run = f"run={runs['stylegan2']}"
    assert gan("sample", run, "seed=9", "n=2", "format=png", "run_dir=own").code == 0
    keys = ["sample", run, "project_steps=4"]
    for name, what in (("a", "own/*.png"), ("b", "own/*.png"), ("c", "own/000001.png")):
        assert gan(*keys, f"project={what}", f"run_dir={name}").code == 0
    a, b, c = (arrays(Path(name) / "styles.npz") for name in "abc")
    for name, rows in a.items():
        assert np.array_equal(rows, b[name])
        assert name == "model" or np.array_equal(rows[1:], c[name])
    assert gan(*keys, "project=own/000001.png", "seed=1", "run_dir=d").code == 0
    assert not np.array_equal(arrays(Path("d/styles.npz"))["w"], c["w"])


def test_images_are_cropped_and_unusable_ones_named(gan: Gan, runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)).save("in/grey.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"none")
    answer = gan("sample", f"run={runs['stylegan2']}", "project=in", "project_steps=2", "run_dir=p")
    assert answer.code == 2
    assert "1 of 2 files could not be used, the first:" in answer.err
    about = json.loads(Path("p/sample.json").read_text(encoding="utf-8"))
    assert [file["input"] for file in about["files"]] == ["grey.png"]
    assert about["failed"][0]["input"] == "bad.png"
    assert arrays(Path("p/styles.npz"))["w"].shape[0] == 1


def test_what_is_complete_is_kept_when_it_is_stopped(
    gan: Gan, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = f"run={runs['stylegan2']}"
    assert gan("sample", run, "n=2", "format=png", "run_dir=own").code == 0
    whole, calls = Projector.__call__, list[int]()

    def stopped(self: Projector, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == most:
            raise KeyboardInterrupt
        return whole(self, *args)

    monkeypatch.setattr(Projector, "__call__", stopped)
    most = 2
    answer = gan("sample", run, "project=own/*.png", "project_steps=2", "run_dir=p")
    assert answer.code == 130
    assert "note: 1 of 2 projections are complete, in" in answer.err
    assert sorted(path.name for path in Path("p").iterdir()) == ["projected.png", "styles.npz", "way.png"]
    calls.clear()
    most = 1
    assert gan("sample", run, "project=own/*.png", "project_steps=2", "run_dir=q").code == 130
    assert not Path("q").exists()


def test_the_start_the_schedule_and_the_regulariser(runs: dict[str, Path]) -> None:
    sampler: Any = reading.load(str(runs["stylegan2"]))
    found = Projector(sampler, Own(sampler), seed=2)
    w = sampler.nets["G"].mapping(sampler.inputs([(2, k) for k in range(projection.LATENTS)])["z"])
    torch.testing.assert_close(found.mean, w.mean(0), atol=1e-5, rtol=1e-4)
    assert found.deviation == pytest.approx(float((w - w.mean(0)).square().sum(1).mean().sqrt()), rel=1e-4)
    maps = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    standardise(maps)
    by_hand = 0.0
    for rows in (maps[0, 0], 2 * maps[0, 0].view(8, 2, 8, 2).mean((1, 3))):
        for axis in (0, 1):
            by_hand += float((rows * rows.roll(1, axis)).mean()) ** 2
    assert float(correlation(maps)) == pytest.approx(by_hand, rel=1e-5)
    smooth = torch.nn.functional.avg_pool2d(maps, 3, 1, 1)
    standardise(smooth)
    assert correlation(smooth) > 20 * correlation(maps)


def test_the_distance_is_that_of_normalised_features_and_pixels(runs: dict[str, Path]) -> None:
    sampler: Any = reading.load(str(runs["stylegan2"]))
    a, b = sampler.sample([(0, 0), (0, 1)]).split(1)
    D, parts = sampler.nets["D"], list[torch.Tensor]()
    seen = [block.register_forward_hook(lambda m, args, out: parts.append(out)) for block in D.blocks]
    D(torch.cat([a, b]))
    for hook in seen:
        hook.remove()
    wanted = 0.0
    for x in parts:
        unit = x / x.square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(normalised(x), unit, atol=1e-3, rtol=1e-3)
        wanted += float((unit[0] - unit[1]).square().sum(0).mean())
    halves = torch.nn.functional.avg_pool2d
    pixels = [float((halves(a, k) - halves(b, k)).square().mean()) for k in (1, 2, 4)]
    found = float(Own(sampler).to(a)(b))
    assert found == pytest.approx(wanted + 0.1 * sum(pixels) / 3, rel=1e-3)
    assert len(parts) == 2
    assert float(Own(sampler).to(a)(a)) == 0


def test_lpips_is_the_distance_if_a_network_is_given(gan: Gan, runs: dict[str, Path]) -> None:
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({"features": make_layers(cfgs["D"])})
    torch.save(layers.state_dict(), "vgg.pth")
    run = f"run={runs['stylegan2']}"
    assert gan("sample", run, "n=1", "format=png", "run_dir=own").code == 0
    answer = gan("sample", run, "project=own/000000.png", "project_steps=2", "project_lpips=vgg.pth", "run_dir=p")
    assert answer.code == 0, answer.err
    about = json.loads(Path("p/sample.json").read_text(encoding="utf-8"))
    assert about["distance"]["features"] == "LPIPS, vgg16"
    refused = gan("sample", run, "project=own/000000.png", "project_lpips=none.pth")
    assert refused.code == 2
    assert "project_lpips=none.pth does not exist" in refused.err


def test_an_export_has_no_discriminator_to_compare_with(gan: Gan, runs: dict[str, Path]) -> None:
    run = f"run={runs['stylegan2']}"
    assert gan("sample", run, "format=safetensors", "run_dir=e").code == 0
    assert gan("sample", run, "n=1", "format=png", "run_dir=own").code == 0
    answer = gan("sample", "run=e/generator.safetensors", "project=own/000000.png", "project_steps=2")
    assert answer.code == 2
    assert "give the run's directory, or project_lpips=FILE" in answer.err
