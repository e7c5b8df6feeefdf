"""What changes at full scale: CIFAR-10 for digits, and ResNets for the bodies of stacks; rows stay rows.

Images of CIFAR-10 are rows of 3,072 numbers, colour after colour, so that all else of the chapter works as it is.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ... import augment
from ...evaluate import held_out
from ...nets import ResNet18, seeded
from ...nets.stacked import StackedCosine, StackedLinear, StackedMLP
from .. import views

COLOUR = 3 * 32 * 32


@lru_cache(1)
def cifar10(split: str) -> tuple[Tensor, Tensor]:
    """CIFAR-10 as rows in [0, 1] with labels; "fit" and "validation" part the training images, a fifth being held out.

    A dry run keeps a few.
    """
    from ...data import benchmark
    from ...train import allowed

    data = benchmark("cifar10")
    x, y = (data.test_images, data.test_labels) if split == "test" else (data.train_images, data.train_labels)
    if split in ("fit", "validation"):
        held = held_out(y, 10, 0.2, seed=0)
        x, y = (x[held], y[held]) if split == "validation" else (x[~held], y[~held])
    if allowed(10**9, False) < 10**9:
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:1000]
        x, y = x[order], y[order]
    return x.flatten(1).float() / 255, y


class StackedResNet(nn.Module):
    """n ResNet-18s on rows of colour images, with the heads of a stack: what ``StackedMLP`` is to digits.

    They take turns: at this size a network fills a GPU. ``features`` gives (n, b, 512); ``head`` is stacked, and
    without ``outputs`` there is none: the features are the output.
    """

    def __init__(
        self, n: int, outputs: int | None = None, *, generator: Generator, cosine: bool = False,
        same: bool | int = False,
    ):  # fmt: skip
        super().__init__()
        seeds = torch.randint(2**31, (int(same) or n,), generator=generator, device=generator.device).tolist()
        self.n = n
        self.body = nn.ModuleList(seeded(seeds[i % len(seeds)], ResNet18) for i in range(n)).to(generator.device)
        make = (StackedCosine if cosine else StackedLinear) if outputs else lambda *_, **__: nn.Identity()
        self.head = make(n, self.body[0].features, outputs, generator=generator, same=same)

    def features(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b f"]:
        parts = x if x.ndim == 3 else x.expand(self.n, *x.shape)
        block = len(parts[0]) if torch.is_grad_enabled() else 1000
        images = [p.unflatten(1, (3, 32, 32)).split(block) for p in parts]
        return torch.stack([torch.cat([net(i) for i in each]) for net, each in zip(self.body, images, strict=True)])

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b o"]:
        return self.head(self.features(x))


def network(n: int, widths: list[int], *, generator: Generator, cosine: bool = False, same: bool | int = False):
    """The stack for rows of ``widths[0]`` numbers: perceptrons, or for colour images ResNets."""
    if widths[0] == COLOUR:
        return StackedResNet(n, widths[-1], generator=generator, cosine=cosine, same=same)
    return StackedMLP(n, widths, generator=generator, cosine=cosine, same=same)


def adopt(found: nn.Module, net: nn.Module, which: list[int]) -> None:
    """Give the networks of a stack the weights of networks ``which`` of another one."""
    at = torch.tensor(which)
    some = lambda state: {n: v.index_select(0, at.to(v.device)) if v.ndim else v for n, v in state.items()}  # noqa: E731
    if isinstance(net, StackedResNet):
        for mine, i in zip(found.body, which, strict=True):
            mine.load_state_dict(net.body[i].state_dict())
        found.head.load_state_dict(some(net.head.state_dict()))
    else:
        found.load_state_dict(some(net.state_dict()))


def _coloured(x: Tensor, make) -> Tensor:
    return make(x.reshape(-1, 3, 32, 32)).reshape(x.shape)


def weak(x: Float[Tensor, "n b p"], *, generator: Generator) -> Float[Tensor, "n b p"]:
    """A weak view of every row: shifted by up to a pixel; colour images cropped a little and mirrored."""
    if x.shape[-1] != COLOUR:
        return views.weak(x, generator=generator)
    return _coloured(x, lambda i: augment.random_resized_crop(i, 32, (0.7, 1.0), flip_p=0.5, generator=generator))


def strong(x: Float[Tensor, "n b p"], *, generator: Generator) -> Float[Tensor, "n b p"]:
    """A strong view of every row: turned, scaled and cut; colour images by SimCLR's recipe."""
    if x.shape[-1] != COLOUR:
        return views.strong(x, generator=generator)
    return _coloured(x, lambda i: augment.simclr_views(i, generator, views=1))
