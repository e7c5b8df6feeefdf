"""Encoders and heads."""

import pytest
import torch

from labcode import nets


def test_resnet18_has_the_known_size_and_shape():
    net = nets.ResNet18()
    assert (
        sum(p.numel() for p in net.parameters()) == 11_168_832
    )  # torchvision's 11,689,512 less its stem and classifier, with a 3×3 stem
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 512) and net.features == 512


def test_resnet18_is_torchvisions_with_another_stem():
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=10)
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = theirs.fc = torch.nn.Identity()
    ours = nets.ResNet18()
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert a.shape == b.shape
            b.copy_(a)
    x = torch.rand(4, 3, 32, 32)
    assert torch.allclose(ours.eval()(x), theirs.eval()((x - 0.47) / 0.25), atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_smallnet(norm):
    net = nets.SmallNet(norm=norm)
    assert net(torch.rand(3, 3, 8, 8)).shape == (3, 256)
    x = torch.rand(6, 3, 8, 8)
    alone = torch.cat([net(x[:3]), net(x[3:])])
    assert torch.allclose(net(x), alone, atol=1e-5) == (norm == "group")  # only GroupNorm keeps images apart


def test_mlp_layers():
    net = nets.mlp([8, 16, 4])
    assert [type(m).__name__ for m in net] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert net(torch.rand(5, 8)).shape == (5, 4)
    out = nets.mlp([8, 4], last_norm=True)(torch.rand(50, 8))
    assert out.mean(0).abs().max() < 1e-5


def test_bad_arguments_are_named():
    for make, words in ((lambda: nets.mlp([3]), "widths"), (lambda: nets.SmallNet(norm="x"), "norm"),
                        (lambda: nets.SmallNet(size=6), "size")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            make()
