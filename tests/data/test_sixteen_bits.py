"""Images of 16 bits: stored, dealt, shown and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gancli.data import fields, imagefile
from gancli.data.columns import Column
from gancli.data.facts import DataFacts
from gancli.data.fields import Geometry, Image
from gancli.data.loader import Stream
from gancli.data.noise import noise
from gancli.data.source import Source, Sources
from gancli.draw import pictures
from gancli.errors import ConfigError, DataError
from gancli.metrics.images import from_source

EVERY = torch.arange(1 << 16, dtype=torch.int32).view(1, 1, 256, 256)


def deep(n: int = 4, channels: int = 3, side: int = 8, **dealt: int) -> Source:
    levels = np.random.default_rng(0).integers(0, 1 << 16, (n, channels, side, side), np.int32)
    return Source("deep", {"x": Column(Image(channels, side, side, 16), levels)}, **dealt)


def test_every_level_goes_to_networks_and_back() -> None:
    field = Image(1, 256, 256, 16)
    ready = field.ready(EVERY)
    assert ready.dtype == torch.float32
    assert (ready[0, 0, 0, 0], ready[0, 0, -1, -1]) == (-1, 1)
    assert torch.equal(ready, EVERY.float() / 32767.5 - 1)
    assert torch.equal(field.stored(ready), EVERY)
    assert field.stored(torch.tensor([[-2.0, 2.0]])).tolist() == [[0, 65535]]


def test_levels_may_be_given_to_files_and_arrays(tmp_path: Path) -> None:
    field = Image(1, 256, 256, 16)
    array = field.array(EVERY)
    assert (array.dtype, array.shape) == (np.uint16, (1, 256, 256, 1))
    assert np.array_equal(array.ravel(), np.arange(1 << 16))
    (path,) = field.write(tmp_path, ["a"], EVERY)
    assert np.array_equal(imagefile.read(path), array[0].transpose(2, 0, 1))


def test_pictures_have_eight_bits() -> None:
    expected = np.rint(np.arange(1 << 16) / 257).reshape(256, 256)
    assert np.array_equal(pictures.to_pixels(EVERY[0])[..., 0], expected)
    page = Image(1, 256, 256, 16).picture(EVERY)
    assert page.dtype == np.uint8
    assert np.array_equal(page[2:-2, 2:-2, 1], expected)


def test_enlarged_levels_keep_their_depth() -> None:
    flat = torch.full((2, 1, 8, 8), 40_000, dtype=torch.int32)
    cut = Geometry(torch.tensor([True, False]), torch.tensor([[0, 0], [2, 2]]), (8, 8), 2)
    changed = Image(1, 8, 8, 16).changed(flat, cut)
    assert changed.dtype == torch.int32
    assert torch.equal(changed, flat)
    edge = torch.tensor([0, 65535], dtype=torch.int32).repeat_interleave(4).expand(1, 1, 8, 8)
    sharp = Image(1, 8, 8, 16).changed(edge, Geometry(enlarged=8))
    assert (int(sharp.min()), int(sharp.max())) == (0, 65535)  # the bicubic filter overshoots


def test_levels_of_smaller_sides_are_means() -> None:
    x = torch.tensor([[[[0, 1], [2, 65535]]]], dtype=torch.int32)
    assert Image(1, 2, 2, 16).shrunk(x, 1).tolist() == [[[[16384]]]]  # 16384.5, half to even


def test_a_stream_deals_them() -> None:
    source = deep(jitter=2, flip=True)
    dealt = Stream(source, 0, "real").batch(0, 4)["x"]
    assert dealt.dtype == torch.float32
    assert dealt.abs().max() <= 1
    plain = deep()
    rows = {tuple(row.flatten().tolist()) for row in plain.fields["x"].ready(plain.rows(np.arange(4))["x"])}
    assert {tuple(row.flatten().tolist()) for row in Stream(plain, 0, "real").batch(0, 4)["x"]} == rows


def test_what_is_judged_has_eight_bits() -> None:
    source = deep()
    (chunk,) = from_source(source, None, 0).chunks()
    assert chunk.dtype == torch.uint8
    levels = source.rows(np.arange(4))["x"]
    assert torch.equal(chunk, (levels.double() / 257).round().to(torch.uint8))


def test_facts_of_before_stay() -> None:
    assert Image(3, 8, 8).plain() == {"kind": "image", "channels": 3, "height": 8, "width": 8}
    assert fields.read(Image(3, 8, 8).plain()) == Image(3, 8, 8)
    facts = DataFacts("a", {"A": Image(1, 8, 8, 16), "B": Image(3, 8, 8)}, {"": 4}, "f")
    assert facts.plain()["fields"]["A"] == Image(1, 8, 8).plain() | {"bits": 16}
    assert DataFacts.read(facts.plain()) == facts
    assert facts.told == "4 rows: A images of 1×8×8 and 16 bits · B images of 3×8×8"
    narrow = DataFacts("a", {"A": Image(1, 8, 8), "B": Image(3, 8, 8)}, {"": 4}, "f")
    assert narrow.differences(facts) == "A images of 1×8×8 -> images of 1×8×8 and 16 bits"


@pytest.mark.parametrize("bits", [0, 9, 32, "16"])
def test_other_depths_are_no_field(bits: object) -> None:
    with pytest.raises(ValueError, match="bits"):
        fields.read({**Image(3, 8, 8).plain(), "bits": bits})


def test_levels_beyond_are_refused() -> None:
    levels = np.full((1, 1, 8, 8), 1 << 16, np.int32)
    with pytest.raises(DataError, match="column x has 65536 to 65536, but images of 1×8×8 and 16 bits 0 to 65535"):
        Source("deep", {"x": Column(Image(1, 8, 8, 16), levels)})


def test_noise_of_less_than_a_level_is_for_eight_bits() -> None:
    with pytest.raises(ConfigError, match=r"dequantize=true: dataset=deep has images of 16 bits, not 8: type .*=false"):
        deep(dequantize=True)


@pytest.mark.parametrize(("channels", "suffix"), [(1, "png"), (3, "png"), (4, "png"), (2, "npy"), (6, "npy")])
def test_samples_are_files_of_all_their_channels(tmp_path: Path, channels: int, suffix: str) -> None:
    rows = torch.randint(256, (2, channels, 8, 9)).to(torch.uint8)
    paths = Image(channels, 8, 9).write(tmp_path, ["a", "b"], rows)
    assert [path.name for path in paths] == [f"a.{suffix}", f"b.{suffix}"]
    assert np.array_equal(np.stack(list(map(imagefile.read, paths))), rows.numpy())


def test_noise_of_two_domains() -> None:
    table = noise([1, 8, 9], n=4, channels_B=3, bits=16, columns={"A": "image", "B": "image"})
    assert isinstance(table, Source)
    assert table.fields == {"A": Image(1, 8, 9, 16), "B": Image(3, 8, 9, 16)}
    found = table.rows(np.arange(4))
    assert (found["A"].dtype, int(found["B"].max()) > 60_000) == (torch.int32, True)
    both = noise([1, 8, 9], n=4, channels_B=2, columns={"A.x": "image", "B.x": "image"})
    assert isinstance(both, Sources)
    assert [feed.shape for feed in both.feeds.values()] == [(1, 8, 9), (2, 8, 9)]
    for keys, told in (({"channels_B": 2}, "this game takes no images B"), ({"bits": 12}, "type dataset.bits=8 or")):
        with pytest.raises(ConfigError, match=told):
            noise(8, **keys)
