"""Active and weak supervision: which labels to buy first, and what cheap rules are worth.

Strategies share one signature, ``acquire(features, probabilities, labelled, budget, *, generator) -> indices``.
"""

# ruff: noqa: F401, I001

# Strategies that all papers compare with, and many small classifiers at once
from .acquisition import (
    badge, check_pool, core_set, entropy, kmeans_plus_plus, largest, margin, random_choice,
)  # fmt: skip
from .heads import accuracy, acquire_rounds, fit_heads, judge_rounds, macro_auc, predict, with_bias

# The stage: pools of images with features from training without labels
from .pool import Pool, label_sprites, long_tail_pool, make_pool, second_pool

# Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets
from .typiclust import (
    cells_error, cluster_atypical, cluster_random, over_sample_typical, spread_accuracy, spreading, transition,
    two_learners, typical_only, typicality, typiclust,
)  # fmt: skip

# Making Your First Choice: To Address Cold Start Problem in Vision Active Learning
from .cold_start import (
    Contrasted, contrast, covered, data_map, encode, first_choice, instance_probability, label_map,
)  # fmt: skip

# Influence Selection for Active Learning
from .isal import (
    expected_target, gradients, hessian, influence, isal, lissa, reference_direction, retrained_changes, solve,
)  # fmt: skip

# Geometry-Aware Adaptation for Pretrained Models
from .loki import (
    CIFAR100_SUPER, cycle_distances, frechet_mean, grid_distances, hierarchy_distances, knn_probabilities, leaves,
    locus, locus_sizes, next_class, random_tree, squared_distance, tree_distances, tree_locus, with_temperature,
)  # fmt: skip

# On Pairwise Clustering with Side Information
from .pairwise import (
    bound, components, draw_pairs, effective_resistance, expected_missing, hidden_partition, items_wrong, pairs_wrong,
    planted_graph, resistance_cut, saca, side_information, signed_spectral, skewed_sizes, two_colouring,
)  # fmt: skip

# Weak Supervision for Label Efficient Visual Bug Detection
from .game import (
    Game, box_masks, cluster_filter, describe, geometric_filter, paste, play, segment, slab,
)  # fmt: skip
from .label_model import LabelModel, label_model, majority_vote, rules
from .visual_bugs import (
    average_precision, balanced_rows, best_threshold, bug_scores, detector, exemplar_threshold, f1_at, fine_tune,
    labelled_draws, neighbour_distance, pasted_loss, pretrain,
)  # fmt: skip
from .bug_hunt import ROUTES, World, choose_masks, filter_bank, hunt, make_world, precision_of

# The chapter's experiments
from .comparison import (
    by_coordinates, by_head, by_network, by_spreading, choose, cifar100_gain, compress, influence_check,
    judge, labels_needed, lissa_check, loki_errors, observed_only, pair_errors, saca_seconds, side_errors,
    spearman, sprites,
)  # fmt: skip
