"""CPC on sequences and on patches, its bound, and the generative rivals."""

import math

import pytest
import torch
from torch import nn

from labcode.self_supervision import cpc as C


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_info_nce(predicted, target):
    """Equation 4 with plain Python numbers."""
    p, t = predicted.tolist(), target.tolist()
    total = 0.0
    for i in range(len(p)):
        f = [math.exp(sum(a * b for a, b in zip(p[i], row, strict=True))) for row in t]
        total -= math.log(f[i] / sum(f))
    return total / len(p)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 3), (16, 8)])
def test_info_nce_is_equation_4(n, d):
    p, t = rand(n, d), rand(n, d, seed=1)
    assert float(C.info_nce(p, t)) == pytest.approx(slow_info_nce(p, t), rel=1e-12)


def test_pools_do_not_see_each_other():
    p, t = rand(3, 4, 5), rand(3, 4, 5, seed=1)
    apart = sum(slow_info_nce(p[i], t[i]) for i in range(3)) / 3
    assert float(C.info_nce(p, t)) == pytest.approx(apart, rel=1e-12)


def test_gradient_reaches_predictions_and_targets():
    p, t = rand(2, 4, 3).requires_grad_(), rand(2, 4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(C.info_nce, (p, t))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(C.info_nce(p, t), (p, t)))


def test_info_nce_ignores_a_shift_of_all_targets_and_a_common_order_but_not_scale():
    p, t, order = rand(6, 3), rand(6, 3, seed=1), torch.randperm(6, generator=torch.Generator().manual_seed(2))
    loss = C.info_nce(p, t)
    assert torch.allclose(C.info_nce(p, t + rand(1, 3, seed=3)), loss)
    assert torch.allclose(C.info_nce(p[order], t[order]), loss)
    assert not torch.allclose(C.info_nce(2 * p, t), loss)  # no normalisation


