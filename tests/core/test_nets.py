"""Encoders and heads."""

import pytest
import torch
import torch.nn.functional as F

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


def test_smallnet_is_two_strided_convolutions_and_a_linear_layer():
    """The same weights in torch's convolutions give the same features."""
    net = nets.SmallNet(size=12).eval()
    x = torch.rand(5, 3, 12, 12)
    with torch.no_grad():
        y = F.conv2d(F.pad(x - 0.5, (1, 1, 1, 1)), net.conv1.weight.view(64, 3, 4, 4), stride=2)
        y = F.gelu(net.norm1(y.flatten(2).transpose(1, 2).reshape(-1, 64))).view(5, 6, 6, 64).permute(0, 3, 1, 2)
        y = F.conv2d(y, net.conv2.weight.view(96, 2, 2, 64).permute(0, 3, 1, 2), stride=2)
        y = F.gelu(net.norm2(y.flatten(2).transpose(1, 2).reshape(-1, 96))).view(5, -1)
        assert torch.allclose(net(x), F.gelu(net.norm3(net.linear(y))), atol=1e-5)
    assert net(x).shape == (5, 256) and net.features == 256


def test_mlp_layers():
    net = nets.mlp([8, 16, 4])
    assert [type(m).__name__ for m in net] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert net(torch.rand(5, 8)).shape == (5, 4)
    out = nets.mlp([8, 4], last_norm=True)(torch.rand(50, 8))
    assert out.mean(0).abs().max() < 1e-5


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="widths"):
        nets.mlp([3])
    with pytest.raises(ValueError, match="size"):
        nets.SmallNet(size=6)
