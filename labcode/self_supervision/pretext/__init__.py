"""Pretext tasks: questions that an image answers about itself, and what is left of them in the features.

``turning`` turns images, ``classifier`` is what few labels teach; ``stage`` holds the images, views and probe.
"""

# ruff: noqa: F401, I001

from .stage import ODD, UPRIGHT, UprightStage
from .turning import rotations, turn, turn_all
from .classifier import Classifier, Ensemble

# RotNet
from .rotnet import RotNet, rotation_loss

# Revisiting self-supervision
from .revisiting import Block, BlockNet, StagedResNet

# JigClu
from .jigclu import JigClu, cells, cluster_loss, montage, patch_views, quadrants

# Relational reasoning
from .relational_reasoning import DotHead, Relational, RelationHead, relation_loss, relation_pairs, steady_views

# OBoW
from .obow import BoWNet, OBoW, bag_of_words, bow_loss, crop_views, perplexity, soft_codes, vocabulary

# LoRot
from .lorot import TwoHeads, affinity, auroc, distance_from_uniform, noticed, turn_cell, turn_patch
from .trials import attacked, class_loss, diversity, shuffle_quarters, step_cost

# SLA
from .sla import SLA, aggregate, joint_labels, self_distillation, sla_loss
