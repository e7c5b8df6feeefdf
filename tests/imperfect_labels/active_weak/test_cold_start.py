"""The data map and the first choice against loops; contrastive training against its own log."""

import pytest
import torch

from labcode.imperfect_labels import active_weak as A


def test_instance_probability_is_the_loop_and_its_logarithm_nt_xent():
    from labcode.self_supervision.contrastive import nt_xent

    z = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = A.instance_probability(z, 0.3)
    u = z / z.norm(dim=1, keepdim=True)
    for i in range(10):
        terms = {j: float((u[i] @ u[j] / 0.3).exp()) for j in range(10) if j != i}
        assert float(got[i]) == pytest.approx(terms[(i + 5) % 10] / sum(terms.values()), rel=1e-9)
    assert float(-got.log().mean()) == pytest.approx(float(nt_xent(z, 0.3)), rel=1e-5)
    assert torch.allclose(A.instance_probability(3 * z, 0.3), got)


@pytest.mark.bad_input
def test_bad_input_is_named():
    z = torch.randn(10, 4)
    for wrong in (z[:3], z[:2]):
        with pytest.raises(ValueError, match="rows"):
            A.instance_probability(wrong)
    with pytest.raises(ValueError, match="tau"):
        A.instance_probability(z, 0.0)
    with pytest.raises(ValueError, match="log"):
        A.data_map(z[:, 0])


def test_data_map():
    log = torch.tensor([[0.1, 0.5], [0.3, 0.5]])
    confidence, variability = A.data_map(log)
    assert torch.allclose(confidence, torch.tensor([0.2, 0.5]))
    assert torch.allclose(variability, torch.tensor([0.1, 0.0]))


@pytest.mark.parametrize("order, sign", [("hard", 1), ("easy", -1)])
def test_query_goes_round_the_clusters_by_the_map(order, sign):
    g = torch.Generator().manual_seed(0)
    which = torch.arange(60) % 3
    x = 30 * torch.eye(3)[which] + torch.randn(60, 3, generator=g)
    log = torch.rand(4, 60, generator=g)
    labelled = torch.tensor([0, 1])
    chosen = A.first_choice(log, order, 3)(x, torch.full((60, 2), 0.5), labelled, 9, generator=g)
    c = log.mean(0) * sign
    for k in range(3):
        mine = [i for i in chosen.tolist() if which[i] == k]
        rows = sorted((i for i in range(60) if which[i] == k and i not in (0, 1)), key=lambda i: float(c[i]))
        assert mine == rows[:3]
    assert len(set(which[chosen[:3]].tolist())) == 3 and which[chosen[:3]].tolist() == which[chosen[3:6]].tolist()
    with pytest.raises(ValueError, match="order"):
        A.first_choice(log, "odd")


def test_training_logs_each_image_in_each_epoch_and_is_repeatable():
    images = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
    views = lambda x, generator: torch.cat([x, x]) + 0.1 * torch.randn(2 * len(x), 16, generator=generator)  # noqa: E731
    from labcode.nets import seeded

    def once():
        net = seeded(0, torch.nn.Linear, 16, 8)
        return A.contrast(images, net, 8, views, epochs=12, batch_size=16, seed=0, lr=1e-2)

    made = once()
    assert made.log.shape == (12, 40) and made.features.shape == (40, 8) and torch.isfinite(made.log).all()
    assert float(made.log.min()) > 0 and float(made.log.max()) < 1
    assert float(made.log[-1].mean()) > float(made.log[0].mean())
    assert torch.allclose(made.features.norm(dim=1), torch.ones(40), atol=1e-5) and torch.equal(once().log, made.log)


def test_coverage_and_labelled_map():
    y = torch.tensor([0, 0, 1, 2, 2])
    assert A.covered(y, torch.tensor([[0, 1], [0, 3]]), 3).tolist() == [1.0, 2.0]
    x = torch.eye(3)[torch.arange(9) % 3]
    log = A.label_map(x, torch.arange(9) % 3, 3)
    assert torch.allclose(log[0], torch.full((9,), 1 / 3)) and (log.diff(dim=0) > 0).all()
