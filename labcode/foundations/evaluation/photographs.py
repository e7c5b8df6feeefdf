"""Grey patches of nine photographs: the speed-run's CIFAR at quick scale."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...data.batches import mixed_seed
from ...data.synthetic import TEXTURES, textures


def photo_patches(
    n: int, seed: int = 0, split: str = "train", size: int = 12, side: int = 256
) -> tuple[Float[Tensor, "n 1 s s"], Int[Tensor, " n"]]:
    """Grey patches of nine photographs and textures; the class is the photograph. The quick scale's CIFAR.

    Every photograph is cut into 8×8 blocks, and a patch lies in one block. Each split has blocks of its own, the same
    for every seed: no pixel of a test patch is in a training patch. Half of the patches, chosen once by the seed, are
    mirrored: as among photographs of things, left and right carry no information. Each has mean 0.5 and standard
    deviation 0.25, nearly; what lies outside [0, 1] is kept.

    n, seed  number of patches, and the draw
    split    "train", "test", or the two parts of "train" that choices are made on, "fit" and "validation"
    size     of a patch, at most side / 8; ``side`` of a photograph, both in pixels

    Raises ValueError for an unknown split, n < 1 or a size that does not fit.
    """
    splits = {"train": (0, 40), "fit": (0, 30), "validation": (30, 40), "test": (40, 64)}
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    block = side // 8
    if not 1 <= size <= block:
        raise ValueError(f"size must be in 1 … {block}, a block's side, got {size}")
    g = Generator().manual_seed(mixed_seed(seed, list(splits).index(split)))
    classes = len(TEXTURES)
    labels = torch.arange(n) % classes
    low, high = splits[split]
    blocks = torch.stack([torch.randperm(64, generator=Generator().manual_seed(c)) for c in range(classes)])
    chosen = blocks[labels, torch.randint(low, high, (n,), generator=g)]
    corner = torch.stack([chosen // 8, chosen % 8], 1) * block + torch.randint(block - size + 1, (n, 2), generator=g)
    flipped = torch.zeros(n, dtype=torch.bool).scatter_(0, torch.randperm(n, generator=g)[: n // 2], True)
    line = torch.arange(size)
    rows = corner[:, :1] + line
    columns = corner[:, 1:] + torch.where(flipped[:, None], size - 1 - line, line)
    patches = textures(side)[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    mean, std = patches.mean((1, 2), keepdim=True), patches.std((1, 2), keepdim=True)
    return (0.5 + 0.25 * (patches - mean) / (std + 0.05))[:, None], labels
