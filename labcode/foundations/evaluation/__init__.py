"""Honest evaluation: what a number from one run, one seed and one test set is worth, and what it hides."""
# ruff: noqa: F401, I001

# The chapter's stage
from .facts import Facts

# 94% on CIFAR-10 in 3.29 Seconds on a Single GPU
from .airbench import (
    FLIPS,
    Block,
    Lookahead,
    SpeedNet,
    dirac_,
    mirrored,
    patch_moments,
    predict,
    predictions_by_level,
    shifted,
    test_views,
    triangle,
    whitening_filters,
)
from .muon import NS5, Muon, newton_schulz
from .photographs import photo_patches
from .speed_run import MUON, Outcome, Recipe, SpeedRun, optimisers_of, repeated

# Torch.manual_seed(3407) is all you need
from .seed_3407 import best_of, extremes, gaussian_best, scanned
from .tiny_runs import (
    DIGITS,
    Schedule,
    TinyRuns,
    grey_digits,
    last,
    mlp,
    moved,
    nudged,
    predictions,
    stacked,
    traced_digits,
    train_many,
    transplanted,
    varied,
)

# Calibrated Chaos: Variance Between Runs of Neural Network Training is Harmless and Inevitable
from .calibrated_chaos import (
    calibrated_variance,
    calibration,
    coin_variance,
    distribution_variance,
    half_split_covariance,
    over_sets,
    test_set_variance,
    vote_shares,
)

# Do ImageNet Classifiers Generalize to ImageNet?
from .field import (
    Field,
    by_kind,
    classifiers,
    digit_field,
    field_of,
    hurried,
    predicted,
    speed_classifiers,
    speed_field,
)
from .imagenet_v2 import (
    BINS,
    above,
    bootstrapped,
    by_frequency,
    climbed,
    climb_scores,
    clopper_pearson,
    fitted_line,
    left_out,
    matched,
    probit,
    second_tests,
    selection_frequency,
    skilled,
    voted,
)

# CINIC-10 is not ImageNet or CIFAR-10
from .cinic_10 import (
    FONTS,
    PARTS,
    glyphs,
    matched_sources,
    pixel_statistics,
    pooled,
    printed_digits,
    rank_agreement,
    source_matrix,
    standardised,
    two_sources,
)
from .learners import Classifier, crop_flip, cutmix, fit_classifier, learners, mixup_loss, network, reseeded, scikit

# Lifelong Benchmarks: Efficient Model Evaluation in an Era of Rapid Progress
from .sort_and_search import (
    CORRUPTIONS,
    by_sum,
    corrupted,
    counted,
    disagreement,
    inserted,
    mistakes,
    mixture,
    nearest,
    outcomes,
    reordered,
    rivals,
    scattered,
    search,
    sorted_samples,
    spaced,
    spaced_as_released,
    split_error,
    thresholds,
    two_sided,
)

# Better May Not Be Fairer: A Study on Subgroup Discrepancy in Image Classification
from .flowaug import Coupling, GlobalLocalFlow, cosine_basis, fit_flow, flow_aug
from .macrostd import (
    PALETTE,
    border_colours,
    chance_macro_std,
    coloured_scenes,
    macro_std,
    subgroup_accuracy,
    subgroup_scores,
)

# On the cross-validation bias due to unsupervised pre-processing
from .preprocessing_bias import (
    categories,
    cross_validated,
    cv_bias,
    cv_choice,
    drawn_from,
    lasso,
    leading_components,
    least_squares,
    narrow_regression,
    rare_errors,
    rare_to_zero,
    student,
    tumours,
    unchanged,
    unit_scale,
    variance_filter,
    wide_regression,
)