def test_info_nce_closed_forms():
    assert float(C.info_nce(torch.zeros(7, 2), rand(7, 2).float())) == pytest.approx(math.log(7), rel=1e-6)
    far = 50 * torch.eye(6)
    assert float(C.info_nce(far, far)) == pytest.approx(0, abs=1e-6)
    assert float(C.mi_bound(far, far)) == pytest.approx(math.log(6), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_info_nce_in_half_precision_is_float32_arithmetic(dtype):
    p, t = rand(8, 4).to(dtype), rand(8, 4, seed=1).to(dtype)
    loss = C.info_nce(p, t)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(slow_info_nce(p.double(), t.double()), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(C.info_nce(p.float(), t.float())) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("p", "t", "name"),
    [
        (torch.zeros(1, 3), torch.zeros(1, 3), "predicted"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "predicted"),
        (torch.zeros(4, 3), torch.zeros(4, 2), "target"),
        (torch.zeros(2, 4, 3), torch.zeros(2, 3, 3), "target"),
        (torch.zeros(2, 1, 3), torch.zeros(2, 1, 3), "predicted"),
        (torch.full((4, 3), math.nan), torch.zeros(4, 3), "predicted"),
        (torch.zeros(2, 4, 3), torch.full((2, 4, 3), math.inf), "target"),
    ],
)
def test_info_nce_refuses(p, t, name):
    with pytest.raises(ValueError, match=name):
        C.info_nce(p, t)


def test_a_constant_batch_gives_log_n():
    assert float(C.info_nce(torch.ones(5, 3), torch.ones(5, 3))) == pytest.approx(math.log(5), rel=1e-6)


# The bound ----------------------------------------------------------------------------------------------------------


def test_gaussian_information():
    assert C.gaussian_mi(0.0, 3) == 0
    assert C.gaussian_mi(math.sqrt(1 - math.exp(-2)), 5) == pytest.approx(5)
    with pytest.raises(ValueError, match="rho"):
        C.gaussian_mi(1.0, 2)


def test_the_fitted_bound_is_near_that_of_the_true_density_ratio():
    rho, n, dims = 0.8, 32, 4
    g = torch.Generator().manual_seed(5)
    x, e = torch.randn(2, 4096, dims, generator=g, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * e
    c = torch.cat([x * rho / (1 - rho**2), torch.full_like(x, -0.5 * rho**2 / (1 - rho**2))], 1).view(-1, n, 2 * dims)
    best = float(C.mi_bound(c, torch.cat([y, y * y], 1).view(-1, n, 2 * dims)))
    assert C.gaussian_bound(rho, n, dims) == pytest.approx(best, abs=0.06)


def test_the_bound_refuses_candidates_that_do_not_divide():
    with pytest.raises(ValueError, match="candidates"):
        C.gaussian_bound(0.5, 3)


# Speech -------------------------------------------------------------------------------------------------------------


def test_speech_has_its_factors():
    heard = C.speech(48, frames=200, seed=1, stay=0.9)
    assert heard.signal.shape == (48, 200 * C.FRAME)
    assert heard.speakers.bincount().tolist() == [6] * C.SPEAKERS
    stays = (heard.phones[:, 1:] == heard.phones[:, :-1]).double().mean()
    assert float(stays) == pytest.approx(0.9, abs=0.02)
    assert torch.equal(C.speech(48, frames=200, seed=1).signal, heard.signal)
    assert not torch.equal(C.speech(48, frames=200, seed=2).signal, heard.signal)


def test_a_clean_frame_has_the_strengths_of_phone_and_speaker():
    heard = C.speech(16, frames=10, jitter=0.5, grain=0.0, hiss=0.0)
    filters, timbres = C._voices()
    wanted = filters[heard.phones] + timbres[heard.speakers][:, None]
    amplitude = (C.log_spectrum(heard.signal) / 2).exp() / (C.FRAME / 2)
    assert torch.allclose(amplitude, wanted.exp(), rtol=0.02, atol=2e-2)


@pytest.mark.parametrize("same", [True, False])
def test_pools_of_four_have_one_speaker_or_four(same):
    speakers = C.speech(64, frames=1).speakers
    index = C.pools(64, same)(3)
    met = speakers[index].view(-1, 4)
    assert all(len(row.unique()) == (1 if same else 4) for row in met)
    assert len(index.unique()) == 32


def test_both_arms_see_the_same_sequences_and_batches_repeat():
    one, other = C.pools(64, True, seed=4), C.pools(64, False, seed=4)
    assert all(torch.equal(one(i).sort()[0], other(i).sort()[0]) for i in range(5))
    assert torch.equal(one(7), C.pools(64, True, seed=4)(7))
    assert not torch.equal(one(7), one(8))


def test_the_context_has_not_heard_the_future():
    torch.manual_seed(0)
    net, x = C.SpeechEncoder(16), rand(2, 12 * C.FRAME, dtype=torch.float32)
    later = x.clone()
    later[:, 6 * C.FRAME :] += 1
    a, b = net(x), net(later)
    assert torch.equal(a[:, :6], b[:, :6])
    assert not torch.allclose(a[:, 6], b[:, 6])


def test_speech_loss_is_the_mean_over_horizons_of_slow_loops():
    torch.manual_seed(0)
    net = C.SpeechEncoder(8).double()
    model = C.SpeechCPC(net, horizon=2, pool=2, reach=3, every=2).double()
    x = rand(4, 16 * C.FRAME)
    z, c = net.latents(x), net(x)
    times, total = [8, 10, 12], []
    for k in (1, 2):
        for a in (0, 2):  # pools of two sequences
            rows = [(n, t) for n in (a, a + 1) for t in times]
            p = torch.stack([model.W[k - 1].T @ c[n, t] for n, t in rows])
            q = torch.stack([z[n, t + k] for n, t in rows])
            total.append(slow_info_nce(p, q))
    assert float(model(x, torch.arange(4)).detach()) == pytest.approx(sum(total) / 4, rel=1e-9)
    with pytest.raises(ValueError, match="multiple"):
        model(x[:3], torch.arange(3))


# Patches ------------------------------------------------------------------------------------------------------------


def test_patches_are_the_squares_of_the_image():
    x = rand(2, 3, 16, 16)
    grid = C.patches(x, 4, 2)
    assert grid.shape == (2, 7, 7, 3, 4, 4)
    assert torch.equal(grid[1, 2, 5], x[1, :, 4:8, 10:14])
    assert C.patches(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8), 8, 4).shape[1:3] == (7, 7)
    with pytest.raises(ValueError, match="size"):
        C.patches(x, 17, 2)


def test_dropped_colours():
    x, g = 2 + rand(4000, 3, 2, 2).abs(), torch.Generator().manual_seed(0)
    y = C.drop_colours(x, 0.5, generator=g)
    left = (y == x).all((2, 3)).sum(1)
    assert set(left.tolist()) == {1, 3}
    assert float((left == 1).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert bool(((y == x) | (y == 0.5)).all())


def test_each_patch_is_augmented_by_its_own_draw():
    x = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8)
    for options in (dict(drop=True, turn=False), dict(drop=False, turn=True)):
        grid = C.patch_views(**options)(x, torch.Generator().manual_seed(0)).flatten(1, 2)
        assert len({tuple(row.round(decimals=4).tolist()) for row in grid[0, :, :, 0, 0]}) > 1
    bare = C.patch_views(drop=False, turn=False)(x, torch.Generator())
    assert torch.equal(bare, C.patches(x, 4, 2))


def test_layer_norm_keeps_patches_apart_and_batch_norm_does_not():
    torch.manual_seed(0)
    grid = rand(2, 7, 7, 3, 4, 4, dtype=torch.float32)
    other = grid.clone()
    other[1] += 1
    for norm, apart in (("layer", True), ("batch", False)):
        net = C.PatchEncoder(norm=norm).train()
        assert torch.allclose(net.grid(grid)[0], net.grid(other)[0], atol=1e-6) == apart
    with pytest.raises(ValueError, match="norm"):
        C.PatchEncoder(norm="group")


def test_the_context_sees_no_row_below():
    torch.manual_seed(0)
    net, z = C.MaskedContext(4, layers=3), rand(1, 4, 7, 7, dtype=torch.float32)
    below = z.clone()
    below[:, :, 4:] += 1
    assert torch.equal(net(z)[:, :, :4], net(below)[:, :, :4])
    assert not torch.allclose(net(z)[:, :, 4], net(below)[:, :, 4])


def test_patch_loss_is_the_slow_loop_over_directions_and_horizons():
    torch.manual_seed(0)
    model = C.PatchCPC(C.PatchEncoder(dim=6, width=8), directions=2, ahead=(1, 2), pool=2).double()
    with torch.no_grad():
        model.W.add_(0.1 * rand(*model.W.shape))
    views = rand(4, 4, 4, 3, 4, 4, seed=2)
    z = model.encoder.grid(views)
    total = []
    for turn, sign in enumerate((1, -1)):
        turned = z if sign == 1 else z.flip(1, 2)
        c = model.contexts[turn](turned.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for a, k in enumerate((1, 2)):
            for pool in ((0, 1), (2, 3)):
                spots = [(n, i, j) for n in pool for i in range(4 - k) for j in range(4)]
                p = torch.stack([model.W[turn, a].T @ c[s] for s in spots])
                q = torch.stack([turned[n, i + k, j] for n, i, j in spots])
                total.append(slow_info_nce(p, q))
    assert float(model(views, torch.arange(4)).detach()) == pytest.approx(sum(total) / len(total), rel=1e-9)


def test_every_direction_has_its_own_weights_and_gradient():
    model = C.PatchCPC(C.PatchEncoder(), directions=4)
    model(C.patches(rand(8, 3, 16, 16, dtype=torch.float32), 4, 2), torch.arange(8)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert len(model.contexts) == len(model.W) == 4
    with pytest.raises(ValueError, match="directions"):
        C.PatchCPC(C.PatchEncoder(), directions=3)


def test_labelled_patches_use_the_rows_own_labels():
    labels = torch.tensor([3, 1, 2, 0])
    model = C.LabelledPatches(C.PatchEncoder(), labels, 4)
    x, index = rand(2, 3, 16, 16, dtype=torch.float32), torch.tensor([2, 0])
    scores = model.head(model.encoder(x))
    wanted = nn.functional.cross_entropy(scores, torch.tensor([2, 3]))
    assert torch.allclose(model(C.patches(x, 4, 2), index), wanted)


# The generative rivals ----------------------------------------------------------------------------------------------


def test_negative_elbo_is_the_slow_sum():
    x, d, mean, log_var = rand(3, 2, 2, 2), rand(3, 2, 2, 2, seed=1), rand(3, 4, seed=2), rand(3, 4, seed=3)
    total = 0.0
    for i in range(3):
        misfit = sum((a - b) ** 2 for a, b in zip(x[i].flatten().tolist(), d[i].flatten().tolist(), strict=True))
        own, prior = torch.distributions.Normal(mean[i], (log_var[i] / 2).exp()), torch.distributions.Normal(0.0, 1.0)
        total += misfit / (2 * 0.3**2) + float(torch.distributions.kl_divergence(own, prior).sum())
    assert float(C.negative_elbo(x, d, mean, log_var, 0.3)) == pytest.approx(total / 3, rel=1e-9)
    assert float(C.negative_elbo(x, x, 0 * mean, 0 * mean)) == 0
    assert torch.autograd.gradcheck(lambda *a: C.negative_elbo(x, *a), [t.requires_grad_() for t in (d, mean, log_var)])


@pytest.mark.bad_input
def test_negative_elbo_refuses():
    x, mean = rand(3, 2, 2, 2), rand(3, 4)
    for name, arguments in (
        ("sigma", (x, x, mean, mean, 0.0)),
        ("log_var", (x, x, mean, mean[:2])),
        ("decoded", (x, x[:2], mean, mean)),
        ("mean", (x, x, mean[:2], mean[:2])),
        ("x", (x[:0], x[:0], mean[:0], mean[:0])),
    ):
        with pytest.raises(ValueError, match=name):
            C.negative_elbo(*arguments)


class Flat(nn.Module):
    features = 12

    def __init__(self):
        super().__init__()
        self.seen = []
        self.map = nn.Linear(192, 12)

    def forward(self, x):
        self.seen.append(x)
        return self.map(x.flatten(1))


def test_the_denoiser_reads_noise_and_aims_at_the_clean_image():
    torch.manual_seed(0)
    x, model = torch.rand(4, 3, 8, 8), C.DenoisingAutoencoder(Flat())
    views = C.noisy_views(0.2)(x, torch.Generator().manual_seed(0))
    loss = model(views, torch.arange(4))
    assert torch.equal(views[4:], x) and torch.equal(model.encoder.seen[0], views[:4])
    assert float((views[:4] - x).std()) == pytest.approx(0.2, rel=0.1)
    wanted = (model.decoder(model.encoder(views[:4])) - x).square().sum() / 4
    assert torch.allclose(loss, wanted)


def test_the_vae_reads_the_clean_half_and_all_of_it_learns():
    model, x = C.VAE(Flat(), dim=5), torch.rand(4, 3, 8, 8)
    model(C.noisy_views()(x, torch.Generator()), torch.arange(4)).backward()
    assert torch.equal(model.encoder.seen[0], x)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_decoder_sizes():
    assert C.Decoder(12, 8)(torch.zeros(2, 12)).shape == (2, 3, 8, 8)
    assert C.Decoder(12, 32)(torch.zeros(2, 12)).shape == (2, 3, 32, 32)


def test_colour_keeping_views_keep_colours():
    x = torch.full((3, 3, 8, 8), 0.25) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    views = C.colour_keeping_views(x, torch.Generator().manual_seed(0))
    assert views.shape == (6, 3, 8, 8)
    assert float((views - x.repeat(2, 1, 1, 1)).abs().mean()) < 0.03


def test_neighbour_r2():
    angle = torch.linspace(0, 3, 200)
    z, t = torch.stack([angle.cos(), angle.sin()], 1), angle[:, None]
    assert C.neighbour_r2(z, t, z, t, k=1) == pytest.approx(1)
    assert C.neighbour_r2(z, t, z, t, k=200) == pytest.approx(0, abs=1e-5)
    assert C.neighbour_r2(5 * z, t, z, t, k=9) == pytest.approx(C.neighbour_r2(z, t, z, t, k=9), abs=1e-5)
    with pytest.raises(ValueError, match="k must"):
        C.neighbour_r2(z, t, z, t, k=201)


def test_picture_factors():
    x = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    x[0, 1] = 255
    assert torch.allclose(C.picture_factors(x)[0], torch.tensor([0.0, 1.0, 0.0, 0.0]))
