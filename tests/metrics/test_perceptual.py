"""LPIPS over a backbone's file, and the FCN score of a segmentation network's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torchvision
from torch import Tensor, nn

from gancli.errors import ConfigError, MetricError, WeightsError
from gancli.metrics.directions import higher_is_better
from gancli.metrics.evaluation import by_image
from gancli.metrics.images import Shown
from gancli.metrics.lpips import BACKBONES, SMALLEST, Lpips, network
from gancli.metrics.segmentation import CITYSCAPES, UNJUDGED, Fcn
from tests.conftest import Gan
from tests.metrics.test_pairs import evaluated, same
from tests.metrics.translations import Translation, noise, pairs

RED, GREEN, BLUE, BLACK = [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]


def backbone(net: str, folder: Path, seed: int = 0) -> tuple[nn.Module, Path]:
    """A seeded one, and its file, as torchvision's are, without the dense layers that nobody reads."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = torchvision.models.get_model(BACKBONES[net], weights=None)
    path = folder / f"{net}.pth"
    torch.save({name: value for name, value in found.state_dict().items() if name.startswith("features")}, path)
    return found.features, path


@pytest.mark.parametrize("net", ["alex", "squeeze", pytest.param("vgg", marks=pytest.mark.slow)])
def test_lpips_is_torchmetrics(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as theirs

    features, path = backbone(net, tmp_path)
    A, B = noise(3, 3, 32, 32), noise(3, 3, 32, 32, seed=1)
    found = evaluated(Translation(same), pairs(A, B), Lpips(net, str(path)))
    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", lambda *_: features)
    expected = float(theirs(A.float() / 255, B.float() / 255, net_type=net, normalize=True))
    assert found["lpips"] == pytest.approx(expected, rel=1e-5)
    assert (found["protocol"]["lpips"]["net"], len(found["protocol"]["lpips"]["weights_sha256"])) == (net, 64)
    assert evaluated(Translation(same), pairs(A, A), Lpips(net, str(path)))["lpips"] == 0.0
    grey = evaluated(Translation(same), pairs(A[:, :1], B[:, :1]), Lpips(net, str(path)))
    wide = [x[:, :1].expand(-1, 3, -1, -1).float() / 255 for x in (A, B)]
    assert grey["lpips"] == pytest.approx(float(theirs(*wide, net_type=net, normalize=True)), rel=1e-5)


@pytest.mark.parametrize("net", ["alex", "squeeze", pytest.param("vgg", marks=pytest.mark.slow)])
def test_the_smallest_images_are_those_that_leave_something(net: Any, tmp_path: Path) -> None:
    _, path = backbone(net, tmp_path)
    found = network(net, torch.load(path, weights_only=True), str(path))
    side = SMALLEST[net]
    assert found(*[torch.zeros(1, 3, side, side)] * 2).shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        found(*[torch.zeros(1, 3, side - 1, side - 1)] * 2)


def test_lpips_without_its_file_is_a_line(tmp_path: Path) -> None:
    x, small = noise(2, 3, 32, 32), noise(2, 3, 16, 16)
    for metric, data, said in [
        (
            Lpips(),
            pairs(x, x),
            r"weights of torchvision's alexnet, and downloads none: type metrics.lpips.weights=FILE",
        ),
        (Lpips("vgg"), pairs(x, x), "weights of torchvision's vgg16"),
        (Lpips(weights="x"), pairs(small, small), "at least 31 pixels per side, and these are 3×16×16"),
    ]:
        with pytest.raises(MetricError, match=said):
            evaluated(Translation(same), data, metric)
    with pytest.raises(WeightsError, match=r"metrics.lpips.weights=none.pth does not exist"):
        evaluated(Translation(same), pairs(x, x), Lpips(weights="none.pth"))
    _, path = backbone("squeeze", tmp_path)
    with pytest.raises(WeightsError, match="belongs to another network than alexnet: it"):
        evaluated(Translation(same), pairs(x, x), Lpips(weights=str(path)))


# -- the FCN score -----------------------------------------------------------------------------------------------------


def shown(given: Tensor, made: Tensor) -> Shown:
    """Outputs beside their inputs, of images uint8."""
    return Shown(0, made, 255, made.double() / 255, given.double() / 255)


def painted(*colours: list[int]) -> Tensor:
    """An image [1, 3, 1, n] of these pixels."""
    return torch.tensor(colours, dtype=torch.uint8).T.reshape(1, 3, 1, -1)


def by_colour(x: Tensor) -> Tensor:
    """A segmentation network: red, green and blue are the classes' scores."""
    return x


def metric(**options: Any) -> Fcn:
    made = Fcn(palette=[RED, GREEN, BLUE], mean=[0.0] * 3, std=[1.0] * 3, **options)
    made._net = by_colour
    return made


def test_the_score_is_that_of_a_confusion_matrix_by_hand() -> None:
    given = painted(RED, RED, RED, GREEN, BLACK, [200, 30, 30])  # black is nearer to none: ignored below
    made = painted(RED, RED, GREEN, GREEN, BLUE, BLUE)
    fcn = metric(ignore=[BLACK])
    statistics = fcn.see(shown(given, made))
    # Of class red 4 pixels: 2 right, one taken for green, one for blue; of green one, right; the black one is out.
    assert (statistics * 6).view(3, 3).tolist() == [[2, 1, 1], [0, 1, 0], [0, 0, 0]]
    values, influences = by_image(fcn, statistics)
    assert values["fcn_accuracy"] == pytest.approx(3 / 5)
    assert values["fcn_class_accuracy"] == pytest.approx((2 / 4 + 1 / 1) / 2)
    assert values["fcn_iou"] == pytest.approx((2 / 4 + 1 / 2) / 2)  # blue occurs in no label map
    assert all(float(each.abs().max()) < 1e-12 for each in influences.values())  # one image is its own mean


def test_what_an_image_adds_is_the_derivative() -> None:
    fcn = metric()
    statistics = torch.cat([fcn.see(shown(noise(1, 3, 6, 5, seed=k), noise(1, 3, 6, 5, seed=k + 9))) for k in range(4)])
    values, influences = by_image(fcn, statistics)
    assert set(values) == {"fcn_accuracy", "fcn_class_accuracy", "fcn_iou"}
    step = 1e-6
    for k in range(4):
        weights = torch.full((4,), 1 - step, dtype=torch.float64) / 4
        weights[k] += step
        moved = fcn.told(weights @ statistics)
        for name, value in values.items():
            assert (float(moved[name]) - value) / step == pytest.approx(float(influences[name][k]), rel=1e-4, abs=1e-7)


def test_cityscapes_are_nineteen_classes() -> None:
    fcn = Fcn()
    assert (len(CITYSCAPES), fcn.width, fcn.left_out) == (19, 361, UNJUDGED)
    image = torch.tensor([*CITYSCAPES, (0, 0, 0)], dtype=torch.uint8).T.reshape(1, 3, 4, 5).double() / 255
    assert fcn.labelled(image).flatten().tolist() == list(range(20))
    for options, said in [
        ({"palette": [RED]}, "at least two colours"),
        ({"palette": [RED, RED]}, "at least two colours, distinct"),
        ({"palette": [RED, [1, 2]]}, r"\[1, 2\] is not a colour"),
        ({"ignore": [[0, 0, 256]]}, r"metrics.fcn.ignore: \[0, 0, 256\] is not a colour"),
        ({"std": [1.0, 0.0, 1.0]}, r"metrics.fcn.std="),
    ]:
        with pytest.raises(ConfigError, match=said):
            Fcn(**options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict of a seeded network of torchvision with three classes."""
    path = tmp_path_factory.mktemp("fcn") / "net.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.get_model(
            "lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3
        )
    torch.save(net.state_dict(), path)
    return path


def test_a_network_of_torchvision_is_read_from_its_file(segmenter: Path) -> None:
    A, B = noise(3, 3, 32, 32), noise(3, 3, 32, 32, seed=1)
    options: dict[str, Any] = {"network": "lraspp_mobilenet_v3_large", "palette": [RED, GREEN, BLUE]}
    fcn = Fcn(str(segmenter), **options)
    found = evaluated(Translation(same), pairs(A, B), fcn)
    net = torchvision.models.get_model("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=3).eval()
    net.load_state_dict(torch.load(segmenter, weights_only=True))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        said = net((A.float() / 255 - mean) / std)["out"].argmax(1)
    palette = torch.tensor([RED, GREEN, BLUE]).double()
    truth = torch.cdist(A.permute(0, 2, 3, 1).reshape(-1, 3).double(), palette).argmin(1)
    assert found["fcn_accuracy"] == pytest.approx(float((truth == said.flatten()).double().mean()), abs=1e-12)
    assert {"fcn_accuracy", "fcn_class_accuracy", "fcn_iou"} == set(found["intervals"])
    assert found["protocol"]["fcn"]["network"] == "lraspp_mobilenet_v3_large"
    with pytest.raises(WeightsError, match="belongs to another network than lraspp_mobilenet_v3_large of 2 classes"):
        Fcn(str(segmenter), network=options["network"], palette=[RED, BLUE]).begin("cpu")


def test_an_onnx_network_is_read_from_its_file(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(n, 1, ["b", 3, "h", "w"]) for n in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    A = noise(2, 3, 8, 8)
    plain: dict[str, Any] = {"mean": [0.0] * 3, "std": [1.0] * 3}
    fcn = Fcn(str(path), palette=[RED, GREEN, BLUE], **plain)
    found = evaluated(Translation(same), pairs(A, A), fcn)
    assert found["fcn_accuracy"] == evaluated(Translation(same), pairs(A, A), metric(weights=str(path)))["fcn_accuracy"]
    assert found["fcn_accuracy"] > 0.99  # the nearest of three corners is the largest colour, ties apart
    assert "network" not in found["protocol"]["fcn"]
    two = Fcn(str(path), palette=[RED, GREEN], **plain)
    with pytest.raises(MetricError, match=r"outputs \[2, 3, 8, 8\] for 2 images, and the palette has 2 colours"):
        evaluated(Translation(same), pairs(A, A), two)
    path.write_bytes(b"no network")
    with pytest.raises(WeightsError, match="is not an ONNX network that can be run"):
        Fcn(str(path)).begin("cpu")


def test_fcn_without_its_file_or_label_maps_is_a_line(segmenter: Path) -> None:
    x, grey = noise(2, 3, 8, 8), noise(2, 1, 8, 8)
    for fcn, data, said in [
        (Fcn(), pairs(x, x), r"needs a segmentation network, which is not downloaded: type metrics.fcn.weights=FILE"),
        (Fcn(str(segmenter)), pairs(grey, x), "inputs 1×8×8 and outputs 3×8×8: leave it out of metrics"),
    ]:
        with pytest.raises(MetricError, match=said):
            evaluated(Translation(same), data, fcn)
    with pytest.raises(WeightsError, match=r"metrics.fcn.weights=none.pth does not exist"):
        evaluated(Translation(same), pairs(x, x), Fcn("none.pth"))
    with pytest.raises(ConfigError, match=r"metrics.fcn.network=fcn_resnet5: torchvision has no such network; "):
        evaluated(Translation(same), pairs(x, x), Fcn(str(segmenter), network="fcn_resnet5"))
    assert all(higher_is_better(name) for name in ("fcn_accuracy", "fcn_class_accuracy", "fcn_iou"))
    assert not higher_is_better("lpips")


@pytest.mark.parametrize("word", ["fcn", "lpips"])
def test_help_names_the_file(gan: Gan, word: str) -> None:
    answer = gan("eval", "--help", f"metrics=[{word}]")
    assert (answer.code, f"metrics.{word}.weights" in answer.out or "weights: null" in answer.out) == (0, True)
    wrong = gan("eval", f"metrics.{word}.weight=x", f"metrics=[{word}]")
    assert (wrong.code, "did you mean" in wrong.err) == (2, True)
