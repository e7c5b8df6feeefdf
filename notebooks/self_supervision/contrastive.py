# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Contrastive learning
#
# *Tell an image's other view from everything else, and the classes appear by themselves.*
#
# Nobody tells the network what a seven is. It only learns that two distorted copies of one picture belong together
# and that copies of different pictures do not. This chapter follows that idea through twelve papers: where the
# "different pictures" come from, what goes wrong when some of them are not different after all, what else may count
# as a pair, and whether one should contrast at all.
#
# **You will be able to**
# - derive InfoNCE and implement it four ways: in a batch, against a memory bank, against a queue, along a sequence;
# - say what a momentum encoder does, and show it by taking it out; read a representation before and behind its head,
#   and compare two heads (the temperature is swept in [Why contrast works](contrastive_theory.ipynb));
# - correct for false negatives, exactly and approximately, and tell when the correction does not pay;
# - judge a representation against chance, raw pixels, a random encoder and a supervised ceiling.
#
# **Know first**: training a small convolutional network in PyTorch; softmax and cross entropy. The symbols are those
# of [the notation page](../../book/notation.md).
#
# **Time**: about a minute on a laptop at quick scale. The same cells run at full size (CIFAR-10, ResNet-18) on a
# GPU. Measured times stand on [the machine page](../../book/machines.md).

# %% tags=["remove-cell", "setup"]
import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

REPOSITORY = ""  # written here by `make repository URL=…`

if importlib.util.find_spec("labcode") is None:  # on Colab: from a clone above or the repository, and torch stays
    clones = [str(f) for f in (Path.cwd(), *Path.cwd().parents) if (f / "labcode" / "run.py").exists()]
    if not (clones or REPOSITORY):
        raise ModuleNotFoundError("labcode is missing, and no address is set: open this notebook in a clone of the course")
    kept = [f"{n}=={version(n)}" for n in ("torch", "torchvision", "numpy") if importlib.util.find_spec(n)]
    wanted = clones[0] if clones else f"labcode @ git+{REPOSITORY}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", wanted, *kept], check=True)
    importlib.invalidate_caches()

# %%
from dataclasses import replace
from functools import partial

import torch

import labcode as lab
from labcode.course.stage import Stage
from labcode.self_supervision import contrastive as C

# %% tags=["hide-input"] mystnb={"image": {"alt": "A map of the chapter's twelve papers and SimCLR in groups. Dictionaries: NPID leads to MoCo and to invariance propagation, MoCo and SimCLR to MoCo v2. Prediction: CPC leads to CPC v2 and SimCLR. Negatives: debiased contrastive and decoupled uniformity start from SimCLR, and debiased contrastive leads to G-SimCLR. Positives: the hallucinator starts from SimCLR; invariance propagation and MoCo v2 lead to All4One. The survey Generative or Contrastive stands apart."}, "figure": {"caption": "Who answers whom: an arrow goes from a paper to one that builds on it or objects to it.", "name": "fig-contrastive-map"}}
PAPERS = {
    "NPID": (0, 0, "dictionary"), "MoCo": (1.2, 0.5, "dictionary"), "MoCo v2": (2.4, 0.5, "dictionary"),
    "CPC": (0, 1.5, "prediction"), "CPC v2": (1.2, 1.2, "prediction"), "SimCLR": (1.2, 2.1, "baseline"),
    "debiased": (2.4, 1.45, "negatives"), "G-SimCLR": (3.7, 1.45, "negatives"),
    "decoupled\nuniformity": (2.4, 2.6, "negatives"), "hallucinator": (3.7, 2.15, "positives"),
    "invariance\npropagation": (2.4, -0.4, "positives"), "All4One": (3.7, 0.5, "positives"),
    "generative or\ncontrastive?": (4.9, 1.1, "survey"),
}
ARROWS = [
    ("NPID", "MoCo"), ("NPID", "invariance\npropagation"), ("CPC", "CPC v2"), ("CPC", "SimCLR"),
    ("MoCo", "MoCo v2"), ("SimCLR", "MoCo v2"), ("SimCLR", "debiased"), ("debiased", "G-SimCLR"), ("MoCo v2", "All4One"),
    ("SimCLR", "decoupled\nuniformity"), ("SimCLR", "hallucinator"), ("invariance\npropagation", "All4One"),
]
_ = lab.plots.family(PAPERS, ARROWS)

# %% [markdown]
# ## The stage
#
# Every method of this chapter plays on one stage: the same images, the same views, the same encoder, the same number
# of steps. `run` knows the scale, the seeds and the ledger; `stage` holds the rest. At quick scale the images are
# **scenes**: real handwritten digits in any colour on photo textures. Raw colours say nothing about the class, so
# there is something to learn. Under every statement stands its verdict, drawn:
# [how to read a verdict](../../book/how_to_use.md#how-to-read-a-verdict).

# %%
run = lab.start("self_supervision/contrastive")
stage = Stage(run, lab.data.EIGHT)
run

# %%
stage

# %% mystnb={"image": {"alt": "Three rows of eight small images, named image, one view and another. The first row shows digits on textures; in the two views below each the shape stays, the colours change."}, "figure": {"caption": "Eight training images and two random views of each. A view keeps the shape and changes the colours, the position and the noise: only the shape is left to recognise the pair by.", "name": "fig-contrastive-views"}}
_ = stage.look()

# %%
# NBVAL_CHECK_OUTPUT
pictures = stage.train_images[:10]
views = stage.views(pictures, generator=run.generator(0))
print("two views of ten images, stacked:", tuple(views.shape))
print("features of ten images:", tuple(stage.features(stage.encoder(0), pictures).shape))

# %% [markdown]
# ### The loss that everything here varies
#
# Let $z_1 \dots z_{2n}$ be the projections of two views of $n$ images, scaled to unit length, and $s_{ij} = z_i \cdot
# z_j / \tau$. SimCLR asks each view to find its other half $i'$ among the $2n - 1$ others:
#
# $$\mathcal L = -\frac{1}{2n}\sum_{i=1}^{2n} \log \frac{e^{s_{ii'}}}{\sum_{j \ne i} e^{s_{ij}}}.$$
#
# Here $n$ counts the images of the batch, $i$ and $j$ its views, $i'$ is the other view of $i$'s image, $s_{ij}$ the
# similarity of two views, $\tau > 0$ the temperature. It is a cross entropy with $2n - 1$ classes that are made anew in
# every batch. The lower $\tau$, the more the hardest negatives count.

# %%
lab.show(C.nt_xent, C.SimCLR)

# %%
def simclr(seed):
    """The chapter's baseline encoder, trained once a seed."""
    return stage.pretrain("simclr", C.SimCLR, seed)


floor = {name: [stage.references(seed)[name] for seed in run.seeds] for name in stage.references(run.seeds[0])}
floor = {**floor, "SimCLR": [stage.knn(simclr(seed).encoder) for seed in run.seeds]}
results = dict(floor)  # grows section by section into the table at the end
untrained = sum(floor["random encoder"]) / len(run.seeds)  # the dashed line of the figures below

# %% mystnb={"image": {"alt": "Horizontal bars of nearest-neighbour test accuracy for chance, raw pixels, a random encoder, supervised training and SimCLR. A dashed line stands at the random encoder; SimCLR lies far above it and below supervised training."}, "figure": {"caption": "Without a label SimCLR covers a good part of the way from the untrained encoder (dashed here and below) to the one taught with all labels. Dots are seeds.", "name": "fig-contrastive-floor"}}
figure, axis = lab.plots.axes(height=2.2)
lab.plots.bars(axis, floor, "test accuracy, kNN (share of images)", chance=untrained)

# %% [markdown]
# Raw pixels and a random encoder are the bars to clear: what does not beat them has learnt nothing. The supervised
# ceiling sees every label. SimCLR covers a good part of the way from the random encoder to it, in a few seconds. An arm
# that ends below the untrained encoder, and this chapter has some, has not learnt a little: its training has undone what
# random features had.
#
# The loss is taken behind a *projection head*, which is thrown away. What would we lose by keeping it? Read the same
# trained networks at both places.

# %%
behind = lambda model: torch.nn.Sequential(model.encoder, model.head)
places = {"before the head": floor["SimCLR"], "behind it": [stage.knn(behind(simclr(seed))) for seed in run.seeds]}

# %% mystnb={"image": {"alt": "Two bars of kNN accuracy of the same trained SimCLR networks: features before the projection head and behind it, with a dashed line at the untrained encoder far below both."}, "figure": {"caption": "The same networks read before and behind their linear head; both places lie far above the untrained encoder (dashed).", "name": "fig-contrastive-head"}}
figure, axis = lab.plots.axes(height=1.4)
lab.plots.bars(axis, places, "test accuracy, kNN (share of images)", chance=untrained)

# %% [markdown]
# The two places are close: this linear head throws hardly anything away (measured). SimCLR's authors report that the output
# of a deeper head, after a long training, is the worse place by far; at our length that is not tested.

# %% [markdown]
# (npid)=
# ## Every image is its own class
# Labels say which images belong together. Without them, can a network be trained to tell *every* image from every
# other, and will alike images end up side by side only because they are hard to tell apart?
#
# *Instance discrimination* (NPID) makes each of the $n$ images a class. A classifier with $n$ weight vectors would see
# each of its classes once an epoch, and its weights would know nothing of the features. So the weights go, and the
# features $v_j$ of the last epoch, kept in a **memory bank**, take their place:
#
# $$P(i \mid f) = \frac{\exp(v_i \cdot f / \tau)}{\sum_{j=1}^{n} \exp(v_j \cdot f / \tau)},
# \qquad v_i \leftarrow \frac{v_i + f}{\lVert v_i + f \rVert} \text{ after the step.}$$
#
# Here $f$ is the unit feature of one view of image $i$, $v_j$ the bank's unit vector of image $j$, $n$ the number of
# images and $\tau$ the temperature. One view of an image meets its own past.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. One view goes through the encoder, which is trained, to a feature f and from there into the softmax over images. The memory bank gives all vectors v to the softmax without gradient; after the step the feature is written back into the bank."}, "figure": {"caption": "The class vectors are remembered, not trained: no gradient enters the bank, and the feature joins it after the step.", "name": "fig-npid-mechanism"}}
parts = {"one view": (0, 0), "encoder": (1, 0, "trained"), "f": (2, 0), "softmax\nover images": (3.2, 0, "loss"),
         "memory bank v": (2.6, 1.2, "store")}
_ = lab.plots.diagram(parts, [
    ("one view", "encoder"), ("encoder", "f"), ("f", "softmax\nover images"),
    ("memory bank v", "softmax\nover images", "", "stop"), ("f", "memory bank v", "", "stop"),
])

# %%
lab.show(C.instance_softmax, C.NPID.remember)

# %% [markdown]
# For a million images the sum is dear, and noise-contrastive estimation replaces it: tell the own vector from $K$ drawn
# at random as noise, with the sum $Z$ of the denominator guessed once, from the first batch. With
# $P = \exp(v \cdot f/\tau)/Z$ and $\sigma$ the logistic function,
#
# $$\mathcal L = -\log \sigma\Big(\log \frac{P(i \mid f)}{K/n}\Big)
# - \sum_{j \in \text{noise}} \log \sigma\Big(-\log \frac{P(j \mid f)}{K/n}\Big).$$

# %%
lab.show(C.instance_nce, C.NPID.contrast)

# %% [markdown]
# Four arms with the same budget. In the parametric one the bank holds trained weights in place of features: nothing
# else differs.

# %%
one_view, n = partial(stage.views, views=1), len(stage.train_images)
settings = dict(views=one_view, steps=run.pick(quick=120, full=None), lr=run.pick(quick=1e-3, full=0.03))
few, many = run.pick(quick=(1, 256), full=(1, 4096))
forms = {"parametric": dict(softmax="parametric"), "all images": dict(softmax="full")}
forms |= {f"NCE, K = {K}": dict(softmax="nce", negatives=K) for K in (few, many)}
npid = {name: [] for name in forms}
for seed in run.seeds:
    for name, form in forms.items():
        model = stage.pretrain(f"npid {name}", partial(C.NPID, images=n, tau=0.2, **form), seed, **settings)
        npid[name].append(stage.knn(model.encoder))
results["NPID"] = npid["all images"]

# %% mystnb={"image": {"alt": "Bars of kNN accuracy: parametric instance softmax, non-parametric softmax over all images, and noise-contrastive estimation with one and with many noise images. A dashed line marks the untrained encoder; the parametric arm lies below it."}, "figure": {"caption": "A bank of features beats trained weights, and noise images can stand for the whole bank if they are many. Dashed: the untrained encoder.", "name": "fig-npid"}}
figure, axis = lab.plots.axes(height=2.3)
lab.plots.bars(axis, npid, "kNN accuracy on the test images (share)", chance=untrained)

# %%
run.claim("npid", "Features in a memory bank make better instance classes than trained weights do",
          ours=npid["all images"], baseline=npid["parametric"], margin=0.05)

# %%
run.claim("npid", "Noise-contrastive estimation gains from many noise images over one",
          ours=npid[f"NCE, K = {many}"], baseline=npid[f"NCE, K = {few}"], margin=0.05)

# %% [markdown]
# Every image meets its class once an epoch, so the bank and the features drift apart in jumps. The paper adds a
# proximal term, 30 times $\lVert f - v_i \rVert^2$, the squared step away from the last epoch's feature. The released code has none: there
# the averaging in the bank's update does this work. We switch the averaging off and look at the term alone.

