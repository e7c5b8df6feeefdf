"""Augmentations against torchvision, image by image with the same parameters, and against their own distributions."""

import contextlib
import inspect
import math

import jaxtyping
import pytest
import torch
import torchvision.transforms.v2 as T
import torchvision.transforms.v2.functional as TF
from accelerator import accelerator
from scipy import stats

from labcode import augment as A

CLOSE = dict(rtol=0, atol=2e-6)


@contextlib.contextmanager
def refused(match):
    """The function's own ValueError, with the annotation check of the tests out of its way."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=match):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def x():
    """24 images 12 × 16: noise, pure and flat colours, greys, ties between channels."""
    x = torch.rand(24, 3, 12, 16, generator=gen(1))
    x[0], x[1], x[2] = 0, 1, 0.5
    x[3] = torch.tensor([1.0, 0, 0])[:, None, None]
    x[4] = torch.tensor([0.2, 0.7, 0.7])[:, None, None]
    x[5] = x[5, :1]
    x[6, 1] = x[6, 0]
    return x


RANDOM = {
    "random_resized_crop": lambda x, g: A.random_resized_crop(x, 8, generator=g),
    "hflip": lambda x, g: A.hflip(x, generator=g),
    "affine": lambda x, g: A.affine(x, 20, 0.1, (0.8, 1.2), 10, generator=g),
    "cutout": lambda x, g: A.cutout(x, 5, generator=g),
    "colour_jitter": lambda x, g: A.colour_jitter(x, generator=g),
    "grayscale": lambda x, g: A.grayscale(x, 0.5, generator=g),
    "solarise": lambda x, g: A.solarise(x, p=0.5, generator=g),
    "gaussian_blur": lambda x, g: A.gaussian_blur(x, 3, generator=g),
    "noise": lambda x, g: A.noise(x, 0.1, generator=g),
    "colour_rotation": lambda x, g: A.colour_rotation(x, generator=g),
    "scene_views": A.scene_views,
    "simclr_views": A.simclr_views,
}


def each(x, value):
    return torch.full((len(x),), value, device=getattr(x, "device", None))


CORE = {
    "crop": lambda x: A.crop(x, torch.tensor([[1.0, 2, 7, 5]]).expand(len(x), 4), 9),
    "warp": lambda x: A.warp(x, torch.tensor([[0.9, 0.1, 0.05], [-0.1, 1.1, 0.02]]).expand(len(x), 2, 3), "reflection"),
    "jitter": lambda x: A.jitter(x, torch.stack([each(x, f) for f in (0.7, 1.3, 0.8, 0.2)], 1),
                                 torch.stack([each(x, change) for change in (1, 3, 2, 0)], 1)),
    "adjust_brightness": lambda x: A.adjust_brightness(x, each(x, 1.1)),
    "adjust_contrast": lambda x: A.adjust_contrast(x, each(x, 0.6)),
    "adjust_saturation": lambda x: A.adjust_saturation(x, each(x, 1.4)),
    "adjust_hue": lambda x: A.adjust_hue(x, each(x, 0.15)),
    "blur": lambda x: A.blur(x, each(x, 0.9), 5),
    "rotate_colours": lambda x: A.rotate_colours(x, A.random_rotations(len(x), generator=gen(5))),
}  # fmt: skip
ALL = CORE | {name: lambda x, f=f: f(x, gen()) for name, f in RANDOM.items()}
COLOUR = [*(n for n in CORE if n not in ("crop", "warp", "blur", "rotate_colours")),
          "colour_jitter", "solarise", "colour_rotation", "scene_views", "simclr_views"]  # fmt: skip


def test_every_public_function_is_in_the_tables():
    public = {n for n, f in vars(A).items() if inspect.isfunction(f) and f.__module__ == A.__name__ and n[0] != "_"}
    drawn = {n for n in public if "generator" in inspect.signature(getattr(A, n)).parameters}
    assert drawn - {"random_rotations"} == set(RANDOM)
    assert public - drawn - {"to_float", "affine_matrix"} == set(CORE)


# Half precision


@pytest.mark.parametrize("side", [32, 97, 224, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded_once(dtype, side):
    """Positions, weights and sums are those of float32: the result is its rounding, bit by bit, at any side."""
    x = torch.rand(2, 3, side, side, generator=gen(3)).to(dtype)
    for name, function in ALL.items():
        out = function(x)
        assert out.dtype == dtype, name
        assert torch.equal(out, function(x.float()).to(dtype)), name


@pytest.mark.parametrize("side", [96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_moves_pixels_where_they_belong(dtype, side):
    """Without our own float32 path as reference: shifts by whole pixels, the whole image as a box, a mirror."""
    x = torch.rand(2, 3, side, side, generator=gen(4)).to(dtype)
    one = torch.finfo(dtype).eps
    shift = A.affine_matrix(each(x, 0.0), torch.tensor([[3.0, -2.0]] * 2), each(x, 1.0), each(x, 0.0), (side, side))
    wanted = torch.zeros_like(x)
    wanted[:, :, :-2, 3:] = x[:, :, 2:, :-3]
    torch.testing.assert_close(A.warp(x, shift.to(dtype) if side == 96 else shift), wanted, rtol=0, atol=40 * one)
    torch.testing.assert_close(A.warp(x, torch.eye(2, 3).expand(2, 2, 3)), x, rtol=0, atol=one)
    whole = torch.tensor([[0.0, 0, side, side], [0.0, side, side, -side]])
    out = A.crop(x, whole.to(dtype), side)
    torch.testing.assert_close(out[0], x[0], rtol=0, atol=one)
    torch.testing.assert_close(out[1], x[1].flip(2), rtol=0, atol=one)


def test_positions_in_half_precision_are_computed_in_float32():
    given = (torch.tensor([30.0]), torch.tensor([[3.0, -2.0]]), torch.tensor([1.25]), torch.tensor([5.0]))
    half = A.affine_matrix(*(g.half() for g in given), (300, 2049))  # all exact in half precision but 2049
    assert half.dtype == torch.float32 and torch.equal(half, A.affine_matrix(*given, (300, 2049)))


@pytest.mark.parametrize("name", ALL)
def test_autocast_and_mixed_precision_do_not_reach_the_pixels(name, x):
    plain = ALL[name](x)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert torch.equal(ALL[name](x), plain)
    double = ALL[name](x.double())
    assert double.dtype == torch.float64
    if name not in ("noise", "scene_views"):  # noise is drawn in the images' precision
        torch.testing.assert_close(double.float(), plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_gradients_pass_through_half_precision(name):
    x = (0.25 + 0.5 * torch.rand(3, 3, 12, 12, generator=gen(2))).half().requires_grad_()
    ALL[name](x).float().square().sum().backward()
    assert x.grad.dtype == torch.float16 and x.grad.isfinite().all()
    with torch.no_grad():  # and a tensor that could have one is like any other
        assert torch.equal(ALL[name](x), ALL[name](x.detach()))


# Ranges and shapes


@pytest.mark.parametrize("name", COLOUR)
def test_floats_in_0_to_255_are_refused_by_their_range(name, x):
    with refused(r"x must be in \[0, 1\] where it is float, got 0 … 255"):
        ALL[name](x * 255)
    with refused("got -2"):
        ALL[name](x - 2)
    with refused("got nan"):
        ALL[name](x.index_fill(0, torch.tensor([3]), math.nan))
    ALL[name](x.clone().sub_(0.3).mul_(1.6))  # what noise and turned colours leave is taken


@pytest.mark.parametrize("name", COLOUR)
def test_on_a_gpu_nothing_waits_and_images_out_of_range_become_nan(name, x):
    x = x[8:12]
    with accelerator() as waits:
        draw = torch.Generator("gpu").manual_seed(0)
        run = CORE.get(name) or (lambda pixels: RANDOM[name](pixels, draw))
        good, bad = x.to("gpu"), (255 * x).to("gpu")
        waits.clear()
        fine, wrong = run(good), run(bad)
        assert not waits, waits
    assert fine.cpu().isfinite().all() and wrong.cpu().isnan().any()


def test_to_float_takes_bytes_and_floats_in_range(x):
    assert torch.equal(A.to_float((x * 255).byte()), (x * 255).byte().float() / 255)
    assert A.to_float(x) is x and A.to_float(x.half()).dtype == torch.float16
    with refused(r"x must be in \[0, 1\] where it is float, got 0 … 255"):
        A.to_float(x * 255)


@pytest.mark.parametrize("name", ALL)
def test_the_error_for_a_single_image_names_its_own_shape(name, x):
    for wrong in (x[7], x[7].mul(255).byte()):
        with refused(r"got shape \(3, 12, 16\)"):
            ALL[name](wrong)
    with refused(r"got shape \(2, 3, 0, 4\)"):
        ALL[name](torch.zeros(2, 3, 0, 4))
    with refused("got list"):
        ALL[name]([1.0])


@pytest.mark.parametrize("name", ALL)
def test_images_of_one_pixel_and_strided_images(name, x):
    if name not in ("blur", "gaussian_blur", "crop"):  # their kernel and box want more
        assert ALL[name](torch.full((3, 3, 1, 1), 0.5)).isfinite().all()
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ALL[name](last).contiguous(), ALL[name](x), rtol=0, atol=1e-6)


def test_boxes_beyond_the_image_are_refused():
    x = torch.rand(2, 3, 6, 8, generator=gen())
    for box in ([0, 0, 7, 8], [0, -1, 3, 3], [7, 9, 2, 2], [0, 3, 6, -4], [2, 2, 0, 3], [0, 0, math.nan, 2]):
        with refused(r"boxes must lie within the images of \(6, 8\) pixels"):
            A.crop(x, torch.tensor([[0.0, 0, 6, 8], box]), 4)
    with refused("boxes must be one"):
        A.crop(x, torch.tensor([[0.0, 0, 6, 8]]), 4)
    with refused("size must be at least 1"):
        A.crop(x, torch.tensor([[0.0, 0, 6, 8]] * 2), 0)


def test_simclr_views_of_one_pixel_are_not_blurred():
    x = torch.full((2, 3, 1, 1), 0.25)
    out = A.simclr_views(x, gen(), strength=0, grey_p=0, blur_p=1)
    torch.testing.assert_close(out, torch.full((4, 3, 1, 1), 0.25))


@pytest.mark.parametrize("name", RANDOM)
def test_one_draw_per_image(name, x):
    """64 copies of one image do not come out alike, and the same seed gives the same draws."""
    same = x[10:11].expand(64, -1, -1, -1)
    out = RANDOM[name](same, gen())
    kinds = len({tuple(image.flatten().tolist()) for image in out})
    assert kinds >= (2 if name in ("hflip", "grayscale", "solarise") else 25)
    assert torch.equal(out, RANDOM[name](same, gen()))
    assert not torch.equal(out, RANDOM[name](same, gen(1)))


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precision_is_kept(name, dtype, x):
    out, exact = RANDOM[name](x.to(dtype), gen()), RANDOM[name](x, gen())
    assert out.dtype == dtype and out.isfinite().all()
    if name in ("noise", "scene_views"):  # the noise itself is drawn in the images' precision
        return
    off = (out.float() - exact).abs()
    assert off.median() < {torch.float64: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]


@pytest.mark.parametrize("name", RANDOM)
def test_empty_batch(name, x):
    out = RANDOM[name](x[:0], gen())
    assert out.shape[0] == 0 and out.shape[1] == 3


@pytest.mark.parametrize("name", RANDOM)
def test_input_is_left_alone_and_blocks_change_nothing(name, x, monkeypatch):
    before = x.clone()
    whole = RANDOM[name](x, gen())
    assert torch.equal(x, before)
    monkeypatch.setattr(A, "BLOCK", 5 * x[0].numel())  # five images a block, the last one smaller
    torch.testing.assert_close(RANDOM[name](x, gen()), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_wrong_images_are_refused(name, x):
    for wrong in (x[0], x.double().long()):
        with refused("x must be"):
            RANDOM[name](wrong, gen())
    if not name.endswith("_views") and name != "random_resized_crop":  # these take uint8
        with refused("x must be float"):
            RANDOM[name](x.to(torch.uint8), gen())
    with refused("generator must be"):
        RANDOM[name](x, 7)
    if name in ("colour_jitter", "grayscale", "colour_rotation", "scene_views", "simclr_views"):
        with refused("3 channels"):
            RANDOM[name](x[:, :1], gen())


def test_gradients_pass(x):
    y = x[7:9].double().requires_grad_()
    A.simclr_views(y, gen()).sum().backward()
    assert y.grad.abs().sum() > 0


# Geometry


@pytest.mark.parametrize("size", [4, 12, 20])
def test_crop_is_torchvisions(x, size):
    """Up, down and mixed, with boxes from a single pixel to the whole image."""
    boxes = torch.tensor([[0, 0, 12, 16], [0, 0, 1, 1], [11, 15, 1, 1], [3, 2, 5, 9], [2, 0, 10, 3], [5, 5, 7, 11]])
    out = A.crop(x[7:13], boxes.float(), size)
    for image, (top, left, h, w), got in zip(x[7:13], boxes.tolist(), out, strict=True):
        want = TF.resized_crop(image, top, left, h, w, [size, size], antialias=True)
        torch.testing.assert_close(got, want, **CLOSE)


def boxes_of(monkeypatch, n, **kw):
    seen = []
    monkeypatch.setattr(A, "crop", lambda x, boxes, size: seen.append(boxes) or x[:, :, :size, :size])
    A.random_resized_crop(torch.zeros(n, 1, 20, 30), 8, generator=gen(), **kw)
    return seen[0]


def test_boxes_are_distributed_as_torchvisions(monkeypatch):
    """Every margin of the drawn boxes against torchvision's, by Kolmogorov and Smirnov."""
    n, kw = 4000, dict(scale=(0.1, 1.0), ratio=(0.5, 2.0))
    ours = boxes_of(monkeypatch, n, **kw)
    theirs = T.RandomResizedCrop(8, **kw)
    torch.manual_seed(3)
    drawn = [theirs.make_params([torch.zeros(1, 20, 30)]) for _ in range(n)]
    for column, name in enumerate(("top", "left", "height", "width")):
        other = [p[name] for p in drawn]
        assert stats.ks_2samp(ours[:, column].numpy(), other).pvalue > 1e-3, name
    for side, full in ((0, 20), (1, 30)):  # boxes smaller than the image reach both of its ends
        start, end = ours[:, side], ours[:, side] + ours[:, side + 2]
        assert ((start == 0) & (end < full)).any() and ((start > 0) & (end == full)).any()
    assert (ours[:, 0] + ours[:, 2] <= 20).all() and (ours[:, 1] + ours[:, 3] <= 30).all() and (ours[:, 2:] >= 1).all()


