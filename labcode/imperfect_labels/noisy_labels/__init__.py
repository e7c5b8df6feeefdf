"""Noisy labels: finding and surviving annotation mistakes, and when ignoring them is best.

Networks come in stacks: labels are (draws, N), logits (networks, batch, classes).
"""

# ruff: noqa: F401, I001

# The stage, the rivals of every table, and features without labels, which several papers share
from .stage import Images, ResNets, Stage, learn, rounds
from .robust import (
    co_teaching_weights, forward_cross_entropy, generalised_cross_entropy, repeated, rivals, small_loss,
)  # fmt: skip
from .contrastive import balanced_separator, features, fit_linear, linear_logits, nt_xent, simclr

# Identifying Mislabeled Data using the Area Under the Margin Ranking
from .aum import Margins, flagged, learn_aum, margins, threshold_sets

# Unsupervised Label Noise Modeling and Loss Correction
from .mixtures import TwoBumps, fit_two, normalised
from .bootstrapping import ARMS, Arm, bootstrapped, learn_bootstrapped, mixing_shares, uniform_prior

# Compressing Features for Learning with Noisy Labels
from .nested_dropout import (
    KINDS, LENGTHS, draw_lengths, keep_first, learn_compressed, logits_by_length, saturation, smooth_regression,
    truncation,
)  # fmt: skip

# Label Noise: Ignorance Is Bliss
from .ni_erm import (
    cells, erm_excess, minimax_regret, mixture_sweep, noise_ignorant, relative_signal_strength, symmetric_strength,
    upper_bound, zero_signal,
)  # fmt: skip

# Learning Confident Classifiers in the Presence of Label Noise
from .annotators import (
    MODELS, Confusions, annotator_loss, dawid_skene, entropy, learn_annotators, majority, mean_trace, same_likelihood,
)  # fmt: skip

# CrossSplit: Mitigating Label Noise Memorization through Data Splitting
from .crosssplit import SPLITS, Split, corrected, label_divergence, learn_crosssplit, mixing_weight, sharpen

# An accurate detection is not all you need to combat label noise in web-noisy datasets
from .lsa import SCHEDULES, by_small_loss, learn_lsa, mixed_supervised_contrast, pseudo_weights, ranks_agree

# When Noisy Labels Meet Long Tail Dilemmas: A Representation Calibration Method
from .rcal import (
    RECIPES, Recipe, borrow, class_statistics, estimation_error, inliers, known_gaussians, learn_rcal,
    local_outlier_factor, prior_flips, virtual_features,
)  # fmt: skip

# What the chapter measures
from .comparison import (
    columns, compare_aum, compare_bootstrapping, compare_compression, compare_splits, cross_validated, noisy, points,
)  # fmt: skip
from .comparison_features import (
    compare_annotators, compare_ignorance, compare_tail, compare_web, encoder, hyperplane, web_set,
)  # fmt: skip
