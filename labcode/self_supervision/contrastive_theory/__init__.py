"""Why contrast works: bounds, density ratios, temperature, and what the minimum of a loss leaves open."""
# ruff: noqa: F401, I001

# On Mutual Information Maximization for Representation Learning
from .mutual_information import Flow, Residual, held_out_bound, infomax, linear_evidence, log_condition, spoil

# Estimators and critics, for this paper and the next two
from .estimators import (
    Bilinear,
    Joint,
    Separable,
    dv_bound,
    gaussian_log_ratio,
    ksg,
    logistic_nce,
    nce_bound,
    nwj_bound,
    try_estimators,
)

# Wasserstein Dependency Measure for Representation Learning
from .wasserstein_dependency import (
    PairCritic,
    block_slopes,
    bounds_of_critic,
    dependency_of_symbol,
    digit_grids,
    learn_dependency,
    lipschitz_penalty,
    optimal_transport,
    read_grids,
    read_tokens,
    report_critic,
    slope_of_table,
    symbol_codes,
    token_pairs,
    train_critic,
    wpc_penalty,
)

# To Compress or Not to Compress: Self-Supervised Learning and Information Theory, a Review
from .compress_or_not import Bottleneck, gaussian_information, read_codes, shared_and_private, symmetric_kl
from .exact_information import (
    binned_information,
    code_information,
    compression_loss,
    gaussian_channel,
    noisy_information,
    random_codes_table,
    readable_information,
    shared_private_table,
    table_information,
)
from .taxonomy import METHODS, Method
from .taxonomy import table as taxonomy_table

# A Theoretical Analysis of Contrastive Unsupervised Representation Learning
from .latent_classes import (
    LatentClasses,
    arora_bound,
    chain_of_bounds,
    contrast_classes,
    contrastive_logistic,
    few_shot,
    linear_accuracy,
    mean_classifier_accuracy,
    mean_classifier_loss,
    pair_classifier_loss,
    taken_apart,
    taught_classes,
)

# Contrastive learning, multi-view redundancy, and linear models
from .multiview_redundancy import (
    Topics,
    TwoViews,
    few_label_error,
    landmark_errors,
    landmark_features,
    linear_mse,
    random_features,
    redundancy_bound,
    topic_errors,
)

# Understanding the Behaviour of Contrastive Loss
from .temperature import (
    boltzmann,
    local_separation,
    loss_of_similarities,
    nearest_negatives,
    penalty_at,
    positive_and_negatives,
    relative_penalty,
    share_before,
    similarity_gradients,
    similarity_shares,
    temperature_loss,
    tolerance,
)

# Correlation between Alignment-Uniformity and Performance of Dense Contrastive Representations
from .dense_alignment_uniformity import (
    DenseContrast,
    DenseNet,
    at_match,
    dense_alignment,
    dense_nce,
    dense_report,
    dense_training,
    dense_uniformity,
    dense_views,
    grid_pixels,
    match_coordinates,
    match_features,
    match_random,
    object_scenes,
    positions,
    quarters,
)

# Which Features are Learnt by Contrastive Learning? On the Role of Simplicity Bias
from .simplicity_bias import (
    DigitsWithDistractor,
    Encoded,
    Features,
    descend,
    minimum_report,
    moments,
    narrow_subclass,
    read_beside,
    spectral_linear,
    spectral_loss,
    subclass_response,
    train_beside,
    two_minimisers,
)

# Shared: training on a loss of indices, perceptrons, class means, a linear reader
from ._common import class_means, learn, perceptron, ridge_accuracy
