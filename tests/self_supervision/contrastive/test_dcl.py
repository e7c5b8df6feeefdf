"""Decoupled contrastive learning."""


import torch

from labcode.self_supervision import contrastive as C


def rows(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_coupling_is_the_factor_between_the_two_gradients():
    logits = rows(3, 6).requires_grad_()
    coupled, = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), logits)
    free, = torch.autograd.grad((logits[:, 1:].logsumexp(1) - logits[:, 0]).sum(), logits)
    assert torch.allclose(coupled, C.coupling(logits.detach())[:, None] * free)