# %%
steps = run.pick(quick=48, full=2000)
jump = {pull: [] for pull in (0.0, 30.0)}
for seed in run.seeds:
    for pull in jump:
        make = partial(C.NPID, images=n, tau=0.2, momentum=0.0, pull=pull)
        model = stage.pretrain(f"npid pull {pull:g}", make, seed, **(settings | dict(steps=steps)))
        jump[pull].append(float(model.moved))
run.claim("npid", "The proximal term shortens the step of a feature from one epoch to the next",
          ours=jump[30.0], baseline=jump[0.0], margin=0.05, higher_is_better=False)

# %% [markdown]
# The parametric softmax has the same loss, the same vectors to fill and more to learn with, and ends below the untrained
# encoder (measured). A class that is seen once an epoch by a gradient has no time to become anything: that is our guess,
# since no arm trains longer.

# %% [markdown]
# (invariance-propagation)=
# ## Neighbours of neighbours as positives
#
# Views of one image teach invariance to crops and colours. They cannot teach that two different sevens are the same
# digit. **Invariance propagation** takes other images as positives too. It keeps a memory bank of unit features
# $v_j$, links every image to its four nearest, and walks three steps on that graph. The hope is that short steps stay
# inside a dense region where one long step would leave it.
#
# Of the images reached, only the *least* similar ones are pulled in: easy positives teach nothing new.
#
# $$ \mathcal L_\text{ins}=-\log\frac{e^{s_i}}{e^{s_i}+\sum_{j\in\mathcal B}e^{s_j}},\qquad
# \mathcal L_\text{inv}=-\log\frac{\sum_{j\in\mathcal P}e^{s_j}}{\sum_{j\in\mathcal B}e^{s_j}},\qquad
# \mathcal L=\mathcal L_\text{ins}+0.6\,\mathcal L_\text{inv}. $$
#
# Here $s_j=f\cdot v_j/\tau$ scores the view's feature $f$ against entry $j$ of the bank, $i$ is the image itself,
# $\mathcal P$ holds the hard positives, and $\mathcal B$ the background: the $K$ most similar other entries. The second term
# waits until a warm-up with the first alone has made the neighbours worth trusting.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A view goes through the encoder to a feature f, which enters two losses, instance and invariance. The memory bank feeds a graph of four nearest neighbours; three steps on it reach images, of which the least similar enter the invariance loss; entries of the bank enter the instance loss as negatives, without gradient."}, "figure": {"caption": "The bank is asked twice: for hard negatives, and, over a walk on its graph of neighbours, for hard positives.", "name": "fig-propagation-mechanism"}}
parts = {"view": (0, 0), "encoder": (1, 0, "trained"), "f": (2, 0), "instance": (4.1, 0, "loss"),
         "bank": (0, 1.5, "store"), "4 nearest": (1, 1.5), "3 steps": (2, 1.5), "least\nsimilar": (3, 1.5),
         "invariance": (4.1, 1.5, "loss")}
_ = lab.plots.diagram(parts, [
    ("view", "encoder"), ("encoder", "f"), ("f", "instance"), ("f", "invariance"), ("bank", "4 nearest"),
    ("4 nearest", "3 steps"), ("3 steps", "least\nsimilar"), ("least\nsimilar", "invariance", "", "stop"),
    ("bank", "instance", "", "stop"),
], width=6.2)

# %%
lab.show(C.propagate, C.distinct)

# %%
lab.show(C.invariance_propagation, start="logits = unit_rows", end="instance = ")

# %%
lab.show(C.invariance_propagation, start="kept = distinct", end="invariance = ")

# %% [markdown]
# Paths meet again: of the 84 places that three steps of four reach, many repeat. The loss counts each image once.

# %%
# NBVAL_CHECK_OUTPUT
ring = torch.arange(12)
links = torch.stack([ring - 2, ring - 1, ring + 1, ring + 2], 1) % 12
walk = C.propagate(links, ring[:1], levels=2)
print("reached", walk.shape[1], "distinct", int(C.distinct(walk, ring[:1]).sum()))

# %% [markdown]
# We warm up once a seed, then branch into three arms that differ in the positives alone: none, easy, hard.

