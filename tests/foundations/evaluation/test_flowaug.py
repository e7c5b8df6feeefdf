"""The flow against SciPy's cosines and autograd's Jacobian; what FlowAug shifts and keeps."""


import numpy as np
import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E


def test_cosine_basis_is_scipys():
    from scipy.fft import dct

    np.testing.assert_allclose(E.cosine_basis(6).numpy(), dct(np.eye(6), norm="ortho", axis=0), atol=1e-6)


def random_flow(size=3, channels=2, coarse=1, seed=0, layers=4):
    """A flow whose couplings do something, in double precision."""
    flow = E.GlobalLocalFlow(size, channels, coarse, layers, hidden=8, seed=seed).double()
    for i, p in enumerate(flow.parameters()):
        p.data += 0.4 * torch.randn(p.shape, generator=g(seed + i), dtype=p.dtype)
    return flow.standardise(torch.rand(40, channels, size, size, generator=g(seed), dtype=torch.float64))


@pytest.mark.parametrize("size,channels,coarse,layers", [(3, 2, 1, 4), (4, 3, 2, 3), (2, 4, 1, 2)])
def test_the_flows_log_determinant_is_that_of_autograds_jacobian_and_it_inverts(size, channels, coarse, layers):
    flow = random_flow(size, channels, coarse, layers=layers)
    x = torch.rand(3, channels, size, size, generator=g(9), dtype=torch.float64)
    z, fine, logdet = flow(x)
    assert z.shape[1] == channels * coarse**2 and z.shape[1] + fine.shape[1] == channels * size**2
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda v: torch.cat(flow(v)[:2], 1)[0], x[i : i + 1]).flatten(1)
        assert logdet[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-4)
    torch.testing.assert_close(flow.inverse(z, fine), x, atol=1e-5, rtol=0)
    assert logdet.std().item() > 1e-3  # it depends on x: no linear map


def test_a_coupling_begins_as_the_identity_and_leaves_half_alone():
    moved = torch.tensor([True, False, True])
    layer = E.Coupling(moved, 0, 4)
    x = torch.randn(5, 3, generator=g())
    y, logdet = layer(x, x[:, :0])
    assert torch.equal(y, x) and logdet.abs().max() == 0
    layer.net[2].bias.data[:] = torch.tensor([10.0, -10, 1, 2])  # scales, then shifts
    y, logdet = layer(x, x[:, :0])
    s = 2 * torch.tanh(torch.tensor([5.0, -5]))
    torch.testing.assert_close(y, torch.stack([x[:, 0] * s[0].exp() + 1, x[:, 1], x[:, 2] * s[1].exp() + 2], 1))
    torch.testing.assert_close(logdet, s.sum().expand(5))


def test_an_untrained_flow_is_the_gaussian_of_the_cosine_coefficients():
    from scipy import stats
    from scipy.fft import dctn

    x = torch.rand(50, 2, 3, 3, generator=g()).double() + torch.rand(50, 2, 1, 1, generator=g(1)).double()
    flow = E.GlobalLocalFlow(3, 2).double().standardise(x)
    y = dctn(x.numpy(), axes=(2, 3), norm="ortho").reshape(50, -1)
    wanted = -stats.norm(y.mean(0), y.std(0, ddof=1) + 1e-3).logpdf(y).sum(1).mean() / 18
    assert flow.nll(x).item() == pytest.approx(wanted, abs=1e-5)


def test_the_flows_likelihood_has_the_right_gradient():
    flow = random_flow(2, 2, layers=2)
    x = torch.rand(3, 2, 2, 2, generator=g(3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(flow.nll, x)


def test_fitting_learns_what_no_gaussian_can():
    """Two grey levels: the mean colour's distribution has two modes, which the global couplings must tell apart."""
    level = (torch.rand(600, 1, 1, 1, generator=g()) < 0.5).float() * 0.6 + 0.2
    x = (level + 0.02 * torch.randn(600, 3, 4, 4, generator=g(1))).clamp(0, 1)
    flow = E.GlobalLocalFlow(4, layers=4, hidden=32)
    before = float(flow.standardise(x).nll(x))
    after = float(E.fit_flow(flow, x, 250, lr=5e-3).nll(x))
    assert after < before - 0.1
    assert not any(p.requires_grad for p in flow.parameters())


def test_flow_aug_shifts_global_latents_and_keeps_local_ones():
    flow = random_flow(4, 3).float()
    x = 0.4 + 0.2 * torch.rand(6, 3, 4, 4, generator=g(2))
    torch.testing.assert_close(E.flow_aug(flow, 0.0)(x, generator=g()), x, atol=1e-4, rtol=0)
    z, fine, _ = flow(x)
    moved = E.flow_aug(flow, 0.01)(x, generator=g(3))
    assert 0 < moved.min() and moved.max() < 1  # nothing was clipped
    z2, fine2, _ = flow(moved)
    torch.testing.assert_close(fine2, fine, atol=3e-4, rtol=0)
    torch.testing.assert_close(z2 - z, 0.01 * torch.randn(z.shape, generator=g(3)), atol=3e-4, rtol=0)
    z3, fine3, _ = flow(E.flow_aug(flow, 0.01, "local")(x, generator=g(3)))
    torch.testing.assert_close(z3, z, atol=3e-4, rtol=0)
    assert float((fine3 - fine).abs().max()) > 0.01
    plain = E.flow_aug(flow, 0.01, "pixels")(x, generator=g(3)) - x
    assert float(plain.std((2, 3)).max()) < 1e-5  # one step for every channel
    wanted = 0.01 * torch.randn(6, 3, generator=g(3)) * flow.scale[:3] / 4  # the slowest basis image has 1/4 everywhere
    torch.testing.assert_close(plain.mean((2, 3)), wanted, atol=1e-5, rtol=0)


@pytest.mark.bad_input
def test_flows_refuse_unknown_parts_and_scales():
    with pytest.raises(ValueError, match="part must be 'global', 'local' or 'pixels', got 'all'"):
        E.flow_aug(random_flow(), 1.0, "all")
    with pytest.raises(ValueError, match="coarse must be in 1 … 3, got 4"):
        E.GlobalLocalFlow(4, coarse=4)


@pytest.mark.bad_input
def test_images_out_of_range_are_refused_and_half_precision_is_read_in_float32():
    x, flow = torch.rand(6, 3, 4, 4, generator=g()), random_flow(4, 3).float()
    for odd in ((255 * x).byte(), 255 * x, x * float("nan")):
        with pytest.raises(ValueError, match="images must be float in .0, 1."):
            E.fit_flow(flow, odd, 1)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(flow.coefficients(x.to(dtype)), flow.coefficients(x.to(dtype).float()))
