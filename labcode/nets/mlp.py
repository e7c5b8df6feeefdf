"""The perceptron that serves as projector, predictor and small encoder."""

from collections.abc import Callable

import torch
from torch import nn


def seeded(seed: int, make: Callable[..., nn.Module], *arguments, **keywords) -> nn.Module:
    """``make(*arguments, **keywords)`` with its weights drawn from the seed."""
    torch.manual_seed(seed)
    return make(*arguments, **keywords)


def mlp(widths: list[int], norm: bool = True, last_norm: bool = False, bias: bool = True) -> nn.Sequential:
    """Linear, BatchNorm, ReLU for each width; the last layer is linear alone.

    widths     [input, hidden …, output], two at least; two give a single linear layer
    norm       BatchNorm between the layers
    last_norm  a BatchNorm without parameters after the last layer

    Raises ValueError for fewer than two widths.
    """
    if len(widths) < 2:
        raise ValueError(f"widths must name an input and an output, got {widths}")
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths[:-2], widths[1:-1], strict=True):
        layers += [nn.Linear(n_in, n_out, bias=not norm)]
        layers += [nn.BatchNorm1d(n_out)] if norm else []
        layers += [nn.ReLU(inplace=True)]
    layers += [nn.Linear(widths[-2], widths[-1], bias=bias)]
    layers += [nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []
    return nn.Sequential(*layers)