# %%
one_view = partial(stage.views, views=1)
size = run.pick(quick=dict(dim=64, background=256), full=dict(dim=128, background=4096))
size["background"] = min(size["background"], len(stage.train_images) // 4)
start = partial(C.InvariancePropagation, count=len(stage.train_images), **size)
before = run.pick(quick=120, full=30 * 97)
after = run.pick(quick=60, full=stage.budget.steps - before)
warm, arms = {}, {"none": [], "easy": [], "hard": []}

# %%
for seed in run.seeds:
    warm[seed] = stage.pretrain("propagation warm", start, seed, views=one_view, steps=before)
    for name, found in arms.items():
        model = stage.pretrain(f"propagation {name}", lambda e, name=name, seed=seed: warm[seed].branch(name),
                               seed, views=one_view, steps=after)  # fmt: skip
        found.append(stage.knn(model.encoder))

# %% [markdown]
# First the premise, without any training: is the propagated set purer than *equally many* nearest neighbours? We ask
# it of the bank after the warm-up, and of a case where the answer should be yes: two thin strands that run side by
# side on the sphere, so that a ball around a point soon reaches the other strand.

# %%
def purities(bank, labels, levels):
    """Purity of what propagation reaches from up to 1000 images, and of as many nearest neighbours."""
    index = torch.arange(min(1000, len(bank)), device=bank.device)
    links = torch.cat([C.nearest(rows, bank, 5)[:, 1:] for rows in bank.split(2000)])
    reached = C.propagate(links, index, levels)
    kept = C.distinct(reached, index)
    near = C.nearest(bank[index], bank, int(kept.sum(1).max()), index)
    equal = torch.arange(near.shape[1], device=bank.device) < kept.sum(1, keepdim=True)
    return C.purity(reached, kept, labels, labels[index]), C.purity(near, equal, labels, labels[index])

# %%
strands, found = {}, {"bank": {}, "strands": {}}
side = torch.arange(200) % 2
for seed in run.seeds:
    angle = 2 * torch.pi * torch.rand(200, generator=torch.Generator().manual_seed(seed))
    height = 0.3 * side
    flat = height.cos()
    strands[seed] = torch.stack([flat * angle.cos(), flat * angle.sin(), height.sin()], 1)
    for levels in (1, 2, 3):
        found["bank"][seed, levels] = purities(warm[seed].bank, stage.train_labels, levels)
        found["strands"][seed, levels] = purities(strands[seed], side, levels)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two line charts of purity against propagation levels one to three. On the bank after warm-up both fall with the levels, and propagation lies below equally many nearest neighbours. On two thin strands propagation falls less."}, "figure": {"caption": "Walking pays where classes are thin strands, not on the bank of scenes. Share of the chosen images with the anchor's label, mean over seeds.", "name": "fig-propagation-purity"}}
figure, panels = lab.plots.axes(2, sharey=True)
for panel, (place, values) in zip(panels, found.items(), strict=True):
    for which, name in enumerate(("propagated", "nearest, as many")):
        mean = [sum(values[s, n][which] for s in run.seeds) / len(run.seeds) for n in (1, 2, 3)]
        panel.plot((1, 2, 3), mean, "o-", label=name)
    panel.set(title=place, xlabel="levels", xticks=(1, 2, 3))
panels[0].set_ylabel("purity (share)")
_ = panels[1].legend()

# %%
reach = {name: [[v[s, 3][which] for s in run.seeds] for which in (0, 1)] for name, v in found.items()}
run.claim("invariance-propagation", "On two thin strands the propagated set is purer than as many nearest neighbours",
          *reach["strands"], margin=0.02, data="points on the sphere")  # fmt: skip

# %%
run.claim("invariance-propagation", "On the bank after the warm-up the propagated set is purer too",
          *reach["bank"], margin=0.0)  # fmt: skip

# %% mystnb={"image": {"alt": "Bars of kNN accuracy for instance discrimination alone, with easy and with hard propagated positives; the three are close and far above the dashed line of the untrained encoder."}, "figure": {"caption": "Three continuations of one warm-up end close together. Dashed: the untrained encoder.", "name": "fig-propagation-arms"}}
figure, axis = lab.plots.axes(height=1.8)
lab.plots.bars(axis, arms, "kNN test accuracy", chance=untrained)

# %%
run.claim("invariance-propagation", "Hard propagated positives beat going on with instance discrimination alone",
          arms["hard"], arms["none"], margin=0.01)  # fmt: skip

# %%
results["invariance propagation"] = arms["hard"]
run.claim("invariance-propagation", "Hard positives beat easy ones", arms["hard"], arms["easy"], margin=0.01)

# %% [markdown]
# The premise fails here, not the loss alone (measured). Where the clusters are thin strands, walking wins; on the scenes' bank the
# plain neighbours are purer. Four nearest neighbours are already wrong so often that three steps multiply the errors: our
# guess. Hard propagated positives do worse than going on without any, and worse than easy ones; that most images reached are
# other digits is measured in the left panel, the hard ones were not counted apart, and that this is the reason is our guess.

# %% [markdown]
# (moco)=
# ## A dictionary that outlives its batch
# SimCLR's negatives are its batch, so many negatives need a large machine. NPID's bank holds as many as there are
# images, but each was encoded by a network up to an epoch old. Momentum contrast (MoCo) keeps a **queue** of the last
# $K$ keys, and makes keys with an encoder that changes slowly:
#
# $$\mathcal{L}_q = -\log \frac{\exp(q \cdot k_+ / \tau)}{\exp(q \cdot k_+ / \tau) + \sum_{i=1}^{K} \exp(q \cdot k_i / \tau)},
# \qquad \theta_k \leftarrow m\,\theta_k + (1 - m)\,\theta_q .$$
#
# Here $q$ is the query (one view), $k_+$ the key of the same image's other view, $k_1 \dots k_K$ the keys in the queue, all of
# unit length; $\theta_q$ and $\theta_k$ are the weights of query and key encoder, $m \in [0, 1)$ the momentum, $\tau$ the
# temperature. The order matters. First the key encoder follows, then it makes keys without gradient, then the loss, and only then
# do the keys join the queue, or each would be its own negative.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. View 1 goes through the trained encoder to a query q and into InfoNCE. View 2 goes through the key encoder, a slow copy of the encoder with momentum m, to a key k plus, which enters InfoNCE without gradient and joins the queue. The queue of K keys gives negatives to InfoNCE."}, "figure": {"caption": "Two encoders and a queue. Crossed arrows carry no gradient: only the query encoder is trained, the other follows it.", "name": "fig-moco-mechanism"}}
parts = {"view 1": (0, 0), "encoder": (1.2, 0, "trained"), "q": (2.3, 0), "view 2": (0, 1.3),
         "key encoder": (1.2, 1.3, "copy"), "k₊": (2.3, 1.3), "queue of\nK keys": (3.5, 1.3, "store"),
         "InfoNCE": (3.5, 0, "loss")}
_ = lab.plots.diagram(parts, [
    ("view 1", "encoder"), ("encoder", "q"), ("q", "InfoNCE"), ("view 2", "key encoder"), ("key encoder", "k₊"),
    ("encoder", "key encoder", "m", "stop"), ("k₊", "InfoNCE", "", "stop"), ("k₊", "queue of\nK keys"),
    ("queue of\nK keys", "InfoNCE", "", "stop"),
])

# %%
lab.show(C.moco_loss, C.MoCo.follow)

# %%
lab.show(C.MoCo.forward)

# %% [markdown]
# BatchNorm has a leak here: query and key of an image share a batch, and its statistics tell which batch. The paper
# shuffles the keys over several GPUs. On one device that does nothing unless BatchNorm also works in parts, so ours
# does both: `splits` parts, keys shuffled before and put back after. All arms below have it; what it is worth is not
# measured here.

# %%
lab.show(C.SplitBatchNorm.forward, C.MoCo.keys)

# %%
sizes = run.pick(quick=(8, 512), full=(64, 512, 4096))
K, splits = sizes[-1], run.pick(quick=2, full=8)
settings = dict(batch_size=run.pick(quick=64, full=512), steps=run.pick(quick=240, full=None),
                warmup=run.pick(quick=120, full=None))
arms = {f"K = {size}": dict(queue=size, momentum=0.99) for size in sizes} | {"m = 0": dict(queue=K, momentum=0.0)}
moco = {name: [] for name in [*arms, "memory bank"]}
for seed in run.seeds:
    for name, options in arms.items():
        model = stage.pretrain(f"moco {name}", partial(C.MoCo, splits=splits, **options), seed, **settings)
        moco[name].append(stage.knn(model.encoder))

# %% [markdown]
# The last arm is the paper's other mechanism: the same loss with $K$ keys drawn from a bank of all images.

# %%
one_view, n = partial(stage.views, views=1), len(stage.train_images)
for seed in run.seeds:
    make = partial(C.NPID, images=n, dim=128, softmax="sampled", negatives=K)
    model = stage.pretrain("moco memory bank", make, seed, views=one_view, **settings)
    moco["memory bank"].append(stage.knn(model.encoder))
results["MoCo"] = moco[f"K = {K}"]

# %% mystnb={"image": {"alt": "Bars of kNN accuracy of MoCo with a short and with long queues, with a key encoder copied at every step, and of a memory bank. A dashed line marks the untrained encoder; the copied key encoder lies far below it."}, "figure": {"caption": "The slow key encoder decides: copied at every step (m = 0) it ends below the untrained encoder (dashed). The size K of the queue matters less, and a memory bank does as well.", "name": "fig-moco"}}
figure, axis = lab.plots.axes(height=2.6)
lab.plots.bars(axis, moco, "kNN accuracy on the test images (share)", chance=untrained)

# %%
run.claim("moco", "A key encoder that follows slowly beats one that is copied at every step, with the same queue",
          ours=moco[f"K = {K}"], baseline=moco["m = 0"], margin=0.05)

# %%
run.claim("moco", "A queue of several batches beats one that is a fraction of a batch",
          ours=moco[f"K = {K}"], baseline=moco[f"K = {sizes[0]}"], margin=0.03)

# %%
run.claim("moco", "Keys from a queue beat as many keys from a memory bank",
          ours=moco[f"K = {K}"], baseline=moco["memory bank"], margin=0.0)

# %% [markdown]
# The order of the queue is part of the method, so we look at it. Twelve keys enter a queue of five, four at a time.

# %%
# NBVAL_CHECK_OUTPUT
queue = torch.zeros(5)
for step in range(3):
    queue = torch.cat([torch.arange(4) + 10.0 * step, queue])[:5]
    print(queue.int().tolist())

# %% [markdown]
# The two ideas are not worth the same here (measured): the slow encoder is what the method stands on, while a longer
# queue helps by a few points, and the queue is not ahead of the bank. Our guesses at the reasons: ten classes and two thousand
# images need no large dictionary; with so few images even the bank's oldest vector is young; and queries that chase their
# own copy can lower the loss by telling new keys from old ones, which has nothing to do with images.

# %% [markdown]
# (moco-v2)=
# ## Four small changes to MoCo
# SimCLR came out between MoCo's two versions, and it was better. Was that the in-batch negatives, or the things that
# came along with them? MoCo v2 keeps the queue and takes the rest: a head with a hidden layer,
# $h(x) = W_2\,\mathrm{ReLU}(W_1 x)$ with $x$ the encoder's features and $W_1$, $W_2$ trained, dropped after training; stronger augmentation; a cosine schedule; and a
# temperature of 0.2 in the place of MoCo's lower one, because the best temperature depends on the head.
#
# The paper reports 60.6 % for MoCo on ImageNet, 66.2 % with the new head, 63.4 % with the new augmentation and 67.3 %
# with both, 67.5 % with the cosine schedule too: each helps, and together less than their sum. We add them one after the other: views first, then the head.
# Blur does nothing to images this small. Our weak views jitter the colours as MoCo v1 did; the strong ones are the
# chapter's.

# %%
lab.show(C.jittered_views)

# %%
K, splits = run.pick(quick=512, full=4096), run.pick(quick=2, full=8)
settings = dict(batch_size=run.pick(quick=64, full=512), steps=run.pick(quick=240, full=None),
                warmup=run.pick(quick=120, full=None))
views = {"weak": run.pick(quick=C.jittered_views, full=partial(stage.views, jitter_p=0.0, grey_p=0.0)),
         "strong": stage.views}
heads = {"linear": dict(), "mlp": dict(head="mlp", tau=0.2)}
rates = {"linear": None, "mlp": run.pick(quick=5e-4, full=None)}  # each head's best on validation images

# %%
v2 = {"linear, weak": [], "linear, strong": [], "mlp, strong": []}
for seed in run.seeds:
    for name in v2:
        head, strength = name.split(", ")
        make = partial(C.MoCo, queue=K, momentum=0.99, splits=splits, **heads[head])
        shared = f"moco K = {K}" if name == "linear, strong" else f"moco-v2 {name}"  # trained already for MoCo
        model = stage.pretrain(shared, make, seed, views=views[strength], lr=rates[head], **settings)
        v2[name].append(stage.knn(model.encoder))
results["MoCo v2"] = v2["mlp, strong"]

# %% mystnb={"image": {"alt": "Bars of kNN accuracy for MoCo with a linear head and weak views, a linear head and strong views, and an MLP head and strong views. The last is the shortest and stands at the dashed line of the untrained encoder."}, "figure": {"caption": "Strong views help; the new head has learnt nothing yet after so short a training. Dashed: the untrained encoder.", "name": "fig-moco-v2"}}
figure, axis = lab.plots.axes(height=2.0)
lab.plots.bars(axis, v2, "kNN accuracy on the test images (share)", chance=untrained)

# %%
run.claim("moco-v2", "Stronger augmentation improves MoCo with the linear head",
          ours=v2["linear, strong"], baseline=v2["linear, weak"], margin=0.02)

# %%
run.claim("moco-v2", "The MLP head improves MoCo under strong augmentation",
          ours=v2["mlp, strong"], baseline=v2["linear, strong"], margin=0.01)

# %% [markdown]
# The paper comes out by half. Stronger views help. The MLP head, with the best of several learning rates, stands where the
# untrained encoder stands (measured): this is a training that has not begun, and says nothing of the head after two hundred
# epochs. It starts out mapping all images to nearly one point and needs longer to unfold them, we guess; the long run asks.

# %% [markdown]
# (cpc)=
# ## Predict the future, but only well enough to recognise it
# A model that predicts the next samples of a signal spends itself on detail: the exact wave, the hiss. What we would
# like it to learn is what stays the same over many samples, such as who speaks and which sound it is.
#
# Contrastive predictive coding never generates the future. An encoder gives one vector a frame,
# $z_t = g_{\text{enc}}(x_t)$; a recurrent net sums up the past, $c_t = g_{\text{ar}}(z_{\le t})$; and for every
# horizon $k$ one matrix $W_k$ scores how well a frame fits as the future:
#
# $$f_k(x_{t+k}, c_t) = \exp(z_{t+k}^\top W_k c_t), \qquad
# \mathcal{L}_N = -\mathbb{E}\left[\log \frac{f_k(x_{t+k}, c_t)}{\sum_{x_j \in X} f_k(x_j, c_t)}\right].$$
#
# Here $x_t$ is the frame at time $t$, $z_t$ its code, $c_t$ the context, $k$ how many frames ahead, $W_k$ the trained matrix of
# that horizon, and $X$ holds the true future and $N-1$ other frames. This is the softmax of the sections before, without its
# cosine and its temperature.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. The frames up to t, the true frame t plus k and other frames all go through one trained encoder. The codes of the past go on through a GRU to the context c and through the matrix W k to a prediction. InfoNCE compares the prediction with the N candidate codes. All parts are trained."}, "figure": {"caption": "Predict in code space, then recognise: the prediction meets the codes of N candidates, and every part is trained.", "name": "fig-cpc-mechanism"}}
parts = {"frames to t": (0, 0), "frame t + k": (0, 1), "other frames": (0, 2), "encoder": (1.2, 1, "trained"),
         "GRU": (2.2, 0, "trained"), "W k": (3.2, 0, "trained"), "InfoNCE": (3.2, 1.6, "loss")}
_ = lab.plots.diagram(parts, [
    ("frames to t", "encoder"), ("frame t + k", "encoder"), ("other frames", "encoder"), ("encoder", "GRU", "z"),
    ("GRU", "W k", "c"), ("W k", "InfoNCE", "prediction"), ("encoder", "InfoNCE", "N codes"),
])

# %%
lab.show(C.info_nce)

# %%
lab.show(C.SpeechCPC.forward)

# %% [markdown]
# The loss also says something about information. In six lines, with $x$ for the future and $c$ for the context:
#
# 1. Put the true future at a place $d$ drawn evenly from $1 \dots N$, and $N-1$ draws from $p(x)$ elsewhere. $\mathcal L_N$ is
#    the cross entropy of a guess at $d$ from $(X, c)$, and no guess beats the posterior: $\mathcal L_N \ge H(d \mid X, c)$.
# 2. $d$ is even, so $H(d \mid X, c) = \log N - I(d; X, c)$, hence $\log N - \mathcal L_N \le I(d; X, c)$.
# 3. $I(d; X, c)$ is the mean over $d$ of $\mathrm{KL}\big(p(X, c \mid d) \,\Vert\, p(X, c)\big)$, and of all second arguments the mixture
#    $p(X, c)$ makes this mean smallest. So it can only grow with $p(c) \prod_j p(x_j)$ in its place.
# 4. There every place but $d$ cancels: $\mathrm{KL} = \mathbb E \log \frac{p(x_d, c)}{p(x_d)\, p(c)} = I(x; c)$. Together
#    $I(x; c) \ge \log N - \mathcal L_N$.
# 5. Equality in line 1 needs the posterior, $f_k \propto p(x \mid c)/p(x)$: the loss learns a ratio of densities.
# 6. The true future stands in its own sum, so $\mathcal L_N \ge 0$, and the bound never shows more than $\log N$.

# %% [markdown]
# First the bound, where the truth is known. Four pairs of Gaussians with correlation $\rho$ share
# $I = -2 \log(1-\rho^2)$ nats. We fit CPC's bilinear score and read off $\log N - \mathcal{L}_N$ on fresh pairs.

# %%
rhos, sizes = (0.3, 0.6, 0.9, 0.99), (4, 32, 256)
truth = [C.gaussian_mi(rho, 4) for rho in rhos]
bound = {n: [C.gaussian_bound(rho, n) for rho in rhos] for n in sizes}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Estimated against true mutual information. For 4, 32 and 256 candidates the estimate follows the diagonal and then bends under its ceiling, log N."}, "figure": {"caption": "The estimate follows the truth until it meets log N.", "name": "fig-cpc-bound"}}
figure, axis = lab.plots.axes(width=5)
axis.plot(truth, truth, color=lab.plots.GREY, linewidth=1, label="truth")
for colour, n in zip(lab.plots.COLOURS, sizes):
    axis.plot(truth, bound[n], "o-", color=colour, label=f"N = {n}")
    axis.axhline(torch.tensor(n).log(), color=colour, linestyle=":", linewidth=1)
_ = axis.set(xlabel="true information, nats", ylabel="log N − L, nats"), axis.legend()

# %%
caps = {n: float(torch.tensor(n).log()) for n in sizes}
excess = max(b - min(i, caps[n]) for n in sizes for b, i in zip(bound[n], truth))
run.exact("cpc", "On correlated Gaussians the estimate never exceeds the smaller of the true information and log N, "
          "beyond sampling error.", excess, at_most=0.05, data="correlated Gaussians")  # fmt: skip

# %%
run.exact("cpc", "With few candidates and much information the estimate is close to log N and says nothing more.",
          min(bound[4][-1] / caps[4], bound[32][-1] / caps[32]), at_least=0.9, data="correlated Gaussians")  # fmt: skip

# %% [markdown]
# A bound that ends at $\log N$ cannot be why the features are good. So let us look at features. Our signal is built
# like speech: fifteen harmonics, whose strengths are a phone's filter (six phones, ten frames each on average) times
# a speaker's timbre (eight speakers), with phases that drift and a good deal of hiss. The phases matter: one frame
# ahead the wave itself can be predicted, eight frames ahead only phone and speaker can.

# %%
# NBVAL_CHECK_OUTPUT
heard = {seed: (C.speech(1024, frames=32, seed=2 * seed), C.speech(128, frames=32, seed=2 * seed + 1))
         for seed in run.seeds}  # fmt: skip
example = heard[run.seeds[0]][0]
tuple(example.signal.shape), tuple(example.phones.shape), example.speakers[:10].tolist()

# %% [markdown]
# We train with one, four and eight horizons, always on the same contexts. The last arm changes only who meets whom: a
# sequence finds its negatives in its own and three other sequences, of other speakers (*mixed*) or of its own speaker.

# %%
lab.show(C.pools)

# %%
def listen(seed, horizon, same=False):
    """A speech encoder after CPC; horizon 0 leaves it as it was drawn."""
    torch.manual_seed(seed)
    net, signal = C.SpeechEncoder().to(run.device), heard[seed][0].signal.to(run.device)
    if horizon == 0:
        return net
    return stage.pretrain(f"speech {horizon} {same}", lambda e: C.SpeechCPC(e, horizon), seed, encoder=net, images=signal,
                          views=lambda x, generator: x, batches=C.pools(1024, same, seed=seed, device=run.device),
                          steps=run.pick(quick=70, full=400), lr=1e-2, optimizer="adamw", weight_decay=1e-4).encoder  # fmt: skip

# %%
arms = {"log spectrum": lambda s: C.log_spectrum, "random net": lambda s: listen(s, 0),
        "CPC, 1 ahead": lambda s: listen(s, 1), "CPC, 1 to 4": lambda s: listen(s, 4), "CPC, 1 to 8": lambda s: listen(s, 8),
        "CPC, 1 to 8, same speaker": lambda s: listen(s, 8, True)}  # fmt: skip
found = {
    name: [C.speech_probe(make(s), *[part.to(run.device) for part in heard[s]]) for s in run.seeds]
    for name, make in arms.items()
}
phone, speaker = ({name: [v[i] for v in values] for name, values in found.items()} for i in (0, 1))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Bars of phone and speaker accuracy of a linear probe on the log spectrum, a random net and four CPC encoders: one, four and eight frames ahead, and eight with negatives of the same speaker. Longer horizons raise the phone bar; negatives of the same speaker lower the speaker bar."}, "figure": {"caption": "Looking further ahead teaches phones; negatives of the same speaker make the context forget who speaks. A linear probe on the spectrum or the context of one frame. Dots are seeds, dashes the untrained net.", "name": "fig-cpc-speech"}}
figure, (left, right) = lab.plots.axes(2, width=8)
mean = lambda values: sum(values) / len(values)
lab.plots.bars(left, phone, "phone accuracy", chance=mean(phone["random net"]))
lab.plots.bars(right, speaker, "speaker accuracy", chance=mean(speaker["random net"]))
_ = right.set_yticklabels([])

# %%
run.claim("cpc", "The context vector tells phones better than the same net with random weights.",
          phone["CPC, 1 to 8"], phone["random net"], margin=0.1, data="synthetic speech")  # fmt: skip

# %%
run.claim("cpc", "Predicting up to eight frames ahead tells phones better than predicting the next frame only.",
          phone["CPC, 1 to 8"], phone["CPC, 1 ahead"], margin=0.03, data="synthetic speech")  # fmt: skip

# %%
run.claim("cpc", "Negatives of the same speaker make the context forget who speaks.",
          speaker["CPC, 1 to 8, same speaker"], speaker["CPC, 1 to 8"], margin=0.05, higher_is_better=False,
          data="synthetic speech")  # fmt: skip

# %% [markdown]
# Asked for the next frame alone, CPC learns least of the phones. One frame ahead there is more to predict, the wave itself,
# and it is the wrong thing: that is how the signal was built, and the order of the arms agrees (measured). The hand-made spectrum remains the better phone reader on this signal, which was made
# of spectra; on real speech the paper reports the reverse (39.7 for MFCC, 64.6 for CPC).
# Negatives of the same speaker make the context forget who speaks (measured): what all candidates share is no help in telling
# them apart.

# %% [markdown]
# (cpc-v2)=
# ## The same on a grid of patches, for few labels
# An image has no time, but a grid of overlapping patches has an order. CPC reads it row by row: a convolution masked
# so that $c_{i,j}$ sees its own row and those above predicts the patches $k$ rows below,
# $\hat z_{i+k,j} = W_k c_{i,j}$, among patches of this image and of others; $i$ counts rows, $j$ columns, $z_{i,j}$ is the
# code of a patch, and the loss is CPC's. The second version asks what this is good
# for, and answers: for learning from few labels. It got there by a list of repairs, each aimed at a shortcut:
#
# - **augment every patch by its own draw**, colours dropped among them. Else the answer to "which patch is the
#   right one?" is "the one of the same colour";
# - **layer norm** in the place of batch norm, whose statistics carry news from patch to patch: the right patch can then be told
#   without a look at what it shows, and the task is solved while the features are not;
# - **more directions**: also upwards and to both sides, each with its own context network.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. An image is cut into a grid of patches, each changed by its own draw; every patch goes alone through the trained patch encoder to a grid of codes z. Masked convolutions make a context of a row and those above; the matrix W k predicts the codes k rows below, and InfoNCE finds them among codes of this and other images."}, "figure": {"caption": "CPC on a grid: rows above predict rows below, and no part but the masked convolutions sees more than one patch.", "name": "fig-cpc-v2-mechanism"}}
parts = {"patches, each\nchanged alone": (0, 0.5), "patch\nencoder": (1.3, 0.5, "trained"), "masked\nconv": (2.5, 0, "trained"),
         "W k": (3.5, 0, "trained"), "InfoNCE": (3.5, 1.2, "loss")}
_ = lab.plots.diagram(parts, [
    ("patches, each\nchanged alone", "patch\nencoder"), ("patch\nencoder", "masked\nconv", "z"),
    ("masked\nconv", "W k", "c"), ("W k", "InfoNCE", "prediction"), ("patch\nencoder", "InfoNCE", "rows below"),
])

# %%
lab.show(C.PatchCPC.forward, C.MaskedContext.forward)

# %% [markdown]
# Scenes of 16 × 16 pixels give 7 × 7 patches of 4 × 4 (CIFAR-10: 8 × 8). The patch encoder sees one patch and nothing
# else. A probe gets its outputs averaged over a 3 × 3 grid.

# %%
# NBVAL_CHECK_OUTPUT
knob = replace(lab.data.EIGHT, size=16)
drawn = [lab.data.scenes(2000, split="train", difficulty=knob), lab.data.scenes(1000, split="test", difficulty=knob)]
pictures, held_out = run.pick(quick=[d.images for d in drawn], full=[stage.train_images, stage.test_images])
y, y_test = run.pick(quick=[d.labels for d in drawn], full=[stage.train_labels, stage.test_labels])
patch = run.pick(quick=dict(size=4, stride=2), full=dict(size=8, stride=4))
tuple(C.patches(pictures[:1], **patch).shape[1:3])

# %%
def look(seed, name, norm="layer", directions=1, method=C.PatchCPC, rows=None, batch=None, **views):
    """A patch encoder after training: by CPC, or by ``method`` on the ``rows`` of the images."""
    torch.manual_seed(seed)
    net = C.PatchEncoder(**patch, **run.pick(quick={}, full=dict(width=256, dim=128, depth=3)), norm=norm)
    make = {C.PatchCPC: lambda e: C.PatchCPC(e, directions, **run.pick(quick={}, full=dict(ahead=(1, 2, 3), layers=4)))}
    steps, size = run.pick(quick=(150, 16), full=(30000, 128))
    return stage.pretrain(f"patches {name}", make.get(method, method), seed, encoder=net.to(run.device),
                          images=pictures if rows is None else pictures[rows], views=C.patch_views(**patch, **views),
                          lr=run.pick(quick=5e-3, full=1e-3), optimizer="adamw", weight_decay=1e-4, steps=steps,
                          batch_size=batch or size).encoder  # fmt: skip

# %% [markdown]
# Arms: a random encoder; CPC on the bare patches; with two colours of a patch dropped at random; with each patch's
# colours turned; and the last one with batch norm. `PatchCPC` takes up to four directions; here all arms have one. The
# probe gets 100 labels (1 % at full scale).

# %%
few = run.pick(quick=100, full=500)
kept = {s: torch.randperm(len(y), generator=torch.Generator().manual_seed(s))[:few] for s in run.seeds}
nets = {"random encoder": lambda s: C.PatchEncoder(**patch).to(run.device),
        "CPC, bare patches": lambda s: look(s, "bare", drop=False, turn=False),
        "CPC, colours dropped": lambda s: look(s, "dropped", drop=True, turn=False),
        "CPC, colours turned": lambda s: look(s, "turned", drop=False),
        "… with batch norm": lambda s: look(s, "batch norm", norm="batch", drop=False)}  # fmt: skip

# %%
def read_out(net, s):
    """Test accuracy of a linear probe on the few labelled images."""
    z, z_test = stage.features(net, pictures[kept[s]]), stage.features(net, held_out)
    return lab.evaluate.linear_probe(z, y[kept[s]], z_test, y_test).accuracy

# %%
accuracy = {n: [read_out(make(s), s) for s in run.seeds] for n, make in nets.items()}
accuracy["pixels"] = [read_out(torch.nn.Flatten(), s) for s in run.seeds]

# %% [markdown]
# The rival without pretraining is the same patch encoder and a linear layer on the labelled images alone, with the
# same augmentation of patches, as many steps and twice the images a step.

# %%
scratch = lambda s: look(s, "scratch", method=lambda e: C.LabelledPatches(e, y[kept[s]], 10), rows=kept[s], batch=2 * run.pick(quick=16, full=128),
                         drop=False)  # fmt: skip
accuracy["from scratch"] = [read_out(scratch(s), s) for s in run.seeds]

# %% mystnb={"image": {"alt": "Bars of test accuracy with 100 labels for pixels, a random encoder, four CPC encoders and training from scratch. The two arms with turned colours, with layer and with batch norm, and training from scratch stand out; the others stay near the dashed line of the untrained encoder."}, "figure": {"caption": "Only turning each patch's colours lifts CPC clearly above the untrained encoder (dashed); training from scratch does better still. Linear probe with 100 labels; dots are seeds.", "name": "fig-cpc-v2"}}
figure, axis = lab.plots.axes(width=6)
lab.plots.bars(axis, accuracy, "test accuracy with few labels", chance=mean(accuracy["random encoder"]))

# %%
run.claim("cpc-v2", "With few labels, a linear probe on CPC's patch features beats one on the same encoder untrained.",
          accuracy["CPC, colours turned"], accuracy["random encoder"], margin=0.1, data=run.pick(quick="scenes 16×16", full=None))  # fmt: skip

# %%
run.claim("cpc-v2", "Augmenting each patch by its own draw is what makes the features useful.",
          accuracy["CPC, colours turned"], accuracy["CPC, bare patches"], margin=0.05, data=run.pick(quick="scenes 16×16", full=None))  # fmt: skip

# %%
run.claim("cpc-v2", "Layer norm in the patch encoder gives better features than batch norm.",
          accuracy["CPC, colours turned"], accuracy["… with batch norm"], margin=0.0, data=run.pick(quick="scenes 16×16", full=None))  # fmt: skip

# %%
run.claim("cpc-v2", "With few labels, a linear probe on CPC's features beats training the same encoder from scratch.",
          accuracy["CPC, colours turned"], accuracy["from scratch"], margin=0.0, data=run.pick(quick="scenes 16×16", full=None))  # fmt: skip

# %% [markdown]
# On bare patches the probe gains next to nothing over the untrained encoder: the
# colour of the background, we guess, is answer enough. Turning each patch's colours closes that way out, and it is the one repair that matters here. Layer norm
# does not pay: with patches this small and encoders this shallow, batch statistics may be no way to cheat, and they speed up
# a short training (our guess).
# Training from scratch does better with the same few labels, against the paper's claim (measured). It uses the same
# augmentation, which on our scenes removes by hand the very nuisance that pretraining would have had to discover, and
# a patch encoder this small needs few labels: our guesses at the reason. Colour dropping alone, the paper's own choice, is hardly enough on
# scenes whose ink may be lighter or darker than the ground.

# %% [markdown]
# (debiased-contrastive)=
# ## Negatives that are not
# With ten classes, one "negative" in ten shows the anchor's own class, and the loss pushes it away. Nobody knows
# which one. But if the class has the share $\tau^+$, then unlabelled samples are a mixture,
# $p = \tau^+ p^+ + (1 - \tau^+)\,p^-$, and what is known about $p^+$ from the other view can be subtracted:
#
# $$g = \max\left\{ \frac{1}{1 - \tau^+} \Big( \frac{1}{N} \sum_{i=1}^{N} e^{s_i^-}
# - \frac{\tau^+}{M} \sum_{j=1}^{M} e^{s_j^+} \Big),\; e^{-1/\tau} \right\},
# \qquad \mathcal{L} = -\log \frac{e^{s^+}}{e^{s^+} + N g}.$$
#
# Here $s_i^-$ are the scores (cosine over the temperature $\tau$) of $N$ unlabelled samples, $s_j^+$ those of $M$ further views,
# $s^+$ that of the pair in the numerator; $p^+$ and $p^-$ are the distributions of the anchor's class and of all others, and
# $g$ estimates the mean of $e^s$ over $p^-$. Scores cannot be below $-1/\tau$, hence the clamp. The loss below takes any number of views; two give $M = 1$.

# %%
lab.show(C.debiased_mean, C.debiased_nt_xent)

# %% [markdown]
# An estimator can be checked exactly where its target is known. Put ten von Mises classes on a circle. Then the mean
# of $e^s$ over the true negatives has a closed form with Bessel functions, and so has the error of the biased mean:
# $\tau^+ (E^+ - E^-)$.

# %%
lab.show(C.ring_means, C.ring_scores)

# %%
torch.manual_seed(0)
angle = 0.3 * torch.randn(256, dtype=torch.float64)
own, others = C.ring_means(angle)
sizes, errors = (32, 128, 512, 4096), {"biased": [], "M = 1": [], "M = 4": [], "M = 16": []}
gap = 0.1 * (own - others)
mixed, positive = C.ring_scores(angle, 4096, 16)
for N in sizes:
    errors["biased"].append(mixed[:, :N].mean(1) - others)
    for M in (1, 4, 16):
        errors[f"M = {M}"].append(C.debiased_mean(mixed[:, :N], positive[:, :M], 0.1) - others)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Root mean square error of the estimated mean over negatives against the number of negatives N, biased and debiased with 1, 4 and 16 positives; the biased curve flattens at the closed-form gap."}, "figure": {"caption": "More samples do not help the biased mean, which stays at its closed-form gap (dashed); the corrected one goes on improving.", "name": "fig-debiased"}}
figure, axis = lab.plots.axes(width=5.5)
for name, error in errors.items():
    axis.loglog(sizes, [e.square().mean().sqrt() for e in error], "o-", label=name)
axis.axhline(gap.square().mean().sqrt(), color=lab.plots.GREY, linestyle="--", linewidth=1)
_ = axis.set(xlabel="unlabelled samples N (count)", ylabel="error of the mean (no unit)")
_ = axis.legend()

# %%
off = (errors["biased"][-1].mean() / gap.mean() - 1).abs()
run.exact("debiased-contrastive", "The biased mean is off by τ⁺(E⁺ - E⁻), in relative terms", off, at_most=0.1,
          data="von Mises classes on a circle")

# %%
left = (errors["M = 1"][-1].mean() / gap.mean()).abs()
run.exact("debiased-contrastive", "One positive removes the bias on average: share of the gap that is left", left,
          at_most=0.2, data="von Mises classes on a circle")

# %% [markdown]
# So the correction does what it says. Whether it teaches the network more is another question. Beside the biased and the
# debiased loss, an oracle is told the labels and leaves out the false negatives: there is no more to gain than that.

# %%
makes = {"biased": lambda e: C.SimCLR(e, tau=0.5), "oracle": partial(C.Oracle, labels=stage.train_labels, tau=0.5),
         "debiased": lambda e: C.SimCLR(e, loss=lambda z: C.debiased_nt_xent(z, 1 / stage.classes, 0.5))}
nearest = {name: [] for name in makes}
for seed in run.seeds:
    for name, make in makes.items():
        model = stage.pretrain(f"debiased {name}", make, seed, steps=run.pick(quick=80, full=None))
        nearest[name].append(stage.knn(model.encoder))
results["debiased contrastive"] = nearest["debiased"]

# %% mystnb={"image": {"alt": "Bars of kNN accuracy for the biased loss, the oracle that leaves out false negatives, and the debiased loss, with a dashed line at the untrained encoder."}, "figure": {"caption": "The oracle gains; the correction without labels does not. Dashed: the untrained encoder.", "name": "fig-debiased-arms"}}
figure, axis = lab.plots.axes(height=1.7)
lab.plots.bars(axis, nearest, "kNN accuracy on the test images (share)", chance=untrained)

# %%
run.claim("debiased-contrastive", "Leaving out the false negatives by their labels improves the features",
          ours=nearest["oracle"], baseline=nearest["biased"], margin=0.01)

# %%
run.claim("debiased-contrastive", "The debiased loss improves the features without labels",
          ours=nearest["debiased"], baseline=nearest["biased"], margin=0.01)

# %% [markdown]
# An unbiased denominator is not a better gradient (measured: the estimate is right, the features are worse). The reason,
# we guess: the correction lowers every anchor's denominator by about the same amount, and still pushes each false negative
# as hard as its similarity says; the oracle does not push it at all.

# %% [markdown]
# (g-simclr)=
# ## Batches without look-alikes
# If false negatives hurt, one could also keep them out of the batch. G-SimCLR guesses which images are alike: it
# trains a denoising autoencoder, runs k-means on its latents with as many clusters as a batch has images, and fills
# each batch with one image of every cluster. The order is fixed; every epoch sees the same batches.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Images go through a denoising autoencoder, trained first; its latents are clustered by k-means into B clusters; each batch takes one image of each cluster, and NT-Xent is trained on these batches."}, "figure": {"caption": "Reconstruction guesses who is alike, and the batch keeps them apart: one image of each of B clusters.", "name": "fig-g-simclr-mechanism"}}
names = ["images", "auto-\nencoder", "k-means", "batch: one\nof each", "NT-Xent"]
kinds = ["data", "trained", "data", "data", "loss"]
parts = {name: (1.1 * i, 0, kind) for i, (name, kind) in enumerate(zip(names, kinds))}
arrows = [(*pair, "", "stop") if pair[0] == "auto-\nencoder" else pair for pair in zip(names, names[1:])]
_ = lab.plots.diagram(parts, arrows, width=6.0, height=1.3)

# %% [markdown]
# With $B$ images a batch and as many clusters, the pairing costs one k-means; the loss is SimCLR's as it stands.

# %%
lab.show(C.Autoencoder.forward, C.guided_order)

# %% [markdown]
# Before any contrastive training, count. A **false-negative rate** is the share of an anchor's negatives that have its
# own label. Note how little there is to win: even true labels cannot fill a batch with more images than
# there are classes, ten here, and repeat none.

# %%
B, y = run.pick(quick=32, full=64), stage.train_labels
budget = dict(steps=run.pick(quick=40, full=2000), lr=run.pick(quick=2e-3, full=0.03))
orders = {"random": [], "guided": [], "labels": []}
for seed in run.seeds:
    auto = stage.pretrain("autoencoder", lambda e: C.Autoencoder(), seed, views=C.clean_and_noisy, **budget)
    clusters = lab.cluster.kmeans(stage.features(auto.encoder, stage.train_images), B, seed)[1]
    orders["random"].append(C.guided_order(torch.zeros_like(y), seed))
    orders["guided"].append(C.guided_order(clusters, seed))
    orders["labels"].append(C.guided_order(y, seed))

# %%
rate = {name: [C.false_negative_rate(order, y, B) for order in made] for name, made in orders.items()}
run.claim("g-simclr", "Guided batches hold fewer false negatives than random ones",
          ours=rate["guided"], baseline=rate["random"], margin=0.005, higher_is_better=False)

# %% [markdown]
# An autoencoder spends its latents on what fills the pixels. In our scenes that is the colour, which says nothing of
# the class. So we ask again where the colours are the same in every image, and only the digit and the texture vary,
# and with batches of 8, where there is more to win.

# %%
plain = lab.data.scenes(2000, background=0.2, ink=0.577, difficulty=lab.data.EIGHT)
digits = plain.images.to(run.device)
rate |= {"random, one colour": [], "guided, one colour": []}
for seed in run.seeds:
    auto = stage.pretrain("autoencoder one colour", lambda e: C.Autoencoder(), seed, views=C.clean_and_noisy,
                          images=digits, **(budget | dict(steps=40, batch_size=128)))
    order = C.guided_order(lab.cluster.kmeans(stage.features(auto.encoder, digits), 8, seed)[1], seed)
    for name, made in (("guided", order), ("random", C.guided_order(torch.zeros_like(order), seed))):
        rate[f"{name}, one colour"].append(C.false_negative_rate(made, plain.labels.to(made), 8))

# %% mystnb={"image": {"alt": "Bars of false-negative rates in batches: random, guided and by label on the chapter's images, and random and guided on scenes of one colour."}, "figure": {"caption": "On the chapter's images the guide changes next to nothing, and even true labels leave most false negatives in. Share of an anchor's negatives with its label. Dashed: the share of a class.", "name": "fig-g-simclr"}}
figure, axis = lab.plots.axes(height=2.3)
lab.plots.bars(axis, rate, "false-negative rate (share of negatives)", chance=1 / stage.classes)

# %%
run.claim("g-simclr", "Where all images have one colour, guided batches of 8 hold fewer false negatives",
          ours=rate["guided, one colour"], baseline=rate["random, one colour"], margin=0.005, higher_is_better=False,
          data="scenes of one colour")

# %% [markdown]
# Now train, all arms with fixed batches. The oracle keeps the random batches, and takes the false negatives out of the
# loss, for no sampler can take them all out of a batch of this size.

# %%
fixed = {"random": lambda e: C.SimCLR(e), "guided": lambda e: C.SimCLR(e),
         "oracle": lambda e: C.Oracle(e, stage.train_labels, rescale=False)}
guided = {name: [] for name in fixed}
for i, seed in enumerate(run.seeds):
    for name, make in fixed.items():
        order = orders["guided" if name == "guided" else "random"][i]
        model = stage.pretrain(f"g-simclr {name}", make, seed, batches=C.fixed_batches(order, B),
                               steps=run.pick(quick=120, full=None))
        guided[name].append(stage.knn(model.encoder))
results["G-SimCLR"] = guided["guided"]

# %% mystnb={"image": {"alt": "Bars of kNN accuracy for random batches, guided batches and the oracle, all with fixed batches, with a dashed line at the untrained encoder. Only the oracle stands clearly right of the line."}, "figure": {"caption": "Fixed batches of this size teach little: only the oracle ends clearly above the untrained encoder (dashed).", "name": "fig-g-simclr-arms"}}
figure, axis = lab.plots.axes(height=1.7)
lab.plots.bars(axis, guided, "kNN accuracy on the test images (share)", chance=untrained)

# %%
run.claim("g-simclr", "Without any false negatives the same batches teach more", ours=guided["oracle"],
          baseline=guided["random"], margin=0.01)

# %%
run.claim("g-simclr", "Guided batches teach more than random batches", ours=guided["guided"],
          baseline=guided["random"], margin=0.005)

# %% [markdown]
# The oracle's gain says that false negatives do cost something (measured); the two arms beside it stand near the untrained
# encoder, so their order says little. The guide fails without a trace: on images whose pixels are mostly nuisance the
# batches are as mixed as before (measured), since pseudo-labels from reconstruction sort by the nuisance (our guess). Where digit and texture are all that
# varies, small guided batches do hold fewer false negatives; whether by as much as was asked, our seeds leave open. Other starting
# rows of k-means alone once changed both verdicts on the rates, so neither should be leaned on.

# %% [markdown]
# (decoupled-uniformity)=
# ## A loss that keeps pushing, and a kernel for what we already know
#
# InfoNCE weakens itself: once a pair is easy, the gradient of its whole row fades, negatives included. And its
# positives are views alone, so weak augmentations leave it little to learn from, even if we know something else about
# the images. With $s_+$ the score of the positive, $s_j$ those of the negatives, and $q_+$ the softmax probability of the
# positive in its row,
#
# $$ \nabla\Big[-s_+ + \log\big(e^{s_+}+\textstyle\sum_j e^{s_j}\big)\Big]
#  = (1-q_+)\;\nabla\Big[-s_+ + \log\textstyle\sum_j e^{s_j}\Big], $$
#
# and $1-q_+$ is the *negative-positive coupling*. Decoupled contrastive learning trains on the right-hand side as it stands
# (`C.dcl`). **Decoupled uniformity** has no such factor either. It averages the views
# of an image to a centroid $\mu_x$, does *not* bring it back to unit length, and spreads the centroids:
#
# $$ \mathcal L=\log\,\mathbb E_{x\ne x'}\,e^{-2\,\lVert\mu_x-\mu_{x'}\rVert^2}. $$
#
# Here $x$ and $x'$ are different images of the batch, $\mu_x$ the mean of the unit projections of $x$'s views, and 2 says how
# near is near. There is no alignment term. Centroids are long only if their views agree, and only long centroids can be
# far apart.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. The views of an image go through the trained encoder to unit projections z; their mean is the centroid mu. Prior vectors make a kernel, and from it weights alpha, which mix the centroids of alike images, without gradient through the weights. The loss spreads the mixed centroids."}, "figure": {"caption": "Only centroids are compared, so views must agree to be far from others. The kernel, dashed, mixes centroids of images that the prior calls alike.", "name": "fig-decoupled-mechanism"}}
parts = {"views of x": (0, 0), "encoder": (1.1, 0, "trained"), "mean μ": (2.1, 0), "mixed αμ": (3.1, 0), "spread": (4.1, 0, "loss"),
         "prior p": (2.1, 1.2), "kernel, α": (3.1, 1.2, "copy")}
_ = lab.plots.diagram(parts, [
    ("views of x", "encoder"), ("encoder", "mean μ"), ("mean μ", "mixed αμ"), ("mixed αμ", "spread"),
    ("prior p", "kernel, α"), ("kernel, α", "mixed αμ", "", "stop"),
], width=6.0)

# %%
lab.show(C.decoupled_uniformity)

# %% [markdown]
# The identity first, by automatic differentiation of one row in float64.

# %%
# NBVAL_CHECK_OUTPUT
worst = 0.0
for closeness in (0.0, 1.0, 3.0, 6.0):
    s = (torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 0.2).requires_grad_()
    shift = closeness * torch.nn.functional.one_hot(torch.tensor(0), 64) / 0.2
    row, logits = torch.eye(64, dtype=torch.float64)[0], s + shift
    coupled, = torch.autograd.grad(logits.logsumexp(0) - logits[0], s, retain_graph=True)
    free, = torch.autograd.grad(logits[1:].logsumexp(0) - logits[0], s)
    worst = max(worst, (coupled - C.coupling(logits.detach()) * free).abs().max().item())
print("identity holds:", worst < 1e-12)

# %% [markdown]
# Now both losses as the chapter runs them. Eight images point in orthogonal directions; the two views of each are
# turned away from it by an angle, to either side. Small angles make easy pairs.

# %%
angles = torch.tensor([1, 2, 5, 10, 15, 20, 25, 30, 35, 40], dtype=torch.float64)
losses = {"InfoNCE": lambda z: C.nt_xent(z, tau=0.1), "decoupled uniformity": C.decoupled_uniformity}
pushes = {name: [] for name in losses}
axes = torch.eye(16, dtype=torch.float64)
for angle in angles.deg2rad():
    for name, loss in losses.items():
        turned = [angle.cos() * axes[:8] + sign * angle.sin() * axes[8:] for sign in (1, -1)]
        z = torch.cat(turned).requires_grad_()
        pushes[name].append(float(torch.autograd.grad(loss(z), z)[0].norm()))
easiest = {name: found[0] / max(found) for name, found in pushes.items()}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Gradient norm against the angle between view and image. Towards small angles the curve of InfoNCE falls by orders of magnitude, that of decoupled uniformity stays level."}, "figure": {"caption": "Easy pairs are on the left. InfoNCE stops pushing; decoupled uniformity does not.", "name": "fig-coupling"}}
figure, axis = lab.plots.axes()
for name, found in pushes.items():
    axis.semilogy(angles, torch.tensor(found) / max(found), "o-", label=name)
axis.set(xlabel="angle of a view to its image (degrees)", ylabel="gradient norm / largest")
_ = axis.legend()

# %%
run.exact("decoupled-uniformity", "The gradient of an InfoNCE row is that of the decoupled row times 1 - q₊",
          worst, at_most=1e-12)  # fmt: skip

# %%
run.exact("decoupled-uniformity", "On easy pairs the gradient of InfoNCE fades, as a share of its largest",
          easiest["InfoNCE"], at_most=0.02)  # fmt: skip

# %%
run.exact("decoupled-uniformity", "On the same pairs that of decoupled uniformity does not",
          easiest["decoupled uniformity"], at_least=0.2)  # fmt: skip

# %% [markdown]
# The second half of the paper is the kernel. Prior vectors $p_x$, attributes or a generative model's code, say which
# images are alike: $\kappa_{xx'}=\exp(-\lVert p_x-p_{x'}\rVert^2/2\sigma^2)$. Each centroid becomes a mixture,
#
# $$ \mu\leftarrow\alpha\,\mu,\qquad \alpha=(\kappa+\lambda I)^{-1}\kappa,\qquad \lambda=0.01, $$
#
# with $\sigma$ the kernel's width, $\lambda$ a ridge that keeps the inverse tame, $I$ the identity, and no gradient through
# $\alpha$. Mixed centroids can only be far apart if like images agree. Here the prior is the
# ink in each row and column of the scene's digit, with half as much noise as signal; on CIFAR-10 it is a PCA of
# the images.
# If the paper is right, the prior pays most where views say least: with weak views that only shift the image.

# %%
lab.show(C.kernel_weights)

# %%
def attributes(images, factors):
    """Ink profiles with half as much noise as signal; where there is no mask, 32 principal components of the pixels."""
    if "mask" in factors:
        ink = torch.cat([factors["mask"].sum(1), factors["mask"].sum(2)], 1)
        ink = (ink - ink.mean(0)) / ink.std(0)
        return ink + 0.5 * torch.randn(ink.shape, generator=torch.Generator().manual_seed(0)).to(ink)
    pixels = images.flatten(1).float() / 255
    pixels = pixels - pixels.mean(0)
    return pixels @ torch.linalg.eigh(pixels.T @ pixels).eigenvectors[:, -32:]

# %%
A = lab.augment
weak = run.pick(quick=lambda x, generator: A.affine(A.to_float(x).repeat(2, 1, 1, 1), shift=0.1, padding="reflection",
                                                    generator=generator),
                full=partial(A.simclr_views, strength=0, grey_p=0))  # fmt: skip
kinds = {"weak": weak, "strong": stage.views}

# %%
prior = attributes(stage.train_images, stage.train_factors)
sigma = 4 * float(torch.pdist(prior[:500]).median())
mixed = prior[torch.randperm(len(prior), generator=torch.Generator().manual_seed(1)).to(prior.device)]
methods = {"SimCLR": C.SimCLR, "decoupled uniformity": C.DecoupledUniformity,
           "+ kernel": partial(C.DecoupledUniformity, prior=prior, sigma=sigma)}  # fmt: skip
arms = [(name, kind) for kind in kinds for name in methods if (name, kind) != ("SimCLR", "weak")]
scores = {f"{name}, {kind}": [] for name, kind in arms} | {"+ shuffled kernel, weak": []}

# %%
short = run.pick(quick=60, full=stage.budget.steps)
for seed in run.seeds:
    for name, kind in arms:
        model = stage.pretrain(f"kernel {name} {kind}", methods[name], seed, views=kinds[kind], steps=short)
        scores[f"{name}, {kind}"].append(stage.knn(model.encoder))
    control = partial(C.DecoupledUniformity, prior=mixed, sigma=sigma)
    model = stage.pretrain("kernel shuffled weak", control, seed, views=kinds["weak"], steps=short)
    scores["+ shuffled kernel, weak"].append(stage.knn(model.encoder))
halves = [(prior[i::2], stage.train_labels[i::2]) for i in (0, 1)]
results["decoupled uniformity"] = scores["decoupled uniformity, strong"]
scores["the attributes alone"] = [lab.evaluate.knn(*halves[0], *halves[1])] * len(run.seeds)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Bars of kNN accuracy for decoupled uniformity, its kernel form and the kernel of shuffled attributes with weak views, for SimCLR, decoupled uniformity and its kernel form with strong views, and for the attributes alone. The kernel helps with both kinds of views; with weak views all arms lie below the dashed line of the untrained encoder."}, "figure": {"caption": "The kernel helps weak and strong views alike; weak views end below the untrained encoder (dashed) even with it. The same short training for all.", "name": "fig-kernel-arms"}}
figure, axis = lab.plots.axes(height=2.9)
names = sorted(scores, key=lambda name: ("alone" in name, "strong" in name))
ordered = {name: scores[name] for name in names}
lab.plots.bars(axis, ordered, "kNN accuracy", untrained)

# %%
gain = {kind: [k - d for k, d in zip(scores[f"+ kernel, {kind}"], scores[f"decoupled uniformity, {kind}"], strict=True)]
        for kind in kinds}  # fmt: skip
run.claim("decoupled-uniformity", "With weak views the kernel gains more than with strong ones",
          gain["weak"], gain["strong"], margin=0.02)  # fmt: skip

# %%
run.claim("decoupled-uniformity", "With weak views, attributes of the right images beat shuffled attributes",
          scores["+ kernel, weak"], scores["+ shuffled kernel, weak"], margin=0.02)  # fmt: skip

# %%
run.claim("decoupled-uniformity", "With strong views and no prior, decoupled uniformity is no worse than SimCLR",
          scores["decoupled uniformity, strong"], scores["SimCLR, strong"], margin=-0.02)  # fmt: skip

# %% [markdown]
# The kernel carries weak views far, though not as far as the attributes reach by themselves; whether it gains more there than
# beside strong views stays open. Weak views end below the untrained encoder all the same, so there the kernel repairs damage rather
# than teaches. Without a prior the loss is no worse than SimCLR. The kernel must be smooth: when settings were chosen, on other seeds, α
# mixed too little to help at the median distance, so σ is four times that here.

# %% [markdown]
# (hallucinator)=
# ## A harder positive, out of thin air
# Two crops of one image can be so alike that their similarity teaches nothing. Better crops cost more encoder passes.
# The Hallucinator makes a third, harder view in feature space, for free: it pushes the second feature away from the
# first by a random amount, sends it through a small network, and adds the pair to the loss,
#
# $$z_h = g\big(z_2 + u\,(z_2 - z_1)\big), \quad u \sim U(0, 1),
# \qquad \mathcal{L} = \tfrac12 \mathcal{L}(z_1, z_2) + \tfrac12 \mathcal{L}(z_1, z_h).$$
#
# Here $z_1$ and $z_2$ are the projections of the two views, $u$ a random amount, $g$ a small trained network, $z_h$ the
# hallucinated positive and $\mathcal L(\cdot,\cdot)$ SimCLR's loss of a pair. The paper reports 0.3 to 3.0 points of linear accuracy. We
# could not confirm its range of $u$ or its network, so those are ours. The natural control turns the sign: with
# $u \sim U(-1, 0)$ the same machine makes *easier* positives by interpolation.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. View 1 and view 2 go through one trained encoder to z1 and z2. The pair enters the loss. A line from z1 through z2 is carried on to a point beyond z2, a small trained network g makes the hallucinated positive z h of it, and the pair of z1 and z h enters the loss too."}, "figure": {"caption": "The third view costs no encoder pass: it is made beyond the second, away from the first, by a small network.", "name": "fig-hallucinator-mechanism"}}
parts = {"two views": (0, 0.6), "encoder": (1.1, 0.6, "trained"), "z₁": (2.1, 0), "z₂": (2.1, 1.2),
         "z₂ + u(z₂ − z₁)": (3.3, 1.2), "g": (4.5, 1.2, "trained"), "loss": (4.5, 0, "loss")}
_ = lab.plots.diagram(parts, [
    ("two views", "encoder"), ("encoder", "z₁"), ("encoder", "z₂"), ("z₁", "loss"), ("z₂", "loss"),
    ("z₂", "z₂ + u(z₂ − z₁)"), ("z₁", "z₂ + u(z₂ − z₁)"), ("z₂ + u(z₂ − z₁)", "g"), ("g", "loss", "zₕ"),
], width=6.2)

# %%
lab.show(C.hallucinate, C.Hallucinator.forward, C.Hallucinator.positive)

# %%
models = {"SimCLR": [], "extrapolate": [], "interpolate": []}
for seed in run.seeds:
    models["SimCLR"].append(simclr(seed))
    for mode in ("extrapolate", "interpolate"):
        models[mode].append(stage.pretrain(f"hallucinator {mode}", partial(C.Hallucinator, mode=mode), seed))
probes = {name: [stage.probe(model.encoder) for model in made] for name, made in models.items()}

# %% [markdown]
# First the mechanism. On new views of test images, how alike are the pair that the encoder made and the pair that was
# hallucinated?

# %%
cosine = {"views": [], "extrapolate": [], "interpolate": []}
with torch.no_grad():
    for i, seed in enumerate(run.seeds):
        seen = stage.views(stage.test_images[:1000], generator=run.generator(seed))
        for mode in ("extrapolate", "interpolate"):
            model = models[mode][i]
            z1, z2 = model.head(model.encoder(seen)).float().chunk(2)
            cosine[mode].append(float(torch.cosine_similarity(z1, model.positive(z1, z2)).mean()))
            if mode == "extrapolate":
                cosine["views"].append(float(torch.cosine_similarity(z1, z2).mean()))

# %%
run.claim("hallucinator", "A hallucinated positive is less like its anchor than the view it was made from",
          ours=cosine["extrapolate"], baseline=cosine["views"], margin=0.02, higher_is_better=False)

# %%
run.claim("hallucinator", "Extrapolated positives improve SimCLR's linear probe", ours=probes["extrapolate"],
          baseline=probes["SimCLR"], margin=0.003)

# %%
run.claim("hallucinator", "Extrapolated positives teach more than interpolated ones", ours=probes["extrapolate"],
          baseline=probes["interpolate"], margin=0.003)

# %% mystnb={"image": {"alt": "Bars of linear probe accuracy for SimCLR and for SimCLR with extrapolated and with interpolated positives; extrapolation is the shortest. A dashed line marks an untrained encoder."}, "figure": {"caption": "Harder positives hurt a training this short, easier ones do not. Dashed: the untrained encoder of the first seed.", "name": "fig-hallucinator"}}
figure, axis = lab.plots.axes(height=1.7)
lab.plots.bars(axis, probes, "linear probe accuracy on the test images (share)", chance=stage.probe(stage.untrained(run.seeds[0])))

# %% [markdown]
# The mechanism is there, and at this length of training it hurts: the *easier* positives teach more (both measured). Harder
# positives suit an encoder that finds its views too easy, and ours is far from that point after ten epochs: our guess.

# %% [markdown]
# (all4one)=
# ## Neighbour, centroid, feature: all for one
#
# NNCLR replaces one view by its nearest neighbour in a queue. One neighbour is a noisy target, and contrasting five of
# them costs five losses. **All4One** lets a small transformer read all five neighbours of a key and give *one*
# centroid. The prediction of the other view enters its own sequence at the front, pushing the last neighbour out: the
# *shift*. A third loss contrasts features, not images:
#
# $$ \mathcal L=\tfrac12\,\mathrm{CE}\big(\mathrm{NN}_1(k_1)\cdot p_2/\tau\big)
#    +\tfrac12\,\mathrm{CE}\big(T[\mathrm{NN}_{1..5}(k_1)]\cdot T[p'_2,\mathrm{NN}_{1..4}(k_2)]/\tau_c\big)
#    +\tfrac12\cdot 10\,\big(\tfrac12\operatorname{rms}(C_{ii}-1)+\tfrac12\operatorname{rms}(C_{i\ne j})\big), $$
#
# Here $k_1$, $k_2$ are the momentum network's keys of the two views, $z_2$ the projection of the second, $p_2$ and $p'_2$ two
# predictions made from it, $\mathrm{NN}_a$ the $a$-th nearest row of the queue, $T$ the transformer read off at its first
# place, CE the cross entropy of finding one's own image in the batch, $\tau$ and $\tau_c$ temperatures, rms the root mean
# square, and $C=k_1^\top z_2$ after bringing each *column* to unit length over the batch. Unlike Barlow Twins the columns
# are not centred, the parts are root mean squares, and one side is the momentum network.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. View 1 goes through the key network, a slow copy, to a queue and on to its five nearest keys. View 2 goes through the trained network to predictions p and p prime. The neighbour loss takes the nearest key and p; a trained transformer reads the five keys on one side, p prime with four keys on the other, for the centroid loss; the feature loss compares key network and network directly."}, "figure": {"caption": "Three contrasts of one pair: with a neighbour, with a centroid of neighbours, and feature by feature.", "name": "fig-all4one-mechanism"}}
parts = {"view 1": (0, 0), "key network": (1.1, 0, "copy"), "queue": (2.2, 0, "store"), "5 nearest": (3.2, 0),
         "neighbour": (4.4, 0, "loss"), "feature": (2.2, 1, "loss"), "transformer": (3.2, 1, "trained"),
         "centroid": (4.4, 1, "loss"), "view 2": (0, 2), "network": (1.1, 2, "trained"), "p, p′": (3.2, 2)}
arrows = [("view 1", "key network"), ("key network", "queue"), ("queue", "5 nearest"), ("5 nearest", "neighbour"),
          ("5 nearest", "transformer"), ("p, p′", "transformer"), ("transformer", "centroid"), ("p, p′", "neighbour"),
          ("view 2", "network"), ("network", "p, p′"), ("network", "feature"), ("key network", "feature", "", "stop"),
          ("network", "key network", "", "stop")]
_ = lab.plots.diagram(parts, arrows, width=6.4, height=3.0)

# %%
lab.show(C.neighbour_contrast, C.feature_contrast)

# %%
lab.show(C.shifted, C.Centroid.forward)

# %%
lab.show(C.All4One.terms)

# %% [markdown]
# A neighbour of random features is a random image, and at our length nothing recovers from such a start. So at quick
# scale every arm continues the chapter's SimCLR encoder; at full scale all start from nothing, as in the paper. The
# paper's claim is strongest for narrow embeddings: we add the terms one by one at width 8, and compare the ends at 64.

# %%
size = run.pick(quick=dict(queue=1024, momentum=0.9), full=dict(queue=4096, momentum=0.99, hidden=1024, layers=3))
short = run.pick(quick=dict(steps=60, batch_size=64), full={})
parts = {"NNCLR": dict(weights=(0.5, 0, 0)), "+ feature": dict(weights=(0.5, 0, 0.5)),
         "+ centroid, attention": dict(weights=(0.5, 0.5, 0)),
         "+ centroid, mean": dict(weights=(0.5, 0.5, 0), pool="mean"), "All4One": {}}  # fmt: skip
wide = {"NNCLR": parts["NNCLR"], "All4One": {}}
trials = {(name, 8): more for name, more in parts.items()} | {(name, 64): more for name, more in wide.items()}
accuracy, right = {trial: [] for trial in trials}, {trial: [] for trial in trials}
trained = {}

# %%
for seed in run.seeds:
    begin = simclr(seed).encoder.state_dict() if run.scale != "full" else stage.encoder(seed).state_dict()
    for (name, dim), more in trials.items():
        encoder = stage.encoder(seed)
        encoder.load_state_dict(begin)
        make = partial(C.All4One, dim=dim, **more, **size)
        trained[seed, name, dim] = stage.pretrain(f"{name} {dim}", make, seed, encoder=encoder, **short)
        accuracy[name, dim].append(stage.knn(trained[seed, name, dim].encoder))
results["All4One, from SimCLR on" if run.scale != "full" else "All4One"] = accuracy["All4One", 64]

# %%
for (_, *trial), model in trained.items():
    with torch.no_grad():
        keys = model.keyed(stage.test_images[:1000].float() / 255)
        first = model.origin[C.nearest(keys, model.queue, 1)[:, 0]]
    same = stage.train_labels[first] == stage.test_labels[:1000]
    right[tuple(trial)].append(same.float().mean().item())

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two groups of bars for NNCLR, each term added, and All4One at width 8, and for NNCLR and All4One at width 64: kNN accuracy with a dashed line at the untrained encoder, and how often the nearest key in the queue has the right label, with a dashed line at chance."}, "figure": {"caption": "What each term adds at width 8, and what is left of it at 64. By objective and width: the encoder's kNN accuracy (dashed: untrained), and how often a test image's nearest key in the queue shows its class (dashed: chance).", "name": "fig-all4one"}}
figure, panels = lab.plots.axes(2, height=2.6, sharey=True)
drawn = ((accuracy, "kNN test accuracy", untrained), (right, "nearest key right (share)", 1 / stage.classes))
for panel, (values, label, line) in zip(panels, drawn, strict=True):
    lab.plots.bars(panel, {f"{name}, d = {dim}": v for (name, dim), v in values.items()}, label, line)
panels[1].invert_yaxis()

# %%
run.claim("all4one", "At width 8 the three terms together beat NNCLR",
          accuracy["All4One", 8], accuracy["NNCLR", 8], margin=0.02)  # fmt: skip

# %%
drop = {name: [w - n for w, n in zip(accuracy[name, 64], accuracy[name, 8], strict=True)] for name in wide}
run.claim("all4one", "From width 64 to 8, All4One loses no more accuracy than NNCLR",
          drop["All4One"], drop["NNCLR"], margin=0.0, higher_is_better=False)  # fmt: skip

# %%
run.claim("all4one", "A centroid by attention beats the mean of the same sequence",
          accuracy["+ centroid, attention", 8], accuracy["+ centroid, mean", 8], margin=0.01)  # fmt: skip

# %% [markdown]
# The shift invites a look. In one sequence the first place is the nearest neighbour, in the other the prediction
# $p'$, and the centroid is read off at that place. Are the four neighbours behind it used at all? We give the shifted
# sequence another image's prediction, or another image's neighbours, and count how often the two centroids of an
# image still find each other among 512.

# %%
solved = {"all its own": [], "another's prediction": [], "another's neighbours": []}
for seed in run.seeds:
    model, draws, pictures = trained[seed, "All4One", 64], run.generator(seed), stage.train_images[:512]
    with torch.no_grad():
        views = stage.views(pictures, generator=draws)
        query = model.query(model.projector(model.encoder(views)))[512:]
        first, second = model.queue[C.nearest(model.keyed(views), model.queue, 5)].split(512)
        for (p, behind), found in zip(((0, 0), (1, 0), (0, 1)), solved.values(), strict=True):
            other = model.centroid(C.shifted(query.roll(p, 0), second.roll(behind, 0)))
            unit = torch.nn.functional.normalize(torch.stack([model.centroid(first), other]), dim=2)
            found.append(((unit[0] @ unit[1].T).argmax(1).cpu() == torch.arange(512)).float().mean().item())

# %% mystnb={"image": {"alt": "Bars of the share of images whose two centroids find each other, with the sequence left alone, with another image's prediction, and with another image's neighbours."}, "figure": {"caption": "Share of 512 images whose two centroids find each other.", "name": "fig-all4one-shift"}}
figure, axis = lab.plots.axes(height=1.8)
lab.plots.bars(axis, solved, "found among 512 (share)", chance=1 / 512)

# %%
run.claim("all4one", "The centroid reads the neighbours behind it: another image's make it fail more often",
          solved["all its own"], solved["another's neighbours"], margin=0.05)  # fmt: skip

# %% [markdown]
# What each term adds by itself stands in the figure; no statement of ours hangs on it. How much the centroid needs its
# company is what the last statement measures: it is read off at the place where the prediction stands, which alone could
# do for the task, and we guess that a training this short leaves it at that.

# %% [markdown]
# (ssl-gen-or-con)=
# ## Generate or contrast: what each keeps
# A survey sorts the field into objectives that *generate* the image, those that *contrast* it with others, and
# adversarial ones in between. Its argument: a generative loss is paid per pixel, so whatever covers many
# pixels counts, needed or not; a contrastive loss is paid for what tells images apart after the views have changed
# them, so what the views change stops counting.
#
# | family | objective | what it needs | members | here |
# |---|---|---|---|---|
# | auto-regressive | $\max \sum_t \log p(x_t \mid x_{<t})$ | an order | PixelCNN, GPT | – |
# | flow | $\max \log p(x)$ by change of variables | invertible layers | NICE, Glow | – |
# | denoising autoencoder | $\min \lVert x - d(e(\tilde x)) \rVert^2$ | a decoder, a noise | BERT, word2vec's context prediction | DAE |
# | variational | $\max \mathbb{E} \log p(x \mid z) - \mathrm{KL}$ | a decoder, a prior | VAE, VQ-VAE | VAE |
# | contrast of context and instance | InfoNCE of part and whole | parts | CPC, Deep InfoMax, DGI | [above](#cpc) |
# | contrast of instances | InfoNCE of two views, or clusters | views | InstDisc, MoCo, SimCLR, SwAV | SimCLR |
# | adversarial | a discriminator of pairs $(x, z)$ | a game | BiGAN, ELECTRA | – |
#
# The survey compares published tables; it has no experiment of its own. This one is ours, and so is what we expect:
# with the same encoder, images and steps, the contrastive arm should tell classes better, and the generative arms
# should keep better what the views randomise. A fourth arm asks which of the two, objective or views, is responsible:
# SimCLR whose views leave the colours alone.

# %%
lab.show(C.negative_elbo, C.DenoisingAutoencoder)

# %%
side = stage.train_images.shape[-1]
keeping = run.pick(
    quick=C.colour_keeping_views,
    full=lambda x, generator: lab.augment.simclr_views(x, generator, jitter_p=0, grey_p=0),
)
calm = run.pick(quick={}, full=dict(lr=1e-3, optimizer="adamw", weight_decay=1e-4))
trained = {"random encoder": lambda s: stage.untrained(s),
           "denoising AE": lambda s: stage.pretrain("dae", lambda e: C.DenoisingAutoencoder(e, side), s, views=C.noisy_views(), **calm).encoder,
           "VAE": lambda s: stage.pretrain("vae", lambda e: C.VAE(e, side), s, views=C.noisy_views(), **calm).encoder,
           "SimCLR": lambda s: simclr(s).encoder,
           "SimCLR, colours kept": lambda s: stage.pretrain("colours kept", C.SimCLR, s, views=keeping).encoder}  # fmt: skip

# %% [markdown]
# The nuisance is the colour of the background and of the ink (on CIFAR-10: mean colour and contrast). We ask for it
# twice: can a linear map read it, and do an image's neighbours share it?

# %%
colours = lambda factors: torch.cat([factors["background"], factors["ink"]], 1)
t, t_test = run.pick(quick=lambda: [colours(stage.train_factors), colours(stage.test_factors)],
                     full=lambda: [C.picture_factors(stage.train_images), C.picture_factors(stage.test_images)])()
z = {(n, s): stage.both(make(s)) for n, make in trained.items() for s in run.seeds}
kind = {n: [lab.evaluate.knn(*z[n, s]) for s in run.seeds] for n in trained}
read = {n: [lab.evaluate.ridge_r2(z[n, s][0], t, z[n, s][2], t_test) for s in run.seeds] for n in trained}
near = {n: [C.neighbour_r2(z[n, s][0], t, z[n, s][2], t_test) for s in run.seeds] for n in trained}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three bar charts for a random encoder, denoising autoencoder, VAE, SimCLR and SimCLR with colours kept: class accuracy, colour R² of a linear map, and colour R² of the nearest neighbours. SimCLR leads the first and is last in the third."}, "figure": {"caption": "All encoders hold the colour (middle); what differs is whether neighbours share it (right) or the class (left). Dashed: the random encoder. Dots are seeds.", "name": "fig-gen-or-con"}}
figure, three = lab.plots.axes(3, width=9)
for axis, values, label in zip(three, (kind, read, near), ("class, kNN accuracy", "colour, linear R²", "colour, neighbours' R²")):
    lab.plots.bars(axis, values, label, chance=mean(values["random encoder"]))
_ = [axis.set_yticklabels([]) for axis in three[1:]]

# %%
run.claim("ssl-gen-or-con", "The contrastive encoder tells classes better than the better of two generative ones.",
          kind["SimCLR"], [max(a, b) for a, b in zip(kind["denoising AE"], kind["VAE"])], margin=0.1)  # fmt: skip

# %%
run.claim("ssl-gen-or-con", "The denoising autoencoder keeps what the views randomise better: neighbours share colours.",
          near["denoising AE"], near["SimCLR"], margin=0.1)  # fmt: skip

# %%
run.claim("ssl-gen-or-con", "It is the views that decide: SimCLR whose views keep the colours keeps them too.",
          near["SimCLR, colours kept"], near["SimCLR"], margin=0.1)  # fmt: skip

# %%
run.claim("ssl-gen-or-con", "SimCLR tells classes better when its views change the colours than when they keep them.",
          kind["SimCLR"], kind["SimCLR, colours kept"], margin=0.1)  # fmt: skip

# %% [markdown]
# Nearly all of the colour can be read from every encoder by a linear map, an untrained one included (measured). What an
# objective decides is not what the features hold but what they put close together. And the line does not run between
# generating and contrasting alone: a SimCLR whose views keep the colours has an autoencoder's neighbours. It tells classes
# better than either autoencoder all the same, but no better than the untrained encoder does. The gap between the neighbours'
# colours is about as wide as we had asked for, so read its size in the ledger, not the verdict alone.

# %% [markdown]
# ## Where the chapter ends
# Methods that were measured by nearest neighbours, side by side; 0 of the way is the untrained encoder, 1 the same
# encoder taught with all labels. Lengths of training are those of the sections, so the rows are not a race. The
# [part's page](../../book/parts/self_supervision.md) has the same table for all its chapters.

# %%
run.summarise("kNN test accuracy", results, floor="random encoder", ceiling="supervised")

# %% [markdown]
# ## What carries over
#
# Every claim of the chapter at each scale that measured it, under what its paper reports.
#
# Read it knowing how it was made. An earlier version of this page was measured with lengths fitted to its minute on the
# same seeds. For this one, statements, margins and settings were fixed first, all but one, on seeds and validation images of their
# own, and then everything was measured once, on new scenes and in new orders. It was measured again when the random encoder got
# the BatchNorm statistics of the images, when k-means got other starting rows, and when All4One's networks became the released ones. What the first round taught us stays in
# the choice of statements, and the one exception is the survey's last claim: it was added after its figure had been seen. And three verdicts
# are known to move with the length of training: stronger views in MoCo, layer norm in CPC v2, and CPC v2 against training
# from scratch.

# %%
run.carry_over()

# %% tags=["remove-cell"]
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %% [markdown]
# ## Exercises
#
# From a check of understanding to a question for an afternoon. Try first; the solutions are real cells and ran with
# this page.

# %% [markdown]
# ````{exercise-start} MoCo's loss from its equation
# :label: ex-moco-loss
# ````
# Write MoCo's equation 1 in three lines: normalise, one column of logits for the own key and $K$ for the queue, and a
# cross entropy whose right answer is always column 0. Check it against `C.moco_loss`. Then send a gradient through
# your loss: which of `q`, `k` and `queue` get one, and which should?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-moco-loss
# :class: dropdown
# ````

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
q, k, queue = (torch.randn(rows, 16, requires_grad=True) for rows in (8, 8, 32))
unit_q, unit_k, unit_queue = (torch.nn.functional.normalize(x, dim=1) for x in (q, k.detach(), queue.detach()))
logits = torch.cat([(unit_q * unit_k).sum(1, keepdim=True), unit_q @ unit_queue.T], 1) / 0.1
mine = torch.nn.functional.cross_entropy(logits, torch.zeros(8, dtype=torch.long))
mine.backward()
print(torch.allclose(mine, C.moco_loss(q, k, queue, tau=0.1)), [x.grad is not None for x in (q, k, queue)])

# %% [markdown]
# Only the query has a gradient. Without the two `detach` calls, keys would get one too, and the key encoder would be
# trained by back-propagation through a graph that reaches back as far as the queue.
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} How many false negatives can a sampler avoid?
# :label: ex-false-negatives
# ````
# A batch of $B$ images is drawn from $C$ classes of equal size. What is the expected false-negative rate of a random
# batch, and what is the least that any sampler can reach when $C$ divides $B$? For which $B$ is the difference worth
# the effort? Check one case with `C.false_negative_rate`.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-false-negatives
# :class: dropdown
# ````

