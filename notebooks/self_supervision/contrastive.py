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
# **Time**: one to three minutes on a laptop at quick scale. The same cells run at full size (CIFAR-10, ResNet-18) on a
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
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch

import labcode as lab
from labcode.course.stage import Stage
from labcode.self_supervision import contrastive as C
from labcode.self_supervision.redundancy import barlow_twins

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
# Every method of this chapter plays on one stage: the same images, the same views, the same encoder. Twelve papers
# share a minute, so trainings are shorter than the stage's own, and in smaller batches. `run` knows the scale, the
# seeds and the ledger, where every verdict is written down; `stage` holds the rest. At quick scale the images are
# **scenes**: real handwritten digits in any colour on photo textures. Raw colours say nothing about the class, so there
# is something to learn.
#
# Under every statement stands its verdict, drawn:
# [how to read a verdict](../../book/how_to_use.md#how-to-read-a-verdict). What a minute has no room for is left to
# longer runs. Where one has been made, its verdicts stand beside the minute's in [the last table](#what-carries-over).

# %%
run = lab.start("self_supervision/contrastive")
stage = Stage(run)
short = replace(stage.budget, steps=100, batch_size=64)  # twelve papers share a minute
stage.budget = run.pick(quick=short, full=stage.budget)
longer = run.scale != "quick"  # points, arms and claims that a minute has no room for
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
# Let $z_1 \dots z_{2n}$ be the projections of two views of $n$ images, that is what a small head makes of the encoder's
# features, scaled to unit length, and $s_{ij} = z_i \cdot z_j / \tau$. SimCLR asks each view, the *anchor*, to find its
# other half $i'$, the *positive*, among the $2n - 1$ others; the rest are its *negatives*:
#
# $$\mathcal L = -\frac{1}{2n}\sum_{i=1}^{2n} \log \frac{e^{s_{ii'}}}{\sum_{j \ne i} e^{s_{ij}}}.$$
#
# Here $n$ counts the images of the batch, $i$ and $j$ its views, $i'$ is the other view of $i$'s image, $s_{ij}$ the
# similarity of two views, $\tau > 0$ the temperature. It is a cross entropy with $2n - 1$ classes that are made anew in
# every batch, and SimCLR calls it NT-Xent. A loss of this form, find the right one among candidates, is called
# **InfoNCE**. The lower $\tau$, the more the hardest negatives count.

# %%
lab.show(C.nt_xent, C.SimCLR)

# %%
simclr = lambda seed: stage.pretrain("simclr", C.SimCLR, seed)  # the chapter's baseline, trained once a seed
blank = lambda seed: run.once(("untrained", seed), lambda: stage.untrained(seed))
floor = {name: [stage.references(seed)[name] for seed in run.seeds] for name in stage.references(run.seeds[0])}
floor = {**floor, "SimCLR": [stage.knn(simclr(seed).encoder) for seed in run.seeds]}
results = dict(floor)  # grows section by section into the table at the end
mean = lambda values: sum(values) / len(values)
draw = partial(lab.plots.curve, width=5.0, height=2.3)
random = floor["random encoder"]  # below it a training has taught nothing
untrained = mean(random)  # the dashed line of the figures below

# %% mystnb={"image": {"alt": "Horizontal bars of nearest-neighbour test accuracy for chance, raw pixels, a random encoder, supervised training and SimCLR. A dashed line stands at the random encoder; SimCLR lies far above it and below supervised training."}, "figure": {"caption": "Without a label SimCLR covers a good part of the way from the untrained encoder (dashed here and below) to the one taught with all labels. Dots are seeds.", "name": "fig-contrastive-floor"}}
figure, axis = lab.plots.axes(height=2.2)
lab.plots.bars(axis, floor, "test accuracy, kNN (share of images)", chance=untrained)

# %% [markdown]
# Raw pixels and a random encoder are the bars to clear: what does not beat them has learnt nothing. The supervised
# ceiling sees every label. SimCLR covers a good part of the way from the random encoder to it, in a few seconds. A few
# arms of this chapter end below the untrained encoder. To them training did harm: random features would have served
# better.
#
# The loss is taken behind a *projection head*, which is thrown away. What would we lose by keeping it? Read the same
# trained networks at both places.

# %%
behind = lambda model: torch.nn.Sequential(model.encoder, model.head)
places = {"before the head": floor["SimCLR"], "behind it": [stage.knn(behind(simclr(seed))) for seed in run.seeds]}
{name: round(mean(values), 2) for name, values in places.items()}

# %% [markdown]
# Accuracies of nearest neighbours. The two places are close: this linear head throws hardly anything away (measured).
# SimCLR's authors report that the output of a deeper head, after a long training, is the worse place by far; at our
# length that is not tested.

# %% [markdown]
# ### A common start
#
# Several methods compare an image with stored features of others, in a *bank* or a *queue*. What random networks put
# there is no good opponent, and a minute leaves no time to wait until it is one. So at quick scale all methods on
# images but the last section's, and their rivals beside them, go on from one encoder a seed that SimCLR has only begun
# to train. As it stands it reads little better than the untrained one; the table at the end has both. At full scale all
# start from nothing, as in the papers. CPC v2 has an encoder of its own and starts from nothing too.

# %%
def begun(seed):
    """A new encoder; at quick and long scale after SimCLR's first forty steps, whatever comes after."""
    if run.scale == "full":
        return stage.encoder(seed)
    return deepcopy(stage.pretrain("begun", C.SimCLR, seed, steps=40, batch_size=128, stretch=False).encoder)


# %% [markdown]
# Two trainings that several sections need: SimCLR going on from there, and instance discrimination over all images.

# %%
onwards = dict(steps=run.pick(quick=60, full=None))


def further(seed):
    """SimCLR, going on from where it began."""
    return stage.pretrain("simclr onwards", C.SimCLR, seed, encoder=begun(seed), **onwards)


n, one_view = len(stage.train_images), partial(stage.views, views=1)
memory = dict(views=one_view, steps=run.pick(quick=60, full=None), batch_size=run.pick(quick=128, full=None),
              lr=run.pick(quick=2e-3, full=0.03))  # fmt: skip


def instances(seed):
    """NPID with the softmax over all images."""
    return stage.pretrain("npid all images", partial(C.NPID, images=n, tau=0.2), seed, encoder=begun(seed), **memory)


results["SimCLR, begun"] = [stage.knn(begun(seed)) for seed in run.seeds]

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
# All arms have the same budget. In the parametric one, which is Exemplar-CNN's loss, the bank holds trained weights in
# place of features, and nothing else differs. The paper's table has a jigsaw too: shuffle a picture's quarters and tell
# their order. What noise-contrastive estimation gains from more noise images, only longer runs ask.

# %%
lab.show(C.Jigsaw.forward)

# %%
sizes, many = run.pick(quick=(), long=(1, 16, 256, 1024), full=(1, 16, 512, 4096)), run.pick(quick=256, full=4096)
arms = {f"NCE, K = {K}": partial(C.NPID, images=n, tau=0.2, softmax="nce", negatives=K) for K in sizes}
arms |= {"parametric": partial(C.NPID, images=n, tau=0.2, softmax="parametric"), "jigsaw": C.Jigsaw}
npid = {"all images": [stage.knn(instances(seed).encoder) for seed in run.seeds]} | {name: [] for name in arms}
for seed in run.seeds:
    for name, make in arms.items():
        model = stage.pretrain(f"npid {name}", make, seed, encoder=begun(seed), **memory)
        npid[name].append(stage.knn(model.encoder))
results |= {"NPID": npid["all images"], "jigsaw": npid["jigsaw"]}

# %% mystnb={"image": {"alt": "Bars of kNN accuracy: non-parametric softmax over all images, the parametric instance softmax, and the jigsaw. A dashed line marks the untrained encoder."}, "figure": {"caption": "A bank of features ends above trained weights, and a jigsaw above both at this length. Dashed: the untrained encoder.", "name": "fig-npid"}}
figure, axis = lab.plots.axes(height=1.8)
lab.plots.bars(axis, npid, "kNN accuracy on the test images (share)", chance=untrained)

# %%
run.claim("npid", "Features in a memory bank make better instance classes than trained weights do",
          ours=npid["all images"], baseline=npid["parametric"], margin=0.05, floor=random)

# %%
run.claim("npid", "Telling images apart teaches more than a jigsaw of their quarters",
          ours=npid["all images"], baseline=npid["jigsaw"], margin=0.05, floor=random)

# %%
if longer:
    noisy = {"noise-contrastive": [npid[f"NCE, K = {K}"] for K in sizes], "all images": [npid["all images"]] * len(sizes)}
    run.curve("npid", "accuracy over the number of noise images", sizes, noisy, "noise images K (count)",
              "kNN accuracy (share)", log=True)
    run.claim("npid", "Noise-contrastive estimation gains from many noise images over one",
              ours=npid[f"NCE, K = {many}"], baseline=npid["NCE, K = 1"], margin=0.05, floor=random)

# %% [markdown]
# Every image meets its class once an epoch, so the bank and the features drift apart in jumps. The paper adds a
# proximal term, 30 times $\lVert f - v_i \rVert^2$, the squared step away from the last epoch's feature. The released
# code has none: there the averaging in the bank's update does this work. We switch the averaging off and look at the
# term alone.

# %%
jump, few_steps = {pull: [] for pull in (0.0, 30.0)}, dict(steps=run.pick(quick=32, full=2000))
for seed in run.seeds:
    for pull in jump:
        make = partial(C.NPID, images=n, tau=0.2, momentum=0.0, pull=pull)
        model = stage.pretrain(f"npid pull {pull:g}", make, seed, encoder=begun(seed), **memory | few_steps)
        jump[pull].append(float(model.moved))
run.claim("npid", "The proximal term shortens the step of a feature from one epoch to the next",
          ours=jump[30.0], baseline=jump[0.0], margin=0.05, higher_is_better=False)

