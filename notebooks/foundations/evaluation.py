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
# A method is judged by a number, and the number comes from one run, one seed, one test set. This part of the course asks
# what such a number is worth. Eight papers are planned for this chapter; **the first is written, the others will follow**.
# It makes a training run so short that it can be repeated until chance no longer decides, and then shows what repeating
# is good for: an augmentation whose gain is smaller than the difference between two runs.
#
# **You will be able to**
# - say what each part of a speed-run does: whitening, identity initialisation, Lookahead, averaged views, Muon;
# - derandomise an augmentation, and say why that helps;
# - compare two settings by pairs of runs, and say how many runs a difference needs.
#
# **You should know** convolutional networks, stochastic gradient descent with momentum, and eigenvectors. **Run time:**
# about a minute on a laptop; on a GPU the same cells train the paper's network on CIFAR-10.

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
from dataclasses import replace

import torch

import labcode as lab
from labcode.foundations import evaluation as E
from labcode.ledger import interval

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map in three columns. airbench, which this chapter explains, leads to the paper on seed 3407 and to calibrated chaos, both about differences between runs. The papers on new test sets are ImageNet's second test set, CINIC-10 and lifelong benchmarks; subgroup discrepancy and preprocessing before cross-validation are about what one number hides. Those seven are planned."}, "figure": {"caption": "The chapter's papers. An arrow leads to a paper that takes up the question.", "name": "fig-evaluation-family"}}
PAPERS = {
    "airbench": (0, 1, "this chapter"), "seed 3407": (1.3, 0, "planned"), "calibrated\nchaos": (2.6, 0, "planned"),
    "ImageNet's\nsecond test set": (1.3, 1, "planned"), "CINIC-10": (2.6, 1, "planned"), "lifelong\nbenchmarks": (3.9, 1, "planned"),
    "subgroup\ndiscrepancy": (1.3, 2, "planned"), "preprocessing\nleaks": (2.6, 2, "planned"),
}
ARROWS = [("airbench", "seed 3407"), ("seed 3407", "calibrated\nchaos"), ("airbench", "ImageNet's\nsecond test set"),
          ("ImageNet's\nsecond test set", "CINIC-10"), ("CINIC-10", "lifelong\nbenchmarks"), ("airbench", "subgroup\ndiscrepancy"),
          ("subgroup\ndiscrepancy", "preprocessing\nleaks")]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("foundations/evaluation")
run

# %% [markdown]
# At quick scale the data are grey patches of nine photographs, and the class is the photograph. Test patches come from
# places that no training patch touches. Half of all patches were mirrored once, so that left and right mean nothing, as
# on most photographs of things. At full scale it is CIFAR-10 with the paper's network and settings.

# %%
TRAIN, TEST, RUNS = run.pick(quick=(270, 900, 20), full=(50_000, 10_000, 20))
if run.dry:
    TRAIN, TEST, RUNS = 256, 64, 2
SMALL = run.pick(quick=dict(widths=(16, 32), batch=30, translate=1, epochs=16, lr=800.0, bias_scale=4.0), full={})
if run.dry:
    SMALL = SMALL | dict(widths=(8, 8, 8), batch=64)
SGD = E.Recipe(**SMALL)
MUON = replace(E.MUON, **SMALL)

# %%
def data(seed):
    """Training and test images and labels: patches of the seed's own, or CIFAR-10, the same for all seeds."""
    if run.scale == "quick":
        run.data = "photo patches (scikit-image)"
        return *E.photo_patches(TRAIN, seed, run.splits[0], 12, 160), *E.photo_patches(TEST, seed, run.splits[1], 12, 160)
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


def runs(recipe):
    """All runs of a recipe: for every seed of the chapter a list of outcomes, from seeds of their own."""
    numbers = [[1000 * seed + i for i in range(RUNS)] for seed in run.seeds]
    train = [trainer(recipe, seed) for seed in run.seeds]
    return run.once(recipe, lambda: [[t(n, recipe.flip) for n in row] for t, row in zip(train, numbers)])