# %%
# NBVAL_CHECK_OUTPUT
labels = torch.arange(2000) % 10
best = C.guided_order(labels)
for B in (10, 20, 100):
    print(B, round(C.false_negative_rate(best, labels, B), 4), round((B / 10 - 1) / (B - 1), 4))

# %% [markdown]
# Random batches have $1/C$. A balanced batch holds $B/C$ of each class, so $B/C - 1$ of an anchor's $B - 1$ negatives
# are false: $(B/C - 1)/(B - 1)$, which is 0 at $B = C$ and goes to $1/C$ as $B$ grows. Beyond a few times $C$ there is
# nothing left to avoid. Guided sampling is a method for small batches, or for many classes.
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} How much information can a batch show?
# :label: ex-cpc-bound
# ````
# A pair of views shares 8 nats. How many candidates does InfoNCE need before its estimate could come within one nat
# of that? Check that the estimate of `mi_bound` reaches $\log N$ when every positive is certain, and say why this
# makes a larger batch look better even where the features are the same.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-cpc-bound
# :class: dropdown
# ````

# %%
# NBVAL_CHECK_OUTPUT
need = torch.tensor(8.0 - 1).exp().ceil().int().item()
certain = {n: round(C.mi_bound(40 * torch.eye(n), torch.eye(n)).item(), 3) for n in (2, 16, 256)}
need, certain