# %% [markdown]
# The parametric softmax has the same loss, the same vectors to fill and more to learn with, and stays behind the bank
# (measured; whether by as much as we asked, the seeds leave open). A class that is seen once an epoch by a gradient has
# no time to become anything: that is our guess.
#
# The jigsaw, though, does better than telling images apart (measured), against the paper's table. Instance
# discrimination has met each of its classes a handful of times when we stop, and the order of four quarters is learnt
# from every image alike: our guess at the reason. Four times as long, instance discrimination ends above the jigsaw, by
# how much three seeds leave open, and more noise images bring the estimate close to the softmax (measured). The
# proximal term does shorten the steps (measured); what that does for the features, no arm asks.

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
# Here $s_j=f\cdot v_j/\tau$ scores the view's feature $f$ against entry $j$ of the bank and $i$ is the image itself.
# $\mathcal P$ holds the hard positives, at most twenty an image. $\mathcal B$ is the background: the $K$ entries most
# similar to $f$, the image's own left out. A hard positive is in $\mathcal B$ only if it is that similar, so
# $\mathcal L_\text{inv}$ can fall below 0. The second term waits until a warm-up with the first alone has made the
# neighbours worth trusting.

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

# %% [markdown]
# The first term: the own score against the background's.

# %%
lab.show(C.invariance_propagation, start="logits = unit_rows", end="instance = ")

# %% [markdown]
# The second: of what was reached, each image once (`kept`), the least similar are chosen and set against the
# background.

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
# The warm-up is the section before: instance discrimination. Two arms go on from it, which differ in the positives
# alone: none and hard ones. Longer runs add easy ones, and hard ones after other numbers of steps on the graph.