def test_box_that_never_fits_is_the_central_one(monkeypatch):
    ratio = (3.0, 4.0)  # a full-area box of this shape is wider than the image
    boxes = boxes_of(monkeypatch, 3, scale=(1.0, 1.0), ratio=ratio)
    want = T.RandomResizedCrop(8, scale=(1.0, 1.0), ratio=ratio).make_params([torch.zeros(1, 20, 30)])
    assert boxes.tolist() == [[want["top"], want["left"], want["height"], want["width"]]] * 3


def test_hflip_mirrors_the_given_share(x):
    many = x[10:11].expand(4000, -1, -1, -1)
    out = A.hflip(many, 0.3, generator=gen())
    mirrored = (out == x[10].flip(2)).flatten(1).all(1)
    assert ((out == x[10]).flatten(1).all(1) ^ mirrored).all()
    assert abs(mirrored.float().mean() - 0.3) < 0.03
    assert torch.equal(A.hflip(x, 0.0, generator=gen()), x) and torch.equal(A.hflip(x, 1, generator=gen()), x.flip(3))


def test_affine_is_torchvisions(x):
    n = len(x)
    degrees, shear = torch.linspace(-170, 180, n), torch.linspace(30, -30, n)
    shift, scale = torch.randint(-4, 5, (n, 2), generator=gen()).float(), torch.linspace(0.6, 1.5, n)
    out = A.warp(x, A.affine_matrix(degrees, shift, scale, shear, (12, 16)))
    for i in range(n):
        want = TF.affine(x[i], degrees[i].item(), shift[i].int().tolist(), scale[i].item(), [shear[i].item(), 0.0],
                         T.InterpolationMode.BILINEAR)  # fmt: skip
        torch.testing.assert_close(out[i], want, rtol=0, atol=2e-5)


