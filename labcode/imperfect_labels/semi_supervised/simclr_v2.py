"""SimCLRv2: pre-train a big network without labels, fine-tune it from inside its head, distil it without labels."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...loss import check_positive, raised, unit_rows
from ...nets.stacked import StackedLinear, StackedMLP, StackedNorm
from ..training import train
from .stage import LR, Batch, Labels, ResNets, Stage, learn, supervised

ENCODER = 2  # hidden layers of the perceptron that are the encoder; the others are the head's
A_LAYER = 3  # modules of a layer: linear, BatchNorm, ReLU


def nt_xent(z: Float[Tensor, "n b d"], tau: float = 0.2) -> Float[Tensor, " n"]:
    """SimCLR's loss of each network of a stack (Chen et al. 2020, equation 1).

    z    rows i and i + b / 2 of a network are two views of one image, of 2 images at least
    tau  0.1 in SimCLRv2, whose batches are forty times as large

    Arithmetic is float32 at least. Raises ValueError for an odd number of rows and a tau that is not positive.
    """
    check_positive(tau=tau)
    n, rows, _ = z.shape
    if rows % 2 or rows < 4:
        raise ValueError(f"z must have two views of 2 images at least, got {tuple(z.shape)}")
    z = unit_rows(raised(z))
    logits = (z @ z.mT / tau).masked_fill(torch.eye(rows, dtype=torch.bool, device=z.device), -torch.inf)
    other = torch.arange(rows, device=z.device).roll(rows // 2).expand(n, rows)
    return F.cross_entropy(logits.flatten(0, 1), other.flatten(), reduction="none").view(n, rows).mean(1)


class _Deep(nn.Module):
    """ResNets and layers of a head, for full scale; ``layers`` is what ``StackedMLP.body`` holds beyond the encoder."""

    def __init__(self, nets: ResNets, layers: nn.Module):
        super().__init__()
        self.nets, self.layers = nets, layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.nets.features(x))


class Pretrained(nn.Module):
    """One network with its projection head, in pieces: encoder, the head's hidden layers, its last layer.

    width   of the encoder's hidden layers, and of the head's; at full scale of a ResNet's first stage
    layers  of the head, 2 at least (SimCLR's 2, SimCLRv2's 3); the last has 64 outputs
    """

    def __init__(self, stage: Stage, width: int, layers: int, seed: int):
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers must be at least 2, got {layers}")
        g = stage.generator(seed, 60)
        self.photos = stage.channels == 3
        if self.photos:
            self.nets = ResNets(1, 1, width, generator=g)
            self.head = StackedMLP(1, [self.nets.width] * layers + [128], generator=g)
            self.body = self.head.body
        else:
            self.head = stage.net(1, 64, (width,) * (ENCODER + layers - 1), generator=g)
            self.body = self.head.body

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "1 b o"]:
        return self.head(self.nets.features(x) if self.photos else x)

    def upto(self, layer: int) -> tuple[nn.Module, int]:
        """The encoder and the first ``layer`` layers of the head, and their width. Raises ValueError for a layer that
        the head has not."""
        skipped = 0 if self.photos else ENCODER
        have = len(self.body) // A_LAYER - skipped
        if not 0 <= layer <= have:
            raise ValueError(f"layer must be in 0 … {have}, got {layer}")
        kept = self.body[: A_LAYER * (skipped + layer)]
        width = self.nets.width if self.photos else kept[A_LAYER * (ENCODER - 1)].outputs
        return (_Deep(self.nets, kept) if self.photos else kept), width


def pretrain(
    stage: Stage, width: int, seed: int, *, steps: int, layers: int = 3, pairs: int = 96, tau: float = 0.2,
    lr: float = LR,
) -> Pretrained:  # fmt: skip
    """Step one: NT-Xent on two strong views of unlabelled images. Departures: AdamW for LARS, no queue of negatives."""
    net, g, x = Pretrained(stage, width, layers, seed), stage.generator(seed, 61), stage.pool.x

    def loss(step: int) -> Tensor:
        rows = x[torch.randint(len(x), (pairs,), generator=g, device=g.device)]
        return nt_xent(net(torch.cat([stage.strong(rows, g), stage.strong(rows, g)])), tau).sum()

    train(net, loss, steps, lr=lr)
    return net


def copies(module: nn.Module, n: int) -> nn.Module:
    """A stack of one network as a stack of n equal ones: parameters and statistics repeated along the first axis."""
    made = copy.deepcopy(module)
    for part in made.modules():
        if isinstance(part, ResNets):
            part.body = nn.ModuleList(copy.deepcopy(part.body[0]) for _ in range(n))
            part.n = n
        elif isinstance(part, (StackedLinear, StackedNorm)):
            part.n = n
            for name, value in list(part.named_parameters(recurse=False)):
                setattr(part, name, nn.Parameter(value.detach().repeat_interleave(n, 0)))
            for name, value in list(part.named_buffers(recurse=False)):
                part.register_buffer(name, value.repeat_interleave(n, 0))
    return made


class Tuned(nn.Module):
    """n copies of pre-trained layers under new linear classifiers that begin at zero.

    pretrained  what step one made
    layer       of its head that is the last one kept: 0 is the encoder's output, 1 what SimCLRv2 fine-tunes from
    frozen      the layers stay as they are, in evaluation mode: a linear evaluation
    """

    def __init__(self, pretrained: Pretrained, layer: int, n: int, outputs: int = 10, frozen: bool = False):
        super().__init__()
        self.frozen = frozen
        kept, width = pretrained.upto(layer)
        self.body = copies(kept, n)
        g = torch.Generator(next(kept.parameters()).device).manual_seed(0)
        self.head = StackedLinear(n, width, outputs, generator=g)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.body.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "Tuned":
        super().train(mode)
        self.body.train(mode and not self.frozen)
        return self

    def features(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b f"]:
        return self.body(x)

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b k"]:
        return self.head(self.body(x))


def fine_tune(
    stage: Stage, pretrained: Pretrained, labels: Labels, seed: int, *, steps: int, layer: int = 1, lr: float = LR,
    frozen: bool = False,
) -> Tuned:  # fmt: skip
    """Step two: a copy for each set of labels, trained by cross-entropy on its few images, all layers or (``frozen``)
    the classifier alone."""
    net = Tuned(pretrained, layer, len(labels), stage.classes, frozen)
    return learn(stage, labels, supervised, seed, steps=steps, lr=lr, net=net, unlabelled=1)


def distillation(
    student: Float[Tensor, "n b k"], teacher: Float[Tensor, "m c j"], tau: float = 1.0
) -> Float[Tensor, " n"]:
    """Step three's loss of each network (Chen et al. 2020b, equation 2): -Σ_y P_T(y | x; τ) log P_S(y | x; τ), mean
    over b. The teacher has no gradient.

    tau  of both softmaxes, > 0

    Half precision is computed in float32. Raises ValueError for logits that do not fit and a tau that is not positive.
    """
    check_positive(tau=tau)
    if student.shape != teacher.shape or student.ndim != 3:
        raise ValueError(f"teacher must be (n, b, k) as student is, got {tuple(teacher.shape)}, {tuple(student.shape)}")
    told = (raised(teacher).detach() / tau).softmax(-1)
    return -(told * (raised(student) / tau).log_softmax(-1)).sum(-1).mean(1)


def distil(
    stage: Stage, teacher: nn.Module, student: nn.Module, labels: Labels, seed: int, *, steps: int, own: bool = False,
    tau: float = 1.0, lr: float = LR, images: int = 64,
) -> nn.Module:  # fmt: skip
    """Step three: the student stack learns the teacher stack's soft predictions of unlabelled images, half in weak and
    half in strong views; the student is trained in place.

    own  of the labelled images alone: the control that says what the unlabelled ones add
    """
    teacher.eval()

    def method(net: nn.Module, batch: Batch) -> Tensor:
        seen = batch.stage.both(batch.x if own else batch.u, batch.g)
        with torch.no_grad():
            told = teacher(seen)
        return distillation(net(seen), told, tau).sum()

    sizes = dict(batch=images, unlabelled=1) if own else dict(batch=1, unlabelled=images)
    return learn(stage, labels, method, seed, steps=steps, net=student, lr=lr, **sizes)