# %%
depths = run.pick(quick=(3,), long=(1, 2, 3, 4), full=(1, 2, 3, 4))
size = run.pick(quick=dict(background=256), full=dict(background=4096))
after = dict(views=one_view, steps=run.pick(quick=40, full=stage.budget.steps // 2), batch_size=memory["batch_size"])
choices = {"none": dict(select="none")} | ({"easy": dict(select="easy")} if longer else {})
choices |= {f"hard, level {level}": dict(select="hard", levels=level) for level in depths}
arms = {name: [] for name in choices}
for seed in run.seeds:
    for name, choice in choices.items():
        make = lambda e, choice=choice, seed=seed: C.InvariancePropagation.following(instances(seed), **choice, **size)
        arms[name].append(stage.knn(stage.pretrain(f"propagation {name}", make, seed, **after).encoder))

# %% [markdown]
# First the premise, without any training: is the propagated set *purer*, more of it of the anchor's class, than
# *equally many* nearest neighbours? We ask it of the bank after the warm-up, and of a case where the answer should be
# yes: two thin strands that run side by side on the sphere, so that a ball around a point soon reaches the other
# strand.

# %%
side, steps, found = torch.arange(200) % 2, run.pick(quick=(1, 2, 3), long=(1, 2, 3, 4), full=(1, 2, 3, 4)), {}
for seed in run.seeds:
    angle = 2 * torch.pi * torch.rand(200, generator=torch.Generator().manual_seed(seed))
    height, flat = 0.3 * side, (0.3 * side).cos()
    strands = torch.stack([flat * angle.cos(), flat * angle.sin(), height.sin()], 1)
    for place, bank, labels in (("bank", instances(seed).bank, stage.train_labels), ("strands", strands, side)):
        for level in steps:
            found.setdefault((place, level), []).append(C.purities(bank, labels, level))

# %%
sides = ("propagated", "nearest, as many")
reach = {place: {name: [[both[i] for both in found[place, level]] for level in steps] for i, name in enumerate(sides)}
         for place in ("bank", "strands")}  # fmt: skip

# %% mystnb={"image": {"alt": "Purity against propagation steps one to three on two thin strands; propagation falls less than equally many nearest neighbours."}, "figure": {"caption": "Where classes are thin strands, walking stays inside and a ball does not: share of the chosen points on the anchor's strand.", "name": "fig-propagation-strands"}}
found = run.curve("invariance-propagation", "purity over steps, two thin strands", steps, reach["strands"],
                  "steps on the graph (count)", "purity (share)", data="points on the sphere")  # fmt: skip
_ = draw(found)

# %%
at = steps.index(3)
run.claim("invariance-propagation", "On two thin strands the propagated set is purer than as many nearest neighbours",
          *(points[at] for points in reach["strands"].values()), margin=0.02, data="points on the sphere")  # fmt: skip

# %% mystnb={"image": {"alt": "Purity against propagation steps one to three on the bank of scenes after the warm-up; both curves fall, that of propagation below that of equally many nearest neighbours."}, "figure": {"caption": "On the bank of scenes the plain neighbours are the purer ones.", "name": "fig-propagation-purity"}}
found = run.curve("invariance-propagation", "purity over steps, bank after the warm-up", steps, reach["bank"],
                  "steps on the graph (count)", "purity (share)")  # fmt: skip
_ = draw(found)

# %%
run.claim("invariance-propagation", "On the bank after the warm-up the propagated set is purer too",
          *(points[at] for points in reach["bank"].values()), margin=0.0)  # fmt: skip

# %%
results["invariance propagation"] = arms["hard, level 3"]
run.claim("invariance-propagation", "Hard propagated positives beat going on with instance discrimination alone",
          arms["hard, level 3"], arms["none"], margin=0.03, floor=random)  # fmt: skip

# %%
if longer:
    run.curve("invariance-propagation", "accuracy over steps on the graph", depths,
              {"hard positives": [arms[f"hard, level {level}"] for level in depths]}, "steps on the graph (count)",
              "kNN accuracy (share)")  # fmt: skip
    run.claim("invariance-propagation", "Hard positives beat easy ones", arms["hard, level 3"], arms["easy"],
              margin=0.03, floor=random)

# %% [markdown]
# What fails here is the premise. Where the classes are thin strands, walking wins; on the scenes' bank the plain
# neighbours are purer (both measured), and most of what either finds shows another digit. Four nearest neighbours are
# already wrong so often that three steps multiply the errors: our guess. With such positives the loss gains less than
# we asked (measured); what it would gain with purer ones, no arm says. Four times as long, the bank is purer and the
# two kinds of sets are about equally pure; hard positives still gain less than we asked, over none and over easy ones
# (measured).

# %% [markdown]
# (moco)=
# ## A dictionary that outlives its batch
# SimCLR's negatives are its batch, so many negatives need a large machine. NPID's bank holds as many as there are
# images, but each was encoded by a network up to an epoch old. Momentum contrast (MoCo) keeps a **queue** of the last
# $K$ keys, and makes keys with an encoder that changes slowly. Keys of one queue come from many steps; the less their
# encoder has changed between them, the better they can be compared. That is what the *momentum* is for, the share of
# its old weights that the key encoder keeps at each step:
#
# $$\mathcal{L}_q = -\log \frac{\exp(q \cdot k_+ / \tau)}{\exp(q \cdot k_+ / \tau) + \sum_{i=1}^{K} \exp(q \cdot k_i / \tau)},
# \qquad \theta_k \leftarrow m\,\theta_k + (1 - m)\,\theta_q .$$
#
# Here $q$ is the query (one view), $k_+$ the key of the same image's other view, $k_1 \dots k_K$ the keys in the queue,
# all of unit length; $\theta_q$ and $\theta_k$ are the weights of query and key encoder, $m \in [0, 1)$ the momentum,
# $\tau$ the temperature. The order matters. First the key encoder follows, then it makes keys without gradient, then
# the loss, and only then do the keys join the queue, or each would be its own negative.

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
# BatchNorm has a leak here: query and key of an image share a batch, and its statistics tell which batch, so the right
# key can be told without a look at the image. The paper shuffles the keys over several GPUs. On one device that does
# nothing unless BatchNorm also works in parts, so ours does both: `splits` parts, keys shuffled before and put back
# after. In longer runs one arm goes without.

# %%
lab.show(C.SplitBatchNorm.forward, C.MoCo.keys)

# %%
queues = run.pick(quick=(8, 512), long=(8, 64, 512, 2048), full=(64, 512, 4096))
slow = run.pick(quick=(0.0, 0.9), long=(0.0, 0.5, 0.9, 0.99), full=(0.0, 0.9, 0.99, 0.999))
K, m, splits = run.pick(quick=512, full=4096), run.pick(quick=0.9, full=0.99), run.pick(quick=2, full=8)
length = dict(steps=run.pick(quick=80, full=None))
arms = {"MoCo": {}} | ({"no split BatchNorm": dict(splits=1)} if longer else {})
arms |= {f"K = {size}": dict(queue=size) for size in queues if size != K}
arms |= {f"m = {rate:g}": dict(momentum=rate) for rate in slow if rate != m}
moco = {name: [] for name in arms}
for seed in run.seeds:
    for name, options in arms.items():
        make = partial(C.MoCo, **dict(queue=K, momentum=m, splits=splits) | options)
        model = stage.pretrain(f"moco {name}", make, seed, encoder=begun(seed), **length)
        moco[name].append(stage.knn(model.encoder))

# %% [markdown]
# The last arm is the paper's other mechanism: the same loss with $K$ keys drawn from a bank of all images.

# %%
make, moco["memory bank"] = partial(C.NPID, images=n, dim=128, softmax="sampled", negatives=K), []
for seed in run.seeds:
    model = stage.pretrain("moco memory bank", make, seed, encoder=begun(seed), **length | dict(views=one_view, lr=memory["lr"]))
    moco["memory bank"].append(stage.knn(model.encoder))
results["MoCo"] = moco["MoCo"]

# %%
run.claim("moco", "A key encoder that follows slowly beats one that is copied at every step, with the same queue",
          ours=moco["MoCo"], baseline=moco["m = 0"], margin=0.03, floor=random)

# %%
run.claim("moco", "A queue of several batches beats one that is a fraction of a batch",
          ours=moco["MoCo"], baseline=moco[f"K = {queues[0]}"], margin=0.02, floor=random)

# %%
run.claim("moco", "Keys from a queue beat as many keys from a memory bank",
          ours=moco["MoCo"], baseline=moco["memory bank"], margin=0.0, floor=random)

# %%
if longer:
    run.claim("moco", "Without split BatchNorm and shuffled keys the features are worse",
              ours=moco["no split BatchNorm"], baseline=moco["MoCo"], margin=0.02, higher_is_better=False)

# %% mystnb={"image": {"alt": "kNN accuracy of MoCo against the length of the queue."}, "figure": {"caption": "The length of the queue. Dashed: the untrained encoder.", "name": "fig-moco-queue"}}
points = [moco["MoCo" if size == K else f"K = {size}"] for size in queues]
found = run.curve("moco", "accuracy over the length of the queue", queues, {"MoCo": points}, "keys in the queue (count)",
                  "kNN accuracy (share)", log=True)
_ = draw(found, floor=untrained)

# %% mystnb={"image": {"alt": "kNN accuracy of MoCo against the momentum of the key encoder."}, "figure": {"caption": "The momentum of the key encoder; 0 copies it at every step. Dashed: the untrained encoder.", "name": "fig-moco-momentum"}}
points = [moco["MoCo" if rate == m else f"m = {rate:g}"] for rate in slow]
found = run.curve("moco", "accuracy over the momentum", slow, {"MoCo": points}, "momentum m (no unit)", "kNN accuracy (share)")
_ = draw(found, floor=untrained)

# %% [markdown]
# The order of the queue is part of the method, so we look at it. Twelve keys enter a queue of five, four at a time.

# %%
# NBVAL_CHECK_OUTPUT
queue = torch.zeros(5)
for step in range(3):
    queue = torch.cat([torch.arange(4) + 10.0 * step, queue])[:5]
    print(queue.int().tolist())

# %% [markdown]
# Both of the paper's ideas help (measured): the longer queue by as much as we asked; the slow encoder, too, but by how
# much the seeds leave open, since they differ most without it. The bank is far behind (measured): it starts with random
# vectors, and so short a training has no time to fill it with features, we guess. Four times as long, the bank has come
# nearer and three seeds leave open by how much queue and slow encoder help; without split BatchNorm and shuffled keys
# the features are no worse by what we asked (measured).

# %% [markdown]
# (moco-v2)=
# ## Four small changes to MoCo
# SimCLR came out between MoCo's two versions, and it was better. Was that the in-batch negatives, or the things that
# came along with them? MoCo v2 keeps the queue and takes the rest: a head with a hidden layer (an *MLP*),
# $h(x) = W_2\,\mathrm{ReLU}(W_1 x)$ with $x$ the encoder's features and $W_1$, $W_2$ trained, dropped after training;
# stronger augmentation; a cosine schedule; and a temperature of 0.2 in the place of MoCo's lower one. The paper's sweep
# finds the new head best there, while the linear one hardly minds (not checked against the paper).
#
# The paper reports 60.6 % for MoCo on ImageNet, 66.2 % with the new head, 63.4 % with the new augmentation and 67.3 %
# with both, 67.5 % with the cosine schedule too: each helps, and together less than their sum. We add them one after
# the other: views first, then the head. The head brings its own temperature, 0.2 after the linear one's 0.1, so the
# second step changes two things at once. Blur does nothing to images this small. Our weak views jitter the colours as
# MoCo v1 did; the strong ones are the chapter's.

# %%
lab.show(C.jittered_views)

# %%
K, m, splits = run.pick(quick=512, full=4096), run.pick(quick=0.9, full=0.99), run.pick(quick=2, full=8)
length = dict(steps=run.pick(quick=80, full=None))
views = {"weak": run.pick(quick=C.jittered_views, full=partial(stage.views, jitter_p=0.0, grey_p=0.0)),
         "strong": stage.views}

# %%
def second(seed, head, strength="strong", tau=None):
    """kNN accuracy of MoCo with one of the two heads; its temperature is the head's own unless given."""
    own = {"linear": 0.1, "mlp": 0.2}[head]
    tau = tau or own
    make = partial(C.MoCo, queue=K, momentum=m, splits=splits, head=head, tau=tau)
    same = (head, strength, tau) == ("linear", "strong", own)  # MoCo's main arm
    name = "moco MoCo" if same else f"moco-v2 {head} {strength} {tau:g}"
    return stage.knn(stage.pretrain(name, make, seed, views=views[strength], encoder=begun(seed), **length).encoder)


v2 = {f"{head}, {strength}": [second(seed, head, strength) for seed in run.seeds]
      for head, strength in (("linear", "weak"), ("linear", "strong"), ("mlp", "strong"))}  # fmt: skip
results["MoCo v2"] = v2["mlp, strong"]

# %% mystnb={"image": {"alt": "Bars of kNN accuracy for MoCo with a linear head and weak views, a linear head and strong views, and an MLP head and strong views. The middle one is the longest; a dashed line marks the untrained encoder."}, "figure": {"caption": "Strong views end above weak ones; the new head, with its own temperature, does not help after so short a training. Dashed: the untrained encoder.", "name": "fig-moco-v2"}}
figure, axis = lab.plots.axes(height=2.0)
lab.plots.bars(axis, v2, "kNN accuracy on the test images (share)", chance=untrained)

# %%
run.claim("moco-v2", "Stronger augmentation improves MoCo with the linear head",
          ours=v2["linear, strong"], baseline=v2["linear, weak"], margin=0.02, floor=random)

# %%
run.claim("moco-v2", "The MLP head improves MoCo under strong augmentation",
          ours=v2["mlp, strong"], baseline=v2["linear, strong"], margin=0.01, floor=random)

# %%
if longer:
    heats = run.pick(quick=(), long=(0.05, 0.1, 0.2, 0.4), full=(0.07, 0.1, 0.2, 0.4))
    arms = {head: [[second(seed, head, tau=tau) for seed in run.seeds] for tau in heats] for head in ("mlp",)}
    run.curve("moco-v2", "accuracy over the temperature", heats, arms, "temperature τ (no unit)", "kNN accuracy (share)", log=True)

# %% [markdown]
# With stronger views MoCo ends above weak ones (measured); by how much our seeds leave open, since the gain differs
# between them by more than its size. The MLP head at its own temperature costs accuracy after so short a training
# (measured). Which of the two costs it, head or temperature, these arms cannot tell. If it is the head: it has to be
# learnt first, and until then the encoder gets its gradient through a random layer: our guess. Longer runs sweep the
# new head's temperature. Four times as long, the lower temperatures suit it better, and three seeds leave its loss open
# (measured).

# %% [markdown]
# (cpc)=
# ## Predict the future, but only well enough to recognise it
# A model that predicts the next samples of a signal spends itself on detail: the exact wave, the hiss. What we would
# like it to learn is what stays the same over many samples, such as who speaks and which sound it is.
#
# Contrastive predictive coding (CPC) never generates the future. An encoder gives one vector a frame,
# $z_t = \mathrm{enc}(x_t)$; a recurrent net, a GRU, sums up the past, $c_t = \mathrm{gru}(z_{\le t})$; and for every
# horizon $k$ one matrix $W_k$ scores how well a frame fits as the future:
#
# $$f_k(x_{t+k}, c_t) = \exp(z_{t+k}^\top W_k c_t), \qquad
# \mathcal{L}_N = -\mathbb{E}\left[\log \frac{f_k(x_{t+k}, c_t)}{\sum_{x_j \in X} f_k(x_j, c_t)}\right].$$
#
# Here $x_t$ is the frame at time $t$, $z_t$ its code, $c_t$ the context and $k$ how many frames ahead. $W_k$ is the
# trained matrix of that horizon: it turns the context into a guess, $W_k c_t$, at the code $z_{t+k}$. $X$ holds the
# true future and $N-1$ other frames. This is the softmax of the sections before, without its cosine and its
# temperature.

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
# 1. Put the true future at a place $d$ drawn evenly from $1 \dots N$, and $N-1$ draws from $p(x)$ elsewhere.
#    $\mathcal L_N$ is the cross entropy of a guess at $d$ from $(X, c)$, and no guess beats the posterior:
#    $\mathcal L_N \ge H(d \mid X, c)$.
# 2. $d$ is even, so $H(d \mid X, c) = \log N - I(d; X, c)$, hence $\log N - \mathcal L_N \le I(d; X, c)$.
# 3. $I(d; X, c)$ is the mean over $d$ of $\mathrm{KL}\big(p(X, c \mid d) \,\Vert\, r(X, c)\big)$
#    for $r = p(X, c)$, the mixture over all $d$. Any other $r$ makes this mean larger or leaves it. So put in
#    $r = p(c) \prod_j p(x_j)$, in which no place holds the true future: the mean is now at least $I(d; X, c)$.
# 4. With this $r$ every place but $d$ cancels: $\mathrm{KL} = \mathbb E \log \frac{p(x_d, c)}{p(x_d)\, p(c)} = I(x; c)$,
#    for every $d$ alike. With line 2 and 3: $I(x; c) \ge \log N - \mathcal L_N$.
# 5. Equality in line 1 needs the posterior, $f_k \propto p(x \mid c)/p(x)$: the loss learns a ratio of densities.
# 6. The true future stands in its own sum, so $\mathcal L_N \ge 0$, and the bound never shows more than $\log N$.

# %% [markdown]
# First the bound, where the truth is known. Four pairs of Gaussians with correlation $\rho$ share
# $I = -2 \log(1-\rho^2)$ nats (bits, but with the natural logarithm). We fit CPC's bilinear score and read off
# $\log N - \mathcal{L}_N$ on fresh pairs.

# %%
rhos, sizes = (0.3, 0.6, 0.9, 0.99), run.pick(quick=(4, 32), long=(4, 32, 256), full=(4, 32, 256))
truth = [C.gaussian_mi(rho, 4) for rho in rhos]
bound = {n: [C.gaussian_bound(rho, n) for rho in rhos] for n in sizes}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Estimated against true mutual information. For each number of candidates the estimate follows the diagonal and then bends under its ceiling, log N."}, "figure": {"caption": "The estimate follows the truth until it meets log N.", "name": "fig-cpc-bound"}}
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
# like speech: fifteen harmonics, whose strengths are the filter of a *phone*, which is a sound of speech (six phones,
# ten frames each on average), times a speaker's timbre (eight speakers), with phases that drift and a good deal of
# hiss. The phases matter: one frame ahead the wave itself can be predicted, eight frames ahead only phone and speaker
# can.

# %%
# NBVAL_CHECK_OUTPUT
heard = {seed: (C.speech(1024, frames=32, seed=2 * seed), C.speech(128, frames=32, seed=2 * seed + 1))
         for seed in run.seeds}  # fmt: skip
example = heard[run.seeds[0]][0]
tuple(example.signal.shape), tuple(example.phones.shape), example.speakers[:10].tolist()

# %% [markdown]
# We train with one and with eight horizons, always on the same contexts. Who meets whom matters, too: a sequence finds
# its negatives in its *pool*, which is itself and three other sequences, here of other speakers (*mixed*). In an arm of
# longer runs they are of its own speaker: what all candidates share is no help in telling them apart.

# %%
lab.show(C.pools)

# %%
def listen(seed, horizon, same=False):
    """CPC on a speech encoder; horizon 0 leaves the encoder as it was drawn."""
    torch.manual_seed(seed)
    net, signal = C.SpeechEncoder().to(run.device), heard[seed][0].signal.to(run.device)
    if horizon == 0:
        return C.SpeechCPC(net)
    return stage.pretrain(f"speech {horizon} {same}", lambda e: C.SpeechCPC(e, horizon), seed, encoder=net, images=signal,
                          views=lambda x, generator: x, batches=C.pools(1024, same, seed=seed, device=run.device),
                          steps=run.pick(quick=70, full=400), lr=1e-2, optimizer="adamw", weight_decay=1e-4)  # fmt: skip

# %% [markdown]
# The arms: the log spectrum of a frame, made by hand; the net with random weights; CPC with either horizon. A *linear
# probe*, a linear classifier on vectors that stay as they are, reads phone and speaker from the vector of one frame.

# %%
horizons = run.pick(quick=(1, 8), long=(1, 2, 4, 6, 8), full=(1, 2, 4, 6, 8))
arms = {"log spectrum": lambda s: C.log_spectrum, "random net": lambda s: listen(s, 0).encoder}
arms |= {f"CPC, 1 to {h}": lambda s, h=h: listen(s, h).encoder for h in horizons}
arms |= {"CPC, 1 to 8, same speaker": lambda s: listen(s, 8, True).encoder} if longer else {}
found = {
    name: [C.speech_probe(make(s), *[part.to(run.device) for part in heard[s]]) for s in run.seeds]
    for name, make in arms.items()
}
phone, speaker = ({name: [v[i] for v in values] for name, values in found.items()} for i in (0, 1))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Bars of phone and speaker accuracy of a linear probe on the log spectrum, a random net and two CPC encoders, one and eight frames ahead. The longer horizon raises the phone bar."}, "figure": {"caption": "Looking further ahead teaches phones. A linear probe on the spectrum or the context of one frame. Dots are seeds, dashes the untrained net.", "name": "fig-cpc-speech"}}
figure, (left, right) = lab.plots.axes(2, width=8)
lab.plots.bars(left, phone, "phone accuracy", chance=mean(phone["random net"]))
lab.plots.bars(right, speaker, "speaker accuracy", chance=mean(speaker["random net"]))
_ = right.set_yticklabels([])

# %%
run.claim("cpc", "The context vector tells phones better than the same net with random weights.",
          phone["CPC, 1 to 8"], phone["random net"], margin=0.1, data="synthetic speech")  # fmt: skip

# %%
run.claim("cpc", "Predicting up to eight frames ahead tells phones better than predicting the next frame only.",
          phone["CPC, 1 to 8"], phone["CPC, 1 to 1"], margin=0.03, data="synthetic speech")  # fmt: skip

# %%
if longer:
    run.claim("cpc", "Negatives of the same speaker make the context forget who speaks.",
              speaker["CPC, 1 to 8, same speaker"], speaker["CPC, 1 to 8"], margin=0.05, higher_is_better=False,
              data="synthetic speech")  # fmt: skip

# %% [markdown]
# Two curves of the paper: how far ahead one should look, and how much harder the true frame is to find the further away
# it is. A pool holds 24 candidates, six contexts of each of four sequences, so a blind guess finds one in 24.

# %% mystnb={"image": {"alt": "Phone accuracy against the number of frames ahead that CPC predicts, for the context and for the untrained net; the curve rises with the horizon."}, "figure": {"caption": "Looking further ahead teaches more about phones.", "name": "fig-cpc-horizon"}}
points = [phone[f"CPC, 1 to {h}"] for h in horizons]
found = run.curve("cpc", "phone accuracy over the horizon", horizons, {"CPC": points}, "frames ahead, up to (count)",
                  "phone accuracy (share)", data="synthetic speech")  # fmt: skip
_ = draw(found, floor=mean(phone["random net"]))

# %% mystnb={"image": {"alt": "Share of true frames that score highest in their pool, against their distance from one to eight frames; it falls."}, "figure": {"caption": "The further away the true frame, the harder it is to find among others.", "name": "fig-cpc-distance"}}
hits = {s: listen(s, 8).found(heard[s][1].signal.to(run.device)) for s in run.seeds}
points = [[hits[s][k] for s in run.seeds] for k in range(8)]
found = run.curve("cpc", "the true frame found, over its distance", range(1, 9), {"CPC": points}, "distance (frames)",
                  "found in its pool (share)", data="synthetic speech")  # fmt: skip
_ = draw(found)

# %%
run.claim("cpc", "A frame eight ahead is found less often than the next one", [hits[s][7] for s in run.seeds],
          [hits[s][0] for s in run.seeds], margin=0.05, higher_is_better=False, data="synthetic speech")

# %% [markdown]
# Asked for the next frame alone, CPC learns less of the phones than asked for eight (measured); with two horizons that
# is an order, not yet a curve. By the bars both end above the net with random weights. One frame ahead there is more to
# predict, the wave itself, and it is the wrong thing: the signal was built that way, but that this is the reason is our
# guess. Four times as long, negatives of the same speaker make the context forget who speaks (measured).
#
# The spectrum has the longest phone bar of all, on a signal that was made of spectra. On real speech the paper reports
# the reverse: 39.7 for MFCC, hand-made features of the spectrum, and 64.6 for CPC.

# %% [markdown]
# (cpc-v2)=
# ## The same on a grid of patches, for few labels
# An image has no time, but a grid of overlapping patches has an order. CPC reads it row by row: a convolution masked so
# that $c_{i,j}$ sees its own row and those above predicts the patches $k$ rows below, $\hat z_{i+k,j} = W_k c_{i,j}$,
# among patches of this image and of others; $i$ counts rows, $j$ columns, $z_{i,j}$ is the code of a patch, and the
# loss is CPC's. The second version asks what this is good for, and answers: for learning from few labels. It got there
# by a list of repairs, each aimed at a shortcut:
#
# - **augment every patch by its own draw**, colours dropped among them. Else, the paper argues, the answer to "which
#   patch is the right one?" is "the one of the same colour";
# - **layer norm** in the place of batch norm, whose statistics carry news from patch to patch: the right patch could
#   then be told without a look at what it shows, and the task would be solved without good features;
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
pictures, y = stage.train_images, stage.train_labels
patch = run.pick(quick=dict(size=4, stride=2), full=dict(size=8, stride=4))
tuple(C.patches(pictures[:1], **patch).shape[1:3])

# %% [markdown]
# One function trains a patch encoder for every arm: by CPC, or by another method on some of the images.

# %%
def look(seed, name, norm="layer", directions=1, method=C.PatchCPC, rows=None, batch=None, **views):
    """A patch encoder after training: by CPC, or by ``method`` on the ``rows`` of the images."""
    torch.manual_seed(seed)
    net = C.PatchEncoder(**patch, **run.pick(quick={}, full=dict(width=256, dim=128, depth=3)), norm=norm)
    make = {C.PatchCPC: lambda e: C.PatchCPC(e, directions, **run.pick(quick={}, full=dict(ahead=(1, 2, 3), layers=4)))}
    steps, size = run.pick(quick=(100, 16), full=(30000, 128))
    return stage.pretrain(f"patches {name}", make.get(method, method), seed, encoder=net.to(run.device),
                          images=pictures if rows is None else pictures[rows], views=C.patch_views(**patch, **views),
                          lr=run.pick(quick=5e-3, full=1e-3), optimizer="adamw", weight_decay=1e-4, steps=steps,
                          batch_size=batch or size).encoder  # fmt: skip

# %% [markdown]
# Arms: a random encoder; CPC on the bare patches; and with each patch's colours turned. Longer runs add batch norm in
# the place of layer norm; full ones the paper's own dropping of colours, and all of the four directions that `PatchCPC`
# knows. The probe, with one regulariser for all arms, gets 100 labels (1 % at full scale).

# %%
amounts = run.pick(quick=(30, 100), long=(30, 100, 300, 1000), full=(100, 500, 2500))
few = run.pick(quick=100, full=500)
order = {s: torch.randperm(len(y), generator=torch.Generator().manual_seed(s)) for s in run.seeds}
nets = {"random encoder": lambda s: C.PatchEncoder(**patch).to(run.device),
        "CPC, bare patches": lambda s: look(s, "bare", drop=False, turn=False),
        "CPC, colours turned": lambda s: look(s, "turned", drop=False)}  # fmt: skip
norm = {"… with batch norm": lambda s: look(s, "batch norm", norm="batch", drop=False)}
more = {"CPC, colours dropped": lambda s: look(s, "dropped", drop=True, turn=False),
        "… in four directions": lambda s: look(s, "four", directions=4, drop=False)}  # fmt: skip
nets |= run.pick(quick={}, long=norm, full=norm | more)

# %%
def read_out(net, s, labels=few):
    """Test accuracy of a linear probe on so many labelled images."""
    kept = order[s][:labels]
    z, z_test = stage.features(net, pictures[kept]), stage.features(net, stage.test_images)
    return lab.evaluate.linear_probe(z, y[kept], z_test, stage.test_labels, l2=(0.01,)).accuracy

# %%
accuracy = {n: [read_out(make(s), s) for s in run.seeds] for n, make in nets.items()}

# %% [markdown]
# The rival without pretraining is the same patch encoder and a linear layer on the labelled images alone, with the
# same augmentation of patches, as many steps and twice the images a step.

# %%
def scratch(s, labels):
    """The patch encoder taught on so many labelled images alone."""
    kept, batch = order[s][:labels], min(labels, 2 * run.pick(quick=16, full=128))
    make = lambda e: C.LabelledPatches(e, y[kept], 10)
    return look(s, f"scratch {labels}", method=make, rows=kept, batch=batch, drop=False)


taught = {labels: [read_out(scratch(s, labels), s, labels) for s in run.seeds] for labels in (amounts if longer else (few,))}
accuracy["from scratch"] = taught[few]

# %% mystnb={"image": {"alt": "Bars of test accuracy with 100 labels for a random encoder, CPC on bare patches and on patches whose colours were turned, and training from scratch. The last two stand out; bare patches stay near the dashed line of the untrained encoder."}, "figure": {"caption": "Only turning each patch's colours lifts CPC clearly above the untrained encoder (dashed); training from scratch does better still. Linear probe with 100 labels; dots are seeds.", "name": "fig-cpc-v2"}}
figure, axis = lab.plots.axes(width=6)
below = accuracy["random encoder"]
lab.plots.bars(axis, accuracy, "test accuracy with few labels", chance=mean(below))

# %%
run.claim("cpc-v2", "With few labels, a linear probe on CPC's patch features beats one on the same encoder untrained.",
          accuracy["CPC, colours turned"], accuracy["random encoder"], margin=0.1)

# %%
run.claim("cpc-v2", "Augmenting each patch by its own draw is what makes the features useful.",
          accuracy["CPC, colours turned"], accuracy["CPC, bare patches"], margin=0.05, floor=below)

# %%
if longer:
    run.claim("cpc-v2", "Layer norm in the patch encoder gives better features than batch norm.",
              accuracy["CPC, colours turned"], accuracy["… with batch norm"], margin=0.0, floor=below)

# %%
run.claim("cpc-v2", "With few labels, a linear probe on CPC's features beats training the same encoder from scratch.",
          accuracy["CPC, colours turned"], accuracy["from scratch"], margin=0.0, floor=below)

# %% mystnb={"image": {"alt": "Test accuracy against the number of labelled images, for a linear probe on CPC's features, above, and on the untrained encoder, below."}, "figure": {"caption": "CPC's features read better than an untrained encoder's at either number of labels.", "name": "fig-cpc-v2-labels"}}
read = {"CPC, colours turned": nets["CPC, colours turned"], "random encoder": nets["random encoder"]}
arms = {name: [accuracy[name] if labels == few else [read_out(make(s), s, labels) for s in run.seeds] for labels in amounts]
        for name, make in read.items()}  # fmt: skip
arms |= {"from scratch": [taught[labels] for labels in amounts]} if longer else {}
found = run.curve("cpc-v2", "accuracy over the number of labels", amounts, arms, "labelled images (count)",
                  "test accuracy (share)", log=True)
_ = draw(found)

# %% [markdown]
# On bare patches the probe gains next to nothing over the untrained encoder; with each patch's colours turned it ends
# far above (measured). The colour of the background is answer enough, we guess, until it is turned. The bare arm has no
# augmentation at all. One turn shared by all patches of an image has no arm, so that each needs *its own draw* is more
# than we tested.
#
# Training from scratch does better with the same few labels, against the paper's claim (measured). It uses the same
# augmentation, which on our scenes removes by hand the very nuisance that pretraining would have had to discover: our
# guess at the reason. The longer run says otherwise: four times as long, three seeds no longer tell CPC's features from
# training from scratch, nor layer norm from batch norm (measured).
#
# One thing more we did not expect: with another image's patches for the right answers no claim of this section falls
# (measured, with one seed, where [the evidence](../../book/evidence.md) breaks methods on purpose). So the features may
# tell where a patch lies and whether ink is there more than what belongs together: our guess.

# %% [markdown]
# (debiased-contrastive)=
# ## Negatives that are not
# With ten classes, one "negative" in ten shows the anchor's own class, a *false negative*, and the loss pushes it away.
# Nobody knows which one. But if the class has the share $\tau^+$, then unlabelled samples are a mixture,
# $p = \tau^+ p^+ + (1 - \tau^+)\,p^-$, and what is known about $p^+$ from the other view can be subtracted:
#
# $$g = \max\left\{ \frac{1}{1 - \tau^+} \Big( \frac{1}{N} \sum_{i=1}^{N} e^{s_i^-}
# - \frac{\tau^+}{M} \sum_{j=1}^{M} e^{s_j^+} \Big),\; e^{-1/\tau} \right\},
# \qquad \mathcal{L} = -\log \frac{e^{s^+}}{e^{s^+} + N g}.$$
#
# Here $s_i^-$ are the scores (cosine over the temperature $\tau$) of $N$ unlabelled samples, $s_j^+$ those of the $M$
# other views of the anchor's image, and $s^+$ that of the one in the numerator, which is among them. $p^+$ and $p^-$
# are the distributions of the anchor's class and of all others, and $g$ estimates the mean of $e^s$ over $p^-$. Scores
# cannot be below $-1/\tau$, hence the clamp. The loss below takes any number of views; with two, $M = 1$ and
# $s_1^+ = s^+$.

# %%
lab.show(C.debiased_mean, C.debiased_nt_xent)

# %% [markdown]
# An estimator can be checked exactly where its target is known. Put ten von Mises classes, bell curves bent round, on a
# circle. Then the means of $e^s$ over the anchor's own class and over all others, $E^+$ and $E^-$, have a closed form
# with Bessel functions, and so has the error of the biased mean: $\tau^+ (E^+ - E^-)$.

# %%
lab.show(C.ring_means, C.ring_scores)

# %%
sizes, positives = (32, 128, 512, 4096), (1, 4, 16)
rms = {name: [[] for _ in sizes] for name in ("biased", *(f"M = {M}" for M in positives))}
for seed in run.seeds:
    torch.manual_seed(seed)
    angle = 0.3 * torch.randn(64, dtype=torch.float64)
    own, others = C.ring_means(angle)
    mixed, positive = C.ring_scores(angle, sizes[-1], positives[-1])
    for N, place in zip(sizes, range(len(sizes))):
        guess = {f"M = {M}": C.debiased_mean(mixed[:, :N], positive[:, :M], 0.1) for M in positives}
        guess["biased"] = mixed[:, :N].mean(1)
        for name, values in guess.items():
            rms[name][place].append(float((values - others).square().mean().sqrt()))

# %% mystnb={"image": {"alt": "Root mean square error of the estimated mean over negatives against the number of unlabelled samples N, biased and debiased with 1, 4 and 16 positives; the biased curve flattens, the others go on falling."}, "figure": {"caption": "More samples do not help the biased mean, which stays at its bias; the corrected one goes on improving, the more so the more positives it has.", "name": "fig-debiased"}}
found = run.curve("debiased-contrastive", "error of the estimate over unlabelled samples", sizes, rms,
                  "unlabelled samples N (count)", "error of the mean (no unit)", log=True, data="von Mises classes on a circle")  # fmt: skip
_ = draw(found)

# %%
run.claim("debiased-contrastive", "Sixteen positives estimate the mean better than one", rms["M = 16"][-1],
          rms["M = 1"][-1], margin=0.05, higher_is_better=False, data="von Mises classes on a circle")  # fmt: skip

# %%
torch.manual_seed(0)
angle = 0.3 * torch.randn(64, dtype=torch.float64)
own, others = C.ring_means(angle)
mixed, positive = C.ring_scores(angle, 4096, 1)
gap = 0.1 * (own - others)
off = ((mixed.mean(1) - others).mean() / gap.mean() - 1).abs()
run.exact("debiased-contrastive", "The biased mean is off by τ⁺(E⁺ - E⁻), in relative terms", off, at_most=0.1,
          data="von Mises classes on a circle")

# %%
left = ((C.debiased_mean(mixed, positive, 0.1) - others).mean() / gap.mean()).abs()
run.exact("debiased-contrastive", "One positive removes the bias on average: share of the gap that is left", left,
          at_most=0.2, data="von Mises classes on a circle")

# %% [markdown]
# So the correction does what it says. Whether it teaches the network more is another question. Beside the biased loss,
# which is the chapter's SimCLR, and the debiased one, an oracle is told the labels and leaves out the false negatives.
# No correction can know more than the labels do, so its gain is about what there is to hope for.

# %%
shares = run.pick(quick=(0.1,), long=(0.05, 0.1, 0.2), full=(0.05, 0.1, 0.2))
makes = {"oracle": partial(C.Oracle, labels=stage.train_labels)}
makes |= {f"τ⁺ = {p:g}": lambda e, p=p: C.SimCLR(e, loss=lambda z: C.debiased_nt_xent(z, p, 0.2)) for p in shares}
nearest = {"biased": [stage.knn(further(seed).encoder) for seed in run.seeds]} | {name: [] for name in makes}
for seed in run.seeds:
    for name, make in makes.items():
        nearest[name].append(stage.knn(stage.pretrain(f"debiased {name}", make, seed, encoder=begun(seed), **onwards).encoder))
debiased = nearest["τ⁺ = 0.1"]
results["debiased contrastive"] = debiased

# %%
run.claim("debiased-contrastive", "Leaving out the false negatives by their labels improves the features",
          ours=nearest["oracle"], baseline=nearest["biased"], margin=0.01, floor=random)

# %%
run.claim("debiased-contrastive", "The debiased loss improves the features without labels",
          ours=debiased, baseline=nearest["biased"], margin=0.01, floor=random)

# %% mystnb={"image": {"alt": "kNN accuracy of the debiased loss against the share of a class that it subtracts, from zero, which is the biased loss, to the true share, beside the level line of the oracle."}, "figure": {"caption": "The share that is subtracted; 0 is the biased loss, 0.1 the true share. Dashed: the untrained encoder.", "name": "fig-debiased-share"}}
points = [nearest["biased"], *(nearest[f"τ⁺ = {p:g}"] for p in shares)]
found = run.curve("debiased-contrastive", "accuracy over the share τ⁺", (0, *shares),
                  {"debiased": points, "oracle": [nearest["oracle"]] * len(points)}, "share τ⁺ (no unit)", "kNN accuracy (share)")  # fmt: skip
_ = draw(found, floor=untrained)

# %% [markdown]
# An unbiased denominator is not a better gradient here (measured: the estimate is right, the features are worse). Four
# times as long it is the same, and the worse the more is subtracted. The reason, we guess: the correction lowers every
# anchor's denominator by about the same amount, and still pushes each false negative as hard as its similarity says;
# the oracle does not push it at all.

# %% [markdown]
# (g-simclr)=
# ## Batches without look-alikes
# If false negatives hurt, one could also keep them out of the batch. G-SimCLR guesses which images are alike: it trains
# a denoising autoencoder, which rebuilds an image from a noisy copy of it. It runs k-means on the latents, the vectors
# it rebuilds from, with as many clusters as a batch has images, and fills each batch with one image of every cluster.
# The order is fixed; every epoch sees the same batches.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Images go through a denoising autoencoder, trained first; its latents are clustered by k-means into B clusters; each batch takes one image of each cluster, and NT-Xent is trained on these batches."}, "figure": {"caption": "Reconstruction guesses who is alike, and the batch keeps them apart: one image of each of B clusters.", "name": "fig-g-simclr-mechanism"}}
names = ["images", "auto-\nencoder", "k-means", "batch: one\nof each", "NT-Xent"]
kinds = ["data", "trained", "data", "data", "loss"]
parts = {name: (1.1 * i, 0, kind) for i, (name, kind) in enumerate(zip(names, kinds))}
arrows = [(*pair, "", "stop") if pair[0] == "auto-\nencoder" else pair for pair in zip(names, names[1:])]
_ = lab.plots.diagram(parts, arrows, width=6.0, height=1.3)

# %% [markdown]
# With $B$ images a batch and as many clusters, the pairing costs one k-means; the loss is SimCLR's as it stands.

# %%
lab.show(C.DenoisingAutoencoder.forward, C.guided_order)

# %% [markdown]
# Before any contrastive training, count. A **false-negative rate** is the share of an anchor's negatives that have its
# own label. Note how little there is to win: even true labels cannot fill a batch with more images than
# there are classes, ten here, and repeat none. So we take batches of eight.
#
# An autoencoder spends its latents on what fills the pixels. In the chapter's scenes that is the colour, which says
# nothing of the class. So we count on *plain* digits, of one colour on one ground without texture; longer runs count on
# the scenes too. The paper averages its latents over all positions; so averaged, the plain digits' latents guided no
# better than chance when settings were chosen. Ours come from a denoising autoencoder on the stage's encoder, whose
# features know positions; full scale has the paper's.

# %%
B, size = run.pick(quick=8, full=64), run.pick(quick=16, full=32)
plain = lab.data.scenes(2000, 1, run.splits[0], lab.data.Difficulty(size=size, texture=0.0), background=0.2, ink=0.577)
sets = {"plain": (plain.images.to(run.device), plain.labels.to(run.device))}
sets |= {"scenes": (stage.train_images, stage.train_labels)} if longer else {}
budget = dict(steps=run.pick(quick=60, full=2000), batch_size=64, lr=run.pick(quick=5e-3, full=1e-3), optimizer="adamw")
guide, noisy = run.pick(quick=(lambda e: C.DenoisingAutoencoder(e, size), C.noisy_views()),
                        full=(lambda e: C.Autoencoder(), C.clean_and_noisy))  # fmt: skip

# %%
def clustered(seed, place, clusters=B):
    """Which of the clusters of an autoencoder's latents each image falls into."""
    auto = stage.pretrain(f"autoencoder {place}", guide, seed, views=noisy, images=sets[place][0], **budget)
    return lab.cluster.kmeans(stage.features(auto.encoder, sets[place][0]), clusters, seed)[1]


orders = {f"{name}, {place}": [] for place in sets for name in ("random", "guided")}
for seed in run.seeds:
    for place, (_, y) in sets.items():
        orders[f"random, {place}"].append(C.guided_order(torch.zeros_like(y), seed))
        orders[f"guided, {place}"].append(C.guided_order(clustered(seed, place), seed))
labels = {name: sets[name.split(", ")[1]][1] for name in orders}
rate = {name: [C.false_negative_rate(order, labels[name], B) for order in made] for name, made in orders.items()}

# %%
if longer:
    run.claim("g-simclr", "On scenes whose colours vary, guided batches hold fewer false negatives than random ones",
              rate["guided, scenes"], rate["random, scenes"], margin=0.01, higher_is_better=False)  # fmt: skip

# %%
run.claim("g-simclr", "On plain digits guided batches hold fewer false negatives than random ones",
          rate["guided, plain"], rate["random, plain"], margin=0.01, higher_is_better=False, data="plain digits")  # fmt: skip

# %% mystnb={"image": {"alt": "False-negative rate on plain digits against the size of the batch, for random batches, guided batches and batches filled by label; the three come together as batches grow."}, "figure": {"caption": "Beyond the number of classes not even labels can keep look-alikes apart.", "name": "fig-g-simclr-batch"}}
batches, digit = run.pick(quick=(8, 32), long=(4, 8, 16, 32, 64), full=(4, 8, 16, 32, 64)), sets["plain"][1]
by = {"random": lambda s, b: torch.zeros_like(digit), "guided": lambda s, b: clustered(s, "plain", clusters=b),
      "labels": lambda s, b: digit}  # fmt: skip
share = lambda guess, b: [C.false_negative_rate(C.guided_order(guess(s, b), s), digit, b) for s in run.seeds]
arms = {name: [share(guess, b) for b in batches] for name, guess in by.items()}
found = run.curve("g-simclr", "false negatives over the size of the batch", batches, arms, "images in a batch (count)",
                  "false-negative rate (share)", log=True, data="plain digits")  # fmt: skip
_ = draw(found)

# %%
run.claim("g-simclr", "If the clusters were the classes, batches of eight would hold far fewer false negatives",
          arms["labels"][batches.index(8)], arms["random"][batches.index(8)], margin=0.05, higher_is_better=False,
          data="plain digits")  # fmt: skip

# %% [markdown]
# Now train on the plain digits, both arms with fixed batches and from the encoder that SimCLR has begun. The features
# are read on the scenes, training and test images both, as everywhere in this chapter; the verdict names the digits
# that the arms trained on. What avoiding all false negatives would gain here, no arm says: the oracle of the section
# before gained on scenes, in larger batches.
#
# The paper reports gains of half a point to one and a half on CIFAR-10, and of about four to eight on a subset of
# ImageNet. They are single runs of some fifteen epochs, and whether its SimCLR had fixed batches too, as a fair rival
# should, we could not confirm. We ask for two points.

# %%
guided, place = {"random": [], "guided": []}, run.pick(quick="plain", full="scenes")
for i, seed in enumerate(run.seeds):
    for name in guided:
        order = orders[f"{name}, {place}"][i]
        model = stage.pretrain(f"g-simclr {name}", C.SimCLR, seed, encoder=begun(seed), images=sets[place][0],
                               batches=C.fixed_batches(order, B), steps=run.pick(quick=150, full=None))  # fmt: skip
        guided[name].append(stage.knn(model.encoder))
results["G-SimCLR"] = guided["guided"]

# %%
run.claim("g-simclr", "Guided batches teach more than random batches", ours=guided["guided"],
          baseline=guided["random"], margin=0.02, floor=random, data=run.pick(quick="plain digits", full=None))

# %% [markdown]
# On plain digits the guide keeps some of the false negatives out (measured); whether as many as we asked, the seeds
# leave open. What it teaches lies within the noise (measured): clusters of pixels are no classes, our guess at the
# reason. Labels would keep out nearly all of them (measured), but only in batches of about as many images as there are
# classes. Longer runs leave the same open, and on scenes whether the guide does anything (measured).

# %% [markdown]
# (decoupled-uniformity)=
# ## A loss that keeps pushing, and a kernel for what we already know
#
# InfoNCE weakens itself: once a pair is easy, the gradient of its whole row fades, negatives included. And its
# positives are views alone, so weak augmentations leave it little to learn from, even if we know something else about
# the images. With $s_+$ the score of the positive, $s_j$ those of the negatives, and $q_+$ the softmax probability of
# the positive in its row,
#
# $$ \nabla\Big[-s_+ + \log\big(e^{s_+}+\textstyle\sum_j e^{s_j}\big)\Big]
#  = (1-q_+)\;\nabla\Big[-s_+ + \log\textstyle\sum_j e^{s_j}\Big], $$
#
# and $1-q_+$ is the *negative-positive coupling*. Decoupled contrastive learning trains on the right-hand side as it
# stands (`C.dcl`). **Decoupled uniformity** has no such factor either. It averages the views of an image to a centroid
# $\mu_x$, does *not* bring it back to unit length, and spreads the centroids:
#
# $$ \mathcal L=\log\,\mathbb E_{x\ne x'}\,e^{-2\,\lVert\mu_x-\mu_{x'}\rVert^2}. $$
#
# Here $x$ and $x'$ are different images of the batch, $\mu_x$ the mean of the unit projections of $x$'s views, and 2
# says how near is near. There is no alignment term. Centroids are long only if their views agree, and only long
# centroids can be far apart.

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
# Now both losses on whole batches, InfoNCE at a temperature of 0.1, half that of the chapter's SimCLR. Eight images
# point in orthogonal directions; the two views of each are turned away from it by an angle, to either side. Small
# angles make easy pairs.

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

# %% mystnb={"image": {"alt": "Gradient norm, as a share of its largest, against the angle between view and image. Towards small angles the curve of InfoNCE falls to nothing, that of decoupled uniformity stays high."}, "figure": {"caption": "Easy pairs are on the left. InfoNCE stops pushing; decoupled uniformity does not.", "name": "fig-coupling"}}
share = {name: [[push / max(found)] * len(run.seeds) for push in found] for name, found in pushes.items()}
found = run.curve("decoupled-uniformity", "gradient over how hard the pairs are", angles.tolist(), share,
                  "angle of a view to its image (degrees)", "gradient norm / largest", data="orthogonal pairs")  # fmt: skip
_ = draw(found)

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
# with $\sigma$ the kernel's width, $\lambda$ a ridge that keeps the inverse tame, $I$ the identity, and no gradient
# through $\alpha$. Mixed centroids can only be far apart if like images agree. Here the prior is the ink in each row
# and column of the scene's digit, with half as much noise as signal; on CIFAR-10 it is a PCA of the images. If the
# paper is right, the prior pays where views say least: with weak views, which jitter the colours a little in place of
# drawing them anew. The rival there is the same kernel with its attributes shuffled among the images. Longer runs take
# the kernel away, too, and give it to strong views.

# %%
lab.show(C.kernel_weights, C.attributes)

# %%
kinds = run.pick(quick={"weak": C.jittered_views, "strong": stage.views},
                 long={"shift only": C.shifted_views, "weak": C.jittered_views, "strong": stage.views},
                 full={"weak": partial(lab.augment.simclr_views, strength=0, grey_p=0), "strong": stage.views})  # fmt: skip
prior = C.attributes(stage.train_images, stage.train_factors)
sigma = 1 * float(torch.pdist(prior[:500]).median())
mixed = prior[torch.randperm(len(prior), generator=torch.Generator().manual_seed(1)).to(prior.device)]
asked = {("decoupled uniformity", "strong"), ("+ kernel", "weak")}  # in a minute, and the shuffled kernel
methods = {"decoupled uniformity": C.DecoupledUniformity, "+ kernel": partial(C.DecoupledUniformity, prior=prior, sigma=sigma)}
arms = {(name, kind): make for kind in kinds for name, make in methods.items() if longer or (name, kind) in asked}
arms["+ shuffled kernel", "weak"] = partial(C.DecoupledUniformity, prior=mixed, sigma=sigma)

# %%
scores = {("SimCLR", "strong"): [stage.knn(further(seed).encoder) for seed in run.seeds]} | {arm: [] for arm in arms}
for seed in run.seeds:
    for (name, kind), make in arms.items():
        model = stage.pretrain(f"kernel {name} {kind}", make, seed, views=kinds[kind], encoder=begun(seed), **onwards)
        scores[name, kind].append(stage.knn(model.encoder))
results["decoupled uniformity"] = scores["decoupled uniformity", "strong"]

# %%
run.claim("decoupled-uniformity", "With weak views, attributes of the right images beat shuffled attributes",
          scores["+ kernel", "weak"], scores["+ shuffled kernel", "weak"], margin=0.02, floor=random)  # fmt: skip

# %%
run.claim("decoupled-uniformity", "With strong views and no prior, decoupled uniformity is no worse than SimCLR",
          scores["decoupled uniformity", "strong"], scores["SimCLR", "strong"], margin=-0.02, floor=random)  # fmt: skip

# %%
if longer:
    gain = {kind: [k - d for k, d in zip(scores["+ kernel", kind], scores["decoupled uniformity", kind], strict=True)]
            for kind in kinds}  # fmt: skip
    run.claim("decoupled-uniformity", "With weak views the kernel gains more than with strong ones", gain["weak"],
              gain["strong"], margin=0.02)  # fmt: skip
    points = {name: [scores[name, kind] for kind in kinds] for name in methods}
    run.curve("decoupled-uniformity", "accuracy over the strength of the views", tuple(kinds), points, "views (kind)",
              "kNN accuracy (share)")  # fmt: skip

# %% [markdown]
# Without a prior the loss is SimCLR's equal, within the margin allowed (measured). With weak views the kernel of the
# right attributes ends above that of shuffled ones (measured); whether by as much as we asked, the seeds leave open.
# All arms begin with strong views, which may take most of the need for a prior away: our guess. The kernel's width is
# the median distance; twice that mixed too much when settings were chosen, on other seeds. Four times as long, the same
# is open, and whether the kernel gains more where views are weak.

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
# Here $z_1$ and $z_2$ are the unit projections of the two views, $u$ a random amount, $z_h$ the hallucinated positive
# and $\mathcal L(\cdot,\cdot)$ SimCLR's loss of a pair. $g$, not the estimate $g$ of the debiased loss, is a small
# trained network that adds a correction to what goes in: $g(e) = e + r(e)$, with $r$ an MLP (`imagine` in the code).
# The paper reports 0.3 to 3.0 points of linear accuracy. We could not confirm its range of $u$ or its network, so those
# are ours. The natural control turns the sign: with $u \sim U(-1, 0)$ the same machine makes *easier* positives by
# interpolation; longer runs have it.

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
reaches = run.pick(quick=(1,), long=(-1, 0, 0.5, 1), full=(-1, -0.5, 0, 0.5, 1))
modes = {-1: "interpolate", 0: "none", 1: "extrapolate"}
models = {"SimCLR": [further(seed) for seed in run.seeds]}
for reach in reaches:
    make = partial(C.Hallucinator, mode=modes[(reach > 0) - (reach < 0)], reach=abs(reach))
    models[reach] = [stage.pretrain(f"hallucinator {reach:g}", make, seed, encoder=begun(seed), **onwards) for seed in run.seeds]
probe = lambda encoder: lab.evaluate.linear_probe(*stage.both(encoder), l2=(0.01,)).accuracy  # one for all arms
probes = {name: [probe(model.encoder) for model in made] for name, made in models.items()}
below = [probe(blank(seed)) for seed in run.seeds]

# %% [markdown]
# First the mechanism. On new views of test images, how alike are the pair that the encoder made and the pair that was
# hallucinated?

# %%
cosine = {"views": [], 1: []}
with torch.no_grad():
    for i, seed in enumerate(run.seeds):
        seen = stage.views(stage.test_images[:1000], generator=run.generator(seed))
        model = models[1][i]
        z1, z2 = model.head(model.encoder(seen)).float().chunk(2)
        cosine[1].append(float(torch.cosine_similarity(z1, model.positive(z1, z2)).mean()))
        cosine["views"].append(float(torch.cosine_similarity(z1, z2).mean()))

# %%
run.claim("hallucinator", "A hallucinated positive is less like its anchor than the view it was made from",
          ours=cosine[1], baseline=cosine["views"], margin=0.02, higher_is_better=False)

# %%
run.claim("hallucinator", "Extrapolated positives improve SimCLR's linear probe", ours=probes[1],
          baseline=probes["SimCLR"], margin=0.003, floor=below)

# %%
if longer:
    run.claim("hallucinator", "Extrapolated positives teach more than interpolated ones", ours=probes[1],
              baseline=probes[-1], margin=0.003, floor=below)
    arms = {"hallucinated": [probes[reach] for reach in reaches], "SimCLR": [probes["SimCLR"]] * len(reaches)}
    run.curve("hallucinator", "probe over the reach of the hallucination", reaches, arms, "largest u (no unit)",
              "linear probe accuracy (share)")

# %% [markdown]
# The mechanism is there: what is hallucinated is less like its anchor (measured). Whether it pays, the seeds leave
# open: what the hallucinated positives add to the probe may be nothing, or as much as we asked. The longer run leaves
# it open as well, with interpolation as the rival, too. Harder positives suit an encoder that finds its views too easy,
# and ours is far from that point: our guess.

# %% [markdown]
# (all4one)=
# ## Neighbour, centroid, feature: all for one
#
# NNCLR replaces one view by its nearest neighbour in a queue, so that another image becomes the positive. One neighbour
# is a noisy target, and contrasting five of them costs five losses. **All4One** adds up three losses of the two views:
#
# 1. *neighbour*, which is NNCLR's: a prediction $p_2$ made from the second view must find the row of the queue that is
#    nearest to the first view's key;
# 2. *centroid*: a small transformer $T$ reads all five nearest rows and gives *one* vector. On the second view's side
#    the sequence is *shifted*: another prediction $p'_2$ enters at the front and pushes the last neighbour out;
# 3. *feature*: over the batch, each feature of one view should go along with the same feature of the other view, and
#    with no other feature.
#
# In this order:
#
# $$ \mathcal L=\tfrac12\,\mathrm{CE}\big(\mathrm{NN}_1(k_1)\cdot p_2/\tau\big)
#    +\tfrac12\,\mathrm{CE}\big(T[\mathrm{NN}_{1..5}(k_1)]\cdot T[p'_2,\mathrm{NN}_{1..4}(k_2)]/\tau_c\big)
#    +\tfrac12\cdot 10\,\big(\tfrac12\operatorname{rms}(C_{ii}-1)+\tfrac12\operatorname{rms}(C_{i\ne j})\big), $$
#
# Here $k_1$, $k_2$ are the momentum network's keys of the two views, $z_2$ the projection of the second, $p_2$ and
# $p'_2$ two predictions made from it, $\mathrm{NN}_a$ the $a$-th nearest row of the queue, and $T$ the transformer read
# off at its first place. CE is the cross entropy of finding one's own image in the batch, $\tau$ and $\tau_c$ are
# temperatures, rms is the root mean square, and $C=k_1^\top z_2$ after bringing each *column* to unit length over the
# batch. Unlike Barlow Twins, the rival that contrasts features alone, the columns are not centred, the parts are root
# mean squares, and one side is the momentum network.

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
# A neighbour of random features is a random image, so all arms go on from the encoder that SimCLR has begun; the two
# strongest rivals of the paper's table are NNCLR, which is the first term alone, and Barlow Twins. The paper's claim is
# strongest for narrow embeddings, so the arms are narrow; longer runs compare the three methods over widths, and
# attention with a mean.

# %%
size = run.pick(quick=dict(queue=512, momentum=0.9), full=dict(queue=4096, momentum=0.99, hidden=1024, layers=3))
after = dict(steps=run.pick(quick=40, full=None))
widths = run.pick(quick=(8,), long=(8, 16, 32, 64), full=(8, 64, 256))
barlow = lambda e, dim: C.SimCLR(e, dim, head="mlp", loss=lambda z: barlow_twins(*z.chunk(2), lam=1 / dim))
ours = partial(C.All4One, **size)
methods = {"NNCLR": partial(ours, weights=(0.5, 0, 0)), "Barlow Twins": barlow, "All4One": ours}
less = {"no feature contrast": dict(weights=(0.5, 0.5, 0))} | ({"centroid by mean": dict(pool="mean")} if longer else {})
trials = {(name, dim): partial(make, dim=dim) for dim in widths for name, make in methods.items()}
trials |= {(name, 8): partial(ours, dim=8, **more) for name, more in less.items()}

# %%
accuracy, trained = {trial: [] for trial in trials}, {}
for seed in run.seeds:
    for (name, dim), make in trials.items():
        trained[seed, name, dim] = stage.pretrain(f"{name} {dim}", make, seed, encoder=begun(seed), **after)
        accuracy[name, dim].append(stage.knn(trained[seed, name, dim].encoder))
results |= {f"{name}, width 8": accuracy[name, 8] for name in methods}

# %% mystnb={"image": {"alt": "Bars of kNN accuracy at width 8 for NNCLR, Barlow Twins, All4One, and All4One without its feature contrast. A dashed line marks the untrained encoder."}, "figure": {"caption": "At a narrow width, arms with a contrast of features end above those without. Dashed: the untrained encoder.", "name": "fig-all4one"}}
figure, axis = lab.plots.axes(height=2.2)
narrow = {name: values for (name, dim), values in accuracy.items() if dim == 8}
lab.plots.bars(axis, narrow, "kNN test accuracy at width 8", chance=untrained)

# %%
run.claim("all4one", "At width 8 the three terms together beat NNCLR",
          accuracy["All4One", 8], accuracy["NNCLR", 8], margin=0.02, floor=random)  # fmt: skip

# %%
run.claim("all4one", "At width 8 All4One beats Barlow Twins",
          accuracy["All4One", 8], accuracy["Barlow Twins", 8], margin=0.02, floor=random)  # fmt: skip

# %%
run.claim("all4one", "At width 8 the feature contrast adds to the other two",
          accuracy["All4One", 8], accuracy["no feature contrast", 8], margin=0.02, floor=random)  # fmt: skip

# %%
if longer:
    run.claim("all4one", "A centroid by attention beats the mean of the same sequence",
              accuracy["All4One", 8], accuracy["centroid by mean", 8], margin=0.01, floor=random)  # fmt: skip
    drop = {name: [w - n for w, n in zip(accuracy[name, 64], accuracy[name, 8], strict=True)] for name in methods}
    run.claim("all4one", "From width 64 to 8, All4One loses less accuracy than NNCLR",
              drop["All4One"], drop["NNCLR"], margin=0.02, higher_is_better=False)  # fmt: skip
    arms = {name: [accuracy[name, dim] for dim in widths] for name in methods}
    run.curve("all4one", "accuracy over the width of the embedding", widths, arms, "width (count)",
              "kNN accuracy (share)", log=True)

# %% [markdown]
# The shift invites a look. In one sequence the first place is the nearest neighbour, in the other the prediction $p'$,
# and the centroid is read off at that place. Are the four neighbours behind it used at all? We count how often the two
# centroids of an image find each other among 512, where a blind guess hits one in 512: with all its own, with another
# image's prediction in front, and with another image's neighbours behind. Only the last has a claim.

# %%
solved = {"all its own": [], "another's prediction": [], "another's neighbours": []}
for seed in run.seeds:
    model, draws, pictures = trained[seed, "All4One", 8], run.generator(seed), stage.train_images[:512]
    with torch.no_grad():
        views = stage.views(pictures, generator=draws)
        query = model.query(model.projector(model.encoder(views)))[512:]
        first, second = model.queue[C.nearest(model.keyed(views), model.queue, 5)].split(512)
        for (p, behind), found in zip(((0, 0), (1, 0), (0, 1)), solved.values(), strict=True):
            other = model.centroid(C.shifted(query.roll(p, 0), second.roll(behind, 0)))
            unit = torch.nn.functional.normalize(torch.stack([model.centroid(first), other]), dim=2)
            found.append(((unit[0] @ unit[1].T).argmax(1).cpu() == torch.arange(512)).float().mean().item())

# %%
run.claim("all4one", "The centroid reads the neighbours behind it: another image's make it fail more often",
          solved["all its own"], solved["another's neighbours"], margin=0.05)  # fmt: skip

# %% [markdown]
# With the feature contrast, and with all three terms in the place of the first, All4One ends higher (measured). Whether
# by as much as we asked hangs on a processor's rounding: on one kind the interval begins just below what was asked, on
# another just above (measured). The seeds do not tell it from Barlow Twins, whose idea that contrast is.
# No other part was taken out alone. What widens the intervals is one seed whose common start is worse than its
# untrained encoder, and whose NNCLR ends lower still (measured): there the neighbours are wrong, we guess.
#
# Of the mechanism we see little at this length. With another image's neighbours behind the prediction the centroids
# find each other about as often (measured). But even with all their own only a few in a hundred
# do, a smaller share than the drop we asked for, so the claim could hardly have been met. Such a transformer may not
# have learnt to use its neighbours yet: our guess. Four times as long, another image's neighbours do make it fail more
# often, by less than we asked, and All4One surely does not beat Barlow Twins by as much as we asked; the other
# comparisons stay open (measured).

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
trained = {"random encoder": blank,
           "denoising AE": lambda s: stage.pretrain("dae", lambda e: C.DenoisingAutoencoder(e, side), s, views=C.noisy_views(), **calm).encoder,
           "SimCLR": lambda s: simclr(s).encoder,
           "SimCLR, colours kept": lambda s: stage.pretrain("colours kept", C.SimCLR, s, views=keeping).encoder}  # fmt: skip
vae = lambda s: stage.pretrain("vae", lambda e: C.VAE(e, side), s, views=C.noisy_views(), **calm).encoder
trained |= run.pick(quick={}, long={"VAE": vae}, full={"VAE": vae})

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

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three bar charts for a random encoder, denoising autoencoder, SimCLR and SimCLR with colours kept: class accuracy, colour R² of a linear map, and colour R² of the nearest neighbours. SimCLR leads the first and is last in the third."}, "figure": {"caption": "All encoders hold the colour (middle); what differs is whether neighbours share it (right) or the class (left). Dashed: the random encoder. Dots are seeds.", "name": "fig-gen-or-con"}}
figure, three = lab.plots.axes(3, width=9)
for axis, values, label in zip(three, (kind, read, near), ("class, kNN accuracy", "colour, linear R²", "colour, neighbours' R²")):
    lab.plots.bars(axis, values, label, chance=mean(values["random encoder"]))
_ = [axis.set_yticklabels([]) for axis in three[1:]]

# %%
run.claim("ssl-gen-or-con", "The contrastive encoder tells classes better than the generative one.",
          kind["SimCLR"], kind["denoising AE"], margin=0.1, floor=random)  # fmt: skip

# %%
run.claim("ssl-gen-or-con", "The denoising autoencoder keeps what the views randomise better: neighbours share colours.",
          near["denoising AE"], near["SimCLR"], margin=0.1)  # fmt: skip

# %%
run.claim("ssl-gen-or-con", "It is the views that decide: SimCLR whose views keep the colours keeps them too.",
          near["SimCLR, colours kept"], near["SimCLR"], margin=0.1)  # fmt: skip

# %%
run.claim("ssl-gen-or-con", "SimCLR tells classes better when its views change the colours than when they keep them.",
          kind["SimCLR"], kind["SimCLR, colours kept"], margin=0.1, floor=random)  # fmt: skip

# %% [markdown]
# Most of the colour can be read from every encoder by a linear map, an untrained one included: the middle bars, which
# have no verdict. Where the encoders differ is in what they put close together (measured). And the line does not run
# between generating and contrasting alone: a SimCLR whose views keep the colours has an autoencoder's neighbours.
#
# Its classes suffer with it: it ends below the untrained encoder. The autoencoder ends lower still, at chance, so that
# SimCLR beats it proves little. That SimCLR ends far above the untrained encoder, by the same bars, says more.

# %% [markdown]
# ## Where the chapter ends
# Methods that were measured by nearest neighbours, side by side; 0 of the way is the untrained encoder, 1 the same
# encoder taught with all labels; *SimCLR, begun* is where most of them start. Lengths of training are those of the
# sections, so the rows are not a race.
#
# Least of all against the row *SimCLR*, which started from nothing. The fair rival of the debiased loss and of
# decoupled uniformity is SimCLR going on from the same start. It has no row, but it is the second number of their
# verdicts: there the debiased loss is the loser, and decoupled uniformity an equal. The
# [part's page](../../book/parts/self_supervision.md) has the same table for all its chapters.

# %%
run.summarise("kNN test accuracy", results, floor="random encoder", ceiling="supervised")

# %% [markdown]
# ## What carries over
#
# Every claim of the chapter at each scale that measured it, under what its paper reports.
#
# Read it knowing how it was made. This is the chapter's second edition, on larger pictures. What the first one taught
# us stays in the choice of statements; settings were chosen on seeds and validation images of their own, where nearly
# every arm was run once, and then everything was measured on others. While settings were chosen, on those seeds,
# margins of some claims were moved as well.
#
# Three things came after a look at those: the survey's last claim, in the first edition; MoCo's trainings, both
# versions', which became a third longer; and G-SimCLR's claim on batches filled by their true classes. To keep the
# minute, arms and the claims on them were left to longer runs when all had been measured once.
#
# And a minute is short: verdicts on stronger views, on the length of a queue, on propagated positives and on training
# from scratch are known to move with the length of training. Where a verdict of a longer run stands beside the
# minute's, believe that one.

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
# At least $e^7$, about 1,100 candidates. With certain positives $\mathcal{L}_N = 0$ and all that is left is $\log N$:
# the figure grows with the batch alone, so it may compare two encoders at one $N$, and never two batch sizes.
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
# $\alpha\to\frac{1}{n+\lambda}\mathbf 1\mathbf 1^\top$: every centroid becomes nearly the mean of all, distances
# vanish, and the loss is $\log 1=0$ whatever the encoder does.

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
# the random and for the trained encoder, on fresh views of test images. Which of the two did training improve, and what
# did it do to the other? Then find out whether the answer depends on $\tau$, and state it as a claim: arms, margin,
# seeds.
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
# Training pulls the views of an image together, and with this seed the spread of all images gets a little worse:
# BatchNorm had spread a random encoder's features over the sphere already, we guess. So uniformity by itself says
# nothing about learning here, and neither does alignment, which a constant encoder has perfectly. Only both at once
# describe a representation. For the second half, train with
# `stage.pretrain("tau 0.05", partial(C.SimCLR, tau=0.05), seed)` and a few more temperatures, and hand `run.claim` one
# value a seed for each arm.
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For
# instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} NT-Xent from its equation
# :label: ex-nt-xent
# ````
# Write SimCLR's loss (eq. 1) of $2n$ projections, where rows $i$ and $i+n$ are the two views of image $i$. With the
# cosine $s_{ik} = z_i^\top z_k / (\lVert z_i\rVert \lVert z_k\rVert)$ and $i'$ the row of the other view of $i$'s
# image,
#
# $$\mathcal L = -\frac{1}{2n} \sum_{i=1}^{2n} \log \frac{\exp(s_{ii'}/\tau)}{\sum_{k \neq i} \exp(s_{ik}/\tau)}.$$
#
# Small temperatures must not overflow, nor may a far positive end as $\log 0$. What is the loss when all rows are
# alike?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-nt-xent
# :class: dropdown
# ````
# It is a cross entropy over $2n - 1$ candidates: the row itself is struck out, the other view is the right answer. Rows
# that are all alike give $\log(2n-1)$.

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
# The usual slips: the weights the wrong way round, and keys whose graph is still attached. Then the queue holds on to
# every batch it has seen, and memory grows by the step.

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
# the representation from collapsing, can a cheaper term do it? All papers stand in [the paper
# index](../../book/papers.md), all claims on [the evidence page](../../book/evidence.md).
