"""Convolutions as matrix products: the library's own function, whichever way is taken."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.nets.layers import matmul
from gancli.nets.layers.spectral import Weighted, as_matrix

LAST = torch.channels_last
# Everything by products; only the weights' gradient; nothing.
WAYS = {"whole": (1000, 1000), "gradient": (0, 1000), "library": (0, 0)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(matmul, "WHOLE", WAYS[request.param][0])
    monkeypatch.setattr(matmul, "GRADIENT", WAYS[request.param][1])
    return request.param


def parts(k: int, inputs: int = 3, outputs: int = 4, size: tuple[int, int] = (6, 8)) -> tuple[Tensor, Tensor, Tensor]:
    """Images, a kernel and a bias, in float64 and channels-last, all with gradients."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, inputs, *size, generator=generator, dtype=torch.float64).to(memory_format=LAST)
    kernel = torch.randn(outputs, inputs, k, k, generator=generator, dtype=torch.float64).to(memory_format=LAST)
    bias = torch.randn(outputs, generator=generator, dtype=torch.float64)
    return x.requires_grad_(True), kernel.requires_grad_(True), bias.requires_grad_(True)


def assert_same(ours: Tensor, plain: Tensor, wanted: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    assert ours.is_contiguous(memory_format=LAST)
    slope = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=plain.dtype)
    for a, b in zip(torch.autograd.grad(ours, wanted, slope), torch.autograd.grad(plain, wanted, slope), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (4, 2)])
def test_convolutions(way: str, k: int, stride: int) -> None:
    x, kernel, bias = parts(k)
    plain = F.conv2d(x, kernel, bias, stride, 1)
    assert_same(matmul.convolve(x, kernel, bias, stride), plain, (x, kernel, bias))
    assert_same(matmul.convolve(x, kernel, None, stride), F.conv2d(x, kernel, None, stride, 1), (x, kernel))


def test_transposed_convolutions(way: str) -> None:
    x, kernel, bias = parts(4)
    first = kernel.transpose(0, 1)
    assert_same(matmul.convolve_up(x, kernel, bias), F.conv_transpose2d(x, first, bias, 2, 1), (x, kernel, bias))
    assert_same(matmul.convolve_up(x, kernel, None), F.conv_transpose2d(x, first, None, 2, 1), (x, kernel))


def test_pointwise_convolutions() -> None:
    x, kernel, bias = parts(1)
    assert_same(matmul.pointwise(x, kernel, bias), F.conv2d(x, kernel, bias), (x, kernel, bias))
    loose = x.detach().contiguous()
    torch.testing.assert_close(matmul.pointwise(loose, kernel, bias), F.conv2d(loose, kernel, bias))


def test_second_derivatives(way: str) -> None:
    x, kernel, bias = parts(3, 2, 2, (4, 2))
    assert torch.autograd.gradgradcheck(lambda *p: matmul.convolve(*p), (x, kernel, bias))
    x, kernel, bias = parts(4, 2, 2, (2, 4))
    assert torch.autograd.gradgradcheck(lambda *p: matmul.convolve(*p, 2), (x, kernel, bias))
    assert torch.autograd.gradgradcheck(lambda *p: matmul.convolve_up(*p), (x, kernel, bias))


def test_only_what_is_wanted_is_computed(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G's move goes through a frozen D: no gradient of its weights may be paid for."""
    x, kernel, bias = parts(3)
    frozen = kernel.detach()
    asked: list[list[bool]] = []
    plain = matmul._conv_backward
    monkeypatch.setattr(matmul, "_conv_backward", lambda *a: (asked.append(a[5]), plain(*a))[1])
    out = matmul.convolve(x, frozen, bias.detach())
    out.sum().backward()
    assert x.grad is not None
    assert [mask[1] for mask in asked] == [False] * len(asked)
    assert matmul.convolve(x.detach(), frozen, None).grad_fn is None


def test_the_output_may_be_changed_in_place(way: str) -> None:
    x, kernel, bias = parts(3)
    out = matmul.convolve(x, kernel, bias)
    grads = torch.autograd.grad((out.add_(1.0) * 2).sum(), (x, kernel, bias))
    plain = torch.autograd.grad(((F.conv2d(x, kernel, bias, 1, 1) + 1) * 2).sum(), (x, kernel, bias))
    for a, b in zip(grads, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_the_gradient_of_a_normalised_weight(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = Weighted((4, 3, 3, 3), init=torch.nn.init.normal_, spectral=True).double().to(memory_format=layout)
    layer.advance()

    def plain(weight: Tensor) -> Tensor:
        right = as_matrix(layer.v, like=weight).squeeze(0)
        return weight / torch.dot(layer.u, as_matrix(weight).mv(right))

    slope = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    (ours,) = torch.autograd.grad(layer.normalised(), layer.weight, slope, create_graph=True)
    (usual,) = torch.autograd.grad(plain(layer.weight), layer.weight, slope, create_graph=True)
    torch.testing.assert_close(ours, usual, rtol=1e-12, atol=1e-13)
    (ours2,) = torch.autograd.grad(ours.square().sum(), layer.weight)
    (usual2,) = torch.autograd.grad(usual.square().sum(), layer.weight)
    torch.testing.assert_close(ours2, usual2, rtol=1e-10, atol=1e-11)
    # The vectors of a graph are those of its forward pass, though they move before its backward.
    out = layer.normalised()
    (before,) = torch.autograd.grad(out, layer.weight, slope, retain_graph=True)
    layer.advance()
    (after,) = torch.autograd.grad(out, layer.weight, slope)
    assert torch.equal(before, after)
