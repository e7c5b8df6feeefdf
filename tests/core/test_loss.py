"""What all losses share: rows of unit length."""

import pytest
import torch
import torch.nn.functional as F
from accelerator import accelerator

from labcode.loss import check_matrix, unit_rows


def gradient(x, weight, dim=-1, function=unit_rows):
    x = x.clone().requires_grad_()
    (function(x, dim).float() * weight).sum().backward()
    return x.grad


def exact(x, weight):
    """(w - u (u·w)) / ‖x‖ by hand, in float64."""
    x, weight = x.double(), weight.double()
    norm = x.square().sum(1, keepdim=True).sqrt()
    u = x / norm
    return u, (weight - u * (u * weight).sum(1, keepdim=True)) / norm


def test_unit_rows_are_a_triangles_sines():
    u = unit_rows(torch.tensor([[3.0, 4.0], [-5.0, 12.0]]))
    assert torch.equal(u, torch.tensor([[3 / 5, 4 / 5], [-5 / 13, 12 / 13]]))


@pytest.mark.parametrize("dim", [-1, 0, 1])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3, 1e9])
def test_unit_rows_of_ordinary_rows_are_those_of_normalize_bit_by_bit(scale, dim):
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 1), (5, 7, 9), (200, 128), (64, 3)):
        x = torch.rand(shape, generator=generator).add_(0.02).mul_(scale)
        x *= torch.randint(0, 2, shape, generator=generator) * 2 - 1
        weight = torch.randn(shape, generator=generator)
        assert torch.equal(unit_rows(x, dim), F.normalize(x, dim=dim))
        assert torch.equal(gradient(x, weight, dim), gradient(x, weight, dim, lambda x, dim: F.normalize(x, dim=dim)))


def test_unit_rows_twice_differentiable():
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert unit_rows(x).dtype == torch.float64
    assert torch.autograd.gradcheck(unit_rows, x) and torch.autograd.gradgradcheck(unit_rows, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_unit_rows_of_zeros_are_zero_and_so_is_their_gradient(dtype):
    x = torch.zeros(2, 5, dtype=dtype)
    x[1] = torch.arange(5.0)
    grad = gradient(x, torch.ones(2, 5))
    assert not unit_rows(x)[0].any() and not grad[0].any() and grad.dtype == dtype
    assert torch.isfinite(grad).all() and grad[1].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1e-12, 1e-6, 1e-4, 1e16, 1e21, 1e30])
def test_unit_rows_of_tiny_and_huge_rows_have_length_one_and_a_bounded_gradient(scale):
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(6, 7, generator=generator), torch.randn(6, 7, generator=generator)
    u, _ = exact(x, weight)
    small = x * scale
    torch.testing.assert_close(unit_rows(small).double(), u, rtol=1e-5, atol=1e-6)
    enlarged = small.double() * (1e-4 / small.double().abs().amax(1, keepdim=True)).clamp_min(1)
    wanted = exact(enlarged, weight)[1]  # the row's own gradient, or that at the length where it stops growing
    found = gradient(small, weight)
    torch.testing.assert_close(found.double() / wanted.abs().max(), wanted / wanted.abs().max(), rtol=1e-4, atol=1e-5)
    assert found.half().isfinite().all()


def test_unit_rows_of_half_precision_are_float32_and_their_gradient_fits():
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(2)).half()
    x[3] *= 2.0**-24  # the smallest that float16 knows
    x[3, 0] = 2.0**-24
    u = unit_rows(x)
    assert u.dtype == torch.float32
    torch.testing.assert_close(u.norm(dim=1), torch.ones(8))
    assert gradient(x, torch.ones(8, 16)).isfinite().all()


def test_unit_rows_take_empty_and_strided_input_and_do_not_wait():
    assert unit_rows(torch.zeros(0, 4)).shape == (0, 4) and unit_rows(torch.zeros(4, 0)).shape == (4, 0)
    x = torch.arange(1.0, 13).view(3, 4)
    assert torch.equal(unit_rows(x.T), F.normalize(x.T, dim=-1))
    with accelerator() as waits:
        on = x.to("gpu").requires_grad_()
        waits.clear()
        unit_rows(on).sum().backward()
        assert not waits


@pytest.mark.bad_input
@pytest.mark.parametrize("x", [[1.0, 2.0], torch.ones(2, 2, dtype=torch.int64), torch.ones(2, dtype=torch.complex64)])
def test_unit_rows_refuse_what_is_no_float_tensor(x):
    with pytest.raises(ValueError, match="x must be a floating-point tensor"):
        unit_rows(x)


@pytest.mark.bad_input
def test_a_matrix_without_columns_is_named():
    with pytest.raises(ValueError, match="z must have at least one column"):
        check_matrix("z", torch.zeros(3, 0))
