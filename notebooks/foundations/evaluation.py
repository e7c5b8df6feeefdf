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
# # Honest evaluation
#
# A method is judged by a number, and the number comes from one run, one seed, one test set. This chapter asks what such
# a number is worth. First a training run is made so short that it can be repeated by the dozen. Then: how far do runs
# differ, and does it matter? Would another test set have said the same, must one run all of it, what does its mean
# hide? And last the folds of cross-validation, through which information leaks even where no label does.
#
# **You will be able to**
# - say what the parts of a speed-run are for, and measure four of them: whitening, flips, averaged views, Muon;
# - compare two settings by pairs of runs, and say how many runs a difference needs;
# - split the variance between runs into what belongs to the test set and what belongs to the networks;
# - tell overfitting to a test set, and the luck of the draw, from a harder test set; measure a shift as a table;
# - predict a model's outcome on all samples from a few, and know when a share or a copy is better;
# - find subgroups behind a mean, and keep preprocessing inside the folds.
#
# **You should know** convolutional networks, stochastic gradient descent with momentum, variance and covariance.
# **Run time:** one to two minutes on a laptop; on a GPU the same cells train the first paper's network on CIFAR-10.

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
import math
import statistics
import time
from dataclasses import replace
from functools import partial

import torch

import labcode as lab
from labcode.foundations import evaluation as E

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map. Between runs, on top: airbench leads to seed 3407, and that to calibrated chaos. Between test sets: calibrated chaos leads to ImageNet's second test set, and that to CINIC-10 and to lifelong benchmarks. Behind the number: CINIC-10 leads to subgroup discrepancy; preprocessing leaks stands beside it, with no arrow."}, "figure": {"caption": "The chapter's papers, by the question they put. An arrow leads to a paper that takes up the question.", "name": "fig-evaluation-family"}}
PAPERS = {
    "airbench": (0, 0, "between runs"), "seed 3407": (1.3, 0, "between runs"),
    "calibrated\nchaos": (2.6, 0, "between runs"), "ImageNet's\nsecond test set": (0, 1.2, "between test sets"),
    "CINIC-10": (1.4, 0.9, "between test sets"), "lifelong\nbenchmarks": (1.4, 1.7, "between test sets"),
    "subgroup\ndiscrepancy": (2.7, 0.9, "behind the number"), "preprocessing\nleaks": (2.7, 1.7, "behind the number"),
}
ARROWS = [("airbench", "seed 3407"), ("seed 3407", "calibrated\nchaos"), ("CINIC-10", "subgroup\ndiscrepancy"),
          ("calibrated\nchaos", "ImageNet's\nsecond test set"), ("ImageNet's\nsecond test set", "CINIC-10"),
          ("ImageNet's\nsecond test set", "lifelong\nbenchmarks")]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("foundations/evaluation")
run

# %% [markdown]
# A chapter has three scales: *quick*, a minute's run, which this page shows; *long*, four times as long; *full*, on a
# GPU. At quick scale the speed-run's data are grey patches of nine photographs, and the class is the photograph. Test
# patches come from places that no training patch touches. Half of all patches were mirrored once, so that left and
# right mean nothing. At full scale it is CIFAR-10 with the paper's network and settings.

# %%
TRAIN, TEST = run.pick(quick=(270, 900), full=(50_000, 10_000))
RUNS, SOME = run.pick(quick=(5, 4), long=(12, 8), full=(20, 20))  # a seed; the first where flips are compared
if run.dry:
    TRAIN, TEST, RUNS, SOME = 256, 512, 2, 2
SMALL = run.pick(quick=dict(widths=(16, 32), batch=54, translate=1, epochs=12, lr=800.0, bias_scale=4.0), full={})
if run.dry:
    SMALL = SMALL | dict(widths=(8, 8, 8), batch=64)
SGD = E.Recipe(**SMALL)
MUON = replace(E.MUON, **SMALL)
COMPARED = SGD, replace(SGD, flip="random")  # where the paper sees the smallest difference, more runs

# %%
def data(seed):
    """Training and test images and labels: patches of the seed's own, or CIFAR-10, the same for all seeds."""
    if run.scale != "full":
        run.data = "photo patches (scikit-image)"
        sizes = zip((TRAIN, TEST), run.splits)
        return tuple(part for n, split in sizes for part in E.photo_patches(n, seed, split, 12, 160))
    cifar = run.once("cifar10", lambda: lab.data.benchmark("cifar10", run.device))
    run.data = cifar.source
    drawn, seen = (torch.randperm(n, generator=torch.Generator().manual_seed(0)) for n in (50_000, 10_000))
    x, y = cifar.train_images[drawn], cifar.train_labels[drawn]  # the file may be sorted by class
    if run.tuning:
        return x[:45_000][:TRAIN], y[:45_000][:TRAIN], x[45_000:][:TEST], y[45_000:][:TEST]
    return x[:TRAIN], y[:TRAIN], cifar.test_images[seen[:TEST]], cifar.test_labels[seen[:TEST]]


# %%
def trainer(recipe, seed):
    """The recipe ready to train. At full scale one serves all seeds, as it was compiled."""
    recipe = replace(recipe, flip="alternating")  # the flip is chosen run by run
    classes = run.pick(quick=9, full=10)
    return run.once((recipe, run.pick(quick=seed, full=0)), lambda: E.SpeedRun(recipe, *data(seed), classes).warm_up())


def runs(recipe, few=None):
    """Runs of a recipe: for every seed of the chapter a list of outcomes, from seeds of their own."""
    usual = RUNS if recipe in COMPARED else SOME if recipe.epochs > SGD.epochs / 2 else SOME // 2  # for a curve
    count = few or usual
    numbers = [[1000 * seed + i for i in range(count)] for seed in run.seeds]
    train = [trainer(recipe, seed) for seed in run.seeds]
    return run.once(recipe, lambda: [[t(n, recipe.flip) for n in row] for t, row in zip(train, numbers)])


# %%
mean = lambda rows, what="tta", k=SOME: [statistics.fmean(getattr(o, what) for o in row[:k]) for row in rows]  # by seed


x, y, test_x, test_y = data(run.seeds[0])
PATCHES = run.data
results = {"chance": [1 / len(set(y.tolist()))] * len(run.seeds)}

# %% tags=["hide-input"]
net = lab.nets.seeded(0, E.SpeedNet, SGD.widths, x.shape[1], x.shape[2], len(set(y.tolist())))
E.Facts({
    "images": f"{run.data}: {len(x):,} for training, {len(test_x):,} for testing, {x.shape[2]}×{x.shape[3]} pixels, "
    f"{x.shape[1]} channels, {len(set(y.tolist()))} classes",
    "views": f"moved by up to {SGD.translate} pixels and mirrored, `E.shifted` and `E.mirrored`; six when tested",
    "network": f"`SpeedNet`, widths {', '.join(map(str, SGD.widths))}, {sum(p.numel() for p in net.parameters()):,} parameters",
    "training": f"{SGD.epochs:g} epochs, batches of {SGD.batch}, SGD at {SGD.lr:g} per 1024 images or Muon at {MUON.muon_lr:g}",
    "measured": f"test accuracy of {SOME} runs a seed, {RUNS} where flips are compared; from the next section on, each section says",
})

# %% [markdown]
# From *Two runs are never alike* on, other networks and data take the speed-run's place. Under every recorded statement
# stands how it came out: the means of the two settings compared (the *arms*) ± their standard deviation over seeds, and
# the 95 % interval of their difference, in which plus is good ([How to read a
# verdict](../../book/how_to_use.md#how-to-read-a-verdict)). Where a statement says *half*, *twice* or *two thirds*, the
# baseline is shown with that factor. 0.01 of accuracy is a point. The margins are our judgement.

# %%
pixels = []  # nearest neighbours vote on raw pixels: what needs no training at all
for seed in run.seeds:
    here, labels, there, labels_there = data(seed)
    here, there = (part.flatten(1).float() for part in (here, there))
    k = run.pick(quick=5, full=20)
    pixels.append(lab.evaluate.knn(here - here.mean(0), labels, there - here.mean(0), labels_there, k=k))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four rows of nine small grey images. In the first two rows, images that stand one above the other are of one class; some show edges, others grain or blotches. The lower two rows show the first row moved by a pixel, and mirrored."}, "figure": {"caption": "Training images, a column a photograph: so small a piece shows edges and texture, and little of what was photographed. Below, two views of the first row.", "name": "fig-evaluation-data"}}
shown = [int(i) for c in range(9) for i in torch.nonzero(y == c)[:2, 0]]
rows = x[torch.tensor(shown[::2] + shown[1::2], device=x.device)]
views = [rows[:9].roll((1, 1), (2, 3)), rows[:9].flip(3)]
_ = lab.plots.images(torch.cat([rows, *views]), 4, names=("image", "another", "moved", "mirrored"))

# %% [markdown]
# (airbench)=
# ## Ninety-four per cent in seconds
# Tricks of a few tenths of a per cent are lost in the difference between two runs of the same setting. If a run takes
# three seconds, one can afford hundreds, and see. Jordan's airbench is the recipe for that run, and its own first use:
# a new way of flipping images.
#
# The network is a 2×2 convolution and a few blocks of two 3×3 convolutions with max-pooling, BatchNorm and GELU.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. An image goes through a whitening layer, whose filters are computed from all training patches, through blocks that start as the identity, and a head to the loss. A slow average of the trained weights is pulled along and pulls back."}, "figure": {"caption": "airbench: filters that are computed, blocks that start as the identity, and a slow average of the weights.", "name": "fig-airbench-mechanism"}}
parts = {
    "image,\nmoved": (0, 0), "whitening": (1, 0, "copy"), "blocks": (2, 0, "trained"), "head": (3, 0, "trained"),
    "loss": (4, 0, "loss"), "all training\npatches": (1, 1), "slow\naverage": (2.5, 1, "copy"),
}
arrows = [
    ("image,\nmoved", "whitening"), ("whitening", "blocks"), ("blocks", "head"), ("head", "loss"),
    ("all training\npatches", "whitening"), ("blocks", "slow\naverage"), ("head", "slow\naverage"),
]
_ = lab.plots.diagram(parts, arrows, width=6.4)

# %%
lab.show(E.SpeedNet)

# %%
lab.show(E.Block)

# %% [markdown]
# ### Start with what can be known
# Neighbouring pixels are nearly equal, so the first layer of a fresh network sees almost only brightness. The recipe
# computes its filters instead. With $\mathbb E[x x^\top] = U \Lambda U^\top$ over all 2×2 patches $x$ of the training
# images,
#
# $$ W = (\Lambda + \epsilon)^{-1/2} U^\top, \qquad \mathbb E\big[(Wx)(Wx)^\top\big] \approx I . $$
#
# The columns of $U$ are the eigenvectors, $\Lambda$ holds the eigenvalues, $\epsilon$ keeps small ones from exploding,
# $I$ is the identity, and the rows of $W$ are the filters. They are there a second time with the opposite sign, as GELU
# passes one sign only, and stay frozen; a bias is trained for three epochs. The other convolutions start as the
# identity on their first channels, so the network begins by passing on what it sees.

# %%
lab.show(E.patch_moments, E.whitening_filters, E.dirac_)

# %%
z = (x.float() / (255 if x.dtype == torch.uint8 else 1)).double().cpu()[:2000]
z = (z - z.mean()) / z.std()
filters = E.whitening_filters(z, eps=0.0)
half = len(filters) // 2
w = filters[:half].flatten(1)
white = w @ E.patch_moments(z) @ w.T
run.exact("airbench", "Whitened patches have the identity as their matrix of second moments",
          float((white - torch.eye(half)).abs().max()), at_most=1e-3)