# %%
def mean(outcomes, what="tta"):
    """One value a seed: the mean over its runs."""
    return [statistics.fmean(getattr(o, what) for o in row) for row in outcomes]


x, y, test_x, test_y = data(run.seeds[0])

# %% mystnb={"image": {"alt": "Two rows of small images, two of each class."}, "figure": {"caption": "Training images, two a class. Neighbouring classes differ in texture and little else.", "name": "fig-evaluation-data"}}
shown = [int(i) for c in range(9) for i in torch.nonzero(y == c)[:2, 0]]
_ = lab.plots.images(x[shown[::2] + shown[1::2]], 2)

# %% [markdown]
# (airbench)=
# ## Ninety-four per cent in seconds
# How much does a trick bring? Tricks of a few tenths of a per cent are lost in the difference between two runs of the same
# setting. If a run takes three seconds, one can afford hundreds, and see. airbench is the recipe for that run, and its own
# first use: a new way of flipping images that was found and proven with it.
#
# The network is a 2×2 convolution and a few blocks of two 3×3 convolutions with max-pooling, BatchNorm and GELU. What is
# special is how it starts and how it is trained.

# %%
lab.show(E.SpeedNet, E.Block)

# %% [markdown]
# ### Start with what can be known
# Neighbouring pixels are nearly equal, so the first layer of a fresh network sees almost only brightness. The recipe
# computes its filters instead. With $\mathbb E[p p^\top] = U \Lambda U^\top$ over all 2×2 patches $p$ of the training
# images,
#
# $$ W = (\Lambda + \epsilon)^{-1/2} U^\top, \qquad \mathbb E\big[(Wp)(Wp)^\top\big] \approx I . $$
#
# Each filter gets its negative beside it, as GELU passes one sign only. They stay frozen; a bias is trained for three
# epochs. The other convolutions start as the identity on their first channels, so the network begins by passing on what
# it sees.

# %%
lab.show(E.patch_moments, E.whitening_filters, E.dirac_)

# %%
z = (x.float() / (255 if x.dtype == torch.uint8 else 1)).double().cpu()[:2000]
z = (z - z.mean()) / z.std()
filters = E.whitening_filters(z, eps=0.0)
half = len(filters) // 2
white = E.patch_moments(z), (w := filters[:half].flatten(1)) @ E.patch_moments(z) @ w.T
run.exact("airbench", "Whitened patches have the identity as their matrix of second moments",
          float((white[1] - torch.eye(half)).abs().max()), at_most=1e-3)

# %% mystnb={"image": {"alt": "Two matrices as heat maps: second moments of raw patches, all entries alike; after whitening, a diagonal of ones on zeros."}, "figure": {"caption": "Second moments of 2×2 patches before and after the first layer.", "name": "fig-airbench-whitening"}}
figure, axes = lab.plots.axes(2, 6, 2.6)
for axis, matrix, name in zip(axes, white, ("raw pixels of a patch", "outputs of the first layer")):
    picture = axis.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu")
    axis.set(xlabel=name, ylabel=name)
    axis.grid(visible=False)
_ = figure.colorbar(picture, ax=axes, label="second moment")

