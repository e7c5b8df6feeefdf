"""How good is a representation, a clustering, a detector: every measure of the course.

``representation`` holds kNN, the offline linear probe, ridge R², alignment, uniformity and effective rank;
``clusters`` accuracy, NMI and ARI. Nothing here is imported from SciPy or scikit-learn until a function needs it.
"""

from .attentive import AttentiveProbe, attentive_probe
from .clusters import ari, clustering_accuracy, nmi
from .representation import (
    Probe,
    alignment,
    effective_rank,
    few_label_probe,
    held_out,
    knn,
    knn_predict,
    linear_probe,
    ridge_r2,
    uniformity,
)

__all__ = [
    "AttentiveProbe",
    "Probe",
    "alignment",
    "ari",
    "attentive_probe",
    "clustering_accuracy",
    "effective_rank",
    "few_label_probe",
    "held_out",
    "knn",
    "knn_predict",
    "linear_probe",
    "nmi",
    "ridge_r2",
    "uniformity",
]
