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
# # Category discovery
#
# Some classes are known, others are not: find the new ones and count them. A clustering of everything would ignore the
# labels; a classifier would press every sample into an old class. This chapter puts six papers on one protocol:
# prototypes and proxies, a mixture that splits and merges, information maximisation, rehearsal, and a plain net for
# tables.
#
# **You will be able to**
# - name the problem from its assumptions, and a method's family from what it reads when;
# - measure All, Old and New by one matching, and say why two matchings flatter;
# - tune a method for classes nobody has labelled, by hiding classes that somebody has;
# - count new classes in several ways, and see where each errs;
# - follow classes that arrive one session after another, and say what forgets.
#
# **You should know** the chapter [Contrastive learning](../self_supervision/contrastive.ipynb), k-means, and what
# entropy is.
# **Run time:** about a minute on a laptop; on a GPU the same cells take CIFAR-10 and a ResNet-18.

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
import copy

import torch
import torch.nn.functional as F

import labcode as lab
from labcode.clustering import category_discovery as C
from labcode.self_supervision.contrastive import SimCLR

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map. SimCLR leads to GCD, and the survey leads to GCD as well and to PBN. GCD leads to GPC, PIM, PA-CGCD and MetaGCD."}, "figure": {"caption": "Who answers whom. GCD is no paper of the course, yet four of its papers start there: the first section explains it.", "name": "fig-category-discovery-family"}}
PAPERS = {
    "SimCLR": (0, 1, "explained elsewhere"), "NCD survey": (0, 2.2, "this chapter"), "PBN": (1.3, 2.2, "this chapter"),
    "GPC": (2.6, 0, "this chapter"), "PIM": (2.6, 0.8, "this chapter"),
    "PA-CGCD": (2.6, 1.6, "this chapter"), "MetaGCD": (2.6, 2.4, "this chapter"), "GCD": (1.3, 1, "explained here, a start"),
}
ARROWS = [("SimCLR", "GCD"), ("NCD survey", "GCD"), ("NCD survey", "PBN"), ("GCD", "GPC"), ("GCD", "PIM"), ("GCD", "PA-CGCD"), ("GCD", "MetaGCD")]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("clustering/category_discovery", first_seed=5)
lab.plots.STYLE["figure.dpi"] = 80
stage = C.digit_stage(run)
run

# %%
stage

# %% mystnb={"image": {"alt": "Three rows of small grey digits: training images, and under each of them two views of it, turned, moved and sheared."}, "figure": {"caption": "Eight digits and the two views that contrast sees of each.", "name": "fig-category-discovery-stage"}}
_ = stage.look()

# %% [markdown]
# Each result below is a statement with a verdict ([How to read a
# verdict](../../book/how_to_use.md#how-to-read-a-verdict)): *supported* if the 95 % interval of the paired difference
# lies at the margin or above, *smaller* if it lies below the margin and the sign is not surely the other one,
# *reversed* if it is, *inconclusive* if the seeds leave it open.
#
# Digits have 14×14 pixels and a margin of one, so 16×16. One encoder a seed is trained by SimCLR and frozen; it saw
# all images, new classes too, and no label. Methods train heads of two layers on its standardised features, as the
# papers train the last block of a frozen transformer. A seed draws three sets of old classes at random, and a value is
# the mean over them; where an arm costs more, over fewer of them, and its cell says so.
#
# **The protocol.** Half of the images of the old classes have labels. The rest of them and all images of new classes
# are one unlabelled pool. Clusters of the *pool* are matched with classes one to one, so that the most samples are
# right (Hungarian): *All* is the share of right ones; *Old* and *New* are read off the *same* matching. The first GCD
# paper matched both parts apart, so one cluster could count twice. In *novel class discovery* the pool is of new
# classes only.
#
# Through the chapter $x$ is a row of features, $z$ what a head makes of it, $y$ a class, $k$ a number of clusters and
# $\tau$ a temperature; $n$ counts rows.

# %%
SPLITS, VIEWS, CLASSES = 3, run.pick(quick=6, full=8), stage.classes
OLD = CLASSES // 2


def frozen(seed, trained=True):
    """Standardised features of the images and of some views of each, from SimCLR or an untrained encoder."""

    def make():
        encoder, g = stage.encoder(seed), run.generator(seed)
        if trained:
            options = run.pick(quick=dict(steps=200, batch_size=64), full={})
            encoder = stage.pretrain("simclr", SimCLR, seed, encoder=encoder, **options).encoder
        else:
            encoder.eval()
        return (*C.frozen_features(stage, encoder, VIEWS if trained else 0, generator=g), stage.train_labels[:15000])

    return run.once(("frozen", seed, trained), make)


# %%
def problems(seed, share=0.5, old=OLD):
    """The seed's problems: the same rows, other old classes."""
    x, views, y = frozen(seed)
    g = run.generator(seed)
    drawn = [torch.randperm(CLASSES, generator=g, device=g.device)[:old].tolist() for _ in range(SPLITS)]
    return [C.discovery_problem(x, y, each, share=share, generator=g, views=views) for each in drawn]


def gcd(seed):
    """The seed's problems on GCD's features, rows of unit length: where most sections start."""

    def make():
        given = problems(seed)
        heads = C.train_gcd(given, generator=run.generator(seed), **run.pick(quick=dict(steps=130, batch=64), full=dict(steps=4000)))
        return [p.among(z) for p, z in zip(given, heads.features(torch.stack([p.x for p in given])), strict=True)]

    return run.once(("gcd", seed), make)


# %%
unit = lambda p: p.unit
semi = lambda p, k, seed: C.best_semi(p, k, generator=run.generator(seed))
plain = lambda x, k, seed=0: C.best_kmeans(x, k, generator=run.generator(seed))
mean = lambda measures, name="All": sum(m[name] for m in measures) / len(measures)  # over a seed's problems
NCD_STEPS = run.pick(quick=80, full=2000)

# %% [markdown]
# ## Where the chapter starts: GCD
# GCD trains a head with two contrasts: all images by their views (InfoNCE, weight $1-\lambda$), labelled ones by their
# class (SupCon, $\lambda = 0.35$). Then it clusters with *semi-supervised* k-means, in which labelled rows stay where
# they belong. One function serves both contrasts, and a third one below: only the table of weights differs,
#
# $$\mathcal L = -\frac{1}{|A|}\sum_{i\in A} \frac{1}{N_i} \sum_j w_{ij} \log\frac{\exp(z_i^\top z_j/\tau)}{\sum_{l\neq i}\exp(z_i^\top z_l/\tau)} .$$
#
# $z_i$ are projections of length 1, $w_{ij} \ge 0$ says how firmly row $i$ is drawn to row $j$, $N_i$ how many rows it
# is drawn to, $A$ the rows that are drawn to any. For InfoNCE $w_{ij}=1$ for the other view, for SupCon for all rows
# of the class.

# %%
lab.show(C.weighted_contrast)

# %%
lab.show(C.semi_supervised_kmeans, start="fixed, free")

# %%
pixels = stage.train_images[:15000].flatten(1).float() / 255
rows = {name: [] for name in ("pixels, k-means", "untrained, k-means", "SimCLR, k-means", "SimCLR, semi-supervised", "GCD", "all labels")}
results = {}
for seed in run.seeds:
    starts = [unit(p) for p in problems(seed)]
    features = {"pixels": pixels, "untrained": F.normalize(frozen(seed, False)[0], dim=1), "SimCLR": starts[0].x}
    for name, x in features.items():
        clusters = plain(x, CLASSES, seed)  # knows no label, so that one clustering serves all problems
        rows[f"{name}, k-means"].append([p.judge(clusters) for p in starts])
    for name, ps in (("SimCLR, semi-supervised", starts), ("GCD", gcd(seed))):
        rows[name].append([p.judge(semi(p, CLASSES, seed)) for p in ps])
    x, y, half = starts[0].x, starts[0].y, len(starts[0].x) // 2
    probe = lab.evaluate.linear_probe(x[:half], y[:half], x[half:], y[half:], l2=(0.01,)).accuracy
    rows["all labels"].append([dict(All=probe, Old=probe, New=probe)])
for name, measured in rows.items():
    results[name] = [mean(m) for m in measured]
FLOOR = results["untrained, k-means"]

# %% mystnb={"image": {"alt": "Horizontal bars of the share of all unlabelled digits in the right cluster, for k-means on pixels, on an untrained encoder and on SimCLR, semi-supervised k-means on SimCLR, GCD, and a classifier with all labels. They rise in this order."}, "figure": {"caption": "The bars to clear. Dots are seeds. The last row is a linear classifier with all labels of half of the images, measured on the other half.", "name": "fig-category-discovery-floor"}}
lab.plots.bars(lab.plots.axes(1, 6, 2.2)[1], results, "All accuracy", chance=sum(FLOOR) / len(FLOOR))

# %%
# NBVAL_CHECK_OUTPUT
print(len(results), "references,", CLASSES, "classes,", OLD, "of them old")

# %% [markdown]
# (ncd-survey)=
# ## The map: who reads what, and when
# The survey sorts the field by two questions. Which *problem* is it? That follows from assumptions: are there labels,
# may the unlabelled rows be of old classes, of new ones, are new ones to be told from one another? And which *family*
# is a method of? *Two-stage* methods learn from labelled rows, then carry what was learnt (features, or a net that
# says whether two rows belong together) over to the unlabelled ones alone; *one-stage* methods train on both at once.
# Both become code.

# %%
lab.show(C.problem_of)

# %%
lab.show(C.family)

# %%
# NBVAL_CHECK_OUTPUT
cases = {
    "clustering": dict(labels=False, new=True), "SSL": dict(old=True), "OSR": dict(old=True, new=True), "DA": dict(old=True, shifts=True),
    "NCD": dict(new=True, tell_apart=True), "GCD": dict(old=True, new=True, tell_apart=True),
    "the last two papers": dict(old=True, new=True, tell_apart=True, arrives=True),
}
for name, given in cases.items():
    print(f"{name:20} {C.problem_of(C.Assumptions(**given))}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Above, two stages: labelled rows train features or a pair net, which is carried over, frozen, to a clustering of the unlabelled rows. Below, one stage: labelled and unlabelled rows enter one trunk with two heads, cross entropy on the old head and pseudo-labels on the new head."}, "figure": {"caption": "Two stages above, one below. What differs between methods of a family is what is carried over, or how the pseudo-labels are made.", "name": "fig-ncd-survey-diagram"}}
parts = {
    "labelled": (0, 0), "features or\npair net": (1.3, 0, "trained"), "carried\nover": (2.6, 0, "copy"), "clusters": (3.9, 0, "loss"), "unlabelled": (2.6, 0.9),
    "labelled ": (0, 1.8), "unlabelled ": (0, 2.6), "trunk": (1.3, 2.2, "trained"), "cross\nentropy": (2.9, 1.8, "loss"), "pseudo-\nlabels": (2.9, 2.6, "loss"),
}
arrows = [("labelled", "features or\npair net"), ("features or\npair net", "carried\nover"), ("carried\nover", "clusters"), ("unlabelled", "clusters"),
          ("labelled ", "trunk"), ("unlabelled ", "trunk"), ("trunk", "cross\nentropy"), ("trunk", "pseudo-\nlabels")]
_ = lab.plots.diagram(parts, arrows, height=3.2)

# %% [markdown]
# The methods share a signature. Pseudo-labels are what tells them apart. The plainest, *taught + k-means*, trains a
# classifier of known classes and clusters its features. *KCL* and *MCL* carry over a pair net and train clusters whose
# chance to agree, $p_i^\top p_j$, follows its verdict. *DTC* carries over features and sharpens soft clusters on them.
# *AutoNovel* calls two rows alike if their five largest features are the same ones. *UNO* asks for one view's
# assignment from the other, balanced by Sinkhorn (rows and columns scaled in turn until classes are even), and puts
# old and new classes into one cross entropy. *TabularNCD* takes the nearest rows of a batch for alike. For pairs, with
# $s_{ij}$ the verdict and $p_i$ row $i$'s cluster probabilities:
#
# $$\mathcal L_{\mathrm{pairs}} = -\frac1{n^2}\sum_{ij} s_{ij} \log p_i^\top p_j + (1 - s_{ij}) \log\bigl(1 - p_i^\top p_j\bigr).$$

