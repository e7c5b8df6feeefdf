"""What the chapter measures, a file a paper: settings and a seed in, a dict of numbers out."""

# ruff: noqa: F401, I001

from .common import spearman, averaged, mistakes, spectral, silhouettes, shared
from .ila_sdp import shaped, trapped, recovered, equal_shapes
from .separability import curve_of_gaps, tasks, watched
from .ppp import partitive, many_means, validated, kept_over_k, reduced
from .clam import memories, recalled, basins, escapes, completed, assignment_seconds
from .polyhedra import explained, grouped
from .multicut import SOLVERS, cuts, given_k
from .laundering import GAMMAS, planted, reductions, pipelines, winner_share, pipelines_at, by_k, riskiest
from .mnist_nd import encoded
from .log_bessel import truncated, bessel_seconds, recovered_kappa, feature_kappa, mpmath_seconds, on_the_sphere
from .contest import contest
