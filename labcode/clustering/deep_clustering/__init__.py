"""Deep clustering: learn the features and the clusters together, and keep them from collapsing.

``<method>_clusters(x, k, *, generator, …)`` gives every row of x one of k clusters: one signature for all methods.
"""

# ruff: noqa: F401, I001

# What they share
from ..measures import long_tailed, measures, size_entropy, sizes
from ..spectral import spectral
from .common import best_kmeans, view_features

# The autoencoder under DEC, DEPICT and TELL
from .autoencoder import Autoencoder, descend, pretrain, pretrain_layerwise, reconstruction

# XAI Beyond Classification: Interpretable Neural Clustering
from .tell import assigned, move_centres, spherical_kmeans, tell, tell_autoencoder, tell_clusters, tell_loss

# Unsupervised Deep Embedding for Clustering Analysis
from .dec import dec_clusters, dec_loss, pull_by_certainty, refine, scaled, student_t, target_distribution

# Deep Clustering via Joint Convolutional Autoencoder Embedding and Relative Entropy Minimization
from .depict import balanced_targets, depict, depict_clusters

# Joint Unsupervised Learning of Deep Representations and Image Clusters
from .jule import Linkage, agglomerate, chains, directed_affinity, jule, jule_clusters, neighbour_graph, triplet_loss

# Deep Clustering for Unsupervised Learning of Visual Features
from .deepcluster import deepcluster, deepcluster_clusters, fresh_head, reassign, uniform_rows, whitened

# Unsupervised Pre-Training of Image Features on Non-Curated Data
from .deepercluster import deepercluster, hierarchy, largest_share, rotated, two_level_loss

# Networks that start from nothing: grey scenes, crops, and the loop
from .crops import CropNet, estimated, full_crops, grey_scenes, learn, small_crops
from .heads import draw_views, new_head, train_head

# One solver of transport for the next four: balanced, unbalanced, partial
from ..peers import convex_solution, linear_programme, solver_times
from ..transport import Transport, balanced_transport, partial_transport, scale, unbalanced_transport

# Self-labelling via simultaneous clustering and representation learning
from .sela import Relabel, SeLa, balanced_permutation, self_labels, sela_clusters

# Unsupervised Learning of Visual Features by Contrasting Cluster Assignments
from .swav import SwAV, codes, prototype_use, softmax_codes, swapped_prediction, swav_clusters

# SCAN: Learning to Classify Images without Labels
from .scan import (
    SCAN, confusion, majority_accuracy, mine_neighbours, neighbour_purity, scan_clusters, scan_heads, scan_loss,
    self_label_loss, train_scan, true_neighbours,
)  # fmt: skip

# P^2OT: Progressive Partial Optimal Transport for Deep Imbalanced Clustering
from .p2ot import (
    PartialLabels, class_recall, label_quality, mass, p2ot_arms, p2ot_clusters, p2ot_labels, train_heads,
    weighted_cross_entropy,
)  # fmt: skip

# SP^2OT: Semantic-Regularized Progressive Partial Optimal Transport for Imbalanced Clustering
from .sp2ot import (
    Descent, SemanticLabels, similarity_graph, sp2ot_arms, sp2ot_clusters, sp2ot_labels, sp2ot_objective,
)  # fmt: skip
