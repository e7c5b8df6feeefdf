"""Clustering algorithms: convex relaxations, graph cuts, differentiable k-means, mixtures, explanations of clusters.

Clusterers take rows (n, d) and a ``generator``; those that restart run all restarts in one batch and hand all of them
back.
"""

# ruff: noqa: F401, I001

# Likelihood Adjusted Semidefinite Programs for Clustering Heterogeneous Data
from .ila_sdp import Lifted, group_covariances, ila_sdp, kmeans_sdp, likelihood_affinity, solve_lifted

# An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs Fine-Tuning
from .separability import ManyMLPs, fisher_ratio, persistence, plateau, separability, thornton

# Probabilistic Partitive Partitioning (PPP)
from .ppp import Agreement, agreement, matched, ppp

# End-to-end Differentiable Clustering with Associative Memories
from .clam import Memories, clam, energy, recall, self_trained, soft_kmeans

# Cluster Explanation via Polyhedral Descriptions
from .polyhedra import (
    Polyhedron, ThresholdTree, cart, describe, describe_all, described, directions, mistake_tree, small_groups,
)  # fmt: skip

# ClusterFuG: Clustering Fully connected Graphs by Multicut
from .multicut import Cut, dense_gaec, exact_multicut, explicit_gaec, lazy_gaec, multicut_value, pair_costs, sparse_gaec

# Combating Financial Crimes with Unsupervised Learning Techniques
from .laundering import (
    SEGMENTS, Customers, agglomerate, customers, ica, indices, kernel_pca, locality_preserving, standardise, svd,
)  # fmt: skip

# MNIST-Nd: a set of naturalistic datasets to benchmark clustering across dimensions
from .leiden import leiden, modularity, neighbour_graph
from .mnist_nd import MixtureVAE, density_peaks, encode_digits

# Accurate Computation of the Logarithm of Modified Bessel Functions on GPUs
from .log_bessel import bessel_ratio, debye_polynomials, log_iv, log_kv, regions
from .vmf_mixture import VMFMixture, fit_kappa, log_vmf_constant, sample_cosines, sample_vmf, vmf_mixture

# what several of them stand on
from ..gaussian_mixture import GaussianMixture, gaussian_mixture
from ..many_kmeans import Partitions, many_kmeans
