"""Drawn cells, batch correction and recall against loops."""

import pytest
import torch
import torch.nn.functional as F
from self_supervision.predictive.helpers import draw

from labcode.self_supervision import predictive as P


def test_cells_show_their_factors():
    made = P.cells(20, 16, 4, effect=3.0, seed=3)
    assert made.images.shape == (320, 4, 16, 16) and made.pathway.tolist() == [i % 4 for i in range(16)]
    assert torch.bincount(made.perturbation).tolist() == [20] * 16
    other = P.cells(20, 16, 4, effect=3.0, seed=3, draw=1)
    assert torch.equal(other.pathway, made.pathway) and not torch.equal(other.images, made.images)
    from labcode.self_supervision.predictive.microscope import _draw_cells

    for factor, channel, grows in ((0, 0, True), (2, 1, True), (3, 2, True), (5, 3, True)):
        areas = []
        for value in (-2.0, 2.0):
            z = torch.zeros(200, 7)
            z[:, factor] = value
            areas.append(_draw_cells(z, 16, 0.5, torch.Generator().manual_seed(0))[:, channel].mean())
        assert (areas[1] > 1.1 * areas[0]) == grows


def test_centre_by_batch_removes_what_a_plate_adds():
    z, batch = draw(12, 3), torch.arange(12) % 3
    moved = z + 5 * draw(3, 3, seed=1)[batch]
    assert torch.allclose(P.centre_by_batch(moved, batch), P.centre_by_batch(z, batch))
    assert max(P.centre_by_batch(z, batch)[batch == b].mean(0).abs().max() for b in range(3)) < 1e-12


def test_typical_variation_whitens_the_scatter_within():
    g, batch = torch.arange(400) % 5, torch.arange(400) // 100
    z = draw(400, 3) * torch.tensor([1.0, 10.0, 0.1])
    z[g == 2] += torch.tensor([1.0, 10.0, 0.1])
    mean = P.typical_variation(z, g, batch, shrink=0.0)
    assert mean.shape == (5, 3) and mean.norm(dim=1).argmax() == 2
    assert torch.allclose(P.typical_variation(z * 3, g, batch), P.typical_variation(z, g, batch), atol=1e-6)


def test_relation_recall_is_the_loop():
    z, group, tail = draw(9, 4), torch.arange(9) % 3, 0.1
    pairs = [(i, j) for i in range(9) for j in range(i)]
    value = {(i, j): float(F.cosine_similarity(z[i], z[j], dim=0)) for i, j in pairs}
    order = sorted(pairs, key=value.get)
    size = round(tail * len(pairs))
    found = set(order[:size]) | set(order[-size:])
    related = [pair for pair in pairs if group[pair[0]] == group[pair[1]]]
    assert P.relation_recall(z, group, tail) == pytest.approx(sum(p in found for p in related) / len(related))
    axes = torch.eye(5, dtype=torch.float64)[torch.arange(20) % 5] + 0.01 * draw(20, 5)
    flipped = axes * (1 - 2 * (torch.arange(20) % 2))[:, None]
    assert (
        P.relation_recall(axes, torch.arange(20) % 5, 0.2) == 1 == P.relation_recall(flipped, torch.arange(20) % 5, 0.2)
    )
    random = [P.relation_recall(draw(60, 8, seed=s), torch.arange(60) % 6) for s in range(20)]
    assert abs(sum(random) / 20 - 0.1) < 0.03, "nothing known finds both tails' share"


def test_numbers_of_plates_genes_and_pathways_are_any_integers():
    z, plate, gene = draw(24, 4), torch.arange(24) % 3, torch.arange(24) % 6
    names, other = torch.tensor([10**9, -4, 3]), torch.tensor([5, 17, 10**8, -1, 0, 2])
    assert torch.equal(P.centre_by_batch(z, plate), P.centre_by_batch(z, names[plate]))
    plain = P.typical_variation(z, gene, plate)
    order = other.argsort()
    assert torch.allclose(P.typical_variation(z, other[gene], names[plate]), plain[order])
    group = torch.arange(6) % 3
    assert P.relation_recall(plain, group, 0.2) == P.relation_recall(plain, names[group], 0.2)


@pytest.mark.bad_input
def test_what_is_not_finite_or_does_not_fit_is_refused_by_name():
    z, plate = draw(24, 4), torch.arange(24) % 3
    odd = z.clone()
    odd[3, 1] = float("nan")
    for call, message in [
        (lambda: P.centre_by_batch(odd, plate), "z must be finite"),
        (lambda: P.typical_variation(odd, plate, plate), "z must be finite"),
        (lambda: P.relation_recall(odd, plate), "z must be finite"),
        (lambda: P.centre_by_batch(z, plate[:5]), "batch must be 24 integers"),
        (lambda: P.typical_variation(z, plate.float(), plate), "perturbation must be 24 integers"),
        (lambda: P.relation_recall(z, plate[:5]), "group must be one for each of the 24 rows"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_half_precision_is_centred_in_float32():
    z, plate = draw(30, 4).half() + 1000, torch.arange(30) % 3
    found = P.centre_by_batch(z, plate)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), P.centre_by_batch(z.double(), plate), atol=1e-2)
