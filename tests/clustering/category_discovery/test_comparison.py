"""The comparisons: what is averaged and judged in the notebook is what the parts say, one by one."""

import torch
import torch.nn.functional as F

from labcode.clustering import category_discovery as C


def problem(share=0.5, old=3, classes=5, each=14, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat(each)
    x = F.normalize(4 * torch.eye(classes, 8)[y] + torch.randn(len(y), 8, generator=g), dim=1)
    return C.discovery_problem(x, y, list(range(old)), share=share, generator=g)


def test_pbn_chooses_by_hidden_classes_and_reports_that_setting():
    p = problem(share=1.0)
    settings = [(0.0, 4), (0.5, 4), (1.0, 4)]
    found = C.pbn_arms(p, settings, seed=1, hide=2, folds=2, steps=6, batch=16)
    best = max(range(3), key=lambda at: found["hidden"][at])
    assert found["PBN"] == found["new"][best] and found["w"] == settings[best][0]
    assert found["baseline"] == found["new"][2] and len(found["raw"]) == 3
    torch.testing.assert_close(found["z"].norm(dim=1), torch.ones(int((~p.labelled).sum())))


def test_the_search_for_lambda_and_its_rival_share_the_start():
    p = problem()
    arms = C.pim_arms(p, (0.1, 1.0), {"CE alone": (0.0, 0.0, 1.0)}, seed=2, restarts=2, steps=1, lr=1e-9)
    assert arms["chosen"] == arms["by"][arms["lam"]]
    assert C.pim_arms(p, (0.1,), {}, seed=2, restarts=2, steps=1, lr=1e-9)["semi"] == arms["semi"]


def test_a_tail_keeps_the_largest_class_whole():
    p = problem(each=40)
    sizes = torch.bincount(C.tailed(p, 8, seed=0).y, minlength=5).sort().values
    assert sizes[-1] == 40 and 4 <= sizes[0] <= 6
    assert len(C.tailed(p, 1, seed=0).y) == len(p.y)


def test_the_area_is_the_share_of_pairs_in_order():
    p = problem()
    net = C.train_proxies(p, generator=torch.Generator().manual_seed(0), steps=5, batch=16)
    with torch.no_grad():
        nearest = net.similar(p.x).amax(1)
    old, new = (nearest[~p.labelled & at] for at in (p.y < p.old, p.y >= p.old))
    pairs = (old[:, None] > new).double() + 0.5 * (old[:, None] == new).double()
    assert abs(C.split_area(p, net) - float(pairs.mean())) < 1e-6


def test_a_session_without_training_changes_nothing_but_the_proxies():
    p = problem()
    net = C.train_proxies(p, generator=torch.Generator().manual_seed(0), steps=5, batch=16)
    everything = torch.ones(len(p.y), dtype=torch.bool)
    after = C.proxy_session(p, net, everything, seed=0, steps=1, lr=1e-12)
    said, rows = C.nearest_proxy(net, p.x), ~p.labelled & (p.y < p.old)
    was = float((said[rows] == p.y[rows]).double().mean())
    assert abs(after["forgot"] - (was - p.judge(said)["Old"])) < 1e-6 and after["k"] == 0
    old = p.y < p.old
    assert C.proxy_session(p, net, old, seed=0, steps=1, lr=1e-12, clusters=2)["k"] == 2
    assert C.count_new(p, net, old, -1.0) >= 1


def test_the_rivals_and_the_mixture_are_measured_on_unlabelled_rows():
    p = problem(share=1.0)
    rivals = C.table_rivals(p, seed=0)
    assert set(rivals) == {"k-means", "NCD k-means", "spectral", "NCD spectral"}
    assert all(0 <= v <= 1 for v in rivals.values())
    assert C.discovered("k-means", p, seed=0, steps=3) == (rivals["k-means"], "unsupervised")
    q = problem()
    found = C.moved(q, 6, seed=0, dims=4, psi=0.1, rounds=2)
    assert found["counts"][0] == 6 and found["k"] == found["counts"][-1]
    assert found["off"] == abs(found["k"] - 5)
