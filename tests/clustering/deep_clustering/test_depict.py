"""DEPICT's targets against the loop, its objective, and what a training does."""

import pytest
import torch
from torch.autograd import gradcheck

from labcode.clustering import deep_clustering as D


def predictions(n=50, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, k, generator=g, dtype=torch.float64) + torch.arange(float(k)) / 2).softmax(1)


WEIGHTS = {"paper": lambda p, f: p / f**0.5, "code": lambda p, f: p**2 / f, "none": lambda p, f: p}


@pytest.mark.parametrize("form", WEIGHTS)
def test_targets_are_the_loop(form):
    p, weigh = predictions(), WEIGHTS[form]
    q = D.balanced_targets(p, form)
    for i in range(len(p)):
        weight = [weigh(float(p[i, j]), sum(float(p[m, j]) for m in range(len(p)))) for j in range(4)]
        assert q[i].tolist() == pytest.approx([w / sum(weight) for w in weight])


def test_the_codes_targets_are_those_of_dec():
    p = predictions()
    assert torch.allclose(D.balanced_targets(p, "code"), D.target_distribution(p))


def test_targets_are_a_better_answer_to_the_objective_than_any_near_them_on_the_way_to_the_predictions():
    """KL(Q ‖ P) + KL(f ‖ u) is lower at the closed form than at P, and than at the even assignment."""
    p = predictions(400)

    def objective(q):
        f = q.mean(0)
        return float((q * (q / p).log()).sum(1).mean() + (f * (4 * f).log()).sum())

    best = objective(D.balanced_targets(p))
    assert best < objective(p) - 0.01 and best < objective(torch.full_like(p, 0.25)) - 0.1


def test_sizes_even_out_and_edges():
    p = predictions(300)
    assert float(D.balanced_targets(p).mean(0).max()) < float(p.mean(0).max())
    assert torch.allclose(D.balanced_targets(p[:1], "none"), p[:1])
    assert D.balanced_targets(p[:1].half(), "code").dtype == torch.float32
    gone = torch.zeros(3, 4, dtype=torch.float64)
    assert bool(torch.isfinite(D.balanced_targets(gone)).all())
    with pytest.raises(ValueError, match="form"):
        D.balanced_targets(p, "other")


def test_the_loss_that_is_trained_has_the_right_gradient():
    z, head = torch.randn(5, 3).double().requires_grad_(), torch.randn(4, 3).double().requires_grad_()
    q = D.balanced_targets(predictions(5), "paper")
    assert gradcheck(lambda z, w: torch.nn.functional.cross_entropy(z @ w.T, q), (z, head))


def test_training_keeps_its_arguments_and_finds_clumps():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    x = torch.randn(200, 6, generator=g) + 8 * torch.eye(6)[labels]
    torch.manual_seed(0)
    net = D.Autoencoder([6, 8, 4], code="tanh", slope=0.01)
    D.pretrain(net, x, generator=g, steps=100, dropout=0.1, inner=0.1)
    with torch.no_grad():
        _, start = D.best_kmeans(net(x), 2)
    kept = net.down[0].weight.clone()
    found = D.depict(net, x, start, 2, generator=torch.Generator().manual_seed(0), steps=40, warm=20, batch_size=50,
                     lr=0.01)  # fmt: skip
    assert torch.equal(kept, net.down[0].weight) and torch.equal(found.start, start)
    assert len(found.history) == 11 and D.measures(found.clusters, labels, 2)["ACC"] > 0.85
    clusters = D.depict_clusters(x, 2, generator=torch.Generator().manual_seed(0), steps=40)
    assert clusters.shape == (200,) and int(clusters.max()) <= 1
