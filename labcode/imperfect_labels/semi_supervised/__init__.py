"""Semi-supervised learning: few labels, many images without, and what the images are good for.

Networks come in stacks: labelled images are (networks, batch, pixels), logits (networks, batch, classes).
"""

# ruff: noqa: F401, I001

# The stage, the trainer and the rivals of every table
from .stage import (
    LR, MILD, Batch, Images, Labels, Method, ResNets, Stage, by_arm, by_count, columns, fixmatch, forward, learn,
    padded, points, pseudo_label, scored, supervised,
)  # fmt: skip

# Unsupervised Data Augmentation for Consistency Training
from .uda import (
    ADVERSARIAL, ARMS, KINDS, SCHEDULES, Arm, adversarial_noise, annealed_cross_entropy, consistency, noised, parts,
    tsa_threshold, uda_method, unreached,
)  # fmt: skip

# Pseudo-Labeling and Confirmation Bias in Deep Semi-Supervised Learning
from .pseudo_label_mixup import (
    WAYS, Moons, Soft, Told, entropy_term, learn_soft, mixed_loss, prior_term, two_moons,
)  # fmt: skip

# Scaling Up Semi-supervised Learning with Unconstrained Unlabelled Data
from .unmixmatch import (
    UNMIX_ALONE, UNMIX_ARMS, Bank, compare_rivals, compare_unmixmatch, frozen_statistics, Heads, open_bank,
    rand_mixup, soft_labels, turned, UnMixArm, UnMixMatch, view_contrast,
)  # fmt: skip

# DASO: Distribution-Aware Semantics-Oriented Pseudo-label for Imbalanced Semi-Supervised Learning
from .daso import (
    alignment_loss, BalancedQueue, blended, Daso, DasoArm, semantic_shares, similarities,
)  # fmt: skip
from .comparison_daso import (
    DASO_MAIN, DASO_PARTS, DASO_POOLS, GROUPS, compare_daso, daso_arms, long_tails, pseudo_labels,
)  # fmt: skip

# Big Self-Supervised Models are Strong Semi-Supervised Learners
from .simclr_v2 import Pretrained, Tuned, copies, distil, distillation, fine_tune, nt_xent, pretrain

# What the chapter measures of UDA, soft pseudo-labels and SimCLRv2
from .comparison import (
    augmentation_graph, compare_chain, compare_moons, compare_noises, compare_soft, compare_uda, plain_pseudo,
    rank_correlation, regions, rivals,
)  # fmt: skip

# Spectrally Transformed Kernel Regression
from .stkr import (
    Base, circle_features, closed_form, gaussian_kernel, graph_kernel, hops, inverse_laplacian,
    known_transform_error, label_propagation, label_spreading, neighbour_kernel, reversed_pairs, richardson,
    richardson_laplacian, ridge_on_labels, ring, sampled_eigenspaces, top_eigenvectors,
)  # fmt: skip

# Out-Of-Domain Unlabeled Data Improves Generalization
from .robust_self_training import (
    ascend, blob_accuracy, clipped_hinge, gaussian_accuracy, gaussian_pair, mean_direction, one_blob,
    robust_loss, rss, rss_objective, self_training,
)  # fmt: skip

# What the chapter measures of the last two
from .comparison_theory import (
    blob_control, block_graph, compare_blocks, compare_kernels, compare_shifted_digits, digit_kernel,
    erm_excess_error, gaussian_table, kernel_sizes, log_slope, product_times, resolvent_form, sweep_weight,
)  # fmt: skip
