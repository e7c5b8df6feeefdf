"""Subspaces and coding rates: data as a union of low-dimensional pieces: rate reduction, sparse coding, manifolds.

Losses are pure functions of features (n, d). Supervised dictionaries have samples as columns, as their paper has.
"""

# ruff: noqa: F401, I001

# Coding rates, which MLC, CPP and CRATE share; frozen features, and the rivals on them
from .coding_rate import (
    coding_length, coding_rate, group_rates, log_determinant, numerical_rank, segmented_rate, structure,
)  # fmt: skip
from .frozen import Frozen, frozen_features, searched
from .rivals import elastic_net_affinity, scan
from ..spectral import spectral, spectral_vectors

# Unsupervised Manifold Linearizing and Clustering
from .mlc import TwoHeads, doubly_stochastic, heads, learn_heads, learn_mlc, membership, mlc, mlc_views, nmce, tcr

# Masked Completion via Structured Diffusion with White-Box Transformers
from .crate_mae import (
    MSSA, Crate, DecoderLayer, EncoderLayer, MaskedAutoencoder, ista, layer_statistics, learn_autoencoder,
)  # fmt: skip

# Image Clustering via the Principle of Rate Reduction in the Age of Pretrained Models
from .cpp import learn_cpp, lengths_by_k, retrieval_precision

# Hiding Data Helps: On the Benefits of Masking for Sparse Coding
from .masked_sparse_coding import (
    coding_loss, compare_objectives, learn_dictionary, omp, overfitting_dictionary, planted_dictionary,
    recovery_error, sparse_signals,
)  # fmt: skip

# Supervised Dictionary Learning with Auxiliary Covariates
from .sdl import (
    Fitted, bcd, digit_mixtures, f_score, judged, logistic, lpgd, objective, on_mixtures, planted_classifier,
    truncate, two_steps,
)  # fmt: skip

# Functorial Manifold Learning
from .functorial import (
    chain_recall, dna_chains, embed_by_cross_entropy, embedding_accuracy, fuzzy_cross_entropy, fuzzy_simplicial_set,
    geodesic, laplacian_eigenmaps, own_base, single_linkage, smacof, stress,
)  # fmt: skip

# TLDR: Twin Learning for Dimensionality Reduction
from .tldr import LPP, PCA, TLDR, learn_tldr, mean_average_precision, nearest_neighbours, quantise