# %%
conv = torch.nn.Conv2d(6, 16, 3, padding="same", bias=False)
E.dirac_(conv.weight)
signal = torch.randn(4, 6, 12, 12, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    copied = (conv(signal)[:, :6] - signal).abs().max()
run.exact("airbench", "A convolution initialised with dirac_ is the identity on its first channels", float(copied), at_most=0.0, data="random images")

# %%
# NBVAL_CHECK_OUTPUT
print("filters and their negatives:", torch.equal(filters[:half], -filters[half:]), "| other channels are random:", bool((conv.weight[6:] != 0).all()))

# %% [markdown]
# ### Train fast
# Nesterov's momentum with a rate that rises for the first quarter of the run and falls for the rest; 64 times that rate for
# biases, the only parameters BatchNorm keeps; label smoothing; and Lookahead, which every five steps pulls the network
# towards a slow average of itself, at the end with full weight. Rates are "decoupled": changing batch size or momentum
# changes neither the step an image makes nor the decay an epoch makes.
#
# The later version replaces SGD on the filters by Muon. Its step is the nearest orthogonal matrix to the momentum $G$, found
# without an SVD by a quintic applied to the singular values of $X_0 = G/\lVert G\rVert_F$:
#
# $$ X_{k+1} = a X_k + (b\,X_k X_k^\top + c\,(X_k X_k^\top)^2) X_k, \qquad (a, b, c) = (3.4445,\,-4.7750,\,2.0315). $$

# %%
lab.show(E.triangle, E.Lookahead, E.newton_schulz, E.Muon.step)

# %% mystnb={"image": {"alt": "Left: the triangular schedule rises to one at a quarter of the run and falls. Right: singular values before and after one, three and five Newton-Schulz iterations; small values are lifted, after five all lie between about 0.7 and 1.2."}, "figure": {"caption": "The schedule of the rate, and what Newton-Schulz does to singular values.", "name": "fig-airbench-training"}}
figure, (left, right) = lab.plots.axes(2, 7, 2.6)
left.plot([i / 100 for i in range(101)], [E.triangle(i, 100) for i in range(101)])
left.set(xlabel="share of the run", ylabel="rate, 1 = its peak")
s = torch.linspace(0, 1, 400)
for steps in (0, 1, 3, 5):
    out = s
    for _ in range(steps):
        out = sum(c * out**p for c, p in zip(E.NS5, (1, 3, 5)))
    right.plot(s, out, label=f"{steps} iterations")
right.set(xlabel="singular value of X₀", ylabel="singular value after")
_ = lab.plots.legend(right)

# %% [markdown]
# ### Look twice when tested, and never the same way when trained
# At test time the logits of six views are averaged: the image, moved by a pixel up-left and down-right, and all three
# mirrored. In training, images are moved by a random offset and mirrored. And here is the paper's own idea. Tossing a coin
# for each image in each epoch shows half of the images the same way in two epochs running. So toss **once**, and then
# alternate:
#
# $$ \text{flip}_i(e) = \text{flip}_i(0) \oplus (e \bmod 2), \qquad \text{flip}_i(0) \sim \text{Bernoulli}(1/2). $$

# %%
lab.show(E.mirrored, E.shifted, E.test_views)

# %%
g = torch.Generator().manual_seed(0)
toss = torch.rand(1000, generator=g) < 0.5
seen = {flip: torch.stack([E.mirrored(toss, e, flip, g) for e in range(10)]) for flip in E.FLIPS}
once = {flip: (s[1:] == s[:-1]).double().mean() for flip, s in seen.items()}
run.exact("airbench", "With alternating flip no image is shown the same way in two consecutive epochs", float(once["alternating"]), at_most=0.0, data="flips of 1000 images")

# %%
# NBVAL_CHECK_OUTPUT
for flip, share in once.items():
    print(f"{flip:12} the same side twice in a row: {100 * share:.0f} %")

# %% mystnb={"image": {"alt": "Two grids of eight images by ten epochs, dark where an image is shown mirrored. Random flip: irregular columns with runs of one colour. Alternating flip: every row is a strict alternation."}, "figure": {"caption": "Which of eight images are mirrored in which epoch.", "name": "fig-airbench-flips"}}
figure, axes = lab.plots.axes(2, 7, 2.2)
for axis, flip in zip(axes, ("random", "alternating")):
    axis.imshow(seen[flip].T[:8], aspect="auto", cmap="Blues", vmin=-0.3, vmax=1.3)
    axis.set(xlabel="epoch", ylabel="image", title=f"{flip} flip")
    axis.grid(visible=False)

# %% [markdown]
# ### Many runs
# Now train. Arms share initial weights, order and offsets run by run, so that a difference is a difference of pairs. Every
# seed of the chapter stands for many runs.

# %%
ARMS = {
    "alternating flip": SGD, "random flip": replace(SGD, flip="random"), "no flip": replace(SGD, flip="none"),
    "learned first layer": replace(SGD, first="learned"), "Muon": MUON,
}
outcomes = {name: runs(recipe) for name, recipe in ARMS.items()}

# %%
# NBVAL_CHECK_OUTPUT
print(len(ARMS), "arms; runs a seed are many:", RUNS >= 2, "| test images:", len(test_y), "| chance:", round(1 / len(set(y.tolist())), 3))

# %% mystnb={"image": {"alt": "Two strips of dots side by side, one dot a run, for five arms: alternating flip, random flip, no flip, learned first layer, Muon. The strips overlap widely; judged by the image alone, no flip lies lowest, with six views averaged the flips are level."}, "figure": {"caption": "Test accuracy of every run, by the image alone and with six views averaged. The stroke is the mean. Two runs of one setting differ by more than the means of most settings.", "name": "fig-airbench-runs"}}
figure, axes = lab.plots.axes(2, 7.4, 2.8, sharex=True, sharey=True)
for axis, what, label in zip(axes, ("plain", "tta"), ("image alone", "six views")):
    for row, (name, rows) in enumerate(outcomes.items()):
        values = [getattr(o, what) for r in rows for o in r]
        places = [row + 0.4 * (i / len(values) - 0.5) for i in range(len(values))]
        axis.plot(values, places, "o", color=lab.plots.COLOURS[row], alpha=0.5, markersize=3.5)
        axis.plot([statistics.fmean(values)] * 2, [row - 0.4, row + 0.4], color=lab.plots.GREY)
    axis.set_xlabel(f"test accuracy of a run, {label}")
axes[0].set_yticks(range(len(outcomes)), outcomes)
axes[0].invert_yaxis()

# %%
for name, rows in outcomes.items():
    flat = [o for r in rows for o in r]
    alone, views = ([100 * getattr(o, what) for o in flat] for what in ("plain", "tta"))
    print(f"{name:20} image alone {statistics.fmean(alone):5.2f} %, six views {statistics.fmean(views):5.2f} %, ", end="")
    print(f"standard deviation of a run {statistics.stdev(views):.2f}, {statistics.fmean(o.seconds for o in flat):.2f} s a run")

# %% [markdown]
# First the paper's claim: alternating flip is better than random flip wherever flipping helps. It is judged by the image
# alone; why, is the third claim.

# %%
alone = {name: mean(rows, "plain") for name, rows in outcomes.items()}
six = {name: mean(rows) for name, rows in outcomes.items()}
run.claim("airbench", "Alternating flip gives a higher accuracy of the image alone than random flip at equal epochs", alone["alternating flip"], alone["random flip"], margin=0.001)

# %%
run.claim("airbench", "Alternating flip gives a higher accuracy of the image alone than no flip at equal epochs", alone["alternating flip"], alone["no flip"], margin=0.01)

# %%
gain = {name: [b - a for a, b in zip(alone[name], six[name])] for name in alone}
run.claim("airbench", "Averaging six views brings more to a network trained without flips than to one trained with alternating flip", gain["no flip"], gain["alternating flip"], margin=0.01)

# %% [markdown]
# Whether alternating beats tossing stays open after a hundred pairs of runs; that either beats not flipping does not.
# A network that is shown one side only learns that side. But averaging the logits of an image and its mirror image
# at test time gives what flipping in training should have given, and then the flips can hardly be told apart here. On
# CIFAR-10 the paper finds its gain with such views as well; its network sees far more images, and its runs are far more
# alike than ours.

# %% [markdown]
# How many runs would it take? The interval of a mean difference of pairs shrinks with the root of their number.

# %% mystnb={"image": {"alt": "Mean difference of alternating minus random flip against the number of paired runs, with its 95 per cent interval, which narrows; a dashed line at zero."}, "figure": {"caption": "Alternating minus random flip, and its 95 % interval, as runs are added. Early runs could have been reported either way.", "name": "fig-airbench-pairs"}}
pairs = [100 * (a.plain - b.plain) for r, s in zip(outcomes["alternating flip"], outcomes["random flip"]) for a, b in zip(r, s)]
counts = range(2, len(pairs) + 1)
bounds = [interval(pairs[:k]) for k in counts]
figure, axis = lab.plots.axes(1, 6, 2.6)
axis.plot(counts, [statistics.fmean(pairs[:k]) for k in counts])
axis.fill_between(counts, [b[0] for b in bounds], [b[1] for b in bounds], alpha=0.25)
axis.axhline(0, color=lab.plots.GREY, linestyle="--", linewidth=1)
_ = axis.set(xlabel="pairs of runs", ylabel="difference, image alone, points")

# %%
sd = statistics.stdev(pairs)
print(f"a pair's difference has a standard deviation of {sd:.2f} points: to see 0.1 points at two standard errors takes {math.ceil((2 * sd / 0.1) ** 2)} pairs")

# %% [markdown]
# Then its parts, each against the recipe without it.

# %%
run.claim("airbench", "The frozen whitening layer gives a higher mean accuracy than the same layer learned from a random start", six["alternating flip"], six["learned first layer"], margin=0.001)

# %%
run.claim("airbench", "Averaging six views gives a higher mean accuracy than the image alone", six["alternating flip"], alone["alternating flip"], margin=0.005)

# %%
shorter = replace(SGD, epochs=MUON.epochs)  # at full scale Muon's recipe is the shorter one
run.claim("airbench", "Muon gives a higher mean accuracy than SGD at equal epochs", six["Muon"], mean(runs(shorter)), margin=0.005)

# %% [markdown]
# Each part is exchanged alone, with the number of epochs as it was. Read the numbers with the scale in mind: our runs are
# short and the rates of SGD far above the paper's, since rates are per image and there are so few images.

# %% [markdown]
# On a GPU the paper's headline stands in the ledger: seconds of a whole run by CUDA's clock, compilation outside, and the
# mean accuracy over all runs. On a laptop there is nothing to compare with, so nothing is recorded.

# %%
if run.scale == "full":
    fast = [o for row in outcomes["Muon"] for o in row]
    run.exact("airbench", "Mean accuracy of the Muon recipe over at least 20 runs is 94 % or more", statistics.fmean(o.tta for o in fast), at_least=0.94)
    run.exact("airbench", "A run of the Muon recipe takes 2.59 s or less, median", statistics.median(o.seconds for o in fast), at_most=2.59)
    slow = [o for row in outcomes["alternating flip"] for o in row]
    run.exact("airbench", "Mean accuracy of airbench94 over at least 20 runs is 94 % or more", statistics.fmean(o.tta for o in slow), at_least=0.94)
    run.exact("airbench", "A run of airbench94 takes 3.29 s or less, median", statistics.median(o.seconds for o in slow), at_most=3.29)

# %% [markdown]
# What surprised us: how little one run says. Two runs that differ in nothing but their seed lie further apart than most of
# the tricks that this section weighs.

# %% [markdown]
# ## Where the chapter ends

# %% mystnb={"image": {"alt": "Bars of test accuracy, one value a seed: nearest neighbour on pixels, then the five arms."}, "figure": {"caption": "Mean test accuracy over a seed's runs. Dots are seeds, the dashed line is chance.", "name": "fig-evaluation-results"}}
def pixels(seed):
    """Nearest-neighbour vote on raw pixels: what needs no training at all."""
    train, y, test, y_test = data(seed)
    train, test = (t.flatten(1).float() for t in (train, test))
    return lab.evaluate.knn(train - train.mean(0), y, test - train.mean(0), y_test, k=run.pick(quick=5, full=20))


results = {"chance": [1 / len(set(y.tolist()))] * len(run.seeds), "pixels, nearest neighbours": [pixels(seed) for seed in run.seeds]}
results |= six
lab.plots.bars(lab.plots.axes(1, 6.5, 2.8)[1], results, "test accuracy, mean over a seed's runs", chance=results["chance"][0])

# %%
run.summarise("test accuracy, mean over runs", results)

# %%
run.table()

# %% [markdown]
# Settings, statements and margins were fixed on seeds and patches of their own; then everything was measured once. SGD's
# rates, for the whitened and for the learned first layer, and Muon's were searched over the same few values. That flips are
# judged by the image alone was decided there too, when all views averaged had shown no difference.

# %% [markdown]
# ## Exercises
# ````{exercise-start} The coin's bad luck
# :label: ex-airbench-coin
# ````
# With random flip, how large is the share of images whose second side is not seen in the first $k$ epochs? And with
# alternating flip? For which $k$ should the two augmentations differ most?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-airbench-coin
# :class: dropdown
# ````
# All $k$ tosses agree with probability $2^{1-k}$; alternating, it is 1 for $k = 1$ and 0 ever after. So they differ most in
# short runs: half of the images at $k = 2$. Yet in very short runs nothing is learnt twice, and no flip matters.

# %%
# NBVAL_CHECK_OUTPUT
coin = torch.Generator().manual_seed(1)
tossed = torch.stack([E.mirrored(torch.zeros(20000, dtype=torch.bool), e, "random", coin) for e in range(6)])
for k in (1, 2, 3, 6):
    share = (tossed[:k] == tossed[0]).all(0).double().mean()
    print(k, "epochs: near 2^(1-k):", abs(float(share) - 2.0 ** (1 - k)) < 0.01)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} The best of many runs
