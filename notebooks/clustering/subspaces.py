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
# # Subspaces and coding rates
#
# Real data fill a tiny part of their space: few directions at a time, different ones for different kinds. This chapter
# takes that seriously in three ways. *How many bits* does a set of features take, alone and in groups? *Which few
# atoms* make a signal? *Which low-dimensional map* keeps neighbours together?
#
# **You will be able to**
# - write the coding rate of a set and of its groups, and learn to cluster by their difference without knowing
#   the number of groups;
# - read the layers of a white-box transformer as steps of compression and sparsification;
# - say why a dictionary that rebuilds better may know less of the truth, and how hiding entries mends it;
# - lift a supervised factorisation to a convex loss over low ranks, and sandwich a manifold learner between two
#   clusterings.
#
# **You should know** singular values, k-means and the chapter [Contrastive
# learning](../self_supervision/contrastive.ipynb), whose encoder serves here frozen. **Run time:** about a minute on a
# laptop (*quick*, what is shown, five seeds); *long* trains four times as long, with three seeds, and its curves lie in
# the repository, in `book/results/long`; on a GPU the same cells take CIFAR-10 (*full*), which nobody has run yet.

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
from dataclasses import replace

import torch
import torch.nn.functional as F

import labcode as lab
from labcode.clustering import subspaces as S
from labcode.course.stage import Stage
from labcode.self_supervision import contrastive as C

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map in three rows. Coding rates: SimCLR's features lead to MLC, MLC to CPP; CRATE-MAE stands beside them. Dictionaries: masked sparse coding and supervised dictionaries. Maps: Barlow Twins leads to TLDR; functorial manifold learning stands by itself."}, "figure": {"caption": "Three ways to use that data are low-dimensional: coding rates (top), dictionaries (middle), maps (bottom).", "name": "fig-subspaces-family"}}
PAPERS = {
    "SimCLR": (0, 0, "explained elsewhere"), "MLC": (1.2, 0, "this chapter"), "CPP": (2.4, 0, "this chapter"),
    "CRATE-MAE": (3.6, 0, "this chapter"), "Masked sparse\ncoding": (1.2, 1, "this chapter"),
    "Supervised\ndictionaries": (2.4, 1, "this chapter"), "Barlow Twins": (0, 2, "explained elsewhere"),
    "TLDR": (1.2, 2, "this chapter"), "Functorial\nmanifolds": (2.4, 2, "this chapter"),
}
ARROWS = [("SimCLR", "MLC"), ("MLC", "CPP"), ("Barlow Twins", "TLDR")]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("clustering/subspaces", first_seed=5)
plain = lab.data.Difficulty(texture=0.0, rotation=0.1, shift=0.03, scale=0.05)  # clusters need good features
stage = Stage(run, plain)
run

# %%
stage

# %% mystnb={"image": {"alt": "Three rows of small images: training scenes, each a coloured digit on a plain coloured ground, and under each of them two views of it, moved and recoloured."}, "figure": {"caption": "Eight training images and two views of each. SimCLR trains one encoder on them; it is frozen from then on.", "name": "fig-subspaces-stage"}}
_ = stage.look()

# %% [markdown]
# Each result below is a statement with a verdict: [How to read a
# verdict](../../book/how_to_use.md#how-to-read-a-verdict).
#
# One encoder a seed is trained by SimCLR and frozen. MLC, CPP and TLDR work on its features, standardised by the
# training images'. Clusters are found in *test* images. ACC is the accuracy under the best matching of clusters and
# classes, NMI the mutual information of both over their mean entropy. With ten clusters ACC jumps when two of them
# swap; most claims rest on NMI.
#
# $Z$ has $n$ rows (samples) and $d$ columns, $I$ is the identity, $\lVert\cdot\rVert$ the Frobenius norm; features of
# the coding rates have rows of length 1. Other letters are named anew in each section.

# %%
lab.show(S.frozen_features)

# %%
results, acc, ETA = {}, {}, 0.1  # η of the Sinkhorn affinity of untrained codes, chosen among 0.05, 0.1, 0.175


def kept(features, **found):
    """Keep ACC and NMI of each method's clusters of the test images, one a seed, in ``acc`` and ``results``."""
    for name, each in found.items():
        pairs = [(labels, f.y_test) for labels, f in zip(each, features)]
        results[name] = [lab.evaluate.nmi(*pair) for pair in pairs]
        acc[name] = [lab.evaluate.clustering_accuracy(*pair) for pair in pairs]


def cut(features, models, eta=0.175, of=1, signed=True):
    """Spectral clusters of the membership that the heads' codes make of the test images."""
    return [S.spectral(S.membership(S.heads(m, f.test)[of], eta, signed), 10, s) for s, f, m in zip(run.seeds, features, models)]


# %% [markdown]
# What do clusters of pixels, of an untrained encoder and of the frozen encoder find, and what would a linear classifier
# with all labels reach on the latter? Their bars stand beside the methods' in the figures below.

# %%
def grouped(features):
    """k-means with ten centroids on the directions of the test features."""
    return [lab.cluster.kmeans(F.normalize(f.test, dim=1), 10, s)[1] for s, f in zip(run.seeds, features)]


def start_features():
    """The frozen features of every seed, and of untrained encoders; the first rows of ``results``."""
    few = run.pick(quick=1000, full=4000)
    features = [S.frozen_features(stage, stage.pretrain("simclr", C.SimCLR, s).encoder, s, tests=few) for s in run.seeds]
    bare = [S.frozen_features(stage, stage.untrained(s), s, views=0, tests=few) for s in run.seeds]
    flat = stage.test_images[: len(features[0].y_test)].flatten(1).float() / 255 - 0.5
    probe = [lab.evaluate.linear_probe(f.x, f.y, f.test, f.y_test, l2=(0.01,)) for f in features]
    kept(features, **{
        "pixels, k-means": grouped([replace(f, test=flat) for f in features]), "untrained, k-means": grouped(bare),
        "k-means": grouped(features), "linear probe, all labels": [p.predict(f.test) for p, f in zip(probe, features)],
        "spectral": [S.spectral(S.membership(f.test, ETA), 10, s) for s, f in zip(run.seeds, features)],
    })
    return features, bare


# %% [markdown]
# (mlc)=
# ## Clusters by coding rates: MLC
# Ask how many nats, bits to the base e, it takes to code a feature, on average over $n$, up to a squared error
# $\varepsilon^2$. As a whole they should take many,
# that is, fill the space; grouped with their own kind they should take few, that is, each kind should lie in a small
# subspace. The difference is the *rate reduction*. To maximise it without labels, the grouping must be learnt too. MLC
# lets every *sample* have a group of its own, softly filled with the others:
#
# $$R(Z) = \tfrac12\log\det\Bigl(I + \tfrac{d}{n\varepsilon^2} Z^\top Z\Bigr), \qquad
# R_c(Z, \Pi) = \frac1n\sum_{j=1}^n \tfrac12\log\det\Bigl(I + \tfrac{d}{\varepsilon^2} Z^\top \mathrm{diag}(\pi_j)
# Z\Bigr),$$
# $$\max_{Z,\,C}\; R(Z) - R_c(Z, \Pi), \qquad \Pi = \arg\max_{\Pi\ \text{doubly stochastic}} \langle \Pi, C C^\top\rangle + \eta H(\Pi).$$
#
# $Z$ are features and $C$ cluster codes, two heads on one trunk; $\Pi$ is $n\times n$, and column $\pi_j$ is the group
# of sample $j$; $H$ is the entropy and $\eta$ its weight. *Doubly stochastic*: not negative, each row sums to 1, so
# every sample is given out once in all; each column too, so all groups weigh alike and none can swallow the rest. The
# number of classes, $K$, appears nowhere in training: only at the very end $\Pi$ is cut into $K$ pieces by spectral
# clustering.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Frozen features go through a trunk to two heads, features Z and cluster codes C; the weights of the Z head are copied to the C head once. C gives the doubly stochastic membership by Sinkhorn; Z and the membership meet in the rate reduction; the membership also goes to spectral clustering."}, "figure": {"caption": "MLC and CPP. The copy happens once, after a first stage that trains Z alone.", "name": "fig-mlc-diagram"}}
parts = {
    "frozen\nfeatures": (0, 0.5, "copy"), "trunk": (1, 0.5, "trained"), "Z": (2, 0, "trained"), "C": (2, 1, "trained"),
    "Sinkhorn\nΠ, n × n": (3.2, 1), "R − Rc": (3.2, 0, "loss"), "spectral\nclusters": (4.4, 1),
}
arrows = [("frozen\nfeatures", "trunk"), ("trunk", "Z"), ("trunk", "C"), ("Z", "C", "once"), ("C", "Sinkhorn\nΠ, n × n"),
          ("Z", "R − Rc"), ("Sinkhorn\nΠ, n × n", "R − Rc"), ("Sinkhorn\nΠ, n × n", "spectral\nclusters")]
_ = lab.plots.diagram(parts, arrows)

# %% [markdown]
# All $n$ log-determinants come from one matrix product: row $i$'s outer product $z_i z_i^\top$, flattened, weighed by
# $\pi_{ij}$. $\Pi$ comes from *Sinkhorn's* steps: begin with $e^{C C^\top/\eta}$ and bring rows, then columns, to sum
# 1, in turn. Five half-steps end with the rows, so columns sum to nearly 1. Of two views the code takes the mean
# features and the mean $\Pi$, and adds their agreement, weighed by $\lambda$.

# %%
lab.show(S.coding_rate, S.group_rates)

# %%
lab.show(S.doubly_stochastic)

# %%
lab.show(S.mlc_views)

# %% [markdown]
# The entropy is not decoration. Scores of unit rows are largest on the diagonal, so without it the best doubly
# stochastic matrix is a permutation, namely the identity: every sample alone, nothing learnt about groups.

