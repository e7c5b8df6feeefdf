"""DASO: the semantic label, the blend by class, the alignment loss, the balanced queue, the pools."""

import math

import pytest
import torch

from labcode.imperfect_labels.semi_supervised import comparison_daso as C
from labcode.imperfect_labels.semi_supervised import daso as D
from labcode.imperfect_labels.semi_supervised.stage import Images, Stage


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_similarities_are_cosines_over_the_temperature():
    f, c = drawn(2, 5, 4), drawn(2, 3, 4, seed=1)
    got = D.similarities(f, c, 0.1)
    for n in range(2):
        for i in range(5):
            for k in range(3):
                a, b = f[n, i], c[n, k]
                want = float((a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())) / 0.1
                assert float(got[n, i, k]) == pytest.approx(want, abs=1e-9)
    assert torch.allclose(D.similarities(7 * f, 0.01 * c, 0.1), got), "lengths do not matter"
    turn = torch.linalg.qr(drawn(4, 4, seed=2)).Q
    assert torch.allclose(D.similarities(f @ turn, c @ turn, 0.1), got), "nor does a rotation of both"
    assert not D.similarities(f, 0 * c, 0.1).any(), "an empty class is as far as any"
    assert D.similarities(f.half(), c.half()).dtype == torch.float32
    assert D.similarities(f[:, :0], c).shape == (2, 0, 3)
    with pytest.raises(ValueError, match="temperature"):
        D.similarities(f, c, 0.0)
    with pytest.raises(ValueError, match="prototypes"):
        D.similarities(f, c[:1])


def test_shares_by_hand():
    m = torch.tensor([[8.0, 4.0, 1.0], [0.0, 0.0, 0.0], [3.0, 3.0, 3.0]])
    v = D.semantic_shares(m, 1.0)
    assert v[0].tolist() == pytest.approx([1, 0.5, 0.125])
    assert v[1].tolist() == [0, 0, 0], "nothing counted: the classifier alone"
    assert v[2].tolist() == [1, 1, 1], "all alike: prototypes alone"
    assert D.semantic_shares(m, 0.5)[0].tolist() == pytest.approx([1, 0.25, 0.125**2])
    assert D.semantic_shares(m, 3.0)[0].tolist() == pytest.approx([1, 0.5 ** (1 / 3), 0.5])
    assert torch.allclose(D.semantic_shares(10 * m, 0.7), D.semantic_shares(m, 0.7)), "shares of them do as well"
    both = D.semantic_shares(m[:1].expand(2, 3), torch.tensor([[1.0], [0.5]]))
    assert both[0].tolist() == pytest.approx([1, 0.5, 0.125]) and float(both[1, 1]) == pytest.approx(0.25)
    assert D.semantic_shares(m, 1e-3)[0].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="temperature"):
        D.semantic_shares(m, 0.0)


def test_the_classifier_s_class_decides_on_the_blend():
    p, q = drawn(2, 6, 3).softmax(-1), drawn(2, 6, 3, seed=1).softmax(-1)
    v = torch.tensor([[0.0, 0.3, 1.0], [0.9, 0.2, 0.5]], dtype=torch.float64)
    got = D.blended(p, q, v)
    for n in range(2):
        for i in range(6):
            named = max(range(3), key=lambda k: float(p[n, i, k]))
            for k in range(3):
                want = (1 - float(v[n, named])) * float(p[n, i, k]) + float(v[n, named]) * float(q[n, i, k])
                assert float(got[n, i, k]) == pytest.approx(want, abs=1e-12)
    assert torch.allclose(got.sum(-1), torch.ones(2, 6, dtype=torch.float64))
    assert torch.equal(D.blended(p, q, 0 * v), p) and torch.allclose(D.blended(p, q, 0 * v + 1), q)
    with pytest.raises(ValueError, match="v"):
        D.blended(p, q, v[:1])


def test_alignment_is_a_cross_entropy_without_gradient_to_the_weak_view():
    weak, strong = drawn(2, 4, 3).requires_grad_(), drawn(2, 4, 3, seed=1).requires_grad_()
    loss = D.alignment_loss(weak, strong)
    want = 0.0
    for n in range(2):
        for i in range(4):
            q, s = (t[n, i].exp() / t[n, i].exp().sum() for t in (weak.detach(), strong.detach()))
            want -= sum(float(a) * math.log(float(b)) for a, b in zip(q, s, strict=True)) / 4
    assert float(loss.detach()) == pytest.approx(want, abs=1e-9)
    loss.backward()
    assert weak.grad is None
    assert torch.autograd.gradcheck(lambda s: D.alignment_loss(weak.detach(), s), strong)
    same = D.alignment_loss(weak, weak.detach())
    assert float(same) == pytest.approx(float(torch.distributions.Categorical(logits=weak).entropy().mean(1).sum()))
    one = D.alignment_loss(weak[:1], strong[:1])
    assert float(D.alignment_loss(weak, strong, torch.tensor([1.0, 0.0]))) == pytest.approx(float(one))


