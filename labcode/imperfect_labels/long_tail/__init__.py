"""The long tail: Rare classes, shifting class proportions and losses that notice them."""

# ruff: noqa: F401, I001

# Unsupervised Learning under Latent Label Shift
from .lls_ddfa import (
    anchor_words, domain_marginals, label_marginals, label_posteriors, matched_error, nmf, word_shares,
)  # fmt: skip

# Selective Mixup Fine-Tuning for Optimizing Non-Decomposable Objectives
from .selmix import (
    class_means, confusion, coverage_slope, fine_tune, gains, logit_slope, mean_slope, min_recall_slope, pair_shares,
    power_mean, recalls, selective, worst_first,
)  # fmt: skip

# Inverse Image Frequency for Long-tailed Image Recognition
from .inverse_image_frequency import VARIANTS, adjusted, balanced_softmax, iif, iif_loss, rarity

# Frequency-Aware Self-Supervised Long-Tailed Learning
from .fassl import (
    assignments, contrast, follow, mass_correlation, purity, rare_weights, rebalanced, swapped,
)  # fmt: skip

# MDCS: More Diverse Experts with Consistency Self-distillation for Long-tailed Recognition
from .mdcs import (
    MANY_ALL_FEW, Experts, bias_variance, by_prior, consistency_loss, disagreement, diversity_loss, ensemble, mdcs_loss,
)  # fmt: skip
