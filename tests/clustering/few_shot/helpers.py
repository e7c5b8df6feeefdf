"""A small batch of tasks in float64."""

import torch

from labcode.clustering import few_shot as F


def tasks(seed=0, shots=2, queries=12, ways=3, d=4, count=4, spread=1.5, **options):
    g = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(6, 1, d, generator=g, dtype=torch.float64) + torch.randn(
        6, 20, d, generator=g, dtype=torch.float64
    )
    return F.draw_tasks(z, count, g, ways=ways, shots=shots, queries=queries, **options)
