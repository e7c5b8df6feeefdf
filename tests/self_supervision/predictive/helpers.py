"""What several of the chapter's test files need: random numbers, a small transformer, clips, a cosine."""

import math

import numpy as np
import torch

from labcode import nets
from labcode.data import Motion, moving_scenes
from labcode.self_supervision import predictive as P


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=g(seed))


def rows(n, d=6, seed=0):
    return draw(n, d, seed=seed)


def cosine(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def vit(width=16, depth=2, size=6, patch=2, channels=1, seed=0, **options):
    torch.manual_seed(seed)
    return nets.ViT((size, size), (patch, patch), channels, width, depth, 2, **options)


def clips(n=6, frames=4, size=12, seed=0):
    return moving_scenes(n, seed, motion=Motion(frames=frames, size=size)).frames.float() / 255


def clip_vit(frames=4, size=12):
    torch.manual_seed(0)
    return P.ClipViT((frames, size, size), (2, 4, 4), width=24, depth=1, heads=4)