# :label: ex-airbench-best
# ````
# A paper reports the best of $k$ runs. If a run's accuracy is Gaussian with standard deviation $\sigma$, by how much does
# that exceed the mean for $k = 5$ and $k = 20$? Compare with the difference that flipping makes above.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-airbench-best
# :class: dropdown
# ````
# By the expected maximum of $k$ standard normal numbers times $\sigma$: a little over one σ for five runs, nearly two for
# twenty. "Best of" is worth more than most methods.

# %%
# NBVAL_CHECK_OUTPUT
draws = torch.randn(20000, 20, generator=torch.Generator().manual_seed(2))
for k in (1, 5, 20):
    print(f"best of {k:2}: {float(draws[:, :k].amax(1).mean()):+.1f} standard deviations")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Steeper at zero
# :label: ex-airbench-quintic
# ````
# The classical Newton-Schulz iteration for the polar factor is $X \leftarrow \tfrac32 X - \tfrac12 X X^\top X$. Compare it with
# Muon's quintic on a singular value of 0.01: how many iterations take it above 0.5? What does Muon pay for its speed?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-airbench-quintic
# :class: dropdown
# ````
# Near zero an iteration multiplies by 1.5 or by 3.4445. But the quintic does not converge to 1: it leaves singular values
# scattered about it.

