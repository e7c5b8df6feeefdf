"""Encoders that can be read after every block."""

import torch
from self_supervision.pretext.helpers import pictures
from torch import nn

from labcode import nets
from labcode.self_supervision import pretext as P


def test_block_net_is_its_convolutions():
    torch.manual_seed(0)
    net, x = P.BlockNet(8, tail=1).eval(), pictures(2, 32)
    y = x - 0.5
    for i, (conv, norm) in enumerate(zip(net.convs, net.norms, strict=True)):
        out, side = len(conv.weight), (4 if i == 0 else 2 if i < 4 else 1)
        weight = conv.weight.view(out, side, side, -1).permute(0, 3, 1, 2)
        y = nn.functional.conv2d(y, weight, stride=(2 if i < 4 else 1), padding=int(i == 0))
        y = nn.functional.gelu((y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt())
        assert torch.allclose(net.maps(x)[i], y, atol=1e-4)
    assert net(x).shape == (2, net.features)


def test_residual_tail_adds_its_input():
    torch.manual_seed(0)
    net = P.BlockNet(8, tail=2, residual=True).eval()
    for conv in net.convs[4:]:
        nn.init.zeros_(conv.weight)
    maps = net.maps(pictures())
    assert torch.allclose(maps[5], maps[3])


def test_staged_resnet_is_resnet_18():
    torch.manual_seed(0)
    mine = P.StagedResNet(8).eval()
    torch.manual_seed(0)
    assert torch.allclose(mine(pictures(2, 32)), nets.ResNet18(8).eval()(pictures(2, 32)))
    assert torch.allclose(mine.maps(pictures(2, 32))[-1].mean((2, 3)), mine(pictures(2, 32)), atol=1e-6)
    plain = P.StagedResNet(8, residual=False).eval()
    assert torch.isfinite(plain(pictures(2, 32))).all()