# %% [markdown]
# At least $e^7$, about 1,100 candidates. With certain positives $\mathcal{L}_N = 0$ and all that is left is $\log N$: the
# figure grows with the batch alone, so it may compare two encoders at one $N$, and never two batch sizes.
#
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A kernel that sees no difference
# :label: ex-kernel-width
# ````
# With $\sigma\to\infty$ the kernel calls all images alike. What is then the largest distance between two mixed
# centroids, and what value does the loss take for any encoder? Work it out, then measure both for
# $\sigma$ = 1, 10, 100 and 10⁴ median distances on random centroids.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-kernel-width
# :class: dropdown
# ````
# $\kappa$ becomes the matrix of ones, with the single eigenvalue $n$. So
# $\alpha\to\frac{1}{n+\lambda}\mathbf 1\mathbf 1^\top$: every centroid becomes nearly the mean of all, distances vanish, and the loss is $\log 1=0$ whatever the encoder does.

# %%
# NBVAL_CHECK_OUTPUT
draws = torch.Generator().manual_seed(0)
codes, views = torch.randn(64, 8, generator=draws), torch.randn(128, 32, generator=draws)
centroids = torch.nn.functional.normalize(views, dim=1).view(2, 64, 32).mean(0)
for wide in (1, 10, 100, 10_000):
    alpha = C.kernel_weights(codes, sigma=wide * float(torch.pdist(codes).median()))
    spread, loss = torch.pdist(alpha @ centroids).max(), C.decoupled_uniformity(views, alpha)
    print(f"{wide:6} median distances: spread below 0.01 {bool(spread < 0.01)}, loss above -0.01 {bool(loss > -0.01)}")