# %%
# NBVAL_CHECK_OUTPUT
def iterations(step, s=0.01):
    """How often ``step`` must be applied to lift s above one half."""
    k = 0
    while s <= 0.5:
        s, k = step(s), k + 1
    return k


quintic = lambda s: sum(c * s**p for c, p in zip(E.NS5, (1, 3, 5)))
print("classical:", iterations(lambda s: 1.5 * s - 0.5 * s**3), "| Muon's:", iterations(quintic), "| 1 becomes", round(quintic(1.0), 3))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Does the flip pay where there is more to learn?
# :label: ex-airbench-epochs
# ````
# A small research question. The paper measures an augmentation in epochs: how many more does random flip need for what
# alternating flip reaches? Train both for half as long, and place the results between the two lengths.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-airbench-epochs
# :class: dropdown
# ````
# A few runs of half the length, beside the mean of all those of full length, by the image alone. So few runs settle what
# half of the training costs, and not which flip is better: that takes pairs by the dozen, as above.

# %%
half_length = {flip: [trainer(replace(SGD, epochs=SGD.epochs / 2), run.seeds[0])(1000 * run.seeds[0] + i, flip).plain for i in range(min(RUNS, 3))] for flip in ("random", "alternating")}
for flip, values in half_length.items():
    whole = [o.plain for o in outcomes[f"{flip} flip"][0]]
    print(f"{flip:12} half the epochs {statistics.fmean(values):.3f}, all {statistics.fmean(whole):.3f}")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [Contrastive learning](../self_supervision/contrastive.ipynb) begins the course's chapters on learning without labels. Its
# claims, like all in this book, are judged as here: pairs of arms over seeds, an interval, a margin fixed before.

# %%
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
