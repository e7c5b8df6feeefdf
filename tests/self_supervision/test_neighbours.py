"""Positives beyond an image's own views: invariance propagation, decoupled uniformity, All4One."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labcode.self_supervision import neighbours as C


def rows(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cosine(a, b):
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


class Tiny(nn.Module):
    features = 6

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, x):
        return self.layer(x.flatten(1))


def pictures(n, seed=0):
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


# --- the graph -------------------------------------------------------------------------------------------------------


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


# --- invariance propagation ------------------------------------------------------------------------------------------


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


# --- decoupled uniformity --------------------------------------------------------------------------------------------


def slow_uniformity(z, weights, t):
    n = len(z) // 2
    unit = [np.array(row) / np.linalg.norm(row) for row in z.tolist()]
    mu = [(unit[i] + unit[i + n]) / 2 for i in range(n)]
    if weights is not None:
        mu = [sum(float(weights[i, j]) * mu[j] for j in range(n)) for i in range(n)]
    pairs = [math.exp(-t * np.sum((mu[i] - mu[j]) ** 2)) for i in range(n) for j in range(n) if i != j]
    return math.log(sum(pairs) / len(pairs))


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("t", [0.5, 2.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_decoupled_uniformity_equals_a_loop(n, t, mixed):
    z = rows(2 * n, 5)
    weights = C.kernel_weights(rows(n, 3, 1)) if mixed else None
    assert float(C.decoupled_uniformity(z, weights, t)) == pytest.approx(slow_uniformity(z, weights, t), rel=1e-10)


def test_decoupled_uniformity_gradient():
    z = rows(8, 3).requires_grad_()
    assert torch.autograd.gradcheck(C.decoupled_uniformity, z)
    weights = C.kernel_weights(rows(4, 2, 1))
    assert torch.autograd.gradcheck(lambda z: C.decoupled_uniformity(z, weights), z)


def test_decoupled_uniformity_in_closed_form():
    agree, opposed = torch.eye(4).repeat(2, 1), torch.cat([torch.eye(4), -torch.eye(4)])
    assert C.decoupled_uniformity(agree) == pytest.approx(-4)  # distance² 2, t = 2
    assert C.decoupled_uniformity(opposed) == pytest.approx(0)  # centroids of length 0: not renormalised
    assert C.decoupled_uniformity(torch.ones(8, 3)) == pytest.approx(0, abs=1e-6)


def test_decoupled_uniformity_ignores_scale_rotation_and_order():
    z, turn = rows(10, 4), torch.linalg.qr(rows(4, 4, 1)).Q
    order = torch.tensor([3, 0, 4, 1, 2])
    want = C.decoupled_uniformity(z)
    for other in (3 * z, z @ turn, z.view(2, 5, 4)[:, order].reshape(10, 4)):
        assert torch.allclose(C.decoupled_uniformity(other), want)


def test_kernel_weights_solve_the_ridge_system():
    p = rows(6, 2)
    kernel = np.array([[math.exp(-float((a - b).square().sum()) / (2 * 0.7**2)) for b in p] for a in p])
    want = np.linalg.inv(kernel + 0.05 * np.eye(6)) @ kernel
    found = C.kernel_weights(p, sigma=0.7, lam=0.05)
    assert np.allclose(found, want, atol=1e-12) and torch.allclose(found, found.T)


def test_kernel_weights_at_both_ends():
    p = rows(5, 2)
    assert torch.allclose(C.kernel_weights(p, sigma=1e-3), torch.eye(5, dtype=p.dtype) / 1.01)
    assert torch.allclose(C.kernel_weights(p, sigma=1e6), torch.full((5, 5), 1 / 5.01, dtype=p.dtype), atol=1e-6)


def test_kernel_weights_give_no_gradient_and_survive_a_constant_prior():
    p = rows(5, 2).requires_grad_()
    assert not C.kernel_weights(p).requires_grad
    assert torch.isfinite(C.kernel_weights(torch.ones(5, 2))).all()
    weights = C.kernel_weights(rows(5, 2)).requires_grad_()
    C.decoupled_uniformity(rows(10, 3).requires_grad_(), weights).backward()
    assert weights.grad is None


def test_median_width_is_the_default():
    p = rows(7, 3)
    median = torch.tensor([float((p[i] - p[j]).square().sum()) for i in range(7) for j in range(7) if i != j]).median()
    assert torch.allclose(C.kernel_weights(p), C.kernel_weights(p, sigma=float(median) ** 0.5), atol=1e-6)


def test_coupling_is_the_factor_between_the_two_gradients():
    logits = rows(3, 6).requires_grad_()
    coupled, = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), logits)
    free, = torch.autograd.grad((logits[:, 1:].logsumexp(1) - logits[:, 0]).sum(), logits)
    assert torch.allclose(coupled, C.coupling(logits.detach())[:, None] * free)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "named"),
    [(lambda: C.decoupled_uniformity(rows(5, 3)), "z"), (lambda: C.decoupled_uniformity(rows(2, 3)), "z"),
     (lambda: C.decoupled_uniformity(rows(6, 3), t=0), "t must"), (lambda: C.kernel_weights(rows(1, 3)), "prior"),
     (lambda: C.decoupled_uniformity(rows(6, 3), torch.eye(2)), "weights"),
     (lambda: C.decoupled_uniformity(rows(6, 3) * torch.nan), "z"),
     (lambda: C.kernel_weights(rows(4, 3), lam=0), "lam"),
     (lambda: C.kernel_weights(rows(4, 3), 0.0), "sigma"), (lambda: C.kernel_weights(rows(4, 3) * torch.nan), "prior")],
)  # fmt: skip
def test_decoupled_uniformity_names_the_wrong_argument(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_decoupled_uniformity_module_uses_the_rows_of_its_batch():
    prior = rows(20, 3, dtype=torch.float32)
    model = C.DecoupledUniformity(Tiny(), prior, dim=4)
    index = torch.tensor([7, 1, 19])
    want = C.decoupled_uniformity(model.head(model.encoder(pictures(6))), C.kernel_weights(prior[index]))
    assert torch.allclose(model(pictures(6), index), want)


# --- All4One ---------------------------------------------------------------------------------------------------------


def test_neighbour_contrast_equals_a_loop():
    t, p = rows(5, 3).tolist(), rows(5, 3, 1).tolist()
    s = [[math.exp(cosine(a, b) / 0.2) for b in p] for a in t]
    want = sum(-math.log(s[i][i] / sum(s[i])) for i in range(5)) / 5
    assert float(C.neighbour_contrast(rows(5, 3), rows(5, 3, 1))) == pytest.approx(want, rel=1e-12)


def slow_features(keys, z):
    n, d = len(z) // 2, z.shape[1]
    halves = [(keys[:n].numpy(), z[n:].numpy()), (keys[n:].numpy(), z[:n].numpy())]
    diagonal, off = [], []
    for k, o in halves:
        for i in range(d):
            for j in range(d):
                c = cosine(k[:, i], o[:, j])
                (diagonal if i == j else off).append((c - 1) ** 2 if i == j else c**2)
    return 10 * (0.5 * math.sqrt(np.mean(diagonal)) + 0.5 * math.sqrt(np.mean(off)))


@pytest.mark.parametrize(("n", "d"), [(2, 2), (4, 3), (6, 5)])
def test_feature_contrast_equals_a_loop(n, d):
    keys, z = rows(2 * n, d), rows(2 * n, d, 1)
    assert float(C.feature_contrast(keys, z)) == pytest.approx(slow_features(keys, z), rel=1e-12)


def test_feature_contrast_in_closed_form_and_not_centred():
    z = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    assert C.feature_contrast(z, z) == pytest.approx(0, abs=1e-6)
    assert C.feature_contrast(torch.ones(8, 4), torch.ones(8, 4)) == pytest.approx(5)  # Barlow's centring gives 0 / 0
    assert not torch.allclose(C.feature_contrast(z + 1, z + 1), C.feature_contrast(z, z), atol=0.1)


def test_all4one_losses_have_right_gradients_and_none_to_keys():
    p, z, keys = rows(4, 3, 1).requires_grad_(), rows(8, 3, 2).requires_grad_(), rows(8, 3).requires_grad_()
    assert torch.autograd.gradcheck(C.neighbour_contrast, (rows(4, 3).requires_grad_(), p))
    assert torch.autograd.gradcheck(lambda z: C.feature_contrast(keys, z), z)
    C.feature_contrast(keys, z).backward()
    assert keys.grad is None
    same = rows(8, 3).requires_grad_()
    C.feature_contrast(torch.eye(4, dtype=same.dtype).repeat(2, 1), same[:, :1].expand(-1, 4) * 1.0).backward()
    assert torch.isfinite(same.grad).all()


def test_shift_puts_the_query_in_front_and_drops_the_last():
    sequence = torch.arange(30.0).view(2, 5, 3)
    moved = C.shifted(torch.tensor([[-1.0] * 3, [-2.0] * 3]), sequence)
    assert torch.equal(moved[:, 1:], sequence[:, :4]) and moved[:, 0, 0].tolist() == [-1, -2]


def test_centroid_reads_order_and_mean_does_not():
    torch.manual_seed(0)
    sequence, attention, mean = rows(2, 5, 0, torch.float32)[:, :, None] * torch.ones(8), None, None
    attention, mean = C.Centroid(8).eval(), C.Centroid(8, "mean")
    turned = sequence[:, [0, 2, 1, 4, 3]]
    assert torch.allclose(mean(turned), mean(sequence)) and torch.allclose(mean(sequence), sequence.mean(1))
    assert not torch.allclose(attention(turned), attention(sequence), atol=1e-4)
    want = [math.sin(2 / 10000 ** (2 / 8)), math.cos(2 / 10000 ** (2 / 8))]
    assert attention.places[2, 2:4].tolist() == pytest.approx(want)


def test_queue_is_first_in_first_out_and_wraps():
    model = C.All4One(Tiny(), dim=4, queue=5)
    start = model.queue.clone()
    model.enqueue(torch.full((3, 4), 1.0), torch.tensor([10, 11, 12]))
    assert torch.equal(model.queue[3:], start[3:]) and model.origin.tolist() == [10, 11, 12, -1, -1]
    model.enqueue(torch.full((3, 4), 2.0), torch.tensor([13, 14, 15]))
    assert model.origin.tolist() == [15, 11, 12, 13, 14] and model.queue[:, 0].tolist() == [2, 1, 1, 2, 2]
    assert int(model.pointer) == 1
    model.enqueue(torch.arange(7.0)[:, None].expand(7, 4), torch.arange(7))  # more keys than rows: the newest stay
    assert sorted(model.origin.tolist()) == [2, 3, 4, 5, 6] and int(model.pointer) == 3


def test_neighbours_come_from_the_queue_before_the_batch_enters():
    torch.manual_seed(0)
    model = C.All4One(Tiny(), dim=4, queue=8, hidden=8, weights=(1, 0, 0))
    x, index = torch.cat([pictures(4), pictures(4, 1)]), torch.arange(4)
    before = model.queue.clone()
    twin = C.copy.deepcopy(model)
    loss = model(x, index)
    with torch.no_grad():
        twin.follow()
        keys, p = twin.keyed(x), twin.predictor(twin.projector(twin.encoder(x)))
    found = before[C.nearest(keys, before, 1)[:, 0]]
    want = (C.neighbour_contrast(found[:4], p[4:]) + C.neighbour_contrast(found[4:], p[:4])) / 2
    assert torch.allclose(loss, want) and torch.allclose(model.queue[:4], keys[:4])


def test_keys_follow_the_online_weights_and_take_no_gradient():
    torch.manual_seed(0)
    model = C.All4One(Tiny(), dim=4, queue=8, hidden=8, momentum=0.9)
    with torch.no_grad():
        model.encoder.layer.weight.add_(1)
    key, online = model.keys[0].layer.weight, model.encoder.layer.weight
    old = key.clone()
    model(torch.cat([pictures(4), pictures(4, 1)]), torch.arange(4)).backward()
    assert torch.allclose(key, 0.9 * old + 0.1 * online) and key.grad is None
    assert online.grad.abs().sum() > 0 and model.query[0].weight.grad.abs().sum() > 0


def test_all4one_weighs_its_terms():
    torch.manual_seed(0)
    model = C.All4One(Tiny(), dim=4, queue=8, hidden=8, weights=(0.5, 0.25, 2.0)).eval()
    x, index = torch.cat([pictures(4), pictures(4, 1)]), torch.arange(4)
    a, b, c = model.terms(x, index)
    assert torch.allclose(model(x, index), 0.5 * a + 0.25 * b + 2 * c) and min(a, b, c) > 0


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "named"),
    [(lambda: C.feature_contrast(rows(6, 3), rows(6, 4)), "z"),
     (lambda: C.feature_contrast(rows(6, 1), rows(6, 1)), "z"),
     (lambda: C.neighbour_contrast(rows(1, 3), rows(1, 3)), "targets"), (lambda: C.Centroid(7), "dim"),
     (lambda: C.neighbour_contrast(rows(3, 3), rows(3, 3), 0), "tau"), (lambda: C.Centroid(8, "max"), "pool")],
)  # fmt: skip
def test_all4one_names_the_wrong_argument(call, named):
    with pytest.raises(ValueError, match=named):
        call()


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(dtype):
    z, bank = rows(8, 4).to(dtype), F.normalize(rows(9, 4, 1), dim=1).float()
    index, reached = torch.arange(8), torch.randint(9, (8, 5), generator=torch.Generator().manual_seed(0))
    pairs = [
        (C.decoupled_uniformity(z), C.decoupled_uniformity(z.float())),
        (C.feature_contrast(z, z), C.feature_contrast(z.float(), z.float())),
        (C.neighbour_contrast(z, z.flip(0)), C.neighbour_contrast(z.float(), z.float().flip(0))),
        (sum(C.invariance_propagation(z, index, bank, reached, background=4)),
         sum(C.invariance_propagation(z.float(), index, bank, reached, background=4))),
    ]  # fmt: skip
    for half, single in pairs:
        assert half.dtype == torch.float32 and torch.equal(half, single)


@pytest.mark.parametrize("name", ["propagation", "uniformity", "all4one"])
def test_methods_train_under_bf16_autocast(name):
    torch.manual_seed(0)
    make = dict(propagation=lambda: C.InvariancePropagation(Tiny(), 12, dim=4, background=5, select="hard"),
                uniformity=lambda: C.DecoupledUniformity(Tiny(), rows(12, 3, dtype=torch.float32), dim=4),
                all4one=lambda: C.All4One(Tiny(), dim=4, queue=8, hidden=8))  # fmt: skip
    model, x = make[name](), pictures(4 if name == "propagation" else 8)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x, torch.arange(4))
        loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