# %% [markdown]
# A prior that sees no difference takes the gradient away, and training stops without an error.
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Two forces, measured
# :label: ex-two-forces
# ````
# A research question for an afternoon. NT-Xent is said to do two things: bring the views of an image together
# (*alignment*, lower is better) and spread all images over the sphere (*uniformity*, lower is better). Measure both for
# the random and for the trained encoder, on fresh views of test images. Which of the two did training improve more?
# Then find out whether the answer depends on $\tau$, and state it as a claim: arms, margin, seeds.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-two-forces
# :class: dropdown
# ````

# %%
forces = {}
for name, encoder in (("random", stage.untrained(run.seeds[0])), ("trained", simclr(run.seeds[0]).encoder)):
    with torch.no_grad():
        h = encoder.eval()(stage.views(stage.test_images[:500], generator=run.generator(0))).float()
    one, other = torch.nn.functional.normalize(h, dim=1).chunk(2)
    forces[name] = float(lab.evaluate.alignment(one, other)), float(lab.evaluate.uniformity(one))
print({name: (round(a, 2), round(u, 2)) for name, (a, u) in forces.items()})

# %%
# NBVAL_CHECK_OUTPUT
print("training brings the two views of an image together:", forces["trained"][0] < forces["random"][0])

# %% [markdown]
# Training pulls the views of an image together and leaves the spread of all images about as it was: BatchNorm had
# spread a random encoder's features over the sphere already. So uniformity by itself says nothing about learning here,
# and neither does alignment, which a constant encoder has perfectly. Only both at once describe a representation. For the second
# half, train with `stage.pretrain("tau 0.05", partial(C.SimCLR, tau=0.05), seed)` and a few more temperatures, and hand
# `run.claim` one value a seed for each arm.
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} NT-Xent from its equation
# :label: ex-nt-xent
# ````
# Write SimCLR's loss (eq. 1) of $2n$ projections, where rows $i$ and $i+n$ are the two views of image $i$. With the cosine
# $s_{ik} = z_i^\top z_k / (\lVert z_i\rVert \lVert z_k\rVert)$ and $i'$ the row of the other view of $i$'s image,
#
# $$\mathcal L = -\frac{1}{2n} \sum_{i=1}^{2n} \log \frac{\exp(s_{ii'}/\tau)}{\sum_{k \neq i} \exp(s_{ik}/\tau)}.$$
#
# Small temperatures must not overflow, nor may a far positive end as $\log 0$. What is the loss when all rows are alike?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-nt-xent
# :class: dropdown
# ````
# It is a cross entropy over $2n - 1$ candidates: the row itself is struck out, the other view is the right answer. Rows that are
# all alike give $\log(2n-1)$.