def test_affine_draws_within_its_ranges(monkeypatch, x):
    seen = {}
    made = A.affine_matrix
    monkeypatch.setattr(A, "affine_matrix", lambda *a: seen.update(zip("dtsh", a)) or made(*a))  # noqa: B905
    A.affine(x[:1].expand(3000, -1, -1, -1), 20, 0.25, (0.8, 1.2), 10, generator=gen())
    for name, low, high in (("d", -20, 20), ("s", 0.8, 1.2), ("h", -10, 10)):
        assert stats.kstest(seen[name].numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    for column, side in ((0, 16), (1, 12)):
        assert stats.kstest(seen["t"][:, column].numpy(), stats.uniform(-side / 4, side / 2).cdf).pvalue > 1e-3
    torch.testing.assert_close(A.affine(x, generator=gen()), x, **CLOSE)  # all zero: the identity


def test_cutout_makes_one_square_per_image():
    ones = torch.ones(3000, 2, 9, 7)
    out = A.cutout(ones, 3, generator=gen(), fill=0.25)
    assert set(out.unique().tolist()) == {0.25, 1.0}
    assert torch.equal(out[:, 0], out[:, 1])
    hole = out[:, 0] != 1
    rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), rows * columns)  # a full rectangle
    assert rows.min() == 2 and rows.max() == 3 and columns.max() == 3
    centre = hole[:, 4, 3].float().mean()  # the middle pixel is covered by 9 of the 63 centres
    assert abs(centre - 9 / 63) < 0.03
    assert A.cutout(ones, 3, 0.0, generator=gen()).min() == 1


