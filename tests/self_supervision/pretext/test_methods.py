"""What all tasks of the chapter have in common: gradients, precision, errors, a step of training."""


import pytest
import torch
from self_supervision.pretext.helpers import draw, pictures

from labcode.self_supervision import pretext as P


@pytest.mark.parametrize("name", ["rotation", "cluster", "relation", "sla", "aggregate", "distil", "codes", "bow"])
def test_gradients(name):
    z = draw(8, 4).requires_grad_()
    loss = {
        "rotation": P.rotation_loss,
        "cluster": lambda z: P.cluster_loss(z, torch.tensor([0, 0, 1, 1, 2, 2, 3, 4])),
        "relation": lambda z: P.relation_loss(z.flatten(), torch.arange(32) % 3 == 0),
        "sla": lambda z: P.sla_loss(z, torch.zeros(2, dtype=torch.int64)),
        "aggregate": P.aggregate,
        "distil": lambda z: P.self_distillation(z, torch.ones_like(z), torch.arange(8) % 4),
        "codes": lambda z: P.soft_codes(z, torch.eye(4, dtype=torch.float64))[0],
        "bow": lambda z: P.bow_loss(z, torch.full((2, 4), 0.25, dtype=torch.float64)),
    }[name]
    assert torch.autograd.gradcheck(loss, (z,))


@pytest.mark.parametrize("loss", [P.rotation_loss, lambda z: P.cluster_loss(z, torch.arange(8) // 2)])
def test_half_precision_is_computed_in_single(loss):
    z = draw(8, 4).bfloat16()
    assert loss(z).dtype == torch.float32 and float(loss(z)) == pytest.approx(float(loss(z.float())))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: P.rotation_loss(torch.zeros(6, 4)), "scores"),
        (lambda: P.cluster_loss(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long)), "z"),
        (lambda: P.cluster_loss(torch.zeros(4, 4), torch.zeros(3, dtype=torch.long)), "source"),
        (lambda: P.cluster_loss(torch.zeros(4, 4), torch.zeros(4, dtype=torch.long), 0.0), "tau"),
        (lambda: P.relation_pairs(1, 2), "m and k"),
        (lambda: P.relation_loss(torch.zeros(0), torch.zeros(0, dtype=torch.bool)), "scores"),
        (lambda: P.relation_loss(torch.zeros(3), torch.zeros(2, dtype=torch.bool)), "same"),
        (lambda: P.relation_loss(torch.zeros(3), torch.zeros(3, dtype=torch.bool), -1.0), "gamma"),
        (lambda: P.sla_loss(torch.zeros(8, 6), torch.zeros(2, dtype=torch.long)), "scores"),
        (lambda: P.aggregate(torch.zeros(8, 6)), "copies"),
        (lambda: P.soft_codes(torch.zeros(2, 3), torch.zeros(2, 4)), "words"),
        (lambda: P.soft_codes(torch.zeros(2, 3), torch.zeros(2, 3), 0.0), "sharpness"),
        (lambda: P.bow_loss(torch.zeros(5, 3), torch.zeros(2, 3)), "target"),
        (lambda: P.quadrants(torch.zeros(1, 3, 8, 8), 0.7), "cross"),
        (lambda: P.montage(torch.zeros(6, 3, 8, 8)), "patches"),
        (lambda: P.BlockNet().maps(torch.zeros(1, 3, 20, 16)), "multiples of 16"),
        (lambda: P.Block(P.BlockNet(), 5), "number"),
        (lambda: P.Relational(P.BlockNet(), "cosine"), "head"),
        (lambda: P.OBoW(P.BlockNet(), momentum=1.5), "momentum"),
    ],
)
def test_what_cannot_be_is_refused(call, name):
    with pytest.raises(ValueError, match=name):
        call()


@pytest.mark.parametrize("method, copies", [(P.RotNet, 1), (P.JigClu, 4), (P.Relational, 3), (P.OBoW, 3)])
def test_each_method_trains_its_encoder_from_a_batch(method, copies):
    torch.manual_seed(0)
    model = method(P.BlockNet(8)).train()
    model(pictures(4 * copies), torch.arange(4)).backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_classifiers_see_labels_by_index():
    labels, views, index = torch.tensor([0, 1, 2, 0, 1, 2]), pictures(8), torch.tensor([4, 1])
    torch.manual_seed(0)
    encoder = P.BlockNet(8)
    models = [P.Classifier(encoder, labels, 3), P.Classifier(encoder, labels, 3, True), P.SLA(encoder, labels, 3),
              P.SLA(encoder, labels, 3, distil=1.0), P.TwoHeads(encoder, labels, 3, P.turn_cell, 16)]  # fmt: skip
    for model in models:
        assert torch.isfinite(model(views, index))
    sla = models[2].eval()
    with torch.no_grad():
        assert torch.allclose(sla.single(views), sla.joint(encoder(views))[:, [0, 4, 8]])
        each = [sla.joint(encoder(torch.rot90(views, v, (2, 3))))[:, v::4] for v in range(4)]
        assert torch.allclose(sla.aggregated(views), sum(each) / 4, atol=1e-6)


@pytest.mark.bad_input
def test_one_image_works_or_is_refused_for_its_reason():
    one, index = pictures(4), torch.arange(1)
    for method in (P.RotNet, P.JigClu):
        views = pictures(1) if method is P.RotNet else one  # four turns, or four patches, of one image
        assert method(P.BlockNet(8)).train()(views, index).isfinite()
    with pytest.raises(ValueError, match="m and k must be at least 2: images to tell apart"):
        P.Relational(P.BlockNet(8)).train()(one, index)
    with pytest.raises(ValueError, match=r"more than one image of 16×16 in training, got shape \(1, 3, 16, 16\)"):
        P.OBoW(P.BlockNet(8)).train()(one, index)
    with pytest.raises(ValueError, match=r"x must be images \(n, c, h, w\), got shape \(3, 16, 16\)"):
        P.BlockNet(8).maps(one[0])
    with pytest.raises(ValueError, match=r"patches must come in fours, got shape \(3, 3, 16, 16\)"):
        P.montage(one[:3])
