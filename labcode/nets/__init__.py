"""The encoders and heads of the course."""

from .conv import (
    BasicBlock,
    ResNet18,
    SmallNet,
    estimate_statistics,
    evaluating,
    memory_layout,
    to_torchvision,
)
from .mlp import mlp, seeded
from .vit import (
    Transformer,
    ViT,
    fill,
    gather,
    normalise_patches,
    patchify,
    prefix_causal,
    random_split,
    sincos,
    unpatchify,
)

__all__ = [
    "BasicBlock",
    "ResNet18",
    "SmallNet",
    "Transformer",
    "ViT",
    "estimate_statistics",
    "evaluating",
    "memory_layout",
    "fill",
    "gather",
    "mlp",
    "normalise_patches",
    "patchify",
    "prefix_causal",
    "random_split",
    "seeded",
    "sincos",
    "to_torchvision",
    "unpatchify",
]