# Colour


@pytest.mark.parametrize(
    "name,low,high", [("brightness", 0, 2.5), ("contrast", 0, 2.5), ("saturation", 0, 2.5), ("hue", -0.5, 0.5)]
)
def test_colour_changes_are_torchvisions(x, name, low, high):
    factor = torch.linspace(low, high, len(x))[torch.randperm(len(x), generator=gen())]
    out = getattr(A, f"adjust_{name}")(x, factor)
    for i in range(len(x)):
        torch.testing.assert_close(out[i], getattr(TF, f"adjust_{name}")(x[i], factor[i].item()), **CLOSE)


def test_jitter_is_torchvisions_in_every_order(x):
    """All 24 orders at once, each image against torchvision's four functions one after the other."""
    order = torch.cartesian_prod(*[torch.arange(4)] * 4)
    order = order[(order.sort(1).values == torch.arange(4)).all(1)]
    factors = torch.rand(24, 4, generator=gen()) * 1.6 + 0.2
    factors[:, 3] = torch.rand(24, generator=gen()) - 0.5
    chosen = torch.arange(24) % 5 != 0
    out = A.jitter(x, factors, order, chosen)
    steps = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for i in range(24):
        want = x[i]
        if chosen[i]:
            for k in order[i].tolist():
                want = steps[k](want, factors[i, k].item())
        torch.testing.assert_close(out[i], want, rtol=0, atol=1e-5)
    assert torch.equal(out[~chosen], x[~chosen])


