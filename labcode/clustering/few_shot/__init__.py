"""Few-shot learning: one to five labels a class, and everything the unlabelled queries can add.

A *classifier* here takes a batch of ``Tasks`` and returns soft assignments of their queries (t, q, k); comparing two
means changing one word.
"""
# ruff: noqa: F401, I001

# Tasks, letters, encoders and the simple classifiers that all papers share
from .alphabets import ALPHABETS, letter_views, letters, printed
from .base_training import base_training, embed, episodic_training
from .episodes import (
    Tasks,
    accuracy,
    centred_unit,
    draw_tasks,
    logistic,
    nearest_prototype,
    seeded_kmeans,
    squared,
)

# The three stages: letters, scenes and tables; and requests as word numbers
from .protocol import Letters, Requests, Scenes, Tables, bags, requests

# Transductive Few-Shot Learning: Clustering is All You Need?
from .laplacian import affinity, bd_cspn, bound_updates, energy, laplacian, laplacian_shot, rectified

# ProtAugment: Unsupervised diverse short-texts paraphrasing for intent detection meta-learning
from .intents import Sentence, bleu, eda, intents, paraphrase, request
from .protaugment import Arm, Encoders, protaugment, prototypical, share, tokens, vocabulary, word_vectors

# Meta-Learning Update Rules for Unsupervised Representation Learning
from .update_rule import (
    Rule,
    draw_sets,
    few_shot_ridge,
    forward,
    learn,
    meta_train,
    new_state,
    permuted,
    principal,
    ridge,
    ridge_loss,
    unit_rms,
    vae,
    without_shrinking,
)

# BECLR: Batch Enhanced Contrastive Few-Shot Learning
from .beclr import BECLR, Memory, beclr_loss, purity, unlabelled_training
from .opta import opta, transport_plan, transported

# STUNT: Few-shot Tabular Learning with Self-generated Tasks from Unlabeled Tables
from .stunt import (
    Embedding,
    Generator,
    corrupted_autoencoder,
    labelled_tasks,
    minmax,
    nearest_neighbour,
    pseudo_validation,
    stunt,
    subset_kmeans,
)

# Few-Shot Segmentation Without Meta-Learning: A Good Transductive Inference Is All You Need?
from .patterned import PixelNet, coarse, patterned, pixel_training, segmentation_tasks
from .repri import mean_iou, panet, prototype_masks, repri, repri_terms, seen

# UNEM: UNrolled Generalized EM for Transductive Few-Shot Learning
from .unem import (
    Settings,
    alpha_tim,
    fit_dirichlet,
    generalised_em,
    inverse_digamma,
    log_dirichlet,
    name_probabilities,
    searched,
    unroll,
)