def test_queues_hold_the_last_of_each_class():
    g = torch.Generator().manual_seed(0)
    queue, kept = D.BalancedQueue(2, 3, 4, 5), [[[] for _ in range(3)] for _ in range(2)]
    assert not queue.prototypes.any()
    for _ in range(7):
        f, y = torch.randn(2, 5, 4, generator=g), torch.tensor([[0, 0, 1, 0, 0], [1, 2, 1, 2, 2]])
        queue.push(f, y)
        for n in range(2):
            for i in range(5):
                kept[n][y[n, i]].append(f[n, i])
    for n in range(2):
        for k in range(3):
            last = kept[n][k][-5:]
            want = torch.stack(last).mean(0) if last else torch.zeros(4)
            assert torch.allclose(queue.prototypes[n, k], want, atol=1e-6)
    queue.push(torch.randn(2, 1, 4, generator=g), torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="features"):
        queue.push(torch.randn(2, 6, 4), torch.zeros(2, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="labels"):
        queue.push(torch.randn(2, 1, 4), torch.full((2, 1), 3))
    with pytest.raises(ValueError, match="size"):
        D.BalancedQueue(1, 3, 4, 0)


def test_a_half_filled_queue_is_not_diluted():
    queue = D.BalancedQueue(1, 2, 3, 10)
    queue.push(torch.ones(1, 2, 3), torch.tensor([[0, 0]]))
    assert queue.prototypes[0].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_the_histogram_is_published_at_intervals():
    method = D.Daso([D.DasoArm(temperature=1.0), D.DasoArm(v=0.5)], torch.ones(2, 3) / 3, 2, torch.arange(2), refresh=2)
    label = torch.tensor([[0, 0, 1], [2, 2, 2]])
    method.count(label, 0)
    assert not method.counts.any() and method.shares().tolist() == [[0, 0, 0], [0.5, 0.5, 0.5]]
    method.count(label, 1)
    assert method.counts.tolist() == [[4, 2, 0], [0, 0, 6]]
    assert method.shares().tolist() == [[1, 0.5, 0], [0.5, 0.5, 0.5]]
    method.count(label.flip(0), 2)
    assert method.counts[0].tolist() == [4, 2, 0], "the old one stays until the next is complete"
    method.count(label.flip(0), 3)
    assert method.counts[0].tolist() == [0, 0, 6], "and then it is forgotten"


def test_the_average_follows():
    method = D.Daso([D.DasoArm()], torch.ones(1, 2) / 2, 1, torch.zeros(1, dtype=torch.long), decay=0.9)
    net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    torch.nn.init.constant_(net[0].weight, 1.0)
    method.follow(net)
    torch.nn.init.constant_(net[0].weight, 2.0)
    method.follow(net)
    assert float(method.average[0].weight) == pytest.approx(1.1)
    assert not method.average[0].weight.requires_grad


def small_stage():
    stage = Stage.__new__(Stage)
    stage.classes, stage.pool = 4, Images(torch.rand(400, 4), torch.arange(400) % 4)
    return stage


def test_pools_have_the_distribution_that_their_name_says():
    stage = small_stage()
    tails = C.long_tails(stage, 3, 2, ratio=8, sizes=(16, 40))
    assert tails.counts.tolist() == [16, 8, 4, 2]
    want = {"matched": [40, 20, 10, 5], "uniform": [40] * 4, "reversed": [5, 10, 20, 40]}
    for j in range(2):
        known = tails.labels.places[j]
        by_class = torch.bincount(stage.pool.y[known], minlength=4)
        assert by_class[tails.names[j]].tolist() == [16, 8, 4, 2]
        for kind, counts in want.items():
            own = tails.pools[kind][j][: tails.sizes[kind]]
            assert len(own.unique()) == len(own) == sum(counts)
            assert torch.bincount(stage.pool.y[own], minlength=4)[tails.names[j]].tolist() == counts
            assert not set(own.tolist()) & set(known.tolist()), "no image has a label and none"
    assert torch.equal(C.long_tails(stage, 3, 1, ratio=8, sizes=(16, 40)).labels.places[0], tails.labels.places[0])


def test_measures_by_rank():
    said, truth = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 2]])
    assert C.precisions(said, truth, 3)[0].tolist() == [0.5, 0.5, 0], "nothing is called class 2"
    assert C.by_rank(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2, 0, 1]]))[0].tolist() == [3, 1, 2]
    told = C.judged(torch.arange(10.0)[None])
    assert (told["many"], told["medium"], told["few"], told["all"]) == (1, 4.5, 8, 4.5)


def test_arms_with_the_same_first_stage_share_it():
    firsts = {C.first_stage(arm) for arm in C.daso_arms("uniform", tuple(C.DASO_MAIN | C.DASO_PARTS), (0.3,)).values()}
    assert len(firsts) == 3, "supervised, FixMatch, FixMatch with logit adjustment"
    assert C.daso_arms("matched", ("DASO",), (0.3,))["matched", "T = 0.3"].temperature == 0.3
