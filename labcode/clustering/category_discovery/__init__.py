"""Category discovery: Some classes are known, others are not: find the new ones and count them.

Everything works on rows of features in which some rows have labels (``Problem``): a frozen encoder's, or a table's.
"""

# ruff: noqa: F401, I001

# One protocol: the problem, and All, Old and New by one matching
from .digits import digit_stage, digit_views, frozen_features
from .gcd import Heads, best_kmeans, best_semi, gcd_loss, same_class, same_view, semi_supervised_kmeans, train_gcd
from .gcd import weighted_contrast
from .protocol import Problem, balanced_accuracy, discovery_accuracy, discovery_problem
from .stacked import StackedMLP

# Novel Class Discovery: an Introduction and Key Concepts
from .ncd import NCD, autonovel_clusters, dtc_clusters, kmeans_clusters, nearest_pairs, pair_bce, pair_clusters, pair_kl
from .ncd import rank_pairs, tabular_ncd_clusters, taught_clusters, uno_clusters
from .taxonomy import Assumptions, Watched, family, problem_of

# PBN: A Practical Approach to Novel Class Discovery in Tabular Data
from .pbn import PBN, choose_by_hiding, estimate_classes, hidden_class_folds, known_split, ncd_kmeans, ncd_spectral
from .pbn import pbn_loss, silhouette, train_pbn, tree_affinity, validity
from .tables import pixel_problem, planted_problem, planted_table, profile_problem, profiles, standardised

# GPC: Learning Semi-supervised Gaussian Mixture Models for Generalized Category Discovery
from .gpc import bic_classes, concentrations, gcd_classes, log_split_ratio, niw_marginal, principal, prototype_contrast
from .gpc import split_and_merge, train_gpc

# PIM: Parametric Information Maximization for Generalized Category Discovery
from .pim import LAMBDAS, choose_lambda, pim, pim_loss, pim_start, pim_terms, soft_sizes, train_pim

# PA-CGCD: Proxy Anchor-based Unsupervised Learning for Continuous Generalized Category Discovery
from .proxy_anchor import ProxyNet, SplitNet, affinity_clusters, discover, first_split, nearest_proxy, proxy_anchor
from .proxy_anchor import refine_split, softmax_proxies, train_proxies

# MetaGCD: Learning to Continually Learn in Generalized Category Discovery
from .metagcd import Continual, continual, meta_train, outer_loss, run_sessions, session_loss, soft_neighbours

# The experiments: each method's arms beside its rivals
from .comparison import count_new, discovered, moved, new_accuracy, pbn_arms, pim_arms, proxy_session, split_area
from .comparison import split_arms, table_rivals, tailed