# %%
conv = torch.nn.Conv2d(6, 16, 3, padding="same", bias=False)
E.dirac_(conv.weight)
signal = torch.randn(4, 6, 12, 12, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    copied = (conv(signal)[:, :6] - signal).abs().max()
run.exact("airbench",
          "A convolution initialised with dirac_ is the identity on its first channels",
          float(copied), at_most=0.0, data="random images")

# %%
# NBVAL_CHECK_OUTPUT
print("filters and their negatives:", torch.equal(filters[:half], -filters[half:]), end=" | ")
print("other channels are random:", bool((conv.weight[6:] != 0).all()))

# %% [markdown]
# ### Train fast
# Nesterov's momentum with a rate that rises for the first quarter of the run and falls for the rest; a multiple of that
# rate for BatchNorm's biases (its scales stay at one); label smoothing, which leaves the other classes a little
# probability; and Lookahead: every five steps a slow average moves towards the network, less and less as the run goes
# on, and the network is set to it. Rates are "decoupled": batch size and momentum may change, and how far an image
# moves the weights and how far weight decay shrinks them in an epoch stay.
#
# The later version replaces SGD on the filters by Muon, and takes another start and scale of head and first bias
# (`scale is None` in the code). Muon's step is roughly the nearest orthogonal matrix to the momentum $G$, found without
# a singular value decomposition, by a quintic applied to the singular values of $X_0 = G/\lVert G\rVert_F$:
#
# $$ X_{j+1} = a X_j + (b\,X_j X_j^\top + c\,(X_j X_j^\top)^2) X_j, \qquad (a, b, c) = (3.4445,\,-4.7750,\,2.0315), $$
#
# where $j$ counts the few steps, $\lVert G\rVert_F$ is the root of the sum of all squared entries, and $a, b, c$ are
# chosen to lift small singular values fast towards one.

# %%
print(f"SGD's rate: {SGD.lr:g} per 1024 images here, {E.Recipe().lr:g} in the paper;", end=" ")
print(f"BatchNorm's biases {SGD.bias_scale:g} times that, {E.Recipe().bias_scale:g} times in the paper")

# %%
lab.show(E.triangle, E.Lookahead)

# %%
lab.show(E.newton_schulz, E.Muon.step)

# %% [markdown]
# ### Look twice when tested, and never the same way when trained
# At test time the logits of six views are averaged, the unmoved ones with more weight: the image, moved by a pixel
# up-left and down-right, and all three mirrored. In training, images are moved by a random offset and mirrored. The
# paper's own idea: tossing a coin for each image in each epoch shows half of the images the same way in two epochs
# running. So toss **once**, and then alternate:
#
# $$ \text{flip}_i(e) = \text{flip}_i(0) \oplus (e \bmod 2), \qquad \text{flip}_i(0) \sim \text{Bernoulli}(1/2), $$
#
# where $\text{flip}_i(e)$ says whether image $i$ is mirrored in epoch $e$, and $\oplus$ is the exclusive or.

# %%
lab.show(E.mirrored, E.shifted, E.test_views)

# %%
g = torch.Generator().manual_seed(0)
toss = torch.rand(1000, generator=g) < 0.5
seen = {flip: torch.stack([E.mirrored(toss, e, flip, g) for e in range(10)]) for flip in E.FLIPS}
once = {flip: (s[1:] == s[:-1]).double().mean() for flip, s in seen.items()}
run.exact("airbench",
          "With alternating flip no image is shown the same way in two consecutive epochs",
          float(once["alternating"]), at_most=0.0, data="flips of 1000 images")

# %%
# NBVAL_CHECK_OUTPUT
for flip, share in once.items():
    print(f"{flip:12} the same side twice in a row: {100 * share:.0f} %")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two grids of eight images by ten epochs, dark where an image is shown mirrored. Random flip: irregular columns with runs of one colour. Alternating flip: every row is a strict alternation."}, "figure": {"caption": "Tossed anew, an image is often shown the same way twice running; alternating, never. Which of eight images are mirrored in which epoch.", "name": "fig-airbench-flips"}}
figure, axes = lab.plots.axes(2, 7, 2.2)
for axis, flip in zip(axes, ("random", "alternating")):
    axis.imshow(seen[flip].T[:8], aspect="auto", cmap="Blues", vmin=-0.3, vmax=1.3)
    axis.set(xlabel="epoch", ylabel="image", title=f"{flip} flip")
    axis.grid(visible=False)

# %% [markdown]
# ### Many runs
# Now train. Arms share initial weights, order and offsets run by run, so that a difference is a difference of pairs. A
# seed of the chapter draws data and several runs; Picard's seed, below, is that of one run.

# %%
ARMS = {
    "alternating flip": SGD, "random flip": replace(SGD, flip="random"), "no flip": replace(SGD, flip="none"),
    "learned first layer": replace(SGD, first="learned"), "Muon": MUON,
}
outcomes = {name: runs(recipe) for name, recipe in ARMS.items()}

# %%
# NBVAL_CHECK_OUTPUT
print(len(ARMS), "arms; runs a seed are many:", SOME >= 2, end=" | ")
print("test images:", len(test_y), "| chance:", round(1 / len(set(y.tolist())), 3))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Strips of dots, one dot a run, for five arms. They overlap widely; by the image alone, the learned first layer lies lowest and no flip next; with six views the flips are level and Muon is ahead. Far to the left a dashed line."}, "figure": {"caption": "Test accuracy of every run, by the image alone and with six views averaged. Strokes are means. Dots of one arm come from all seeds of the chapter, each with patches of its own. The dashed line needs no training: nearest neighbours on raw pixels.", "name": "fig-airbench-runs"}}
figure, axes = lab.plots.axes(2, 6.8, 2.4, sharex=True, sharey=True)
for axis, what, label in zip(axes, ("plain", "tta"), ("image alone", "six views")):
    for row, (name, rows) in enumerate(outcomes.items()):
        values = [getattr(o, what) for r in rows for o in r]
        places = [row + 0.4 * (i / len(values) - 0.5) for i in range(len(values))]
        axis.plot(values, places, "o", color=lab.plots.COLOURS[row], alpha=0.5, markersize=3.5)
        axis.plot([statistics.fmean(values)] * 2, [row - 0.4, row + 0.4], color=lab.plots.GREY)
    axis.axvline(statistics.fmean(pixels), color=lab.plots.GREY, linestyle="--", linewidth=1)
    axis.set_xlabel(f"test accuracy of a run, {label}")
axes[0].set_yticks(range(len(outcomes)), outcomes)
axes[0].invert_yaxis()

# %%
for name, rows in outcomes.items():
    flat = [o for r in rows for o in r]
    alone, views = ([100 * getattr(o, what) for o in flat] for what in ("plain", "tta"))
    took = statistics.fmean(o.seconds for o in flat)
    print(f"{name:20} image alone {statistics.fmean(alone):5.2f} %, six views {statistics.fmean(views):5.2f} %", end="")
    print(f", standard deviation of a run {statistics.stdev(views):.2f}, {took:.2f} s a run")

# %% [markdown]
# First the paper's claim: alternating flip is never worse than random flip, and better wherever flipping helps. It is
# judged by the image alone, since three of the six views are mirrored: the third claim asks whether views give a part
# of what flips give.

# %%
alone = {name: mean(rows, "plain") for name, rows in outcomes.items()}
six = {name: mean(rows) for name, rows in outcomes.items()}
results |= six
tossed, turned = (mean(outcomes[name], "plain", RUNS) for name in ("random flip", "alternating flip"))
run.claim("airbench",
          "Alternating flip gives an accuracy of the image alone that is less than a point below random flip's",
          turned, tossed, margin=-0.01)

# %%
run.claim("airbench",
          "Alternating flip gives a higher accuracy of the image alone than no flip at equal epochs",
          alone["alternating flip"], alone["no flip"], margin=0.01)

# %%
gain = {name: [b - a for a, b in zip(alone[name], six[name])] for name in alone}
run.claim("airbench",
          "Averaging six views brings more to a network trained without flips than to one trained with alternating "
          "flip",
          gain["no flip"], gain["alternating flip"], margin=0.01)

# %% [markdown]
# The paper also measures along the length of a run. The fewer epochs, the more images a tossed coin leaves unseen from
# their other side. No claim.

# %% mystnb={"image": {"alt": "Test accuracy by the image alone against epochs on a logarithmic axis, for no, random and alternating flip. All rise with the epochs. After the shortest training no flip lies highest; with more epochs it falls behind the other two, which lie close together. A dashed line far below: nearest neighbours on raw pixels."}, "figure": {"caption": "Three flips after trainings of different length: with time no flip falls behind. The dashed line needs no training: nearest neighbours on raw pixels.", "name": "fig-airbench-epochs"}}
TIMES = run.pick(quick=1, long=4, full=1)  # long scale makes every training four times as long
EPOCHS = run.pick(quick=(4, SGD.epochs), long=(1, 3, 6, SGD.epochs), full=(2, 4, SGD.epochs))
lengths = {flip: [mean(runs(replace(SGD, flip=flip, epochs=e)), "plain") for e in EPOCHS] for flip in E.FLIPS}
found = run.curve("airbench", "accuracy of the image alone against epochs", [TIMES * e for e in EPOCHS],
                  {"no flip" if flip == "none" else f"{flip} flip": points for flip, points in lengths.items()},
                  "epochs", "test accuracy, image alone", log=True)
_ = lab.plots.curve(found, 5.2, 2.3, floor=statistics.fmean(pixels))

# %% [markdown]
# Flips need time. Four times as long, alternating flip is at least a point ahead of no flip (measured), and by the
# means it stays ahead with six views, as in the paper. In a minute that is open, and after the shortest training no
# flip has the highest mean. In the longer curve no flip gains little from the last doubling; our guess is that it has
# learnt its images by heart. Whether alternating flip is within a point of tossing, both lengths leave open. Averaging
# six views, which are moved as well as mirrored, brings more to the network that was not flipped; how much more is
# open.
#
# How many runs would it take to see a gain as small as the paper's? In the author's recipe for 95 %, random flip in
# place of alternating gives 94.95 % and not 95.01 %, over a hundred runs each or more, and takes 17 epochs instead of
# 15 to make up for it. The interval of a mean difference of pairs shrinks with the root of their number. The print
# answers for 0.1 points; the paper's gain, not two thirds of that, takes nearly three times as many. Our guess: runs on
# CIFAR-10 scatter far less than ours.

# %%
both_flips = zip(outcomes["alternating flip"], outcomes["random flip"])
pairs = [100 * (a.plain - b.plain) for r, s in both_flips for a, b in zip(r, s)]
# %%
sd = statistics.stdev(pairs)
print(f"after {len(pairs)} pairs alternating flip is ahead by {statistics.fmean(pairs):+.2f} points; ", end="")
print(f"a pair's difference has a standard deviation of {sd:.2f} points: ", end="")
print(f"to see 0.1 points at two standard errors takes {math.ceil((2 * sd / 0.1) ** 2)} pairs")

# %% [markdown]
# Then four parts of the recipe.

# %%
run.claim("airbench",
          "The frozen whitening layer gives a higher mean accuracy than the same layer learned from a random start",
          six["alternating flip"], six["learned first layer"], margin=0.001)

# %%
run.claim("airbench",
          "Averaging six views gives a higher mean accuracy than the image alone",
          six["alternating flip"], alone["alternating flip"], margin=0.005)

# %%
shorter = replace(SGD, epochs=MUON.epochs)  # at full scale Muon's recipe is the shorter one
run.claim("airbench",
          "Muon gives a higher mean accuracy than SGD at equal epochs",
          six["Muon"], mean(runs(shorter)), margin=0.005)

# %%
length = SGD.widths[0] ** 0.5  # of an orthogonal step on so many filters, where a normalised one has length 1
momentum = mean(runs(replace(MUON, muon_steps=0, muon_lr=length * MUON.muon_lr)))
run.claim("airbench",
          "Muon's orthogonal step gives a higher mean accuracy than a step as long along the momentum, norms held alike",
          six["Muon"], momentum, margin=0.005)

# %% [markdown]
# What does each part bring? Here each is taken away alone, in few runs and without a claim. By the means the identity
# start and whitening matter most; the others cannot be told from nothing here.

# %%
PARTS = {"whole": SGD, "learned layer": ARMS["learned first layer"], "random start": replace(SGD, identity=False),
         "biases as all": replace(SGD, bias_scale=1.0), "no Lookahead": replace(SGD, lookahead=False),
         "random flip": ARMS["random flip"]}
FEWER = run.pick(quick=SOME // 2, long=SOME, full=SOME)
without = [mean(runs(r, FEWER), "tta", FEWER) for r in PARTS.values()]
run.curve("airbench", "six views with one part taken away", list(PARTS), {"accuracy": without}, "part", "test accuracy")

# %% [markdown]
# The views are exchanged alone; the learned first layer is random at the start *and* trained. SGD's rate is far above
# the paper's (our guess: rates are per image, and there are few). Muon's is another recipe: an orthogonal step, filters
# whose norm is held, no Lookahead, and rates, a head and a start of its own. The last claim takes only the orthogonal
# step away, and in a minute accuracy falls (measured). The step along the momentum has Muon's rate, not searched anew,
# and is as long as an orthogonal one on the first block's filters alone; on wider ones it is shorter. So more than the
# direction differs. Four times as long the views' gain stands; the leads of Muon, of its step and of frozen whitening
# shrink to a fraction or to nothing, and are open (measured). Our guess: these three buy a quicker start, which is what
# a speed-run wants, and with time the others catch up.

# %% [markdown]
# The paper's headline is 94 % in 3.29 s on one A100; the later version with Muon takes 2.59 s. A table of ablations in
# the author's repository adds one part after another and counts the epochs until 94 %: 34 with none of them, 21 with
# the whitening layer, 18 with the identity start, 13.5 with scaled biases, 12 with Lookahead, 10.8 with six views, 9.9
# with alternating flip. Whitening saves the most. We hold the epochs fixed instead and compare accuracies. Seconds are
# recorded on a GPU only.

# %%
if run.scale == "full":
    run.claim("airbench", "Alternating flip gives a higher accuracy of the image alone than random flip",
              turned, tossed, margin=0.001)
    for arm, name, limit in (("Muon", "the Muon recipe", 2.59), ("alternating flip", "airbench94", 3.29)):
        made = [o for row in outcomes[arm] for o in row]
        run.exact("airbench", f"Mean accuracy of {name} over at least 20 runs is 94 % or more",
                  statistics.fmean(o.tta for o in made), at_least=0.94)
        run.exact("airbench", f"A run of {name} takes {limit} s or less, median",
                  statistics.median(o.seconds for o in made), at_most=limit)

# %% [markdown]
# One run says little: runs of one arm scatter about as widely as the arms' means differ. Here that scatter also holds
# each seed's other patches; the next sections hold the data fixed.

# %% [markdown]
# ## Two runs are never alike
# The first question to a reported number: would another seed have given it? The next two papers train one setting
# again and again, so we need a setting that takes milliseconds: digits of 8×8 pixels, shifted, turned and in noise,
# and a perceptron with two small hidden layers. All runs are trained at once, as one stack of weights under
# `torch.func.vmap`. Digits can be drawn without end, so there is not one test set but many of the same size. On a GPU
# the runs are the speed-run's, and the test sets are the two halves of CIFAR-10's.

# %%
lab.show(E.train_many, start="for step in range", end="_foreach_add_(params")

# %%
lab.show(E.varied)

# %%
MANY, FEW, SET = run.pick(quick=(96, 12, 500), long=(512, 12, 500), full=(200, 50, 5000))
MANY, FEW, SET = (8, 2, 16) if run.dry else (MANY, FEW, SET)
LENGTHS = run.pick(quick=(4, 12, 32), long=(4, 8, 16, 32, 64, 128), full=(2, 4, 8))  # epochs, the last is the whole training
WIDE = run.pick(quick=dict(hidden=(64, 64)), full=dict(widths=(128, 512, 512)))
KINDS = {  # which of initial weights, order and augmentation differ between runs, and the change of one weight
    "initialisation": (1, 0, 0, 0), "order": (0, 1, run.pick(quick=0, full=1), 0),
    **run.pick(quick={"augmentation": (0, 0, 1, 0)}, full={}), "one weight": (0, 0, 0, 0.1),
}

# %%
if run.scale != "full":
    SOURCE, (train, test) = "digits in noise (scikit-learn)", run.splits
    tests = [E.grey_digits(6000, seed, test) for seed in run.seeds]
    tiny = [E.TinyRuns(*E.grey_digits(1000, seed, train), t, seed) for seed, (t, _) in zip(run.seeds, tests)]
    truths = [label for _, label in tests]
else:
    SOURCE, truths = run.data, [data(seed)[3].cpu() for seed in run.seeds]

# %%
def many(source, count, **options):
    """For every seed {epochs: the classes that each run gives the test images, (runs, images)}."""
    lengths = LENGTHS if source == "everything" else LENGTHS[-1:]
    if run.scale != "full":
        train = lambda i, _: tiny[i](runs=count, marks=lengths, **options)
    else:
        *sources, nudge = KINDS.get(source, (1, 1, 1, 0))
        recipes = {n: replace(MUON, epochs=n, **options) for n in lengths}
        train = lambda _, s: {n: E.repeated(trainer(r, s), sources, count, s, nudge > 0) for n, r in recipes.items()}
    return run.once((source, count), lambda: [train(i, seed) for i, seed in enumerate(run.seeds)])


def hits(source, count, epochs=LENGTHS[-1], **options):
    """For every seed which test images each run gets right."""
    return [made[epochs] == y for made, y in zip(many(source, count, **options), truths)]

# %% [markdown]
# (seed-3407)=
# ## The best of many seeds
# A seed is a setting like any other: somebody chose it. It fixes the initial weights and the order of the batches (in
# our runs also what augmentation shows), and all else in the recipe is equal. Picard scanned ten thousand seeds on
# CIFAR-10. The variance was not very large, and yet the best and the worst lay about 1.8 points apart, as far as many a
# published gain: a gain of that size may be a seed that somebody chose. Longer training and pretrained weights narrowed
# the spread, and neither closed it. His title warns: *Torch.manual_seed(3407) is all you need*.
#
# How much does scanning bring? If accuracies over seeds are Gaussian with standard deviation $\sigma$, the best of
# $k$ is expected to lead the mean by
#
# $$ \sigma \, \mu_k, \qquad \mu_k = \int t\, k\, \varphi(t)\, \Phi(t)^{k-1}\, dt , $$
#
# with $\varphi$ and $\Phi$ the density and the distribution function of a standard normal number $t$, and $\mu_k$ the
# expected largest of $k$ of them. A Gaussian is symmetric, so the worst lies as far below: the gap of best and worst is
# $2 \sigma \mu_k$. Both grow slowly and never stop, in the end as $\mu_k \approx \sqrt{2 \ln k}$; for twenty runs that
# root is still nearly a third too large. Were there a best possible run, a bounded law would fit better; we take the
# uniform one with the same $\sigma$ as the rival. And is a lucky seed a *better network*: does its lead hold on images
# that it was not chosen on?

# %%
lab.show(E.best_of, E.gaussian_best, E.scanned)

# %%
whole = hits("everything", MANY)
sigma = [E.over_sets(E.test_set_variance, c, SET) ** 0.5 for c in whole]
ks = [2**i for i in range(1, 10) if 2**i <= MANY // 2]
lead_of = lambda q, k: E.best_of((q.double().mean(1) - q.double().mean()).tolist(), k)
best = [[E.over_sets(lambda q, k=k: lead_of(q, k), c, SET) for k in ks] for c in whole]
laws = {"Gaussian": [E.gaussian_best(k) for k in ks], "uniform": [3**0.5 * (k - 1) / (k + 1) for k in ks]}
off = {name: [statistics.fmean(abs(s * m / b - 1) for m, b in zip(law, row)) for s, row in zip(sigma, best)]
       for name, law in laws.items()}
leads = [E.scanned(c, SET) for c in whole]

# %%
print(f"{MANY} runs of mean accuracy {100 * float(whole[0].double().mean()):.1f} %;", end=" ")
print(f"on a test set of {SET} images, in points:")
print(f"standard deviation {100 * sigma[0]:.2f}, lead of the best run {100 * leads[0][0]:.2f}, ", end="")
print(f"its lead on other images {100 * leads[0][1]:.2f},")
print(f"lead of the best of 10,000 if accuracies are Gaussian {100 * sigma[0] * E.gaussian_best(10_000):.1f}")

# %%
on_set = {n: [E.over_sets(E.extremes, c, SET).tolist() for c in hits("everything", MANY, n)] for n in LENGTHS}
for n, rows in on_set.items():
    worst, middle, top = (100 * statistics.fmean(row[i] for row in rows) for i in range(3))
    print(f"after {n:3} epochs: mean {middle:.1f} %, worst run {worst:.1f} %, best run {top:.1f} %, ", end="")
    print(f"{top - worst:.1f} points apart")

# %%
names = ("worst run", "mean", "best run")
points = {name: [[row[i] for row in on_set[n]] for n in LENGTHS] for i, name in enumerate(names)}
run.curve("seed-3407", "best, mean and worst run against epochs", LENGTHS, points, "epochs", "test accuracy", log=True,
          data=SOURCE)

# %% tags=["hide-input"] mystnb={"image": {"alt": "A cloud of runs, accuracy on one test set against accuracy on all other images; the cloud is wide along the first axis and narrow along the second. The best run on the first test set is marked with a star and lies near the mean on the second."}, "figure": {"caption": "The best run on one test set (star) is nothing special on other images; one dot a run, the dashed line is their mean.", "name": "fig-seeds-best"}}
figure, axis = lab.plots.axes(1, 3.6, 2.4)
here, there = 100 * whole[0][:, :SET].double().mean(1), 100 * whole[0][:, SET:].double().mean(1)
axis.plot(here, there, "o", alpha=0.5, markersize=3.5)
axis.plot(here[here.argmax()], there[here.argmax()], "*", color=lab.plots.COLOURS[1], markersize=13)
axis.axhline(float(there.mean()), color=lab.plots.GREY, linestyle="--", linewidth=1)
_ = axis.set(xlabel="accuracy on one test set, %", ylabel="on other images, %", aspect="equal")

# %% mystnb={"image": {"alt": "The lead of the best of k runs against k, from 2 to 32, in the longer run to 256, on a logarithmic axis: the runs lie on or just below the Gaussian law's curve, which goes on rising; the uniform law's curve flattens below both."}, "figure": {"caption": "The lead of the best of k runs grows as the Gaussian law says, and not as the uniform one of equal standard deviation.", "name": "fig-seeds-lead"}}
points = {"runs": [[100 * row[i] for row in best] for i in range(len(ks))]}
points |= {f"{name} law": [[100 * s * m for s in sigma] for m in law] for name, law in laws.items()}
found = run.curve("seed-3407", "lead of the best of k runs", ks, points, "k, seeds scanned", "lead, points",
                  log=True, data=SOURCE)
_ = lab.plots.curve(found, 5.2, 2.3)

# %%
mean_of = [float(c.double().mean()) for c in whole]
wide = [float(c.double().mean()) for c in hits("twice as wide", max(2, FEW // 2), **WIDE)]
run.claim("seed-3407", "The best of the scanned seeds scores at least a point above the mean of networks twice as wide",
          [m + lead for m, (lead, _) in zip(mean_of, leads)], wide, margin=0.01, data=SOURCE)

# %%
gap = [top - worst for worst, _, top in on_set[LENGTHS[-1]]]
run.claim("seed-3407", "The best and the worst seed lie more than twice as far apart as doubling the width brings",
          gap, [2 * (w - m) for w, m in zip(wide, mean_of)], margin=0.0, data=SOURCE)

# %%
run.claim("seed-3407", "At most half of the best run's lead remains on other test images",
          [kept for _, kept in leads], [lead / 2 for lead, _ in leads], margin=0.0, higher_is_better=False, data=SOURCE)

# %%
run.claim("seed-3407",
          "The best of k leads as a Gaussian law predicts: relative error at least 0.02 below that of a uniform "
          "law",
          off["Gaussian"], off["uniform"], margin=0.02, higher_is_better=False, data=SOURCE)

# %%
spread = {n: [E.over_sets(E.test_set_variance, c, SET) ** 0.5 for c in hits("everything", MANY, n)] for n in LENGTHS}
run.claim("seed-3407", "Trained to the end, runs have less than half of the standard deviation that they have early",
          spread[LENGTHS[-1]], [s / 2 for s in spread[LENGTHS[0]]], margin=0.0, higher_is_better=False, data=SOURCE)

# %%
if run.scale != "full":
    bodies = [t.body(*E.grey_digits(1000, 500 + seed, train)) for t, seed in zip(tiny, run.seeds)]
    tuned = [E.last(t(runs=FEW, body=body)) == y for t, body, y in zip(tiny, bodies, truths)]
tuned_sigma = [E.over_sets(E.test_set_variance, c, SET) ** 0.5 for c in tuned] if run.scale != "full" else None

# %%
run.claim("seed-3407",
          "Fine-tuned from one pretrained network, runs spread less than nine tenths of those from scratch",
          tuned_sigma, [0.9 * s for s in sigma],
          margin=0.0, higher_is_better=False, data=SOURCE) if tuned_sigma else None

# %%
scores = [c[:, :SET].double().mean(1) for c in whole]
inside = 100 * statistics.fmean(float(((a - a.mean()).abs() <= a.std()).double().mean()) for a in scores)
print("standard deviation over seeds: ", end="")
print(", ".join(f"{100 * statistics.fmean(spread[n]):.2f} points after {n} epochs" for n in LENGTHS))
print(f"within one deviation of the mean: {inside:.0f} % of the runs, 68 % if they are Gaussian")

# %% [markdown]
# Picard's warning holds. The best and the worst seed lie further apart than twice what doubling the width brings, and
# the lead is nearer to the law of Gaussian numbers than to a bounded one, in the longer run over hundreds of seeds
# (measured). In a minute, picking one seed of a narrow network buys at least a point more than a network of twice the
# width (measured); four times as long it is little less on average, and open. Longer training narrows the spread
# (measured). Pretraining narrows it further in a minute (measured); in the longer run by less, and whether by a tenth is
# open. Our guess: by then a run from scratch has learnt what pretraining gives. Neither closes the spread. Pretrained
# is one network, on another thousand digits of the same kind: each run takes over all of its layers but the last, and
# is then trained as long as the others. It may be that runs are more alike only because they are more accurate; we did
# not ask.
#
# But on other images the star is nothing special. Over many test sets at most half of the lucky run's lead is left
# (measured). The rest belonged to the test set. If all is Gaussian, the share left is that of the distribution in the
# variance, which comes next.

# %% [markdown]
# (calibrated-chaos)=
# ## Calibrated chaos: most of the spread is the test set's
# If a lucky run is not better elsewhere, what did it win? Write $A(r)$ for the accuracy of run $r$ on the whole
# distribution, and $\hat A(r)$ for that on $n$ test images. Jordan asks how much of $\operatorname{Var}_r \hat A$ is
# $\operatorname{Var}_r A$. Cut the test set into halves. What a run wins on *both* is no luck with images, so the
# covariance of the halves estimates the variance of $A$ without bias. Averaged over all halvings it needs no halving
# at all. With $\hat A_1$ and $\hat A_2$ the accuracies on two random halves, variances and covariances taken over runs,
#
# $$ \widehat{\operatorname{Var}}\,A = \mathbb E\,\operatorname{Cov}_r\big(\hat A_1, \hat A_2\big)
#    = \frac{n}{n-1}\Big(\operatorname{Var}_r \hat A
#    - \frac{1}{n^2}\sum_i \operatorname{Var}_r(\text{right on } i)\Big). $$
#
# The subtracted sum is the variance of **independent coins**, one an image, each with the share of runs that are right
# on it: Jordan's model of what runs do. Its rival below, the *binomial formula* $e(1-e)/n$ with $e$ the mean error,
# tosses the same coin for every image. And the variance must be there. Let a share $q$ of binary classifiers vote for a
# class that is right with probability $q$: the ensemble is *calibrated*. A run errs if it votes for the class and the
# class is wrong, $q(1-q)$, or the other way round: together $2q(1-q)$. Being right or not, where a share $q$ votes one
# way, has the variance $q(1-q)$ over runs. Summed over $n$ images as if they were independent and divided by $n^2$, the
# variance is half the mean error over $n$:
#
# $$ \operatorname{Var}_r \hat A \approx \frac{\text{error}}{2n}. $$
#
# A calibrated ensemble that errs cannot have runs that agree.

# %%
lab.show(E.distribution_variance, E.half_split_covariance, E.coin_variance, E.calibrated_variance)

# %%
whole = hits("everything", MANY)
sample, g = whole[0][:, :200], torch.Generator().manual_seed(0)
by_halves = E.half_split_covariance(sample, 4000, g)
run.exact("calibrated-chaos",
          "The mean covariance of random halves is the closed form, in parts of the test-set variance",
          abs(by_halves - E.distribution_variance(sample)) / E.test_set_variance(sample), at_most=0.05, data=SOURCE)

# %%
q = torch.rand(2000, generator=g, dtype=torch.float64)
truth = torch.rand(2000, generator=g) < q
votes = (torch.rand(400, 2000, generator=g) < q) == truth
predicted = E.calibrated_variance(1 - float(votes.double().mean()), 2000)
run.exact("calibrated-chaos",
          "Votes that are calibrated by construction have the variance error/(2n), relative error of the coins' sum",
          abs(E.coin_variance(votes) / predicted - 1), at_most=0.05, data="random votes")

# %% [markdown]
# Now on runs: the estimate from one test set against that from all images.

# %%
variance = [E.over_sets(E.test_set_variance, c, SET) for c in whole]
coins = [E.over_sets(E.coin_variance, c, SET) for c in whole]
genuine = [E.distribution_variance(c) for c in whole]
for name, values in {"test set": variance, "independent coins": coins, "distribution": genuine}.items():
    shown = " ".join(f"{100 * max(0, v) ** 0.5:.2f}" for v in values)
    print(f"standard deviation, {name:18} {shown} points, one value a seed")

# %%
run.claim("calibrated-chaos", "The variance of runs on the distribution is less than half of that on a test set",
          [g / v for g, v in zip(genuine, variance)], [0.5] * len(run.seeds),
          margin=0.0, higher_is_better=False, data=SOURCE)

# %%
apart = [E.over_sets(lambda q, t=t: abs(E.distribution_variance(q) - t), c, SET) for c, t in zip(whole, genuine)]
run.claim("calibrated-chaos",
          "From one test set, half-splits err less about that variance than half of what the test-set variance "
          "errs",
          [1e4 * a for a in apart], [1e4 * (v - g) / 2 for v, g in zip(variance, genuine)],
          margin=0.0, higher_is_better=False, data=SOURCE)

# %%
begun = hits("everything", MANY, LENGTHS[0])
early = [E.distribution_variance(c) / E.over_sets(E.test_set_variance, c, SET) for c in begun]
run.claim("calibrated-chaos", "Longer training takes the distribution's share of the variance down by at least 0.2",
          [g / v for g, v in zip(genuine, variance)], early, margin=0.2, higher_is_better=False, data=SOURCE)

# %% mystnb={"image": {"alt": "Standard deviation in points against epochs on a logarithmic axis. That on a test set falls and levels off on that of independent coins; that on the distribution falls further, from nearly the whole to less than half of it."}, "figure": {"caption": "As training goes on, what is left of the spread on a test set are coins: the distribution's part falls much further.", "name": "fig-chaos-epochs"}}
kinds = {"test set": E.test_set_variance, "independent coins": E.coin_variance}
points = {kind: [[100 * E.over_sets(of, c, SET) ** 0.5 for c in hits("everything", MANY, n)] for n in LENGTHS]
          for kind, of in kinds.items()}
points["distribution"] = [[100 * max(0, E.distribution_variance(c)) ** 0.5 for c in hits("everything", MANY, n)]
                          for n in LENGTHS]
found = run.curve("calibrated-chaos", "standard deviation against epochs", LENGTHS, points, "epochs",
                  "deviation, points", log=True, data=SOURCE)
_ = lab.plots.curve(found, 5.6, 2.3)

# %%
away = lambda guess, truth: [abs(math.log(a / b)) / 2 for a, b in zip(guess, truth)]  # of standard deviations
binomial = [float(c.double().mean() * (1 - c.double().mean())) / SET for c in whole]
run.claim("calibrated-chaos",
          "Independent coins predict the test-set deviation better than the binomial formula, by 0.02 in its "
          "logarithm",
          away(coins, variance), away(binomial, variance), margin=0.02, higher_is_better=False, data=SOURCE)

# %% [markdown]
# Which source of chance is to blame? None, says the paper: training is so sensitive that any of them is enough, even
# one changed weight. So hold all seeds but one fixed; or all of them, and make one weight larger by 0.1. First a check
# of the study itself: with all held fixed, no prediction differs.

# %%
if run.scale != "full":  # all kinds in one stack
    stacks = [t.each(KINDS | {"nothing": (0, 0, 0, 0)}, FEW) for t in tiny]
    arms = {name: [made[name] == y for made, y in zip(stacks, truths)] for name in KINDS}
else:
    arms = {name: hits(name, FEW) for name in KINDS}

# %%
same = [made["nothing"] for made in stacks] if run.scale != "full" else []  # a GPU's float16 sums differ
run.exact("calibrated-chaos",
          "A source held fixed is fixed: with all of them held, the share of predictions that differ between runs",
          max(float((made != made[0]).double().mean()) for made in same), at_most=0.0, data=SOURCE) if same else None

# %%
widths = {name: [E.over_sets(E.test_set_variance, c, SET) ** 0.5 for c in rows] for name, rows in arms.items()}

part_of = {name: [w / v**0.5 for w, v in zip(rows, variance)] for name, rows in widths.items()}
thirds = [2 / 3] * len(run.seeds)

# %%
run.claim("calibrated-chaos",
          "With initialisation alone varied, the deviation is at least two thirds of that with everything varied",
          part_of["initialisation"], thirds, margin=0.0, data=SOURCE)

# %%
run.claim("calibrated-chaos",
          "With order alone varied, the deviation is at least two thirds of that with everything varied",
          part_of["order"], thirds, margin=0.0, data=SOURCE)

# %%
run.claim("calibrated-chaos",
          "With augmentation alone varied, the deviation is at least two thirds of that with everything varied",
          part_of["augmentation"], thirds, margin=0.0, data=SOURCE) if "augmentation" in widths else None

# %%
run.claim("calibrated-chaos",
          "With one weight alone varied, the deviation is at least two thirds of that with everything varied",
          part_of["one weight"], thirds, margin=0.0, data=SOURCE)

# %% [markdown]
# Last, calibration. To have binary classifiers we ask of each prediction only whether its class is in the upper half.
# How badly calibrated something is, is measured in bins of what it states: the mean distance between the share stated
# and how often it is right.

# %%
half = [(made[LENGTHS[-1]] >= 5, y >= 5) for made, y in zip(many("everything", MANY), truths)]
errors = [1 - float((p == y).double().mean()) for p, y in half]
measured = [E.over_sets(E.test_set_variance, p == y, SET) for p, y in half]
run.claim("calibrated-chaos",
          "For binary votes error/(2n) predicts the deviation better than the binomial formula, by 0.1 in its "
          "logarithm",
          away([E.calibrated_variance(e, SET) for e in errors], measured),
          away([e * (1 - e) / SET for e in errors], measured),
          margin=0.1, higher_is_better=False, data=SOURCE)

# %%
shares = [E.calibration(E.vote_shares(p.long(), 2), y.long()) for p, y in half]
stated = [t.softmax(0).view(-1, 2, 5).sum(2) for t in tiny] if run.scale != "full" else []
stated = [E.calibration(p, y.long())[3] for p, (_, y) in zip(stated, half)]
run.claim("calibrated-chaos",
          "The share of runs that vote for a class is better calibrated, by 0.005, than what a single run "
          "states",
          [s[3] for s in shares], stated,
          margin=0.005, higher_is_better=False, data=SOURCE) if stated else None

# %% tags=["hide-input"] mystnb={"image": {"alt": "How often a class is right against the share of runs that vote for it, a line a seed: all rise near the diagonal, flatter than it."}, "figure": {"caption": "Votes of many runs for binary classes are calibrated nearly: a line a seed, the dashes are perfect.", "name": "fig-chaos-calibration"}}
figure, axis = lab.plots.axes(1, 3, 2.4)
for confidence, accuracy, *_ in shares:
    axis.plot(confidence, accuracy, "o-", color=lab.plots.COLOURS[0], alpha=0.6, markersize=3)
axis.plot([0, 1], [0, 1], color=lab.plots.GREY, linestyle="--", linewidth=1)
_ = axis.set(xlabel="share of votes", ylabel="how often right", aspect="equal")

# %% [markdown]
# The distribution has less than half of the variance on a test set, and its share shrinks as training goes on
# (measured). Half-splits of one test set get nearer to it than half of what the test-set variance is off (in squared
# points), a weak rival. Any source of chance gives at least two thirds of the deviation, which are four ninths of the
# variance, even a single weight (measured). That fits Jordan's reason, that training is sensitive; how large the
# disturbance is, was not varied.
#
# Coins leave out what runs differ by on the distribution: by the identity above the test-set variance is theirs plus
# nearly that. And votes are not perfectly calibrated; our guess is that all runs saw the same thousand images, and
# agree more than they should. Four times as long, and with more runs, they come nearer, while what a run states of
# itself gets worse: votes are better calibrated, by far more than we asked (measured; in a minute by how much is open).
# Our guess: a single run grows too sure. Error over $2n$ is nearer than the binomial formula all the same (measured).

# %% [markdown]
# ## Many models, more than one test set
# Two papers look at many models at once: what one test set says about another, and how little of a test set one has to
# run. At quick scale the models are scikit-learn's, of every family, each fitted on four numbers of digits; at full
# scale, speed-run networks of several widths and lengths on CIFAR-10.
#
# Test images are chosen by people. Our **annotators** are forty small networks in a hurry: each sees each candidate
# once, in noise of its own, and names it. The share of them that find a candidate to be what its label says is what the
# paper calls its *selection frequency*.

# %%
CANDIDATES, SAMPLES, SIZE, CROWD = run.pick(quick=((2700, 4500), 1000, 500, 40), full=((3500, 4500), 2000, 1000, 40))
if run.dry:
    CANDIDATES, SAMPLES, SIZE, CROWD = run.pick(quick=((300, 300), 60, 20, 10), full=((200, 200), 112, 20, 10))
PHOTOS = run.pick(quick="digits in noise (scikit-learn)", full=run.data)

# %%
def field(seed):
    """All models on the seed's candidates and samples."""
    if run.scale != "full":
        make = partial(E.digit_field, seed, *run.splits, CANDIDATES, SAMPLES, CROWD)
    else:
        a, b, *shown = data(seed)
        shown = [part[: sum(CANDIDATES) + SAMPLES] for part in shown]
        make = partial(E.speed_field, a, b, *shown, CANDIDATES, CROWD, seed, MUON)
    made = run.once(("field", seed), make)  # in a dry run annotators have learnt nothing: four images in five are clear
    return replace(made, agree=made.agree | (torch.arange(made.agree.shape[1]) % 5 > 0)) if run.dry else made


# %% [markdown]
# (imagenet-generalize)=
# ## A second test set
# ImageNet and CIFAR-10 have been tested on for ten years. Has everybody overfitted to the test set? Recht and
# colleagues collected new ones by the original recipes. Every model lost accuracy, 3 to 15 points on the new CIFAR-10
# (CIFAR-10.1) and 11 to 14 on ImageNet. But the *order* of models stayed, and who gained a point on the old test gained
# more than a point on the new one: about 1.7 on CIFAR-10 and 1.1 on ImageNet. Had models been fitted to the old test
# set, gains on it would be partly lost on the new one, most by the latest models: a slope below one. So it is no
# overfitting, they argue: the new images are slightly harder.
#
# ImageNet's new images came from a search of their own, and at least ten annotators looked at each image, old and new.
# With $f_i$ the selection frequency of image $i$, three new sets were drawn: *matched*, which has of each class and
# each fifth of the range of $f$ as many images as the old set; *threshold 0.7*, images with $f_i \ge 0.7$; *top
# images*, of each class those with the highest $f_i$. Over models one then fits
#
# $$ \text{accuracy}_\text{new} \approx u \cdot \text{accuracy}_\text{old} + v $$
#
# with $u$ the slope and $v$ the offset, for accuracies or for their *probits*, the Gaussian quantiles, which stretch
# the ends. Models lost 11 to 14 points on the *matched* set, in spite of the matching; and the higher the frequencies
# of a set, the less they lost.
#
# We repeat that with two sources of digits: in the second, digits are shifted, turned and scaled more. The old set is
# what a first vote of three annotators let pass from the first source. A set drawn from the *same source* by the same
# vote is the control: on it nothing should be lost. The paper removed near duplicates of old images from its new sets.
# Here candidates are made of a few hundred test digits, so these are dealt to two halves: one for the old set, one for
# all others. What that changes is measured.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Candidates of the first source that pass a first vote become the old test set and a second one from the same source. Annotators give all candidates a selection frequency. From the second source three new sets are drawn by it: matched to the old set's frequencies, above a threshold, and the top images. All models are tested on all sets."}, "figure": {"caption": "Second test sets: another source, the same annotators, and three rules for what to take.", "name": "fig-newtest-mechanism"}}
parts = {
    "source 1": (0, 0.5), "source 2": (0, 2.5), "annotators": (0, 4), "old set": (1.6, 0, "store"),
    "same source": (1.6, 1, "store"), "matched": (1.6, 2, "store"), "threshold 0.7": (1.6, 3, "store"),
    "top images": (1.6, 4, "store"), "models": (3.2, 2, "trained"),
}
arrows = [("source 1", "old set"), ("source 1", "same source"), ("annotators", "source 2", "frequency")]
arrows += [("source 2", name) for name in ("matched", "threshold 0.7", "top images")]
arrows += [(name, "models") for name in ("old set", "same source", "matched", "threshold 0.7", "top images")]
_ = lab.plots.diagram(parts, arrows, height=3)

# %%
lab.show(E.selection_frequency, E.matched, E.above)

# %%
lab.show(E.hurried, start="start =")

# %%
ASKED, KAPPAS = (4, (0.3, 0.7)) if run.dry else (10, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))  # annotators an image
found = [E.second_tests(field(seed), SIZE, ASKED, seed, thresholds=KAPPAS) for seed in run.seeds]
(accuracies, first), NEW = found[0], ("same source", "matched", "threshold 0.7", "top images")
drop = {name: [float((a["old"] - a[name]).mean()) for a, _ in found] for name in found[0][0]}
lines = {name: [E.fitted_line(a["old"], a[name]) for a, _ in found] for name in NEW}
for name in NEW:
    falls = 100 * (accuracies["old"] - accuracies[name])
    print(f"{name:13} {len(first[name])} images, accuracy falls by {falls.mean():+.1f} points,", end=" ")
    scaled = E.fitted_line(*(E.probit(accuracies[which], SIZE) for which in ("old", name)))
    print(f"{falls.min():+.1f} to {falls.max():+.1f}; slope {lines[name][0][0]:.2f}, of probits {scaled[0]:.2f},", end=" ")
    print(f"R² {lines[name][0][2]:.3f} and {scaled[2]:.3f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Accuracy on the matched and on the threshold 0.7 new test set against that on the old one, one dot a model. The matched set's cloud lies below the diagonal, and bends: further below it in the middle than at the right end. The other cloud lies on or above the diagonal."}, "figure": {"caption": "Models lose on the matched set, not on that of images with high frequencies, and nearly keep their order. One dot a model; the dashes are equality, the lines are fits.", "name": "fig-newtest-lines"}}
figure, axis = lab.plots.axes(1, 4.4, 2.8)
for colour, name in zip(lab.plots.COLOURS, ("matched", "threshold 0.7")):
    x, y = 100 * accuracies["old"], 100 * accuracies[name]
    slope, shift, _ = E.fitted_line(x, y)
    axis.plot(x, y, "o", color=colour, alpha=0.6, markersize=3.5, label=name)
    axis.plot([x.min(), x.max()], [slope * v + shift for v in (x.min(), x.max())], color=colour)
axis.axline((50, 50), slope=1, color=lab.plots.GREY, linestyle="--", linewidth=1)
axis.set(xlabel="accuracy on the old test set, %", ylabel="accuracy on a new one, %")
_ = axis.legend()

# %%
run.claim("imagenet-generalize",
          "On a new test set matched in selection frequency models lose at least two points more than on one from the "
          "same source",
          drop["matched"], drop["same source"], margin=0.02, data=PHOTOS)

# %%
run.claim("imagenet-generalize",
          "On new images with a selection frequency of 0.7 and more models lose at least two points less than on the "
          "matched set",
          drop["threshold 0.7"], drop["matched"], margin=0.02, higher_is_better=False, data=PHOTOS)

# %% mystnb={"image": {"alt": "Fall of accuracy in points against the least selection frequency, from 0.3 to 0.9: a line that falls steadily, from far above the dashed line of the matched set to below zero."}, "figure": {"caption": "The clearer its images must be, the less a new set costs, down to a gain. The dashed line is the matched set.", "name": "fig-newtest-kappa"}}
points = {"fall": [[100 * d for d in drop[f"threshold {kappa:g}"]] for kappa in KAPPAS]}
curve = run.curve("imagenet-generalize", "fall of accuracy against the least selection frequency", KAPPAS, points,
                  "least selection frequency", "fall, points", data=PHOTOS)
_ = lab.plots.curve(curve, 4.6, 2.0, floor=100 * statistics.fmean(drop["matched"]))

# %%
even = lambda f, right, i: statistics.fmean(float(right[:, i[f.labels[i] == c]].double().mean()) for c in range(10)
                                            if bool((f.labels[i] == c).any()))
for name in ("threshold 0.7", "top images"):
    alike = [even(f, f.said == f.labels, c["old"]) - even(f, f.said == f.labels, c[name])
             for f, (_, c) in zip(map(field, run.seeds), found)]
    print(f"{name:13} accuracy falls by {100 * statistics.fmean(drop[name]):+.1f} points on average over seeds,", end=" ")
    print(f"{100 * statistics.fmean(alike):+.1f} with every class counted alike")

# %%
order_kept = {name: [E.rank_agreement(a["old"], a[name]) for a, _ in found] for name in NEW}
run.claim("imagenet-generalize",
          "The matched set ranks models as the old one does, within 0.03 of the rank correlation of a set from the "
          "same source",
          order_kept["matched"], order_kept["same source"], margin=-0.03, data=PHOTOS)

# %%
run.claim("imagenet-generalize",
          "Over all models, a point more on the old test set is at least 1.02 points more on the matched one",
          [u for u, *_ in lines["matched"]], [1.0] * len(run.seeds), margin=0.02, data=PHOTOS)

# %%
better = [a["old"] > a["old"].median() for a, _ in found]
steep = [E.fitted_line(a["old"][b], a["matched"][b])[0] for (a, _), b in zip(found, better)]
run.claim("imagenet-generalize",
          "Among the better half of the models, a point more on the old is at least 1.1 points more on the matched one",
          steep, [1.0] * len(run.seeds), margin=0.1, data=PHOTOS)

# %% [markdown]
# How sure is a slope? Models and images of both sets are drawn anew with replacement, again and again.

# %%
ends = {"all models": [], "better half": []}
for (_, chosen), b, seed in zip(found, better, run.seeds):
    right, g = field(seed).said == field(seed).labels, torch.Generator().manual_seed(seed)
    for name, rows in (("all models", right), ("better half", right[b])):
        drawn = E.bootstrapped(rows[:, chosen["old"]], rows[:, chosen["matched"]], 20 if run.dry else 200, g)
        ends[name].append(drawn.quantile(torch.tensor([0.025, 0.975])).tolist())
for name, rows in ends.items():
    print(f"slope of {name}, 95 % of the draws:", ", ".join(f"{low:.2f} to {high:.2f}" for low, high in rows))

# %%
run.claim("imagenet-generalize",
          "Over all models a slope of 1.7, the paper's on CIFAR-10, is excluded: the upper end of the bootstrap's "
          "interval is below it",
          [high for _, high in ends["all models"]], [1.7] * len(run.seeds), margin=0.0, higher_is_better=False, data=PHOTOS)

# %% [markdown]
# Why probits? The paper explains its lines by a model of *skill*: image difficulties are Gaussian with standard
# deviation $\sigma$, and a model of skill $s$ is right on an image of difficulty $d$ with probability $\Phi(s - d)$.
# Then accuracies are $\Phi\big((s - \mu)/\sqrt{1 + \sigma^2}\big)$ with $\mu$ the mean difficulty, and their probits
# on two sets lie on a line with slope $\sqrt{1 + \sigma_\text{old}^2} / \sqrt{1 + \sigma_\text{new}^2}$.

# %%
skills, g = torch.linspace(-0.5, 2.5, 60), torch.Generator().manual_seed(0)
sets = [E.probit(E.skilled(skills, mean_d, sigma_d, 20_000, g).double().mean(1), 20_000)
        for mean_d, sigma_d in ((0.0, 1.0), (0.5, 1.5))]
run.exact("imagenet-generalize",
          "Where skill and Gaussian difficulties decide, probits lie on a line with the slope that the spreads give "
          "(relative error)",
          abs(E.fitted_line(*sets)[0] / math.sqrt(2 / 3.25) - 1), at_most=0.03, data="random outcomes")

# %% [markdown]
# Which line foretells more? Models of one kind, of all sizes of the training set, are left out, and a line through the
# others says their accuracy on the matched set.

# %%
kinds = [[name.rsplit(", ", 1)[0] for name in field(seed).names] for seed in run.seeds]
told = {scale: [E.left_out(a["old"], a["matched"], k, scale) for (a, _), k in zip(found, kinds)] for scale in (0, SIZE)}
run.claim("imagenet-generalize",
          "A line through probits foretells the accuracy of kinds of models left out better than one through accuracies",
          told[SIZE], told[0], margin=0.0, higher_is_better=False, data=PHOTOS)

# %% [markdown]
# What makes the matched set harder, if annotators say that it is not? Two things may. At one frequency, the second
# source's images may be harder for models all the same: they do not see as annotators do. The figure shows them lower,
# but by the frequency of ten annotators, and the second reason is in it, too.

# %% mystnb={"image": {"alt": "Mean accuracy of all models against the selection frequency of images, for the old and the new source. Both rise steeply; the new source's curve lies below the old one's at every frequency, by less where it is high."}, "figure": {"caption": "The clearer an image to ten annotators, the more models are right; at equal frequency fewer are on the new source's images.", "name": "fig-newtest-frequency"}}
middles, _ = E.by_frequency(field(run.seeds[0]), ASKED, 0)
within = [E.by_frequency(field(seed), ASKED, seed)[1] for seed in run.seeds]
points = {source: [[one[source][i] for one in within] for i in range(len(middles))] for source in within[0]}
curve = run.curve("imagenet-generalize", "accuracy against selection frequency", middles, points,
                  "selection frequency", "mean accuracy of models", data=PHOTOS)
_ = lab.plots.curve(curve, 5.2, 2.2)

# %% [markdown]
# For the frequency of ten annotators is noisy. Where most candidates are unclear, as in the second source, many that
# seem clear were lucky: matched to the old set by a noisy number, the new set is less clear than it looks. Engstrom and
# colleagues ("Identifying Statistical Bias in Dataset Replication", 2020) measured the paper's frequencies again and
# took that bias off: of 11.7 points 3.6 remained. With more annotators, that part must go.

# %%
COUNTS = [k for k in (3, 5, 10, 20, 40) if k <= CROWD]
noisy = [[E.second_tests(field(seed), SIZE, k, seed)[0] for seed in run.seeds] for k in COUNTS]
points = {f"{name} set": [[100 * float((a["old"] - a[name]).mean()) for a in row] for row in noisy]
          for name in ("matched", "top images")}
run.curve("imagenet-generalize", "fall of accuracy against the number of annotators", COUNTS, points,
          "annotators asked about an image", "fall, points", log=True, data=PHOTOS)

# %%
at_count = {k: row for k, row in zip(COUNTS, points["matched set"])}
run.claim("imagenet-generalize",
          "Matched by all annotators' word the new set costs at least a point less than matched by that of ten",
          at_count[COUNTS[-1]], at_count.get(10, at_count[COUNTS[0]]), margin=1.0, higher_is_better=False, data=PHOTOS)

# %% [markdown]
# What else may a drop be? Near duplicates, the luck of the draw, and adaptivity. For the first, old and new sets are
# made from the same digits; for the second, the halves are dealt anew and again.

# %%
REDRAWN, QUERIES, AT = (2, 20, (0, 20)) if run.dry else (3, 150, (0, 5, 15, 50, 150))
redrawn = {apart: [[E.second_tests(field(seed), SIZE, ASKED, seed + 1000 * r, apart) for r in range(REDRAWN)]
                   for seed in run.seeds] for apart in (True, False)}
lost = lambda row, a="old", b="matched": [float((accuracy[a] - accuracy[b]).mean()) for accuracy, _ in row]
apart, shared = ([statistics.fmean(lost(row)) for row in redrawn[how]] for how in (True, False))
run.claim("imagenet-generalize",
          "With old and new sets made from the same digits, near duplicates all over, the drop changes by less than half",
          [abs(a - b) for a, b in zip(apart, shared)], [a / 2 for a in apart], margin=0.0, higher_is_better=False,
          data=PHOTOS)

# %%
run.claim("imagenet-generalize",
          "Drawn anew from other images of its source, a test set moves the models' mean accuracy by less than half of "
          "what harder images do",
          [statistics.fmean(map(abs, lost(row, "old", "same source"))) for row in redrawn[True]],
          [statistics.fmean(lost(row, "same source")) / 2 for row in redrawn[True]], margin=0.0, higher_is_better=False,
          data=PHOTOS)

# %%
def slopes(name):
    """For every seed the slope of new on old accuracy among the better half of the models, mean over the redraws."""
    upper = lambda a: E.fitted_line(*(a[which][a["old"] > a["old"].median()] for which in ("old", name)))[0]
    return [statistics.fmean(upper(accuracy) for accuracy, _ in row) for row in redrawn[True]]


run.claim("imagenet-generalize",
          "Among the better half of the models the slope on the matched set is at least 0.1 above that on one from the "
          "same source, over sets drawn anew",
          slopes("matched"), slopes("same source"), margin=0.1, data=PHOTOS)

# %%
exact_ends = [{name: E.clopper_pearson(a[name], len(c[name])) for name in ("old", *NEW)} for a, c in found]
beyond = {name: [float((e[name][1] < e["old"][0]).double().mean()) for e in exact_ends] for name in NEW}
run.claim("imagenet-generalize",
          "By Clopper–Pearson intervals, at least a quarter more of the models are surely worse on the matched set than "
          "on one from the same source",
          beyond["matched"], beyond["same source"], margin=0.25, data=PHOTOS)

# %% [markdown]
# Adaptivity: here is an analyst who does what one should not. The weights of a vote of all models are climbed by asking
# the old test set for its accuracy again and again. The drop of the climbed vote is a sum. *Sampling* is what the vote
# loses from the old set to that from the same source before the first query; *adaptivity* is what it loses there more
# when it is climbed; *distribution* is what the climbed vote loses from there to the matched set.

# %%
climbs = [[E.climb_scores(field(seed), chosen, QUERIES, AT, seed + r) for r, (_, chosen) in enumerate(row)]
          for row, seed in zip(redrawn[True], run.seeds)]
loss = lambda one, a, b, i: one[a][i] - one[b][i]
split = {"sampling": [[loss(one, "old", "same source", 0) for one in row] for row in climbs],
         "distribution": [[loss(one, "same source", "matched", -1) for one in row] for row in climbs]}
split["adaptivity"] = [[loss(one, "old", "same source", -1) - s for one, s in zip(row, luck)]
                       for row, luck in zip(climbs, split["sampling"])]
split = {name: [statistics.fmean(row) for row in rows] for name, rows in split.items()}
for name, values in split.items():
    print(f"{name:12} {100 * statistics.fmean(values):+.1f} points of the climbed vote's drop, mean over seeds")

# %%
run.claim("imagenet-generalize",
          "A vote that is hill-climbed on the old test set loses less by overfitting to it than by harder images",
          split["adaptivity"], split["distribution"], margin=0.0, higher_is_better=False, data=PHOTOS)

# %%
points = {f"{name} set": [[100 * statistics.fmean(one[name][i] for one in row) for row in climbs] for i in range(len(AT))]
          for name in ("old", "same source", "matched")}
run.curve("imagenet-generalize", "accuracy of the climbed vote against queries", AT, points, "queries", "accuracy, %",
          data=PHOTOS)

# %% [markdown]
# And if the models learn from the new source? Those with the largest training set are fitted again with a fifth of its
# images from there, and as many in all.

# %%
gaps = {"usual": [], "adapted": []}
for seed, row in zip(run.seeds, redrawn[True]):
    f = field(seed)
    for name, said in (("usual", f.said[list(f.partners)]), ("adapted", f.adapted)):
        right = (said == f.labels).double()
        gaps[name].append(statistics.fmean(float(right[:, c["old"]].mean() - right[:, c["matched"]].mean()) for _, c in row))
run.claim("imagenet-generalize",
          "Trained with a fifth of their images from the new source, models keep more than half of their drop",
          gaps["adapted"], [gap / 2 for gap in gaps["usual"]], margin=0.0, data=PHOTOS)

# %% [markdown]
# The drop is there, on a set that ten annotators find as clear as the old one; on a set from the same source nothing is
# lost on average. What explains it? Near duplicates hardly change it; the luck of the draw moves accuracies by less
# than half of it; by exact intervals most models are surely worse on the matched set, and hardly any on the control;
# and a fifth of the training set from the new source leaves most of it (all measured). The last is as in the paper; our
# guess is that the other four fifths show turned and shifted digits, too, only less so. Adaptivity costs the climbed
# vote less than harder images do (measured): with the queries it gains on the old set what it does not gain on a fresh
# one, but not much. One reason is the matching: ten annotators are few, and as more are asked, the drop shrinks
# (measured). A part stays with all forty, as some stayed for ImageNet. Our guess: images of one frequency are harder
# for models all the same, or forty are still too few. And our second source is harder because we made it so.
#
# The clearer images must be, the less is lost, down to a gain. Top images should lie at the end of that line, and do
# not: they take their share of every class, also of unclear ones. With every class counted alike, what they lose is
# nearly nothing (measured, in the print).
#
# Against the paper, the slope over all models lies below one (measured), and by the bootstrap far from the 1.7 of
# CIFAR-10. Overfitting it cannot be, as no model was fitted to the old set. The paper's models are all good ones, and
# among our better half the slope is above one, and above that between two sets of one source (measured). So the slope
# says as much of the range of models as of the test sets, and one below one proves no overfitting. By the model of
# skill a slope of probits below one means that difficulties are spread more widely in the new set; and the line through
# probits foretells kinds of models left out better than the line through accuracies, by a little (measured).

# %% [markdown]
# (cinic-10)=
# ## One test set, two origins
# CIFAR-10 is small, and ImageNet is large and other than CIFAR-10. CINIC-10, by Darlow and colleagues, lies between:
# the images of CIFAR-10 together with images of the same ten classes from ImageNet, brought down to 32×32, in three
# equal parts for training, validation and test. It takes CIFAR-10's place, and records which image came from where.
# With sources $A$ and $B$,
#
# $$ M_{s \to t} = \text{accuracy on the test images of source } t \text{ after training on source } s,
# \qquad s, t \in \{A, B\}, $$
#
# is a table of distribution shift, and the number that one usually reports is a mixture of its entries.
#
# We build such a set from what is at hand: scikit-learn's handwritten digits, and as many printed ones, degraded and
# brought down to the same 8×8 pixels. No two parts share a handwritten digit or a font.

# %%
lab.show(E.printed_digits, E.two_sources)

# %% [markdown]
# A row for every source to learn from:

# %%
lab.show(E.source_matrix)

# %%
TESTED = "validation" if run.tuning else "test"


def sources(seed, part):
    """The two sources of a part: name -> (images, labels). STL-10's images, at full scale, come from ImageNet."""
    if run.scale != "full":
        run.data = "digits (scikit-learn) and printed digits (fonts of matplotlib)"
        return E.two_sources(part, seed)
    pair = [run.once(name, lambda name=name: lab.data.benchmark(name, run.device)) for name in ("cifar10", "stl10")]
    run.data = " and ".join(one.source for one in pair)
    made = dict(zip(("CIFAR-10", "STL-10"), E.matched_sources(*pair, part, seed).values()))
    return {name: (x[:128], y[:128]) for name, (x, y) in made.items()} if run.dry else made


# %%


models = lambda seed: E.learners(seed, *run.pick(quick=(), full=(2000, run.precision)))

# %%
trains, tests = ([sources(seed, part) for seed in run.seeds] for part in ("train", TESTED))
A, B = trains[0]
SHARES = {"an eighth of each": 1 / 8, "a quarter of each": 1 / 4, "half of each": 1 / 2, "all of both": 1.0}
for part in trains + tests:
    single = {s: part[s] for s in (A, B)}
    part |= {name: E.pooled(single, share) for name, share in SHARES.items()}
    part |= {f"half {i}": (part[A][0][i::2], part[A][1][i::2]) for i in range(2)}

# %% mystnb={"image": {"alt": "Two rows of small grey digits: handwritten ones with thick bright strokes above, printed ones, thinner and dimmer, below."}, "figure": {"caption": "One class list, two origins: training images, one source a row.", "name": "fig-cinic-images"}} tags=["hide-input"]
shown = []
for images, labels in (trains[0][s] for s in (A, B)):
    shown.append(images[labels.argsort(stable=True)[:: len(labels) // 14][:14]].cpu())
_ = lab.plots.images(torch.cat(shown), 2)

# %%
for s in (A, B):
    found = E.pixel_statistics(trains[0][s][0]).items()
    said = [f"{what} {' '.join(f'{v:.3f}' for v in values)}" for what, values in found]
    print(f"{s:12} images {len(trains[0][s][1])}, " + ", ".join(said))

# %%
# NBVAL_CHECK_OUTPUT
sizes = {len(part[s][1]) for part in trains + tests for s in (A, B)}
print("sources and parts of equal size:", len(sizes) == 1, "| classifiers:", len(models(run.seeds[0])))
print("half of each is as many as one:", abs(len(trains[0]["half of each"][1]) - sizes.pop()) <= 1)

# %% [markdown]
# The report prints these for both sources, too. Do they tell where an image comes from? A logistic regression sees
# nothing else; its baseline are random halves of one source.

# %%
from sklearn.linear_model import LogisticRegression

told = {}
for train, test in zip(trains, tests):
    for pair in ((A, B), ("half 0", "half 1")):
        images, origin = ([torch.cat([part[s][0] for s in pair]) for part in (train, test)],
                          [[i for i, s in enumerate(pair) for _ in part[s][1]] for part in (train, test)])
        light = [torch.cat([x.mean((2, 3)), x.std((2, 3))], 1).cpu() for x in images]
        told.setdefault(pair, []).append(LogisticRegression(C=100).fit(light[0], origin[0]).score(light[1], origin[1]))

# %%
run.claim("cinic-10",
          "Mean and deviation of its pixels tell an image's source at least 20 points better than they tell "
          "random halves of one source",
          told[A, B], told["half 0", "half 1"], margin=0.2)

# %% [markdown]
# Now the table, for every classifier: trained on either source, on half of each, which is as many images, and on all of
# both.

# %%
matrices, learned = {}, (A, B, *SHARES)
for seed, train, test in zip(run.seeds, trains, tests):
    for name, learn in models(seed).items():
        matrices.setdefault(name, []).append(E.source_matrix(learn, {s: train[s] for s in learned}, test))
BEST = next(iter(matrices))
evened = []
for seed, train, test in zip(run.seeds, trains, tests):
    level = [{s: (E.standardised(part[s][0]), part[s][1]) for s in (A, B)} for part in (train, test)]
    evened.append(E.source_matrix(models(seed)[BEST], *level))

# %%
print(f"{BEST}: trained on ↓, tested on →   " + "  ".join(f"{s:>11}" for s in (A, B)))
for row in (A, B, "half of each", "all of both"):
    print(f"{row:31}  ", "  ".join(f"{statistics.fmean(m[row, s] for m in matrices[BEST]):11.2f}" for s in (A, B)))

# %%
own = [statistics.fmean((m[A, A], m[B, B])) for m in matrices[BEST]]
cross = [statistics.fmean((m[B, A], m[A, B])) for m in matrices[BEST]]
run.claim("cinic-10",
          "On the same test images, training on the other source costs at least 20 points",
          own, cross, margin=0.2)

# %%
drop = [statistics.fmean(m[s, s] - m[t, s] for s, t in ((A, B), (B, A))) for m in evened]
run.claim("cinic-10",
          "With brightness and contrast of every image levelled, half of the drop between sources and at least "
          "5 points more remain",
          drop, [(a - b) / 2 for a, b in zip(own, cross)], margin=0.05)

# %%
over = {r: [m[r, "all of both"] for m in matrices[BEST]] for r in (A, B, "half of each")}
run.claim("cinic-10",
          "Half of each source trains at least 5 points better for both than as many images of the better one",
          over["half of each"], [max(pair) for pair in zip(over[A], over[B])], margin=0.05)

# %%
joint = [statistics.fmean(m["all of both", s] for s in (A, B)) for m in matrices[BEST]]
run.claim("cinic-10",
          "Adding the other source's images to its own makes a classifier better on its source",
          joint, own, margin=0.0)

# %% [markdown]
# Harder than the set whose place it takes? And are differences between models larger than those between seeds?

# %%
BOTH = "all of both"
hard, easy = ([statistics.fmean(found[i][key] for found in matrices.values()) for i in range(len(run.seeds))]
              for key in ((BOTH, BOTH), (A, A)))
run.claim("cinic-10", "The joint set is harder: classifiers are at least 5 points less accurate on it than the same ones "
          "on the first source alone", easy, hard, margin=0.05)

# %%
apart = [statistics.stdev(found[i][BOTH, BOTH] for found in matrices.values()) for i in range(len(run.seeds))]
again = []
for seed, train, test in zip(run.seeds, trains, tests):
    made = [E.reseeded(seed + 100 * i, *run.pick(quick=(), full=(2000, run.precision)))(*train[BOTH])(test[BOTH][0])
            for i in range(2 if run.dry else 5)]
    again.append(statistics.stdev(float((said == test[BOTH][1]).double().mean()) for said in made))
run.claim("cinic-10", "Seeds of one model differ less than a quarter as much as models do: standard deviations of accuracy",
          again, [a / 4 for a in apart], margin=0.0, higher_is_better=False)

# %% [markdown]
# The report trains each network on the training part, and again on twice as many images, training and validation parts
# together. Every error falls, and the ranking hardly changes. Here the joint set's training images are halved three
# times.

# %%
DRAWN = [name for name in matrices if name in ("SVM", "1 neighbour", "logistic", "forest")] or list(matrices)
points = {name: [[m[share, BOTH] for m in matrices[name]] for share in SHARES] for name in DRAWN}
sizes = [len(trains[0][share][1]) for share in SHARES]
run.curve("cinic-10", "accuracy on both sources against the number of training images", sizes, points,
          "training images", "test accuracy", log=True)

# %%
doubled = [[f[i]["all of both", "all of both"] - f[i]["half of each", "all of both"] for f in matrices.values()]
           for i in range(len(run.seeds))]
run.claim("cinic-10", "Twice as many training images of both sources make every classifier better: the smallest gain",
          [min(row) for row in doubled], [0.0] * len(run.seeds), margin=0.0)

# %%
for name, found in matrices.items():
    gains = [statistics.fmean(m["all of both", s] - m[s, s] for m in found) for s in (A, B)]
    said = [f"{s} {100 * gain:+.1f} points" for s, gain in zip((A, B), gains)]
    print(f"{name:16} with the other source's images added: " + ", ".join(said))

# %%
ranks = {"joint": [], "halves": [], "smaller": []}
KEYS = {"joint": ((A, A), (BOTH, BOTH)), "halves": ((A, "half 0"), (A, "half 1")),
        "smaller": (("half of each", BOTH), (BOTH, BOTH))}
for i in range(len(run.seeds)):
    for what, keys in KEYS.items():
        ranks[what].append(E.rank_agreement(*([found[i][key] for found in matrices.values()] for key in keys)))
run.claim("cinic-10",
          "The joint set ranks classifiers as the first source does: Spearman's ρ at most 0.05 below that of "
          "two halves of its test images",
          ranks["joint"], ranks["halves"], margin=-0.05)

# %%
run.claim("cinic-10",
          "Half of the training images rank classifiers as all of them do: Spearman's ρ at most 0.05 below that of two "
          "halves of the test images",
          ranks["smaller"], ranks["halves"], margin=-0.05)

# %% [markdown]
# The joint set is harder than its first source, and seeds of one model differ far less than models do (measured).
#
# Two numbers an image tell its source, yet they are not what is lost between the sources: with brightness and contrast
# levelled most of the drop is still there (measured). Our guess is that strokes differ. Half of each source serves both
# better than as many images of one, the joint set ranks classifiers as the handwritten one does, and twice as many
# images of both help every classifier and hardly change the ranking (measured; the bar is low, as halves of the test
# images are noisier by their size). A hope of ours is reversed: for the support vector machine, on which the claims
# about the table are made, images of another origin do harm on one's own (measured). Nothing in this section and the
# next is trained longer: the longer run repeats three of the five seeds, finds the differences as large, and leaves
# this one open. In the list above most pay, a tree gains on one source, and nearest neighbours hardly notice. Our
# guess: one boundary for both sources costs; a neighbour looks only at what is close.
#
# The table is lopsided. From print to handwriting less is lost than from handwriting to print: which of the two one
# calls "the shift" matters.

# %% [markdown]
# (lifelong-benchmarks-ss)=
# ## Sort and search
# If test sets wear out, let them grow, say Prabhu and colleagues: millions of samples, and every new model is run on a
# few. Which few, and what do they say about the rest? **Sort**: from the outcomes of models that were run on
# everything, a matrix $Y \in \{0, 1\}^{R \times n}$ of $R$ models and $n$ samples, order the samples from easy to hard.
# **Search**: describe a new model by one number, a threshold $k$: right on the first $k$, wrong on the rest.
#
# $$ \min_{P,\,k} \;\sum_{i=1}^R \big\lVert Y_i P - (\underbrace{1, \dots, 1}_{k_i}, 0, \dots, 0)\big\rVert_1 $$
#
# with $Y_i$ the outcomes of model $i$, 1 where it is right, $P$ a permutation of the samples, and $k_i$ the threshold
# of model $i$. For an order $P$ the best $k_i$ takes two running sums, $O(n)$. For thresholds $k$ the best order is an
# assignment problem, which we solve exactly. One begins with the order by sums, the share of models that are right, and
# takes turns.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Outcomes of known models on all samples are sorted into an order from easy to hard, by turns with the known models' thresholds. A new model is run on a few samples spaced along the order; the search finds its threshold, which says its outcome on every sample. A count of right answers at the same places gives its accuracy."}, "figure": {"caption": "Sort once, on models that were run on everything; then search, with a few samples of a new model.", "name": "fig-lifelong-mechanism"}}
parts = {
    "outcomes of\nknown models": (0, 0, "store"), "order,\neasy to hard": (1.5, 0, "store"), "thresholds": (3, 0, "store"),
    "new model": (0, 1), "few outcomes": (1.5, 1), "search: k": (3, 1), "count": (3, 2),
    "each outcome": (4.4, 1), "accuracy": (4.4, 2),
}
arrows = [
    ("outcomes of\nknown models", "order,\neasy to hard", "sort"), ("order,\neasy to hard", "thresholds"),
    ("thresholds", "order,\neasy to hard", "in turns"), ("new model", "few outcomes", "run"), ("few outcomes", "search: k"),
    ("order,\neasy to hard", "few outcomes", "which"), ("few outcomes", "count"),
    ("search: k", "each outcome"), ("count", "accuracy"),
]
_ = lab.plots.diagram(parts, arrows, width=6.8)

# %%
lab.show(E.mistakes, E.thresholds, E.search)

# %%
lab.show(E.reordered)

# %%
FOLDS = 3  # every model is a new one once
parts = []
for seed in run.seeds:
    right = field(seed).right
    lots = torch.randperm(len(right), generator=torch.Generator().manual_seed(seed))
    cut = [(right[torch.cat([lots[i::FOLDS] for i in range(FOLDS) if i != k])], right[lots[k::FOLDS]]) for k in range(FOLDS)]
    parts.append([(known, new, E.sorted_samples(known)) for known, new in cut])
    known, new, (_, history) = parts[-1][0]
    print(f"{len(known)} known models, {len(new)} new ones, {SAMPLES} samples; wrong entries by sum", end=" ")
    print("and after every turn:", *history)

# %%
known, new, (order, _) = parts[0][0]
short, slow = new[:, order[: 300 if SAMPLES > 300 else SAMPLES]], []
for row in short.int().tolist():
    slow.append(min(sum(1 - r for r in row[:j]) + sum(row[j:]) for j in range(len(row) + 1)))
least = E.mistakes(short).amin(1).tolist()
run.exact("lifelong-benchmarks-ss", "Two running sums find thresholds with as few mistakes as trying them all",
          max(abs(a - b) for a, b in zip(least, slow)), at_most=0.0, data=PHOTOS)

# %% [markdown]
# Rivals with the same $m$ outcomes of a new model. For *each sample*: what most known models do; and the same order
# of samples, cut not where the search says but at the share of the $m$ that the model got right; and the paper's own
# rival, which runs $m$ random samples and copies the known model that agrees on most of them. For the *accuracy* the
# authors' released code does not search: it takes $m$ equally spaced places in the order and *counts* how many are
# right, $c$. The position of the next place, the $(c+1)$-th, is its threshold, and over $n$ the accuracy: nearly the
# share $c/m$. Its rival is the share of right answers on $m$ samples drawn at random.

# %%
lab.show(E.nearest, E.split_error)

# %%
BUDGETS = [m for m in (8, 16, 32, 64, 128, 256) if m < SAMPLES]
M = 64 if 64 in BUDGETS else BUDGETS[-1]

table = {m: [[E.rivals(known, new, order, m, seed) for known, new, (order, _) in folds]
             for folds, seed in zip(parts, run.seeds)] for m in BUDGETS}
at = lambda which, name, m=M: [statistics.fmean(fold[which][name] for fold in row) for row in table[m]]  # by seed

# %% mystnb={"image": {"alt": "Share of outcomes predicted wrong against the number of samples run, on a logarithmic axis, for four methods. What most models do is level; sort and search falls and levels off; the nearest known model begins beside it and falls on, far below all others at the right end."}, "figure": {"caption": "The search says more of single samples than what most models do, and then no longer gets better; a copy of the nearest known model does.", "name": "fig-lifelong-outcomes"}}
points = {name: [at(0, name, m) for m in BUDGETS] for name in
          ("sort and search", "same order, cut at the share", "nearest known model", "what most models do")}
found = run.curve("lifelong-benchmarks-ss", "outcomes predicted wrong against samples run", BUDGETS, points,
                  "samples run, m", "share wrong", log=True, data=PHOTOS)
_ = lab.plots.curve(found, 6.0, 2.2)

# %% mystnb={"image": {"alt": "Error of the estimated accuracy against the number of samples run, on a logarithmic axis. The count at spaced places lies lowest, the share of random samples above it until they cross at the right end. Sort and search begins between them, falls more slowly and ends above both."}, "figure": {"caption": "For the accuracy a count at spaced places is nearer than the threshold of the search, which levels off; with the most samples the share of random ones is nearest.", "name": "fig-lifelong-accuracy"}}
points = {name: [at(1, name, m) for m in BUDGETS] for name in
          ("sort and search", "count at spaced places", "share, random samples", "nearest known model")}
found = run.curve("lifelong-benchmarks-ss", "error of the accuracy against samples run", BUDGETS, points,
                  "samples run, m", "mean error", log=True, data=PHOTOS)
_ = lab.plots.curve(found, 5.8, 2.2)

# %%
run.claim("lifelong-benchmarks-ss",
          f"From {M} outcomes, search predicts new models' outcomes with at least 0.01 fewer mistakes a sample "
          f"than most models' outcome",
          at(0, "sort and search"), at(0, "what most models do"), margin=0.01, higher_is_better=False, data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          f"From {M} outcomes, search makes 0.002 fewer mistakes a sample than cutting the same order at the share "
          f"of right ones",
          at(0, "sort and search"), at(0, "same order, cut at the share"),
          margin=0.002, higher_is_better=False, data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          f"Refining the order by sum takes at least 0.003 mistakes a sample off what {M} outcomes give",
          at(0, "sort and search"), at(0, "search in the order by sum"),
          margin=0.003, higher_is_better=False, data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          f"From {M} outcomes, search estimates a new model's accuracy better, by 0.002, than the share of {M} "
          f"random samples",
          at(1, "sort and search"), at(1, "share, random samples"), margin=0.002, higher_is_better=False, data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          f"Counting right answers at {M} spaced places, as the released code does, estimates a new model's accuracy "
          f"better, by 0.002, than the share of {M} random samples",
          at(1, "count at spaced places"), at(1, "share, random samples"), margin=0.002, higher_is_better=False,
          data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          f"Counting right answers at {M} spaced places estimates a new model's accuracy better, by 0.01, than the "
          "threshold that the search finds there",
          at(1, "count at spaced places"), at(1, "sort and search"), margin=0.01, higher_is_better=False, data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          f"From {M} outcomes, search makes at least 0.002 fewer mistakes a sample than a copy of the nearest known model",
          at(0, "sort and search"), at(0, "nearest known model"), margin=0.002, higher_is_better=False, data=PHOTOS)

# %% [markdown]
# The known models hold the same classifiers, fitted on other numbers of images: relatives to copy from. So all of a
# kind are held apart, and the budget is the smallest.

# %%
strange = []
for seed in run.seeds:
    right, fold = field(seed).right, E.by_kind(field(seed).names, FOLDS, seed)
    cut = [(right[fold != i], right[fold == i]) for i in range(FOLDS)]
    strange.append([E.rivals(known, new, E.sorted_samples(known)[0], BUDGETS[0], seed)[0] for known, new in cut])
of_kinds = lambda name: [statistics.fmean(fold[name] for fold in row) for row in strange]
run.claim("lifelong-benchmarks-ss",
          f"From {BUDGETS[0]} outcomes of a new kind of model, the order, cut at the share of right ones, makes 0.005 "
          "fewer mistakes a sample than a copy of the nearest known model",
          of_kinds("same order, cut at the share"), of_kinds("nearest known model"), margin=0.005,
          higher_is_better=False, data=PHOTOS)

# %% [markdown]
# What limits the search? Mistakes that the best threshold makes, too, are *aleatoric* in the paper's words: the model
# does not follow the order. What is wrong beyond them, for want of outcomes, is *epistemic*.

# %%
splits = {m: [[E.split_error(new, order, m) for _, new, (order, _) in folds] for folds in parts] for m in BUDGETS}
points = {name: [at(0, name, m) for m in BUDGETS] for name in
          ("sort and search", "search in the order by sum", "search, random places")}
points |= {name: [[statistics.fmean(one[i] for one in row) for row in splits[m]] for m in BUDGETS]
           for i, name in enumerate(("aleatoric", "epistemic"))}
run.curve("lifelong-benchmarks-ss", "parts of the search and of its mistakes against samples run", BUDGETS, points,
          "samples run, m", "share wrong", log=True, data=PHOTOS)

# %%
least = points["aleatoric"][BUDGETS.index(M)]
run.claim("lifelong-benchmarks-ss",
          f"At least four fifths of the search's mistakes from {M} outcomes are aleatoric: the best threshold makes them, too",
          [a / s for a, s in zip(least, at(0, "sort and search"))], [0.8] * len(run.seeds), margin=0.0, data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          f"From {BUDGETS[0]} outcomes, places spaced evenly along the order give 0.002 fewer mistakes a sample than "
          "random ones",
          at(0, "sort and search", BUDGETS[0]), at(0, "search, random places", BUDGETS[0]), margin=0.002,
          higher_is_better=False, data=PHOTOS)

# %%
places = E.spaced_as_released(SAMPLES, M)
both = [[E.two_sided(new, order, E.counted(new[:, order[places]], places)) for _, new, (order, _) in row] for row in parts]
sides, left = ([statistics.fmean(fold[i] for fold in row) for row in both] for i in range(2))
run.claim("lifelong-benchmarks-ss",
          "Cut at the count, mistakes before and after the place cancel: the error of the accuracy is less than a "
          "quarter of them",
          left, [s / 4 for s in sides], margin=0.0, higher_is_better=False, data=PHOTOS)

# %% [markdown]
# The paper has a second benchmark. Ours is made of the candidates for test sets above: uncorrupted digits of both
# sources.

# %%
other = []
for folds, seed in zip(parts, run.seeds):
    f, g = field(seed), torch.Generator().manual_seed(seed)
    right, fold = (f.said == f.labels)[:, torch.randperm(len(f.labels), generator=g)[:SAMPLES]], E.by_kind(f.names, FOLDS, seed)
    cut = [(right[fold != i], right[fold == i]) for i in range(FOLDS)]
    other.append([E.rivals(known, new, E.by_sum(known), M, seed) for known, new in cut])
on_other = lambda which, name: [statistics.fmean(fold[which][name] for fold in row) for row in other]
run.claim("lifelong-benchmarks-ss",
          f"On a second benchmark, too, with kinds of models held apart, search from {M} outcomes makes at least 0.01 fewer "
          "mistakes a sample than most models' outcome",
          on_other(0, "sort and search"), on_other(0, "what most models do"), margin=0.01, higher_is_better=False, data=PHOTOS)

# %% [markdown]
# And what does it cost? In the paper 5 GPU hours instead of 180 GPU days.

# %%
known, new, _ = parts[0][0]
began = time.process_time()
order, _ = E.sorted_samples(known)
sorted_at = time.process_time()
E.search(new[:, order[places]], places, SAMPLES)
done = time.process_time()
print(f"{len(known)} known models on {SAMPLES} samples take {known.numel() / 8000:.1f} kB as bits; to sort them took", end=" ")
print(f"{1000 * (sorted_at - began):.0f} ms, to search for {len(new)} new models {1000 * (done - sorted_at):.1f} ms;", end=" ")
print(f"each runs {M} samples instead of {SAMPLES}, {SAMPLES / M:.0f} times fewer, and the count is off by", end=" ")
print(f"{100 * statistics.fmean(at(1, 'count at spaced places')):.1f} points on average")

# %% [markdown]
# How many models must be known?

# %%
KNOWN = [m for m in (7, 14, 28, 56) if m <= len(parts[0][0][0])]
few = [[[E.rivals(known[:m], new, E.by_sum(known[:m]), M, seed)[0] for known, new, _ in folds]
        for folds, seed in zip(parts, run.seeds)] for m in KNOWN]
points = {name: [[statistics.fmean(fold[name] for fold in row) for row in rows] for rows in few]
          for name in ("search in the order by sum", "nearest known model", "what most models do")}
run.curve("lifelong-benchmarks-ss", "outcomes predicted wrong against known models", KNOWN, points, "known models",
          "share wrong", log=True, data=PHOTOS)

# %% [markdown]
# A new *sample*, too, is run by a few of the known models, in order from best to worst, and a threshold says who else
# gets it right.

# %%
JUDGES = (2, 4, 8, 16, 32)  # known models that run a new sample
added = {m: [E.inserted(folds[0][0], SAMPLES // 2, m) for folds in parts] for m in JUDGES}
points = {name: [[one[i] for one in added[m]] for m in JUDGES] for i, name in enumerate(("threshold", "majority"))}
run.curve("lifelong-benchmarks-ss", "outcomes of new samples predicted wrong against models that run them", JUDGES, points,
          "models run", "share wrong", log=True, data=PHOTOS)

# %%
run.claim("lifelong-benchmarks-ss",
          "Run by eight models, a new sample's outcome on all models is predicted with at least 0.01 "
          "fewer mistakes than by their majority", [a for a, _ in added[8]], [b for _, b in added[8]], margin=0.01,
          higher_is_better=False, data=PHOTOS)

# %% [markdown]
# Sort & Search says more about single samples than what most models do, on a second benchmark, too. A search instead of
# a cut at the share of right answers helps, and so does an order better than that by sums, at the budget of the claims.
# New samples are placed well from a few models (all measured).
#
# The paper's own rival turns the tables. With $m$ outcomes of a new model, a copy of the nearest known one is wrong
# less often than the search, against the paper, and goes on getting better (measured). Its relatives are known, the
# same classifier fitted on other numbers of images, and they help it; held apart, and with few outcomes, the order is
# ahead
# (measured). Our guess: few models of many families favour copies; thirty thousand of one family favour an order. Why
# does the search stop? Nearly all of its mistakes are those of the best threshold (measured): models of other families
# are right on other samples, and one number cannot say so. That is the paper's own conclusion. Whether places are
# spaced or random matters little: with few outcomes spaced ones are ahead on average, with many they tie.
#
# For the *accuracy*, in which the paper counts what it saves, the search is the wrong tool: the plain share of right
# answers on as many random samples is nearer. The released code's count is nearer still (measured, both at the budget
# of the claims). A good estimate of the accuracy does not mean that single samples are right: at the count's place most
# mistakes before and after it cancel (measured). The count spreads its samples from easy to hard. At the right end of
# the figure random samples overtake it; our guess is the spacing: where $m$ does not divide $n$, the code skips the
# easiest samples that are left over, and takes them to be right. So sorting carries the method's estimate of accuracy.

# %% [markdown]
# (subgroup-macrostd)=
# ## The same accuracy, unevenly shared
# Cats on grass, ships on blue: a classifier that is right nine times out of ten may be right for the usual background
# and wrong for the rest. The paper, *Better May Not Be Fairer*, has people name the background colour of every test
# image of CIFAR-10 and CIFAR-100, and asks how accuracy differs between these subgroups of a class. With $n_{cg}$
# images of class $c$ on background $g$ and accuracy $a_{cg}$ on them,
#
# $$ \text{MacroStd} = \frac1C \sum_{c=1}^{C} \sqrt{\sum_g w_{cg}\,(a_{cg} - \bar a_c)^2},
# \qquad w_{cg} = \frac{n_{cg}}{\sum_{g'} n_{cg'}},
# \quad \bar a_c = \sum_g w_{cg}\, a_{cg} , $$
#
# with $C$ classes, $w_{cg}$ the share of class $c$ that stands on $g$, and $\bar a_c$ the class's accuracy. The remedy
# is **FlowAug**. A normalising flow, a network that can be inverted, encodes an image in numbers, its latents, which
# are split into global and local ones; the global latents are shifted, $z' = z + \delta$ with $\delta$ Gaussian, the
# local ones kept, and the flow decodes. The background is to change as the data's backgrounds do, and what is drawn on
# it to stay: then colour says less about the class.
#
# Our flow is small and complete: affine couplings $y = x \odot e^{s} + t$ of one half of the numbers $x$, with a scale
# $s$ and a shift $t$ that a network makes of the other half, and the logarithm of its Jacobian's determinant is $\sum
# s$. An image is taken apart by a cosine transform. One chain of couplings is for the slowest coefficients (the mean
# colour: global), one for all others given those (local).

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. An image goes through the flow into global and local latents. A Gaussian shift is added to the global ones, the local ones are kept, and the inverse of the flow makes an image of both."}, "figure": {"caption": "FlowAug: only the global latents are moved.", "name": "fig-macrostd-mechanism"}}
parts = {
    "image": (0, 0.5), "flow": (1, 0.5, "trained"), "global z": (2, 0), "local": (2, 1), "shift": (3, 0),
    "inverse flow\nto image": (4, 0.5, "copy"),
}
arrows = [
    ("image", "flow"), ("flow", "global z"), ("flow", "local"), ("global z", "shift"), ("shift", "inverse flow\nto image"),
    ("local", "inverse flow\nto image", "kept"),
]
_ = lab.plots.diagram(parts, arrows, width=6.2, height=2.0)

# %%
lab.show(E.macro_std, E.flow_aug)

# %%
lab.show(E.Coupling)

# %%
def groups_of(seed):
    """Training set, test set, and test set with even colours, each (images, labels, background colours)."""
    if run.scale != "full":
        run.data = "scenes with coloured backgrounds"
        wanted = ((2000, run.splits[0], RHO), (4000, run.splits[1], RHO), (4000, run.splits[1], 0.0))
        made = [E.coloured_scenes(n, seed, split, rho) for n, split, rho in wanted]
        return [(one.images.float() / 255, one.labels, one.factors["group"]) for one in made]
    train_x, train_y, test_x, test_y = data(seed)
    made = [(images.float() / 255, labels) for images, labels in ((train_x, train_y), (test_x, test_y))]
    made = [(images, labels, E.border_colours(images)) for images, labels in made]
    return [*made, made[1]]  # nobody drew CIFAR-10 with even colours; cells are weighted evenly instead


RHO, GROUPS = 0.7, len(E.PALETTE)
SHIFTS = {"global": 1.0, "pixels": 1.0, "local": 0.25}  # in standard deviations of a latent, or of a coefficient
STRENGTHS = run.pick(quick=(0.5, 1.0), long=(0.25, 0.5, 1.0, 2.0, 4.0), full=(0.5, 1.0, 2.0))
SHORT, LONG = run.pick(quick=(80, 240), full=(1000, 3000))
SWEPT = run.pick(quick=SHORT, long=LONG, full=LONG)  # so long are the other strengths trained
FLOW = run.pick(quick=dict(size=8, layers=2, hidden=64), full=dict(size=32, layers=8, hidden=512))
FIT = run.pick(quick=dict(batch=128, lr=2e-2), full=dict(batch=512, lr=0.06, optimizer="sgd", weight_decay=5e-4))

# %%
sets = [groups_of(seed) for seed in run.seeds]
flows = [E.GlobalLocalFlow(**FLOW, seed=seed).to(run.device) for seed in run.seeds]
flows = [E.fit_flow(flow, train[0], run.pick(quick=200, full=4000), run.pick(quick=4e-3, full=1e-3), seed=seed)
         for flow, (train, *_), seed in zip(flows, sets, run.seeds)]

# %% mystnb={"image": {"alt": "Four rows of small coloured digits: training images; the same with their global latents shifted, so that the picture has another colour and the digit its shape; with the mean colour shifted without a flow, which looks alike; with local latents shifted a quarter as far, where the pictures hardly change."}, "figure": {"caption": "Training images, then three augmentations: global latents shifted (FlowAug), mean colour shifted without a flow, local latents shifted.", "name": "fig-macrostd-flow"}} tags=["hide-input"]
some, g = sets[0][0][0][:14], run.generator(0)
pictures = [some] + [E.flow_aug(flows[0], sigma, part)(some, generator=g) for part, sigma in SHIFTS.items()]
_ = lab.plots.images(torch.cat(pictures), 4)

# %%
exact = E.GlobalLocalFlow(size=4, layers=4, hidden=16, seed=0).double()
for p in exact.parameters():
    p.data += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype)
tiny = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
jacobian = torch.autograd.functional.jacobian(lambda v: torch.cat(exact(v)[:2], 1)[0], tiny).flatten(1)
run.exact("subgroup-macrostd",
          "The flow's log-determinant is that of its Jacobian",
          abs(torch.linalg.slogdet(jacobian)[1].item() - exact(tiny)[2].item()), at_most=1e-4, data="random weights")

# %%
z, local, _ = flows[0](some)
again = flows[0].inverse(z, local)
shifted = flows[0](flows[0].inverse(z + 1, local))
run.exact("subgroup-macrostd",
          "Decoding what was encoded gives the image back",
          float((again - some).abs().max()), at_most=1e-3)

# %%
run.exact("subgroup-macrostd",
          "A shift of the global latents leaves the local latents as they were",
          float((shifted[1] - local).abs().max()), at_most=1e-2)

# %%
# NBVAL_CHECK_OUTPUT
print("global latents:", flows[0].k, "| local ones:", local.shape[1])
print("no dimension is lost:", flows[0].k + local.shape[1] == some[0].numel())

# %% [markdown]
# The scenes are digits on backgrounds of five colours. Each class prefers one: seven pictures in ten are given it, the
# others any of the five. They stay at 8×8 pixels, as the flow models every number of a picture. Test images come from
# the same distribution, and from one in which all colours are even. Arms: nothing; crops (and mirror images, where left
# and right mean nothing); mixup, which blends two images and their labels; FlowAug. And two that take FlowAug apart:
# the mean colour shifted by as many standard deviations but with no flow, and the *local* latents shifted, a quarter as
# far. Each has the same network and number of steps. MacroStd is above zero even where subgroups do not matter, as each
# has few images: *chance* is what is left of it when subgroups are dealt anew at random within each class.

# %%
def arms(flow):
    """Name -> options of ``fit_classifier``; FlowAug at other strengths is named by them."""
    shift = {part: dict(augment=E.flow_aug(flow, sigma, part)) for part, sigma in SHIFTS.items()}
    other = {f"FlowAug, {k}": dict(augment=E.flow_aug(flow, k)) for k in STRENGTHS if k != SHIFTS["global"]}
    crop = E.crop_flip(*run.pick(quick=(1, 0.0), full=(4, 0.5)))
    made = {"plain": {}, "crop": dict(augment=crop), "mixup": dict(mixup=1.0), "FlowAug": shift["global"],
            "colour shift, no flow": shift["pixels"], "local latents": shift["local"], "CutMix": dict(cut=1.0)}
    return {name: FIT | dict(precision=run.precision) | options for name, options in (made | other).items()}


# %%
encoder = run.pick(quick=partial(lab.nets.SmallNet, 32, 128), full=lab.nets.ResNet18)
NAMES = ("plain", "crop", "mixup", "FlowAug", "colour shift, no flow", "local latents")
TWICE = ("plain", "mixup", "FlowAug")  # arms that are trained for two lengths
ALL, scores, cells, shaken = (*NAMES, "CutMix"), {}, {}, {}
for flow, seed, ((images, labels, _), *judged) in zip(flows, run.seeds, sets):
    for name, options in arms(flow).items():
        for steps in (SHORT, LONG) if name in TWICE else (LONG,) if name in ALL else (SWEPT,):
            model = lab.nets.seeded(seed, lambda: E.Classifier(encoder(), 10)).to(run.device)
            E.fit_classifier(model, images, labels, steps, seed, **options)
            said, cells[name, steps, seed] = E.subgroup_scores(model.predicted, *judged, 10, GROUPS)
            scores.setdefault((name, steps), []).append(said)
            (usual, truth, colours), *_ = judged
            right = model.predicted(E.mixture(usual, seed)) == truth  # five images in six corrupted
            worse = E.macro_std(*E.subgroup_accuracy(right, truth, colours, 10, GROUPS))
            shaken.setdefault((name, steps), []).append(worse)

# %%
MEASURES = ("accuracy", "macro", "even", "chance")
full = {what: {name: [one[what] for one in scores[name, LONG]] for name in ALL} for what in MEASURES}

# %%
for name in ALL:
    print(f"{name:22} " + ", ".join(f"{what} {statistics.fmean(full[what][name]):.3f}" for what in full))

# %% mystnb={"image": {"alt": "Two heat maps of accuracy by class and background colour, plain training and FlowAug. With plain training most classes are bright at their usual colour and darker elsewhere; with FlowAug the dark cells are fewer."}, "figure": {"caption": "Off its usual background a class is known less; FlowAug evens that. Accuracy by class and background, first seed; a class's usual background is its number modulo five at quick scale.", "name": "fig-macrostd-cells"}} tags=["hide-input"]
figure, axes = lab.plots.axes(2, 6, 2.9, sharey=True)
for axis, name in zip(axes, ("plain", "FlowAug")):
    picture = axis.imshow(cells[name, LONG, run.seeds[0]].cpu(), vmin=0, vmax=1, aspect="auto")
    axis.set(title=name, xlabel="background", ylabel="class", yticks=range(10))
    axis.set_xticks(range(GROUPS), ["dark", "red", "green", "blue", "light"])
    axis.grid(visible=False)
_ = figure.colorbar(picture, ax=axes, label="accuracy")

# %%
run.claim("subgroup-macrostd",
          "Plain training has a MacroStd at least 0.05 above what chance alone makes of even subgroups",
          full["macro"]["plain"], full["chance"]["plain"], margin=0.05)

# %%
DATA = ("plain", "crop", "mixup")
augmented = [min(DATA[1:], key=lambda name: full["macro"][name][i]) for i in range(len(run.seeds))]
run.claim("subgroup-macrostd",
          "Training with crop or mixup, whichever is more even, has a MacroStd at least 0.05 above chance, too",
          *([full[what][name][i] for i, name in enumerate(augmented)] for what in ("macro", "chance")), margin=0.05)

# %%
best = {what: [choose(values) for values in zip(*(full[what][name] for name in DATA))]
        for what, choose in (("macro", min), ("even", max), ("accuracy", max))}
run.claim("subgroup-macrostd", "FlowAug's MacroStd is at least 0.01 below the lowest of plain, crop and mixup",
          full["macro"]["FlowAug"], best["macro"], margin=0.01, higher_is_better=False)

# %%
DRAWN = (*DATA, "CutMix")
run.claim("subgroup-macrostd",
          "On corrupted images FlowAug's MacroStd is at least 0.01 below the lowest of plain, crop, mixup and CutMix",
          shaken["FlowAug", LONG], [min(values) for values in zip(*(shaken[name, LONG] for name in DRAWN))],
          margin=0.01, higher_is_better=False)

# %%
run.claim("subgroup-macrostd",
          "With even colours FlowAug is at least 2 points more accurate than the best of plain, crop and mixup",
          full["even"]["FlowAug"], best["even"], margin=0.02)

# %%
run.claim("subgroup-macrostd",
          "With the training colours FlowAug is at least a point more accurate than the best of plain, crop and mixup",
          full["accuracy"]["FlowAug"], best["accuracy"], margin=0.01)

# %%
run.claim("subgroup-macrostd", "Shifting the mean colour without a flow gives a MacroStd at most 0.02 above FlowAug's",
          full["macro"]["colour shift, no flow"], full["macro"]["FlowAug"], margin=-0.02, higher_is_better=False)

# %%
run.claim("subgroup-macrostd", "FlowAug's MacroStd is at least 0.01 below that of shifting the local latents",
          full["macro"]["FlowAug"], full["macro"]["local latents"], margin=0.01, higher_is_better=False)

# %% [markdown]
# How far should latents be shifted? After the shorter of two trainings in a minute the weaker shift is ahead. Trained
# to the end in the longer run, the mean MacroStd falls with every stronger shift. Our guess: a stronger shift needs
# more steps.

# %%
named = {k: "FlowAug" if k == SHIFTS["global"] else f"FlowAug, {k}" for k in STRENGTHS}
points = {what: [[one[key] for one in scores[name, SWEPT]] for name in named.values()]
          for what, key in (("MacroStd", "macro"), ("error with even colours", "even"))}
points["error with even colours"] = [[1 - v for v in row] for row in points["error with even colours"]]
run.curve("subgroup-macrostd", "MacroStd against the strength of the shift", STRENGTHS, points,
          "shift, standard deviations", "lower is better", log=True)

# %% [markdown]
# Does MacroStd foretell more than accuracy? Rank the arms, three at two lengths of training, by either number on the
# usual test set: which ranking agrees better with the accuracy under even colours?

# %%
foretold = {}
for what in ("accuracy", "macro"):
    ranked = [ones for (name, _), ones in scores.items() if name in NAMES]
    pairs_of = [[[ones[i][key] for ones in ranked] for key in (what, "even")] for i in range(len(run.seeds))]
    foretold[what] = [abs(E.rank_agreement(*two)) for two in pairs_of]
run.claim("subgroup-macrostd",
          "MacroStd ranks models by their accuracy under even colours better than accuracy does",
          foretold["macro"], foretold["accuracy"], margin=0.0)

# %% [markdown]
# Accuracy is shared unevenly, far beyond chance (measured). In the table above mixup does not change that, and crops
# make it worse; our guess is that they cut into digits that fill the image. CutMix makes it worse still (our guess: it
# pastes another background with the label). mixup is as accurate as FlowAug on the usual test set and no more even than
# plain training: accuracy does not tell one from the other, MacroStd does. FlowAug is more even than plain, crop and
# mixup at both lengths, under corruption, too, and in a minute more accurate once colours are even
# (measured); four times as long that lead is as large on average, and open. On the usual test set it is no point ahead
# in a minute (measured); in the longer run it is behind on average, and open.
#
# Is it the flow? FlowAug is more even than shifted local latents (measured), which leave MacroStd where plain training
# has it. They are moved less far as well, so this does not show that *which* latents are moved decides. And moving the
# mean colour by hand, with no flow at all, stays within 0.02 of FlowAug (measured). That margin is more than half of
# what FlowAug gains on plain training, and by the interval FlowAug is a little more even. That MacroStd foretells more
# than accuracy is supported in a minute, with a reservation from the tuning data: at half the learning rate the two
# tied. In the longer run accuracy foretells far less than before; MacroStd is ahead with every seed, but by such
# different amounts that it is open.

# %% [markdown]
# (cv-preprocess-bias)=
# ## What is learnt before the folds are cut
# Everyone knows that labels must not leak into cross-validation. Scaling, filtering by variance, merging rare
# categories see no label, and so they are often done once, on all data, before the folds are cut. Is that safe? Write
# $T$ for the transformation, learned from training and validation samples together, $h$ for the predictor learned
# behind it from the training samples. Then
#
# $$ \text{bias} = \mathbb E\Big[\tfrac1{n_\text{val}}\sum_{i \in \text{val}} \ell\big(h(T(x_i)), y_i\big)\Big]
# - \mathbb E_{x, y}\,\ell\big(h(T(x)), y\big) $$
#
# with $n_\text{val}$ validation samples $x_i$ and their targets $y_i$, a new sample $(x, y)$ and a loss $\ell$, need
# not be zero: $T$ has seen the validation samples, and so it treats them otherwise than it will treat new ones. If $T$
# is learned from the training samples alone, validation samples are as new to it as any, and the bias is zero.
#
# The paper, by Moscovich and Rosset, has three examples: choosing the features of largest variance before least
# squares, Gaussian ones or with heavy tails (Student's $t$, four degrees of freedom); merging rare categories into one
# whose prediction is zero, where the categories' means are standard normal and noise is added; dividing features by
# their deviation before the lasso, least squares with a price on absolute weights. We add principal components on a
# real table. There are two folds: as many validation as training samples. Each example is measured twice on the same
# draws, with the transformation learned before the folds and inside.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Two ways from the data to an estimate. Above, the transformation is learned from all data and the folds are cut after it. Below, the folds are cut first and the transformation is learned from training samples alone."}, "figure": {"caption": "The same steps in two orders: above, validation samples have been seen when the transformation is learned.", "name": "fig-cv-mechanism"}}
parts = {
    "all data": (0, 0.5), "learn T\nfrom all": (1.2, 0, "trained"), "cut folds": (2.4, 0),
    "cut folds ": (1.2, 1), "learn T\ninside": (2.4, 1, "trained"), "learn h": (3.6, 0.5, "trained"), "estimate": (4.6, 0.5, "loss"),
}
arrows = [
    ("all data", "learn T\nfrom all"), ("learn T\nfrom all", "cut folds"), ("cut folds", "learn h"),
    ("all data", "cut folds "), ("cut folds ", "learn T\ninside"), ("learn T\ninside", "learn h"), ("learn h", "estimate"),
]
_ = lab.plots.diagram(parts, arrows, width=6.4)

# %%
lab.show(E.cross_validated)

# %%
lab.show(E.variance_filter, E.rare_to_zero, E.unit_scale)

# %%
lab.show(E.leading_components)

# %%
MORE = run.pick(quick=1, long=4, full=20) if not run.dry else 0.05
SETTINGS = {  # data, preprocessing, learner, training samples, repetitions with 20 of them
    "variance, heavy tails": (E.wide_regression, E.variance_filter(10), E.least_squares, (20, 40, 80), 600),
    "variance, Gaussian": (partial(E.wide_regression, df=0), E.variance_filter(10), E.least_squares, (20, 40, 80), 400),
    "rare, little noise": (E.categories, E.rare_to_zero(4), E.least_squares, (20, 40, 80), 800),
    "rare, much noise": (partial(E.categories, sigma=1.5), E.rare_to_zero(4), E.least_squares, (20, 40, 80), 2400),
    "scaling, lasso": (E.narrow_regression, E.unit_scale, E.lasso(0.5), (10, 20, 40, 80), 4000),
    "components, tumours": (E.drawn_from(*E.tumours()), E.leading_components(5), E.least_squares, (10, 20, 40, 80), 400),
}
errors = {}  # (setting, n, inside) -> one (estimate, truth, standard error) a seed
for name, (draw, preprocess, learn, sizes, repetitions) in SETTINGS.items():
    for n, inside in ((n, inside) for n in sizes for inside in (False, True)):
        setting = draw, preprocess, learn, n, inside, int(MORE * repetitions * 20 / max(n, 20))
        errors[name, n, inside] = [E.cv_bias(*setting, seed) for seed in run.seeds]

# %% mystnb={"image": {"alt": "Bias of the estimate in per cent of the true error, against 20, 40 and 80 training samples, with the transformation learned before the folds. The variance filter with heavy tails begins highest and falls towards zero; merging rare categories with little noise lies far below zero, deepest at 40; the others are small, and fall."}, "figure": {"caption": "Learned before the folds, preprocessing biases the estimate up or down; with more samples the bias shrinks, but not everywhere.", "name": "fig-cv-bias"}}
COUNTED = (20, 40, 80)
ratio = {key: [e / t for e, t, _ in found] for key, found in errors.items()}
points = {name: [[100 * (r - 1) for r in ratio[name, n, False]] for n in COUNTED] for name in SETTINGS}
found = run.curve("cv-preprocess-bias", "bias against the number of training samples", COUNTED, points,
                  "training samples", "bias, % of the true error", log=True, data="simulated")
_ = lab.plots.curve(found, 6.6, 2.6, floor=0)

# %%
for name, n, inside in errors:
    if n == SETTINGS[name][3][0] and not inside:
        both = [100 * statistics.fmean(e / t - 1 for e, t, _ in errors[name, n, where]) for where in (False, True)]
        print(f"{name:22} n = {n}: bias before the folds {both[0]:+6.1f} %, inside {both[1]:+5.1f} % of the true error")

# %%
# NBVAL_CHECK_OUTPUT
bias = {name: statistics.fmean(e - t for e, t, _ in errors[name, SETTINGS[name][3][0], False]) for name in SETTINGS}
print("too pessimistic:", ", ".join(name for name in bias if bias[name] > 0))
print("too optimistic:", ", ".join(name for name in bias if bias[name] < 0))

# %% [markdown]
# The claims compare the ratio of estimate to truth, before the folds against inside, at the smallest training set, for
# rare categories at forty samples, fixed before the reported seeds were run.

# %%
run.claim("cv-preprocess-bias",
          "Filtering features by variance before the folds, with heavy tails, raises the estimate by at least "
          "10 % of the true error",
          ratio["variance, heavy tails", 20, False], ratio["variance, heavy tails", 20, True],
          margin=0.1, data="simulated")

# %%
run.claim("cv-preprocess-bias",
          "The variance filter's bias is at least 10 % of the true error larger with heavy tails than with "
          "Gaussian features",
          ratio["variance, heavy tails", 20, False], ratio["variance, Gaussian", 20, False],
          margin=0.1, data="simulated")

# %%
run.claim("cv-preprocess-bias",
          "Merging rare categories before the folds lowers the estimate by at least 15 % of the true error "
          "where noise is little",
          ratio["rare, little noise", 40, False], ratio["rare, little noise", 40, True],
          margin=0.15, higher_is_better=False, data="simulated")

# %%
run.claim("cv-preprocess-bias",
          "Merging rare categories before the folds raises the estimate by at least 0.5 % of the true error "
          "where noise is much",
          ratio["rare, much noise", 40, False], ratio["rare, much noise", 40, True], margin=0.005, data="simulated")

# %%
NOISES = (0.25, 0.5, 1.0, 1.5, 2.0)
swept = [[E.cv_bias(partial(E.categories, sigma=sigma), E.rare_to_zero(4), E.least_squares, 40, False,
                    int(MORE * 800), seed) for seed in run.seeds] for sigma in NOISES]
run.curve("cv-preprocess-bias", "bias of merging rare categories against noise", NOISES,
          {"before the folds": [[100 * (e / t - 1) for e, t, _ in row] for row in swept]},
          "noise, standard deviation", "bias, % of the true error", data="simulated")

# %% [markdown]
# For this example both errors have a closed form: how many of the others share a sample's category is binomial.

# %%
lab.show(E.rare_errors)

# %%
forms = [E.rare_errors(40, 20, 4, sigma) for sigma in NOISES]
aside = [abs(sum(e - t - (val - new) for e, t, _ in row)) / math.sqrt(sum(s * s for *_, s in row))
         for row, (val, new) in zip(swept, forms)]
run.exact("cv-preprocess-bias",
          "The bias of merging rare categories is that of its closed form, within 4 standard errors at every noise",
          max(aside), at_most=4.0, data="simulated")

# %% [markdown]
# And the variance filter against the number of features, of which five are strong and ten are kept: its bias grows with
# them.

# %%
WIDTHS = (20, 50, 100, 200)
wider = [[E.cv_bias(partial(E.wide_regression, p=p), E.variance_filter(10), E.least_squares, 20, False, int(MORE * 300),
                    seed) for seed in run.seeds] for p in WIDTHS]
run.curve("cv-preprocess-bias", "bias of the variance filter against the number of features", WIDTHS,
          {"before the folds": [[100 * (e / t - 1) for e, t, _ in row] for row in wider]}, "features",
          "bias, % of the true error", log=True, data="simulated")

# %%
run.claim("cv-preprocess-bias",
          "Scaling features before the folds raises the lasso's estimate by at least 1 % of the true error",
          ratio["scaling, lasso", 10, False], ratio["scaling, lasso", 10, True], margin=0.01, data="simulated")

# %%
run.claim("cv-preprocess-bias",
          "Principal components of real data taken before the folds raise the estimate by at least 10 % of the "
          "true error",
          ratio["components, tumours", 10, False], ratio["components, tumours", 10, True],
          margin=0.1, data="breast cancer (scikit-learn)")

# %% [markdown]
# Inside the folds there must be no bias in any setting: we take the worst, in standard errors of its simulation. And
# one case where the order cannot matter: least squares does not care for the scale of a feature.

# %%
unbiased = [zip(*found) for (*_, inside), found in errors.items() if inside]
worst = max(abs(sum(e) - sum(t)) / math.sqrt(sum(s * s for s in spread)) for e, t, spread in unbiased)
run.exact("cv-preprocess-bias",
          "Learned inside the folds, the largest bias of all settings is at most 4 of its standard errors",
          worst, at_most=4.0, data="simulated")

# %%
samples = [z.double() for z in E.narrow_regression(100, 30, sigma=1.0, generator=torch.Generator().manual_seed(0))]
cut = [z[:, part] for part in (slice(20), slice(20, None)) for z in samples]
way = [E.cross_validated(*cut, E.unit_scale, E.least_squares, inside)[0] for inside in (False, True)]
run.exact("cv-preprocess-bias",
          "Before least squares, scaling outside or inside the folds gives the same estimate",
          float(((way[0] - way[1]) / way[1]).abs().max()), at_most=1e-6, data="simulated")

# %% [markdown]
# A bias alike for all candidates would do no harm. Choose the size below which a category is rare, by cross-validation,
# and look at the true error of the choice. We do so at two levels of noise.

# %%
FAMILY = [E.rare_to_zero(m) for m in (1, 2, 3, 4, 6, 8)]
chosen = {}
for sigma in (1.5, 3.0):
    for seed in run.seeds:
        samples = E.categories(int(MORE * 300), 280, sigma=sigma, generator=torch.Generator().manual_seed(seed))
        cut = [z[:, part] for part in (slice(80), slice(80, None)) for z in samples]
        picked = [E.cv_choice(*cut, FAMILY, E.least_squares, inside).mean() for inside in (False, True)]
        chosen.setdefault(sigma, []).append(float(picked[0] / picked[1]))
    ratio_of = statistics.fmean(chosen[sigma])
    print(f"noise {sigma}: true error of the choice made before the folds, over that made inside: {ratio_of:.3f}")

# %%
run.claim("cv-preprocess-bias",
          "A threshold of rarity chosen with merging done before the folds has a true error at least 1 % above "
          "one chosen inside",
          chosen[1.5], [1.0] * len(run.seeds), margin=0.01, data="simulated")

# %%
run.claim("cv-preprocess-bias",
          "With twice the noise a threshold chosen with merging done before the folds has a true error at "
          "least 1 % higher, too",
          chosen[3.0], [1.0] * len(run.seeds), margin=0.01, data="simulated")

# %% [markdown]
# The biases are there, of either sign, as the paper says. Why? Our guess, along the paper's: a category with validation
# samples in it has been counted with them, so it is less often rare than it is for a new sample. Where noise is little,
# to be rare is costly, as zero is far from the category's mean, and validation looks too good; where noise is much,
# zero is a better guess than a mean of few, and the same privilege looks like a handicap. A feature with a large value
# on a validation sample is chosen for that value, and the predictor, which never saw such values, goes wrong on just
# these samples: with heavy tails much more than with Gaussian ones. Refitting inside the folds ends it in every setting
# (measured).
#
# At the lower noise the choice suffers; at twice the noise the wrong order chooses *better* than the right one
# (measured). Our guess: it leans towards large thresholds, and there they happen to be right. "May hurt selection" is
# the correct sentence, and it is the paper's. The largest biases upwards are those of the variance filter with heavy
# tails and, at ten samples, of principal components; why these and the lasso's scaling go upwards, we did not ask.

# %% [markdown]
# ## Where the chapter ends
# The speed-run's arms beside what needs no training.

# %%
results |= {"pixels, nearest neighbours": pixels}
run.summarise("test accuracy, mean over runs", results, data=PATCHES)

# %% [markdown]
# Why are some statements open in the longer run that are settled in a minute? For Muon, its step, whitening and
# fine-tuning the mean difference shrank: that is the length. For most others it kept its size or grew: three seeds
# leave a wider interval than five. Two that were open are settled: the lead over no flip, and the votes' calibration.
#
# Settings, and most statements and margins, were fixed on tuning seeds and patches of their own, also that flips are
# judged by the image alone. After a look at reported seeds the first claim on flips became weaker (it had asked for a
# lead); two on ranks, FlowAug's accuracy and the better half's slope harder; the second test sets were designed anew,
# twice: now no digit is behind both an old image and a new one, and frequencies are taken class by class;
# counts, Muon's step, best and worst seed came in; a claim on the shift without a flow and one that could not fail
# went. SGD's rate, one for the whitened and the learned first layer, and Muon's were searched over the same few values.

# %% [markdown]
# ## What carries over
# Each claim at every scale that measured it, under what its paper reports. The sizes are the mean differences. A dash
# says that nothing was measured there: what stands under quick or long speaks of small data, not of CIFAR-10.

# %%
run.carry_over()

# %% [markdown]
# ## What to take along
# - Repeat before you compare, compare in pairs, and say how many runs the difference needed. Compare at two lengths:
#   some parts of a recipe may only buy a quicker start.
# - A lead found by scanning seeds belongs mostly to the test set. Look at the winner on images that did not choose it.
# - Much of the spread between runs is coins, one a test image: a larger test set is bought once, more runs at every
#   comparison.
# - A lower number on a new test set may mean harder images. Hold the selection fixed before you speak of overfitting.
# - To know a model's accuracy, count right answers on a random sample, or with few of them at places spaced along the
#   sorted ones; to know *which* answers, look for a known model that is like it, and search where there is none.
# - One number hides its parts: origins, subgroups, and what preprocessing has already seen. Ask for the table.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ````{exercise-start} The best of many runs
# :label: ex-airbench-best
# ````
# A paper reports the best of $k$ runs. If a run's accuracy is Gaussian with standard deviation $\sigma$, by how much
# does that exceed the mean for $k = 5$ and $k = 20$? Compare with the difference that flipping makes above.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-airbench-best
# :class: dropdown
# ````
# By the expected maximum of $k$ standard normal numbers times $\sigma$: a little over one $\sigma$ for five runs,
# nearly two for twenty. Above, with six views, the flips' means differ by less than one standard deviation of a run:
# the best of five would hide which of them is ahead.

# %%
# NBVAL_CHECK_OUTPUT
draws = torch.randn(20000, 20, generator=torch.Generator().manual_seed(2))
for k in (1, 5, 20):
    print(f"best of {k:2}: {float(draws[:, :k].amax(1).mean()):+.1f} standard deviations")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Does the flip pay where there is more to learn?
# :label: ex-airbench-epochs
# ````
# The paper measures an augmentation in epochs: how many would random flip need for what another flip reaches? Read the
# accuracies of the first and the last length off the figure above, let accuracy grow by the same amount with each
# doubling of the epochs, and say what each flip is worth.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-airbench-epochs
# :class: dropdown
# ````
# If a doubling brings $g$ points, a lead of $d$ points is worth a factor of $2^{d/g}$ in epochs. How sure $d$ is, it
# does not say.

# %%
brief, whole_run = (statistics.fmean(lengths["random"][i]) for i in (0, -1))
doubling = (whole_run - brief) / math.log2(EPOCHS[-1] / EPOCHS[0])
for flip in ("none", "alternating"):
    lead = statistics.fmean(lengths[flip][-1]) - whole_run
    worth = EPOCHS[-1] * 2 ** (lead / doubling) if doubling > 0 else math.nan
    print(f"{'no' if flip == 'none' else flip} flip: as far as {worth:.1f} epochs of random flip, after {EPOCHS[-1]:g}")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A benchmark's mixture
# :label: ex-cinic-mixture
# ````
# A share $q$ of a joint test set comes from source $A$. Write the accuracy on it with the entries of $M$. Of two
# classifiers, one trained on each source, which is ahead on the joint set? Find the share at which they change
# places, and check it on a test set mixed that way.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-cinic-mixture
# :class: dropdown
# ````
# Accuracy is linear in the mixture, $q\,M_{s \to A} + (1 - q)\,M_{s \to B}$. The two lines cross at
# $q^* = (M_{B \to B} - M_{A \to B}) / (M_{A \to A} - M_{B \to A} + M_{B \to B} - M_{A \to B})$: whoever chooses the
# mixture chooses the winner.

# %%
from sklearn.svm import SVC

train, test = (E.two_sources(part, seed=0) for part in ("train", "test"))
learn, (one, other) = E.scikit(partial(SVC, C=10)), train
M = E.source_matrix(learn, train, test)
crossing = (M[other, other] - M[one, other]) / (M[one, one] - M[other, one] + M[other, other] - M[one, other])
print(f"they change places where {100 * crossing:.0f} % of the images are {one}")

# %%
# NBVAL_CHECK_OUTPUT
takes = [(test[s], round(share * len(test[s][1]))) for s, share in ((one, crossing), (other, 1 - crossing))]
joined = {"joint": tuple(torch.cat([source[i][:k] for source, k in takes]) for i in range(2))}
said = E.source_matrix(learn, train, joined)
print("level on a test set mixed so, within five points:", abs(said[one, "joint"] - said[other, "joint"]) < 0.05)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Counted with itself
# :label: ex-cv-rare
# ````
# There are $C$ equally likely categories, and one is rare if fewer than $L$ of all $N$ samples, training and
# validation, are in it. With what probability is a validation sample in a rare category, and with what probability a
# new sample? Which is smaller, and what does it do to the estimate where noise is little?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-cv-rare
# :class: dropdown
# ````
# A new sample's category holds $\text{Bin}(N, 1/C)$ samples; a validation sample's holds itself and $\text{Bin}(N-1,
# 1/C)$ others. So $P_{val} = P(\text{Bin}(N-1, 1/C) < L - 1) < P(\text{Bin}(N, 1/C) < L) = P_{new}$: validation meets
# the costly rare category less often than life does, and the estimate is too low.

# %%
# NBVAL_CHECK_OUTPUT
from scipy.stats import binom

N, C, M_rare = 80, 20, 4
theory = binom.cdf(M_rare - 2, N - 1, 1 / C), binom.cdf(M_rare - 1, N, 1 / C)
drawn, _ = E.categories(4000, N + 40, C, generator=torch.Generator().manual_seed(0))
kept = E.rare_to_zero(M_rare)(drawn[:, :N])(drawn).sum(2)
seen_rare = [1 - float(kept[:, part].mean()) for part in (slice(N // 2, N), slice(N, None))]
print(f"rare: a validation sample {theory[0]:.2f}, a new one {theory[1]:.2f}")
print("drawn, within 0.01:", all(abs(a - b) < 0.01 for a, b in zip(theory, seen_rare)))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} How uneven is a fair coin?
# :label: ex-macrostd-chance
# ````
# A classifier is right with probability $p$ on every image, whatever its subgroup. Each class has two subgroups of
# $k$ images. What MacroStd does one expect? How many images does a subgroup need for less than 0.02 at $p = 0.9$?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-macrostd-chance
# :class: dropdown
# ````
# With two equal subgroups of accuracies $a_1$ and $a_2$ class $c$ has the deviation $\sigma_c = |a_1 - a_2| / 2$. The
# difference is nearly Gaussian with variance $2p(1-p)/k$, so $\mathbb E\,\sigma_c \approx \sqrt{p(1-p) / (\pi k)}$.
# MacroStd is hardly ever zero on a finite test set, and small subgroups look unfair: that is why this chapter puts
# *chance* beside it.

# %%
# NBVAL_CHECK_OUTPUT
p_right, k_images, many = 0.9, 50, 2000
labels_of = torch.arange(many).repeat_interleave(2 * k_images)
coin_right = torch.rand(len(labels_of), generator=torch.Generator().manual_seed(0)) < p_right
found = E.macro_std(*E.subgroup_accuracy(coin_right, labels_of, torch.arange(len(labels_of)) % 2, many, 2))
expected = math.sqrt(p_right * (1 - p_right) / (math.pi * k_images))
print("formula within 3 %:", abs(found / expected - 1) < 0.03)
print("images needed:", math.ceil(p_right * (1 - p_right) / (math.pi * 0.02**2)))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For
# instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} How much do runs really differ?
# :label: ex-half-splits
# ````
# Given outcomes of $R$ runs on $n$ images, estimate without bias the variance of the accuracy on the *distribution*
# of images: the mean, over all ways to cut the images into two halves, of the covariance over runs of the two halves'
# accuracies,
#
# $$ \frac{n}{n-1}\Big(\operatorname{Var}_r \hat A_r - \frac{1}{n^2}\sum_{i=1}^n \operatorname{Var}_r(y_{ri})\Big), $$
#
# where $y_{ri}$ is 1 if run $r$ is right on image $i$, $\hat A_r$ is the mean of $y_{ri}$ over $i$, and variances
# over runs have $R - 1$ in the denominator. May the estimate be negative?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-half-splits
# :class: dropdown
# ````
# It may, and must: if runs do not differ its mean is zero, so it has to fall below zero, too. Cut off at zero it
# would be biased again.

# %% tags=["task:half-splits"]
import torch


def distribution_variance(correct):
    """The estimate, a number or a scalar, from correct (runs, images): True or 1 where a run is right on an image."""
    ### BEGIN SOLUTION
    y = correct.double()
    n = y.shape[1]
    coins = y.var(0).sum() / n**2
    return n / (n - 1) * (y.mean(1).var() - coins)
    ### END SOLUTION


# %% tags=["task-tests:half-splits:3", "remove-cell"]
apart = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])  # one run is right on everything, the other on nothing
assert abs(float(distribution_variance(apart)) - 0.5) < 1e-3, "what a run wins, it wins on every image"
### BEGIN HIDDEN TESTS
y = (torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.6).double().tolist()
runs, n = len(y), len(y[0])
centre = [sum(row[i] for row in y) / runs for i in range(n)]
pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
want = sum((row[i] - centre[i]) * (row[j] - centre[j]) for row in y for i, j in pairs) / (runs - 1) / len(pairs)
assert abs(float(distribution_variance(torch.tensor(y) > 0.5)) - want) < 1e-4
### END HIDDEN TESTS

# %% tags=["task-tests:half-splits:2", "remove-cell"]
swap = torch.tensor([[1, 0], [0, 1]])  # equally good, right on different images
assert abs(float(distribution_variance(swap)) + 0.5) < 1e-3, "each wins where the other loses"
### BEGIN HIDDEN TESTS
skill = 0.5 + 0.3 * torch.rand(400, 1, generator=torch.Generator().manual_seed(1))
right = torch.rand(400, 50, generator=torch.Generator().manual_seed(2)) < skill
assert abs(float(distribution_variance(right)) - 0.3**2 / 12) < 2e-3, "runs of known accuracy"
right = torch.rand(400, 50, generator=torch.Generator().manual_seed(3)) < torch.linspace(0, 1, 50)
assert abs(float(distribution_variance(right))) < 7e-4, "runs that differ by coins alone"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
tossed = torch.rand(20, 30, generator=torch.Generator().manual_seed(0)) < 0.7
print("as the package has it:", abs(float(distribution_variance(tossed)) - E.distribution_variance(tossed)) < 1e-6)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} One number for a model
# :label: ex-threshold
# ````
# Samples are in order, the easiest first. Find the $k$ for which "right on the first $k$, wrong on the rest" makes
# the fewest mistakes about a model's outcomes $y_1, \dots, y_n$:
#
# $$ k = \arg\min_{0 \le k \le n} \; \sum_{j \le k} (1 - y_j) + \sum_{j > k} y_j , $$
#
# the smallest of several (the package takes the middle one). Trying every $k$ from scratch takes $O(n^2)$; do it in
# $O(n)$: benchmarks have millions of samples, and two million must not take longer than 30 seconds. When is $k/n$ the
# model's accuracy?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-threshold
# :class: dropdown
# ````
# Both sums run along: one of wrong outcomes before, one of right ones after. $k/n$ is the accuracy if as many samples
# after the threshold are right as samples before it are wrong; nothing makes the minimum see to that.

# %% tags=["task:threshold"]
import torch


def threshold(right):
    """The k in 0, 1, …, n as an int, from right (n,): a tensor of bool, the easiest sample first."""
    ### BEGIN SOLUTION
    zero = torch.zeros(1, dtype=torch.long)
    before = torch.cat([zero, (~right).cumsum(0)])
    after = right.sum() - torch.cat([zero, right.cumsum(0)])
    return int((before + after).argmin())
    ### END SOLUTION


# %% tags=["task-tests:threshold:2", "remove-cell"]
row = torch.tensor([1, 1, 0, 1, 1, 0, 0, 1, 0]).bool()
assert threshold(row) == 5, "wrong on the third and the eighth, right on the other seven"
assert threshold(torch.ones(4).bool()) == 4, "a model that is always right"
### BEGIN HIDDEN TESTS
for seed in range(20):
    y = (torch.rand(12, generator=torch.Generator().manual_seed(seed)) < torch.linspace(0.9, 0.1, 12)).tolist()
    count = [sum(not v for v in y[:k]) + sum(y[k:]) for k in range(13)]
    assert threshold(torch.tensor(y)) == count.index(min(count))
### END HIDDEN TESTS

# %% tags=["task-tests:threshold:1", "remove-cell"]
assert threshold(torch.tensor([False, True])) == 0, "0 and 2 make one mistake: the smallest is wanted"
### BEGIN HIDDEN TESTS
assert threshold(torch.zeros(5).bool()) == 0 and threshold(torch.tensor([True])) == 1
long = torch.arange(2_000_000) < 1_234_567
long[::1000] = ~long[::1000]
assert threshold(long) == 1_234_567, "many samples: the time-out of a cell ends what is quadratic"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
made = torch.rand(40, 25, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.9, 0.1, 25)
least = E.mistakes(made).amin(1).tolist()
mine = [int(E.mistakes(y[None])[0, threshold(y)]) for y in made]
print("as few mistakes as the package:", mine == least)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [Contrastive learning](../self_supervision/contrastive.ipynb) begins the course's chapters on learning without labels.

# %% tags=["remove-cell"]
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
