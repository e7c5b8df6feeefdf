"""Choosing the data: which unlabelled images deserve a place in pre-training."""

# ruff: noqa: F401, I001

# Hierarchical k-means: Automatic Data Curation for Self-Supervised Learning
from .hierarchical_kmeans import Level, hierarchical_kmeans, hierarchical_sample, nearest_members, water_fill
from .hierarchical_kmeans import class_entropy, long_tail, two_squares

# Theory of data selection: Towards a statistical theory of data selection under weak supervision
from .selection_theory import inclusion, logistic, mislabelled_gaussians, misspecified_error

# GIO: Gradient Information Optimization
from .gio import gio, gio_gradient, greedy_kl, knn_kl, released_kl

# SAS: Data-Efficient Contrastive Self-supervised Learning
from .sas import augmentation_similarity, graph_cut, greedy_graph_cut, sas

# PASS: An ImageNet replacement for self-supervised pretraining without humans
from .pass_pools import pools

# Pre-training for faces: Pre-training strategies and datasets for facial representation learning
from .face_pretraining import FineTuned, fine_tune, mean_squared_error
from .faces import FaceDifficulty, Faces, face_video, faces, real_faces
from .swav import SwAV, swapped_prediction
