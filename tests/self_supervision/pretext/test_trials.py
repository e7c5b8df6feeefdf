"""What LoRot's classifiers are tried with, against loops and closed forms."""

from itertools import permutations

import pytest
import torch
from self_supervision.pretext.helpers import draw, log_softmax, pictures
from torch import nn

from labcode.self_supervision import pretext as P


class Pixels(nn.Module):
    """The image as it is, a row: an encoder whose gradients are known."""

    features = 48

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * x.flatten(1)


def classifier(n=4, classes=3, turned=False):
    torch.manual_seed(0)
    return P.Classifier(Pixels(), torch.arange(n) % classes, classes, turned)


def test_each_order_of_the_quarters_has_its_label():
    x = pictures(24, 6)
    found, label = P.shuffle_quarters(x, torch.arange(24))
    assert label.tolist() == list(range(24)) and torch.equal(found[0], x[0]), "order 0 changes nothing"
    corner = [(0, 0), (0, 3), (3, 0), (3, 3)]
    for i, order in enumerate(permutations(range(4))):
        for place, quarter in enumerate(order):
            (a, b), (c, d) = corner[place], corner[quarter]
            assert torch.equal(found[i, :, a : a + 3, b : b + 3], x[i, :, c : c + 3, d : d + 3])
    torch.manual_seed(0)
    assert len(set(P.shuffle_quarters(pictures(400, 4))[1].tolist())) == 24


def test_diversity_is_a_ratio_of_cross_entropies():
    plain, taught, x, y = classifier(), classifier(), pictures(4, 4), torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        taught.head.weight.mul_(3)

    def entropy(model, images):
        scores = model.scores(images).tolist()
        return -sum(log_softmax(row)[c] for row, c in zip(scores, y.tolist(), strict=True)) / 4

    upside_down = lambda x: (x.flip(2), None)  # noqa: E731
    assert P.class_loss(plain, x, y) == pytest.approx(entropy(plain, x), rel=1e-5)
    found = P.diversity(taught, plain, x, y, upside_down)
    assert found == pytest.approx(entropy(taught, x.flip(2)) / entropy(plain, x), rel=1e-5)
    assert P.diversity(plain, plain, x, y) == 1


def test_an_attack_on_a_linear_model_goes_to_the_corner_of_its_box():
    """Two classes, w·x: the loss of class 0 grows with the sign of the difference of weights, to the box's edge."""
    weight, x, size = draw(2, 48), pictures(3, 4).double(), 0.03
    y, scores = torch.tensor([0, 1, 0]), lambda x: x.flatten(1) @ weight.T
    found = P.attacked(scores, x, y, size)
    up = (weight[1] - weight[0]).sign().view(1, 3, 4, 4) * torch.tensor([1, -1, 1]).view(3, 1, 1, 1)
    assert torch.allclose(found, (x + size * up).clamp(0, 1), atol=1e-12)
    assert torch.equal(P.attacked(scores, x, y, 0.0), x) and not found.requires_grad
    one = P.attacked(scores, x, y, size, steps=1)
    assert float((one - x).abs().max()) <= size + 1e-12, "the first step is longer than the box, and is brought back"


def test_an_attack_leaves_the_network_alone():
    model, x, y = classifier(), pictures(4, 4), torch.tensor([0, 1, 2, 0])
    moved = P.attacked(model.scores, x, y, 0.1)
    assert P.class_loss(model, moved, y) > P.class_loss(model, x, y)
    assert all(p.grad is None for p in model.parameters())


def test_a_step_costs_the_images_that_the_encoder_reads():
    x, index = pictures(4, 4), torch.arange(4)
    normed = P.BlockNet(8)
    torch.manual_seed(3)
    before, state = {k: v.clone() for k, v in normed.state_dict().items()}, torch.get_rng_state()
    part = P.TwoHeads(normed, torch.zeros(4, dtype=torch.long), 3, P.turn_patch, 4).eval()
    state = torch.get_rng_state()
    rows, seconds = P.step_cost(part, pictures(4, 16), index)
    assert rows == 4 and 0 < seconds < 10 and not part.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in normed.state_dict().items()), "statistics are left as they were"
    assert all(p.grad is None for p in part.parameters())
    assert P.step_cost(P.RotNet(Pixels()), x, index)[0] == 16
    assert P.step_cost(P.SLA(Pixels(), torch.zeros(4, dtype=torch.long), 3), x.repeat(4, 1, 1, 1), index)[0] == 16


@pytest.mark.bad_input
def test_orders_and_attacks_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="label must lie in 0 … 23"):
        P.shuffle_quarters(pictures(2, 4), torch.tensor([0, 24]))
    with pytest.raises(ValueError, match="size must be at least 0 and steps at least 1, got -1 and 5"):
        P.attacked(lambda x: x.flatten(1), pictures(2, 4), torch.zeros(2, dtype=torch.long), -1)