# %%
lab.show(C.pair_bce, C.rank_pairs)

# %%
lab.show(C.uno_clusters)

# %% [markdown]
# Two data sets with five old and five new classes: SimCLR's features of digits, and the 8×8 digits as a *table* of 64
# pixels. Then a *planted* table, whose old classes differ in some directions, under loud ones that tell nothing. There
# the directions in which *new* classes differ can be turned away from those of the old: the survey's condition, that
# known and novel classes share what matters, as a dial.

# %%
PAIRS = () if run.scale != "quick" else ("KCL", "MCL", "TabularNCD")  # left out in a minute, the last on the table alone
METHODS = {"digits, SimCLR": [name for name in C.NCD if name not in PAIRS[:2]], "digits, table": [name for name in C.NCD if name not in PAIRS]}
NAMED = {"k-means": "unsupervised", **dict.fromkeys(("taught + k-means", "KCL", "MCL", "DTC"), "two-stage"), **dict.fromkeys(("AutoNovel", "UNO", "TabularNCD"), "one-stage")}
PROBLEMS = {name: SPLITS if name in ("k-means", "taught + k-means") else 1 for name in C.NCD}  # problems a seed: the dear ones meet the first alone
tasks = {"digits, SimCLR": lambda s: problems(s, share=1.0), "digits, table": lambda s: [C.pixel_problem(1000 * d + s, run.tuning) for d in range(SPLITS)]}
found = {}
for task, make in tasks.items():
    each = lambda name, s, make=make: [C.discovered(name, p, seed=s, steps=NCD_STEPS) for p in make(s)[: PROBLEMS[name]]]
    found[task] = {name: [each(name, s) for s in run.seeds] for name in METHODS[task]}
new = {task: {name: [drawn[0][0] for drawn in values] for name, values in each.items()} for task, each in found.items()}
over_draws = lambda task, name: [sum(v for v, _ in drawn) / len(drawn) for drawn in found[task][name]]

# %%
wrong = sum(kind != NAMED[name] for each in found.values() for name, values in each.items() for drawn in values for _, kind in drawn)
run.exact("ncd-survey", "What a method reads puts each of the methods into the family that the survey names (errors)", wrong, at_most=0)

# %% mystnb={"image": {"alt": "Two bar charts of the accuracy on new classes over the methods: digits on SimCLR's features, and digits as a table, where a minute leaves some out."}, "figure": {"caption": "Discovery of new classes by two-stage and one-stage methods. Dots are seeds, dashes chance.", "name": "fig-ncd-survey"}}
figure, panels = lab.plots.axes(2, 9, 2.4)
for panel, (task, arms) in zip(panels, new.items(), strict=True):
    lab.plots.bars(panel, arms, "New accuracy", chance=0.2)
    panel.set_title(task)

# %%
if run.scale != "quick":
    run.claim("ncd-survey", "On digits k-means on self-supervised features finds new classes as well as on a classifier's of the known ones, within five points",
              over_draws("digits, SimCLR", "k-means"), over_draws("digits, SimCLR", "taught + k-means"), margin=-0.05)

# %%
run.claim("ncd-survey", "On a table k-means on the columns finds new classes better than on a classifier's features of the known ones",
          over_draws("digits, table", "k-means"), over_draws("digits, table", "taught + k-means"), margin=0.05, data="8×8 digits")

# %%
both = lambda name: [sum(pair) / 2 for pair in zip(*(new[task][name] for task in tasks), strict=True)]
run.claim("ncd-survey", "Features that go on to be sharpened (DTC) find new classes better than k-means on the features carried over", both("DTC"), both("taught + k-means"), margin=0.0, data="digits, two data sets")

# %%
run.claim("ncd-survey", "Swapped balanced labels (UNO) find new classes better than ranked pairs (AutoNovel)", both("UNO"), both("AutoNovel"), margin=0.05, data="digits, two data sets")

# %%
ANGLES, DRAWS = run.pick(quick=(0, 45, 90), long=(0, 30, 45, 60, 90), full=(0, 15, 30, 45, 60, 75, 90)), 4
DIAL = run.pick(quick=("k-means", "taught + k-means"), long=("k-means", "taught + k-means", "DTC"), full=("k-means", "taught + k-means", "DTC", "UNO"))
turned = lambda name, a: [sum(C.discovered(name, C.planted_problem(1000 * d + s, a), seed=s, steps=NCD_STEPS)[0] for d in range(DRAWS)) / DRAWS for s in run.seeds]
dial = {name: [turned(name, a) for a in ANGLES] for name in DIAL}

# %% mystnb={"image": {"alt": "New accuracy against the angle between the directions of old and of new classes: k-means stays level; the classifier's features start above it and fall below it."}, "figure": {"caption": "The more old and new classes differ in the same directions, the more known labels are worth; at a right angle they do harm.", "name": "fig-ncd-survey-dial"}}
told = "new accuracy over the angle between what tells old and what tells new classes apart"
_ = lab.plots.curve(run.curve("ncd-survey", told, ANGLES, dial, "angle in degrees", "New accuracy", data="planted table"), floor=0.2)

# %%
gain = [[a - b for a, b in zip(dial["taught + k-means"][at], dial["k-means"][at], strict=True)] for at in (0, -1)]
run.claim("ncd-survey", "A classifier's features gain more over k-means where classes share directions than where they differ in others", *gain, margin=0.1, data="planted table")

# %%
run.claim("ncd-survey", "Where classes share directions a classifier's features find new classes better than k-means on the columns",
          dial["taught + k-means"][0], dial["k-means"][0], margin=0.05, data="planted table")

# %%
if run.scale != "quick":
    run.claim("ncd-survey", "Where classes differ in other directions UNO, one-stage, finds new classes better than DTC, two-stage",
              turned("UNO", 90), turned("DTC", 90), margin=0.05, data="planted table")

# %%
run.claim("ncd-survey", "At a right angle a classifier's features find new classes worse than k-means on the columns",
          dial["taught + k-means"][-1], dial["k-means"][-1], margin=0.0, higher_is_better=False, data="planted table")

# %% [markdown]
# **The longest runs first.** Four times the training and three seeds bear out all that a minute says (*measured*), and
# settle two things that it does not ask. On SimCLR's features of digits k-means finds new classes as well as on a
# classifier's, within five points, and on average far better. And one stage against two: where labels mislead, UNO,
# whose trunk sees the new rows from the start, finds more than DTC by more than five points (both *measured*).
#
# Now the runs of a minute.
#
# What a classifier of known classes carries over is what tells *those* apart, and the planted table turns that like a
# dial. Where new classes differ in the same directions, k-means finds them far better on the classifier's features
# than on the columns; where they differ in others, at a right angle, it finds them worse (both *measured*). *Our
# guess*: the classifier has learnt to look away from what is needed now. So the survey's condition stands on both
# sides: known labels help where classes share what matters, and cost where they do not. On 8×8 digits they cost:
# k-means on the plain pixels finds new ones better than k-means on a classifier's features (*measured*).
#
# DTC goes on training what was carried over, and gains a little by it (*measured*). Methods of one family differ much:
# UNO's balanced assignments find far more than AutoNovel's pairs (*measured*). *Our guess*: in a narrow trunk two rows
# seldom have the same five largest features, so AutoNovel hears *different* of most pairs. The methods share a budget
# and were not tuned one by one; this is no ranking of them.

# %% [markdown]
# (pbn-tabular-ncd)=
# ## Tables: a plain net, tuned by classes that are hidden on purpose
# Who chooses the settings where new classes have no label? On images papers look at the new classes' accuracy. PBN
# (projection-based novel class discovery) asks of the *known* ones: hide some of them, run the whole method as if they
# were new, score it on them, and keep the settings that did best. For that to carry over a method must have few
# settings. So the net is plain: one encoder, one decoder, one linear classifier,
#
# $$\mathcal L = w\,\frac{1}{|K|}\sum_{i\in K} -\log p(y_i \mid z_i) + (1-w)\,\frac1n\sum_i \lVert x_i - \hat x_i\rVert^2 ,$$
#
# then k-means on the latent $z$ of the novel rows. $K$ are the known rows, $\hat x$ is the decoder's answer,
# $w\in[0,1]$ the weight of what is known. The squared error is summed over columns, so the same $w$ means less of the
# labels on a wider table.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A table's rows go through an encoder to z. From z a classifier leads to cross entropy on known rows, a decoder to the squared error on all rows, and k-means clusters the z of novel rows. Folds hide some known classes, whose accuracy chooses the settings."}, "figure": {"caption": "PBN, and how it is tuned: in each fold some known classes play the part of the novel rows, and their accuracy is the score.", "name": "fig-pbn-diagram"}}
parts = {
    "known rows": (0, 0), "novel rows": (0, 1.6), "encoder": (1.1, 0.8, "trained"), "z": (2, 0.8), "classifier": (3, 0, "trained"), "decoder": (3, 0.8, "trained"),
    "cross\nentropy": (4.2, 0, "loss"), "squared\nerror": (4.2, 0.8, "loss"), "k-means": (3, 1.6, "store"), "hidden\nclasses": (4.2, 1.6, "store"),
}
arrows = [("known rows", "encoder"), ("novel rows", "encoder"), ("encoder", "z"), ("z", "classifier"), ("z", "decoder"), ("z", "k-means"),
          ("classifier", "cross\nentropy"), ("decoder", "squared\nerror"), ("k-means", "hidden\nclasses", "score")]
_ = lab.plots.diagram(parts, arrows, height=2.8)

# %%
lab.show(C.pbn_loss)

# %% [markdown]
# Two more ideas go with it. *NCD k-means* draws its seeds away from the known classes' means, which then drop out:
# they only repel the seeds, and do not stay as centroids that catch novel rows. *NCD spectral clustering* embeds known
# and novel rows together, and does NCD k-means there. Its kernel takes its width from the rows: the longest edge of
# the tree that joins all of them most cheaply gets a fixed affinity, so that no row is cut off.

# %%
lab.show(C.ncd_kmeans)

# %%
lab.show(C.tree_affinity)

# %% [markdown]
# Three tables: 8×8 digits, one of the paper's seven; *profiles* of MNIST, sums of rows and columns and zones, in the
# manner of the paper's Multiple Features; and the planted table. All settings and all folds train side by side, in one
# batched product; a seed takes several draws of rows and classes from each table. $w = 1$ is the paper's baseline, a
# classifier alone; $w = 0$ an autoencoder.

# %%
W, LATENT = (0.0, 0.3, 0.6, 1.0), run.pick(quick=(8,), long=(8, 16), full=(8, 16, 32))
SETTINGS = [(w, width) for width in LATENT for w in W]
PBN_OPTIONS = dict(hide=2, folds=run.pick(quick=2, full=3), batch=64, lr=3e-3, steps=run.pick(quick=160, full=4000))
TABLES = {"8×8 digits": lambda s: C.pixel_problem(s, run.tuning), "profiles": lambda s: C.profile_problem(s, run.tuning), "planted": C.planted_problem}
TAKES = run.pick(quick=2, full=3)  # problems a table and seed


# %%
PBN_ARMS = ("k-means", "NCD k-means", "spectral", "NCD spectral", "baseline", *(() if run.scale == "quick" else ("TabularNCD",)), "PBN")
pbn = {}
for task, make in TABLES.items():
    for seed in run.seeds:
        for take in range(TAKES):
            p = make(1000 * take + seed)
            pbn[task, seed, take] = dict(p=p) | C.pbn_arms(p, SETTINGS, seed=seed, **PBN_OPTIONS) | C.table_rivals(p, seed=seed)
            if "TabularNCD" in PBN_ARMS:
                pbn[task, seed, take]["TabularNCD"] = C.discovered("TabularNCD", p, seed=seed, steps=NCD_STEPS)[0]
