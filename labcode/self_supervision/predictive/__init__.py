"""Predicting what is missing: the next patch, all patches that follow, what was hidden, the next moments of a film."""
# ruff: noqa: F401, I001

# Scalable Pre-training of Large Autoregressive Image Models
from .aim import AIM, PatchHead, autoregressive_loss, block_average, grey_digits

from .reading import few_labels, ridge_probe

# TokenUnify: Scalable Autoregressive Visual Pre-training with Mixture Token Prediction
from .token_unify import TokenUnify, next_all_loss, rollout
from .sections import Membranes, dice, membrane_dice, membranes, pixel_scores

# Masked Autoencoders for Microscopy are Scalable Learners of Cellular Biology
from .mae import MAE, fourier_loss, masked_mse
from .ca_mae import ChannelMAE, ChannelViT, PerturbationClassifier, self_standardise
from .microscope import FACTORS, Cells, cells, centre_by_batch, relation_recall, typical_variation

# Self-Distillation for Further Pre-training of Transformers
from .further_pretraining import (
    Further,
    Reader,
    distillation_rounds,
    encoder_tokens,
    fine_tune,
    masked_error,
    moved,
    self_distillation_loss,
)

# Revisiting Feature Prediction for Learning Visual Representations from Video
from .clips import ClipNet, ClipViT, cut, frozen_tokens, recoloured, to_float
from .v_jepa import (
    LONG,
    SHORT,
    STRIPS,
    VJEPA,
    hidden_distance,
    jepa_loss,
    multiblock,
    panned_textures,
    random_tubes,
)

# A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning
from .rho import Rho, rho_byol, rho_clips, rho_moco, rho_nt_xent, rho_swav, sinkhorn_codes

# Enhancing Unsupervised Video Representation Learning by Decoupling the Scene and the Motion
from .dsm import DSM, dsm_loss, recall_at, spatial_disturbance, temporal_disturbance, tied_scenes

# Online Deep Clustering with Video Track Consistency
from .odc import ODC, mistracked, track_vote, tracked_patches, two_means

# Tracking without Label: Unsupervised Multiple Object Tracking via Contrastive Similarity Learning
from .ucsl import (
    UCSL,
    ambiguity_contrast,
    cross_contrast,
    direct_contrast,
    indirect_contrast,
    match,
    round_trip,
)
from .tracking import (
    associate,
    crops,
    identity_switches,
    idf1,
    iou,
    shown_objects,
    three_frames,
    tracking_score,
    wander,
)
