"""Jigsaw clustering against the loop, and the shuffle undone."""

import math

import pytest
import torch
from self_supervision.pretext.helpers import draw
from torch import nn

from labcode.self_supervision import pretext as P


@pytest.mark.parametrize("source", [[0, 0, 1, 1, 0, 1], [0, 1, 2, 3, 4, 4], [7, 7, 7, 7, 7, 7]])
def test_cluster_loss_is_the_loop(source):
    z, tau = draw(6, 4), 0.3
    u = (z / z.norm(dim=1, keepdim=True)).numpy()
    s = u @ u.T / tau
    rows = []
    for i in range(6):
        others = [j for j in range(6) if j != i and source[j] == source[i]]
        if others:
            total = math.log(sum(math.exp(s[i, k]) for k in range(6) if k != i))
            rows.append(-sum(s[i, j] - total for j in others) / len(others))
    assert float(P.cluster_loss(z, torch.tensor(source), tau)) == pytest.approx(sum(rows) / len(rows), rel=1e-9)


def test_cluster_loss_edges():
    z = draw(6, 4)
    assert float(P.cluster_loss(z, torch.arange(6))) == 0  # nobody has a partner
    same = torch.tensor([0, 0, 1, 1, 2, 2])
    assert float(P.cluster_loss(torch.ones(6, 4), same)) == pytest.approx(math.log(5))
    turned = torch.linalg.qr(draw(4, 4, seed=3))[0]
    assert float(P.cluster_loss(3 * z @ turned, same)) == pytest.approx(float(P.cluster_loss(z, same)))
    assert float(P.cluster_loss(torch.eye(3).repeat_interleave(2, 0), same, 0.01)) < 1e-6


def test_quadrants_overlap_and_keep_their_place():
    x = torch.arange(100.0).view(1, 1, 10, 10)
    found = P.quadrants(x, 0.3)
    assert found.shape == (4, 1, 8, 8)
    assert [int(f[0, 0, 0]) for f in found] == [0, 2, 20, 22]
    assert torch.equal(P.quadrants(x, 0.0)[3, 0], x[0, 0, 5:, 5:])


def test_cells_find_what_the_montage_laid():
    patches = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    laid = P.montage(patches)
    assert laid.shape == (2, 3, 8, 8) and laid[1, 0, 0, 0] == 4 and laid[0, 0, 0, 7] == 1 and laid[0, 0, 7, 0] == 2
    assert torch.equal(P.cells(laid)[:, 0], torch.arange(8.0))


class Look(nn.Module):
    """An encoder that sees the pixels themselves."""

    features, widths = 4, (4,)

    def maps(self, x):
        return [x]


def test_the_shuffle_is_undone_by_its_labels():
    """Where a patch is its image's, or its quadrant's, unit vector, both branches reach their optimum."""
    n, index = 4, torch.arange(4)
    unit = lambda which: torch.eye(4)[which].view(-1, 4, 1, 1).expand(-1, 4, 6, 6)  # noqa: E731
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    by_number = torch.arange(16.0).view(-1, 1, 1, 1).expand(-1, 4, 6, 6)
    assert torch.equal(P.JigClu(Look()).parts(by_number, order)[:, 0].long(), order)
    for mix in (True, False):
        model = P.JigClu(Look(), tau=0.1, loc=0.0, mix=mix)
        model.head = nn.Identity()
        assert float(model(unit(index.repeat(4)), index)) == pytest.approx(math.log(3 + 12 * math.exp(-10)), abs=1e-5)
        model = P.JigClu(Look(), clu=0.0, mix=mix)
        model.place = nn.Identity()
        assert float(model(100 * unit(index.repeat_interleave(n)), index)) == pytest.approx(0, abs=1e-6)


def test_any_temperature_zero_rows_and_names_of_sources():
    z, source = draw(8, 4).float(), torch.arange(8) // 2
    ids = torch.tensor([100_000_000_000, -7, 3, 0])[source]
    assert float(P.cluster_loss(z, ids)) == float(P.cluster_loss(z, source))
    for tau in (1e-20, 1e-4, 0.01, 1e8):
        leaf = z.clone().requires_grad_()
        loss = P.cluster_loss(leaf, source, tau)
        assert loss.isfinite() and torch.autograd.grad(loss, leaf)[0].isfinite().all()
    wanted = P.cluster_loss(z.double(), source, 1e-3)
    assert float(P.cluster_loss(z, source, 1e-3)) == pytest.approx(float(wanted), rel=1e-4)
    z[3] = 0
    for dtype in (torch.float32, torch.float16):
        leaf = z.to(dtype).requires_grad_()
        assert torch.autograd.grad(P.cluster_loss(leaf, source), leaf)[0].abs().max() < 100


def test_the_authors_weight_is_a_factor_of_the_clustering_loss():
    torch.manual_seed(0)
    model, index = P.JigClu(Look()), torch.arange(4)
    patches = torch.rand(16, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def at(clu, loc):
        model.clu, model.loc = clu, loc
        torch.manual_seed(1)
        return float(model(patches, index).detach())

    assert at(0.3 / 0.07, 1.0) == pytest.approx(30 / 7 * at(1.0, 0.0) + at(0.0, 1.0), rel=1e-5)