over_takes = lambda task, seed, value: sum(value(pbn[task, seed, take]) for take in range(TAKES)) / TAKES
over_tables = lambda value: [sum(over_takes(task, seed, value) for task in TABLES) / len(TABLES) for seed in run.seeds]
arms = {task: {name: [over_takes(task, seed, lambda at, name=name: at[name]) for seed in run.seeds] for name in PBN_ARMS} for task in TABLES}
average = {name: over_tables(lambda at, name=name: at[name]) for name in PBN_ARMS}

# %% mystnb={"image": {"alt": "Bars of the accuracy on new classes for k-means, NCD k-means, spectral clustering, NCD spectral clustering, the classifier alone and PBN: one panel a table."}, "figure": {"caption": "Ways of finding new classes in tables; the classifier alone (baseline) and PBN are tuned by hidden known classes. Dots are seeds.", "name": "fig-pbn"}}
figure, panels = lab.plots.axes(3, 8.5, 2.4)
for panel, (task, each) in zip(panels, arms.items(), strict=True):
    lab.plots.bars(panel, each, "New accuracy", chance=0.2)
    panel.set_title(task)
    if panel is not panels[0]:
        panel.set_yticklabels([])

# %%
from collections import Counter

for task in TABLES:
    print(f"{task:10} w chosen by hidden classes, and how often: {dict(sorted(Counter(at['w'] for (name, *_), at in pbn.items() if name == task).items()))}")

# %%
three = "mean over three tables"
for rival in ("baseline", "k-means", "NCD spectral"):
    run.claim("pbn-tabular-ncd", f"Tuned by hidden classes, PBN finds new classes better than {rival}", average["PBN"], average[rival], margin=0.0, data=three)
if "TabularNCD" in PBN_ARMS:
    run.claim("pbn-tabular-ncd", "Tuned by hidden classes, PBN finds new classes better than TabularNCD, five points or more", average["PBN"], average["TabularNCD"], margin=0.05, data=three)
run.table("pbn-tabular-ncd")

# %%
if run.scale != "quick":
    unit_and_raw = (over_tables(lambda at, which=which: sum(at[which]) / len(at[which])) for which in ("new", "raw"))
    run.claim("pbn-tabular-ncd", "Over all weights, a latent that is brought to length 1 when predicting too, unlike in the released code, finds new classes better, three points or more", *unit_and_raw, margin=0.03, data=three)

# %% [markdown]
# What trains nothing is cheap, so the two ways of letting known rows help are compared on eight draws of each table.

# %%
DRAWN, SPECTRUM = 8, run.scale != "quick"
untaught = {s: [C.table_rivals(make(1000 * take + s), seed=s, spectrum=SPECTRUM) for make in TABLES.values() for take in range(DRAWN)] for s in run.seeds}
eight = lambda name: [sum(each[name] for each in untaught[s]) / len(untaught[s]) for s in run.seeds]
run.claim("pbn-tabular-ncd", "Seeds repelled by known classes find new classes as well as k-means++, within three points", eight("NCD k-means"), eight("k-means"), margin=-0.03, data=three)

# %%
if SPECTRUM:
    run.claim("pbn-tabular-ncd", "Spectral clustering that embeds known rows too finds new classes better than without them, three points or more",
              eight("NCD spectral"), eight("spectral"), margin=0.03, data=three)

# %% [markdown]
# Does the accuracy on hidden classes tell of that on new ones? Over PBN's settings their order should agree
# (Spearman's coefficient above 0).

# %%
from scipy.stats import spearmanr

agree = over_tables(lambda at: float(spearmanr(at["hidden"], at["new"]).statistic))
by_w = lambda task, which: [[over_takes(task, s, lambda at, w=w: max(v for v, (at_w, _) in zip(at[which], SETTINGS, strict=True) if at_w == w)) for s in run.seeds] for w in W]
over_w = {task: by_w(task, "new") for task in TABLES}
hidden_w = {f"{task}, hidden": by_w(task, "hidden") for task in TABLES}

# %% mystnb={"image": {"alt": "Accuracy on new and on hidden known classes against the weight w of the classifier, for three tables."}, "figure": {"caption": "Accuracy over the weight of what is known: 0 is an autoencoder, 1 a classifier alone. The classifier alone is worst on images and best where old and new classes differ alike (planted). The best latent width where there are several.", "name": "fig-pbn-w"}}
_ = lab.plots.curve(run.curve("pbn-tabular-ncd", "accuracy over the weight of the classifier", W, over_w | hidden_w, "weight w", "accuracy", data="three tables"))

# %%
run.claim("pbn-tabular-ncd", "Over PBN's settings the accuracy on hidden known classes orders that on new ones (Spearman above 0)", agree, [0.0] * len(agree), margin=0.0, data=three)

# %%
kept = lambda at, some: [v for v, (w, _) in zip(at["new"], SETTINGS, strict=True) if some(w)]
both, alone = (over_tables(lambda at, some=some: sum(kept(at, some)) / len(kept(at, some))) for some in (lambda w: 0 < w < 1, lambda w: w == 1))
run.claim("pbn-tabular-ncd", "A classifier whose latent also rebuilds the rows finds new classes better than a classifier alone, mean over the weights between", both, alone, margin=0.0, data=three)

# %% [markdown]
# How many new classes? For each $k$ k-means and an index of how well apart its clusters are; the largest wins. In
# PBN's latent, or on the columns?

# %%
KS, INDICES = tuple(range(2, run.pick(quick=13, long=21, full=30))), run.pick(quick=("silhouette", "elbow"), long=("silhouette", "calinski", "davies", "elbow"), full=("silhouette", "calinski", "davies", "elbow"))
counts = lambda rows, seed: C.estimate_classes(rows, KS, generator=run.generator(seed), indices=INDICES, restarts=3)
for (_, seed, _), at in pbn.items():
    at["k latent"] = counts(at["z"], seed)
off = lambda where, index: over_tables(lambda at: abs(at[where][index] - 5))
for index in INDICES:
    print(f"{index:11} |k̂ - 5| in the latent {sum(off('k latent', index)) / len(run.seeds):.1f}")

# %%
if run.scale != "quick":
    for (_, seed, _), at in pbn.items():
        at["k columns"] = counts(C.known_split(at["p"])[1], seed)
    run.claim("pbn-tabular-ncd", "The silhouette's number of classes is nearer to the truth in PBN's latent than on the columns, by one or more",
              off("k latent", "silhouette"), off("k columns", "silhouette"), margin=1.0, higher_is_better=False, data=three)

# %%
run.claim("pbn-tabular-ncd", "In the latent the silhouette errs less than the elbow", off("k latent", "silhouette"), off("k latent", "elbow"), margin=0.0, higher_is_better=False, data=three)

# %%
blind = over_tables(lambda at: C.new_accuracy(at["p"], plain(at["z"], at["k latent"]["silhouette"])))
run.claim("pbn-tabular-ncd", "PBN loses accuracy where the number of classes is estimated, two points or more", average["PBN"], blind, margin=0.02, data=three)

# %% [markdown]
# **The longest runs first**, for they settle what a minute leaves open. With four times the training PBN is clearly
# better than k-means, than NCD spectral clustering and than the classifier alone, and better than TabularNCD by more
# than five points (all *measured*). The planted table has changed sides: there too rebuilding wins (the curve of
# longer runs). *Our guess*: a classifier that is trained for long drops what it does not need even where old and new
# classes differ in the same directions. Hidden classes order the settings as before (*measured*). Rows of the latent
# brought to
# length 1 before the classifier, when predicting too, are not worth three points, and the latent does not bring the
# silhouette's number nearer by one (both
# *smaller*); the elbow still counts better (*reversed*). What known rows add to spectral clustering stays open, on
# eight draws of each table.
#
# Now the runs of a minute.
#
# Hidden classes are a compass: over the weights, accuracy on them orders the accuracy on new ones (*measured*), and no
# label of a new class was needed. Tuned by them PBN is better than the classifier alone (*measured*). Its loss is
# worth its place, too: with weight on both, on average over the weights, new classes are found better than by the
# classifier alone, which keeps only what tells known classes apart (*measured*): the survey's dial again. The figure
# shows where. On both tables of digits rebuilding wins, and an autoencoder does as well; on the planted one, where old
# and new classes differ in the same directions, the classifier alone does. Hidden classes say so: the list above has
# the weights that they chose.
#
# Against rivals that train nothing our three tables are less clear than the paper's seven. PBN is ahead of k-means and
# of NCD spectral clustering with four seeds of five, which does not settle it. Seeds repelled by known classes are as
# good as those of k-means++ (*measured*), and no better on average.
#
# The number of classes is where it costs. The silhouette, which the paper trusts most, errs far more than a plain
# elbow (*reversed*), and with its number PBN loses much of its accuracy (*measured*). *Our guess*: two or three
# clusters of several digits look tidier than five of one; the elbow looks at the whole curve. The paper's tables have
# other classes than ours.

