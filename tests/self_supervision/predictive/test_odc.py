"""Clusters tied along tracks: votes by counting, the memory, small clusters, what the host waits for."""

import collections

import pytest
import torch
import torch.nn.functional as F
from accelerator import accelerator

from labcode import nets
from labcode.self_supervision import predictive as P


def g(seed=0):
    return torch.Generator().manual_seed(seed)


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


def test_odc_renews_its_centroids_on_schedule():
    torch.manual_seed(0)
    x = patches()
    model = P.ODC(nets.SmallNet(16, 16), torch.arange(60) // 3, 5, dim=8, every=2).start(x)
    first = model.centroids.clone()
    for _ in range(3):
        assert torch.equal(model.centroids, first)
        model(x[:20].float() / 255, torch.arange(20)).backward()
    assert not torch.equal(model.centroids, first)
    assert model.centroids.norm(dim=1).allclose(torch.ones(5))
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
