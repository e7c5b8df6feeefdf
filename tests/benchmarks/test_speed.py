"""Speed beside peer libraries: same work, same process, one thread, medians. Missing peers are skipped.

    pip install "labcode[peers]"; make bench
"""

import importlib.util
from pathlib import Path

import pytest
import torch

from labcode import augment, evaluate

pytestmark = pytest.mark.benchmark


def gen():
    return torch.Generator().manual_seed(0)


# Two views of 512 images of 32 × 32: crop, flip, jitter 0.4 0.4 0.4 0.1 at 0.8, grey at 0.2


@pytest.fixture(scope="module")
def images():
    coarse = torch.rand(512, 3, 8, 8, generator=gen())
    return (torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def test_views_beside_lightly(compare, images):
    transforms = pytest.importorskip("lightly.transforms")
    from PIL import Image

    theirs = transforms.SimCLRTransform(32, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0, normalize=None)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    g = gen()

    def lightly():
        views = [theirs(picture) for picture in pictures]
        return torch.cat([torch.stack([v[k] for v in views]) for k in range(2)])

    assert lightly().shape == augment.simclr_views(images, g).shape
    compare("two views of 512 images 32 × 32", lambda: augment.simclr_views(images, g), 3, 5, lightly=lightly)


def test_views_beside_kornia(compare, images):
    K = pytest.importorskip("kornia.augmentation")
    theirs = torch.nn.Sequential(
        K.RandomResizedCrop((32, 32), scale=(0.2, 1.0)), K.RandomHorizontalFlip(),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), K.RandomGrayscale(p=0.2),
    )  # fmt: skip
    g = gen()
    compare(
        "two views of 512 images 32 × 32", lambda: augment.simclr_views(images, g), 7, 1.5,
        kornia=lambda: theirs((images.float() / 255).repeat(2, 1, 1, 1)),
    )  # fmt: skip


# kNN, 2,000 × 20,000 × 128, k = 200


@pytest.fixture(scope="module")
def features():
    g = gen()
    centres = torch.randn(10, 128, generator=g)
    y = torch.randint(10, (22000,), generator=g)
    z = torch.nn.functional.normalize(centres[y] + 2 * torch.randn(22000, 128, generator=g), dim=1)
    return z[:20000], y[:20000], z[20000:], y[20000:]


def test_knn_beside_lightly_and_scikit_learn(compare, features):
    from sklearn.neighbors import KNeighborsClassifier

    z, y, zt, yt = features
    sk = KNeighborsClassifier(200, metric="cosine", algorithm="brute").fit(z.numpy(), y.numpy())
    peers = {"scikit-learn": lambda: sk.score(zt.numpy(), yt.numpy())}
    ours = evaluate.knn(z, y, zt, yt, k=200)
    if (spec := importlib.util.find_spec("lightly")) is not None:
        # read from its file: the package around it imports Lightning
        path = Path(spec.submodule_search_locations[0], "utils", "benchmarking", "knn.py")
        spec = importlib.util.spec_from_file_location("lightly_knn", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        peers["lightly"] = lambda: (module.knn_predict(zt, z.T, y, 10, 200, 0.1)[:, 0] == yt).float().mean().item()
        assert peers["lightly"]() == pytest.approx(ours, abs=0.002)
    compare("kNN 2,000 × 20,000 × 128, k = 200", lambda: evaluate.knn(z, y, zt, yt, k=200), 3, 0.9, **peers)


def test_linear_probe_beside_scikit_learn(compare, features):
    """The whole protocol, five regularisers and a last fit, beside one exact fit of the chosen regulariser."""
    from sklearn.linear_model import LogisticRegression

    z, y, zt, yt = (t[:2000] for t in features)
    found = evaluate.linear_probe(z, y, zt, yt)
    mean, std = z.mean(0), z.std(0)
    scaled, scaled_t = ((z - mean) / std).numpy(), ((zt - mean) / std).numpy()

    def sklearn():
        fit = LogisticRegression(C=1 / (found.l2 * len(z)), max_iter=1000).fit(scaled, y.numpy())
        return fit.score(scaled_t, yt.numpy())

    assert sklearn() == pytest.approx(found.accuracy, abs=0.01)
    compare("linear probe 2,000 × 128, 5 regularisers", lambda: evaluate.linear_probe(z, y, zt, yt), 5, 0.0,
            **{"scikit-learn, 1 fit": sklearn})  # fmt: skip


# Losses, forward and backward


def both(loss, *leaves):
    def step():
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    return step


def leaves(n, d, count):
    g = gen()
    return [torch.randn(n, d, generator=g).requires_grad_() for _ in range(count)]


def nt_xent(a, b):
    contrastive = pytest.importorskip("labcode.self_supervision.contrastive")
    return both(lambda a, b: contrastive.nt_xent(torch.cat([a, b]), 0.5), a, b)


def test_nt_xent_beside_lightly(compare):
    theirs = pytest.importorskip("lightly.loss").NTXentLoss(temperature=0.5)
    a, b = leaves(512, 128, 2)
    compare("NT-Xent, 512 pairs × 128", nt_xent(a, b), 15, 1.0, lightly=both(theirs, a, b))


def test_nt_xent_beside_pytorch_metric_learning(compare):
    """At 128 pairs: it makes a matrix of positive pairs × negative pairs, 4 GB at 512 pairs."""
    theirs = pytest.importorskip("pytorch_metric_learning.losses").NTXentLoss(temperature=0.5)
    a, b = leaves(128, 128, 2)
    labels = torch.arange(128).repeat(2)
    peer = both(lambda a, b: theirs(torch.cat([a, b]), labels), a, b)
    compare("NT-Xent, 128 pairs × 128", nt_xent(a, b), 15, 2.0, **{"pytorch-metric-learning": peer})


@pytest.mark.parametrize("n,d,at_least", [(512, 2048, 1.0), (256, 8192, 5.0)])
def test_barlow_twins(compare, n, d, at_least):
    redundancy = pytest.importorskip("labcode.self_supervision.redundancy")
    loss = pytest.importorskip("lightly.loss").BarlowTwinsLoss(lambda_param=0.0051)
    a, b = leaves(n, d, 2)
    compare(f"Barlow Twins, N = {n}, d = {d}", both(lambda a, b: redundancy.barlow_twins(a, b, lam=0.0051), a, b),
            3, at_least, lightly=both(loss, a, b))  # fmt: skip