# %% [markdown]
# (gpc-gcd)=
# ## A mixture that splits and merges: GPC
# Semi-supervised k-means needs the number of classes. GPC lets it move. Take a cluster without labelled rows and cut
# it in two by k-means. Do two Gaussians explain its rows better than one? The means and covariances are unknown, so
# they are integrated out under a prior (normal-inverse-Wishart), and what is left is the marginal likelihood $L$ of a
# set of rows. The *Hastings ratio* of the split is
#
# $$H = \alpha\,\frac{\Gamma(n_1)\,L_1\;\Gamma(n_2)\,L_2}{\Gamma(n)\,L} ,$$
#
# $n_1$ and $n_2$ the sizes of the halves, $n$ of the whole, $L_1, L_2, L$ their marginal likelihoods, $\Gamma$ the
# gamma function, $\alpha = 1$ a concentration. A split with $H>1$ is made, one with $H<1$ with chance $H$ (the
# released code: with chance 0.1); the merge of the two nearest clusters has $1/H$. The prior's scatter $\psi I$ says
# how large a cluster is expected to be: a larger $\psi$ wants fewer and larger ones. The means then serve as
# *prototypes*: features are trained to find their own among all, $-\log \mathrm{softmax}_c(\langle z,
# c\rangle/\phi_c)$, where $\phi_c$ is the mean distance of a cluster's rows from their mean, small for a tight
# cluster, and the mixture is made anew.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram of the alternation. Features, reduced by principal components, go to semi-supervised k-means, then to split and merge, which leads back to k-means; the means become prototypes, whose loss together with GCD's contrasts trains the head that makes the features."}, "figure": {"caption": "GPC. The left loop finds the number of clusters, the right one teaches the features.", "name": "fig-gpc-diagram"}}
parts = {
    "features z": (0, 0, "trained"), "PCA": (1, 0), "k-means with\nlabels": (2.2, 0), "split,\nmerge": (3.6, 0), "prototypes": (3.6, 1.2, "store"),
    "prototype\nloss": (2.2, 1.2, "loss"), "GCD's\ncontrasts": (0, 1.2, "loss"),
}
arrows = [("features z", "PCA"), ("PCA", "k-means with\nlabels"), ("k-means with\nlabels", "split,\nmerge"), ("split,\nmerge", "k-means with\nlabels"), ("split,\nmerge", "prototypes"),
          ("prototypes", "prototype\nloss"), ("prototype\nloss", "features z"), ("GCD's\ncontrasts", "features z")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(C.niw_marginal, C.log_split_ratio)

# %%
lab.show(C.split_and_merge, start="for _ in range(rounds)", end="counts.append")

# %% [markdown]
# Is it the marginal likelihood? It must also be the product of the chances of each row given the rows before it, which
# are Student's t.

# %%
from scipy.stats import multivariate_t

x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
psi, kappa, nu, chain = 0.3, 0.2, 5.0, 0.0
for i in range(len(x)):
    seen, k, v = x[:i], kappa + i, nu + i - 2
    at = seen.sum(0) / k
    inner = seen.mean(0) if i else x.new_zeros(3)
    scatter = psi * torch.eye(3).double() + (seen - inner).T @ (seen - inner) + kappa * i / k * torch.outer(inner, inner)
    chain += float(multivariate_t.logpdf(x[i], at, scatter * (k + 1) / (k * v), df=v))
run.exact("gpc-gcd", "The marginal likelihood is the product of the rows' predictive Student t densities (difference in nats)",
          abs(chain - C.niw_marginal(x, x.new_zeros(3), psi, kappa, nu)), at_most=1e-8, data="random matrix")

# %% [markdown]
# On GCD's features of the digits, in 16 principal components. The mixture begins with too few, about right and too
# many clusters. Where one number is wanted below, *GPC* is the one that begins with twice as many as there are: on the
# seeds for tuning that was the better side.

# %%
MIXED, STARTS = dict(dims=16, psi=0.2, rounds=run.pick(quick=8, long=15, full=15)), run.pick(quick=(6, 20), long=(6, 10, 20), full=(6, 10, 20))
SWEPT = run.pick(quick=1, long=SPLITS, full=SPLITS)  # ablations and sweeps meet the seed's first problem alone in a minute
moved = lambda start=20, some=SPLITS, **options: [[C.moved(p, start, seed=s, **MIXED | options) for p in gcd(s)[:some]] for s in run.seeds]
ways = {start: moved(start) for start in STARTS}
first = [each[:SWEPT] for each in ways[20]]  # what ablations and sweeps are compared with

# %% mystnb={"image": {"alt": "Number of clusters against the round of split and merge, from two starts: too few rise a little, too many fall to about eleven."}, "figure": {"caption": "The number of clusters over rounds of split and merge. The truth is ten.", "name": "fig-gpc-rounds"}}
ROUNDS = list(range(MIXED["rounds"] + 1))
paths = {f"from {start}": [[sum(p["counts"][r] for p in each) / SPLITS for each in ways[start]] for r in ROUNDS] for start in STARTS}
_ = lab.plots.curve(run.curve("gpc-gcd", "number of clusters over rounds", ROUNDS, paths, "round", "clusters"), floor=CLASSES)

# %%
error = {start: [mean(each, "off") for each in ways[start]] for start in STARTS}
for start, began in ((6, 4.0), (20, 10.0)):
    run.claim("gpc-gcd", f"Split and merge from {start} clusters end nearer to the true number than they began", error[start], [began] * len(error[start]), margin=0.0, higher_is_better=False)
run.table("gpc-gcd")

# %% [markdown]
# Rivals that count: GCD's own estimate, which hides half of the old classes and asks which $k$ clusters those best,
# and, in the longer runs, the least BIC (misfit and a price for every parameter) of a Gaussian mixture without labels.
# And rivals that cluster: GCD's semi-supervised k-means with that estimate, and with the true number.

# %%
COUNTS = tuple(range(6, 21, 2))
estimate = [[C.gcd_classes(p, COUNTS, generator=run.generator(s)) for p in gcd(s)] for s in run.seeds]
far = lambda each: [sum(abs(k - CLASSES) for k in ks) / SPLITS for ks in each]
off = {"GPC": error[20], "GCD's estimate": far(estimate)}
if run.scale != "quick":
    off["BIC"] = far([[C.bic_classes(C.principal(p.x, 16), COUNTS, generator=run.generator(s)) for p in gcd(s)] for s in run.seeds])
given = {"GCD, its own k": [mean([p.judge(semi(p, k, s)) for p, k in zip(gcd(s), ks, strict=True)]) for s, ks in zip(run.seeds, estimate, strict=True)],
         "GCD, true k": results["GCD"], "GPC, no k": [mean(each) for each in ways[20]]}

# %% mystnb={"image": {"alt": "Left, bars of the error of the number of classes for GPC and GCD's estimate. Right, bars of All accuracy for GCD with its own estimate, GCD with the true number, and GPC without a number."}, "figure": {"caption": "Counting and clustering with no number given; GPC from 20 clusters. Dots are seeds.", "name": "fig-gpc"}}
figure, panels = lab.plots.axes(2, 8, 1.9)
lab.plots.bars(panels[0], off, "error of the number of classes")
lab.plots.bars(panels[1], given, "All accuracy")

# %%
run.claim("gpc-gcd", "GPC's number of classes is nearer to the truth than GCD's estimate", off["GPC"], off["GCD's estimate"], margin=0.0, higher_is_better=False)

# %%
if run.scale != "quick":
    run.claim("gpc-gcd", "GPC's number of classes is nearer to the truth than that of the least BIC", off["GPC"], off["BIC"], margin=0.0, higher_is_better=False)

# %%
run.claim("gpc-gcd", "With no number given GPC's clusters are better than GCD's with its own estimate", given["GPC, no k"], given["GCD, its own k"], margin=0.0)

# %%
run.claim("gpc-gcd", "Not knowing the number costs GPC less than ten points against semi-supervised k-means that knows it", given["GPC, no k"], given["GCD, true k"], margin=-0.1)

# %% [markdown]
# What do the parts do? From above, splits alone would stay there; from below, merges alone. Then fewer dimensions and
# another prior; in the longer runs, the released rule of acceptance too.

# %%
split_only = [mean(each, "off") for each in moved(some=SWEPT, moves=("split",))]
run.claim("gpc-gcd", "From 20 clusters the number of classes is further off without merges", split_only, [mean(each, "off") for each in first], margin=1.0)

# %%
if run.scale != "quick":
    run.claim("gpc-gcd", "The released rule, which makes a move with H below 1 with chance 0.1, clusters as well as the paper's, within five points",
              [mean(each) for each in moved(rule="constant")], given["GPC, no k"], margin=-0.05)

# %%
WIDE, SCATTER = run.pick(quick=(2, 16), long=(2, 4, 16, 48), full=(2, 4, 8, 16, 32, 48)), run.pick(quick=(0.002, 0.2, 0.5), long=(0.002, 0.02, 0.2, 0.5), full=(0.002, 0.02, 0.2, 0.5))
sweep = {d: first if d == MIXED["dims"] else moved(some=SWEPT, dims=d) for d in WIDE}
prior = {v: first if v == MIXED["psi"] else moved(some=SWEPT, psi=v) for v in SCATTER}

# %% mystnb={"image": {"alt": "All and New accuracy and the found number of classes over the true one against the number of principal components."}, "figure": {"caption": "How many dimensions the mixture works in: sixteen give better clusters than two, and a number near the true one.", "name": "fig-gpc-dims"}}
shown = {"All": [[mean(e) for e in sweep[d]] for d in WIDE], "New": [[mean(e, "New") for e in sweep[d]] for d in WIDE], "k̂ / k": [[mean(e, "k") / CLASSES for e in sweep[d]] for d in WIDE]}
_ = lab.plots.curve(run.curve("gpc-gcd", "accuracy and number of classes over principal components", WIDE, shown, "components", "accuracy, ratio", log=True))

# %% mystnb={"image": {"alt": "The found number of classes over the true one, and All accuracy, against the prior's scatter."}, "figure": {"caption": "The prior decides: its scatter against the number of classes found.", "name": "fig-gpc-psi"}}
shown = {"k̂ / k": [[mean(e, "k") / CLASSES for e in prior[v]] for v in SCATTER], "All": [[mean(e) for e in prior[v]] for v in SCATTER]}
_ = lab.plots.curve(run.curve("gpc-gcd", "number of classes over the prior's scatter", SCATTER, shown, "scatter ψ", "ratio, accuracy", log=True))

# %%
spread = [[max(mean(prior[v][i], "k") for v in SCATTER) - min(mean(prior[v][i], "k") for v in SCATTER) for i in range(len(run.seeds))], [0.0] * len(run.seeds)]
run.claim("gpc-gcd", "Over the prior's scatters the number of classes found moves by two or more", *spread, margin=2.0)

# %%
run.claim("gpc-gcd", "Sixteen components give better clusters than two", *([mean(e) for e in sweep[d]] for d in (16, 2)), margin=0.05)

# %% [markdown]
# Last, in the longer runs alone, the alternation: features trained with GCD's contrasts alone, and then a mixture; or
# with the prototypes of a mixture that moves, for as many steps. Both are then clustered with the true number, and
# without.

# %%
JOINT = dict(dims=16, psi=0.2, weight=0.5) | run.pick(quick=dict(steps=130, batch=64, warm=65, every=33, start=20), full=dict(steps=4000, warm=1000, every=200, start=20))
results["GPC"], joint = given["GPC, no k"], {}
for seed in run.seeds if run.scale != "quick" else ():
    heads, _ = C.train_gpc(problems(seed), generator=run.generator(seed), **JOINT)
    taught = [p.among(z) for p, z in zip(problems(seed), heads.features(torch.stack([p.x for p in problems(seed)])), strict=True)]
    joint[seed] = [p.judge(semi(p, CLASSES, seed)) for p in taught], [C.moved(p, 20, seed=seed, **MIXED) for p in taught]

# %%
if joint:
    run.claim("gpc-gcd", "Features taught by the mixture's prototypes cluster better, with no number given, than those taught without and clustered after",
              [mean(joint[s][1]) for s in run.seeds], given["GPC, no k"], margin=0.0)
    run.claim("gpc-gcd", "With the true number given, prototypes raise New accuracy above GCD's features",
              [mean(joint[s][0], "New") for s in run.seeds], [mean(m, "New") for m in rows["GCD"]], margin=0.0)

# %% [markdown]
# **The longest runs first.** From twice too many clusters split and merge now end less than one off on average, and
# from too few they end nearer too; the clusters are better than GCD's with its own number, and not knowing costs less
# than ten points; the number is nearer to the truth than GCD's estimate (all *measured*). Whether it is nearer than
# that of the least BIC three seeds leave open; on average it is. The released rule of acceptance is behind the paper's, and whether by more
# than five points is open. The prior decides as before (*measured*).
#
# The alternation does no good here: with the true number given New accuracy falls (*reversed*), and with no number
# features taught by the mixture's prototypes cluster worse than GCD's on average (a first run of the same seeds, on a
# processor that rounds otherwise, had it surely worse). *Our guess*: the first mixture has too many
# clusters, so that its prototypes pull halves of a class apart, and a head on frozen features has little time to mend
# that. The paper trains a block of a transformer for many epochs, with the mixture made anew after each.
#
# Now the runs of a minute.
#
# From twice too many clusters split and merge go nearly all the way, and merges do it; from too few they end nearer
# than they began, and stop early (*measured*). There a cluster of several new digits is cut by k-means where no two
# Gaussians lie, and the cut is refused (*our guess*). The number is nearer to the truth than GCD's estimate, and the
# clusters are better than GCD's with that estimate (*measured*). Not knowing the number costs less than ten points
# against semi-supervised k-means that knows it (*measured*). A surplus that remains is often a cluster of old digits:
# clusters of old classes take no part in moves, so it has none to merge with (*our guess*).
#
# That nobody has to know anything is not true. The prior's scatter $\psi$ moves the number by several classes, and two
# components are too few to work in (*measured*). We set $\psi$, the components and the better side to begin from on
# other seeds, with their labels; with half as many images again another $\psi$ was best.

# %% [markdown]
# (pim-gcd)=
# ## As much information as the classes are even: PIM
# PIM stands for parametric information maximisation. A linear classifier on frozen features, and one sentence about
# the unlabelled rows: its prediction should say much about each row, and use all classes. That is mutual information,
# $H(Y) - H(Y\mid X)$: classes used evenly, each row decided. But evenly is an assumption. PIM weighs the second part
# and takes labels into account,
#
# $$\min_W\; \lambda\, H(Y\mid X) - H(Y) + \mathrm{CE} ,$$
#
# $H(Y\mid X)$ is the mean entropy of the predictions of *unlabelled* rows, $H(Y)$ the entropy of the mean prediction
# over all, CE the cross entropy of labelled rows; predictions are softmax of $25\,W x$. With $\lambda = 1$ the two
# entropies weigh the same; a smaller $\lambda$ weighs evenness more. $\lambda$ is found from labels alone: for each
# value train *without* CE, and see how well the labelled rows come out as clusters.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Frozen rows go through a linear classifier to predictions. Three losses: minus the entropy of the mean of all predictions, lambda times the mean entropy of unlabelled predictions, and cross entropy of labelled ones. A search without the cross entropy, scored on labelled rows, chooses lambda."}, "figure": {"caption": "PIM. The outer loop, λ, sees labels only as a score.", "name": "fig-pim-diagram"}}
parts = {
    "frozen x": (0, 1, "copy"), "W": (1, 1, "trained"), "prediction": (2, 1), "− H(Y), all": (3.5, 0, "loss"), "λ H(Y|X),\nunlabelled": (3.5, 1, "loss"), "CE,\nlabelled": (3.5, 2, "loss"),
    "λ": (5, 1, "store"),
}
arrows = [("frozen x", "W"), ("W", "prediction"), ("prediction", "− H(Y), all"), ("prediction", "λ H(Y|X),\nunlabelled"), ("prediction", "CE,\nlabelled"), ("λ", "λ H(Y|X),\nunlabelled", "search")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(C.pim_terms, C.choose_lambda)

# %% [markdown]
# All arms start from the centroids of semi-supervised k-means on GCD's features, and train side by side: a grid of
# $\lambda$ (we go beyond the paper's 1), and PIM with a term taken out. Without $H(Y)$ it is self-training by entropy
# minimisation.

# %%
GRID = run.pick(quick=(0.1, 0.2, 0.4, 1.0, 2.5), long=(0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5), full=(0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5))
OFF = {"no H(Y)": (1.0, 0.0, 1.0), "no H(Y|X)": (0.0, 1.0, 1.0), "no CE": (1.0, 1.0, 0.0), "CE alone": (0.0, 0.0, 1.0)}
PIM_OPTIONS = run.pick(quick=dict(steps=80, lr=0.015), full=dict(steps=1000, lr=0.001))

told = {s: [C.pim_arms(p, GRID, OFF, seed=s, **PIM_OPTIONS) for p in gcd(s)] for s in run.seeds}
pick = lambda f, name="All": [sum(f(t)[name] for t in told[s]) / SPLITS for s in run.seeds]
results["PIM"] = pick(lambda t: t["chosen"])

# %% mystnb={"image": {"alt": "All, Old and New accuracy against lambda on a logarithmic axis, and the accuracy of labelled rows in the search."}, "figure": {"caption": "Accuracy over λ, and what the search sees: accuracy of labelled rows, trained without their labels.", "name": "fig-pim-lambda"}}
shown = {name: [pick(lambda t, v=v: t["by"][v], name) for v in GRID] for name in ("All", "Old", "New")}
shown["labelled rows, in the search"] = [[sum(t["labelled"][i] for t in told[s]) / SPLITS for s in run.seeds] for i in range(len(GRID))]
_ = lab.plots.curve(run.curve("pim-gcd", "accuracy over λ", GRID, shown, "λ", "accuracy", log=True))

# %% mystnb={"image": {"alt": "Bars of All accuracy for semi-supervised k-means, PIM, lambda 1, and PIM without each of its terms."}, "figure": {"caption": "PIM without each of its terms: cross entropy and the entropy of the mean count most. Dots are seeds.", "name": "fig-pim-terms"}}
terms = {"semi-supervised k-means": pick(lambda t: t["semi"]), "PIM, λ found": results["PIM"], "λ = 1": pick(lambda t: t["by"][1.0])} | {name: pick(lambda t, n=name: t["by"][n]) for name in OFF}
lab.plots.bars(lab.plots.axes(1, 6, 2.4)[1], terms, "All accuracy")

# %%
run.claim("pim-gcd", "PIM clusters all unlabelled digits better than semi-supervised k-means on the same features", results["PIM"], terms["semi-supervised k-means"], margin=0.0)

# %%
run.claim("pim-gcd", "PIM finds new digits better than semi-supervised k-means", pick(lambda t: t["chosen"], "New"), pick(lambda t: t["semi"], "New"), margin=0.0)

# %%
for name in ("no H(Y)", "no H(Y|X)", "no CE"):
    run.claim("pim-gcd", f"PIM is better than with {name}", results["PIM"], terms[name], margin=0.0)
run.table("pim-gcd")

# %%
best = [sum(max(t["by"][v]["All"] for v in GRID if 0.05 < v <= 1) for t in told[s]) / SPLITS for s in run.seeds]
run.claim("pim-gcd", "The λ found without new labels is within four points of the best of its grid", results["PIM"], best, margin=-0.04)

# %%
run.claim("pim-gcd", "On even classes the λ found is better than λ = 1, two points or more", results["PIM"], terms["λ = 1"], margin=0.02)

# %% [markdown]
# Now uneven classes: the largest has `ratio` times as many rows as the smallest. Evenness should hurt, and a larger
# $\lambda$ be better.

# %%
RATIOS = run.pick(quick=(1, 16), long=(1, 2, 4, 16), full=(1, 4, 16, 64))

uneven = lambda s, ratio: [C.pim_arms(C.tailed(p, ratio, seed=s), GRID, {}, seed=s, **PIM_OPTIONS) for p in gcd(s)]
tail = {ratio: [uneven(s, ratio) if ratio > 1 else told[s] for s in run.seeds] for ratio in RATIOS}
over = lambda f: [[sum(f(t) for t in each) / SPLITS for each in tail[ratio]] for ratio in RATIOS]
oracle = over(lambda t: max((t["by"][v]["All"], v) for v in GRID)[1])

# %% mystnb={"image": {"alt": "All accuracy against the ratio of the largest to the smallest class, for lambda 0.1, 1 and 2.5, the lambda found, and semi-supervised k-means."}, "figure": {"caption": "Uneven classes: a small λ loses, the larger one gains.", "name": "fig-pim-tail"}}
shown = {f"λ = {v:g}": over(lambda t, v=v: t["by"][v]["All"]) for v in (0.1, 1.0, 2.5)} | {"λ found": over(lambda t: t["chosen"]["All"]), "semi-supervised k-means": over(lambda t: t["semi"]["All"])}
_ = lab.plots.curve(run.curve("pim-gcd", "accuracy over the unevenness of classes", RATIOS, shown, "largest over smallest class", "All accuracy", log=True))

# %% mystnb={"image": {"alt": "The best lambda and the found lambda against the ratio of the largest to the smallest class."}, "figure": {"caption": "The λ that is best in hindsight is larger where classes are uneven; labelled rows choose a smaller one.", "name": "fig-pim-oracle"}}
_ = lab.plots.curve(run.curve("pim-gcd", "λ over the unevenness of classes", RATIOS, {"best": oracle, "found": over(lambda t: t["lam"])}, "largest over smallest class", "λ", log=True))

# %%
run.claim("pim-gcd", "The best λ is larger where classes are uneven", oracle[-1], oracle[0], margin=0.2)

# %%
if run.scale != "quick":
    run.claim("pim-gcd", "The λ that labelled rows choose is larger where classes are uneven", *([sum(t["lam"] for t in each) / SPLITS for each in tail[r]] for r in (RATIOS[-1], RATIOS[0])), margin=0.05)

# %%
run.claim("pim-gcd", "On uneven classes λ = 1 is better than λ = 0.1", shown["λ = 1"][-1], shown["λ = 0.1"][-1], margin=0.02)

# %%
if run.scale != "quick":
    wrong = {s: [C.pim_arms(p, (0.1, 0.4, 1.0), {}, k=int(1.3 * CLASSES), seed=s, **PIM_OPTIONS) for p in gcd(s)] for s in run.seeds}
    run.claim("pim-gcd", "With a number of classes that is three tenths too large PIM is still better than semi-supervised k-means",
              [mean([t["chosen"] for t in wrong[s]]) for s in run.seeds], [mean([t["semi"] for t in wrong[s]]) for s in run.seeds], margin=0.0)

# %% [markdown]
# And a table instead of pictures: 8×8 digits, no net at all, rows of length 1; the mean over two draws.

# %%
tables = {s: [C.pim_arms(C.pixel_problem(1000 * d + s, run.tuning, share=0.5).unit, (0.1, 0.4, 1.0), {}, seed=s, **PIM_OPTIONS) for d in range(2)] for s in run.seeds}
run.claim("pim-gcd", "On a table of pixels PIM clusters all rows better than semi-supervised k-means",
          *([mean([t[name] for t in tables[s]]) for s in run.seeds] for name in ("chosen", "semi")), margin=0.0, data="8×8 digits")

# %% [markdown]
# **The longest runs first.** PIM passes the k-means that it starts with as in a minute, in all rows, in new ones and
# on the table, and the cross entropy adds its share. Labelled rows now do what the paper asks of them: where classes
# are uneven they choose a larger λ, as the best one is larger (all *measured*). What the two entropies add, the λ
# found against λ = 1 and against the best of its grid, and λ = 1 against 0.1 on uneven classes are on average as a
# minute has them, and three seeds leave them open. With a number of classes three tenths too large PIM is about level
# with k-means: its $H(Y)$ then fills clusters that should stay empty (*our guess*).
#
# Now the runs of a minute.
#
# From the very k-means that it starts with, PIM improves the clusters of all rows and of the new digits, and those of
# a table of pixels too. $H(Y)$ makes much of the difference: without it, which is self-training, the clusters are
# worse, and without the cross entropy as well (all *measured*). What $H(Y\mid X)$ adds is small here, and four seeds
# of five show it, which does not settle it. Cross entropy alone has no reason to fill the new classes (*our guess*).
#
# λ is another matter. On even classes accuracy hardly depends on it: the λ found is within four points of the best of
# its grid (*measured*), and not better by two points than λ = 1 (*smaller*). *Our guess*: on easy data the labelled
# rows hardly tell one λ from another. On uneven classes a small λ loses much (*our guess*: rows stay undecided, so that
# the mean is even); the λ that
# is best in hindsight is larger there, beyond the paper's 1 (*measured*). Whether labelled rows see that is asked in
# the longer runs; the search stops at 1, as the paper's does.

# %% [markdown]
# (pa-cgcd)=
# ## Proxies that tell old from new: PA-CGCD
# The data that come later have no label at all: old classes come again, new ones among them, nobody says how many or
# how large their share. And the labelled rows are gone. PA-CGCD (Proxy Anchor for continuous generalised category
# discovery) keeps a *proxy* for each old class, a learnt point of length 1, and the proxies do three things. They
# train the embedding,
#
# $$\mathcal L_{PA} = \frac{1}{|C^+|}\sum_{c\in C^+} \log\Bigl(1 + \sum_{i \in c} e^{-\alpha(s_{ic} - \delta)}\Bigr) + \frac{1}{|C|}\sum_{c \in C}\log\Bigl(1 + \sum_{i\notin c} e^{\alpha(s_{ic}+\delta)}\Bigr) ,$$
#
# they say what is new (a row whose largest $s_{ic}$ is below a threshold), and they *replay* old classes: features
# drawn around them train on beside the new ones. $s_{ic}$ is the cosine of row $i$ and proxy $c$, $C$ the classes,
# $C^+$ those present in the batch, $\alpha=32$ how much the hardest rows count, $\delta=0.1$ the margin.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Unlabelled rows go through the embedding; the cosine with the nearest proxy splits them, a small net refines the split. Old rows get their nearest proxy's label, new rows are clustered by affinity propagation, whose exemplars become new proxies. Joint training uses Proxy Anchor with replayed old features and distillation from the frozen old embedding."}, "figure": {"caption": "PA-CGCD's second session. The old embedding is kept only to be distilled.", "name": "fig-pa-cgcd-diagram"}}
parts = {
    "unlabelled": (0, 1), "embedding": (1, 1, "trained"), "split by\nproxies": (2.1, 1), "nearest\nproxy": (3.3, 0, "store"), "affinity\npropagation": (3.3, 2), "new\nproxies": (4.5, 2, "store"),
    "Proxy\nAnchor": (4.6, 1, "loss"), "replay around\nold proxies": (4.6, 0, "store"), "old embedding": (1, 2.2, "copy"), "distil": (2.1, 2.2, "loss"),
}
arrows = [("unlabelled", "embedding"), ("embedding", "split by\nproxies"), ("split by\nproxies", "nearest\nproxy", "old"), ("split by\nproxies", "affinity\npropagation", "new"),
          ("affinity\npropagation", "new\nproxies"), ("nearest\nproxy", "Proxy\nAnchor"), ("new\nproxies", "Proxy\nAnchor"), ("replay around\nold proxies", "Proxy\nAnchor"), ("old embedding", "distil", "", "stop")]
_ = lab.plots.diagram(parts, arrows, height=3.0)

# %%
lab.show(C.proxy_anchor)

# %%
lab.show(C.refine_split)

# %%
lab.show(C.discover, start="def step()", end="return loss")

# %% [markdown]
# Six old classes, four new. First the split, judged by the mean of the shares of old and of new rows that are put
# right (chance 0.5): by the proxies' cosine, and by a refined split. For that a small net learns the first split's
# labels, without the rows near the border. A mixture of two Gaussians on its loss for "old" then labels all rows anew:
# low is old. It learns again from the rows of which the mixture is sure at either end. The released threshold is a
# cosine of 0. Our proxies are few and the
# embedding is narrow, so cosines are larger (*our guess*): we take 0.35, chosen on other seeds, and measure 0 too. In
# the second session a
# further term *distils*: it holds the embedding of rows that look old where the kept old embedding had it, ten times
# the
# weight of Proxy Anchor's loss. Proxy Anchor's
# own rival, in the longer runs, are proxies trained by softmax.

# %%
PA, JOINTLY, NEAR = run.pick(quick=dict(steps=160), full=dict(steps=3000)), run.pick(quick=60, full=1000), 0.35  # the cosine from which on a row is taken for old
HARD = -20.0  # of affinity propagation: how unready a row is to be an exemplar, times the median similarity
SIX = 2  # problems a seed
proxied = {s: [(p, C.train_proxies(p, generator=run.generator(1000 * at + s), **PA)) for at, p in enumerate(problems(s, old=6)[:SIX])] for s in run.seeds}
olds = {s: [C.split_arms(p, net, seed=s, near=NEAR) for p, net in proxied[s]] for s in run.seeds}
right = lambda s, way: sum(p.split_accuracy(old[way]) for (p, _), old in zip(proxied[s], olds[s], strict=True)) / SIX
WAYS_SPLIT = [(how, at) for at in (NEAR, 0.0) for how in ("cosine", "refined")]
splits = {way: [right(s, way) for s in run.seeds] for way in WAYS_SPLIT}

# %% mystnb={"image": {"alt": "Left, histograms of the largest cosine with a proxy for old and for new unlabelled digits. Right, bars of the split's accuracy for the cosine and the refined net at thresholds of 0.35 and 0."}, "figure": {"caption": "Old and new rows by their largest cosine with a proxy, one problem; and how well four splits tell them apart.", "name": "fig-pa-split"}}
figure, panels = lab.plots.axes(2, 8, 2.4)
p, net = proxied[run.seeds[0]][0]
with torch.no_grad():
    nearest = net.similar(p.x).amax(1).cpu()
for name, at in (("old", (p.y < p.old) & ~p.labelled), ("new", p.y >= p.old)):
    panels[0].hist(nearest[at.cpu()].numpy(), bins=40, alpha=0.6, label=name)
panels[0].set(xlabel="largest cosine with a proxy", ylabel="rows")
panels[0].legend()
lab.plots.bars(panels[1], {f"{how} from {at:g}": v for (how, at), v in splits.items()}, "split accuracy", chance=0.5)

# %%
run.claim("pa-cgcd", "From the released threshold the refined split tells old from new better than the cosine", splits["refined", 0.0], splits["cosine", 0.0], margin=0.0)

# %%
if run.scale != "quick":
    run.claim("pa-cgcd", "From a threshold of 0.35 the refined split tells old from new better than the cosine, two points or more", splits["refined", NEAR], splits["cosine", NEAR], margin=0.02)

# %% [markdown]
# A threshold may suit one training and not the other. So the longer runs also rank the rows by their largest cosine,
# and take the area under the ROC curve: how often an old row stands above a new one (chance 0.5).

# %%
if run.scale != "quick":
    softs = {s: [C.train_proxies(p, generator=run.generator(1000 * at + s), loss=C.softmax_proxies, **PA) for at, (p, _) in enumerate(proxied[s])] for s in run.seeds}
    areas = {s: [(C.split_area(p, net), C.split_area(p, soft)) for (p, net), soft in zip(proxied[s], softs[s], strict=True)] for s in run.seeds}
    run.claim("pa-cgcd", "With no threshold, by rank, Proxy Anchor's cosine tells old from new better than that of proxies trained by softmax (area under the ROC curve)",
              *([sum(each[at] for each in areas[s]) / SIX for s in run.seeds] for at in (0, 1)), margin=0.0)

# %% [markdown]
# Then discovery. The rivals: semi-supervised k-means on the frozen features, which still has the labelled rows and the
# true number; the embedding with k-means and the true number of new classes; and, in the longer runs, PA-CGCD with a
# part taken out. *Forgetting* is how much accuracy on old rows falls below that of the first session's nearest proxy.

# %%
PARTS = {"no replay": dict(replay=False), "no distillation": dict(distil=0.0), "split from 0": dict(split=("refined", 0.0))}  # taken out in the longer runs
ARMS = {"PA-CGCD": {}, "k-means, true number": dict(clusters=4)} | run.pick(quick={}, long=PARTS, full=PARTS)
session = lambda s, split=("refined", NEAR), **options: [
    C.proxy_session(p, net, old[split], seed=s, steps=JOINTLY, preference=HARD, **options) for (p, net), old in zip(proxied[s], olds[s], strict=True)
]
pa = {name: [session(s, **options) for s in run.seeds] for name, options in ARMS.items()}
pa_mean = lambda name, what="All": [mean(each, what) for each in pa[name]]
results["PA-CGCD, 6 old"] = pa_mean("PA-CGCD")
frozen_six = [[p.judge(semi(unit(p), CLASSES, s)) for p, _ in proxied[s]] for s in run.seeds]

# %% mystnb={"image": {"alt": "Bars of Old and of New accuracy for PA-CGCD, for k-means with the true number of new classes in its place, and for semi-supervised k-means on frozen features."}, "figure": {"caption": "After the second session: old and new rows. Dots are seeds.", "name": "fig-pa-cgcd"}}
figure, panels = lab.plots.axes(2, 8, 2.2)
for panel, what in zip(panels, ("Old", "New"), strict=True):
    lab.plots.bars(panel, {name: pa_mean(name, what) for name in ARMS} | {"frozen, labels kept": [mean(f, what) for f in frozen_six]}, f"{what} accuracy")
_ = panels[1].set_yticklabels([])

# %%
run.claim("pa-cgcd", "PA-CGCD clusters all rows better than semi-supervised k-means on the frozen features, which keeps the labels and knows the number",
          pa_mean("PA-CGCD"), [mean(f) for f in frozen_six], margin=0.0)

# %%
if run.scale != "quick":
    run.claim("pa-cgcd", "With no replay more of the old classes is forgotten", pa_mean("no replay", "forgot"), pa_mean("PA-CGCD", "forgot"), margin=0.0)
    run.claim("pa-cgcd", "With no distillation more of the old classes is forgotten, three points or more", pa_mean("no distillation", "forgot"), pa_mean("PA-CGCD", "forgot"), margin=0.03)
    run.claim("pa-cgcd", "Discovery on the split from 0.35 clusters all rows better than on the one from the released threshold", pa_mean("PA-CGCD"), pa_mean("split from 0"), margin=0.0)

# %%
run.claim("pa-cgcd", "Not knowing the number costs PA-CGCD less than five points against k-means with the true number", pa_mean("PA-CGCD"), pa_mean("k-means, true number"), margin=-0.05)

# %% [markdown]
# How many new classes does affinity propagation find? Affinity propagation passes messages between rows until some of
# them are *exemplars* and each row has chosen one; nobody says how many. It depends on how ready a row is to be an
# exemplar, its *preference*: scikit-learn's default, which the released code takes, is the median similarity; we
# multiply it. What if fewer of the pool are new? The longer runs ask that.

# %%
READY = run.pick(quick=(-1.0, -20.0), long=(-1.0, -5.0, -20.0, -80.0), full=(-1.0, -5.0, -20.0, -80.0))
count = lambda s, r: C.count_new(*proxied[s][0], olds[s][0]["refined", NEAR], r)  # of the seed's first problem
counted = {r: [count(s, r) for s in run.seeds] for r in READY}

# %% mystnb={"image": {"alt": "The number of new classes found over the true four, against the preference: many times too many at the median, about the true number at twenty times it."}, "figure": {"caption": "Affinity propagation's preference, in medians, against the number of new classes it finds over the true four.", "name": "fig-pa-preference"}}
shown = {"k̂ / k": [[k / 4 for k in counted[r]] for r in READY]}
_ = lab.plots.curve(run.curve("pa-cgcd", "number of new classes over the preference", [-r for r in READY], shown, "preference in medians", "found over true", log=True), floor=1)

# %%
run.claim("pa-cgcd", "With the default preference affinity propagation finds more than twice as many new classes as there are", counted[-1.0], [8.0] * len(run.seeds), margin=0.0)

# %%
FEW, share = (0.1, 0.3, 0.6, 1.0), {"cosine": [], "refined": []}
for part in FEW if run.scale != "quick" else ():
    kept = lambda p, s, part=part: p.part((p.y < p.old) | (torch.rand(len(p.y), generator=run.generator(s), device=p.x.device) < part))
    fewer = {s: [(q, C.split_arms(q, net, seed=s, near=NEAR)) for q, net in ((kept(p, s), net) for p, net in proxied[s])] for s in run.seeds}
    for how, found in share.items():
        found.append([sum(q.split_accuracy(old[how, NEAR]) for q, old in fewer[s]) / SIX for s in run.seeds])
if run.scale != "quick":
    run.curve("pa-cgcd", "split accuracy over the share of new rows kept", FEW, share, "share of the new rows kept", "split accuracy")
    run.claim("pa-cgcd", "The refined split loses less than eight points where a tenth of the new rows is left", share["refined"][0], share["refined"][-1], margin=-0.08)

# %% mystnb={"image": {"alt": "Two scatter plots of the unlabelled digits in two principal components of the embedding, coloured by class, new classes in strong colours: mixed among the old before, and only partly apart from them after."}, "figure": {"caption": "The embedding before and after the second session, two principal components. Old classes grey, new ones coloured.", "name": "fig-pa-map"}}
figure, panels = lab.plots.axes(2, 7, 3.0)
p, net = proxied[run.seeds[0]][0]
after, _ = C.discover(p, net, olds[run.seeds[0]][0]["refined", NEAR], generator=run.generator(0), preference=HARD, steps=JOINTLY)
for panel, model, title in zip(panels, (net, after), ("before", "after"), strict=True):
    with torch.no_grad():
        low = C.principal(F.normalize(model(p.x), dim=1), 2).cpu()
    for c in range(p.classes):
        at = ((p.y == c) & ~p.labelled).cpu()
        colour = lab.plots.GREY if c < p.old else lab.plots.COLOURS[c - p.old]
        panel.scatter(*low[at].T, s=4, alpha=0.5, color=colour)
    panel.set(title=title, xlabel="first component", ylabel="second component")

# %% [markdown]
# **The longest runs first.** With proxies trained for longer the refined split mends the released threshold, more is
# forgotten without replay, and the plain rival, which keeps the labels and knows the number, is ahead (all
# *measured*). The default preference finds far too many new classes (*measured*). From 0.35 refining adds nothing on
# average. Discovery on the split from 0.35 is ahead of that on the split from 0, and not knowing the number costs
# nothing on average, but three seeds settle neither: a first run of the same seeds, on a processor that rounds
# otherwise, had both surely so. Affinity propagation makes a whole class of a small change (*our guess*).
#
# Now the runs of a minute.
#
# The first half of the method is the harder one. At the released threshold most rows count as old; the refined split
# mends some of it with four seeds of five, and spoils it with one, so that the mean is open. Where it stands, the
# second half works without a number of classes, and with a preference that somebody chose: affinity propagation finds
# several times too many new classes at the
# default preference; at twenty times the median, chosen on other seeds, not knowing the number costs less than five
# points against k-means that knows it (both *measured*). It is ahead there, with every seed: a few clusters too many
# leave room for rows that the split put wrong (*our guess*).
#
# The plain rival is semi-supervised k-means on the frozen features, which may keep the labelled rows and knows the
# number. It is ahead on average, with three seeds of five, and the mean is open. It is no fair fight, and tells the
# price of the setting: no labels left, no number, no share.

# %% [markdown]
# (metagcd)=
# ## Rehearse the discovery: MetaGCD
# Classes arrive in sessions, without labels, among what was there before. Each session trains the features a little,
# and may spoil them. MetaGCD asks for a start from which that training goes well, and finds it by rehearsal: hide some
# of the *labelled* base classes as pseudo-new, adapt without labels, as a session would, and look with labels at how
# it went,
#
# $$\min_\theta\; \mathcal L_{\text{labels}}\bigl(\theta - \beta \nabla \mathcal L_{\text{session}}(\theta)\bigr) .$$
#
# $\theta$ are the head's weights, $\beta$ the inner rate; the inner step is repeated a few times. $\mathcal
# L_{\text{labels}}$ is half InfoNCE, half SupCon with the labels of old and pseudo-new classes. $\mathcal
# L_{\text{session}}$ is half InfoNCE, half a contrast with *soft neighbours*: samples nearer than a cosine of 0.85,
# weighted by how near.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Base classes are dealt into old and pseudo-new. From the weights theta, inner steps without labels lead to theta prime. The loss with labels at theta prime gives the gradient that moves theta."}, "figure": {"caption": "One rehearsal. At test time the inner loop alone remains.", "name": "fig-metagcd-diagram"}}
parts = {
    "base classes": (0, 0.8), "pseudo-session,\nno labels": (1.5, 0), "with labels": (1.5, 1.6), "θ": (2.8, 0.8, "trained"), "θ′": (3.9, 0, "copy"), "outer loss": (3.9, 1.6, "loss"),
}
arrows = [("base classes", "pseudo-session,\nno labels"), ("base classes", "with labels"), ("θ", "θ′", "inner steps"), ("pseudo-session,\nno labels", "θ′"), ("with labels", "outer loss"), ("θ′", "outer loss"), ("outer loss", "θ", "gradient")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(C.soft_neighbours)

# %%
lab.show(C.meta_train, start="for _ in range(allowed(tasks))", end="adam.step()")

# %% [markdown]
# Four base classes, then three sessions of two new ones, in several class orders a seed. The rivals go through the
# same sessions: *fine-tuned*, the same start trained as long with labels and no rehearsal; *replay*, which keeps the
# labelled rows; *no sessions*, MetaGCD's own start, left as it is. After each session k-means with the true number of
# classes, one matching; *Old* are the base classes, *New* all that came after them. *Forgetting* is how much the
# accuracy on the base classes falls from the base training to the last session. Arms of the longer runs with other
# neighbours or thresholds change the sessions only: they go on from the same rehearsed start.

# %%
UPTO, ORDERS, TASKS = (4, 6, 8, 10), run.pick(quick=8, long=6, full=6), run.pick(quick=32, full=500)
META = dict(batch=48, rate=1.0)


def start_of(seed, kind="meta", **options):
    """Heads after base training, and then rehearsal or as many more steps of the outer loss; and the sessions."""

    def make():
        x, views, y = frozen(seed)
        g = run.generator(seed)
        orders = torch.stack([torch.randperm(CLASSES, generator=g, device=g.device) for _ in range(ORDERS)])
        c = C.continual(x, views, y, orders, UPTO, generator=g)
        heads = C.Heads(x.shape[1], ORDERS, generator=g)
        base = run.once(("base", seed), lambda: C.meta_train(heads, c, generator=g, tasks=run.pick(quick=60, full=2000), inner=0, lr=3e-3))
        inner = {"meta": 3, "no meta": 0}[kind]
        return C.meta_train(copy.deepcopy(base), c, generator=g, tasks=TASKS, inner=inner, lr=3e-3, **META, **options), c

    return run.once(("start", seed, kind, *sorted(options.items())), make)


def sessions(seed, kind="meta", trained=None, steps=15, **options):
    """All, Old and New after each session, the mean over class orders."""
    heads, c = start_of(seed, kind, **(trained or {}))
    found = C.run_sessions(heads, c, generator=run.generator(seed), steps=steps, **META, **options)
    return [{name: sum(v) / len(v) for name, v in each.items()} for each in found]


# %%
OTHERS = {"InfoNCE alone": dict(share=0.0, last=True), "hard neighbours": dict(soft=False, last=True)}
WAYS = {"MetaGCD": {}, "fine-tuned": dict(kind="no meta"), "replay": dict(kind="no meta", replay=True), "no sessions": dict(steps=0)} | run.pick(quick={}, long=OTHERS, full=OTHERS)
path = {name: [sessions(s, **options) for s in run.seeds] for name, options in WAYS.items()}
last = lambda name, what: [each[-1][what] for each in path[name]]
forgot = lambda name: [each[0]["Old"] - each[-1]["Old"] for each in path[name]]
results["MetaGCD, 4 old"] = last("MetaGCD", "All")

# %% mystnb={"image": {"alt": "All accuracy after each session for MetaGCD, fine-tuning, replay and the rehearsed start without sessions: all fall as classes arrive, the last most, replay least."}, "figure": {"caption": "All accuracy after each session. Classes arrive, and all fall.", "name": "fig-metagcd-all"}}
shown = {name: [[each[t]["All"] for each in path[name]] for t in range(len(UPTO))] for name in ("MetaGCD", "fine-tuned", "replay", "no sessions")}
_ = lab.plots.curve(run.curve("metagcd", "All accuracy after each session", list(UPTO), shown, "classes so far", "All accuracy"))

# %% mystnb={"image": {"alt": "Accuracy on the four base classes after each session for MetaGCD, fine-tuning, replay and the rehearsed start without sessions: replay keeps most."}, "figure": {"caption": "What is left of the base classes.", "name": "fig-metagcd-old"}}
shown = {name: [[each[t]["Old"] for each in path[name]] for t in range(len(UPTO))] for name in ("MetaGCD", "fine-tuned", "replay", "no sessions")}
_ = lab.plots.curve(run.curve("metagcd", "Old accuracy after each session", list(UPTO), shown, "classes so far", "Old accuracy"))

# %%
run.claim("metagcd", "After the last session MetaGCD is better on all classes than fine-tuning without rehearsal", last("MetaGCD", "All"), last("fine-tuned", "All"), margin=0.0)

# %%
run.claim("metagcd", "Sessions without labels teach: MetaGCD ends better on all classes than its rehearsed start left as it is", last("MetaGCD", "All"), last("no sessions", "All"), margin=0.0)

# %%
run.claim("metagcd", "MetaGCD forgets less of the base classes than fine-tuning without rehearsal", forgot("MetaGCD"), forgot("fine-tuned"), margin=0.0, higher_is_better=False)

# %%
run.claim("metagcd", "Replay of labelled rows, which MetaGCD does without, forgets less still", forgot("replay"), forgot("MetaGCD"), margin=0.02, higher_is_better=False)

# %%
if run.scale != "quick":
    run.claim("metagcd", "Soft neighbours find new classes better than InfoNCE alone", last("MetaGCD", "New"), last("InfoNCE alone", "New"), margin=0.0)
    run.claim("metagcd", "Soft neighbours find new classes better than hard ones", last("MetaGCD", "New"), last("hard neighbours", "New"), margin=0.0)

# %%
if run.scale != "quick":
    THRESHOLDS = (0.3, 0.5, 0.7, 0.85, 0.95)
    swept = {t: [each[-1] for each in path["MetaGCD"]] if t == 0.85 else [sessions(s, threshold=t, last=True)[-1] for s in run.seeds] for t in THRESHOLDS}
    shown = {what: [[each[what] for each in swept[t]] for t in THRESHOLDS] for what in ("All", "Old", "New")}
    run.curve("metagcd", "accuracy over the neighbours' threshold", THRESHOLDS, shown, "cosine threshold", "accuracy")
    at = {t: [each["All"] for each in swept[t]] for t in THRESHOLDS}
    run.claim("metagcd", "A high threshold (0.85) is better on all classes than a low one (0.5)", at[0.85], at[0.5], margin=0.0)
    run.claim("metagcd", "A threshold that leaves few neighbours (0.95) is worse on all classes than 0.85", at[0.95], at[0.85], margin=0.0, higher_is_better=False)

# %%
if run.scale != "quick":
    unjudged = [sessions(s, trained=dict(info=1.0, taught=0.0), last=True)[-1] for s in run.seeds]
    run.claim("metagcd", "Without labels in the outer loss the base classes come out worse", [e["Old"] for e in unjudged], last("MetaGCD", "Old"), margin=0.05, higher_is_better=False)

# %% [markdown]
# **The longest runs first.** After the last session MetaGCD is now ahead of fine-tuning, and a threshold that leaves few
# neighbours does harm (both *measured*). Soft neighbours find new classes worse than two views alone, and worse than
# hard ones (*reversed*). That sessions teach is not so any more: trained four times as long, they move the features
# further from what the labels made of them, and lose more of the base classes (*our guess*). Replay forgets half as
# much, with every seed, by amounts too uneven for a verdict; thresholds of 0.5 and 0.85 are level, and without labels
# in the outer loss the base classes come out worse on average. Little of this is firm: a first run of the same seeds, on a processor that
# rounds otherwise and with three starts of k-means instead of ten, had replay surely ahead and the rest open.
#
# Now the runs of a minute.
#
# Sessions without labels do teach: from the same rehearsed start, MetaGCD ends better than if it had not trained in
# them (*measured*). They cost base classes, as the figure shows, and more is won on new ones than is lost. Whether
# rehearsal has a part in that is open: against fine-tuning, whose start had as many steps with labels, MetaGCD is
# ahead in accuracy with four seeds of five and forgets less with every one, but not by an even amount. *Our guess*:
# three inner steps on four digits rehearse little of what three sessions of fifteen steps do.
#
# Replay of the labelled rows, which the setting forbids, forgets far less (*measured*): it shows how much there is to
# keep. Classes arrive and all methods fall; with ten digits there is also more to mistake (*our guess*).

# %% [markdown]
# ## Where the chapter ends

# %% mystnb={"image": {"alt": "Bars of All accuracy: k-means on pixels, on an untrained encoder and on SimCLR, semi-supervised k-means, GCD, the chapter's methods, and the ceiling with all labels."}, "figure": {"caption": "All accuracy of the references and of the chapter's methods on digits. Those with another number of old classes say so; GPC is not told the number of classes.", "name": "fig-category-discovery-results"}}
lab.plots.bars(lab.plots.axes(1, 6.5, 3.0)[1], results, "All accuracy", chance=sum(FLOOR) / len(FLOOR))

# %%
run.summarise("All accuracy", results, floor="untrained, k-means", ceiling="all labels")

# %% [markdown]
# 0 of the way is k-means on an untrained encoder, 1 a classifier with all labels. The [part's
# page](../../book/parts/clustering.md) has these rows beside the other chapters'. Settings were chosen on other seeds
# and other digits than those that are reported; the statements and their margins were fixed before the reported seeds
# were run.
#
# What to keep: semi-supervised k-means on the features of a head that has learnt from the labels, then kept, is the
# rival to pass, and PIM passes it with the number
# of classes given, at both lengths (*measured*). Without the number, GPC's split and merge cost less than ten points
# at both lengths, with a prior that somebody has to choose and that moves the number by several classes (*measured*).
# On tables a plain net tuned by hidden classes passes a classifier alone at both lengths, and k-means, NCD spectral and
# TabularNCD in the longer runs (*measured*). In sessions, keeping the old classes' rows, where one may, forgets less
# than rehearsing without them in a minute (*measured*), and on average in longer runs.

# %% [markdown]
# ````{dropdown} Statements that were moved or reworded after a first look
# What stands was measured on seeds 5 to 9, in the longer runs 5 to 7, which took no part in any choice. A first run on
# seeds 0 to 4 had two problems a seed and 1,000 digits; now there are three and 1,500, and $\psi$ is 0.2 instead of
# 0.12. Its list of statements was changed after that look. No margin was.
#
# | paper | statement on seeds 0 to 4 | verdict there | now |
# |:--|:--|:--|:--|
# | PBN | With the best weight for each, rebuilding finds new classes better | supported | could hardly fail; now the mean over the weights |
# | MetaGCD | better than features that do not move | supported | now against its own start |
# | survey | SimCLR's features as well as a classifier's; UNO over DTC at a right angle | inconclusive | longer runs only |
# | PBN | over TabularNCD by five points | smaller | longer runs only |
# | PBN | length 1; spectral clustering with known rows; the silhouette in the latent | inconclusive | longer runs only |
# | GPC | nearer than BIC; the released rule (reworded); both on the alternation | inconclusive | longer runs only |
# | PIM | the λ chosen rises; a number three tenths too large | inconclusive | longer runs only |
# | PA-CGCD | split from 0.35 better for discovery | supported | longer runs only |
# | PA-CGCD | distillation | smaller | longer runs only |
# | PA-CGCD | refined from 0.35; Proxy Anchor by rank; replay; a tenth of the new rows | inconclusive | longer runs only |
# | MetaGCD | threshold 0.85 over 0.5 | reversed | longer runs only |
# | MetaGCD | labels in the outer loss | supported | longer runs only |
# | MetaGCD | soft neighbours, two; threshold 0.95 | inconclusive | longer runs only |
# ````

# %% [markdown]
# ## What carries over
# Each statement with its verdict and mean difference at every length that was measured, under what its paper reports.
# A dash means: not measured at that length.

# %%
run.carry_over()

# %% [markdown]
# ## Exercises
# ````{exercise-start} Two matchings flatter
# :label: ex-discovery-matchings
# ````
# The first protocol of GCD matched clusters with classes for old rows and for new rows apart. Show that this is never
# below the one matching, and find a clustering for which it reports 100 % where the one matching reports half.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-discovery-matchings
# :class: dropdown
# ````
# Apart, each part may choose its own best matching, so it is at least as right as under any common one. Put one old
# class and one new class into each cluster: apart, each cluster is given to both.

# %%
# NBVAL_CHECK_OUTPUT
y = torch.arange(4).repeat(10)  # 0 and 1 are old
clusters = y % 2
apart = [C.discovery_accuracy(clusters[part], y[part], 2)["All"] for part in (y < 2, y >= 2)]
print("apart:", apart, "| one matching:", C.discovery_accuracy(clusters, y, 2)["All"])

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} What does λ decide?
# :label: ex-discovery-lambda
# ````
# PIM minimises $\lambda H(Y\mid X) - H(Y)$ without labels over hard partitions of 100 rows into two clusters of $m$
# and $100 - m$. Which $m$ is best, and does $\lambda$ matter? Then let predictions be soft, $p$ and $1-p$ for all rows
# of one cluster and the other way round in the other: when is being decided worth it?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-discovery-lambda
# :class: dropdown
# ````
# Hard predictions have $H(Y\mid X) = 0$, so $m = 50$ whatever λ: the prior of even classes comes from $-H(Y)$ alone.
# It is the price of being decided that λ sets: with uneven clusters a small λ lets predictions go soft, so that their
# mean is even.

# %%
# NBVAL_CHECK_OUTPUT
p = torch.linspace(0.5, 0.999, 200)
for lam in (0.1, 1.0):
    mean_p = 0.8 * p + 0.2 * (1 - p)  # four fifths of the rows in the first cluster
    loss = lam * (torch.special.entr(p) + torch.special.entr(1 - p)) - torch.special.entr(mean_p) - torch.special.entr(1 - mean_p)
    print(f"λ = {lam}: best p is {'near a half, undecided' if float(p[loss.argmin()]) < 0.6 else 'near 1, decided'}")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Does the class count come from the prior?
# :label: ex-discovery-prior
# ````
# A small research question. Split and merge counts classes with a scatter $\psi$ that somebody chose. Could the
# labelled classes choose it? Take the scatter inside the old clusters as $\psi$, and compare.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-discovery-prior
# :class: dropdown
# ````
# The old classes say how wide a class is, if new ones are alike. A scatter is a variance times a number of rows. The
# mean variance inside old clusters is in the right units if the prior is worth one row. Here it is far smaller than
# ours and leaves more clusters, further off: the mixture's features have many directions in which a class is narrow
# (*our guess*).

# %%
p = gcd(run.seeds[0])[0]
low = C.principal(p.x, 16)
inside = sum(low[p.labelled & (p.y == c)].var(0).mean() for c in range(p.old)) / p.old
for psi in (0.2, float(inside)):
    print(f"ψ = {psi:.4f}: {len(C.split_and_merge(low, p.known, 20, generator=run.generator(0), psi=psi)[1])} clusters")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For
# instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} PIM's objective from its equation
# :label: ex-pim-loss
# ````
# Write $\lambda H(Y\mid X) - H(Y) + \mathrm{CE}$ of logits $(n, k)$, in nats: $H(Y\mid X)$ is the mean entropy of the
# predictions of unlabelled rows, $H(Y)$ the entropy of the mean prediction of *all* rows, CE the mean cross entropy of
# labelled rows. A known class of $-1$ means: no label. Both kinds of rows are there.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-pim-loss
# :class: dropdown
# ````
# The two entropies differ in what is averaged first: predictions for $H(Y)$, entropies for $H(Y\mid X)$.

# %% tags=["task:pim-loss"]
import torch
import torch.nn.functional as F


def pim_loss(logits, known, lam):
    """The loss, a scalar, of logits (n, k); known (n,) holds a class or -1; lam >= 0."""
    ### BEGIN SOLUTION
    p, free = logits.softmax(1), known < 0
    conditional = torch.special.entr(p[free]).sum(1).mean()
    marginal = torch.special.entr(p.mean(0)).sum()
    return lam * conditional - marginal + F.cross_entropy(logits[~free], known[~free])
    ### END SOLUTION


# %% tags=["task-tests:pim-loss:3", "remove-cell"]
known = torch.tensor([0, 1, -1, -1])
flat = float(pim_loss(torch.zeros(4, 2), known, 1.0))
assert abs(flat - 0.6931) < 1e-3, "undecided: both entropies are log 2, and so is the cross entropy"
sure = 50 * torch.eye(2).repeat(2, 1)
assert abs(float(pim_loss(sure, known, 1.0)) + 0.6931) < 1e-3, "decided and even: minus log 2"
### BEGIN HIDDEN TESTS
import math

logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
known = torch.tensor([0, 1, -1, -1, 2, -1, -1, -1, 0])
p = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in logits.tolist()]
for lam in (0.0, 0.3, 2.0):
    free = [row for row, y in zip(p, known.tolist()) if y < 0]
    want = lam * sum(-sum(v * math.log(v) for v in row) for row in free) / len(free)
    mean = [sum(row[c] for row in p) / 9 for c in range(4)]
    want += sum(v * math.log(v) for v in mean)
    want += sum(-math.log(row[y]) for row, y in zip(p, known.tolist()) if y >= 0) / 4
    assert abs(float(pim_loss(logits, known, lam)) - want) < 1e-3
### END HIDDEN TESTS

# %% tags=["task-tests:pim-loss:1", "remove-cell"]
logits, known = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, -1, 2, -1, -1, 1])
assert abs(float(pim_loss(logits + 5, known, 0.5) - pim_loss(logits, known, 0.5))) < 1e-3, "a shift of all logits"
### BEGIN HIDDEN TESTS
order = torch.tensor([5, 3, 1, 0, 2, 4])
assert abs(float(pim_loss(logits[order], known[order], 0.5) - pim_loss(logits, known, 0.5))) < 1e-3, "the order of rows"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
logits, known = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, -1, 2, -1, -1, 1])
print("as the package has it:", torch.allclose(pim_loss(logits, known, 0.4), C.pim_loss(logits, known, 0.4), rtol=1e-4))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} All, Old and New by one matching
# :label: ex-discovery-accuracy
# ````
# Write the chapter's measure: match clusters with classes one to one so that as many rows as possible are right, over
# all rows; return the shares of right rows among all, among those of old classes ($y$ below `old`) and among the rest.
# There may be more clusters than classes.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-discovery-accuracy
# :class: dropdown
# ````
# One table of counts, one call of the Hungarian algorithm, then read off both parts under the same matching.

