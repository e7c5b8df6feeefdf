"""Choosing the data: which unlabelled images deserve a place in pre-training."""

# ruff: noqa: F401, I001

# Hierarchical k-means: Automatic Data Curation for Self-Supervised Learning
from .hierarchical_kmeans import Level, hierarchical_kmeans, hierarchical_sample, nearest_members, water_fill
from .hierarchical_kmeans import agglomerate, class_entropy, log_skew, long_tail, two_squares

# Theory of data selection: Towards a statistical theory of data selection under weak supervision
from .selection_theory import inclusion, logistic, mislabelled_gaussians, misspecified_error

# GIO: Gradient Information Optimization
from .gio import MixedPool, before_rise, gio, gio_gradient, greedy_kl, knn_kl, mixed_pool, released_kl, released_path

# SAS: Data-Efficient Contrastive Self-supervised Learning
from .sas import augmentation_similarity, class_cut, graph_cut, greedy_graph_cut, sas

# PASS: An ImageNet replacement for self-supervised pretraining without humans
from .pass_pools import photographs, pools, with_people

# Pre-training for faces: Pre-training strategies and datasets for facial representation learning
from .face_pretraining import FineTuned, fine_tune, knn_r2, mean_squared_error
from .faces import FaceDifficulty, Faces, face_video, faces
from .swav import SwAV, swapped_prediction
