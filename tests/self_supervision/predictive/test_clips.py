"""Clips: cut, coloured anew; and a training step of every video method, which waits for nothing."""

import pytest
import torch
from accelerator import accelerator
from self_supervision.predictive.helpers import clip_vit, clips, g

from labcode import nets
from labcode.self_supervision import predictive as P


def test_cut_takes_each_video_from_its_own_start():
    frames = torch.arange(3 * 7).view(3, 7, 1, 1, 1)
    out = P.cut(frames, torch.tensor([0, 2, 4, 1, 1, 1]), 3)
    assert out[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [9, 10, 11], [18, 19, 20], [1, 2, 3], [8, 9, 10], [15, 16, 17]]
    with pytest.raises(ValueError, match="length"):
        P.cut(frames, torch.zeros(3, dtype=torch.long), 8)
    with pytest.raises(ValueError, match="start"):
        P.cut(frames, torch.zeros(4, dtype=torch.long), 2)


def test_recoloured_is_one_draw_a_clip():
    still = torch.rand(6, 1, 3, 12, 12, generator=g()).expand(-1, 4, -1, -1, -1)
    out = P.recoloured(still, g(1))
    assert (out[:, 0] - out[:, 3]).abs().mean() < 0.05  # the noise alone differs
    assert (out[0] - out[1]).abs().mean() > 0.1
    assert torch.equal(P.recoloured(still, g(1)), out)


def films():
    """A method of each kind, and views and indices for its step."""
    x, few = clips(6), torch.arange(6)
    net, three = lambda: P.ClipNet(8, 16), torch.rand(6, 3, 4, 3, 8, 8, generator=g())  # noqa: E731
    for predict in ("features", "pixels"):
        options = dict(masks=((1, 0.5), 4), predict=predict, width=16, depth=1)
        yield predict, lambda o=options: P.VJEPA(clip_vit(), 5, **o), x, few
    for framework in ("simclr", "moco", "byol", "swav"):
        yield framework, lambda f=framework: P.Rho(net(), f, 2, dim=8), torch.cat([x, x.flip(1)]), few
    yield "dsm", lambda: P.DSM(net(), dim=8), torch.cat([x, x]), few
    terms = ("direct", "indirect", "cross", "ambiguity")
    yield "ucsl", lambda: P.UCSL(nets.SmallNet(16, 16), terms, 5, dim=8, late=0.0), three, few
    yield "ucsl, labels", lambda: P.UCSL(nets.SmallNet(16, 16), ("supervised",), 5, dim=8), three, few


@pytest.mark.parametrize("make, views, index", [pytest.param(*given, id=name) for name, *given in films()])
def test_a_step_waits_for_nothing(make, views, index):
    """And on the device it comes to what it comes to on the host."""
    found = []
    with accelerator() as waits:
        for device in ("cpu", "gpu"):
            torch.manual_seed(0)
            model, x, i = make().to(device).train(), views.to(device), index.to(device)
            waits.clear()
            losses = [model(x, i) for _ in range(2)]
            sum(losses).backward()
            assert not waits, waits
            found.append(torch.stack(losses).detach().cpu())
    torch.testing.assert_close(*found)


def test_float_clips_keep_their_precision_and_bytes_become_float32():
    x = (clips(2) * 255).byte()
    assert torch.equal(P.to_float(x), x.float() / 255)
    exact = P.recoloured(x, g())
    assert exact.dtype == torch.float32
    for dtype in (torch.float16, torch.bfloat16):
        half = P.recoloured((x.float() / 255).to(dtype), g())
        assert half.dtype == dtype and (half.float() - exact).abs().max() < 0.05


@pytest.mark.bad_input
def test_clips_of_another_range_or_shape_are_refused_by_name():
    for x, message in [
        (clips(2) * 255, "x must be in .0, 1. where it is float"),
        ((clips(2) * 255).long(), "x must be uint8 in 0 … 255 or float in .0, 1."),
        (torch.rand(3, 32, 32), r"x must be a batch of clips \(n, t, c, h, w\), got shape \(3, 32, 32\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            P.to_float(x)


@pytest.mark.bad_input
def test_networks_and_methods_name_the_shape_that_they_were_given():
    x = torch.rand(3, 32, 32)
    views = torch.rand(3, 4, 3, 8, 8)
    ucsl, aim = P.UCSL(nets.SmallNet(4, 8), ("direct",), 1), P.AIM(nets.ViT((4, 4), (2, 2), 1, 8, 1, 2))
    for call, shape in [
        (lambda: P.ClipNet(4, 8)(x), r"x must be clips .*got shape \(3, 32, 32\)"),
        (lambda: clip_vit()(x), r"x must be clips .*got shape \(3, 32, 32\)"),
        (lambda: P.DSM(P.ClipNet(4, 8))(views, torch.arange(1)), r"views must be two views .*\(3, 4, 3, 8, 8\)"),
        (lambda: ucsl(views, torch.arange(3)), r"views must be crops .*\(3, 4, 3, 8, 8\)"),
        (lambda: aim.validation_loss(x), r"x must be .*got shape \(3, 32, 32\)"),
    ]:
        with pytest.raises(ValueError, match=shape):
            call()