# %% tags=["task:discovery-accuracy"]
import torch
from scipy.optimize import linear_sum_assignment


def discovery_accuracy(clusters, y, old):
    """Three numbers, All, Old, New, from clusters (n,) and classes y (n,), integers from 0."""
    ### BEGIN SOLUTION
    counts = torch.zeros(int(clusters.max()) + 1, int(y.max()) + 1)
    for c, t in zip(clusters.tolist(), y.tolist()):
        counts[c, t] += 1
    pairs = dict(zip(*linear_sum_assignment(counts.numpy(), maximize=True)))
    right = torch.tensor([float(pairs.get(c, -1) == t) for c, t in zip(clusters.tolist(), y.tolist())])
    return float(right.mean()), float(right[y < old].mean()), float(right[y >= old].mean())
    ### END SOLUTION


# %% tags=["task-tests:discovery-accuracy:3", "remove-cell"]
y = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
assert max(abs(float(a) - 1) for a in discovery_accuracy(3 - y, y, 2)) < 1e-3, "names of clusters do not matter"
assert abs(float(discovery_accuracy(y % 2, y, 2)[0]) - 0.5) < 1e-3, "a cluster has one class"
### BEGIN HIDDEN TESTS
import itertools

g = torch.Generator().manual_seed(0)
y, clusters = torch.randint(4, (60,), generator=g), torch.randint(4, (60,), generator=g)
y[:4], clusters[:4] = torch.arange(4), torch.arange(4)
best = max(itertools.permutations(range(4)), key=lambda p: sum(p[c] == t for c, t in zip(clusters.tolist(), y.tolist())))
right = torch.tensor([float(best[c] == t) for c, t in zip(clusters.tolist(), y.tolist())])
found = [float(v) for v in discovery_accuracy(clusters, y, 2)]
assert abs(found[0] - float(right.mean())) < 1e-3
part = float((y < 2).float().mean())
assert abs(part * found[1] + (1 - part) * found[2] - found[0]) < 1e-3, "both parts make the whole"
### END HIDDEN TESTS

# %% tags=["task-tests:discovery-accuracy:1", "remove-cell"]
assert abs(float(discovery_accuracy(torch.arange(8), torch.arange(8) // 4, 1)[0]) - 0.25) < 1e-3, "surplus clusters are wrong"
### BEGIN HIDDEN TESTS
assert abs(float(discovery_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1]), 1)[0]) - 0.5) < 1e-3
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
g = torch.Generator().manual_seed(3)
y, clusters = torch.randint(5, (80,), generator=g), torch.randint(6, (80,), generator=g)
print("as the package has it:", abs(discovery_accuracy(clusters, y, 2)[2] - C.discovery_accuracy(clusters, y, 2)["New"]) < 1e-6)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [Contrastive learning](../self_supervision/contrastive.ipynb) has the encoder that all of this stands on. The
# chapters beside this one cluster with no label at all: what balance does to even and uneven classes, which PIM weighs
# by $\lambda$, is their subject too.

# %%
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