# %% tags=["task:nt-xent"]
import torch
import torch.nn.functional as F


def nt_xent(z, tau):
    """SimCLR's loss, a scalar, of projections z (2n, d), not normalised; tau > 0."""
    ### BEGIN SOLUTION
    z = F.normalize(z, dim=1)
    logits = z @ z.T / tau
    itself = torch.eye(len(z), dtype=torch.bool)
    other = torch.arange(len(z)).roll(len(z) // 2)
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), other)
    ### END SOLUTION


# %% tags=["task-tests:nt-xent:3", "remove-cell"]
import math

alike = nt_xent(torch.ones(6, 4), 0.5)
assert alike.shape == (), "the loss is one number"
assert abs(float(alike) - math.log(5)) < 1e-4, "rows alike: five candidates, none better than the others"
### BEGIN HIDDEN TESTS
z = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
rows = [[v / math.hypot(*row) for v in row] for row in z.tolist()]
e = [[math.exp(sum(a * b for a, b in zip(p, q)) / 0.3) for q in rows] for p in rows]
want = -sum(math.log(e[i][(i + 5) % 10] / (sum(e[i]) - e[i][i])) for i in range(10)) / 10
assert abs(float(nt_xent(z, 0.3)) - want) < 1e-4
### END HIDDEN TESTS

