"""Redundancy reduction: no negatives, but every feature must say something that the others do not.

Losses are pure functions of the projections (n, d) of two views; modules hold an ``encoder`` and a ``head``. Rows i and
i + n of a module's ``views`` show the same image.
"""

# ruff: noqa: F401, I001

# Barlow Twins
from .barlow_twins import barlow_twins, cross_correlation
from .cross_norm import cross_norm2, off_diagonal2, standardise

# Mixed Barlow Twins: Guarding Barlow Twins Against Overfitting with Mixed Samples
from .mixed_barlow_twins import FlatNet, MixedBarlow, mixed_barlow, nonlinear_share

# SSL-EY: Unconstrained Stochastic CCA
from .ssl_ey import canonical_correlations, ey_halves, linear_cca, planted_views, sgha, ssl_ey, whitened_correlation

# BYOL with closed-form predictors: The Edge of Orthogonality
from .orthonormal_byol import LinearBYOL, closed_form_predictor, newton_schulz, polar_distance, stable_rank, visser

# E2MC: Effective Entropy Maximization
from .e2mc import distance_to_uniform, e2mc, m_spacing_entropy, uniformity_loss

# RankMe
from .rankme import alpha_req, probe_on, rankme, regret, second_data, spearman

# VICReg, which other papers here train on and sweep; any loss of two views
from .two_views import Projected, TwoViews
from .vicreg import covariance_penalty, vicreg
