"""Convolutions in fused form, dense layers, norms and initialisation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers import init
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.linear import Embedding, Linear
from gancli.nets.layers.norms import BatchNorm1d, BatchNorm2d, LayerNorm, NoNorm, norm

SIZES = [(6, 6), (4, 10), (7, 5)]


def textbook(layer: Conv, x: Tensor) -> Tensor:
    """The same layer with the resampling done on its own."""
    if layer.resample == "up":
        x = F.interpolate(x, scale_factor=2)
    x = F.conv2d(x, layer.normalised(), layer.bias, padding=layer.kernel // 2)
    return F.avg_pool2d(x, 2) if layer.resample == "down" else x


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resample", [None, "up", "down"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_fused_form_is_the_textbook_form(resample, kernel, size, spectral, dtype, close):
    layer = Conv(3, 5, kernel, resample=resample, spectral=spectral).to(dtype)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, *size, dtype=dtype, requires_grad=True)
    ours, plain = layer(x), textbook(layer, x)
    assert ours.shape == plain.shape
    direction = torch.randn_like(plain)
    wanted = [x, layer.weight, layer.bias]
    pairs = [(ours, plain)]
    pairs += zip(
        torch.autograd.grad(ours, wanted, direction), torch.autograd.grad(plain, wanted, direction), strict=True
    )
    for a, b in pairs:
        assert (a - b).abs().max() <= close * b.abs().max()


@pytest.mark.parametrize("resample", ["up", "down"])
def test_the_fused_form_in_channels_last(resample):
    layer = Conv(4, 6, resample=resample, spectral=True).double()
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    expected, vectors = layer(x), (layer.u.clone(), layer.v.clone())
    layer.to(memory_format=torch.channels_last)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer.v, vectors[1])
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("resample", ["up", "down"])
def test_fused_kernels_are_sums_of_shifted_taps(resample):
    layer = Conv(1, 1, resample=resample, init=nn.init.ones_)
    line = torch.tensor([1.0, 2.0, 2.0, 1.0])
    expected = torch.outer(line, line) / (4 if resample == "down" else 1)
    assert torch.equal(layer.fused()[0, 0], expected)


def test_the_resampled_layers_have_the_parameters_and_state_of_plain_ones():
    plain, fused = Conv(3, 5), Conv(3, 5, resample="down")
    fused.load_state_dict(plain.state_dict())
    assert list(fused.state_dict()) == ["weight", "bias"]
    assert torch.equal(fused.weight, plain.weight)


def test_a_kernel_that_has_no_fused_form_is_refused():
    with pytest.raises(ValueError, match="must be 1 or 3"):
        Conv(3, 3, 5)


def test_linear_and_embedding():
    dense, table = Linear(3, 2), Embedding(4, 3)
    x, y = torch.randn(5, 3), torch.tensor([3, 0, 3])
    assert torch.equal(dense(x), x @ dense.weight.t() + dense.bias)
    assert torch.equal(table(y), table.weight[y])
    assert Linear(3, 2, bias=False).bias is None


def test_norms_ignore_labels_and_keep_their_constants():
    x, y = torch.randn(4, 6, 5, 5), torch.zeros(4, dtype=torch.int64)
    batch = norm("batch", eps=2e-5, momentum=0.1)(6)
    assert isinstance(batch, BatchNorm2d)
    assert (batch.eps, batch.momentum) == (2e-5, 0.1)
    assert isinstance(norm("batch", flat=True)(6), BatchNorm1d)
    layer = norm("layer")(6)
    assert isinstance(layer, LayerNorm)
    flat = layer(x, y).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(flat.var(1, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    none = norm("none")(6)
    assert isinstance(none, NoNorm)
    assert none(x, y) is x
    assert torch.equal(batch.eval()(x, y), batch(x))


def test_batch_norm_statistics_move_by_the_momentum():
    layer = norm("batch", momentum=0.1)(3)
    x = torch.randn(64, 3, 4, 4) * 2 + 5
    layer(x)
    torch.testing.assert_close(layer.running_mean, 0.1 * x.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.var((0, 2, 3)))


def test_initialisers():
    torch.manual_seed(0)
    weight = torch.empty(64, 32, 3, 3)
    init.normal(0.02)(weight)
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    init.xavier(math.sqrt(2))(weight)
    bound = math.sqrt(2) * math.sqrt(6 / ((64 + 32) * 9))
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    init.orthogonal()(weight)
    rows = weight.flatten(1)
    torch.testing.assert_close(rows @ rows.t(), torch.eye(64), atol=1e-5, rtol=0)
