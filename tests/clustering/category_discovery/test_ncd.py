"""The survey's map, pairs against loops, and every method on groups that are plain to see."""

import math

import pytest
import torch

from labcode.clustering import category_discovery as C


def test_pairs_are_the_loop_and_have_their_gradient():
    g = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 5, 3, dtype=torch.float64, generator=g).softmax(2)
    s = (torch.rand(5, 5, generator=g) > 0.5).double()
    chance = (p @ q.T).tolist()
    wanted = -sum(math.log(chance[i][j] if s[i, j] else 1 - chance[i][j]) for i in range(5) for j in range(5)) / 25
    assert float(C.pair_bce(p, s, q)) == pytest.approx(wanted, rel=1e-9)
    kl = [[float((p[i] * (p[i] / p[j]).log()).sum()) for j in range(5)] for i in range(5)]
    wanted = sum(kl[i][j] if s[i, j] else max(0, 2 - kl[i][j]) for i in range(5) for j in range(5) if i != j) / 20
    assert float(C.pair_kl(p, s)) == pytest.approx(wanted, rel=1e-6)
    p.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: C.pair_bce(a, s, q), p)


def test_edges_of_pairs():
    one, sure = torch.ones(1, 1), torch.eye(3)
    assert torch.isfinite(C.pair_bce(one, one, one)) and torch.isfinite(C.pair_kl(one, one))
    assert float(C.pair_bce(sure, torch.eye(3), sure)) < 1e-4
    assert torch.isfinite(C.pair_bce(sure, 1 - torch.eye(3), sure)) and torch.isfinite(
        C.pair_kl(sure.half(), torch.eye(3))
    )


def test_rank_pairs_compare_sets():
    z = torch.tensor([[3.0, 2, 1, 0], [2.0, 3, 0, 1], [0.0, 1, 2, 3]])
    assert C.rank_pairs(z, 2).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert C.rank_pairs(z, 4).min() == 1
    with pytest.raises(ValueError, match="top"):
        C.rank_pairs(z, 5)
    near = C.nearest_pairs(z, 0.5)
    assert torch.equal(near, near.T) and bool((near.diagonal() == 1).all())


def test_assumptions_make_problems():
    def name(**a):
        return C.problem_of(C.Assumptions(**a))

    assert name(new=True, tell_apart=True) == "novel class discovery"
    assert name(old=True, new=True, tell_apart=True) == "generalised category discovery"
    assert name(old=True, new=True, tell_apart=True, arrives=True) == "continual generalised category discovery"
    assert name(old=True) == "semi-supervised learning" and name(labels=False, new=True) == "unsupervised clustering"
    assert name(old=True, new=True) == "open-set recognition"
    with pytest.raises(ValueError, match="old and new"):
        name()


def test_families_follow_from_reads():
    assert C.family({"a": {"labelled"}, "b": {"unlabelled"}}) == "two-stage"
    assert (
        C.family({"a": {"labelled", "unlabelled"}}) == "one-stage" and C.family({"a": {"unlabelled"}}) == "unsupervised"
    )
    with pytest.raises(ValueError, match="reads"):
        C.family({"a": {"labelled"}})


@pytest.mark.parametrize("name", C.NCD)
def test_every_method_tells_plain_groups_apart(name):
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(30)
    x = torch.nn.functional.one_hot(labels, 4).float() * 6 + 0.3 * torch.randn(120, 4, generator=g)
    p = C.discovery_problem(C.standardised(x), labels, [0, 1], share=1.0, generator=g)
    data = C.Watched(p)
    found = C.NCD[name](data, 2, generator=torch.Generator().manual_seed(1), steps=40)
    assert found.shape == (60,) and int(found.max()) < 2
    assert C.discovery_accuracy(found, p.y[~p.labelled], 2)["New"] > (
        0.5 if name in ("KCL", "MCL", "AutoNovel", "TabularNCD") else 0.9
    )