def test_jitter_draws(monkeypatch, x):
    seen = []
    monkeypatch.setattr(A, "jitter", lambda *a: seen.append(a[1:]) or a[0])
    A.colour_jitter(x[:1].expand(6000, -1, -1, -1), 0.4, 1.5, (0.5, 0.9), 0.1, 0.8, generator=gen())
    factors, order, chosen, _ = seen[0]
    for column, (low, high) in enumerate(((0.6, 1.4), (0.0, 2.5), (0.5, 0.9), (-0.1, 0.1))):
        assert stats.kstest(factors[:, column].numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    counts = torch.unique(order, dim=0, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert abs(chosen.float().mean() - 0.8) < 0.02


def test_grayscale_and_solarise_are_torchvisions(x):
    grey = A.grayscale(x, 1.0, generator=gen())
    torch.testing.assert_close(grey, TF.rgb_to_grayscale(x, num_output_channels=3), **CLOSE)
    assert torch.equal(A.grayscale(x, 0.0, generator=gen()), x)
    torch.testing.assert_close(A.solarise(x, 0.4, 1.0, generator=gen()), TF.solarize(x, 0.4), **CLOSE)
    many = A.grayscale(x[10:11].expand(4000, -1, -1, -1), 0.2, generator=gen())
    assert abs((many[:, 0] == many[:, 1]).flatten(1).all(1).float().mean() - 0.2) < 0.025


@pytest.mark.parametrize("kernel", [1, 3, 9, 23])
def test_blur_is_torchvisions(x, kernel):
    sigma, chosen = torch.linspace(0.1, 3, len(x)), torch.arange(len(x)) % 3 != 0
    out = A.blur(x, sigma, kernel, chosen)
    for i in range(len(x)):
        want = TF.gaussian_blur(x[i], [kernel] * 2, [sigma[i].item()] * 2) if chosen[i] and kernel < 23 else x[i]
        if kernel < 23:  # torchvision's padding stops at one side; ours goes up to twice the side less one
            torch.testing.assert_close(out[i], want, **CLOSE)
    torch.testing.assert_close(A.blur(torch.full_like(x, 0.3), sigma, kernel), torch.full_like(x, 0.3), **CLOSE)
    assert torch.equal(out[~chosen], x[~chosen])


def test_noise_has_its_standard_deviation():
    out = A.noise(torch.full((200, 3, 16, 16), 0.5), 0.07, generator=gen()) - 0.5
    assert stats.kstest(out.flatten().numpy(), stats.norm(0, 0.07).cdf).pvalue > 1e-3


def test_rotations_are_rotations_and_uniform():
    """Q Qᵀ = 1, det 1; a uniform rotation has E tr² = 1 and entries uniform in [-1, 1] (Archimedes)."""
    q = A.random_rotations(20000, generator=gen())
    torch.testing.assert_close(q @ q.mT, torch.eye(3).expand_as(q), rtol=0, atol=2e-6)
    torch.testing.assert_close(torch.linalg.det(q), torch.ones(len(q)), rtol=0, atol=2e-6)
    for i in range(3):
        for j in range(3):
            assert stats.kstest(q[:, i, j].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4, (i, j)
    trace = q.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.mean()) < 0.03 and abs(trace.square().mean() - 1) < 0.04


def test_colour_rotation_keeps_shape_and_contrast(x):
    out = A.colour_rotation(x, generator=gen())
    old, new = x.flatten(2), out.flatten(2)
    old, fresh, new = old - old.mean(2, keepdim=True), new.mean(2), new - new.mean(2, keepdim=True)
    torch.testing.assert_close(old.mT @ old, new.mT @ new, rtol=0, atol=1e-4)  # all angles and lengths
    assert not torch.allclose(old[10], new[10], atol=0.1)
    assert fresh.min() >= -1e-6 and fresh.max() <= 1 + 1e-6 and (fresh - x.mean((2, 3))).abs().mean() > 0.1
    own = x.mean((2, 3))
    for share in (0.0, 0.5):  # the same draws: the mean goes this share of the way
        part = A.colour_rotation(x, share, generator=gen())
        torch.testing.assert_close(part.mean((2, 3)), own + share * (fresh - own), rtol=0, atol=1e-6)


# Recipes


@pytest.mark.parametrize("recipe", [A.scene_views, A.simclr_views])
@pytest.mark.parametrize("views", [1, 2, 4])
def test_views_are_stacked_view_by_view(recipe, views):
    """Each image has a brightness of its own, which neither recipe's order may mix up; uint8 and float agree."""
    x = torch.randint(0, 256, (6, 3, 10, 10), generator=gen(), dtype=torch.uint8)
    out = recipe(x, gen(), views=views)
    assert out.shape == (6 * views, 3, 10, 10) and out.dtype == torch.float32
    torch.testing.assert_close(out, recipe(x.float() / 255, gen(), views=views), **CLOSE)
    still = dict(strength=0.0)
    if recipe is A.simclr_views:
        still |= dict(scale=(1.0, 1.0), grey_p=0.0)
    flat = recipe((torch.arange(6, dtype=torch.uint8) * 40)[:, None, None, None].expand(-1, 3, 8, 8), gen(), **still)
    if recipe is A.simclr_views:
        torch.testing.assert_close(flat[:, 0, 0, 0] * 255, torch.arange(6.0).repeat(2) * 40, rtol=0, atol=1e-3)


def test_simclr_views_follow_the_recipe(monkeypatch):
    """Crop and flip, jitter 0.4 0.4 0.4 0.1 at 0.8, grey 0.2, in this order, no blur: the CIFAR-10 recipe."""
    calls = []
    for name in ("random_resized_crop", "colour_jitter", "grayscale", "gaussian_blur"):
        monkeypatch.setattr(A, name, lambda x, *a, name=name, **kw: calls.append((name, a, kw)) or x)
    A.simclr_views(torch.rand(2, 3, 32, 32), gen())
    assert [c[0] for c in calls] == ["random_resized_crop", "colour_jitter", "grayscale"]
    assert calls[0][1] == (32, (0.2, 1.0)) and calls[0][2]["flip_p"] == 0.5 and calls[2][1] == (0.2,)
    assert calls[1][1] == pytest.approx((0.4, 0.4, 0.4, 0.1, 0.8))


def test_a_crop_of_bytes_is_the_crop_of_floats(x):
    boxes = torch.tensor([[1.0, 2.0, 7.0, 5.0]]).repeat(len(x), 1)
    whole = (x * 255).to(torch.uint8)
    torch.testing.assert_close(A.crop(whole, boxes, 6), A.crop(whole.float() / 255, boxes, 6), **CLOSE)


def test_in_place_gives_the_same_and_only_then_touches_the_images(x):
    for change in (A.colour_jitter, A.grayscale):
        kept = x.clone()
        out = change(x, generator=gen())
        assert torch.equal(x, kept) and torch.equal(change(kept, generator=gen(), inplace=True), out)


def test_a_mirrored_crop_is_the_mirror_image_of_the_crop():
    x = torch.rand(40, 3, 12, 9, generator=gen(), dtype=torch.float64)
    boxes = torch.tensor([[1.0, 2.0, 7.0, 5.0]]).repeat(40, 1)
    torch.testing.assert_close(A.crop(x, boxes + torch.tensor([0, 5.0, 0, -10.0]), 6), A.crop(x, boxes, 6).flip(3))
    left = torch.arange(9.0).expand(4000, 1, 9, 9) / 9  # grows from left to right, so a mirror image falls
    out = A.random_resized_crop(left, 9, flip_p=0.3, generator=gen())
    assert (out[:, 0, 0, 0] > out[:, 0, 0, -1]).double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_simclr_views_stay_in_range_and_change_size():
    x = torch.randint(0, 256, (40, 3, 16, 16), generator=gen(), dtype=torch.uint8)
    out = A.simclr_views(x, gen(), size=24, blur_p=0.5)
    assert out.shape == (80, 3, 24, 24) and out.min() >= -1e-6 and out.max() <= 1 + 1e-6


def test_scene_views_strength():
    x = torch.rand(300, 3, 8, 8, generator=gen())
    calm, wild = A.scene_views(x, gen(), 0.0), A.scene_views(x, gen(), 1.0)

    def spread(v):
        v = v - v.mean((2, 3), keepdim=True)
        gram = torch.einsum("nchw,nckl->nhwkl", v, v)  # what no turn of the colours changes
        return (gram[:300] - gram[300:]).abs().mean().item()

    assert spread(calm) < 1e-5 < 1e-3 < spread(wild)


@pytest.mark.parametrize(
    "call,name",
    [
        (lambda x: A.random_resized_crop(x, 0, generator=gen()), "size"),
        (lambda x: A.random_resized_crop(x, 8, (0.5, 1.5), generator=gen()), "scale"),
        (lambda x: A.random_resized_crop(x, 8, (0.0, 1.0), generator=gen()), "scale"),
        (lambda x: A.random_resized_crop(x, 8, ratio=(2, 1), generator=gen()), "ratio"),
        (lambda x: A.hflip(x, 1.5, generator=gen()), "p must"),
        (lambda x: A.grayscale(x, -0.1, generator=gen()), "p must"),
        (lambda x: A.affine(x, -3, generator=gen()), "degrees"),
        (lambda x: A.affine(x, scale=(0, 1), generator=gen()), "scale"),
        (lambda x: A.affine(x, padding="wrap", generator=gen()), "padding"),
        (lambda x: A.cutout(x, 0, generator=gen()), "size"),
        (lambda x: A.colour_jitter(x, brightness=-0.1, generator=gen()), "brightness"),
        (lambda x: A.colour_jitter(x, contrast=(0.5, 0.1), generator=gen()), "contrast"),
        (lambda x: A.colour_jitter(x, hue=0.6, generator=gen()), "hue"),
        (lambda x: A.gaussian_blur(x, 4, generator=gen()), "kernel"),
        (lambda x: A.gaussian_blur(x, 25, generator=gen()), "kernel"),
        (lambda x: A.gaussian_blur(x, 3, (0.0, 1.0), generator=gen()), "sigma"),
        (lambda x: A.noise(x, -1, generator=gen()), "std"),
        (lambda x: A.colour_rotation(x, 1.5, generator=gen()), "mean"),
        (lambda x: A.scene_views(x, gen(), -1), "strength"),
        (lambda x: A.scene_views(x, gen(), views=0), "views"),
        (lambda x: A.simclr_views(x, gen(), strength=3), "strength"),
    ],
)
def test_parameters_out_of_range_are_named(call, name, x):
    with refused(name):
        call(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_never_waits(x):
    """Same cores on the GPU, and not one synchronisation."""
    images, g = (x * 255).to("cuda", torch.uint8), torch.Generator("cuda").manual_seed(0)
    A.simclr_views(images, g, blur_p=0.5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for work in RANDOM.values():
            work(images.float() / 255, g)
    finally:
        torch.cuda.set_sync_debug_mode("default")
