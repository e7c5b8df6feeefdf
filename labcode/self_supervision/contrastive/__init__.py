"""Contrastive learning: tell an image's other view from everything else.

A *method* here is a module with an ``encoder`` and a ``forward(views, index)`` that returns the loss: rows i and i + n
of ``views`` are two views of image ``index[i]``. ``labcode.course.stage.Stage.pretrain`` trains it.

With several processes, losses that compare the batch's rows see all of them (``parallel.gather``). Queues and banks are
buffers that each process keeps for its own share of a batch. They are replaced, never written in place, so the
backward pass still finds the vectors that the loss saw.
"""
# ruff: noqa: F401, I001

# A Simple Framework for Contrastive Learning of Visual Representations: the chapter's baseline
from .simclr import SimCLR, nt_xent

# Supervised Contrastive Learning
from .sup_con import sup_con

# Decoupled Contrastive Learning
from .dcl import coupling, dcl

# NPID: Unsupervised Feature Learning via Non-Parametric Instance-level Discrimination
from .jigsaw import Jigsaw, tiled
from .npid import NPID, instance_nce, instance_softmax, log_partition, proximal

# Unsupervised Representation Learning by InvariancePropagation
from .invariance_propagation import (
    InvariancePropagation,
    distinct,
    invariance_propagation,
    nearest,
    propagate,
    purities,
    purity,
)

# MoCo: Momentum Contrast for Unsupervised Visual Representation Learning
# MoCo v2: Improved Baselines with Momentum Contrastive Learning
from .moco import MoCo, SplitBatchNorm, jittered_views, moco_loss, split_batchnorm

# CPC: Representation Learning with Contrastive Predictive Coding
from .cpc import SpeechCPC, SpeechEncoder, gaussian_bound, gaussian_mi, info_nce, mi_bound
from .synthetic_speech import FRAME, PHONES, SPEAKERS, Speech, log_spectrum, pools, speech, speech_probe

# CPC v2: Data-Efficient Image Recognition with Contrastive Predictive Coding
from .cpc_v2 import LabelledPatches, MaskedContext, PatchCPC, PatchEncoder, drop_colours, patch_views, patches

# Debiased Contrastive Learning
from .debiased import (
    Oracle,
    debiased_log_mean,
    debiased_mean,
    debiased_nt_xent,
    oracle_nt_xent,
    ring_means,
    ring_scores,
)

# G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo Labelling
from .g_simclr import Autoencoder, clean_and_noisy, false_negative_rate, fixed_batches, guided_order

# Integrating Prior Knowledge in Contrastive Learning with Kernel
from .decoupled_uniformity import DecoupledUniformity, attributes, decoupled_uniformity, kernel_weights, shifted_views

# Hallucination Improves the Performance of Unsupervised Visual Representation Learning
from .hallucinator import Hallucinator, hallucinate

# All4One: Symbiotic Neighbour Contrastive Learning via Self-Attention and Redundancy Reduction
from .all4one import All4One, Centroid, feature_contrast, neighbour_contrast, shifted

# Self-supervised Learning: Generative or Contrastive
from .generative_or_contrastive import (
    VAE,
    Decoder,
    DenoisingAutoencoder,
    colour_keeping_views,
    negative_elbo,
    neighbour_r2,
    noisy_views,
    picture_factors,
)
