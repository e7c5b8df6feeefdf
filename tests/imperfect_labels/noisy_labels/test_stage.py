"""The stage: images a seed, orders of a stack, learning, and the arms' independence."""

import pytest
import torch

import labcode as lab
from labcode.imperfect_labels import noisy_labels as N
from labcode.imperfect_labels.training import cross_entropy


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setenv("LABCODE_SCALE", "quick")
    return N.Stage(lab.start("imperfect_labels/noisy_labels"), count=100)


def test_images_of_a_seed(stage):
    a, b, c = stage.images(0), stage.images(0), stage.images(1)
    assert torch.equal(a.x, b.x) and not torch.equal(a.x, c.x)
    assert a.x.shape == (100, 196) and len(a.y) == 100
    assert stage.views(a.x[None], stage.generator(0)).shape == (1, 100, 196)


def test_every_sample_once_an_epoch_and_streams_shared(stage):
    net, seen = stage.net(4, generator=stage.generator(1)), []

    def loss(rows, epoch):
        seen.append((epoch, rows))
        return cross_entropy(net(stage.pool.x[rows]), stage.pool.y[rows])

    ends = []
    N.learn(net, loss, 96, networks=4, epochs=2, generator=stage.generator(2), batch=32, streams=2, after=ends.append)
    assert ends == [0, 1] and len(seen) == 6
    for epoch in (0, 1):
        rows = torch.cat([r for e, r in seen if e == epoch], 1)
        assert all(sorted(row.tolist()) == list(range(96)) for row in rows)
        assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])


def test_resnets_have_the_same_face():
    net = N.ResNets(2, 3, generator=torch.Generator().manual_seed(0), same=True)
    net.eval()
    with torch.no_grad():
        out = net(torch.rand(2, 3072, generator=torch.Generator().manual_seed(1)))
    assert out.shape == (2, 2, 3) and torch.allclose(out[0], out[1], atol=1e-5)


def test_web_set(stage):
    images, made = N.web_set(stage, 0, 0.4, 0.2)
    assert len(images.y) == 100 and int(made.foreign[0].sum()) == 40
    assert bool((images.y[60:] == -1).all()) and made.labels.shape == (1, 100)
