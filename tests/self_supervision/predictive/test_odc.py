"""Clusters tied along tracks: votes by counting, the memory, small clusters, what the host waits for."""

import collections

import pytest
import torch
import torch.nn.functional as F
from accelerator import accelerator
from self_supervision.predictive.helpers import g

from labcode import nets
from labcode.self_supervision import predictive as P


def patches(n=60):
    return (torch.rand(n, 3, 8, 8, generator=g()) * 255).to(torch.uint8)


def test_the_vote_is_a_count():
    labels, tracks = torch.randint(4, (60,), generator=g()), torch.randint(9, (60,), generator=g(1))
    out = P.track_vote(labels, tracks, 4)
    for track in range(9):
        mine = labels[tracks == track].tolist()
        counts = [mine.count(c) for c in range(4)]
        assert set(out[tracks == track].tolist()) <= {counts.index(max(counts))}
    assert torch.equal(P.track_vote(labels, torch.arange(60), 4), labels)  # plain ODC
    assert torch.equal(P.track_vote(out, tracks, 4), out)  # a second vote changes nothing
    assert torch.equal(P.track_vote(labels, tracks, 4, count=12), out)  # nor do tracks without a patch
    assert len(P.track_vote(labels[:0], tracks[:0], 4)) == 0


def test_identity_errors_keep_the_sizes_of_tracks():
    tracks = torch.arange(40)[:, None].expand(-1, 5)
    wrong = P.mistracked(tracks, 0.2, generator=g())
    assert torch.bincount(wrong.flatten()).tolist() == [5] * 40
    assert 0.15 < (wrong != tracks).float().mean() <= 0.2
    assert torch.equal(P.mistracked(tracks, 0.0, generator=g()), tracks)


def test_the_memory_remembers_and_follows():
    torch.manual_seed(0)
    model = P.ODC(nets.SmallNet(16, 16), torch.arange(60) // 3, 5, dim=8).start(patches())
    assert model.memory.norm(dim=1).allclose(torch.ones(60)) and all(
        len(model.labels[i : i + 3].unique()) == 1 for i in range(0, 60, 3)
    )
    old, index, z = model.memory.clone(), torch.tensor([4, 50]), torch.randn(2, 8)
    model.remember(z, index)
    wanted = F.normalize(0.5 * old[index] + 0.5 * F.normalize(z, dim=1), dim=1)
    assert torch.allclose(model.memory[index], wanted)
    rest = torch.ones(60, dtype=torch.bool)
    rest[index] = False
    assert torch.equal(model.memory[rest], old[rest])


def test_small_clusters_are_dissolved_and_the_largest_is_halved():
    model = P.ODC(nets.SmallNet(16, 16), torch.arange(60), 3, dim=2, smallest=5).eval()
    angle = torch.cat([torch.zeros(20), torch.full((20,), 0.4), torch.full((18,), 2.0), torch.full((2,), 1.9)])
    model.memory = torch.stack([angle.cos(), angle.sin()], 1)
    model.labels = torch.cat([torch.zeros(40), torch.ones(18), torch.full((2,), 2.0)]).long()
    model.renew()
    assert len(model.labels[:20].unique()) == 1 and len(model.labels[20:40].unique()) == 1
    assert model.labels[0] != model.labels[20] and (model.labels[40:] == 1).all()
    assert sorted(torch.bincount(model.labels).tolist()) == [20, 20, 20]


def test_patches_of_small_clusters_go_each_to_the_nearest_large_one():
    model = P.ODC(nets.SmallNet(16, 16), torch.arange(44), 4, dim=2, smallest=3).eval()
    angle = torch.cat([torch.zeros(20), torch.full((20,), 2.0), torch.tensor([0.1, 1.9, 0.2, 1.8])])
    model.memory = torch.stack([angle.cos(), angle.sin()], 1)
    model.labels = torch.cat([torch.zeros(20), torch.ones(20), torch.tensor([2, 2, 3, 3])]).long()
    model.renew()
    sides = [set(model.labels[part].tolist()) for part in ([*range(20), 40, 42], [*range(20, 40), 41, 43])]
    assert not sides[0] & sides[1], "a small cluster need not move as a whole"
    assert sides[0] | sides[1] == {0, 1, 2, 3}, "no slot stays empty"


def test_what_cannot_be_parted_is_cut_in_the_middle():
    assert P.two_means(torch.ones(5, 3)).tolist() == [False, False, False, True, True]
    model = P.ODC(nets.SmallNet(16, 16), torch.arange(12), 2, dim=2, smallest=2).eval()
    model.memory, model.labels = torch.ones(12, 2) / 2**0.5, torch.zeros(12).long()
    model.renew()
    assert sorted(torch.bincount(model.labels).tolist()) == [6, 6]


def test_tracks_are_any_integers_and_patches_bytes_or_floats():
    names = torch.tensor([10**9, -3, 7])[torch.arange(60) % 3]
    plain = torch.arange(60) % 3
    labels = torch.randint(4, (60,), generator=g())
    assert torch.equal(P.track_vote(labels, names, 4), P.track_vote(labels, plain, 4))
    made = []
    for tracks, x in ((names, patches()), (plain, patches()), (plain, patches().float() / 255)):
        torch.manual_seed(0)
        encoder = nets.SmallNet(16, 16)
        before = [b.clone() for b in encoder.buffers()]
        model = P.ODC(encoder, tracks, 5, dim=8).start(x)
        assert all(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True)), "statistics move"
        made.append(model)
    groups = [m.labels.view(20, 3).T for m in made]
    assert all((column == column[:1]).all() for column in groups[0].view(3, 20, 1).unbind())
    assert torch.allclose(made[1].memory, made[2].memory, atol=1e-6)
    assert torch.equal(made[0].labels, made[1].labels) or made[0].count == made[1].count == 3