# %%
codes = F.normalize(torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
sharp = S.doubly_stochastic(codes @ codes.T, 1e-3, 101)
run.exact("mlc", "As the entropy's weight goes to zero the membership becomes the identity permutation",
          float((sharp - torch.eye(64)).abs().max()), at_most=1e-3, data="random unit rows")

# %% [markdown]
# Training has two stages. First the features alone, so that two augmentations agree and the total coding rate (TCR) is
# large. Then the feature head is copied into the cluster head *once*, and the rate reduction trains both. Why the copy?
# A random head would begin with groups that have nothing to do with the features; a copy begins with groups of samples
# whose features already agree. The rivals get the same frozen features: spectral clustering; elastic-net subspace
# clustering (EnSC), which writes each sample as a sparse mixture of others and cuts the graph of the weights; NMCE,
# which has an $n\times K$ softmax in place of $\Pi$; SCAN, which lets neighbours agree. NMCE and SCAN are told $K$.

# %%
FIRST, SECOND, LAM, EPS2 = run.pick(quick=(60, 80, 20.0, 0.5), full=(1000, 3000, 20.0, 0.5))
SIZES = run.pick(quick=dict(batch_size=128), full=dict(dim=128, width=512, batch_size=512, lr=1e-3))
TWO = SIZES | dict(first=FIRST, second=SECOND, eps2=EPS2, lam=LAM)
lab.show(S.learn_mlc)

# %%
lab.show(S.nmce, S.scan)

# %%
features, bare = run.once("features", start_features)
FLOOR = results["untrained, k-means"]
tcr, mlc = zip(*[S.learn_mlc(f.views, s, **TWO) for s, f in zip(run.seeds, features)])
random = [S.learn_mlc(f.views, s, start=one, copied=False, **TWO)[1] for s, f, one in zip(run.seeds, features, tcr)]
mixed = [S.elastic_net_affinity(f.test, iterations=40) for f in features]
rivals = {"EnSC": [S.spectral(w, 10, s) for s, w in zip(run.seeds, mixed)], "NMCE": [], "SCAN": []}
for seed, f, one in zip(run.seeds, features, tcr):
    soft = lambda z, c: S.nmce(*z.chunk(2), (c[: len(c) // 2] + c[len(c) // 2 :]) / 2, EPS2, LAM)
    start = copy.deepcopy(one)  # the same first stage; ten logits in place of the codes
    start.c, start.logits = torch.nn.Linear(start.c.in_features, 10).to(run.device), True
    model = S.learn_heads(f.views, soft, seed + 1, steps=SECOND, start=start, **SIZES)
    rivals["NMCE"].append(S.heads(model, f.test)[1].argmax(1))
    near = S.nearest_neighbours(f.x, 5)
    pairs = torch.stack([f.x.repeat_interleave(5, 0), f.x[near.flatten()]])
    model = S.learn_heads(pairs, lambda z, c: S.scan(*c.chunk(2)), seed, steps=SECOND, clusters=10, **SIZES)
    rivals["SCAN"].append(S.heads(model, f.test)[1].argmax(1))

# %%
rivals |= {"TCR + spectral": cut(features, tcr, of=0), "MLC, random head": cut(features, random), "MLC": cut(features, mlc)}
kept(features, **rivals)

# %% mystnb={"image": {"alt": "Two panels of horizontal bars, accuracy and NMI of the found clusters. Pixels and the untrained encoder are lowest, k-means and spectral clustering of the frozen features in the middle, MLC above them, the linear probe with all labels highest."}, "figure": {"caption": "Clusters of the test images against their classes. Dots are seeds, dashes k-means on the untrained encoder.", "name": "fig-mlc-bars"}}
figure, panels = lab.plots.axes(2, 7.5, 3.6)
for panel, table, name in zip(panels, (acc, results), ("ACC", "NMI")):
    lab.plots.bars(panel, table, name, chance=sum(table["untrained, k-means"]) / len(run.seeds))
panels[1].set_yticklabels([])
print("MLC's accuracy", round(sum(acc["MLC"]) / len(run.seeds), 3))

# %%
run.claim("mlc", "MLC finds clusters of higher NMI than k-means on the same frozen features",
          results["MLC"], results["k-means"], margin=0.03, floor=FLOOR)

# %%
run.claim("mlc", "MLC finds clusters of higher NMI than spectral clustering of the same frozen features",
          results["MLC"], results["spectral"], margin=0.02, floor=FLOOR)

# %%
run.claim("mlc", "MLC finds clusters of higher NMI than elastic-net subspace clustering of the same frozen features",
          results["MLC"], results["EnSC"], margin=0.02, floor=FLOOR)

# %%
run.claim("mlc", "MLC, which is not told the number of classes, is above NMCE, which is, in NMI",
          results["MLC"], results["NMCE"], margin=0.0, floor=FLOOR)

# %%
run.claim("mlc", "MLC, which is not told the number of classes, is above SCAN, which is, in NMI",
          results["MLC"], results["SCAN"], margin=0.0, floor=FLOOR)

# %%
run.claim("mlc", "MLC finds clusters of higher accuracy than k-means on the same frozen features",
          acc["MLC"], acc["k-means"], margin=0.03, floor=acc["untrained, k-means"])

# %%
run.claim("mlc", "The second stage finds clusters of higher NMI than the first stage's features do",
          results["MLC"], results["TCR + spectral"], margin=0.02, floor=FLOOR)

# %%
run.claim("mlc", "Copying the feature head into the cluster head gives a higher NMI than a random cluster head",
          results["MLC"], results["MLC, random head"], margin=0.02, floor=FLOOR)

# %% [markdown]
# Did the features become subspaces? The paper counts the singular values that hold 95 % of the energy: of all features
# together, which should stay many, and of each class, which should become few. And it sorts $|Z Z^\top|$ by class.

# %%
before, after = ([S.structure(S.heads(m, f.test)[0], f.y_test) for f, m in zip(features, each)] for each in (tcr, mlc))
for name, each in (("after TCR", before), ("after MLC", after)):
    print(name, {key: round(sum(one[key] for one in each) / len(each), 2) for key in each[0]})

# %% mystnb={"image": {"alt": "Two square matrices of absolute cosines between test images sorted by class. After the first stage the blocks on the diagonal are faint; after MLC they are bright and the rest is darker."}, "figure": {"caption": "|cos| of 300 test images sorted by class: the second stage makes blocks, and darkens what is between them.", "name": "fig-mlc-blocks"}}
figure, panels = lab.plots.axes(2, 6, 2.9)
order = features[0].y_test[:300].argsort()
for panel, model, name in zip(panels, (tcr[0], mlc[0]), ("after TCR", "after MLC")):
    z = S.heads(model, features[0].test)[0][order].cpu()
    shown = panel.imshow((z @ z.T).abs(), vmin=0, vmax=1, cmap="magma")
    panel.set(title=name, xlabel="image, by class", ylabel="image, by class")
    panel.grid(False)
_ = figure.colorbar(shown, ax=panels, label="|cosine|", shrink=0.8)

# %%
run.claim("mlc", "MLC lowers the mean rank at 95 % energy of single classes by at least one",
          [a["rank, class"] for a in after], [b["rank, class"] for b in before], margin=1.0, higher_is_better=False)

# %%
run.claim("mlc", "All features together keep a rank at 95 % energy within four of that after the first stage",
          [a["rank, all"] for a in after], [b["rank, all"] for b in before], margin=-4.0)

# %%
run.claim("mlc", "MLC raises the ratio of |cos| within classes to |cos| between classes",
          [a["within"] / a["between"] for a in after], [b["within"] / b["between"] for b in before], margin=0.5)

# %% [markdown]
# The weight $\eta$ says how far a sample spreads its membership. On the trained codes: what share of it stays within
# the sample's class, and how good is the cut? And with fewer classes, longer runs ask whether the lead is the same.

# %%
ETAS = run.pick(quick=(0.03, 0.1, 0.175, 0.5, 2.0), full=(0.03, 0.1, 0.175, 0.5, 2.0))
same = [(f.y_test[:, None] == f.y_test).float() for f in features]
shares = [[float((S.membership(S.heads(m, f.test)[1], eta, True) * s).sum() / len(s)) for f, m, s in zip(features, mlc, same)] for eta in ETAS]
cuts = [[lab.evaluate.nmi(c, f.y_test) for c, f in zip(cut(features, mlc, eta), features)] for eta in ETAS]

# %% mystnb={"image": {"alt": "Two lines over the entropy's weight: the share of membership within the class falls steeply as the weight grows; NMI of the cut hardly falls."}, "figure": {"caption": "A small weight keeps the membership within the class, a large one mixes classes; the cut hardly minds.", "name": "fig-mlc-eta"}}
found = run.curve("mlc", "membership within the class and NMI over the entropy's weight", ETAS,
                  {"share within the class": shares, "NMI": cuts}, "η", "share, NMI", log=True)
_ = lab.plots.curve(found)

# %%
best = [max(c[i] for c in cuts[1:-1]) for i in range(len(run.seeds))]
run.claim("mlc", "An entropy weight between the extremes cuts better than the smallest weight", best, cuts[0], margin=0.02)

# %%
COUNTS = run.pick(quick=(), long=(3, 5, 7), full=(3, 5, 7))
if COUNTS:
    swept = {"MLC": [], "k-means": []}
    for count in COUNTS:
        row = {name: [] for name in swept}
        for seed, f in zip(run.seeds, features):
            some, held = f.y < count, f.y_test < count
            few = replace(f, test=f.test[held], y_test=f.y_test[held])
            model = S.learn_mlc(f.views[:, some], seed, **TWO)[1]
            row["MLC"].append(lab.evaluate.nmi(S.spectral(S.membership(S.heads(model, few.test)[1], 0.175, True), count, seed), few.y_test))
            row["k-means"].append(lab.evaluate.nmi(lab.cluster.kmeans(F.normalize(few.test, dim=1), count, seed)[1], few.y_test))
        for name, arm in swept.items():
            arm.append(row[name])
    run.curve("mlc", "NMI over the number of classes", COUNTS, swept, "classes", "NMI")

# %% [markdown]
# **The longest runs first.** With four times the steps in every training MLC's lead does not last. The frozen features
# know the classes better by then, and the second stage finds clusters of *lower* NMI than the first stage's features do
# (*reversed*). Over k-means, spectral and elastic-net clustering and SCAN MLC is ahead on average, and three seeds do not
# settle by how much; with NMCE it is level. The curve of longer runs has it below k-means with three and with five
# classes, above with seven. The ranks of the classes still fall and the whole keeps its own (*measured*); blocks stand
# out with each seed, and how far against the margin is open. *Our guess*: η fixes how many samples a row of Π holds,
# whatever the size of a class; trained for longer, features break into pieces of that size, and where a class is larger
# the cut no longer follows the classes.
#
# In a minute it is otherwise. Trained without hearing of ten classes, and cut into ten at the end, MLC clusters the
# test images
# better than k-means, spectral and elastic-net clustering of the same frozen features, and better than NMCE and SCAN,
# which are *trained* with the number (*measured*). The second stage adds to the first (*measured*); which part of it
# does, features, membership or more
# steps, no arm tells. On average the first stage's features are ahead of the frozen ones already, so views and heads
# have a share in MLC's lead. The ranks of the classes fall while the whole keeps its own, as in the paper, and blocks
# stand out (*measured*). NMCE and SCAN had MLC's steps and learning rate and no tuning of their own, so their distance
# is no
# ranking of methods. SCAN's neighbours are those of the frozen features; where some are of another class, agreement
# spreads the error (*our guess*).
#
# In a minute copying the head makes next to no difference on average, and in longer runs the random head is ahead on
# average; neither is settled. *Our guess*: on an encoder that has already gathered the classes, a random linear head of
# the same trunk keeps enough of who is near whom; the paper trains the whole network, from further away. Nor does the
# weight of the entropy matter much to the *cut* of trained codes (the curve). The best weight between the extremes is
# ahead of the smallest on average, by an amount that the seeds leave open, and a best of three has luck on its side. In
# training the weight was that of CPP's released code.

# %% [markdown]
# (cpp)=
# ## Pretrained features and an unknown number of clusters: CPP
# CPP freezes a pretrained encoder, trains only a small perceptron with two heads, drops the views, and asks the question
# that MLC leaves open: how many clusters are there? Train without $K$; then cut $\Pi$ into $K$ pieces for every
# candidate and take the $K$ whose code is shortest,
#
# $$L(K) = \sum_{j=1}^K \frac{n_j + d}{2} \log\det\Bigl(I + \tfrac{d}{\varepsilon^2 n_j} Z_j^\top Z_j\Bigr) - n_j \log\frac{n_j}{n} .$$
#
# $L$ is the length for all $n$ rows, in nats. $Z_j$ are the $n_j$ rows of cluster $j$: few clusters are loose and
# expensive, many pay for each one's subspace and
# name. The loss is MLC's with $|C C^\top|$ in place of $C C^\top$, since $c$ and $-c$ lie in one subspace, and a small
# penalty on $\lVert\Pi\rVert^2$, which keeps $\Pi$ from gathering in few pairs; without views there is no agreement. A
# warm-up maximises $R$ alone; then the head is copied. Two trainings on the same features differ by some points: ACC,
# NMI and coding lengths of CPP are means of two.

# %%
lab.show(S.learn_cpp, S.lengths_by_k)

# %%
CPP = run.pick(quick=dict(warm=30, steps=80, lr=1e-3), full=dict(warm=50, steps=1500, dim=128, width=1024, batch_size=1024, lr=1e-3))
features, bare = run.once("features", start_features)
FLOOR = results["untrained, k-means"]
NO_WARM_UP = CPP | dict(warm=0, steps=CPP["steps"] + CPP["warm"])
both = list(zip(run.seeds, features))
cpp, again = ([S.learn_cpp(f.x, s + more, **CPP) for s, f in both] for more in (0, 1000))
cold, colder = ([S.learn_cpp(f.x, s + more, **NO_WARM_UP) for s, f in both] for more in (0, 1000))
twice = {"CPP, no warm-up": (cold, colder), "CPP": (cpp, again)}
kept(features, **{f"{name}{i}": cut(features, each[i], signed=False) for name, each in twice.items() for i in (0, 1)})
for table in (results, acc):  # the seed moves these clusters much: the mean of two trainings
    for name in twice:
        table[name] = [(a + b) / 2 for a, b in zip(table.pop(f"{name}0"), table.pop(f"{name}1"))]

# %%
run.claim("cpp", "CPP finds clusters of higher NMI than k-means on the pretrained features",
          results["CPP"], results["k-means"], margin=0.03, floor=FLOOR)

# %%
run.claim("cpp", "CPP finds clusters of higher NMI than spectral clustering of the pretrained features",
          results["CPP"], results["spectral"], margin=0.0, floor=FLOOR)

# %%
run.claim("cpp", "CPP finds clusters of higher accuracy than k-means on the pretrained features",
          acc["CPP"], acc["k-means"], margin=0.03, floor=acc["untrained, k-means"])

# %%
run.claim("cpp", "The warm-up gives CPP a higher NMI than as many steps without it",
          results["CPP"], results["CPP, no warm-up"], margin=0.0, floor=FLOOR)

# %% [markdown]
# Now the number of clusters. The trained features' code is compared with that of the pretrained ones, brought to as
# many dimensions by PCA; the rival estimate is the silhouette of spectral clusters of the pretrained features.

# %%
from sklearn.metrics import silhouette_score

KS = run.pick(quick=(2, 4, 6, 8, 10, 12, 16, 20), full=(2, 4, 6, 8, 10, 12, 16, 20, 30))
lengths, shallow, guess, rival = [], [], [], []
for seed, f, *two in zip(run.seeds, features, cpp, again):
    each = [S.lengths_by_k(z, S.membership(c), KS, seed=seed)[0] for z, c in (S.heads(m, f.test) for m in two)]
    lengths.append([sum(v) / 2 for v in zip(*each)])
    z = S.heads(two[0], f.test)[0]
    small = F.normalize(S.PCA(f.x, z.shape[1], whiten=False)(f.test), dim=1)
    length, labels = S.lengths_by_k(small, S.membership(f.test, ETA), KS, seed=seed)
    shallow.append(length)
    width = [silhouette_score(small.cpu().numpy(), one.cpu().numpy()) for one in labels]
    guess.append(KS[min(range(len(KS)), key=lambda i: lengths[-1][i])])
    rival.append(KS[max(range(len(KS)), key=lambda i: width[i])])
print("estimates by coding length", guess, "by silhouette", rival)

# %% mystnb={"image": {"alt": "Coding length a sample over the number of clusters, for CPP's features and for pretrained ones: both fall from two clusters on, flatten, and rise slowly."}, "figure": {"caption": "Coding length over the number of clusters: steep on the left, nearly flat around its minimum.", "name": "fig-cpp-length"}}
arms = {name: [list(column) for column in zip(*each)] for name, each in (("CPP", lengths), ("pretrained", shallow))}
found = run.curve("cpp", "coding length over the number of clusters", KS, arms, "clusters", "nats a sample")
_ = lab.plots.curve(found)

# %%
run.claim("cpp", "The coding length's number of clusters is nearer to the ten classes than the silhouette's",
          [abs(k - 10) for k in guess], [abs(k - 10) for k in rival], margin=0.0, higher_is_better=False)

# %% [markdown]
# Are the features more structured? The paper shows block matrices and image search by trained features. For the blocks
# both kinds of features have as many dimensions; the search compares CPP's short codes with the pretrained features
# whole.

# %%
near = [S.structure(S.heads(m, f.test)[0], f.y_test) for f, m in zip(features, cpp)]
raw = [S.structure(S.PCA(f.x, CPP.get("dim", 20), whiten=False)(f.test), f.y_test) for f in features]
hits, raw_hits = ([S.retrieval_precision(z, f.y_test) for z, f in each] for each in (
    [(S.heads(m, f.test)[0], f) for f, m in zip(features, cpp)], [(f.test, f) for f in features]))

# %% mystnb={"image": {"alt": "Rows of small images: at the left a query, right of it its six nearest test images by CPP's features; most show the same digit."}, "figure": {"caption": "Image search by CPP's features: a query at the left, its six nearest test images right of it.", "name": "fig-cpp-search"}}
index = S.nearest_neighbours(S.heads(cpp[0], features[0].test)[0], 6)[:4]
rows = torch.cat([torch.arange(4, device=index.device)[:, None], index], 1).flatten()
_ = lab.plots.images(stage.test_images[rows], rows=4, width=5.0)

# %%
run.claim("cpp", "CPP raises the ratio of |cos| within classes to |cos| between classes over the pretrained features'",
          [a["within"] / a["between"] for a in near], [b["within"] / b["between"] for b in raw], margin=0.5)

# %%
run.claim("cpp", "Nearest neighbours by CPP's features share the class more often than by the pretrained features",
          hits, raw_hits, margin=0.0)

# %%
train, test = (i.flatten(1).float() / 255 for i in (stage.train_images, stage.test_images))
mean, std, few = train.mean(0), train.std(), len(features[0].test)
flat = [replace(f, x=(train - mean) / std, test=((test - mean) / std)[:few]) for f in features]
nets = run.pick(quick={}, long={"pixels": flat}, full={"pixels": flat}) | {"untrained": bare}
arms = {"k-means": [], "CPP": []}
for name, each in nets.items():
    models = [S.learn_cpp(f.x, s, **CPP) for s, f in zip(run.seeds, each)]
    for arm, found in (("k-means", grouped(each)), ("CPP", cut(each, models, signed=False))):
        arms[arm].append([lab.evaluate.nmi(c, f.y_test) for c, f in zip(found, each)])
for arm in arms:
    arms[arm].append(results[arm])

# %% mystnb={"image": {"alt": "NMI of k-means and of CPP on an untrained encoder and on SimCLR's features: low on the first, and higher on the second."}, "figure": {"caption": "What CPP makes of other starts: where the features know no classes, it finds none.", "name": "fig-cpp-backbones"}}
found = run.curve("cpp", "NMI over the encoder that CPP starts from", [*nets, "SimCLR"], arms, "frozen features", "NMI")
_ = lab.plots.curve(found)

# %% [markdown]
# **The longest runs** show the same with three seeds: CPP is ahead of k-means with each of them, by an amount that they
# leave open; blocks appear, and image search gets worse (*measured*). MLC no longer stands above it. From pixels CPP
# finds as little as from an untrained encoder (the curve of longer runs).
#
# In a minute CPP finds clusters of clearly higher NMI than k-means on the features that it starts from (*measured*). In
# accuracy it is ahead too, and whether by the margin is open; so is the order of CPP and spectral clustering. MLC, on
# these features, stands higher on average. Views, $\varepsilon^2$, steps, learning rate and the absolute value differ
# between the two; *our guess* is that the views count most, without which the small perceptron may spread the features along whatever it likes. The warm-up is a little ahead on average, and the seeds do not settle
# it. Classes do become blocks, and yet the nearest neighbour is *less* often of the same class than before
# (*measured*). Either what gathers whole classes blurs who is next to whom, or the much shorter code has lost it (*our
# guesses*). The paper, with CLIP's features, finds search improved.
#
# The coding length is flat around its minimum, from eight to twelve clusters, and its minimum lies there with each
# seed; the silhouette is near it with some and far off with others, so that the difference is not settled. Where the
# encoder knows no classes CPP finds none (the curve): it orders what is there.

# %% [markdown]
# (crate-mae)=
# ## A transformer whose layers are steps of coding: CRATE-MAE
# If compressing towards subspaces is what a representation should do, build a network of such steps. CRATE's layer has
# two halves. The first moves the tokens down the gradient of their coding rate within several subspaces, and that is
# attention with *one* matrix for query, key and value. The second makes them sparse in a dictionary, by one step of
# ISTA, the gradient step and threshold of sparse coding. A masked autoencoder needs a way back: read both halves in
# reverse, with the other sign.
#
# $$Z' = Z + \mathrm{MSSA}(Z), \quad \mathrm{MSSA}(Z) = \Bigl[\mathrm{softmax}\bigl(\tfrac{1}{\sqrt{d_h}} Z U_h U_h^\top Z^\top\bigr)\, Z U_h\Bigr]_{h} W,
# \qquad Z'' = \mathrm{relu}\bigl(Z' + s (Z' - Z' D^\top) D - s\lambda\bigr) .$$
#
# $Z$ are the tokens of an image, one a row, brought through a LayerNorm before each half; $U_h$ ($d\times d_h$) spans
# the subspace of head $h$, $[\cdot]_h$ puts the heads side by side and $W$ maps them back; $D$ is a $d\times d$
# dictionary, $s$ ISTA's step and $\lambda$ its threshold. A decoder layer is $Y = Z A$, $A$ a $d\times d$ matrix, then
# $Y - \mathrm{MSSA}(Y)$, with weights of its own.
#
# Why attention? With $V_h = Z U_h$ and $\alpha = d_h / (n\varepsilon^2)$ for $n$ tokens the rate is $\sum_h
# \tfrac12\log\det(I + \alpha V_h V_h^\top)$, and a step down its gradient goes, to second order in $\alpha$, along
# $-\alpha (I + \alpha V_h V_h^\top)^{-1} V_h U_h^\top \approx -\alpha V_h U_h^\top + \alpha^2 V_h V_h^\top V_h
# U_h^\top$. The first term shrinks the tokens. The second, with a *plus*, draws each to those that are like it:
# similarities $V_h V_h^\top$ times values $V_h$. The paper puts a softmax around them, so that a token listens to its
# own group, and leaves shrinking, scale and the way back, $U_h^\top$, to the residual and a learnt $W$: the step's
# model, not the step itself.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Patches with mask tokens go through encoder layers, each MSSA then ISTA, to codes, and through decoder layers, each a linear map then minus MSSA, to pixels; the loss is the squared error of hidden patches."}, "figure": {"caption": "CRATE-MAE. Hidden patches enter as mask tokens before the encoder; a decoder layer is an encoder layer read backwards.", "name": "fig-crate-diagram"}}
parts = {
    "patches and\nmask tokens": (0, 0.5), "+ MSSA": (1.2, 0, "trained"), "ISTA": (1.2, 1, "trained"), "codes": (2.3, 0.5),
    "linear A": (3.4, 1, "trained"), "− MSSA": (3.4, 0, "trained"), "hidden\npixels": (4.6, 0.5, "loss"),
}
arrows = [("patches and\nmask tokens", "+ MSSA"), ("+ MSSA", "ISTA"), ("ISTA", "codes"), ("codes", "linear A"),
          ("linear A", "− MSSA"), ("− MSSA", "hidden\npixels")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(S.MSSA.subspaces, S.MSSA.forward, S.ista)

# %%
lab.show(S.EncoderLayer.compress, S.EncoderLayer.forward, S.DecoderLayer.forward)

# %% [markdown]
# The stage's scenes in grey, in 4×4 patches, three quarters hidden. Errors are shares of the pixels' variance around
# the mean image. The rival is a vision transformer of the same width, depth, heads and mask tokens, with separate
# queries, keys and values and a perceptron four times as wide.

# %%
grey = [i.float().mean(1, keepdim=True) / 255 for i in (stage.train_images, stage.test_images)]
middle = grey[0].mean(0, keepdim=True)  # every model completes what departs from the mean image
spread = (grey[0] - middle).std()
(x, held), (y, y_held) = [(g - middle) / spread for g in grey], (stage.train_labels, stage.test_labels)
DEEP = dict(image=run.pick(quick=stage.side, full=32)) | run.pick(quick=dict(width=32, depth=2), full=dict(width=192, depth=6, heads=6))
FIT_MAE = run.pick(quick=dict(steps=60, batch_size=64, lr=4e-3), full=dict(steps=8000, batch_size=512, lr=1e-3))


# %%
def probed(model):
    """Accuracy of a linear probe on mean tokens, and mean squared error of hidden patches, both of test scenes."""
    hidden = model.draw(len(held), run.generator(7))
    with torch.no_grad():
        error = float(model(held, hidden))
    return lab.evaluate.linear_probe(model.features(x), y, model.features(held), y_held, l2=(1e-3,)).accuracy, error


# %%
TAUGHT = DEEP | FIT_MAE | dict(precision=run.precision)
BARE = TAUGHT | dict(steps=0)
kinds = {"CRATE-MAE": ("crate", TAUGHT), "ViT-MAE": ("vit", TAUGHT), "CRATE, untrained": ("crate", BARE), "ViT, untrained": ("vit", BARE)}
models = {name: [S.learn_autoencoder(x, kind, s, **how) for s in run.seeds] for name, (kind, how) in kinds.items()}
found = {name: [probed(m) for m in each] for name, each in models.items()}
weights = {name: sum(p.numel() for p in each[0].parameters()) for name, each in models.items()}
for name in ("CRATE-MAE", "ViT-MAE"):
    print(f"{name:10} {weights[name]:,} parameters")
hidden = models["CRATE-MAE"][0].draw(len(held), run.generator(7))
mean_error = (lab.nets.patchify(held, (4, 4)).square().mean(2) * hidden).sum() / hidden.sum()
pixel = lab.evaluate.linear_probe(x.flatten(1), y, held.flatten(1), y_held, l2=(1e-2,)).accuracy
print(f"error of the mean image {float(mean_error):.3f}; probe on pixels {pixel:.3f}")
for name, each in found.items():
    print(f"{name:18} probe {sum(a for a, _ in each) / len(each):.3f}, error {sum(e for _, e in each) / len(each):.3f}")

# %% mystnb={"image": {"alt": "Four rows of small grey pictures: the masked picture with most patches at the mean, CRATE-MAE's completion, ViT-MAE's completion, and the original. Both completions have the right ground and hardly a stroke of the hidden digit."}, "figure": {"caption": "Test scenes with three quarters hidden, completed. What is seen is put back; the rest is predicted.", "name": "fig-crate-pictures"}}
rows, some = [], hidden[:10]
patches = lab.nets.patchify(held[:10], (4, 4))
rows.append(torch.where(some[..., None], 0.0, patches))
with torch.no_grad():
    rows += [torch.where(some[..., None], models[name][0].rebuild(held[:10], some), patches) for name in ("CRATE-MAE", "ViT-MAE")]
grid = models["CRATE-MAE"][0].grid
rows = torch.cat([lab.nets.unpatchify(r, (4, 4), grid) * spread + middle for r in (*rows, patches)])
_ = lab.plots.images(rows, rows=4, names=("seen", "CRATE", "ViT", "whole"))

# %%
run.exact("crate-mae", "CRATE-MAE has at most 35 % of the parameters of the ViT-MAE of equal width and depth",
          weights["CRATE-MAE"] / weights["ViT-MAE"], at_most=0.35)

# %%
run.claim("crate-mae", "The error of CRATE-MAE on hidden patches is within a tenth of ViT-MAE's, as a ratio",
          [a[1] / b[1] for a, b in zip(found["CRATE-MAE"], found["ViT-MAE"])], [1.0] * len(run.seeds), margin=-0.1,
          higher_is_better=False)

# %%
run.claim("crate-mae", "CRATE-MAE completes hidden patches with an error below that of the mean image",
          [e for _, e in found["CRATE-MAE"]], [float(mean_error)] * len(run.seeds), margin=0.5, higher_is_better=False)

# %%
if run.scale != "quick":  # in a minute neither model has learnt anything about the digit
    run.claim("crate-mae", "The linear probe of CRATE-MAE is within three points of ViT-MAE's",
              [a for a, _ in found["CRATE-MAE"]], [a for a, _ in found["ViT-MAE"]], margin=-0.03,
              floor=[a for a, _ in found["CRATE, untrained"]])

# %% [markdown]
# A white box can be opened. In each encoder layer: the coding rate of the tokens in the heads' subspaces, after the
# first half, whose model of a step lowers it, and the share of entries that the second half leaves above zero.

# %%
inside = {name: [S.layer_statistics(m, held[:200]) for m in models[f"CRATE{name}"]] for name in ("-MAE", ", untrained")}
layers = list(range(1, DEEP["depth"] + 1))
arms = {f"{key}, CRATE{name}": [[one[key][i] / (10 if key == "rate" else 1) for one in each] for i in range(len(layers))]
        for key in ("rate", "nonzero") for name, each in inside.items()}

# %% mystnb={"image": {"alt": "Coding rate, in tens of nats, and share of non-zero entries over the encoder's two layers. The rate falls in the trained and, less steeply, in the untrained network; the shares, below one half, hardly move."}, "figure": {"caption": "Coding rate (tens of nats, upper lines) and share of non-zeros (lower lines): the rate falls trained and at random weights.", "name": "fig-crate-layers"}}
found = run.curve("crate-mae", "coding rate and non-zeros over the layers", layers, arms, "encoder layer", "10 nats, share")
_ = lab.plots.curve(found)

# %%
trained = inside["-MAE"]
run.claim("crate-mae", "After training the coding rate in the heads' subspaces is lower after the last layer than after the first",
          [one["rate"][-1] for one in trained], [one["rate"][0] for one in trained], margin=1.0, higher_is_better=False)

# %%
run.claim("crate-mae", "After training fewer entries are non-zero after the last layer than after the first",
          [one["nonzero"][-1] for one in trained], [one["nonzero"][0] for one in trained], margin=0.02,
          higher_is_better=False)

# %% [markdown]
# The decoder subtracts where the encoder adds. If a layer moves tokens little, subtracting the same attention at the
# new place undoes the step; how much of it, in the trained encoder? And does attention find the object: does the last
# layer's class token, one more token that stands for the image, look at patches with ink, as the known mask says?

# %%
left, seen = [], {"-MAE": [], ", untrained": []}
objects = stage.test_factors["mask"][:, None] if stage.test_factors else (held.abs() > 1).float()  # photographs have no known object
ink = lab.nets.patchify(objects.to(held), (4, 4)).mean(2) > 0.15
for i in range(len(run.seeds)):
    for name in seen:
        net = models[f"CRATE{name}"][i]
        with torch.no_grad():
            z = net.encoder.layers(net.tokens(held))[-2]
            last = net.encoder.blocks[-1]
            at = last.mssa.attention(last.norm1(z))[:, :, 0, 1:].mean(1)
        picked = at[ink][:, None] > at[~ink][torch.randperm(int((~ink).sum()), generator=torch.Generator().manual_seed(0))[:500]]
        seen[name].append(float(picked.float().mean()))
    with torch.no_grad():
        block, z = models["CRATE-MAE"][i].encoder.blocks[0], models["CRATE-MAE"][i].tokens(held[:200])
        new = block.compress(z)
        left.append(float((new - block.mssa(block.norm1(new)) - z).norm() / (new - z).norm()))

# %%
run.claim("crate-mae", "Subtracting the same attention undoes at least half of the first layer's compression step",
          left, [1.0] * len(run.seeds), margin=0.5, higher_is_better=False)

# %%
run.claim("crate-mae", "The trained class token's attention ranks patches with ink higher than the untrained one's does",
          seen["-MAE"], seen[", untrained"], margin=0.05)

# %%
WIDTHS = run.pick(quick=(), long=(8, 16, 32, 64), full=(96, 192, 384))
if WIDTHS:
    sized = {w: [S.learn_autoencoder(x, "crate", s, **TAUGHT | dict(width=w)) for s in run.seeds] for w in WIDTHS if w != DEEP["width"]}
    sized[DEEP["width"]] = models["CRATE-MAE"]
    arms = [[probed(model)[0] for model in sized[w]] for w in WIDTHS]
    run.curve("crate-mae", "probe over the width", WIDTHS, {"CRATE-MAE": arms}, "width", "probe accuracy", log=True)

# %% [markdown]
# **The longest runs first.** With four times the steps CRATE's error on hidden patches is within a tenth of the vision
# transformer's (*measured*). The linear probe stays *untaught*: at that length too neither model tells more of the
# class than untrained weights do. It rises with the width (the curve of longer runs), from near chance on.
#
# In a minute, with little more than a quarter of the parameters, CRATE completes hidden patches a little worse than the
# vision transformer; whether within a tenth, the seeds leave open. Both have learnt the ground and hardly the digit:
# look at the pictures. A linear probe is near chance on both, and not above untrained weights (the printed means); a
# minute is too short for the paper's claim about representations.
#
# Inside, the coding rate falls from the first to the last layer (*measured*); but it does so at random weights
# too, only less steeply (the curve). So the fall alone is no sign of training; what one half step does by itself is not
# measured. The share of non-zeros hardly
# moves, down with some seeds and up with others. Subtracting the same attention at the new place leaves nearly the
# whole step: it is large, and the approximation is one for small steps (*our guess*). Nor do these trainings show that
# the class token looks at the ink more than an untrained one does.

# %% [markdown]
# (masked-sparse-coding)=
# ## Hiding entries brings the true atoms nearer
# A signal is a mixture of a few atoms plus noise. To learn the atoms, rebuild the signals. With more learnt atoms than
# true ones (*over-realised*), that is a trap: a dictionary that leans towards the noise rebuilds better than the truth.
# The remedy: make the code from some entries and judge it on the others, whose noise it cannot have seen:
#
# $$\min_B\ \mathbb E\,\lVert y - B^\top z(y; B)\rVert^2 \quad\text{against}\quad
# \min_B\ \mathbb E\,\lVert y_{\bar M} - B_{\bar M}^\top z(y_M; B_M)\rVert^2 .$$
#
# $y = A^\top z^* + \epsilon$ is a signal of $d$ entries, $\epsilon$ its noise, $A$ the $p$ true and $B$ the $p'$ learnt
# atoms, one a row of length 1; $z^*$ has $k$ non-zeros, and so has $z(\cdot)$, which orthogonal matching pursuit finds:
# take the atom that explains most of what is left, fit again, $k$ times. $M$ are the seen entries, nine in ten, drawn
# anew for each batch, $\bar M$ the hidden ones.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A signal is split into seen and hidden entries. The seen ones and the dictionary's seen columns give a code by matching pursuit, through which no gradient flows; the code and the dictionary's hidden columns predict the hidden entries, which the loss compares."}, "figure": {"caption": "The masked objective. ✕: the code is a constant, only the atoms it weighs get a gradient.", "name": "fig-masked-diagram"}}
parts = {
    "signal y": (0, 0.5), "seen": (1, 0), "hidden": (1, 1), "pursuit": (2.1, 0), "code z": (3.2, 0),
    "atoms B": (2.1, 1, "trained"), "prediction\nof hidden": (3.2, 1), "squared\nerror": (4.4, 1, "loss"),
}
arrows = [("signal y", "seen"), ("signal y", "hidden"), ("seen", "pursuit"), ("pursuit", "code z", "", "stop"),
          ("atoms B", "pursuit"), ("atoms B", "prediction\nof hidden"), ("code z", "prediction\nof hidden"),
          ("prediction\nof hidden", "squared\nerror")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(S.omp, S.coding_loss)

# %% [markdown]
# All trainings of a sweep run as one stack: a smaller dictionary is padded with atoms of length 0, which are never
# taken.

# %%
D, P, K, SIGNALS = run.pick(quick=(40, 80, 3, 500), full=(100, 200, 5, 1000))
NOISE, EPOCHS, PLANTED = D**-0.5, run.pick(quick=30, full=300), "planted sparse signals"
DESIGN = dict(p=P, d=D, k=K, n=SIGNALS, epochs=EPOCHS)
lab.show(S.compare_objectives, start="g = ", end="found = ")

# %%
OVER = run.pick(quick=(80, 120, 320), long=(80, 120, 240, 320, 480, 640), full=(200, 400, 600, 800, 1000))
sizes = [S.compare_objectives(seed, OVER, [NOISE] * len(OVER), **DESIGN) for seed in run.seeds]
arms = {name: [[one["cosine"][name][i] for one in sizes] for i in range(len(OVER))] for name in ("reconstruct", "mask")}

# %% mystnb={"image": {"alt": "Distance of true atoms to the nearest learnt one over the number of learnt atoms: with masking it begins a little higher and falls below that of reconstruction; both stay far from zero."}, "figure": {"caption": "More learnt atoms help the masked objective more than reconstruction; at the true number it is a little behind.", "name": "fig-masked-size"}}
found = run.curve("masked-sparse-coding", "recovery error over the dictionary's size", OVER, arms, "learnt atoms", "1 − |cos|", data=PLANTED)
_ = lab.plots.curve(found)

# %%
run.claim("masked-sparse-coding", "With the largest dictionary masking recovers the atoms with a smaller error than reconstruction",
          arms["mask"][-1], arms["reconstruct"][-1], margin=0.03, higher_is_better=False, data=PLANTED)

# %%
run.claim("masked-sparse-coding", "From one and a half times the true number of atoms on more atoms help masking more than reconstruction",
          [a - b for a, b in zip(arms["mask"][1], arms["mask"][-1])],
          [a - b for a, b in zip(arms["reconstruct"][1], arms["reconstruct"][-1])], margin=0.02, data=PLANTED)

# %%
far = {name: [one["euclidean"][name][-1] for one in sizes] for name in ("reconstruct", "mask")}
run.claim("masked-sparse-coding", "The Euclidean distance ranks the two objectives as the cosine does",
          far["mask"], far["reconstruct"], margin=0.05, higher_is_better=False, data=PLANTED)

# %%
fits = {name: [one["loss"][name][-1] for one in sizes] for name in ("reconstruct", "mask")}
run.claim("masked-sparse-coding", "Reconstruction fits the signals better than masking although it recovers the atoms worse",
          fits["reconstruct"], fits["mask"], margin=0.05, higher_is_better=False, data=PLANTED)

# %% [markdown]
# The sharpest test starts *at* the truth: all true atoms are there, and twice as many noisy samples, with a fifth of
# the learning rate. Who leaves them? And does masking keep its lead with less noise, and in other dimensions?

# %%
LEVELS = run.pick(quick=(0.02, 0.09, 0.16), long=(0.02, 0.06, 0.11, 0.16), full=(0.01, 0.04, 0.07, 0.1))
same = [3 * P] * len(LEVELS)
truth = [S.compare_objectives(s, same, LEVELS, **DESIGN, true_start=True, lr=1e-3)["cosine"] for s in run.seeds]
level = [S.compare_objectives(s, same, LEVELS, **DESIGN)["cosine"] for s in run.seeds]
arms = {f"{name}, {start}": [[one[name][i] for one in each] for i in range(len(LEVELS))]
        for start, each in (("from samples", level), ("from the truth", truth)) for name in ("reconstruct", "mask")}

# %% mystnb={"image": {"alt": "Recovery error over the noise. From samples both errors rise with the noise; masking's is the higher at the lowest noise and the lower at the highest. From the truth the masked objective stays near zero and reconstruction moves away as the noise grows."}, "figure": {"caption": "Started at the true atoms, reconstruction leaves them the more the noise; masking stays near.", "name": "fig-masked-noise"}}
found = run.curve("masked-sparse-coding", "recovery error over the noise", LEVELS, arms, "noise an entry", "1 − |cos|", data=PLANTED)
_ = lab.plots.curve(found)

# %%
run.claim("masked-sparse-coding", "Started at the true atoms reconstruction moves away at least twice as far as masking (ratio of errors)",
          [a / max(b, 1e-4) for a, b in zip(arms["reconstruct, from the truth"][-1], arms["mask, from the truth"][-1])],
          [1.0] * len(run.seeds), margin=1.0, data=PLANTED)

# %%
run.claim("masked-sparse-coding", "Started at samples the ordering is the same at the highest noise",
          arms["mask, from samples"][-1], arms["reconstruct, from samples"][-1], margin=0.02, higher_is_better=False, data=PLANTED)

# %%
run.claim("masked-sparse-coding", "Started at samples masking keeps its advantage at the lowest noise",
          arms["mask, from samples"][0], arms["reconstruct, from samples"][0], margin=0.0, higher_is_better=False, data=PLANTED)

# %%
DIMS = run.pick(quick=(), long=(20, 40, 60), full=(100, 150, 200, 250))
if DIMS:
    grown = {"reconstruct": [], "mask": []}
    for d in DIMS:
        each = [S.compare_objectives(s, [8 * d], [d**-0.5], **DESIGN | dict(d=d, p=2 * d))["cosine"] for s in run.seeds]
        for name, arm in grown.items():
            arm.append([one[name][0] for one in each])
    run.curve("masked-sparse-coding", "recovery error over the dimension", DIMS, grown, "dimension", "1 − |cos|", data=PLANTED)

# %% [markdown]
# Two theorems stand behind it, and both can be looked at for signals of one atom each. First: at *any* strength of the
# signal there is an over-realised dictionary that rebuilds better than the true atoms. Here each atom is replaced by
# copies that lean away from it by 0.3 over the strength: times the strength that is a shift of 0.3, whatever the
# signal, beside noise of length about 1. The copy that leans the noise's way takes a part of it; a stronger signal only
# asks for a smaller lean. Second: under the masked objective the true atoms win as the signal grows. One dictionary,
# and a draw of signals, noise and leaning copies for each of four strengths; hidden are the last two entries of twenty:

# %%
lab.show(S.overfitting_dictionary)

# %%
STRENGTHS, lead = (2.0, 5.0, 15.0, 50.0), {"reconstruction": [], "masking": []}
g = torch.Generator().manual_seed(0)
a = S.planted_dictionary(30, 20, g)
for strength in STRENGTHS:
    y = strength * S.sparse_signals(a, 4000, 1, 0.0, g) + 20**-0.5 * torch.randn(4000, 20, generator=g)
    leaning = S.overfitting_dictionary(a, 8, 0.3 / strength, g)
    seen = (torch.arange(20) < 18)[None]
    for name, places in (("reconstruction", ()), ("masking", (seen, ~seen))):
        true, other = (float(S.coding_loss(y[None], b[None], 1, *places)) for b in (a, leaning))
        lead[name].append(other / true - 1)
print({name: [f"{v:+.4f}" for v in values] for name, values in lead.items()})

# %%
run.exact("masked-sparse-coding", "At every strength of the signal an over-realised dictionary rebuilds better than the true atoms (excess loss)",
          max(lead["reconstruction"]), at_most=-0.005, data=PLANTED)

# %%
run.exact("masked-sparse-coding", "Under the masked objective the same dictionary is worse than the true atoms when the signal is strong (excess loss)",
          lead["masking"][-1], at_least=0.001, data=PLANTED)

# %% [markdown]
# **The longest runs** order the two objectives as the short ones do, also with up to eight times the true atoms, where
# reconstruction no longer improves and masking does, and for signals of three dimensions d (the curves of longer runs).
# Reconstruction fits better with each of three seeds, by about the margin, so that much is open.
#
# With many atoms and much noise it goes as the theory says: reconstruction fits better and recovers worse, and spare
# atoms help it less than they help masking; started at the truth it moves away much further (*measured*), in
# longer runs by a smaller factor.
# Neither *finds* the atoms from samples: the error stays large. In a minute masking is a little behind with no spare
# atoms, in longer runs it is ahead there too (the curve). The copies that lean towards the noise win at reconstruction
# and lose under masking at each strength tried, the weakest too.
#
# At the lowest noise the order is reversed: there is nothing to overfit, and a code made of nine entries in ten is a
# little worse than one made of all (*our guess* why). The paper, with larger problems, has an advantage there too.

# %% [markdown]
# (sdl-covariates)=
# ## A dictionary that also classifies
# The directions that rebuild data best need not be those that tell classes apart. *First factorise, then classify* keeps
# only the former. Supervised dictionary learning wants one dictionary for both, and lets known covariates speak beside
# it:
#
# $$\min_{W, H, \beta, \gamma}\; \sum_i \log\bigl(1 + e^{-\tilde y_i a_i}\bigr) + \xi\, \lVert X - W H\rVert^2, \qquad
# a_i = \beta^\top W^\top x_i + \gamma^\top x'_i \ \text{(filter)} \quad\text{or}\quad a_i = \beta^\top h_i +
# \gamma^\top x'_i \ \text{(feature)} .$$
#
# Samples $x_i$ are here the *columns* of $X$ ($p\times n$), $W$ has $r$ columns, the dictionary, $H$ holds the codes
# $h_i$; $\tilde y_i = \pm1$ is the label, $a_i$ its logit with weights $\beta$ and $\gamma$, $x'_i$ are covariates,
# $\xi$ weighs the reconstruction. In the factors that is not convex. Lift it: with $A = W\beta$ and $B = WH$ the filter
# model *is* convex in $[A, B]$, and all that is left of the factors is $\mathrm{rank}\,[A, B] \le r$; the feature model
# is lifted by $A = \beta^\top H$, one more *row* on $B$. So take a gradient step and truncate the rank by a singular
# value decomposition.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Dictionary W, codes H and weights beta lift to A and B side by side; a gradient step on the convex loss, then a truncation of the rank, and back again; at the end the factors are read off."}, "figure": {"caption": "Low-rank projected gradient descent: a gradient step on a convex loss, then the nearest matrix of low rank; a theorem says when that converges to the optimum.", "name": "fig-sdl-diagram"}}
parts = {
    "X, labels,\ncovariates": (0, 0.5), "[A, B]": (1.3, 0.5, "trained"), "convex\nloss": (2.6, 0, "loss"),
    "gradient\nstep": (2.6, 1), "rank ≤ r": (1.3, 1.5), "W, H, β": (0, 1.5, "trained"),
}
arrows = [("X, labels,\ncovariates", "[A, B]"), ("[A, B]", "convex\nloss"), ("convex\nloss", "gradient\nstep"),
          ("gradient\nstep", "rank ≤ r"), ("rank ≤ r", "[A, B]"), ("rank ≤ r", "W, H, β", "at the end")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(S.objective, S.truncate)

# %%
lab.show(S.lpgd, start="for _ in range", end="found.trace")

# %% [markdown]
# The rival, block coordinate descent (BCD), stays with the factors, which may then be non-negative: gradient steps on
# $H$, on $W$ and on the weights in turn. Does theory hold? For the step $\tau$ and curvatures between $\mu$ and $L$ the
# distance to the optimum must shrink at each step to at most $\rho = 2\max(|1-\tau\mu|, |1-\tau L|)$ of itself. That
# promises something if $\rho < 1$, and some $\tau$ gives that only where $L/\mu < 3$: a strong ridge makes it 2 here,
# on one small random problem. The factor is the largest over the first eight steps; the number under the verdict is how
# far it lies above (+) or below (−) $\rho$.

# %%
g = torch.Generator().manual_seed(0)
small, label = torch.randn(12, 60, dtype=torch.float64, generator=g), (torch.rand(60, generator=g) < 0.5).double()
flat = float(torch.linalg.matrix_norm(small, 2)) ** 2 / 8  # ν such that L / μ is 2
low, high = 2 * flat, 4 * flat  # μ and L
options = dict(rank=3, xi=flat / 2, nu=flat, rate=2 / (low + high))
optimum = S.lpgd(small, label, steps=200, **options).lifted
starts = [torch.randn(optimum.shape, dtype=torch.float64, generator=g) for _ in range(5)]
paths = [S.lpgd(small, label, steps=40, start=s, trace=True, **options).trace for s in starts]
gaps = torch.tensor([[float((z - optimum).norm()) for z in path] for path in paths])
rho = 2 * max(abs(1 - options["rate"] * bend) for bend in (low, high))
ratio = float((gaps[:, 1:9] / gaps[:, :8]).max())

# %% mystnb={"image": {"alt": "Distance to the optimum over the steps on a logarithmic axis for five random starts: five falling straight lines."}, "figure": {"caption": "Five random starts: straight lines on a logarithmic axis, all towards the same point.", "name": "fig-sdl-linear"}}
axis = lab.plots.axes(1, 5.5, 2.4)[1]
axis.semilogy(gaps.T.clamp_min(1e-12))
_ = axis.set(xlabel="step", ylabel="distance to the optimum")

# %%
run.exact("sdl-covariates", "Low-rank projected gradient steps shrink the distance to the optimum by the theorem's factor at least",
          ratio - rho, at_most=0.0, data="random matrices")

# %%
run.exact("sdl-covariates", "Five random starts end at the same point (largest distance after 40 steps, as a share of the first)",
          float((gaps[:, -1] / gaps[:, 0]).max()), at_most=1e-4, data="random matrices")

# %%
fall = S.bcd(small.abs(), label, 3, 0.1, rounds=200, generator=g).objective
rise = max(b - a for a, b in zip(fall, fall[1:])) / fall[0]
run.exact("sdl-covariates", "The objective of block coordinate descent never rises (largest step up, as a share of the start)",
          rise, at_most=1e-9, data="random matrices")

# %%
run.exact("sdl-covariates", "The gap of block coordinate descent after t rounds, times t, is no larger late than early",
          100 * (fall[99] - fall[-1]) / (10 * (fall[9] - fall[-1])), at_most=1.0, data="random matrices")

# %% [markdown]
# Now the authors' design with our digits: columns are noisy mixtures of 2s and 5s, labels ask how much of a 4 against a
# 7 lies in them. So the best dictionary for rebuilding and the direction that decides differ; `lean` turns the deciding
# direction from one inside the span of the 2s and 5s (0) to that of 4 against 7 outside of it (1).

# %%
RANK, XIS = 10, run.pick(quick=(0.01, 0.1, 1.0, 10.0), long=(0.0, 0.01, 0.1, 1.0, 10.0), full=(0.0, 0.01, 0.1, 1.0, 10.0))
SEMI, EACH = "mixtures of MNIST digits, 10×10", run.pick(quick=300, full=2000)
STEPS_, ROUNDS = run.pick(quick=(40, 40), long=(240, 240), full=(400, 400))
lab.show(S.digit_mixtures, start="w = ", end="chance")

# %%
LEARNERS = {
    "filter, LPGD": lambda x, y, xi, o, g: S.lpgd(x, y, RANK, xi, nu=0.1, steps=STEPS_),
    "feature, LPGD": lambda x, y, xi, o, g: S.lpgd(x, y, RANK, xi, model="feature", nu=0.01, steps=STEPS_),
    "filter, BCD": lambda x, y, xi, o, g: S.bcd(x, y, RANK, xi, covariates=o, rounds=ROUNDS, generator=g),
    "PCA, then logistic": lambda x, y, xi, o, g: S.two_steps(x, y, RANK, nu=0.1),
    "NMF, then logistic": lambda x, y, xi, o, g: S.two_steps(x, y, RANK, nonnegative=True, nu=0.1, covariates=o, generator=g),
}


def fitted(name, seed, xi=1.0, lean=1.0):
    """Accuracy, F-score and share not rebuilt of a learner on new columns; NMF's and BCD's entries are positive."""
    learner = lambda x, y, o, g: LEARNERS[name](x, y, xi, o, g)
    return S.on_mixtures(learner, EACH, seed, lean=lean, positive="BCD" in name or "NMF" in name)


# %%
points = {}
for name in LEARNERS:
    tried = XIS if "then" not in name else XIS[:1]  # the rivals do not know ξ
    points[name] = [[fitted(name, seed, xi) for seed in run.seeds] for xi in tried] * (len(XIS) // len(tried))
alone = []
for seed in run.seeds:
    x_, y_ = S.digit_mixtures(2 * EACH, seed)
    x_ = x_ - x_[:, :EACH].mean(1, keepdim=True)
    w = S.logistic(x_[:, :EACH], y_[:EACH], nu=0.1)
    alone.append(float(((w @ x_[:, EACH:] > 0) == (y_[EACH:] == 1)).double().mean()))

# %%
arms = {name: [[one[0] for one in each] for each in rows] for name, rows in points.items()}
arms["logistic alone"] = [alone] * len(XIS)

# %% mystnb={"image": {"alt": "Test accuracy over the weight of reconstruction. The filter model starts near logistic regression and falls as the weight grows; PCA and NMF with logistic regression are flat and low."}, "figure": {"caption": "Accuracy over ξ, the weight of reconstruction: it falls where reconstruction counts most; two steps have no choice.", "name": "fig-sdl-xi"}}
found = run.curve("sdl-covariates", "accuracy over the weight of reconstruction", XIS, arms, "ξ", "test accuracy", log=XIS[0] > 0, data=SEMI)
axis = lab.plots.curve(found).axes[0]
axis.set_xscale("symlog", linthresh=0.01)  # longer runs begin at 0
axis.set_xticks((0, 0.01, 0.1, 1, 10), ("0", "0.01", "0.1", "1", "10"))
_ = axis.minorticks_off()

# %% mystnb={"image": {"alt": "Accuracy against the share that is not rebuilt, one line a method: the two models on centred columns run straight up from PCA's point, the one on positive columns lies above NMF's."}, "figure": {"caption": "Accuracy against the share not rebuilt, of centred columns (right) and of positive ones with their mean (left): accuracy is gained, hardly anything of the rebuilding is lost.", "name": "fig-sdl-pareto"}}
axis = lab.plots.axes(1, 6.5, 2.8)[1]
for name, rows in points.items():
    means = [[sum(one[i] for one in each) / len(each) for i in (2, 0)] for each in rows]
    axis.plot(*zip(*means), "o-", label=name)
axis.set(xlabel="share of the squared norm that is not rebuilt", ylabel="test accuracy")
_ = lab.plots.legend(axis)

# %%
at = XIS.index(1.0)
filters, steps = points["filter, LPGD"], points["PCA, then logistic"]
run.claim("sdl-covariates", "The filter model at ξ = 1 classifies better than PCA followed by logistic regression",
          [one[0] for one in filters[at]], [one[0] for one in steps[at]], margin=0.1, data=SEMI)

# %%
run.claim("sdl-covariates", "And it rebuilds within a tenth as much as PCA of the same rank, as a ratio of the shares missed",
          [a[2] / b[2] for a, b in zip(filters[at], steps[at])], [1.0] * len(run.seeds), margin=-0.1, higher_is_better=False, data=SEMI)

# %%
run.claim("sdl-covariates", "The non-negative filter model at ξ = 0.1 classifies better than NMF followed by logistic regression",
          [one[0] for one in points["filter, BCD"][XIS.index(0.1)]], [one[0] for one in points["NMF, then logistic"][0]], margin=0.1, data=SEMI)

# %%
best = [max(each[i][0] for each in filters) for i in range(len(run.seeds))]
run.claim("sdl-covariates", "The best filter model over ξ classifies better than logistic regression alone", best, alone, margin=0.0, data=SEMI)

# %%
LEANS, pair_ = run.pick(quick=(0.0, 0.33, 0.67, 1.0), full=(0.0, 0.25, 0.5, 0.75, 1.0)), ("filter, LPGD", "PCA, then logistic")
both = {lean: [[fitted(name, seed, lean=lean)[0] for name in pair_] for seed in run.seeds] for lean in LEANS}
gain = [[a - b for a, b in both[lean]] for lean in LEANS]

# %% mystnb={"image": {"alt": "Gain in accuracy of the filter model over PCA followed by logistic regression, against how far the deciding direction leans out of the span of the dictionary: it rises."}, "figure": {"caption": "The gain of learning jointly grows as the deciding direction leaves what rebuilds.", "name": "fig-sdl-lean"}}
found = run.curve("sdl-covariates", "gain of joint learning over how far the directions differ", LEANS, {"filter less PCA": gain}, "lean", "accuracy gained", data=SEMI)
_ = lab.plots.curve(found)

# %%
run.claim("sdl-covariates", "The gain of joint learning is larger where the deciding direction lies outside the dictionary than inside",
          gain[-1], gain[0], margin=0.05, data=SEMI)

# %% [markdown]
# Does the learnt dictionary approach the truth with more samples? Plant $[A, B]$ of rank 3, draw labels and noisy
# columns, and measure the error of $A$, the one part that does not grow with $n$. And as a second data set, an
# imbalanced one with covariates as in the paper's fake job postings: breast tumours with one malignant case in ten, two
# draws a seed; two measurements that no factorisation sees are the covariates.

# %%
COUNTS, errors = run.pick(quick=(100, 400, 1600, 6400), full=(100, 400, 1600, 6400)), []
for n in COUNTS:
    each, draws = [], 4 if n < 1000 else 1  # few samples make a noisy estimate: the mean of four draws
    for seed in (s + 1000 * i for s in run.seeds for i in range(draws)):
        x_, y_, true = S.planted_classifier(n, torch.Generator().manual_seed(seed))
        each.append(float((S.lpgd(x_, y_, 3, 1.0, steps=150).lifted[:, 0] - true).norm() / true.norm()))
    errors.append(torch.tensor(each).view(-1, draws).mean(1).tolist())
found = run.curve("sdl-covariates", "error of the classifier over the number of samples", COUNTS, {"filter, LPGD": errors},
                  "samples", "relative error of A", log=True, data="planted factors")

# %%
run.claim("sdl-covariates", "The error of the planted classifier falls to less than half from the fewest to the most samples",
          errors[-1], [e / 2 for e in errors[0]], margin=0.0, higher_is_better=False, data="planted factors")

# %%
from sklearn.datasets import load_breast_cancer

table = load_breast_cancer()
cells = torch.from_numpy(table.data)
cells, sick = (cells - cells.mean(0)) / cells.std(0), torch.from_numpy(1 - table.target)
tumours = {"SDL with covariates": [], "SDL without": [], "NMF, then logistic": [], "NMF with covariates, then logistic": []}
for seed in (s + 1000 * i for s in run.seeds for i in range(2)):  # two draws a seed
    g = torch.Generator().manual_seed(seed)
    ill, well = (torch.where(sick == v)[0] for v in (1, 0))
    rows = torch.cat([ill[torch.randperm(len(ill), generator=g)[:40]], well])
    rows = rows[torch.randperm(len(rows), generator=g)]
    z, y_ = cells[rows].T, sick[rows].double()
    z, extra, n = (z[2:] - z[2:].min()) / 5, torch.cat([z[:2], torch.ones(1, z.shape[1], dtype=z.dtype)]), len(rows) // 2
    for name in tumours:
        if "NMF" in name:
            m = S.two_steps(z[:, :n], y_[:n], 3, nonnegative=True, nu=0.1, covariates=extra[:, :n] if "with" in name else extra[2:, :n], generator=g)
        else:
            m = S.bcd(z[:, :n], y_[:n], 3, 0.1, nu=0.01, covariates=extra[:, :n] if "with c" in name else extra[2:, :n], rounds=100, generator=g)
        tumours[name].append(S.f_score(m.score(z[:, n:], extra[:, n:] if "with c" in name else extra[2:, n:]), y_[n:]))
tumours = {name: [(a + b) / 2 for a, b in zip(v[::2], v[1::2])] for name, v in tumours.items()}
print({name: round(sum(v) / len(v), 3) for name, v in tumours.items()})

# %%
run.claim("sdl-covariates", "On imbalanced tumours a supervised dictionary has a higher F-score than NMF followed by logistic regression",
          tumours["SDL with covariates"], tumours["NMF with covariates, then logistic"], margin=0.02, data="breast cancer table")

# %%
run.claim("sdl-covariates", "The covariates raise the supervised dictionary's F-score",
          tumours["SDL with covariates"], tumours["SDL without"], margin=0.0, data="breast cancer table")

# %% [markdown]
# **The longest runs**, with six times the steps, change no direction. The gains over PCA with logistic regression and
# by the covariates are there with each seed; whether the one reaches its margin, and how sure the other is, three seeds
# leave open.
#
# Where its condition holds, the theory does: five starts end at one point, faster than promised (*measured*, one
# problem). On the digits the ridge is too weak for $L/\mu < 3$, and nothing is promised there. On the mixtures the
# joint dictionary rebuilds nearly as much as PCA of its rank and classifies far better (*measured*), and the gain is
# next to nothing where the deciding direction lies in what rebuilds, and much larger outside (*measured*). At a large ξ
# accuracy falls (the curve): the rank is spent on rebuilding (*our guess*). Block descent never rises, and its gap to
# where it stood after 200 rounds falls about as $1/t$ (one run).
#
# The best joint model is a little ahead of logistic regression alone, which rebuilds nothing; the seeds leave it open,
# and a best over ξ has luck on its side. Whether the dictionary helps or costs the classifier is not told. The
# non-negative model is ahead of NMF on average, by less than the margin, and again it is open. On the tumours the
# supervised dictionary has a clearly higher F-score than NMF with logistic regression, and the covariates raise it
# (*measured*).
#
# The error of the planted classifier falls with the samples and hardly at the last step (the curve's points lie in the
# ledger; the verdict compares its ends): with a fixed ξ and number of
# steps the estimate keeps a bias that no sample takes away (*our guess*). With the fewest samples it is large or small
# by luck, so the seeds do not settle whether it is halved.

# %% [markdown]
# (functorial-manifold)=
# ## Manifold learners between two clusterings
# What does a manifold learner keep of a set of points? Shiebler's answer: many first make a *hierarchical clustering*
# of the points, in which clusters may overlap, and then a loss of its strengths. Let sets of points with distances be
# objects, and maps that lengthen no distance the arrows between them. A *functor* sends objects to clusterings and
# respects the arrows: two points that are joined at some height are joined at that height or below after such a map.
# Such a clustering, if it joins two points alone at their distance, lies between two extremes:
#
# $$d_{SL}(i, j) \;\le\; d'(i, j) \;\le\; d(i, j), \qquad d_{SL}(i, j) = \min_{\text{paths } i \to j}\ \max_{\text{steps } (u, v)} d(u, v) .$$
#
# $d$ is the given distance, $d'$ the height at which a learner's clustering joins $i$ and $j$, and $d_{SL}$ that of
# single linkage: the longest step on the best path. Strengths are $w = e^{-d'}$: 1 for points joined at once, near 0
# for those joined late. Multidimensional scaling (MDS) takes $d$ itself: each pair joins at its own distance, *maximal*
# linkage (clusters overlap; complete linkage is another thing). Isomap and UMAP lie outside this sandwich: Isomap's path
# lengths through a graph of neighbours are never shorter than $d$, and a graph of few neighbours need not respect every
# map that lengthens nothing, since others may come nearer (our reading). The paper orders them by the smaller sets of
# maps that they do respect. Put $d_{SL}$ in the place of $d$ and a new method falls out, single
# linkage scaling; put UMAP's graph into Laplacian eigenmaps and it is LUMAP; put $e^{-d}$ into UMAP's loss and it is
# MLCE.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Distances go to three clusterings: maximal linkage, UMAP's fuzzy sets and single linkage; these go to three losses: stress, cross entropy and the Laplacian. Named arrows: maximal linkage with stress is MDS, UMAP's fuzzy sets with cross entropy are UMAP; the other three pairs are new."}, "figure": {"caption": "Any clustering with any loss. MDS and UMAP are known pairs; without a name: MLCE (maximal linkage, cross entropy), LUMAP (fuzzy set, Laplacian), single linkage scaling (stress).", "name": "fig-functorial-diagram"}}
parts = {
    "distances d": (0, 1), "maximal\nlinkage, d": (1.4, 0), "UMAP's\nfuzzy set": (1.4, 1), "single\nlinkage": (1.4, 2),
    "stress": (3.2, 0, "loss"), "cross\nentropy": (3.2, 1, "loss"), "Laplacian": (3.2, 2, "loss"),
}
arrows = [("distances d", p) for p in ("maximal\nlinkage, d", "UMAP's\nfuzzy set", "single\nlinkage")]
arrows += [("maximal\nlinkage, d", "stress", "MDS"), ("UMAP's\nfuzzy set", "cross\nentropy", "UMAP"), ("maximal\nlinkage, d", "cross\nentropy"),
           ("UMAP's\nfuzzy set", "Laplacian"), ("single\nlinkage", "stress")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(S.single_linkage, S.smacof)

# %%
lab.show(S.fuzzy_simplicial_set)

# %% [markdown]
# First the theory, on random points: theorems, so a failure would only be a mistake of ours. The sandwich; the bounds
# that it gives for a loss that is monotone in the strengths (here
# $\sum (1 - w_{ij}) \lVert x_i - x_j\rVert^{-1} + w_{ij} \lVert x_i - x_j\rVert^2$ with far points; stress is not
# monotone, and there the bound need not hold), tried on one clustering in between, whose share of the way from one loss
# to the other may be at most a half from the middle (the number); stability: noise that changes distances by at most
# $\epsilon$ changes $d_{SL}$ by at most $\epsilon$; and one contraction, of all distances by the same factor, the
# simplest of the
# arrows.

# %%
g = torch.Generator().manual_seed(0)
points_ = torch.randn(80, 3, dtype=torch.float64, generator=g)
d = torch.cdist(points_, points_).fill_diagonal_(0)
d = (d + d.T) / 2
single = S.single_linkage(d)
between = S.single_linkage(d).maximum(d * 0.6)  # joins pairs at 0.6 of their distance, or where single linkage does
run.exact("functorial-manifold", "Single-linkage distances lie at or below the raw ones (largest excess)",
          float((single - d).max()), at_most=1e-12, data="random points")

# %%
x_ = 3 * torch.randn(80, 2, dtype=torch.float64, generator=g)
apart = torch.pdist(x_).clamp_min(1.0)
pairs_ = tuple(torch.triu_indices(80, 80, 1))
losses = [float(((1 - w) / apart + w * apart.square()).sum()) for w in ((-e[pairs_]).exp() for e in (d, between, single))]
run.exact("functorial-manifold", "A monotone loss of a clustering in between lies between those of maximal and single linkage (as a share of the way)",
          abs((losses[1] - losses[0]) / (losses[2] - losses[0]) - 0.5), at_most=0.5, data="random points")

# %%
stays = []
for eps in (0.01, 0.1, 0.5):
    noise = eps * (2 * torch.rand(d.shape, dtype=torch.float64, generator=g) - 1)
    near = (d + (noise + noise.T) / 2).clamp_min(0).fill_diagonal_(0)
    stays.append(float((S.single_linkage(near) - single).abs().max() / (near - d).abs().max()))
run.exact("functorial-manifold", "Noise in the distances moves single-linkage distances by no more than itself (largest ratio)",
          max(stays), at_most=1 + 1e-9, data="random points")

# %%
short = 0.7 * d  # a map that contracts
grown = float((S.single_linkage(short) - single).max())
curved = float((S.geodesic(d, 79) - d).abs().max())
run.exact("functorial-manifold", "Contracting all distances never separates what single linkage joins (largest growth)", grown, at_most=1e-12, data="random points")

# %%
# NBVAL_CHECK_OUTPUT
print("Isomap with all neighbours is scaling of the raw distances:", curved < 1e-9)

# %% [markdown]
# Now the authors' experiment. One string of 1,000 letters is edited into many bases; each base mutates letter by letter
# into a chain. Embed all strings from their distances alone; is the *last* string of a chain nearest to its own first
# one? The distances within a chain add up step by step, and single linkage sees only the steps.

# %%
CHAINS = run.pick(quick=40, full=100)
LENGTHS = run.pick(quick=(4, 10, 20), long=(5, 10, 15, 20), full=(5, 10, 20, 40))
EMBEDDERS = {"MDS": lambda d: d, "single linkage": S.single_linkage, "Isomap": lambda d: S.geodesic(d, 8)}

# %%
chains = [[S.chain_recall(EMBEDDERS, CHAINS, m, 2, seed) for seed in run.seeds] for m in LENGTHS]
arms = {name: [[one[0][name] for one in each] for each in chains] for name in EMBEDDERS}
at, pair_ = LENGTHS.index(10), ("single linkage", "MDS")
two = {name: EMBEDDERS[name] for name in pair_}
draws = [[S.chain_recall(two, CHAINS, 10, 5, s + 1000 * i)[0] for i in range(4)] for s in run.seeds]  # in five dimensions

# %% mystnb={"image": {"alt": "Own-base recall in two dimensions over the length of the chains for MDS, single linkage scaling and Isomap: Isomap is the highest on short chains and near zero on long ones; single linkage is level with MDS at four mutations, above it at ten and twenty, and falls slower."}, "figure": {"caption": "Two dimensions: single linkage scaling loses fewer chains than MDS as they grow; Isomap depends on its neighbours.", "name": "fig-functorial-recall"}}
found = run.curve("functorial-manifold", "own-base recall over the length of the chains", LENGTHS, arms, "mutations a chain", "recall", data="DNA simulation")
_ = lab.plots.curve(found)

# %% mystnb={"image": {"alt": "Two scatter plots of strings in two dimensions, ten chains in colour, the rest grey. With MDS the chains are spread and overlap, with single linkage scaling each is a small clump."}, "figure": {"caption": "Ten chains in colour. Scaling the single-linkage distances gathers each of them.", "name": "fig-functorial-scatter"}}
figure, panels = lab.plots.axes(2, 6.5, 3.0)
for panel, name in zip(panels, ("MDS", "single linkage")):
    x_ = chains[at][0][1][name]
    panel.scatter(*x_.T, s=5, color=lab.plots.GREY, alpha=0.3)
    for i in range(10):
        panel.scatter(*x_[10 * i : 10 * i + 10].T, s=12)
    panel.set(title=name, xlabel="first dimension", ylabel="second dimension")

# %%
ten = [arms[name][at] for name in ("single linkage", "MDS", "Isomap")]
run.claim("functorial-manifold", "In two dimensions single linkage scaling finds more chains' own bases than MDS",
          ten[0], ten[1], margin=0.1, data="DNA simulation")

# %%
five = [[sum(one[name] for one in each) / 4 for each in draws] for name in pair_]
run.claim("functorial-manifold", "In five dimensions single linkage scaling finds at least as many as MDS", *five, margin=0.0, data="DNA simulation")

# %%
run.claim("functorial-manifold", "Chains twice as long leave the ordering as it is, in two dimensions",
          *(arms[name][LENGTHS.index(20)] for name in pair_), margin=0.1, data="DNA simulation")

# %%
run.claim("functorial-manifold", "Single linkage scaling finds more than Isomap, which follows the chains by neighbours",
          ten[0], ten[2], margin=0.0, data="DNA simulation")

# %% [markdown]
# Second experiment: embed real digits, all at once, and classify the embedding by logistic regression from one half to
# the other. PCA is the simple rival. A seed's value is the mean of four draws of digits; UMAP, which takes longest, has
# only the first, and LUMAP is held against it on that one; MLCE takes as long and is tried in longer runs.

# %%
MANY, DRAWS = run.pick(quick=500, full=2000), 4
images_, labels_ = lab.data.digits("mnist")
FAST = {"PCA": lambda z, w, plain, dim: S.PCA(z, dim, whiten=False)(z), "LUMAP": lambda z, w, plain, dim: S.laplacian_eigenmaps(w, dim),
        "Laplacian of e⁻ᵈ": lambda z, w, plain, dim: S.laplacian_eigenmaps(plain, dim)}
SLOW = {"UMAP, all pairs": lambda z, w, plain, dim: S.embed_by_cross_entropy(w, dim, torch.Generator().manual_seed(0))}
if run.scale != "quick":
    SLOW["MLCE"] = lambda z, w, plain, dim: S.embed_by_cross_entropy(plain, dim, torch.Generator().manual_seed(0))


# %%
small_ = F.avg_pool2d(images_[:, None], 2).flatten(1)
draw = lambda seed: torch.randperm(4000, generator=torch.Generator().manual_seed(seed))[:MANY]
rows = [[draw(s + 1000 * i) for i in range(DRAWS)] for s in run.seeds]
drawn = [[S.embedding_accuracy(FAST, small_[r], labels_[r]) for r in each] for each in rows]
slow = [S.embedding_accuracy(SLOW, small_[each[0]], labels_[each[0]]) for each in rows]  # on the first draw only
scores = {name: {dim: [sum(one[name][dim] for one in each) / DRAWS for each in drawn] for dim in (2, 10)} for name in FAST}
scores |= {name: {dim: [one[name][dim] for one in slow] for dim in (2, 10)} for name in SLOW}
for name, each in scores.items():
    print(f"{name:18}", {dim: round(sum(v) / len(v), 3) for dim, v in each.items()})

# %%
run.claim("functorial-manifold", "In ten dimensions LUMAP's logistic accuracy on digits is within three points of UMAP's",
          [each[0]["LUMAP"][10] for each in drawn], scores["UMAP, all pairs"][10], margin=-0.03, data="MNIST digits, 14×14")

# %%
run.claim("functorial-manifold", "In two dimensions LUMAP's logistic accuracy on digits is above PCA's",
          scores["LUMAP"][2], scores["PCA"][2], margin=0.03, data="MNIST digits, 14×14")

# %%
run.claim("functorial-manifold", "UMAP's graph, and not the Laplacian, is what LUMAP gains from: on e⁻ᵈ the Laplacian is worse in two dimensions",
          scores["LUMAP"][2], scores["Laplacian of e⁻ᵈ"][2], margin=0.05, data="MNIST digits, 14×14")

# %% [markdown]
# The bounds hold on what was tried, as theorems should. In two dimensions single linkage scaling is level with MDS at
# four mutations (the
# curve); at ten it leads with each seed, and whether by the margin is open; at twenty the lead is clear (*measured*).
# In five dimensions no difference shows; MDS may have room enough there (*our guess*). Isomap, with eight neighbours,
# is best by far at four mutations and lost at ten (*measured*) and twenty: once a chain is longer than the neighbours
# that the graph joins, the chains fall apart into pieces whose distances nobody knows (*our guess*). Single linkage has
# no such number to choose.
#
# On digits LUMAP is clearly ahead of PCA in two dimensions, and of the same Laplacian on plain strengths (*measured*),
# which is near PCA on average. So the graph counts; its few neighbours and its scale for each point are not told apart,
# since $e^{-d}$ has neither. In ten dimensions UMAP is ahead of LUMAP on average, by about the three points that were
# allowed, so it stays open.
#
# Longer runs have these experiments with three of the five seeds and more lengths of chains. Where something was clear in
# a minute the mean keeps its side; LUMAP's lead over PCA is no longer sure, and in five dimensions the mean crosses zero.
# MLCE is below UMAP there.

# %% [markdown]
# (tldr)=
# ## Neighbours instead of views: TLDR
# Features of 256 numbers an image are costly to store and to search. PCA makes them short, and asks only that they can be
# rebuilt. TLDR asks what a search needs: neighbours should stay neighbours, and no number of the code should repeat
# another. That is Barlow Twins with a *neighbour* in place of a second view,
#
# $$\mathcal L = \sum_i (1 - C_{ii})^2 + \lambda \sum_{i\neq j} C_{ij}^2, \qquad C = \frac1N \hat g(f(x))^\top\, \hat g(f(x^{+})) .$$
#
# $x$ is a feature vector and $x^+$ one of its $k$ nearest neighbours, found once; $f$ is the encoder, a *linear* map,
# $g$ a wide projector that is thrown away, the hat standardises each output over the batch of $N$; $C$, no longer the
# codes above, is the correlation between the two, and $\lambda$ is 0.0039 as in the released code. The loss is that of
# [Barlow Twins](../self_supervision/redundancy.ipynb), imported. The rival nearest in spirit, locality preserving
# projections (LPP), solves for the linear map whose codes vary least between neighbours.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A feature vector and one of its nearest neighbours go through the same linear encoder to short codes and through the same projector to the correlation matrix, which the loss compares with the identity. After training only the encoder stays."}, "figure": {"caption": "TLDR. The pair comes from the neighbour graph of the input; the projector leaves after training.", "name": "fig-tldr-diagram"}}
parts = {
    "x": (0, 0), "neighbour\n$x^+$": (0, 1), "linear f": (1.2, 0.5, "trained"), "codes": (2.2, 0.5),
    "projector g": (3.3, 0.5, "trained"), "C against\nidentity": (4.6, 0.5, "loss"),
}
arrows = [("x", "linear f"), ("neighbour\n$x^+$", "linear f"), ("x", "neighbour\n$x^+$", "graph"), ("linear f", "codes"), ("codes", "projector g"),
          ("projector g", "C against\nidentity")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(S.nearest_neighbours, S.TLDR)

# %%
lab.show(S.LPP)

# %%
features, _ = run.once("features", start_features)
DIMENSIONS = run.pick(quick=(8, 16, 32), long=(2, 4, 8, 16, 32, 64), full=(8, 16, 32, 64, 128))
FIT = run.pick(quick=dict(steps=150, lr=2e-2, batch_size=128, hidden=(256, 256)), full=dict(steps=4000, batch_size=1024, lr=1e-3, hidden=(2048, 2048)))
pair = {s: S.nearest_neighbours(f.x, 5) for s, f in zip(run.seeds, features)}


def tldr(dim, partner=None, **options):
    """mAP and kNN of TLDR's codes for every seed; one neighbour in five is drawn where no other partner is named."""
    make = lambda s, f: S.learn_tldr(f.x, pair[s] if partner is None else partner(s, f), dim, s, **FIT | options)
    return [S.searched(make(s, f), f, stage.neighbours) for s, f in zip(run.seeds, features)]


# %%
codes = {"TLDR": [tldr(dim) for dim in DIMENSIONS]}
for name, make in (("PCA", lambda s, f, d: S.PCA(f.x, d, whiten=False)), ("whitened PCA", lambda s, f, d: S.PCA(f.x, d)),
                   ("LPP", lambda s, f, d: S.LPP(f.x, pair[s], d))):
    codes[name] = [[S.searched(make(s, f, d), f, stage.neighbours) for s, f in zip(run.seeds, features)] for d in DIMENSIONS]
whole = [S.searched(torch.nn.Identity(), f, stage.neighbours) for f in features]
arms = {name: [[one[0] for one in each] for each in rows] for name, rows in codes.items()}

# %% mystnb={"image": {"alt": "Retrieval mAP over the dimension of the code for TLDR, PCA, whitened PCA and LPP, with a dashed line at the whole features. At eight dimensions LPP is the highest and whitened PCA second, at sixteen TLDR and LPP are level, at thirty-two TLDR is the highest; PCA lies below TLDR throughout."}, "figure": {"caption": "Retrieval by short codes, in mean average precision (mAP): images of the same class are hits. Dashes: all 256 numbers of the feature, in this run.", "name": "fig-tldr-dims"}}
found = run.curve("tldr", "mAP over the dimension of the code", DIMENSIONS, arms, "dimensions", "retrieval mAP", log=True)
_ = lab.plots.curve(found, floor=sum(one[0] for one in whole) / len(whole))

# %%
at = DIMENSIONS.index(16)
mine = arms["TLDR"][at]
run.claim("tldr", "At 16 dimensions linear TLDR has a higher retrieval mAP than PCA", mine, arms["PCA"][at], margin=0.01)

# %%
run.claim("tldr", "At 16 dimensions linear TLDR has a higher retrieval mAP than whitened PCA", mine, arms["whitened PCA"][at], margin=0.01)

# %%
run.claim("tldr", "At 16 dimensions linear TLDR has a higher retrieval mAP than locality preserving projections", mine, arms["LPP"][at], margin=0.0)

# %%
at32 = {name: each[DIMENSIONS.index(32)] for name, each in arms.items()}
run.claim("tldr", "At 32 dimensions linear TLDR has a higher retrieval mAP than PCA", at32["TLDR"], at32["PCA"], margin=0.01)

# %%
run.claim("tldr", "At 32 dimensions linear TLDR has a higher retrieval mAP than whitened PCA", at32["TLDR"], at32["whitened PCA"], margin=0.01)

# %%
run.claim("tldr", "At 32 dimensions linear TLDR has a higher retrieval mAP than locality preserving projections", at32["TLDR"], at32["LPP"], margin=0.0)

# %%
run.claim("tldr", "Sixteen times shorter, TLDR's codes retrieve as well as the whole features", mine, [one[0] for one in whole], margin=0.0)

# %%
run.claim("tldr", "Sixteen times shorter, TLDR's codes lose at most two points of kNN accuracy of the whole features",
          [one[1] for one in codes["TLDR"][at]], [one[1] for one in whole], margin=-0.02)

# %% [markdown]
# Which part does it? Other losses (rebuild the input through the projector; a contrastive one), other pairs (noise
# instead of a neighbour, a stranger, an image of the same class), other shapes, other neighbourhoods; among these,
# neighbours found by *product quantisation*: cut each vector into four parts and keep of each only the nearest of
# sixteen learnt words.

# %%
noisy = lambda s, f: lambda i, g: f.x[i] + 0.5 * torch.randn(f.x[i].shape, generator=g, device=f.x.device)
strange = lambda s, f: torch.randint(len(f.x), (len(f.x), 5), generator=run.generator(s), device=f.x.device)
alike = lambda s, f: torch.stack([torch.where(f.y == c)[0][torch.randint(int((f.y == c).sum()), (5,))] for c in f.y.tolist()])
rebuild = lambda a, b, x: F.mse_loss(a, x)
contrast = lambda a, b, x: C.nt_xent(torch.cat([a, b]), 0.2)
wide = features[0].x.shape[1]
variants = {"MSE": tldr(16, loss=rebuild, hidden=(*FIT["hidden"][:1], wide)), "no projector": tldr(16, hidden=()),
            "noise pairs": tldr(16, noisy)}
longer = lambda: {"contrastive": tldr(16, loss=contrast), "strangers": tldr(16, strange), "same class": tldr(16, alike),
                  "perceptron": tldr(16, encoder=(64,)), "factorised": tldr(16, encoder=(64,), bend=False)}
variants |= run.pick(quick=dict, long=longer, full=longer)()

# %% mystnb={"image": {"alt": "Horizontal bars of retrieval mAP at sixteen dimensions: TLDR and, a little lower, its variants without a projector and with reconstruction; with noise pairs it falls below PCA."}, "figure": {"caption": "Sixteen dimensions: TLDR and its variants. Dashes: PCA.", "name": "fig-tldr-variants"}}
told = {"TLDR": mine} | {name: [one[0] for one in each] for name, each in variants.items()}
lab.plots.bars(lab.plots.axes(1, 6, 2.2)[1], told, "retrieval mAP", chance=sum(arms["PCA"][at]) / len(run.seeds))

# %%
run.claim("tldr", "Barlow Twins on neighbours retrieves better than rebuilding the input through the same projector", mine, told["MSE"], margin=0.01)

# %%
run.claim("tldr", "The projector is needed for the gain", mine, told["no projector"], margin=0.01)

# %%
NEAR = run.pick(quick=(5, 50), long=(1, 3, 5, 20, 100), full=(1, 3, 5, 20, 100))
coarse = lambda k: lambda s, f: S.nearest_neighbours(S.quantise(f.x, 4, 16, s), k)
exactly = lambda k: lambda s, f: S.nearest_neighbours(f.x, k)
swept = {"exact search": [told["TLDR"] if k == 5 else [one[0] for one in tldr(16, exactly(k))] for k in NEAR]}
found = run.curve("tldr", "mAP over the number of neighbours", NEAR, swept, "neighbours", "retrieval mAP", log=True)

# %%
run.claim("tldr", "Ten times as many neighbours change mAP by less than two points", swept["exact search"][-1], mine, margin=-0.02)

# %%
run.claim("tldr", "Neighbours are better partners than noisy copies", mine, told["noise pairs"], margin=0.01)

# %%
quantised = [one[0] for one in tldr(16, coarse(5))]
run.claim("tldr", "Neighbours found by product quantisation of two bytes are as good within one point of mAP", quantised, mine, margin=-0.01)

# %%
if run.scale != "quick":
    run.claim("tldr", "A perceptron as encoder brings less than one point of mAP over the linear one", mine, told["perceptron"], margin=-0.01)
    run.claim("tldr", "Barlow Twins on neighbours retrieves better than a contrastive loss on them", mine, told["contrastive"], margin=0.0)
    HIDDEN = (32, 128, 512)
    widths = [[one[0] for one in tldr(16, hidden=(w, w))] for w in HIDDEN]
    run.curve("tldr", "mAP over the width of the projector", HIDDEN, {"TLDR": widths}, "hidden width", "retrieval mAP", log=True)

# %% [markdown]
# **The longest runs first**, since they disagree with the paper, and with the minute in one point: trained four times as
# long TLDR is clearly *worse* with its projector than without (*reversed*), and the narrower the projector the better
# (the curve of longer runs). The lead over whitened PCA stays (*measured*). That over PCA is there with each of three
# seeds, and whether by the margin is open. LPP is ahead on average up to sixteen dimensions. Sixteen numbers still
# retrieve better than all 256 (*measured*); whether they lose more than two points of kNN accuracy is open. Noisy copies
# and quantised neighbours stay worse, and many more neighbours now do better than five (*measured*). *Our
# guess*: what five neighbours share beyond the class takes room, and a wide projector leaves more of it in the code. A
# perceptron as encoder is ahead of the linear one by more than a point (*measured*), against the paper, which finds
# linear encoders as good.
#
# In a minute sixteen numbers retrieve better than all 256, and lose at most two points of kNN accuracy (*measured*). At
# sixteen and at thirty-two dimensions TLDR is clearly ahead of plain and of whitened PCA (*measured*). LPP is close to
# it at sixteen, where the order is open, and ahead at eight, as is whitened PCA (the curve); at thirty-two both fall
# off and TLDR does not: their last directions are noise at full weight (*our guess*).
#
# Neighbours are better partners than noisy copies (*measured*), at the one level of noise tried; with these mAP falls
# below PCA's on average. The projector, and Barlow Twins in place of reconstruction, are ahead on average, and the seeds
# settle neither. Ten times as many neighbours, twenty times in longer runs, do not cost the two points allowed; in
# longer runs they even gain (*measured*). Neighbours found by product quantisation of two bytes cost more than the
# point that was allowed (*measured*),
# against the paper: our code is very coarse, and many a neighbour is then of another class (*our guess*).
#
# The gain over PCA is smaller than the paper's on landmarks. *Our guess*: SimCLR has already made the features agree
# between views and spread them evenly, so that less is left to remove.

# %% [markdown]
# ## Where the chapter ends
# The clustering methods side by side, in the measure on which most claims rest.

# %% mystnb={"image": {"alt": "Horizontal bars of NMI: pixels, untrained, k-means, spectral, EnSC, SCAN, NMCE, MLC and CPP on frozen features, and a linear probe with all labels."}, "figure": {"caption": "NMI of all ways to cluster the test images. Dashes: k-means on the untrained encoder.", "name": "fig-subspaces-results"}}
if results:
    lab.plots.bars(lab.plots.axes(1, 6.5, 3.6)[1], results, "NMI", chance=sum(results["untrained, k-means"]) / len(run.seeds))

# %%
if results:
    run.summarise("NMI of clusters and classes", results, floor="untrained, k-means", ceiling="linear probe, all labels")

# %% [markdown]
# :::{dropdown} Statements that were changed after a look
# What stands on this page was measured on seeds 5 to 9, which took no part in any choice of a statement or a margin. A
# first draft was measured on seeds 0 to 4, and its list of statements was changed after that look:
#
# | paper | statement | verdict on seeds 0 to 4 | now |
# |:--|:--|:--|:--|
# | CRATE-MAE | The linear probe of CRATE-MAE is within three points of ViT-MAE's | untaught | in longer runs only |
# | Functorial manifolds | Chains twice as long leave the ordering as it is, in two dimensions | supported | back: a draft had asked it of the longest chains, of 14, instead |
# | TLDR | Neighbours are better partners than noisy copies | inconclusive | back |
# | TLDR | Neighbours found by product quantisation of two bytes are as good within one point of mAP | reversed | back |
#
# The three statements about 32 dimensions were added when the curve of seeds 0 to 4 had been seen. Settings were chosen
# on seeds and images of their own, again before seeds 5 to 9 were run. No margin was changed.
# :::

# %% [markdown]
# ## What carries over
# Each statement with its verdict and mean difference at every length that was measured, under what its paper reports. A
# dash
# means: not measured at that length.

# %%
run.carry_over()

# %% [markdown]
# ## Exercises
# ````{exercise-start} When does grouping pay?
# :label: ex-subspaces-reduction
# ````
# Two classes of $n/2$ unit vectors lie in two orthogonal lines. What are $R(Z)$, $R_c(Z, \Pi)$ for the true classes,
# and for
# one group of all? Check in two dimensions with $\varepsilon^2 = 0.1$.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-subspaces-reduction
# :class: dropdown
# ````
# With $d=2$ the Gram matrix is $\tfrac n2 I$, so $R = \log(1 + 1/\varepsilon^2)$; each class has one direction with
# $\tfrac12
# \log(1 + 2/\varepsilon^2)$, and both weigh one half. One group of all has $R_c = R$: nothing is gained.

# %%
# NBVAL_CHECK_OUTPUT
import math

z = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
classes = torch.eye(2).repeat_interleave(4, 0)
print(round(float(S.coding_rate(z)), 3), round(math.log(11), 3))
print(round(float(S.segmented_rate(z, classes)), 3), round(0.5 * math.log(21), 3), round(float(S.segmented_rate(z, torch.ones(8, 1))), 3))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Who leaves the truth?
# :label: ex-subspaces-mask
# ````
# Start both objectives at the true atoms with *no* noise. Does reconstruction still leave them?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-subspaces-mask
# :class: dropdown
# ````
# Hardly: the signals are rebuilt nearly without error already, so there is nothing to lean towards. What drives the atoms
# away is the noise.

# %%
g = torch.Generator().manual_seed(3)
a = S.planted_dictionary(40, 20, g)
for level in (0.0, 0.2):
    y_ = S.sparse_signals(a, 200, 2, level, g)
    begin = torch.cat([a, F.normalize(S.sparse_signals(a, 40, 2, level, g), dim=1)])
    b = S.learn_dictionary(torch.stack([y_, y_]), torch.stack([begin, begin]), 2, torch.tensor([1.0, 0.9]), epochs=20, batch_size=50, lr=1e-3, generator=g)
    print(f"noise {level}: reconstruction and masking end at", [round(v, 4) for v in S.recovery_error(a, b).tolist()])

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For
# instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} Rate reduction from its equation
# :label: ex-rate-reduction
# ````
# Write the rate reduction of features $Z$ ($n\times d$) and a membership $\Pi$ ($n\times k$, non-negative, columns of
# any sum $w_j$):
#
# $$\Delta R = \tfrac12\log\det\Bigl(I + \tfrac{d}{n\varepsilon^2} Z^\top Z\Bigr) - \sum_j \frac{w_j}{2n}\log\det\Bigl(I + \tfrac{d}{w_j\varepsilon^2} Z^\top\mathrm{diag}(\pi_j) Z\Bigr).$$
#
# What is it for a single column of ones?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-rate-reduction
# :class: dropdown
# ````
# For one group of all it is 0. `torch.logdet` takes a stack of matrices, and `einsum` makes the stack.

# %% tags=["task:rate-reduction"]
import torch


def rate_reduction(z, p, eps2=0.1):
    """The rate reduction, a scalar, of features z (n, d) and membership p (n, k)."""
    ### BEGIN SOLUTION
    n, d = z.shape
    eye = torch.eye(d, dtype=z.dtype)
    whole = torch.logdet(eye + d / (n * eps2) * z.T @ z) / 2
    w = p.sum(0)
    grams = torch.einsum("ik,ia,ib->kab", p, z, z)
    parts = torch.logdet(eye + d / (w[:, None, None] * eps2) * grams) / 2
    return whole - (w / n * parts).sum()
    ### END SOLUTION


# %% tags=["task-tests:rate-reduction:3", "remove-cell"]
z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
assert abs(float(rate_reduction(z, torch.ones(4, 1)))) < 1e-4, "one group of all gains nothing"
p = torch.eye(2).repeat_interleave(2, 0)
assert abs(float(rate_reduction(z, p)) - 0.8756) < 1e-3, "two orthogonal lines: log 11 less half of log 21"
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(0)
z, p = torch.randn(9, 3, dtype=torch.float64, generator=g), torch.rand(9, 4, dtype=torch.float64, generator=g)
for eps2 in (0.1, 0.7):
    want = float(torch.linalg.slogdet(torch.eye(3) + 3 / (9 * eps2) * z.T @ z)[1]) / 2
    for j in range(4):
        w = float(p[:, j].sum())
        m = torch.eye(3, dtype=torch.float64)
        for i in range(9):
            m = m + 3 / (w * eps2) * float(p[i, j]) * torch.outer(z[i], z[i])
        want -= w / 18 * float(torch.linalg.slogdet(m)[1])
    assert abs(float(rate_reduction(z, p, eps2)) - want) < 1e-4
### END HIDDEN TESTS

# %% tags=["task-tests:rate-reduction:2", "remove-cell"]
z = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2))).Q
p = torch.rand(8, 2, generator=torch.Generator().manual_seed(3))
assert abs(float(rate_reduction(z @ turn, p) - rate_reduction(z, p))) < 1e-3, "turning the features changes nothing"
### BEGIN HIDDEN TESTS
order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
assert abs(float(rate_reduction(z[order], p[order]) - rate_reduction(z, p))) < 1e-3, "the order of the samples"
z = z.double().requires_grad_()
rate_reduction(z, p.double()).backward()
step = torch.zeros_like(z)
step[2, 1] = 1e-4
slope = float(rate_reduction(z.detach() + step, p.double()) - rate_reduction(z.detach() - step, p.double())) / 2e-4
assert abs(float(z.grad[2, 1]) - slope) < 1e-4, "the gradient"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z, p = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.rand(12, 3, generator=torch.Generator().manual_seed(1))
print("as the package has it:", torch.allclose(rate_reduction(z, p), S.coding_rate(z) - S.segmented_rate(z, p), atol=1e-4))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} One step of ISTA
# :label: ex-ista
# ````
# CRATE sparsifies by one proximal gradient step of $\tfrac12\lVert z_0 - D z\rVert^2 + \lambda \lVert z\rVert_1$ over
# $z \ge 0$, begun at $z = z_0$. Write it for tokens in the *rows* of $Z$:
# $z^+ = \mathrm{relu}(z + s D^\top(z - D z) - s\lambda)$.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-ista
# :class: dropdown
# ````
# For rows $D z$ is `z @ D.T` and $D^\top r$ is `r @ D`.

# %% tags=["task:ista"]
import torch


def ista_step(z, d, s=0.1, lam=0.5):
    """Tokens z (n, w) after one step with dictionary d (w, w)."""
    ### BEGIN SOLUTION
    left = z - z @ d.T
    return torch.relu(z + s * (left @ d) - s * lam)
    ### END SOLUTION


# %% tags=["task-tests:ista:3", "remove-cell"]
z = torch.tensor([[2.0, 0.02], [-1.0, 3.0]])
assert torch.allclose(ista_step(z, torch.eye(2)), torch.tensor([[1.95, 0.0], [0.0, 2.95]]), atol=1e-4), "the identity leaves only the threshold"
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(0)
z, d = torch.randn(5, 4, generator=g), torch.randn(4, 4, generator=g)
for s, lam in ((0.1, 0.5), (0.3, 0.0)):
    for i in range(5):
        row = z[i]
        want = row + s * (d.T @ (row - d @ row)) - s * lam
        assert torch.allclose(ista_step(z, d, s, lam)[i], want.clamp(min=0), atol=1e-4)
### END HIDDEN TESTS

# %% tags=["task-tests:ista:1", "remove-cell"]
z = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
assert float(ista_step(z, torch.eye(4), 0.1, 100.0).abs().sum()) == 0, "a high threshold leaves nothing"
### BEGIN HIDDEN TESTS
d = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2))).Q
assert float(ista_step(z, d).min()) >= 0, "tokens are not negative"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z, d = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
print("as the package has it:", torch.allclose(ista_step(z, d), S.ista(z, d), atol=1e-5))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [Redundancy reduction](../self_supervision/redundancy.ipynb) has the loss that TLDR borrows, and whitening, which a
# large
# coding rate asks for as well. [Contrastive learning](../self_supervision/contrastive.ipynb) trains the encoder that was
# frozen here.

# %%
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
