"""What the tests of this chapter share."""

import torch


def gen(seed=0):
    return torch.Generator().manual_seed(seed)
