"""What would go wrong on a GPU, found without one: tests/accelerator.py is a second device that refuses to mix."""

from types import SimpleNamespace

import accelerator
import pytest
import torch
from torch import nn

from labcode import augment, data
from labcode.course import run, stage
from labcode.self_supervision.contrastive import SimCLR


def test_the_device_refuses_what_a_gpu_refuses():
    with accelerator.accelerator() as waits:
        x = torch.randn(4, 3, device="gpu", requires_grad=True)
        net = nn.Linear(3, 2).to("gpu")
        net(x).sum().backward()
        assert x.grad.device.type == net.weight.grad.device.type == "gpu"
        assert waits.total() == 2  # weight and bias came over
        with pytest.raises(RuntimeError, match="two devices"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="two devices"):
            nn.functional.cross_entropy(net(x), torch.zeros(4, dtype=torch.long))
        with pytest.raises(TypeError, match="numpy"):
            x.detach().numpy()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device="gpu", generator=torch.Generator())
        waits.clear()
        y = x.detach()
        host = torch.tensor([1])
        _ = float(y.sum()), y.cpu(), y.tolist(), y.nonzero(), y[y > 0], y[host], torch.tensor([1], device="gpu")
        assert waits.total() == 7
    assert torch.Generator().device.type == "cpu"


@pytest.fixture
def there(monkeypatch):
    """The stage at full scale on the device, with a made-up benchmark and three steps; and what waited."""
    monkeypatch.setenv("LABCODE_SCALE", "full")
    monkeypatch.setattr(stage.nets, "ResNet18", stage.nets.SmallNet)
    monkeypatch.setattr(stage, "FULL", stage.Budget(3, 32, 0.1, "sgd", 0.0))
    with accelerator.accelerator() as waits, accelerator.runs_on_it():
        x = torch.randint(256, (256, 3, 8, 8), dtype=torch.uint8, device="gpu")
        y = torch.arange(256, device="gpu") % 10
        made = SimpleNamespace(train_images=x, train_labels=y, test_images=x, test_labels=y, source="made up")
        monkeypatch.setattr(data, "benchmark", lambda name, device: made)
        yield stage.Stage(run.start("p/c")), waits


def test_a_training_step_of_the_stage_waits_for_nothing(there):
    """Views, forward, loss, backward and optimiser; evaluation may wait."""
    found, waits = there
    model = found.pretrain("SimCLR", SimCLR, 0, checkpoint=None)
    assert not [w for w in waits if "in a step" in w] and torch.isfinite(model.history.losses).all()
    assert 0 <= found.knn(model.encoder) <= 1 and 0 <= found.probe(model.encoder) <= 1

    def turned(x, generator):
        return augment.affine(augment.to_float(x).repeat(2, 1, 1, 1), 10.0, 0.1, generator=generator)

    found.pretrain("an affine view", SimCLR, 0, views=turned, checkpoint=None)
    assert not [w for w in waits if "in a step" in w]

    def looks(x, generator):
        return augment.simclr_views(x, generator) * float(x.float().mean())

    found.pretrain("a view that looks", SimCLR, 0, views=looks, checkpoint=None)
    assert [w for w in waits if "in a step" in w]
