"""Which images a step sees: a pure function of the step, so a resumed run sees what it would have seen."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def mixed_seed(*numbers: int) -> int:
    """One 32-bit seed from several non-negative numbers; other numbers, or another order, give another one.

    torch's CPU generator looks at the lowest 32 bits of a seed only, so numbers must not be shifted together.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def shuffled(n: int, batch_size: int, seed: int = 0, device="cpu") -> Callable[[int], Tensor]:
    """Indices of a shuffled epoch after another, as a function ``step -> (batch_size,) int64``.

    Every epoch is its own permutation of 0 … n-1; the last incomplete batch of an epoch is dropped.

    n           number of images
    batch_size  1 … n
    seed        same seed, same batches

    Raises ValueError for a batch_size outside 1 … n.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the {n} images, got {batch_size}")
    per_epoch = n // batch_size
    held: dict[int, Tensor] = {}

    def batch(step: int) -> Tensor:
        epoch, i = divmod(step, per_epoch)
        if epoch not in held:
            held.clear()
            generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
            held[epoch] = torch.randperm(n, generator=generator).to(device)
        return held[epoch][i * batch_size : (i + 1) * batch_size]

    return batch
