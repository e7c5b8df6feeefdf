"""DEC against the loop of its equations, invariances and closed values."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from labcode.clustering import deep_clustering as D
from labcode.evaluate import clustering_accuracy


def draw(n=7, d=3, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g).double(), torch.randn(k, d, generator=g).double()


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_student_t_is_the_loop(alpha):
    z, centres = draw()
    q = D.student_t(z, centres, alpha)
    for i in range(7):
        apart = [sum((a - b) ** 2 for a, b in zip(z[i], c, strict=True)) for c in centres]
        weight = [(1 + a / alpha) ** (-(alpha + 1) / 2) for a in apart]
        for j in range(4):
            assert float(q[i, j]) == pytest.approx(float(weight[j] / sum(weight)), rel=1e-12)


def test_targets_and_loss_are_the_loop():
    q = D.student_t(*draw())
    p = D.target_distribution(q)
    for i in range(7):
        weight = [float(q[i, j]) ** 2 / sum(float(q[m, j]) for m in range(7)) for j in range(4)]
        assert p[i].tolist() == pytest.approx([w / sum(weight) for w in weight])
    wanted = sum(float(p[i, j]) * math.log(p[i, j] / q[i, j]) for i in range(7) for j in range(4)) / 7
    assert float(D.dec_loss(q, p)) == pytest.approx(wanted, rel=1e-10)
    assert float(D.dec_loss(q, q)) == pytest.approx(0, abs=1e-12)


def test_gradient_is_that_of_the_paper():
    """DEC, eq. 4: ∂KL/∂z_i = 2 Σ_j (1 + ‖z_i - μ_j‖²)⁻¹ (p_ij - q_ij)(z_i - μ_j), here over the batch's size."""
    z, centres = draw()
    z.requires_grad_()
    q = D.student_t(z, centres)
    p = D.target_distribution(q)
    slope = torch.autograd.grad(D.dec_loss(q, p), z)[0]
    away = z[:, None] - centres[None]
    wanted = 2 * ((p - q)[:, :, None] * away / (1 + away.square().sum(2, keepdim=True))).sum(1) / len(z)
    assert torch.allclose(slope, wanted, atol=1e-12)


def test_gradcheck_and_invariances():
    z, centres = draw()
    p = D.target_distribution(D.student_t(z, centres))
    inputs = (z.requires_grad_(), centres.requires_grad_())
    assert gradcheck(lambda a, b: D.dec_loss(D.student_t(a, b), p), inputs)
    turn = torch.linalg.qr(torch.randn(3, 3).double())[0]
    assert torch.allclose(D.student_t((z + 5) @ turn, (centres + 5) @ turn), D.student_t(z, centres))


def test_targets_sharpen_and_even_out():
    g = torch.Generator().manual_seed(1)
    q = (torch.randn(400, 5, generator=g) + torch.tensor([2.0, 0, 0, 0, 0])).softmax(1)
    p, plain = D.target_distribution(q), D.target_distribution(q, frequency=False)
    assert float(torch.special.entr(p).sum()) < float(torch.special.entr(q).sum())
    assert float(p.mean(0).max()) < float(plain.mean(0).max())
    assert torch.allclose(p.sum(1), torch.ones(400))


def test_edges():
    z, centres = draw()
    assert D.student_t(z[:0], centres).shape == (0, 4)
    assert D.student_t(z[:1].half(), centres.half()).dtype == torch.float32
    far = D.student_t(1e6 * z, centres)
    assert bool(torch.isfinite(D.dec_loss(far, D.target_distribution(far))))
    one = D.student_t(z, centres[:1])
    assert torch.equal(one, torch.ones_like(one)) and float(D.dec_loss(one, D.target_distribution(one))) == 0
    with pytest.raises(ValueError, match="centres"):
        D.student_t(z, centres[:, :2])
    with pytest.raises(ValueError, match="alpha"):
        D.student_t(z, centres, alpha=0.0)


def blobs(n=240, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.randn(n, 8, generator=g) + 5 * torch.eye(8)[labels], labels


def test_refinement_keeps_its_arguments_and_stops_when_nothing_changes():
    x, labels = blobs()
    net = D.Autoencoder([8, 4])
    D.pretrain(net, x, generator=torch.Generator().manual_seed(0), steps=300)
    with torch.no_grad():
        centres, _ = D.best_kmeans(net(x), 3)
    weights, before = net.down[0].weight.clone(), centres.clone()
    found = D.refine(net, x, centres, generator=torch.Generator().manual_seed(0), steps=30, every=10)
    assert torch.equal(weights, net.down[0].weight) and torch.equal(before, centres)
    assert len(found.history) == 4 and D.measures(found.clusters, labels, 3)["ACC"] > 0.95
    frozen = D.refine(net, x, centres, generator=torch.Generator().manual_seed(0), steps=30, every=10, frozen=True)
    assert torch.equal(frozen.encoder.down[0].weight, weights) and not torch.equal(frozen.centres, before)
    early = D.refine(net, x, centres, generator=torch.Generator().manual_seed(0), steps=30, every=10, tolerance=1.1)
    assert len(early.changed) == 2


def test_from_end_to_end():
    x, labels = blobs()
    clusters = D.dec_clusters(x, 3, generator=torch.Generator().manual_seed(0), steps=60)
    assert D.measures(clusters, labels, 3)["ACC"] > 0.9


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_agrees_with_clustpy(alpha):
    """Soft clusters, targets and the loss up to the targets' entropy, which ClustPy leaves out."""
    theirs = pytest.importorskip("clustpy.deep.dec")
    z, centres = draw()
    q = D.student_t(z, centres, alpha)
    p = D.target_distribution(q)
    torch.testing.assert_close(q, theirs._dec_predict(centres, z, alpha, None))
    torch.testing.assert_close(p, theirs._dec_compression_value(q))
    entropy = torch.special.entr(p).sum(1).mean()
    torch.testing.assert_close(D.dec_loss(q, p) + entropy, theirs._dec_compression_loss_fn(q, p), rtol=1e-6, atol=1e-6)


def test_matched_accuracy_agrees_with_clustpy():
    theirs = pytest.importorskip("clustpy.metrics.external").unsupervised_clustering_accuracy
    g = torch.Generator().manual_seed(0)
    labels, clusters = torch.randint(5, (60,), generator=g), torch.randint(7, (60,), generator=g)
    assert clustering_accuracy(clusters, labels) == pytest.approx(theirs(labels.numpy(), clusters.numpy()))
