"""Invariance propagation: the graph, the losses against a loop, the memory bank."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from self_supervision.contrastive.helpers import Tiny, cosine, pictures, rows

from labcode.self_supervision import contrastive as C


def slow_invariance(z, index, bank, reached, tau, positives, background, hard):
    instance, invariance = [], []
    for row, own in zip(z.tolist(), index.tolist(), strict=True):
        s = {j: math.exp(cosine(row, v) / tau) for j, v in enumerate(bank.tolist())}
        shared = sum(sorted((s[j] for j in s if j != own), reverse=True)[:background])
        instance.append(-math.log(s[own] / (s[own] + shared)))
        candidates = sorted({j for j in reached[len(instance) - 1].tolist() if j != own}, key=lambda j: s[j])
        chosen = candidates[:positives] if hard else candidates[::-1][:positives]
        if chosen:
            invariance.append(-math.log(sum(s[j] for j in chosen) / shared))
    return sum(instance) / len(instance), sum(invariance) / max(1, len(invariance))


def test_propagate_walks_every_path():
    table = torch.randint(9, (9, 2), generator=torch.Generator().manual_seed(3))
    found = C.propagate(table, torch.tensor([4, 0]), levels=3)
    for row, start in enumerate((4, 0)):
        level, want = [start], []
        for _ in range(3):
            level = [int(j) for i in level for j in table[i]]
            want += level
        assert found[row].tolist() == want


def test_distinct_keeps_first_visits_and_drops_the_image_itself():
    reached = torch.tensor([[3, 1, 3, 0, 1, 2], [5, 5, 5, 5, 5, 5], [1, 1, 1, 1, 1, 1]])
    kept = C.distinct(reached, torch.tensor([0, 4, 1]))
    assert kept.tolist() == [[True, True, False, False, False, True], [True] + [False] * 5, [False] * 6]


def test_nearest_excludes_the_image_itself():
    bank = F.normalize(rows(10, 4), dim=1)
    found = C.nearest(bank, bank, 3, torch.arange(10))
    for i in range(10):
        order = sorted((j for j in range(10) if j != i), key=lambda j: -float(bank[i] @ bank[j]))
        assert found[i].tolist() == order[:3]
    assert C.nearest(bank, bank, 1)[:, 0].tolist() == list(range(10))


def test_purity_is_the_mean_over_rows_that_keep_any():
    labels = torch.tensor([0, 0, 1, 1])
    members = torch.tensor([[1, 2], [0, 3], [3, 3]])
    kept = torch.tensor([[True, True], [True, False], [False, False]])
    assert C.purity(members, kept, labels, labels[:3]) == pytest.approx((0.5 + 1.0) / 2)


@pytest.mark.parametrize("select", ["hard", "easy"])
@pytest.mark.parametrize(("positives", "background"), [(1, 3), (3, 5), (50, 11)])
def test_invariance_propagation_equals_a_loop(select, positives, background):
    z, bank = rows(5, 4), F.normalize(rows(12, 4, 1), dim=1)
    index = torch.tensor([3, 0, 11, 6, 7])
    reached = torch.randint(12, (5, 9), generator=torch.Generator().manual_seed(2))
    reached[1] = 0  # no candidate: only the image itself
    found = C.invariance_propagation(z, index, bank, reached, 0.3, positives, background, select)
    want = slow_invariance(z, index, bank, reached, 0.3, positives, background, select == "hard")
    assert [float(f) for f in found] == pytest.approx(want, rel=1e-12)


def test_invariance_propagation_gradient_also_without_candidates():
    bank, index = F.normalize(rows(8, 3, 1), dim=1), torch.tensor([0, 1, 2])
    reached = torch.tensor([[3, 4, 3], [1, 1, 1], [5, 6, 7]])
    z = rows(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sum(C.invariance_propagation(z, index, bank, reached, 0.5, 2, 4)), z)
    ins, inv = C.invariance_propagation(z, index, bank, index[:, None], 0.5, 2, 4)
    assert inv == 0 and torch.isfinite(torch.autograd.grad(ins + inv, z)[0]).all()


def test_invariance_loss_can_be_negative_when_positives_outweigh_the_background():
    bank = F.normalize(torch.tensor([[1.0, 0], [1, 0.01], [1, 0.02], [1, 0.03], [-1, 0]]), dim=1)
    loss = C.invariance_propagation(torch.tensor([[1.0, 0]]), torch.tensor([0]), bank, torch.tensor([[1, 2, 3]]), 0.1,
                                    positives=3, background=1)[1]  # fmt: skip
    assert loss == pytest.approx(-math.log(3), abs=0.02)


def test_bank_moves_half_way_and_neighbours_are_renewed_for_the_batch_only():
    torch.manual_seed(0)
    model = C.InvariancePropagation(Tiny(), 12, dim=4, background=5)
    before, links = model.bank.clone(), model.neighbours.clone()
    index = torch.tensor([2, 9, 5])
    with torch.no_grad():
        f = F.normalize(model.head(model.encoder(pictures(3))), dim=1)
    model(pictures(3), index).backward()
    assert torch.allclose(model.bank[index], F.normalize(0.5 * before[index] + 0.5 * f, dim=1), atol=1e-6)
    rest = [i for i in range(12) if i not in (2, 9, 5)]
    assert torch.equal(model.bank[rest], before[rest]) and torch.equal(model.neighbours[rest], links[rest])
    assert torch.equal(model.neighbours[index], C.nearest(f, before, 4, index))
    assert not model.bank.requires_grad and torch.allclose(model.bank.norm(dim=1), torch.ones(12))


def test_branches_start_equal_and_part():
    model = C.InvariancePropagation(Tiny(), 12, dim=4, background=5)
    twin = model.branch("hard", weight=0.3)
    assert (twin.select, twin.weight, model.select) == ("hard", 0.3, "none")
    twin(pictures(3), torch.arange(3))
    assert not torch.equal(twin.bank, model.bank)


def test_evaluation_leaves_the_bank_alone():
    model = C.InvariancePropagation(Tiny(), 12, dim=4, background=5).eval()
    before = model.bank.clone()
    model(pictures(3), torch.arange(3))
    assert torch.equal(model.bank, before)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "named"),
    [(dict(background=12), "background"), (dict(positives=0), "positives"), (dict(tau=0), "tau"),
     (dict(select="all"), "select"), (dict(z=torch.full((2, 4), torch.nan)), "z"), (dict(z=torch.zeros(0, 4)), "z")],
)  # fmt: skip
def test_invariance_propagation_names_the_wrong_argument(change, named):
    given = dict(z=rows(2, 4), index=torch.tensor([0, 1]), bank=F.normalize(rows(12, 4), dim=1),
                 reached=torch.tensor([[3], [4]]), background=5) | change  # fmt: skip
    with pytest.raises(ValueError, match=named):
        C.invariance_propagation(**given)


@pytest.mark.bad_input
def test_graph_functions_refuse_nonsense():
    table = torch.zeros(4, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="levels"):
        C.propagate(table, torch.tensor([0]), 0)
    with pytest.raises(ValueError, match="neighbours"):
        C.propagate(table.float(), torch.tensor([0]))
    with pytest.raises(ValueError, match="k must"):
        C.nearest(rows(4, 2), rows(4, 2), 4, torch.arange(4))
    with pytest.raises(ValueError, match="views"):
        C.InvariancePropagation(Tiny(), 12, dim=4, background=5)(pictures(6), torch.arange(3))


def test_purities_are_those_of_a_walk_and_of_as_many_nearest():
    bank = F.normalize(rows(40, 3, dtype=torch.float32), dim=1)
    labels = (bank[:, 0] > 0).long()
    near = (bank @ bank.T).fill_diagonal_(-9).argsort(1, descending=True)
    walked, nearest = [], []
    for i in range(40):
        level, met = {i}, set()
        for _ in range(2):
            level = {int(j) for a in level for j in near[a, :4]}
            met |= level
        met.discard(i)
        walked.append(np.mean([int(labels[j] == labels[i]) for j in met]))
        nearest.append(np.mean([int(labels[j] == labels[i]) for j in near[i, : len(met)].tolist()]))
    assert np.allclose(C.purities(bank, labels, levels=2), [np.mean(walked), np.mean(nearest)], atol=1e-6)


def test_what_follows_npid_starts_where_it_stopped():
    npid = C.NPID(Tiny(), images=20, dim=4)
    model = C.InvariancePropagation.following(npid, "easy", background=8)
    x = pictures(5)
    assert model.select == "easy" and torch.equal(model.head(model.encoder(x)), npid.head(npid.encoder(x)))
    similar = (npid.bank @ npid.bank.T).fill_diagonal_(-9)
    assert torch.equal(model.neighbours, similar.topk(4, dim=1).indices)
    model(x, torch.arange(5))
    assert not torch.equal(model.bank, npid.bank) and model.encoder is not npid.encoder
