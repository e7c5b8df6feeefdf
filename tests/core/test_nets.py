"""Encoders and heads."""

import io
import subprocess
import sys
import warnings

import jaxtyping
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
    ours = nets.estimate_statistics(nets.ResNet18(), [torch.rand(8, 3, 32, 32)])
    x = torch.rand(4, 3, 32, 32)
    for state, prefix in ((ours.state_dict(), ""), (torch.nn.ModuleDict({"encoder": ours}).state_dict(), "encoder.")):
        torch.nn.init.zeros_(theirs.conv1.weight)
        theirs.load_state_dict(nets.to_torchvision(state, prefix))  # strict: every name is theirs, and none is missing
        torch.testing.assert_close(ours(x), theirs.eval()((x - 0.47) / 0.25), rtol=1e-5, atol=1e-5)
    for wrong, prefix in ((nets.SmallNet().state_dict(), ""), (ours.state_dict(), "encoder."), ({}, "")):
        with pytest.raises(ValueError, match="state must hold a ResNet18"):
            nets.to_torchvision(wrong, prefix)


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


# Exports

EXPORTED = {
    "SmallNet": (nets.SmallNet, (3, 8, 8)),
    "SmallNet, 12×12": (lambda: nets.SmallNet(size=12), (3, 12, 12)),
    "ResNet18": (lambda: nets.ResNet18(16), (3, 16, 16)),
    "mlp": (lambda: nets.mlp([8, 16, 4]), (8,)),
    "ViT": (lambda: nets.ViT((8, 8), (4, 4), cls=True), (3, 8, 8)),
}


@pytest.fixture(params=EXPORTED)
def exported(request):
    """A net in evaluation mode, the input it is exported with, and another one of another batch size."""
    jaxtyping.config.update("jaxtyping_disable", True)  # in a trace a size is a tensor
    torch.manual_seed(0)
    make, shape = EXPORTED[request.param]
    return make().eval(), torch.rand(4, *shape), torch.rand(7, *shape)


def test_torch_export_holds_for_other_batches(exported):
    net, x, other = exported
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(program.module()(other), net(other))


def test_a_trace_holds_for_other_batches(exported):
    net, x, other = exported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(torch.jit.trace(net, x)(other), net(other))


@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_holds_for_other_batches(exported, dynamo, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net, x, other = exported
    how = dict(dynamic_shapes=({0: torch.export.Dim("n")},)) if dynamo else dict(dynamic_axes={"x": {0: "n"}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(tmp_path / "net.onnx"), input_names=["x"], dynamo=dynamo, verbose=False, **how)
    found = runtime.InferenceSession(tmp_path / "net.onnx").run(None, {"x": other.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), net(other), rtol=1e-4, atol=1e-5)


def test_a_saved_net_is_itself_again():
    net = nets.SmallNet().eval()
    kept = io.BytesIO()
    torch.save(net.state_dict(), kept)
    kept.seek(0)
    other = nets.SmallNet().eval()
    other.load_state_dict(torch.load(kept, weights_only=True))
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(net(x), other(x))


# Memory

NARROW = """if True:
    import copy, sys, warnings, torch
    from labcode import nets
    warnings.simplefilter("error" if int(sys.argv[1]) == 16 else "ignore")
    torch.manual_seed(0)
    net = nets.ResNet18(int(sys.argv[1]))
    exact, x = copy.deepcopy(net).double(), torch.rand(6, 3, 16, 16)
    layout = nets.memory_layout(net, "cpu")
    assert layout == (torch.channels_last if int(sys.argv[1]) == 16 else torch.contiguous_format)
    net.to(memory_format=layout)
    for _ in range(3):
        for model, images in ((net, x.contiguous(memory_format=layout)), (exact, x.double())):
            model.zero_grad()
            model(images).square().sum().backward()
    for (name, a), b in zip(net.named_parameters(), exact.parameters()):
        error = (a.grad - b.grad).norm() / b.grad.norm()
        assert error < 1e-3, (name, float(error))
    print("right")
"""


@pytest.mark.parametrize("width", [2, 8, 16])
def test_gradients_of_narrow_nets_are_right_in_their_memory_layout(width):
    """In a process of its own: in channels last, width 2 writes outside its memory on a CPU without AVX-512."""
    found = subprocess.run([sys.executable, "-c", NARROW, str(width)], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0 and found.stdout == "right\n", (found.returncode, found.stderr[-800:])


def test_memory_layout_tells_of_the_convolution_that_is_too_narrow():
    with pytest.warns(UserWarning, match=r"stages.2.short.0 is a strided 1×1 convolution of 8 channels"):
        assert nets.memory_layout(nets.ResNet18(8), "cpu") == torch.contiguous_format
    conv = torch.nn.Conv2d
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer, device in (
            (conv(3, 8, 3, 2), "cpu"), (conv(3, 8, 1), "cpu"), (conv(16, 8, 1, 2), "cpu"), (nets.SmallNet(), "cpu"),
            (nets.ResNet18(2), "cuda"), (torch.nn.Linear(2, 2), torch.device("cpu")),
        ):  # fmt: skip
            assert nets.memory_layout(layer, device) == torch.channels_last
    with pytest.warns(UserWarning, match="a strided 1×1 convolution of 4 channels"):
        assert nets.memory_layout(torch.nn.ConvTranspose2d(32, 4, 1, 2), "cpu") == torch.contiguous_format
    with pytest.warns(UserWarning, match="Conv2d is a strided"):
        assert nets.memory_layout(conv(32, 32, 1, 2, groups=4), "cpu") == torch.contiguous_format


def test_evaluating_restores_every_modules_mode():
    net = nets.mlp([4, 8, 2])
    net[1].eval()
    with pytest.raises(RuntimeError), nets.evaluating(net) as inside:
        assert inside is net and not any(m.training for m in net.modules()) and not torch.is_grad_enabled()
        raise RuntimeError
    assert [m.training for m in net] == [True, False, True, True] and torch.is_grad_enabled()