# %% tags=["task-tests:nt-xent:2", "remove-cell"]
z = torch.cat([torch.eye(4), torch.eye(4)])
assert abs(float(nt_xent(z, 0.5)) - math.log(1 + 6 * math.exp(-2))) < 1e-4, "views agree, images are orthogonal"
### BEGIN HIDDEN TESTS
assert abs(float(nt_xent(z, 0.005))) < 1e-4, "a small temperature overflows"
far = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # each view opposite, two others beside
assert abs(float(nt_xent(far, 0.001)) - 1000 - math.log(2)) < 1e-2, "a positive that is far away"
z = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
leaf = z.clone().requires_grad_()
nt_xent(leaf, 0.5).backward()
assert float((leaf.grad * z).sum(1).abs().max()) < 1e-4, "the length of a row must not matter"
for step in 0.01 * torch.eye(18).view(18, 6, 3):  # each value of both views a little up and down
    slope = float(nt_xent(z + step, 0.5) - nt_xent(z - step, 0.5)) / 0.02
    assert abs(100 * float((leaf.grad * step).sum()) - slope) < 2e-3, "the gradient"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
print("as the package has it:", torch.allclose(nt_xent(z, 0.2), C.nt_xent(z, 0.2)))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A slow encoder and a queue
# :label: ex-moco-update
# ````
# Write both halves of MoCo's update. No gradient takes part in either.
#
# - `follow` moves every parameter of the key encoder, in place: $\theta_k \leftarrow m\,\theta_k + (1-m)\,\theta_q$ (eq. 2).
# - `enqueue` puts a batch of keys, normalised and in their order, before those in the queue; the oldest leave at the other end. A batch
#   longer than the queue fills it with its first $K$ keys.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-moco-update
# :class: dropdown
# ````
# The usual slips: the weights the wrong way round, and keys whose graph is still attached. Then the queue holds on to every batch
# it has seen, and memory grows by the step.

# %% tags=["task:moco-update"]
import torch


def follow(key, query, m):
    """Move the parameters of the module ``key`` towards those of ``query``, in place; m in [0, 1]."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        for slow, fast in zip(key.parameters(), query.parameters()):
            slow.copy_(m * slow + (1 - m) * fast)
    ### END SOLUTION


def enqueue(queue, k):
    """The queue (K, d) after the keys k (n, d) came in: K unit rows without a graph, the newest batch first."""
    ### BEGIN SOLUTION
    keys = torch.nn.functional.normalize(k.detach(), dim=1)
    return torch.cat([keys, queue])[: len(queue)]
    ### END SOLUTION


# %% tags=["task-tests:moco-update:2", "remove-cell"]
torch.manual_seed(0)
key, query = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
weight, bias = key.weight, key.bias
before, goal = key.weight.tolist(), query.weight.tolist()
follow(key, query, 1.0)
assert key.weight.tolist() == before, "m = 1 moves nothing"
### BEGIN HIDDEN TESTS
follow(key, query, 0.9)
follow(key, query, 0.9)
for old, new, towards in zip(before, key.weight.tolist(), goal):
    assert all(abs(n - (0.81 * o + 0.19 * t)) < 1e-5 for o, n, t in zip(old, new, towards))
assert query.weight.tolist() == goal, "the query encoder must stay"
assert key.weight is weight and key.bias is bias, "in place: an optimiser keeps hold of the parameters"
follow(key, query, 0.0)
assert torch.allclose(key.bias, query.bias) and key.bias.is_leaf and key.bias.grad_fn is None
follow(query, torch.nn.Linear(3, 2), 0.0)
assert not torch.allclose(key.bias, query.bias), "key and query share a tensor"
### END HIDDEN TESTS

# %% tags=["task-tests:moco-update:2", "remove-cell"]
queue = enqueue(torch.zeros(4, 2), torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
want = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
assert torch.allclose(queue.to(want.dtype), want, atol=1e-5), "new keys in front, as unit rows"
### BEGIN HIDDEN TESTS
k = torch.tensor([[-3.0, 4.0], [-2.0, 0.0], [0.0, -1.0]], requires_grad=True)
queue = enqueue(queue.to(want.dtype), k)
want = torch.tensor([[-0.6, 0.8], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
assert queue.shape == (4, 2) and torch.allclose(queue.to(want.dtype), want, atol=1e-5)
assert not queue.requires_grad, "keys keep their graph"
short = enqueue(queue[:2].to(want.dtype), k.detach())
assert torch.allclose(short.to(want.dtype), want[:2], atol=1e-5), "a batch longer than the queue"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
queue = torch.zeros(6, 2)
for batch in range(3):
    queue = enqueue(queue, torch.full((2, 2), batch + 1.0) * torch.tensor([1.0, batch]))
[round(float(angle), 2) for angle in torch.atan2(queue[:, 1], queue[:, 0])]

# %% [markdown]
# ````{solution-end}
# ````

# %%
run.close()

# %% [markdown]
# ## Where to go next
#
# [Redundancy reduction](redundancy.ipynb) asks the question that this chapter leaves open: if the negatives only keep
# the representation from collapsing, can a cheaper term do it? All papers stand in [the paper index](../../book/papers.md),
# all claims on [the evidence page](../../book/evidence.md).