@pytest.mark.bad_input
def test_labels_and_patches_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="labels must lie in 0 … 3, got 0 … 4"):
        P.track_vote(torch.arange(5), torch.zeros(5).long(), 4)
    with pytest.raises(ValueError, match="tracks must lie in 0 … 1, got 0 … 2"):
        P.track_vote(torch.zeros(3).long(), torch.arange(3), 4, count=2)
    model = P.ODC(nets.SmallNet(16, 16), torch.arange(60), 5, dim=8)
    with pytest.raises(ValueError, match="patches must be those of the 60 tracks, got 59"):
        model.start(patches()[:59])
    with pytest.raises(ValueError, match="x must be in .0, 1. where it is float"):
        model.start(patches().float())


def test_odc_renews_its_centroids_on_schedule():
    torch.manual_seed(0)
    x = patches()
    model = P.ODC(nets.SmallNet(16, 16), torch.arange(60) // 3, 5, dim=8, every=2).start(x)
    first = model.centroids.clone()
    for _ in range(3):
        assert torch.equal(model.centroids, first)
        model(x[:20].float() / 255, torch.arange(20)).backward()
    assert not torch.equal(model.centroids, first)
    model.renew()
    for c in model.labels.unique().tolist():
        assert torch.allclose(model.centroids[c], model.memory[model.labels == c].mean(0), atol=1e-6), "a plain mean"
    with pytest.raises(ValueError, match="clusters"):
        P.ODC(nets.SmallNet(16, 16), torch.arange(3), 5)


@pytest.mark.parametrize("learnt", [True, False])
def test_a_step_of_odc_waits_for_nothing_but_to_renew_its_clusters(learnt):
    """And on the device it does what it does on the host."""

    def steps(device, waits):
        torch.manual_seed(0)
        tracks, x = torch.arange(60) // 3, patches().to(device)
        model = P.ODC(nets.SmallNet(16, 16), tracks, 5, dim=8, every=4, learnt=learnt).to(device).start(x)
        waited = []
        for step in range(10):
            index = (torch.arange(20, device=device) + 7 * step) % 60
            waits.clear()
            loss = model(x[index].float() / 255, index)
            loss.backward()
            waited.append(waits.total())
        return waited, [part.detach().cpu() for part in (loss, model.labels, model.memory, model.centroids)]

    _, here = steps("cpu", collections.Counter())
    with accelerator() as waits:
        waited, there = steps("gpu", waits)
    assert [step for step, times in enumerate(waited) if times] == ([4, 8] if learnt else [])
    for ours, wanted in zip(there, here, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_two_means_parts_two_heaps():
    x = torch.cat([torch.randn(30, 4, generator=g()) * 0.1, torch.randn(10, 4, generator=g(1)) * 0.1 + 3])
    second = P.two_means(x)
    assert (second[:30] == second[0]).all() and (second[30:] != second[0]).all()
    P.two_means(torch.ones(3, 2))
