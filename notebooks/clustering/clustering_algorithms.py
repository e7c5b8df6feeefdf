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
# # Clustering algorithms
#
# k-means is the first clustering that everybody learns, and each paper of this chapter takes away one of the things
# that it takes for granted: that clusters are round, that the start does not matter, that the number of clusters is
# known, that an assignment cannot be differentiated, that Euclidean distance is the right one, that the answer needs no
# explanation. And four ask the question before all that (the topological score, MNIST-Nd, money laundering, PPP): is
# there
# anything to be found, and would we notice?
#
# **You will be able to**
# - write the likelihood of a partition so that no centroid appears, relax it to a semidefinite programme, solve it and,
#   where the covariances are given, say from a certificate how good the answer is;
# - cluster a complete graph without its n×n matrix and without a number of clusters;
# - train centroids by completing hidden coordinates, and say what the temperature does;
# - explain a cluster by a few inequalities, found by column generation;
# - tell agreement between runs from being right, and an index inside an embedding from one outside;
# - evaluate log I and log K to the last bits, and fit von Mises–Fisher mixtures in thousands of dimensions.
#
# **You should know** k-means, the normal distribution, eigenvalues, and what a linear programme is. **Run time:** about
# a minute on a laptop for one seed of the *quick* run, whose five seeds made this page. A *long* run has more rows,
# starts and steps, up to four times as many, on three seeds; a *full* run is for a larger machine. Where the two that
# were run differ the text says which it means.

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
import torch

import labcode as lab
from labcode.clustering import clustering_algorithms as C
from labcode.clustering.clustering_algorithms import tables, trials

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map. k-means, at the left, leads to iLA-SDP, ClAM, log Bessel and PPP; persistence leads to PPP too. ClusterFuG, MNIST-Nd, AML and polyhedra stand without arrows."}, "figure": {"caption": "What each paper changes about k-means. An arrow leads to a paper that answers, or that judges.", "name": "fig-clustering-algorithms-family"}}
PAPERS = {
    "k-means": (0, 1.5, "explained elsewhere"), "iLA-SDP": (1.3, 0, "another objective"), "ClAM": (1.3, 1, "another objective"),
    "log Bessel": (1.3, 2, "another objective"), "PPP": (1.3, 3, "is it there?"), "ClusterFuG": (2.6, 0, "another objective"),
    "MNIST-Nd": (2.6, 1, "is it there?"), "AML": (2.6, 2, "is it there?"), "persistence": (2.6, 3, "is it there?"),
    "polyhedra": (3.9, 1.5, "what is it?"),
}
ARROWS = [("k-means", "iLA-SDP"), ("k-means", "ClAM"), ("k-means", "log Bessel"), ("k-means", "PPP"), ("persistence", "PPP")]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("clustering/clustering_algorithms", first_seed=5)
run.data = "Gaussians (ours)"
TABLES, DIGITS = "iris, wine and breast cancer (scikit-learn)", "MNIST digits (5,000)"
TRAIN, TEST = ((0, 3200), (3200, 4000)) if run.tuning else ((0, 4000), (4000, 5000))
N, STEPS, STARTS = run.pick(quick=(40, 60, 2), long=(50, 160, 3), full=(120, 400, 10))  # of the semidefinite programmes
EPOCHS = run.pick(quick=100, long=400, full=800)  # of ClAM
if run.dry:
    N, STEPS, STARTS, EPOCHS = 24, 20, 2, 2
run

# %% [markdown]
# Every experiment is a function of the package, `trials`, that takes settings and a seed and gives numbers; the seed
# draws the data, or which rows of a table are seen, and all starts. Two helpers collect them, at one setting and along
# an axis. Each result below is a statement with a verdict: [How to read a
# verdict](../../book/how_to_use.md#how-to-read-a-verdict).
#
# Through the chapter $x_1 \dots x_n$ are the rows of a table with $d$ columns, $k$ is the number of clusters, $i$ and
# $j$ count rows. Mis-clustering error is the share of rows in the wrong cluster under the best matching of clusters and
# classes; the adjusted Rand index (ARI) is 0 for chance and 1 for the classes; the silhouette compares, for each row,
# the distance to its own cluster with that to the next, and knows no classes.


# %%
def each(measure):
    """{name: one value a seed} of a measurement that takes a seed."""
    rows = [measure(seed) for seed in run.seeds]
    return {name: [row[name] for row in rows] for name in rows[0]}


def along(axis, measure):
    """{name: for each point one value a seed} of a measurement that takes a point and a seed."""
    points = [each(lambda seed, at=at: measure(at, seed)) for at in axis]
    return {name: [point[name] for point in points] for name in points[0]}


def of(arms, *names):
    """Some of the arms."""
    return {name: arms[name] for name in names}


# %% [markdown]
# Two tools serve all sections, and any other chapter. Small problems are started many times over, so k-means and
# mixtures run **all their restarts in one batch**: one product an iteration, whatever their number. For a mixture of
# Gaussians, with responsibilities $\tau_{ik}$ of component $k$ for row $i$, the E and the M step are
#
# $$\tau_{ik} \propto \pi_k\, \mathcal N(x_i; \mu_k, \Sigma_k), \qquad \mu_k = \tfrac{1}{n_k}\sum_i \tau_{ik} x_i, \quad
# \Sigma_k = \tfrac1{n_k} \sum_i \tau_{ik} (x_i - \mu_k)(x_i - \mu_k)^\top, \quad \pi_k = n_k / n,$$
#
# where $n_k = \sum_i \tau_{ik}$, $\pi_k$ is the weight of a component, $\mu_k$ its mean and $\Sigma_k$ its covariance.
# For Student's t, each row is weighted down by its distance besides.

# %%
lab.show(C.gaussian_mixture, start="powers, shares = _powers", end="return GaussianMixture")

# %%
# NBVAL_CHECK_OUTPUT
x, y = tables.table("iris", 0)
mixtures = C.gaussian_mixture(x, 3, restarts=8, covariance="full", generator=run.generator(0))
print("restarts:", len(mixtures.score), "| all ended in one place:", bool(mixtures.score.std() < 1e-3))

# %% [markdown]
# (ila-sdp)=
# ## The likelihood without centroids
# k-means wants round clusters of one size. A mixture of Gaussians allows any ellipsoids, but EM climbs from where it
# starts and stays on the next best hill. Write the likelihood of a *partition* instead, with the best mean of each
# group put in. Squared distances from a group's mean sum to half the sum over its pairs, divided by its size. So means
# vanish, and pairs stay:
#
# $$\max \sum_k \langle A_k, Z_k\rangle, \qquad
# A_k(i,j) = -\tfrac12 (x_i - x_j)^\top \Sigma_k^{-1} (x_i - x_j) - \log\det\Sigma_k, \qquad Z_k = \tfrac{1}{n_k} 1_{G_k} 1_{G_k}^\top .$$
#
# $G_k$ is group $k$ with $n_k$ rows, $1_{G_k}$ its indicator, $\Sigma_k$ its covariance and $\langle\cdot,\cdot\rangle$
# the sum of products of entries. The matrices $Z_k$ are the only unknowns, and the objective, twice the log-likelihood
# up to a constant, is linear in them. This is what *likelihood adjusted* means: the relaxation of k-means by Peng and
# Wei has one $Z$ and plain squared distances, here every group has its own matrix and its own distances, $\log\det$
# included. Dropped is the rule that $Z_k$ has rank one and entries $0$ or $1/n_k$. Kept is what is convex,
#
# $$Z_k \succeq 0, \qquad Z_k \ge 0, \qquad \operatorname{tr} Z_k = 1, \qquad \textstyle\sum_k Z_k 1 = 1 .$$
#
# With $\Sigma_k$ known that is LA-SDP. iLA-SDP solves it, and in turn sets, with the rows in $X$ and again without a
# mean, $\Sigma_k = X^\top(\operatorname{diag}(Z_k 1) - Z_k)X / (1^\top Z_k 1)$.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram of a loop. Rough labels give covariances; these give affinities; a semidefinite programme gives lifted matrices Z; these give new covariances, and in the end labels."}, "figure": {"caption": "iLA-SDP. Groups are matrices from beginning to end; a label is the group that holds most of a row.", "name": "fig-ila-diagram"}}
parts = {"rough\nlabels": (0, 1), "covariances": (1.2, 1, "trained"), "affinities\n$A_k$": (2.4, 0),
         "semidefinite\nprogramme": (3.6, 1, "loss"), "$Z_k$": (2.4, 2, "trained"), "labels": (3.6, 2.4)}
arrows = [("rough\nlabels", "covariances"), ("covariances", "affinities\n$A_k$"), ("affinities\n$A_k$", "semidefinite\nprogramme"),
          ("semidefinite\nprogramme", "$Z_k$"), ("$Z_k$", "covariances"), ("$Z_k$", "labels")]
_ = lab.plots.diagram(parts, arrows, width=6.2)

# %%
lab.show(C.likelihood_affinity)

# %% [markdown]
# The programme is solved by ADMM, the alternating direction method of multipliers: three copies of $Z$, one for each
# kind of constraint, are made to agree, and `u` and `w` add up by how much they do not. Traces and row sums are
# projected on in closed form, the cone by eigenvalues, the signs by clipping.

# %%
lab.show(C.solve_lifted, start="psd, positive, u, w = state", end="break")

# %% [markdown]
# A solver that stops early is caught by its **certificate**. For any row multipliers $\mu$ and any $B_k \ge 0$ no
# feasible $Z$ has more than $\sum_i \mu_i + \sum_k \lambda_{\max}(A_k + B_k - \tfrac12(\mu 1^\top + 1 \mu^\top))$,
# where $\lambda_{\max}$ is the largest eigenvalue. As row sums are 1, what $\mu$ takes off inside it adds in front;
# $\langle B_k, Z_k\rangle$ is not negative; and a $Z_k \succeq 0$ of trace 1 gets at most the largest eigenvalue. So
# ADMM's multipliers bound what any partition could reach with *these* $\Sigma_k$. If the labels that we read off reach
# the bound, no partition is better.

# %%
lab.show(C.solve_lifted, start="shares = positive", end="return Lifted")

# %%
exact = each(lambda seed: trials.recovered(N, 4, 8.0, seed, 8 * STEPS))
run.exact("ila-sdp", "With covariances known and centroids far apart the relaxation returns the groups without a mistake",
          max(exact["error"]), at_most=0.0)

# %%
run.exact("ila-sdp", "Its labels reach the dual bound to one per cent, so no other partition is more than that better",
          max(exact["gap"]), at_most=0.01)

# %%
run.exact("ila-sdp", "With equal covariances the lifted programme has the value of Peng and Wei's relaxation of k-means",
          max(trials.equal_shapes(24, 3, 3.0, seed, 6 * STEPS) for seed in run.seeds), at_most=2e-3)

# %% [markdown]
# Now two groups of different shape: each is long where the other is thin. EM and iLA-SDP start from the same rough
# clusterings, two Lloyd steps from k-means++ seeds, and each keeps the start that is best by its own objective. In
# eight dimensions, where the statements are made, every seed is the mean of `DRAWS` draws of the data.

# %%
DIMS = run.pick(quick=(2, 4, 8, 12), long=(2, 4, 8, 12, 16), full=(2, 4, 8, 16, 32))
over_d = along(DIMS, lambda d, seed: trials.shaped(*tables.shapes(N, d, 2.0, seed)[:2], 2, seed, STARTS, STEPS, tables.shapes(N, d, 2.0, seed)[2]))
GAPS = run.pick(quick=(1.0, 2.0, 4.0, 8.0), long=(0.5, 1.0, 2.0, 4.0, 8.0), full=(0.5, 1.0, 2.0, 4.0, 8.0))
over_gap = along(GAPS, lambda gap, seed: trials.shaped(*tables.shapes(N, 4, gap, seed)[:2], 2, seed, 1, STEPS, tables.shapes(N, 4, gap, seed)[2]))
ARMS = ("iLA-SDP", "LA-SDP, known", "EM", "k-means", "k-means SDP")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four scatter plots of the same rows in two dimensions, a long and a thin cloud that cross: classes, k-means, EM and iLA-SDP. k-means cuts the clouds straight across."}, "figure": {"caption": "Two groups that cross: the classes, and what three methods make of them. k-means cuts across.", "name": "fig-ila-shapes"}}
x, y, _ = tables.shapes(2 * N, 2, 3.0, run.seeds[0])
rough = C.many_kmeans(x, 2, restarts=3, generator=run.generator(0), iterations=2).labels
em = C.gaussian_mixture(x, 2, restarts=3, covariance="full", generator=run.generator(0), start=rough)
ila = C.ila_sdp(x, 2, rough[:1], rounds=3, steps=STEPS)
shown = {"classes": y, "k-means": rough[0], "EM": em.predict(x)[em.best], "iLA-SDP": ila.labels[0]}
figure, panels = lab.plots.axes(4, 7, 1.9, sharey=True)
for panel, (name, labels) in zip(panels, shown.items()):
    panel.scatter(*x.T, c=[lab.plots.COLOURS[int(c)] for c in C.matched(labels[None], y, 2)[0]], s=8)
    panel.set(title=name, xlabel="$x_1$")
_ = panels[0].set_ylabel("$x_2$")

# %% mystnb={"image": {"alt": "Mis-clustering error against the dimension, for iLA-SDP, LA-SDP with known covariances, EM, k-means and the k-means relaxation. With known covariances it falls to zero; with estimated ones it grows with the dimension."}, "figure": {"caption": "Error over the dimension. Known shapes make more dimensions easier, estimated ones make them harder.", "name": "fig-ila-dimension"}}
found = run.curve("ila-sdp", "error over the dimension", DIMS, of(over_d, *ARMS), "dimension d", "mis-clustering error")
_ = lab.plots.curve(found, 5.2, 2.2)

# %%
found = run.curve("ila-sdp", "error over the distance of the means", GAPS, of(over_gap, *ARMS), "distance of the means", "mis-clustering error", log=True)
found

# %%
DRAWS = run.pick(quick=8, long=6, full=8)  # of the data, for every seed
at8 = each(lambda seed: trials.averaged(lambda s: trials.shaped(*tables.shapes(N, 8, 2.0, s)[:2], 2, s, 3, STEPS, tables.shapes(N, 8, 2.0, s)[2]), seed, DRAWS))
run.claim("ila-sdp", "On groups of different shape in eight dimensions iLA-SDP errs less than k-means",
          at8["iLA-SDP"], at8["k-means"], margin=0.05, higher_is_better=False)

# %%
run.claim("ila-sdp", "On groups of different shape in eight dimensions iLA-SDP errs less than the relaxation of k-means",
          at8["iLA-SDP"], at8["k-means SDP"], margin=0.05, higher_is_better=False)

# %%
run.claim("ila-sdp", "On groups of different shape in eight dimensions iLA-SDP errs less than EM from the same starts",
          at8["iLA-SDP"], at8["EM"], margin=0.03, higher_is_better=False)

# %%
run.claim("ila-sdp", "Covariances known instead of estimated make the error in eight dimensions smaller by five points",
          at8["LA-SDP, known"], at8["iLA-SDP"], margin=0.05, higher_is_better=False)

# %%
rise = lambda name: [b - a for a, b in zip(over_d[name][0], over_d[name][DIMS.index(12) if 12 in DIMS else -1])]
run.claim("ila-sdp", "From two to twelve dimensions the error of iLA-SDP grows less than that of EM",
          rise("iLA-SDP"), rise("EM"), margin=0.0, higher_is_better=False)

# %%
run.claim("ila-sdp", "Over the starts the error of iLA-SDP has a smaller standard deviation than that of EM",
          at8["iLA-SDP, spread"], at8["EM, spread"], margin=0.0, higher_is_better=False)

# %%
run.claim("ila-sdp", "Averaged over the starts iLA-SDP errs less than EM",
          at8["iLA-SDP, mean of starts"], at8["EM, mean of starts"], margin=0.02, higher_is_better=False)

# %% [markdown]
# A start made to trap: half of the first group alone in one cluster, all other rows in the other. And tables with
# classes.

# %%
trap = each(lambda seed: trials.averaged(lambda s: trials.trapped(N, 4, 4.0, s, STEPS), seed, DRAWS // 2))
run.claim("ila-sdp", "From a start with both centroids on one group iLA-SDP errs less than EM",
          trap["iLA-SDP"], trap["EM"], margin=0.05, higher_is_better=False)

# %%
run.claim("ila-sdp", "From a start with both centroids on one group iLA-SDP errs less than k-means",
          trap["iLA-SDP"], trap["k-means"], margin=0.05, higher_is_better=False)

# %%
real = each(lambda seed: trials.averaged(lambda s: trials.shaped(*tables.table("iris", s, 60), 3, s, 2, STEPS), seed, 2))
run.claim("ila-sdp", "On 60 rows of iris iLA-SDP errs less than k-means",
          real["iLA-SDP"], real["k-means"], margin=0.03, higher_is_better=False, data=TABLES)

# %%
run.claim("ila-sdp", "On 60 rows of iris iLA-SDP errs at most two points more than EM",
          real["iLA-SDP"], real["EM"], margin=-0.02, higher_is_better=False, data=TABLES)

# %%
print("error on iris:", {name: round(sum(v) / len(v), 3) for name, v in real.items() if "," not in name})

# %% [markdown]
# The relaxation does what its theorem says: with covariances known and means far apart its labels are the groups, and
# the bound says that no other partition is better by one per cent (*measured*). For estimated covariances no
# certificate is shown: it
# would judge the programme, not them. And there the difficulty is. With known ones the error falls to nothing over the
# dimension in the figure; with some twenty rows a group to estimate them from it is larger in twelve dimensions than in
# two, for iLA-SDP and EM. That it grows less than EM's is not settled at either length. In eight dimensions iLA-SDP
# errs less than k-means and than its relaxation (*measured*, long and quick). It errs less than EM from the same
# starts, both by the start that its objective prefers and averaged over them, in the quick run (*measured*); the long
# one has the same order and does not settle it. In two dimensions EM has the lower error in the mean. Nothing shows
# that it is less sensitive to the start: the long run leaves it open, and in the quick one its starts scatter more than
# EM's, against the paper (*measured*). The one trap that was laid holds k-means (*measured*) and not EM: *our guess*,
# because groups of so different shape are found from many a bad split. On iris, where spectral clustering is printed
# for comparison, our seeds settle nothing.

# %% [markdown]
# (topological-class-separability)=
# ## Is there anything to separate?
# A cloud of points falls into parts in a way that can be read without labels. Let balls grow around all points: at
# first
# there are $n$ components, and whenever two touch one component dies, until all are one. The $n - 1$ times of death are
# the edges of the minimum spanning tree. Many short edges and few long ones: tight clusters with gaps between. With
# the sorted lengths $p_1 \le \dots \le p_{n-1}$,
#
# $$S = 1 - \frac{1}{n-1} \sum_{m} \frac{p_m}{\max p} .$$
#
# Dividing by the longest makes $S$ blind to scale. The paper's formula for the summary could not be found; this one is
# ours.

# %%
lab.show(C.persistence)

# %%
lab.show(C.separability)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two scatter plots of three classes, far apart and on top of each other. Right: a curve for each of the sorted bar lengths over the longest; far apart, it stays low until the last few bars."}, "figure": {"caption": "Clouds that lie apart leave a few long bars over many short ones, so that the curve hugs the axis and S is larger.", "name": "fig-persistence-bars"}}
figure, panels = lab.plots.axes(3, 7, 2.0)
for panel, gap in zip(panels[:2], (6.0, 0.5)):
    x, y = tables.blobs(90, 3, 2, gap, 1)
    panel.scatter(*x.T, s=5, c=[lab.plots.COLOURS[int(c)] for c in y])
    panel.set(title=f"{gap:g} from the middle", xlabel="$x_1$", ylabel="$x_2$")
    bars = C.persistence(x)
    panels[2].plot(bars / bars.max(), label=f"{gap:g}: S = {float(C.separability(bars)):.2f}")
panels[2].set(xlabel="bar, sorted", ylabel="length over the longest")
_ = panels[2].legend()

# %%
AWAY = run.pick(quick=(0.0, 1.0, 2.0, 4.0, 8.0, 16.0), full=(0.0, 1.0, 2.0, 4.0, 8.0, 16.0))
apart = along(AWAY, trials.curve_of_gaps)
orders = {name: [trials.spearman([p[i] for p in apart[name]], [p[i] for p in apart["Fisher ratio"]]) for i in range(len(run.seeds))]
          for name in ("score", "score, 99th percentile")}
run.exact("topological-class-separability", "On Gaussians moved apart the score rises with Fisher's ratio, rank correlation",
          min(orders["score"]), at_least=0.8)

# %% mystnb={"image": {"alt": "The score, and the score with the 99th percentile in the maximum's place, against the distance of four Gaussians from the middle: both rise once the clouds part."}, "figure": {"caption": "The score over the distance of the clouds. It needs no labels, and sees nothing before the clouds part.", "name": "fig-persistence-gap"}}
found = run.curve("topological-class-separability", "score over the distance of the clouds", AWAY, of(apart, "score", "score, 99th percentile"),
                  "distance from the middle", "score S")
_ = lab.plots.curve(found, 5.2, 2.2)

# %% [markdown]
# One far point fixes the maximum. What does it do to $S$, and to $S$ with the 99th percentile in its place?

# %%
moved = {"maximum": [], "99th percentile": []}
for seed in run.seeds:
    x, _ = tables.blobs(200, 4, 10, 4.0, seed)
    bars = [C.persistence(z) for z in (x, torch.cat([x[:-1], x[-1:] + 100]))]
    for name, q in (("maximum", 1.0), ("99th percentile", 0.99)):
        moved[name].append(abs(float(C.separability(bars[1], q) - C.separability(bars[0], q))))
run.claim("topological-class-separability", "One far point moves the score of the maximum more than that of the 99th percentile",
          moved["maximum"], moved["99th percentile"], margin=0.1)

# %% [markdown]
# The paper watches language models while they are fine-tuned. We watch small networks learn digits: ten classes, two,
# and two in proportion one to five; each with and without layer normalisation of the features. All six are trained in
# one batch. As in the paper the score is that of the data that are trained on. With their labels we know at each
# checkpoint Fisher's ratio, and Thornton's index, the share of points whose nearest neighbour is of their class;
# without them the score, and Calinski and Harabasz' ratio of k-means clusters. The network's accuracy is that on
# held-out digits.

# %%
lab.show(C.fisher_ratio, C.thornton, C.plateau)

# %%
POINTS, BETWEEN = run.pick(quick=(12, 12), long=(20, 32), full=(30, 40))
if run.dry:
    POINTS, BETWEEN = 5, 2
watched = [[trials.watched(s, (TRAIN, TEST), POINTS, BETWEEN) for s in (seed, 1000 + seed)] for seed in run.seeds]
both = lambda measure: [sum(map(measure, pair)) / 2 for pair in watched]  # two draws of the data a seed
# task 0 is that of ten classes, 1 of two, 2 of two in proportion one to five
rank = lambda one, two, task: both(lambda w: trials.spearman(w[one][task], w[two][task]))
run.data = DIGITS

# %% mystnb={"image": {"alt": "Four curves over the training on ten classes with layer normalisation: score, accuracy, Thornton index and Fisher's ratio over ten."}, "figure": {"caption": "Ten classes, features normalised: without labels the score rises as the measures with labels do, but by little.", "name": "fig-persistence-training"}}
steps = [p * BETWEEN for p in range(POINTS + 1)]
seen = {name: [both(lambda w, name=name, p=p: float(w[name][0][p]) * (0.1 if name == "Fisher ratio" else 1)) for p in range(POINTS + 1)]
        for name in ("score", "accuracy", "Thornton index", "Fisher ratio")}
seen["Fisher ratio / 10"] = seen.pop("Fisher ratio")
found = run.curve("topological-class-separability", "score and supervised measures over training", steps, seen, "steps", "share, score")
_ = lab.plots.curve(found, 5.2, 2.2)

# %%
run.claim("topological-class-separability", "Over training on ten classes the score follows Thornton's index, rank correlation",
          rank("score", "Thornton index", 0), [0.0] * len(run.seeds), margin=0.5)

# %%
run.claim("topological-class-separability", "Over training on ten classes the score follows Fisher's ratio, rank correlation",
          rank("score", "Fisher ratio", 0), [0.0] * len(run.seeds), margin=0.5)

# %%
run.claim("topological-class-separability", "The score follows Thornton's index better than Calinski and Harabasz' ratio of k-means does",
          rank("score", "Thornton index", 0), rank("Calinski–Harabasz", "Thornton index", 0), margin=0.0)

# %%
run.claim("topological-class-separability", "On two classes too the score follows Fisher's ratio, rank correlation",
          rank("score", "Fisher ratio", 1), [0.0] * len(run.seeds), margin=0.5)

# %%
run.claim("topological-class-separability", "On two classes in proportion one to five too the score follows Fisher's ratio, rank correlation",
          rank("score", "Fisher ratio", 2), [0.0] * len(run.seeds), margin=0.5)

# %%
stop = lambda w: C.plateau(w["score"][0].tolist())
reached = {"score": both(lambda w: float(w["accuracy"][0][stop(w)])), "best": both(lambda w: float(w["accuracy"][0].max())),
           "last": both(lambda w: float(w["accuracy"][0][-1]))}
print("stopped at checkpoint", both(stop), "of", POINTS)
run.claim("topological-class-separability", "Stopped where the score no longer rises the network is within two points of its best accuracy",
          reached["score"], reached["best"], margin=-0.02)

# %%
run.claim("topological-class-separability", "Stopped where the score no longer rises the network is at least as good as at the end",
          reached["score"], reached["last"], margin=0.0)

# %%
share = lambda which: both(lambda w: float((w["bars"][which, -1] / w["bars"][which, -1].max()).mean()))
run.claim("topological-class-separability", "Without layer normalisation the trained features have longer normalised bars on average",
          share(3), share(0), margin=0.02)

# %% mystnb={"image": {"alt": "Box plots of normalised bar lengths before and after training, with and without layer normalisation."}, "figure": {"caption": "Bars before and after training on ten classes, one draw. Over the seeds no order is settled: see the verdicts.", "name": "fig-persistence-boxes"}}
figure, axis = lab.plots.axes(1, 5, 2.1)
boxes = {f"{how}, {when}": (watched[0][0]["bars"][which, at] / watched[0][0]["bars"][which, at].max()).tolist()
         for which, how in ((0, "normalised"), (3, "as they are")) for at, when in ((0, "before"), (-1, "after"))}
axis.boxplot(list(boxes.values()), orientation="horizontal", tick_labels=list(boxes), flierprops=dict(markersize=2))
_ = axis.set_xlabel("bar length over the longest")

# %% [markdown]
# Over training, long or quick, the score follows Fisher's ratio on two classes, even or not (*measured*). On ten it
# follows Fisher's ratio and Thornton's index in the quick run (*measured*); over longer trainings seeds differ. But
# k-means scatter, which is told the number of classes, follows Thornton's index more closely in the quick run, against
# the paper (*measured*), which the long one does not settle. Nor does the score see what labels see before clouds part:
# while means begin to move apart, its curve stays level or falls a little. The verdict is on the least of the seeds'
# rank correlations, over six distances. It is positive, and called *reversed* because it misses the bound. *Our guess*:
# the longest bar then belongs to a far point and not to a gap. The curve over training is uneven, so that its first
# plateau comes too early: in the quick run the network stopped there is worse than at the end (*measured*). Whether it
# is within two points of the best our seeds do not settle at either length, nor what layer normalisation does to the
# bars. One far point moves the score of the maximum far towards 1, and that of a percentile hardly (*measured*).

# %% [markdown]
# (ppp)=
# ## Keep what all runs say
# k-means gives another partition from another start, and an answer for any $k$. Probabilistic partitive partitioning
# has a
# Gaussian mixture *validate* the partitions of k-means, and promises compact clusters that repeat, with no number of
# clusters set. Its abstract does not give the rule; ours is the strictest that fits the words. From $R$ random starts
# take
# k-means labels $c^{(r)}$ and the labels $g^{(r)}$ of the mixture that grows out of each, names matched. The **core**
# is
#
# $$U_k = \{\, i : c_i^{(1)} = \dots = c_i^{(R)} = g_i^{(1)} = \dots = g_i^{(R)} \,\},$$
#
# and $k$ is the largest number of clusters at which the core holds nine tenths of all rows. $r$ counts runs, each the
# best of five k-means++ starts. Starts are random: with a fixed one repetition would prove nothing.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Rows go to k-means from many starts; each partition starts a mixture; both are matched by name and meet in the core of rows on which all agree; the share kept decides about the number of clusters."}, "figure": {"caption": "PPP as we read it: a mixture checks every k-means partition, and unanimity decides.", "name": "fig-ppp-diagram"}}
parts = {"rows": (0, 1), "k-means,\nR starts": (1.2, 0, "trained"), "a mixture\nfor each": (2.5, 0, "trained"), "names\nmatched": (2.5, 2),
         "core": (3.7, 1, "store"), "largest k\nwith 0.9": (4.8, 1, "loss")}
arrows = [("rows", "k-means,\nR starts"), ("k-means,\nR starts", "a mixture\nfor each"), ("k-means,\nR starts", "names\nmatched"),
          ("a mixture\nfor each", "names\nmatched"), ("names\nmatched", "core"), ("core", "largest k\nwith 0.9")]
_ = lab.plots.diagram(parts, arrows, width=6.6)

# %%
lab.show(C.agreement)

# %%
lab.show(C.ppp)

# %%
R, LARGEST = (4, 4) if run.dry else run.pick(quick=(12, 6), long=(30, 8), full=(50, 10))
KS = range(2, LARGEST + 1)
kept = along(KS, lambda k, seed: trials.kept_over_k(k, seed, R))
parted = {name: each(lambda seed, name=name: trials.partitive(name, seed, LARGEST, R)) for name in ("blobs", "iris", "wine")}

# %% mystnb={"image": {"alt": "Share of rows on which all runs agree against the number of clusters, for four blobs, iris and wine, with a dashed line at 0.9."}, "figure": {"caption": "The core over k; in brackets the number of classes. Dashes: the nine tenths that are asked for.", "name": "fig-ppp-kept"}}
found = run.curve("ppp", "share of rows that all runs agree on", list(KS), kept, "k", "share in the core", data=TABLES + "; Gaussians")
_ = lab.plots.curve(found, 5.2, 2.2, floor=0.9)

# %%
over = lambda name: [sum(v) / 3 for v in zip(*(parted[data][name] for data in parted))]
three = dict(data=TABLES + "; Gaussians")
run.claim("ppp", "On overlapping samples the core gets the same labels again more often than all rows get from one k-means run",
          over("repeats, core"), over("repeats, one k-means"), margin=0.05, **three)

# %%
run.claim("ppp", "On all rows too, core or not, the labels repeat more often than those of one k-means run",
          over("repeats, all rows"), over("repeats, one k-means"), margin=0.05, **three)

# %%
run.claim("ppp", "The number of clusters that is found is nearer to the number of classes than that of a mixture chosen by BIC",
          over("misses k by"), over("BIC misses k by"), margin=0.0, higher_is_better=False, **three)

# %%
run.claim("ppp", "Clusters cut down to the core are more compact: mean squared distance from their means",
          over("spread, core"), over("spread, all rows"), margin=0.05, higher_is_better=False, **three)

# %%
run.claim("ppp", "The core has a higher silhouette than all rows",
          over("silhouette, core"), over("silhouette, all rows"), margin=0.01, **three)

# %%
run.claim("ppp", "The core is more separable than all rows, by the persistence score of the section before",
          over("separability, core"), over("separability, all rows"), margin=0.01, **three)

# %%
check = each(lambda seed: trials.validated("iris", 3, seed, R))
run.claim("ppp", "With the mixtures the core of iris agrees better with the classes than without them",
          check["ARI of the core, with"], check["ARI of the core, without"], margin=0.02, data=TABLES)

# %%
run.claim("ppp", "Rows of iris that mixtures do not confirm are in the wrong cluster more often than rows of the core",
          check["error outside"], check["error in the core"], margin=0.1, data=TABLES)

# %%
MANY = 200 if run.dry else run.pick(quick=1000, long=4000, full=10_000)
many = each(lambda seed: trials.averaged(lambda s: trials.reduced(s, MANY, R), seed, 2))
run.claim("ppp", "From a tenth of the rows the groups are found as well as from all of them, within two points of ARI",
          many["ARI, a tenth"], many["ARI, all rows"], margin=-0.02, data="Gaussians (ours)")

# %%
run.claim("ppp", "A tenth of the rows costs less than half of the time",
          many["seconds, a tenth"], [t / 2 for t in many["seconds, all rows"]], margin=0.0, higher_is_better=False, tolerance=10.0, data="Gaussians (ours)")

# %%
# NBVAL_CHECK_OUTPUT
print("clusters found in four blobs, first seed:", int(parted["blobs"]["k"][0]))

# %%
print("k found:", {name: [int(k) for k in p["k"]] for name, p in parted.items()})
print("kept:", {name: round(sum(p["kept"]) / len(p["kept"]), 2) for name, p in parted.items()})

# %% [markdown]
# Unanimity is a strict judge. Where the core breaks down, on the way to one cluster too many, it tells the number of
# clusters better than BIC does for axis-parallel mixtures (*measured*), though it is not exact with every seed. *Our
# guess*: such mixtures want more components for every cluster that is bent or turned. On overlapping samples the labels
# of the core repeat more often in the mean than those of one k-means run; whether by five points, our seeds do not
# settle, and not for all rows either. The mixture's part is visible on iris: rows that it does not confirm are mostly
# in the wrong cluster, and without it k-means agrees with itself about them (*measured*). In the quick run the core is
# the more compact part, and by silhouette the more separable one (*measured*); in the long one only in the mean. By
# [the persistence score](#topological-class-separability) it gains nothing in the mean, and less than a hundredth
# (*measured* in the long run). A tenth of the rows saves more than half of the time (*measured*); what it costs in ARI
# is not settled.

# %% [markdown]
# (clam)=
# ## Clusters as memories
# An associative memory stores patterns as hollows of an energy and completes a damaged pattern by rolling down. ClAM
# takes
# prototypes $\rho_1 \dots \rho_k$ as its memories. From a row $x$ with some coordinates hidden it makes $T$ steps,
#
# $$v \leftarrow v + \tfrac1T\, m \odot \sum_{l=1}^k \sigma_l\, (\rho_l - v), \qquad
# \sigma = \operatorname{softmax}_l\bigl(-\tfrac{\beta}{2}\lVert v - \rho_l\rVert^2\bigr),$$
#
# and compares what came out with what was hidden: a loss that is differentiable in the prototypes, although assignment
# in the end is to one of them. $v$ is the state, which starts at $x$ with the column's mean for what is hidden, $m$ is
# 1 where a coordinate is hidden and 0 where it is clamped, $\odot$ multiplies entries, $l$ counts prototypes and
# $\beta$ is the inverse temperature. Each step goes down the energy $E(v) = -\tfrac1\beta \log \sum_l
# \exp(-\tfrac\beta2 \lVert v - \rho_l\rVert^2)$, whose negative gradient is the sum above. A fifth of the coordinates
# of each row is hidden, at least one.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A row is masked; the state goes through T steps of the memory, which holds the prototypes; the result is compared with the row at the hidden coordinates."}, "figure": {"caption": "ClAM. The only parameters are the prototypes; gradients go back through all steps.", "name": "fig-clam-diagram"}}
parts = {"row x": (0, 0), "masked": (1.1, 0), "T steps down\nthe energy": (2.5, 0, "trained"), "completed": (3.9, 0), "prototypes": (2.5, 1.2, "store"),
         "hidden\ncoordinates": (5.1, 0, "loss")}
arrows = [("row x", "masked"), ("masked", "T steps down\nthe energy"), ("prototypes", "T steps down\nthe energy"),
          ("T steps down\nthe energy", "completed"), ("completed", "hidden\ncoordinates")]
_ = lab.plots.diagram(parts, arrows, width=6.6, height=2.0)

# %%
lab.show(C.recall, C.energy)

# %%
lab.show(C.clam, start="for _ in range(epochs)", end="return Memories")

# %% mystnb={"image": {"alt": "Three maps of the plane coloured by the prototype near which a state ends, at small, medium and large inverse temperature. At the smallest one the whole plane has one colour; at a large one the map is the Voronoi diagram of the six prototypes."}, "figure": {"caption": "Where states end after a hundred steps, by β. Hot: all roll to one place. Cold: nearly the Voronoi cells of k-means.", "name": "fig-clam-basins"}}
prototypes = torch.randn(6, 2, generator=run.generator(3))
grid = torch.cartesian_prod(*[torch.linspace(-3, 3, 90)] * 2)
figure, panels = lab.plots.axes(3, 6, 2.0)
for panel, beta in zip(panels, (0.5, 2.0, 20.0)):
    ends = torch.cdist(C.recall(grid, prototypes, beta, steps=100, rate=0.1), prototypes).argmin(1)
    panel.imshow(ends.view(90, 90).T, origin="lower", extent=(-3, 3, -3, 3), cmap="tab10", alpha=0.6, vmin=0, vmax=9)
    panel.plot(*prototypes.T, "k.", markersize=5)
    panel.grid(False)
    panel.set(title=f"β = {beta:g}", xlabel="$v_1$")
_ = panels[0].set_ylabel("$v_2$")

# %%
BETAS = (0.5, 2.0, 8.0, 32.0)
cells = along(BETAS, trials.basins)
found = run.curve("clam", "share of basins that are Voronoi cells", BETAS, cells, "β", "share of the plane", log=True, data="random prototypes")
found

# %%
path = torch.stack([C.energy(C.recall(grid, prototypes, 2.0, steps=s, rate=0.1), prototypes, 2.0) for s in (0, 1, 5, 20, 80)])
run.exact("clam", "The recursion goes down its energy: largest rise on the way, from every place of the map", float(path.diff(dim=0).max()), at_most=1e-5, data="random prototypes")

# %%
run.claim("clam", "At a large β nearly every state ends at the prototype that it began nearest to, at a small one few do",
          cells["long run"][-1], cells["long run"][0], margin=0.5, data="random prototypes")

# %% [markdown]
# The paper tunes ClAM by the silhouette and compares it by the silhouette. So here every method is the best by
# silhouette of several tries: ClAM and soft k-means of their β and restarts, k-means and DEC's loss of as many
# restarts. The agglomerative has three linkages and the spectral three graphs, for they have no more to choose: fewer
# tries than ClAM has, which favours ClAM. DEC's loss moves centroids on the rows
# themselves, with no network.

# %%
BETA, AGAIN = run.pick(quick=((0.25, 0.5, 1.0, 2.0, 4.0), 2), long=((0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0), 3), full=((0.25, 0.5, 1.0, 2.0, 4.0), 4))
sets = {"iris": lambda seed: (*tables.table("iris", seed), 3), "wine": lambda seed: (*tables.table("wine", seed), 3),
        "digits": lambda seed: (*tables.digit_rows(128, seed, TEST, 8, 5), 5)}
judged = {name: each(lambda seed, get=get: trials.memories(*get(seed), seed, BETA, AGAIN, EPOCHS)) for name, get in sets.items()}
on_average = lambda arm, what: [sum(judged[s][arm][i][what] for s in judged) / len(judged) for i in range(len(run.seeds))]
MIXED = TABLES + "; " + DIGITS

# %% mystnb={"image": {"alt": "Two bar charts over seven clusterers, mean of iris, wine and digits: silhouette and normalised mutual information with the classes."}, "figure": {"caption": "Silhouette, by which all are chosen, and agreement with the classes, which nobody sees. Mean of three sets; dots are seeds.", "name": "fig-clam-bars"}}
figure, panels = lab.plots.axes(2, 7, 2.4)
for panel, what, label in zip(panels, ("silhouette", "NMI"), ("silhouette", "NMI with the classes")):
    lab.plots.bars(panel, {arm: on_average(arm, what) for arm in judged["iris"]}, label)
_ = panels[1].set_yticklabels([])

# %%
run.claim("clam", "Chosen by silhouette ClAM has a higher silhouette than k-means with as many restarts, mean of three sets",
          on_average("ClAM", "silhouette"), on_average("k-means", "silhouette"), margin=0.0, data=MIXED)

# %%
run.claim("clam", "ClAM has a higher silhouette than soft k-means at the same temperatures",
          on_average("ClAM", "silhouette"), on_average("soft k-means", "silhouette"), margin=0.02, data=MIXED)

# %%
run.claim("clam", "ClAM has a higher silhouette than DEC's loss from as many k-means runs",
          on_average("ClAM", "silhouette"), on_average("DEC's loss", "silhouette"), margin=0.0, data=MIXED)

# %%
run.claim("clam", "ClAM has a higher silhouette than spectral clustering, the best of three graphs",
          on_average("ClAM", "silhouette"), on_average("spectral", "silhouette"), margin=0.0, data=MIXED)

# %%
run.claim("clam", "Hiding coordinates gives a higher silhouette than hiding none",
          on_average("ClAM", "silhouette"), on_average("ClAM, nothing masked", "silhouette"), margin=0.01, data=MIXED)

# %%
run.claim("clam", "By agreement with the classes ClAM is ahead of k-means too",
          on_average("ClAM", "NMI"), on_average("k-means", "NMI"), margin=0.0, data=MIXED)

# %% mystnb={"image": {"alt": "Silhouette of ClAM against β for iris, wine and digits."}, "figure": {"caption": "Silhouette over β, mean of the restarts: wine wants it hotter than iris and digits.", "name": "fig-clam-beta"}}
over_beta = {name: [[judged[name]["ClAM"][i]["over beta"][b] for i in range(len(run.seeds))] for b in range(len(BETA))] for name in judged}
found = run.curve("clam", "silhouette over β", BETA, over_beta, "β", "silhouette", log=True, data=MIXED)
_ = lab.plots.curve(found, 5.2, 2.2)

# %%
T = run.pick(quick=(1, 3, 5, 10), long=(1, 2, 5, 10, 20, 40), full=(1, 3, 10, 20, 40))
found = run.curve("clam", "silhouette over the number of steps T", T, along(T, lambda t, seed: trials.recalled(t, seed, EPOCHS // 2, 96)), "T", "silhouette", log=True, data=TABLES)
found

# %%
eight = each(lambda seed: trials.escapes(seed, 40, EPOCHS))
run.claim("clam", "On eight clusters ClAM finds all of them from more starts than Lloyd's k-means does",
          eight["ClAM"], eight["k-means"], margin=0.1, data="Gaussians (ours)")

# %%
run.claim("clam", "On eight clusters ClAM finds all of them from more starts than k-means++ does",
          eight["ClAM"], eight["k-means++"], margin=0.0, data="Gaussians (ours)")

# %%
filled = each(trials.completed)
run.claim("clam", "Hidden coordinates of iris are completed with less than half of the squared error that the column's mean leaves",
          filled["ClAM"], [v / 2 for v in filled["column mean"]], margin=0.0, higher_is_better=False, data=TABLES)

# %%
counts = run.pick(quick=(8, 32, 128, 512), long=(8, 32, 128, 512, 2048), full=(8, 32, 128, 512, 2048))
found = run.curve("clam", "seconds to assign 2,000 rows", counts, along(counts, trials.assignment_seconds), "prototypes", "seconds", log=True, data="random rows")
found

# %% [markdown]
# Judged as the paper judges, with every rival chosen as ClAM is, it has a higher silhouette than spectral clustering in
# the long run (*measured*), which trains four times as long with more β and restarts. There its mean is above those of
# k-means and DEC's loss too, which three seeds do not settle; in the quick run it is below all three, by less than
# seeds can tell. The gain over soft k-means, the continuous relaxation, is less than was asked for in the quick run
# (*measured*) and open in the long one. From poor starts on eight clusters ClAM finds all of them less often than
# k-means++ at both lengths (*measured*). Against Lloyd from random rows the gain asked for is not there in the quick
# run (*measured*), nor settled in the long one. *Our guess*: a part of the published advantage comes from choosing ClAM
# by the criterion on which it is then compared. Whether hiding coordinates helps our seeds do not settle. As a memory
# it does what it should. Hidden coordinates of rows not trained on are completed, and the energy falls between the
# steps looked at, with nothing clamped and one β (*measured*). Run to the end, basins become Voronoi cells as β grows
# (*measured* in the quick run, not settled in the long one). But ten steps, as the curve's other arm shows, leave most
# states in the cell in which they began at every β. *Our guess*: with the few steps that ClAM takes assignment is
# nearly that of k-means.

# %% [markdown]
# (polyhedral-descriptions)=
# ## What is in this cluster?
# A cluster is handed to somebody who must act on it: *which* customers are these? A description by **half-spaces**
# reads
# as a few sentences: petal length at most so much, width minus length at most so much. For one cluster and a set of
# candidates $h$, with small integer coefficients $w_h$, at most two of them nonzero, and a threshold $b_h$,
#
# $$\min_{z, \xi} \sum_h \bigl(1 + \lVert w_h\rVert_0 + p\,f_h\bigr) z_h + p \sum_{i \notin G} \xi_i, \qquad
# \sum_{h:\, w_h^\top x_i > b_h} z_h + \xi_i \ge 1 \quad \text{for every } i \notin G, \qquad z_h, \xi_i \in \{0, 1\}.$$
#
# $G$ is the cluster, $z_h$ whether a half-space is taken, $\lVert w_h\rVert_0$ its nonzero coefficients, $f_h$ how many
# rows of $G$ it leaves out, $\xi_i$ whether a row outside is let in, and $p$ the price of a wrong row in units of
# complexity. Every row outside must be cut off by one half-space or paid for: a set cover.

# %% [markdown]
# There are thousands of candidates, and the linear relaxation needs a handful. **Column generation** starts with none.
# The duals $y_i$ of the rows outside say what cutting one off is worth; a candidate is worth taking where its cost is
# less than the duals of the rows it cuts off, and one scan of sorted projections prices all of them.

# %%
lab.show(C.polyhedra._Side.price)

# %%
lab.show(C.describe, start="for _ in range(rounds)", end="if everything:")

# %%
OPEN = dict(data=TABLES)
x, y = tables.table("iris", run.seeds[0], 90)
few, every = ([C.describe(x, y, c, everything=e) for c in range(3)] for e in (False, True))
run.exact("polyhedral-descriptions", "Column generation reaches the value of the linear relaxation over all candidates",
          max(abs(a.relaxed - b.relaxed) for a, b in zip(few, every)), at_most=1e-6, **OPEN)

# %%
# NBVAL_CHECK_OUTPUT
print("columns generated, of all:", all(a.columns < b.columns / 4 for a, b in zip(few, every)))
print("both integer programmes, at most one apart:", all(abs(a.value - b.value) <= 1 + 1e-6 for a, b in zip(few, every)))

# %% mystnb={"image": {"alt": "Petal length and width of iris with three k-means clusters; straight lines cut each cluster off from the others."}, "figure": {"caption": "Petals of iris, three clusters, and the half-spaces that describe them.", "name": "fig-polyhedra"}}
x, y = tables.table("iris", run.seeds[0], 150)
x, clusters = x[:, 2:], C.many_kmeans(x[:, 2:], 3, restarts=5, generator=run.generator(0))
labels = clusters.labels[clusters.best]
figure, axis = lab.plots.axes(1, 4.4, 2.6)
axis.scatter(*x.T, c=[lab.plots.COLOURS[int(c)] for c in labels], s=10)
for c, p in enumerate(C.describe_all(x, labels)):
    for w, b in zip(p.w.tolist(), p.b.tolist()):
        axis.axline(*([(b / w[0], 0), (b / w[0], 1)] if not w[1] else [(0, b / w[1]), (1, (b - w[0]) / w[1])]), color=lab.plots.COLOURS[c], lw=1)
axis.set(xlim=(-2, 2), ylim=(-2, 2), xlabel="petal length, standardised", ylabel="petal width, standardised")
_ = [print(f"cluster {c}: " + " and ".join(f"{w} x ≤ {b:.2f}" for w, b in zip(p.w.tolist(), p.b.tolist()))) for c, p in enumerate(C.describe_all(x, labels))]

# %% [markdown]
# PDP is the description by the objective above. *Sparse PDP* pays once for each feature that the description speaks of,
# and only a hundredth of the complexity, over the half-spaces generated for the other; how often a feature is taken up
# is the nonzero coefficients for each distinct feature. Rivals are trees. IMM, iterative mistake minimisation, gives
# each cluster one leaf and each question the fewest mistakes; CART, the usual classification tree, has as many leaves
# as clusters, or twice as many. All describe a k-means partition of three fifths of a table and are asked about the
# other rows.

# %%
lab.show(C.mistake_tree)

# %%
told = {name: each(lambda seed, name=name: trials.explained(name, seed)) for name in ("iris", "wine", "breast cancer")}
joint = lambda what: [sum(v) / 3 for v in zip(*(told[name][what] for name in told))]

# %% mystnb={"image": {"alt": "Accuracy on held-out rows against complexity for five descriptions, mean of three tables: PDP, sparse PDP, IMM and two CARTs."}, "figure": {"caption": "Accuracy on rows not seen, and how long the description is. Mean of three tables: polyhedra stand at the top and near the left.", "name": "fig-polyhedra-rivals"}}
figure, axis = lab.plots.axes(1, 4.6, 2.4)
for name in ("PDP", "sparse PDP", "IMM", "CART, k leaves", "CART, 2k leaves"):
    place = [sum(v) / len(v) for v in (joint(f"{name}, complexity"), joint(f"{name}, accuracy"))]
    axis.plot(*place, "o")
    axis.annotate(name, place, textcoords="offset points", xytext=(5, -12 if name == "sparse PDP" else 4), fontsize=9)
_ = axis.set(xlabel="half-spaces and nonzero coefficients", ylabel="accuracy on held-out rows")

# %%
run.claim("polyhedral-descriptions", "Polyhedra describe held-out rows better than IMM, by two points",
          joint("PDP, accuracy"), joint("IMM, accuracy"), margin=0.02, **OPEN)

# %%
run.claim("polyhedral-descriptions", "Polyhedra describe held-out rows better than CART with a leaf for each cluster, by two points",
          joint("PDP, accuracy"), joint("CART, k leaves, accuracy"), margin=0.02, **OPEN)

# %%
run.claim("polyhedral-descriptions", "Polyhedra describe held-out rows better than CART with two leaves for each cluster",
          joint("PDP, accuracy"), joint("CART, 2k leaves, accuracy"), margin=0.0, **OPEN)

# %%
run.claim("polyhedral-descriptions", "Polyhedra are shorter than CART with two leaves for each cluster",
          joint("PDP, complexity"), joint("CART, 2k leaves, complexity"), margin=0.0, higher_is_better=False, **OPEN)

# %%
run.claim("polyhedral-descriptions", "The sparse objective takes up each feature that it speaks of more often than the one that counts complexity",
          joint("sparse PDP, use"), joint("PDP, use"), margin=0.1, **OPEN)

# %%
run.exact("polyhedral-descriptions", "The integer description costs at most a fifth more than the linear relaxation",
          max(g for name in told for g in told[name]["gap"]), at_most=0.2, **OPEN)

# %%
WORDS = ("1, one", "1, two", "2, two", "3, two")
swept = along(range(4), lambda i, seed: trials.explained("wine", seed, bound=(1, 1, 2, 3)[i], support=(1, 2, 2, 2)[i], columns=7, sparse=False))
found = run.curve("polyhedral-descriptions", "accuracy over the kind of half-space", WORDS, of(swept, "PDP, accuracy", "PDP, fits"),
                  "largest coefficient, features at most", "accuracy", **OPEN)
_ = found

# %%
PRICES = run.pick(quick=(0.1, 0.3, 1.0, 3.0), long=(0.05, 0.1, 0.3, 1.0, 3.0), full=(0.05, 0.1, 0.3, 1.0, 3.0))
paid = along(PRICES, lambda price, seed: trials.explained("breast cancer", seed, price, sparse=False))

# %%
shown = {"accuracy": paid["PDP, accuracy"], "complexity / 20": [[v / 20 for v in at] for at in paid["PDP, complexity"]]}
found = run.curve("polyhedral-descriptions", "accuracy and complexity over the price", PRICES, shown, "price p of a wrong row", "accuracy, complexity / 20", log=True, **OPEN)
found

# %% [markdown]
# Larger tables make larger programmes. Take small groups of near rows, each inside or outside as a whole, or take fewer
# rows: at equal size of the programme, which describes the table better?

# %%
SIZES = run.pick(quick=(20, 40, 80), long=(20, 40, 80, 160), full=(20, 40, 80, 160))
bundled = along(SIZES, lambda count, seed: trials.averaged(lambda s: trials.grouped(count, s), seed, 2))

# %% mystnb={"image": {"alt": "Accuracy on all rows of the breast cancer table against the size of the programme, for groups of rows and for a sample of rows."}, "figure": {"caption": "At each size of the programme groups of rows lie above a sample of as many rows in the mean.", "name": "fig-polyhedra-groups"}}
found = run.curve("polyhedral-descriptions", "accuracy over the size of the programme", SIZES, of(bundled, "groups", "a sample"), "groups or rows", "accuracy on all rows", log=True, **OPEN)
_ = lab.plots.curve(found, 5.2, 2.2)

# %%
small = {name: [sum(v) / 3 for v in zip(*bundled[name][:3])] for name in ("groups", "a sample")}
run.claim("polyhedral-descriptions", "With 20 to 80 in the programme groups of rows describe the table better than a sample of rows",
          small["groups"], small["a sample"], margin=0.02, **OPEN)

# %%
run.claim("polyhedral-descriptions", "At forty to the programme groups of rows describe the table better than a sample of rows",
          bundled["groups"][1], bundled["a sample"][1], margin=0.02, **OPEN)

# %% [markdown]
# Where the hulls of clusters do not meet a perfect description exists, and it is simpler than the hull.

# %%
from scipy.spatial import ConvexHull

labels = torch.arange(120) % 3
x = torch.randn(120, 2, generator=run.generator(2)) + 9 * torch.stack([(2.1 * labels).cos(), (2.1 * labels).sin()], 1)
polyhedra = C.describe_all(x, labels, bound=2)
facets = sum(len(ConvexHull(x[labels == c].numpy()).simplices) for c in range(3))
run.exact("polyhedral-descriptions", "Three clouds that lie apart are described without a mistake", float((C.described(polyhedra, x) != labels).sum()), at_most=0.0, data="Gaussians (ours)")

# %%
run.exact("polyhedral-descriptions", "That takes at most a third of the half-spaces of their convex hulls", sum(len(p.w) for p in polyhedra) / facets, at_most=1 / 3, data="Gaussians (ours)")

# %% [markdown]
# Half-spaces over two features say in one sentence what a tree needs several questions for. On rows not seen they are
# more accurate than the CART with a leaf for each cluster, and they are far shorter than the larger one (*measured*,
# long and quick). In the quick run they are more accurate than IMM and the larger CART too (*measured*); three seeds of
# the long run leave that open, in the same order. IMM and the smaller CART are shorter still. The integer programme
# costs little more than the linear one (*measured*), and on iris it costs at most one unit more over generated
# half-spaces than over all. *Our guess*: k-means clusters of standardised columns are cut by planes, which few
# half-spaces come near. On wine a second feature and a coefficient of two help in the mean, a larger one does not
# (recorded, not drawn). What the sparse objective changes our seeds do not settle. Groups of rows describe the breast
# cancer table better than a sample of as many rows in the mean, as the paper says; whether by two points is not
# settled.

# %% [markdown]
# (clusterfug)=
# ## Cut the complete graph
# Multicut asks for no number of clusters: every pair has a cost, positive if the two attract, and a clustering pays for
# each
# pair that it cuts. On the complete graph costs from features are inner products,
#
# $$\min_{c} \sum_{i<j} \bigl(\langle f_i, f_j\rangle - \alpha\bigr)\,[c_i \ne c_j] ,$$
#
# where $f_i$ is the feature vector of row $i$, $c_i$ its cluster, $[\cdot]$ is 1 where it holds, and $\alpha$ the
# similarity at which two rows neither attract nor repel. Greedy additive edge contraction (GAEC) merges the pair with
# the largest cost while it is positive; costs of a merged node are sums. ClusterFuG sees that it needs no matrix for
# that: the sum of the costs is the cost of the **sum of the features**,
#
# $$\sum_{i \in A} \sum_{j \in B} (\langle f_i, f_j \rangle - \alpha) = \langle F_A, F_B\rangle - \alpha\, n_A n_B, \qquad F_A = \textstyle\sum_{i \in A} f_i .$$
#
# $A$ and $B$ are clusters of $n_A$ and $n_B$ rows. With $\sqrt\alpha$ as one more coordinate whose product is
# subtracted, a node is a vector, and memory is of the order $n d$: the vectors, and a few partners and bounds a node.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Features become nodes with neighbour lists; the best pair is contracted by adding vectors; lists are repaired; nodes whose list fell below its bound search again; stop when no cost is positive."}, "figure": {"caption": "DGAECInc. A merge is an addition; only nodes whose list has run short look at all others.", "name": "fig-multicut-diagram"}}
parts = {"features": (0, 0), "nodes with\nbest partners": (1.3, 0, "store"), "best pair:\nadd vectors": (2.8, 0, "trained"), "who must\nsearch again?": (2.8, 1.3),
         "no positive\ncost: stop": (4.3, 0, "loss")}
arrows = [("features", "nodes with\nbest partners"), ("nodes with\nbest partners", "best pair:\nadd vectors"), ("best pair:\nadd vectors", "who must\nsearch again?"),
          ("who must\nsearch again?", "nodes with\nbest partners"), ("best pair:\nadd vectors", "no positive\ncost: stop")]
_ = lab.plots.diagram(parts, arrows, width=6.6)

# %%
lab.show(C.explicit_gaec, start="best, partner = c.max(1)", end="else:")

# %%
lab.show(C.dense_gaec, start="while True", end="bound[poor] =")

# %% [markdown]
# DGAEC, the greedy contraction on the dense graph, remembers one partner a node, DGAECInc, the incremental one,
# several. DLAEC is lazier: it contracts the kNN graph to the end before it looks for neighbours again. The usual way,
# GAEC on a sparse kNN graph, counts absent edges as nothing. All are judged by the objective of the complete graph,
# here for each row, with every row alone as 0, and compared at $\alpha = 0.2$ where no other is named.

# %%
run.data = DIGITS
NODES = 60 if run.dry else run.pick(quick=160, long=400, full=1000)
ALPHAS = run.pick(quick=(0.05, 0.1, 0.2, 0.3, 0.5, 0.7), long=(0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), full=(0.0, 0.1, 0.2, 0.3, 0.5, 0.7))
cut = along(ALPHAS, lambda alpha, seed: trials.averaged(lambda s: trials.cuts(NODES, alpha, s, TEST), seed, 3))
value = lambda name, what: [[v[what] for v in at] for at in cut[name]]
differ = max(abs(a - b) for name in ("DGAEC", "DGAECInc") for at, bt in zip(value(name, "value"), value("explicit GAEC", "value")) for a, b in zip(at, bt))
run.exact("clusterfug", "Contraction in feature space, with one partner or five, reaches the objective of GAEC on the matrix", differ, at_most=1e-9)

# %% mystnb={"image": {"alt": "Two panels against alpha: number of clusters on a logarithmic scale, and ARI, for DGAEC, DLAEC and sparse GAEC. More alpha makes more clusters; ARI has a maximum in between."}, "figure": {"caption": "α takes the place of k. Left the number of clusters, right the ARI with ten digits.", "name": "fig-multicut-alpha"}}
figure, panels = lab.plots.axes(2, 7, 2.2)
for name in ("DGAEC", "DLAEC", "sparse GAEC"):
    for panel, what in zip(panels, ("clusters", "ARI")):
        panel.plot(ALPHAS, [sum(at) / len(at) for at in value(name, what)], "o-", label=name)
panels[0].set(yscale="log", xlabel="α", ylabel="clusters")
panels[1].set(xlabel="α", ylabel="ARI")
_ = panels[0].legend()

# %%
solvers = ("DGAEC", "DLAEC", "sparse GAEC")
found = run.curve("clusterfug", "ARI over α", ALPHAS, {name: value(name, "ARI") for name in solvers}, "α", "ARI with the digits")
found

# %%
found = run.curve("clusterfug", "clusters over α", ALPHAS, {name: value(name, "clusters") for name in solvers}, "α", "clusters")
found

# %%
found = run.curve("clusterfug", "objective over α", ALPHAS, {name: value(name, "value") for name in ("explicit GAEC", *solvers)}, "α", "objective for each row")
found

# %%
mid = ALPHAS.index(0.2)
run.claim("clusterfug", "On the complete graph the objective is lower than that of GAEC on the sparse graph, by a twentieth",
          value("DGAEC", "value")[mid], [0.95 * v if v > 0 else 1.05 * v for v in value("sparse GAEC", "value")[mid]], margin=0.0, higher_is_better=False)

# %%
top = {name: [max(v) for v in zip(*value(name, "ARI"))] for name in ("DGAEC", "sparse GAEC")}
run.claim("clusterfug", "On the complete graph the ARI is higher than on the sparse graph by five points, each at its best α",
          top["DGAEC"], top["sparse GAEC"], margin=0.05)

# %%
run.claim("clusterfug", "The lazy solver's objective is no more than a fiftieth above the greedy one's",
          [-v for v in value("DLAEC", "value")[mid]], [-0.98 * v for v in value("DGAEC", "value")[mid]], margin=0.0)

# %%
named = each(lambda seed: trials.averaged(lambda s: trials.given_k(NODES, s, TEST), seed, 3))
run.claim("clusterfug", "Without a number of clusters the ARI is within five points of k-means that is told it",
          value("DGAEC", "ARI")[mid], named["k-means, k told"], margin=-0.05)

# %%
run.claim("clusterfug", "Without a number of clusters the ARI is within five points of spectral clustering that is told it",
          value("DGAEC", "ARI")[mid], named["spectral, k told"], margin=-0.05)

# %% [markdown]
# Exact answers exist for small graphs: an integer programme with all triangle inequalities. How far is greed from them?

# %%
lab.show(C.exact_multicut, start="for i in range(n)", end="rows +=")

# %%
gaps = []
for seed in run.seeds:
    f, _ = tables.digit_rows(12, seed, TEST, 24, unit=True)
    best, greedy = (C.multicut_value(f, c, 0.1) for c in (C.exact_multicut(C.pair_costs(f, 0.1)), C.dense_gaec(f, 0.1).labels))
    start = C.multicut_value(f, torch.arange(12), 0.1)
    gaps.append((start - greedy) / (start - best))
run.exact("clusterfug", "On twelve digits greedy contraction reaches nine tenths of what the exact multicut gains", min(gaps), at_least=0.9)

# %%
SIZE = run.pick(quick=(60, 120, 240), long=(100, 200, 400, 800), full=(200, 400, 800))
if run.dry:
    SIZE = (50, 100)
grown = along(SIZE, lambda n, seed: trials.cuts(n, 0.2, seed, TEST))
work = lambda what, *names: {name: [[v[what] for v in at] for at in grown[name]] for name in names}
found = run.curve("clusterfug", "numbers held over the number of rows", SIZE, work("held", "explicit GAEC", "DGAEC", "DGAECInc", "DLAEC"), "rows", "numbers held for each row", log=True)
_ = found

# %% mystnb={"image": {"alt": "Products looked at for each row against the number of rows, for the explicit, greedy, incremental and lazy solvers."}, "figure": {"caption": "Costs looked at for each row, both axes logarithmic. Incremental lists save some searches; the lazy solver needs fewest.", "name": "fig-multicut-work"}}
found = run.curve("clusterfug", "costs looked at over the number of rows", SIZE, work("looked", "explicit GAEC", "DGAEC", "DGAECInc", "DLAEC"), "rows", "costs looked at for each row", log=True)
axis = lab.plots.curve(found, 5.2, 2.2).axes[0]
axis.set_yscale("log")
_ = axis.set_xticks((50, 100, 200, 400, 800), ("50", "100", "200", "400", "800"))

# %%
found = run.curve("clusterfug", "seconds over the number of rows", SIZE, work("seconds", "explicit GAEC", "DGAEC", "DGAECInc", "DLAEC"), "rows", "seconds", log=True)
found

# %%
last = {name: [v["looked"] for v in grown[name][-1]] for name in ("DGAEC", "DGAECInc", "DLAEC")}
run.claim("clusterfug", "With lists of five partners a tenth fewer costs are looked at than with one, which searches again more often",
          last["DGAECInc"], [0.9 * v for v in last["DGAEC"]], margin=0.0, higher_is_better=False)

# %%
run.claim("clusterfug", "The lazy solver looks at less than two thirds of the costs that the greedy one looks at",
          last["DLAEC"], [v / 1.5 for v in last["DGAEC"]], margin=0.0, higher_is_better=False)

# %%
CLASSES = run.pick(quick=(2, 4, 7, 10), long=(2, 3, 4, 5, 7, 10), full=(2, 4, 7, 10))
counted = along(CLASSES, lambda k, seed: {name: float(found["clusters"]) for name, found in trials.cuts(NODES // 2, 0.1, seed, TEST, k, solvers=("DGAEC", "sparse GAEC")).items()})
found = run.curve("clusterfug", "clusters found over the number of classes", CLASSES, counted, "classes", "clusters found")
found

# %% mystnb={"image": {"alt": "Rows of digits: each row shows members of one cluster that multicut found; a row holds mostly one digit, or digits that look alike."}, "figure": {"caption": "The seven largest clusters of multicut at α = 0.2, first members. No number of clusters was given.", "name": "fig-multicut-digits"}}
images = tables.small_digits()[0]
rows = torch.arange(*TEST)[:NODES]
f = images[rows].double() - images[rows].double().mean(0)
f = torch.nn.functional.normalize(f, dim=1)
labels = C.dense_gaec(f, 0.2).labels
largest = torch.bincount(labels).argsort(descending=True)[:7]
shown = torch.cat([rows[labels == c].repeat(10)[:10] for c in largest.tolist()])
_ = lab.plots.images(images[shown].view(-1, 1, 14, 14), rows=7, width=4.6)

# %% [markdown]
# DGAEC and DGAECInc give the objective of the matrix to rounding, without it (*measured*). For each row they hold as
# many numbers in many rows as in few, the matrix one for every other row (recorded, not drawn). Five partners in place
# of one save more than a tenth of the costs that are looked at, and the lazy solver more than a third, at an objective
# that is no worse than allowed and in the mean a little lower (*measured*). Sparse graphs lose: what is no edge costs
# nothing, so that nothing holds clusters apart, and at the α of the comparison, which suits the complete graph, all
# rows become one cluster. Each at its best α, the complete graph is ahead by five points of ARI in the quick run
# (*measured*), where the sparse one is best at the last α that was tried. The long run tries a larger one and does not
# settle the five points; the order is the same. With a number of clusters that nobody gave, multicut is within five
# points of k-means that is told ten (*measured*, quick; the long run leaves it open). Spectral clustering that is told
# ten is ahead in the mean at both lengths, which is not settled either. But α takes the number's place, and has to be
# chosen: in the quick run clusters grow from a few to nearly a hundred along it. Greed loses little on small graphs: on
# twelve digits it gains at least nine tenths of what the exact programme gains (*measured*). In seconds the explicit
# solver is as fast as any at this size: its matrix is small, and our loops are an interpreter's.

# %% [markdown]
# (aml-clustering)=
# ## A good index is not a good cluster
# A bank wants the customers that move money like launderers to stand together. The paper's pipeline: hundreds of
# features from transactions, reduced by kernel principal components (KPCA), independent components (ICA), singular
# vectors (SVD) or locality preserving projections (LPP), then agglomerative clustering; the pair with the best **inner
# index** is taken, in the paper mostly one with KPCA. Its abstract names none of its three indices; ours are the
# silhouette, Davies and Bouldin's and Calinski and Harabasz'. With a centred kernel matrix $K$ of entries
# $\exp(-\gamma\lVert x_i - x_j\rVert^2)$ and its leading eigenpairs $(\lambda_m, u_m)$ row $i$ becomes
# $(\sqrt{\lambda_m}\, u_{m,i})_m$, where $\gamma$ sets the width and $m$ counts components. LPP looks for directions
# $a$ that keep neighbours together,
#
# $$X^\top L X a = \omega\, X^\top D X a \quad \text{with smallest } \omega, \qquad L = D - W,$$
#
# where $X$ holds the rows, $W$ the weights of a kNN graph, $D$ its degrees and $\omega$ is an eigenvalue. But an index
# that is computed *inside* an embedding judges the embedding too. We generate customers from single transactions, so
# that we know what the paper could not: who launders. A *setting* is a number of components (two, five or ten), a
# linkage (Ward's or average) and an index; trees are cut at five clusters.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Transactions become features of customers; these are reduced; the reduced rows are clustered; three indices judge the clusters inside the embedding, and, ours, in the space of the features and against known segments."}, "figure": {"caption": "The pipeline, and the two judges that we add.", "name": "fig-aml-diagram"}}
parts = {"transactions": (0, 0), "150 features": (1.3, 0), "reduced": (2.5, 0, "trained"), "clusters": (3.7, 0, "trained"), "index\ninside": (3, 1.3, "loss"),
         "index on\nfeatures": (1.3, 1.3, "loss"), "segments,\nlaunderers": (4.7, 1.3, "loss")}
arrows = [("transactions", "150 features"), ("150 features", "reduced"), ("reduced", "clusters"), ("reduced", "index\ninside"), ("clusters", "index\ninside"),
          ("150 features", "index on\nfeatures"), ("clusters", "segments,\nlaunderers")]
_ = lab.plots.diagram(parts, arrows, width=6.6)

# %%
lab.show(C.kernel_pca)

# %%
lab.show(C.locality_preserving, start="near = distance")

# %%
lab.show(C.laundering.customers, start="structures = ", end="number =")

# %%
run.data = "generated transactions (ours)"
CUSTOMERS = run.pick(quick=240, long=600, full=2000)
CUSTOMERS = 100 if run.dry else CUSTOMERS
DIMENSIONS, LINKAGES = (2, 5, 10), ("ward", "average")
bank = [C.customers(CUSTOMERS, tables.draws(30, seed)) for seed in run.seeds]
other = [C.customers(CUSTOMERS, tables.draws(31, seed)) for seed in run.seeds]
rows, more = ([trials.pipelines(data, seed, DIMENSIONS, LINKAGES, 5) for data, seed in zip(banks, run.seeds)] for banks in (bank, other))
first = lambda where, reducer="KPCA": [sum(trials.winner_share(r, where, reducer) for r in pair) / 2 for pair in zip(rows, more)]
mean_ari = lambda name: [sum(v) / len(v) for v in ([one["ARI"] for one in r if one["reducer"] == name] for r in rows)]

# %%
run.claim("aml-clustering", "By indices inside the embedding KPCA is first of the four reducers in more than half of the settings",
          first("inside"), [0.5] * len(rows), margin=0.0)

# %%
run.claim("aml-clustering", "With γ chosen by the index KPCA is first in more than half of the settings, by indices inside",
          first("inside", "KPCA, γ by index"), [0.5] * len(rows), margin=0.0)

# %%
run.claim("aml-clustering", "With γ chosen by the index its ARI is lower than with γ fixed, mean of the settings",
          mean_ari("KPCA, γ by index"), mean_ari("KPCA"), margin=0.05, higher_is_better=False)

# %%
run.claim("aml-clustering", "By the same indices on the features KPCA is first in more settings than the quarter that chance gives",
          first("input"), [0.25] * len(rows), margin=0.0)

# %%
run.claim("aml-clustering", "By agreement with segments and launderers KPCA is first in more settings than chance gives",
          first("ARI"), [0.25] * len(rows), margin=0.0)

# %%
index = lambda r, where, name: [one[where][name] for one in r if one["reducer"] != "none"]
truth = lambda r: [one["ARI"] for one in r if one["reducer"] != "none"]
tells = {where: [trials.spearman(index(r, where, "silhouette"), truth(r)) for r in rows] for where in ("inside", "input")}
run.claim("aml-clustering", "The silhouette on the features orders the settings by their ARI better than the silhouette inside does",
          tells["input"], tells["inside"], margin=0.1)

# %%
ward = lambda r, name, d: next(one for one in r if (one["reducer"], one["linkage"], one["dimension"]) == (name, "ward", d))
both_banks = lambda value: [(value(one) + value(two)) / 2 for one, two in zip(rows, more)]
within = lambda name, d: both_banks(lambda r: ward(r, name, d)["inside"]["silhouette"])
right = lambda name, d: both_banks(lambda r: ward(r, name, d)["ARI"])
run.claim("aml-clustering", "Reduced to five kernel components the silhouette inside is higher than that of all 150 features",
          within("KPCA", 5), within("none", DIMENSIONS[0]), margin=0.1)

# %%
run.claim("aml-clustering", "Reduced to five kernel components the ARI is higher than that of all 150 features",
          right("KPCA", 5), right("none", DIMENSIONS[0]), margin=0.0)

# %%
NAMES = ("KPCA", "SVD", "ICA", "LPP")
mean_of = lambda r, name, d, what: sum(what(one) for one in r if (one["reducer"], one["dimension"]) == (name, d)) / len(LINKAGES)
inside = {name: [[mean_of(r, name, d, lambda one: one["inside"]["silhouette"]) for r in rows] for d in DIMENSIONS] for name in NAMES}
agree = {name: [[mean_of(r, name, d, lambda one: one["ARI"]) for r in rows] for d in DIMENSIONS] for name in NAMES}

# %%
found = run.curve("aml-clustering", "silhouette inside over the number of components", DIMENSIONS, inside, "components", "silhouette inside")
found

# %% mystnb={"image": {"alt": "ARI with segments and launderers against the number of components, for KPCA, SVD, ICA and LPP."}, "figure": {"caption": "Agreement with segments and launderers: with more components KPCA keeps it, LPP and ICA lose it.", "name": "fig-aml-ari"}}
found = run.curve("aml-clustering", "ARI over the number of components", DIMENSIONS, agree, "components", "ARI")
_ = lab.plots.curve(found, 5.2, 2.2)

# %% [markdown]
# How narrow may the kernel be? With a large γ every customer is far from every other, and the embedding isolates single
# ones.

# %%
GAMMAS = run.pick(quick=(0.0005, 0.002, 0.01, 0.05, 0.2), full=(0.0005, 0.002, 0.01, 0.05, 0.2))
bent = along(GAMMAS, lambda gamma, seed: trials.pipelines_at(bank[run.seeds.index(seed)], gamma, 5))

# %% mystnb={"image": {"alt": "Four curves against the kernel's gamma: silhouette inside, silhouette on the features, ARI, and the largest cluster's share. At large gamma the silhouette inside rises while the ARI falls to zero."}, "figure": {"caption": "Over the kernel's γ: the index inside praises clusterings that have nothing to do with the customers.", "name": "fig-aml-gamma"}}
found = run.curve("aml-clustering", "indices and ARI over the kernel's width", GAMMAS, bent, "γ", "index, ARI, share", log=True)
_ = lab.plots.curve(found, 5.2, 2.2)

# %%
at_best = {where: [max(range(len(GAMMAS)), key=lambda g, i=i: bent[where][g][i]) for i in range(len(rows))] for where in ("silhouette inside", "ARI")}
lost = [[bent["ARI"][g][i] for i, g in enumerate(at_best[where])] for where in ("ARI", "silhouette inside")]
run.claim("aml-clustering", "Choosing γ by the silhouette inside costs more than five points of ARI against the best γ", lost[0], lost[1], margin=0.05)

# %%
KS = (3, 5, 8, 12)
places = along(KS, lambda k, seed: trials.by_k(bank[run.seeds.index(seed)], seed, k))
found = run.curve("aml-clustering", "silhouette inside over the number of clusters", KS, places, "clusters", "silhouette inside, five components")
found

# %%
risky = [[trials.riskiest(data, 12) for data in pair] for pair in zip(bank, other)]
tell = [{name: (one[name] + two[name]) / 2 for name in one} for one, two in risky]
run.claim("aml-clustering", "In the riskiest cluster of KPCA the share of launderers is more than three times that of all customers",
          [t["KPCA"] for t in tell], [3.0] * len(tell), margin=0.0)

# %%
run.claim("aml-clustering", "The riskiest cluster of KPCA is riskier than that of the unreduced features",
          [t["KPCA"] for t in tell], [t["none"] for t in tell], margin=0.0)

# %% [markdown]
# An index that is computed inside an embedding can be had for nothing: with a narrow kernel the silhouette is high and
# the clusters have nothing to do with customers, and whoever chooses γ by it chooses just that (*measured*). On our
# customers KPCA is first by the inner indices in fewer than half of the settings, against the paper (*measured*). With
# γ chosen by the index it comes nearer to half, which is not settled. By silhouette inside LPP leads in the mean of the
# linkages with two components and with ten, and in the long run with five; by ARI KPCA leads with five and ten. By the
# same indices on the features KPCA is first less often than chance (*measured* in the long run), and by agreement with
# what was planted more often (*measured* in the quick one; in the mean of both). So an ordering by inner indices may be
# right or wrong, and the two other judges do not agree on KPCA either. Of settings a common space is the better judge:
# on
# the features the silhouette orders the settings much more
# as their ARI does than inside (*measured*), where in the mean it has the order the other way round. Reducing raises
# the silhouette (*measured*), but whether it raises the ARI our seeds do not settle. *Our guess* for KPCA: a wide
# kernel is nearly linear, but less moved by the largest customers than SVD. Cut into twelve, the cluster of at least
# four customers with most launderers holds many times their share of a few in a hundred (*measured* for KPCA; all
# features have such a cluster too). But it was found by labels that a bank does not have, and three times is a low bar,
# which the riskiest of many small clusters may reach by chance. It says that launderers stand together, not where.

# %% [markdown]
# (mnist-nd)=
# ## The same digits in two to sixty-four dimensions
# Does clustering get worse with the dimension? Blobs cannot tell: in high dimensions they are far apart. MNIST-Nd makes
# real, overlapping classes of any dimension: a variational autoencoder with a mixture as its prior, one for each
# dimension, encodes the test digits. It is trained on
#
# $$\mathcal L = \mathbb E_{q(z\mid x)}\bigl[-\log p(x \mid z) + \beta_d\,(\log q(z \mid x) - \log p(z))\bigr], \qquad
# p(z) = \sum_{m=1}^{10} \pi_m\, \mathcal N\bigl(z; \mu_m, \operatorname{diag}(s_m^2)\bigr), \qquad \beta_d = c/d .$$
#
# $x$ is an image, $z$ its code of $d$ dimensions, $q$ the encoder's Gaussian, $\pi_m$, $\mu_m$ and $s_m$ the prior's
# weights, means and scales, $m$ counts its components, and $\beta_d$ falls with the dimension so that signal and noise
# stay in proportion, $c$ being a constant. The data set is $z$ itself, drawn, with the digits as classes.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Digits go through an encoder to a Gaussian; a draw z goes through a decoder back to a digit; z is compared with a mixture prior; the draws of the test digits are the data set."}, "figure": {"caption": "MNIST-Nd. The draws, noise and all, are the data set.", "name": "fig-mnist-nd-diagram"}}
parts = {"digit": (0, 0), "encoder": (1, 0, "trained"), "z, drawn": (2.1, 0, "store"), "decoder": (3.2, 0, "trained"), "digit again": (4.4, 0, "loss"),
         "mixture\nprior": (2.1, 1.2, "trained"), "clusterers": (3.6, 1.2)}
arrows = [("digit", "encoder"), ("encoder", "z, drawn"), ("z, drawn", "decoder"), ("decoder", "digit again"), ("mixture\nprior", "z, drawn", "β"), ("z, drawn", "clusterers")]
_ = lab.plots.diagram(parts, arrows, width=6.4, height=2.2)

# %%
lab.show(C.MixtureVAE.log_prior, C.MixtureVAE.step)

# %% [markdown]
# Its winner is Leiden: communities of a kNN graph with high modularity. Nodes move to the community that gains most,
# communities are refined into well connected parts, parts become nodes, and so on.

# %%
lab.show(C.leiden, start="for _ in range(rounds)", end="labels = [fine")

# %%
run.data = DIGITS
ND = run.pick(quick=(2, 8, 32, 64), long=(2, 4, 8, 16, 32, 64), full=(2, 4, 8, 16, 32, 64))
EIGHT = ND.index(8)
LEARN, SEEN, BASE = run.pick(quick=(180, 400, 0.5), long=(220, 1000, 0.5), full=(4000, 1000, 0.5))
images, labels = tables.small_digits()
train, test, classes = images[slice(*TRAIN)].to(run.device), images[slice(*TEST)][:SEEN].to(run.device), labels[slice(*TEST)][:SEEN]
sets = [[trials.encoded(train, test, classes, d, seed, LEARN, BASE / d) for seed in run.seeds] for d in ND]
CLUSTERERS = ("k-means", "GMM, spherical", "GMM, full", "Student's t", "Ward", "Leiden")
over_nd = lambda what: {name: [[one[name][what] for one in at] for at in sets] for name in CLUSTERERS}

# %% mystnb={"image": {"alt": "Two scatter plots of encoded test digits coloured by class: the two-dimensional data set itself, and the first two principal components of the 64-dimensional one. Groups are noisy and overlap."}, "figure": {"caption": "The data sets of two and of 64 dimensions, the latter by its first two principal components. Colours are digits.", "name": "fig-mnist-nd"}}
figure, panels = lab.plots.axes(2, 4.4, 2.0)
for panel, at in zip(panels, (0, -1)):
    z = sets[at][0]["z"]
    panel.scatter(*C.svd(z, 2).T, c=classes, cmap="tab10", s=2)
    panel.set(title=f"d = {ND[at]}", xlabel="first direction", ylabel="second direction")

# %% mystnb={"image": {"alt": "ARI with the digits against the latent dimension, for k-means, two Gaussian mixtures, a Student's t mixture, Ward and Leiden."}, "figure": {"caption": "ARI over the dimension, six clusterers; five are told the number of clusters, Leiden is not.", "name": "fig-mnist-nd-ari"}}
found = run.curve("mnist-nd", "ARI over the dimension", ND, over_nd("ARI"), "latent dimension", "ARI with the digits", log=True)
_ = lab.plots.curve(found, 5.4, 2.8)

# %%
fell = {name: [a["ARI"] - b["ARI"] for a, b in zip([o[name] for o in sets[EIGHT]], [o[name] for o in sets[-1]])] for name in CLUSTERERS}
wide = {name: [sum(one[name]["ARI"] for one in at) / len(at) for at in zip(*sets[EIGHT:])] for name in CLUSTERERS}
run.claim("mnist-nd", "From eight dimensions on Leiden has a higher ARI than k-means", wide["Leiden"], wide["k-means"], margin=0.05)

# %%
end = {name: [one[name]["ARI"] for one in sets[-1]] for name in CLUSTERERS}
run.claim("mnist-nd", "In 64 dimensions Leiden has a higher ARI than k-means", end["Leiden"], end["k-means"], margin=0.05)

# %%
rival = [max(v) for v in zip(*(wide[name] for name in CLUSTERERS if name != "Leiden"))]
run.claim("mnist-nd", "From eight dimensions on Leiden has a higher ARI than the best of the five others", wide["Leiden"], rival, margin=0.0)

# %%
rival = [max(v) for v in zip(*(end[name] for name in CLUSTERERS if name != "Leiden"))]
run.claim("mnist-nd", "In 64 dimensions Leiden has a higher ARI than the best of the five others", end["Leiden"], rival, margin=0.0)

# %%
run.claim("mnist-nd", "A Gaussian mixture with full covariances loses more from eight to 64 dimensions than Leiden does", fell["GMM, full"], fell["Leiden"], margin=0.05)

# %%
run.claim("mnist-nd", "k-means loses more from eight to 64 dimensions than Leiden does", fell["k-means"], fell["Leiden"], margin=0.0)

# %%
found = run.curve("mnist-nd", "agreement of two runs over the dimension", ND, over_nd("runs agree"), "latent dimension", "ARI of two runs", log=True)
found

# %%
found = run.curve("mnist-nd", "agreement of two samples over the dimension", ND, over_nd("samples agree"), "latent dimension", "ARI of two samples", log=True)
found

# %%
steady = lambda name, what: [sum(one[name][what] for one in at) / len(ND) for at in zip(*sets)]
run.claim("mnist-nd", "Two runs of Leiden agree better than two runs of a full mixture, mean of the dimensions",
          steady("Leiden", "runs agree"), steady("GMM, full", "runs agree"), margin=0.05)

# %%
run.claim("mnist-nd", "Leiden on two overlapping samples agrees better than k-means, mean of the dimensions",
          steady("Leiden", "samples agree"), steady("k-means", "samples agree"), margin=0.0)

# %% [markdown]
# Are the data sets comparable? Nearest neighbours with labels should know the digits no worse in 64 dimensions than in
# eight where β falls, and worse where it stays. And how many modes does each cloud have?

# %%
flat = [trials.encoded(train, test, classes, ND[-1], seed, LEARN, BASE / ND[0], False)["accuracy"] for seed in run.seeds]
supervised = {"β = c / d": [[one["accuracy"] for one in at] for at in sets]}
found = run.curve("mnist-nd", "accuracy of neighbours with labels over the dimension", ND, supervised, "latent dimension", "kNN accuracy", log=True)
found

# %%
run.claim("mnist-nd", "With β falling as 1/d neighbours with labels are as good in 64 dimensions as in eight, within five points",
          supervised["β = c / d"][-1], supervised["β = c / d"][EIGHT], margin=-0.05)

# %%
run.claim("mnist-nd", "With β kept as in two dimensions neighbours with labels are worse in 64 than with β falling",
          flat, supervised["β = c / d"][-1], margin=0.03, higher_is_better=False)

# %%
peaks = along(run.pick(quick=(90, 95, 98, 99.5), full=(90, 95, 98, 99.5)),
              lambda percent, seed: {f"d = {d}": float(C.density_peaks(at[run.seeds.index(seed)]["z"], 15, percent)) for d, at in zip(ND, sets)})
found = run.curve("mnist-nd", "modes over the threshold", (90, 95, 98, 99.5), peaks, "percentile of the distance to a denser point", "modes")
found

# %% [markdown]
# In the long run, on more digits, Leiden gains from eight to 64 dimensions where full mixtures, as the paper says of
# common algorithms, lose: the difference is *measured*. k-means loses more, or gains less, than Leiden at both lengths
# (*measured*); the other three were not tested for it. In the seconds of the quick run nobody loses much, and the full mixture's five
# points are not settled. In both runs Leiden is ahead of the best of the others from eight dimensions on and in 64, and
# two of its runs agree better than two of a full mixture (*measured*); whether it is steadier between samples than
# k-means our seeds do not settle. The sets do not differ in dimension alone: neighbours with labels are not worse in 64
# dimensions than in eight (*measured*), and in the mean they are clearly better. So a clusterer's loss or gain over the
# dimension is that of the dimension and of clearer digits together. *Our guess*: neighbours survive noise in many
# dimensions, and means of few rows do not. The KL weight matters as the paper says: with that of two dimensions
# neighbours with labels lose some of the digits in 64, and more of them in the quick run (*measured*).

# %% [markdown]
# (log-bessel)=
# ## A normaliser that must not overflow
# Directions live on the sphere, and the normal distribution there is von Mises and Fisher's, $p(x) = C_p(\kappa)\exp(\kappa\,\mu^\top x)$ with
# $\log C_p(\kappa) = (\tfrac p2 - 1)\log\kappa - \tfrac p2 \log 2\pi - \log I_{p/2-1}(\kappa)$. $\mu$ is the mean direction, $\kappa$ the concentration and $p$ the dimension.
# With features of 2,048 dimensions the Bessel function is $10^{-1000}$ or $10^{1000}$, and no floating-point number. So
# compute its logarithm,
# and never anything else. Three expressions share the plane of order $v$ and argument $x$. Where $x$ is large, and
# where $v$ is, with
# $r = \sqrt{v^2 + x^2}$ and $t = v/r$,
#
# $$\log I_v(x) = x - \tfrac12 \log 2\pi x + \log \sum_m (-1)^m \frac{a_m(v)}{x^m}, \qquad
# \log I_v(x) = r - v \operatorname{asinh}\tfrac vx - \tfrac12\log 2\pi r + \log \sum_m \frac{u_m(t)}{v^m} ;$$
#
# where both are small, the power series, whose terms are all positive. $a_m$ and $u_m$ are known polynomials, $m$
# counts terms. As $u_m(t)$ has the factor $t^m$, each term $u_m(t)/v^m$ is a polynomial in $t^2$ over $r^m$, which
# serves small orders too. Both small means $v < 20$ and $x < 30$; of the rest the first expression takes $x \ge 30$
# with $x \ge v^2/2$, the second all else. For $K_v$ the signs turn: $\log K_v(x) = -x + \tfrac12 \log \tfrac{\pi}{2x} +
# \log\sum_m a_m(v)/x^m$, and $v \operatorname{asinh}\tfrac vx - r + \tfrac12 \log\tfrac{\pi}{2r} + \log\sum_m (-1)^m
# u_m(t)/v^m$ at large orders. Where both are small it is the integral $\int_0^\infty e^{-x\cosh s}\cosh(vs)\,ds$, and a
# series of Temme's for $x \le 1$.

# %%
lab.show(C.log_bessel._order_sum, C.log_bessel._order_i)

# %%
lab.show(C.log_bessel._series_i, C.log_bessel._power_sums, C.log_bessel._integral_k)

# %%
run.data = "mpmath, 40 digits"
table = tables.bessel_table()
v, at = table[:, 0], table[:, 1].clone().requires_grad_()
unit = torch.finfo(torch.float64).eps
worst = {}
for name, function, column in (("I", C.log_iv, 2), ("K", C.log_kv, 4)):
    value = function(v, at)
    slope = torch.autograd.grad(value.sum(), at)[0] * at.detach()
    scale = torch.maximum(table[:, column].abs(), table[:, column + 1].abs())
    worst[name] = float(((value.detach() - table[:, column]).abs() / scale).max() / unit)
    worst[name + "'"] = float(((slope - table[:, column + 1]) / table[:, column + 1]).abs().max() / unit)
run.exact("log-bessel", "log I and log K are those of an argument within six units in the last place", max(worst["I"], worst["K"]), at_most=6)

# %%
run.exact("log-bessel", "The gradients of log I and log K are right within twelve units in the last place", max(worst["I'"], worst["K'"]), at_most=12)

# %% [markdown]
# *An argument within six units*: where $\log I$ crosses zero a relative error means nothing, so the error is measured
# in what a rounding of $x$ itself would do. The judge is mpmath at sixty points, orders up to some sixteen thousand and
# arguments from tiny to eight thousand. Against SciPy, scaled functions and all, over orders and arguments up to ten
# thousand:

# %%
import numpy as np
import scipy.special as special

SIDE = run.pick(quick=120, long=300, full=300)
grid = np.logspace(-4, 4, SIDE)
order, argument = np.meshgrid(grid, grid, indexing="ij")
with np.errstate(all="ignore"):
    theirs = {"iv": np.log(special.iv(order, argument)), "ive": np.log(special.ive(order, argument)) + argument,
              "kv": np.log(special.kv(order, argument)), "kve": np.log(special.kve(order, argument)) - argument}
mine = {"log_iv": C.log_iv(torch.tensor(order), torch.tensor(argument)), "log_kv": C.log_kv(torch.tensor(order), torch.tensor(argument))}
lost = {name: float((~np.isfinite(value)).mean()) for name, value in theirs.items()} | {name: float((~torch.isfinite(value)).double().mean()) for name, value in mine.items()}
run.exact("log-bessel", "Share of orders and arguments for which the new routines have no finite logarithm", max(lost["log_iv"], lost["log_kv"]), at_most=0.0, data="a grid")

# %%
run.exact("log-bessel", "Share of them for which the better of SciPy's functions of either kind has none", max(lost["ive"], lost["kve"]), at_least=0.2, data="a grid")

# %%
ok = np.isfinite(theirs["ive"]) & (np.abs(theirs["ive"]) > 1)
run.exact("log-bessel", "Where SciPy has a value both agree, largest relative difference", float(np.abs(mine["log_iv"].numpy() / theirs["ive"] - 1)[ok].max()), at_most=1e-11, data="a grid")

# %% mystnb={"image": {"alt": "Two maps over order and argument, both logarithmic. Left: which of three expressions is used. Right: where SciPy's scaled I or K is zero, infinite or no number; that is a region at large orders, whose lower edge rises with the argument."}, "figure": {"caption": "Left, the expression that is used; right, dark where SciPy's scaled functions have no logarithm.", "name": "fig-bessel-map"}}
which = C.regions(torch.tensor(order), torch.tensor(argument))
maps = (sum(i * m.long() for i, m in enumerate(which.values())), ~(np.isfinite(theirs["ive"]) & np.isfinite(theirs["kve"])))
figure, panels = lab.plots.axes(2, 7, 2.7, sharey=True)
for panel, shown, title in zip(panels, maps, (", ".join(which), "SciPy fails")):
    panel.pcolormesh(grid, grid, np.asarray(shown), shading="nearest", cmap="viridis_r", rasterized=True)
    panel.set(xscale="log", yscale="log", xlabel="argument x", title=title)
_ = panels[0].set_ylabel("order v")

# %%
NT = run.pick(quick=(2, 5, 8, 11, 13), full=(2, 5, 8, 11, 13))
found = run.curve("log-bessel", "error over the number of terms", NT, along(NT, lambda n, seed: trials.truncated(n)), "terms of the expansion for large orders",
                  "log10 of the largest error", data="mpmath, 40 digits")
found

# %%
spent = each(lambda seed: trials.bessel_seconds(seed, run.pick(quick=20_000, long=100_000, full=1_000_000), run.device))
run.claim("log-bessel", "Over orders and arguments up to ten thousand log I is computed faster than by SciPy, which does not have all of it",
          spent["ours, I"], spent["SciPy, I"], margin=0.0, higher_is_better=False, tolerance=10.0, data="random orders and arguments")

# %%
run.claim("log-bessel", "The expansion for large arguments takes less time than that for large orders",
          spent["argument"], spent["order"], margin=0.0, higher_is_better=False, tolerance=10.0, data="random orders and arguments")

# %%
run.claim("log-bessel", "The expansion for large orders takes less time than the power series",
          spent["order"], spent["series"], margin=0.0, higher_is_better=False, tolerance=10.0, data="random orders and arguments")

# %%
print("microseconds an element:", {name: round(sum(t) / len(t), 2) for name, t in spent.items()})

# %% [markdown]
# To fit $\kappa$ to the length $R$ of the mean of $n$ directions, solve $A_p(\kappa) =
# I_{p/2}(\kappa)/I_{p/2-1}(\kappa) = R$: Banerjee's guess, then two Newton steps. Here cosines are drawn with $\kappa =
# p/4$ and the length is their mean. Then features of digits: random rectified projections, centred, their mean length
# in each dimension.

# %%
lab.show(C.fit_kappa)

# %%
P = run.pick(quick=(64, 512, 2048, 8192, 32768), full=(64, 512, 2048, 8192, 32768))
kappas = along(P, trials.recovered_kappa)

# %% mystnb={"image": {"alt": "Relative error of the fitted concentration against the dimension from 64 to 32768: it falls with the dimension."}, "figure": {"caption": "Error of the fitted concentration in up to 32,768 dimensions, from 400 cosines.", "name": "fig-bessel-kappa"}}
found = run.curve("log-bessel", "error of the fitted concentration over the dimension", P, of(kappas, "error"), "dimension p", "relative error of κ", log=True, data="Wood's sampler")
_ = lab.plots.curve(found, 5.2, 2.2)

# %%
run.exact("log-bessel", "In 32,768 dimensions κ is recovered from 400 cosines, relative error", max(kappas["error"][-1]), at_most=0.02, data="Wood's sampler")

# %%
run.exact("log-bessel", "Share of fits in 2,048 to 32,768 dimensions for which SciPy's ratio is a number", max(max(k) for k in kappas["SciPy has it"][2:]), at_most=0.0, data="Wood's sampler")

# %%
wide = [trials.feature_kappa(p, run.seeds[0]) for p in (2048, 8192, 32768)]
run.exact("log-bessel", "On rectified random features of digits the fitted A(κ) is the mean length, to rounding, in all three dimensions", max(w["miss"] for w in wide), at_most=1e-9, data=DIGITS)

# %%
slow = each(trials.mpmath_seconds)
run.claim("log-bessel", "In 2,048 dimensions a fit among 2,000 takes less than a tenth of the time that it takes with mpmath",
          slow["ours, in a batch"], [t / 10 for t in slow["mpmath"]], margin=0.0, higher_is_better=False, tolerance=100.0, data="mean lengths on a grid")

# %%
run.claim("log-bessel", "In 2,048 dimensions a fit alone takes less time than with mpmath",
          slow["ours, one"], slow["mpmath"], margin=0.0, higher_is_better=False, tolerance=100.0, data="mean lengths on a grid")

# %% [markdown]
# And as a clusterer: a mixture of von Mises–Fisher distributions on the directions of digits, where the normaliser is
# what lets clusters of different concentration compete.

# %%
lab.show(C.vmf_mixture, start="for _ in range(iterations)", end="break")

# %%
DIRECTIONS = 100 if run.dry else run.pick(quick=300, long=800, full=800)
ball = each(lambda seed: trials.averaged(lambda s: trials.on_the_sphere(s, TEST, DIRECTIONS), seed, 2))
run.claim("log-bessel", "On groups of different concentration the mixture has a higher ARI than k-means on the sphere",
          ball["mixture, planted"], ball["k-means, planted"], margin=0.05, data="Wood's sampler")

# %%
run.claim("log-bessel", "With the normaliser left out the mixture has a lower ARI on the same groups",
          ball["no normaliser, planted"], ball["mixture, planted"], margin=0.05, higher_is_better=False, data="Wood's sampler")

# %%
run.claim("log-bessel", "On directions of digits the mixture's ARI is at least that of k-means",
          ball["mixture, digits"], ball["k-means, digits"], margin=0.0, data=DIGITS)

# %% [markdown]
# Values and gradients are right to what a rounding of the argument allows at the points checked, and SciPy has no
# logarithm for a fifth of the grid (*measured*). Faster it is not: in the quick run our torch code takes longer for an
# element than SciPy's compiled one (*measured*); on more elements at once, in the long run, the two are level as far as
# seeds can tell. *Our guess*: SciPy is quick where it underflows, and the paper's factors are those of fused kernels.
# That the expansions are cheaper than the series is *measured*, and of those whose terms are small enough the cheapest
# is taken. A fit
# alone takes longer than mpmath's two Newton steps, and among thousands next to nothing (*measured*): *our guess*,
# overhead. That a fit meets the mean length to rounding is judged by our own $A_p$. In the mixture the normaliser does
# the work: without it concentrations cannot compete (*measured*). On digits the mixture and k-means are not told apart.

# %% [markdown]
# ## All of them on one table
# 100 rows of wine, standardised; three cultivars. Those that need a number of clusters are told it; PPP, multicut and
# Leiden find their own.

# %%
results = each(lambda seed: trials.contest(seed, STEPS, EPOCHS))

# %% mystnb={"image": {"alt": "Bars of ARI on wine for the chapter's clusterers, from one cluster at 0 to five neighbours with labels."}, "figure": {"caption": "ARI with the cultivars of wine. Dots are seeds.", "name": "fig-clustering-algorithms-results"}}
lab.plots.bars(lab.plots.axes(1, 6, 3.1)[1], results, "ARI on wine")

# %%
run.summarise("ARI on 100 rows of wine", results, floor="one cluster", ceiling="5 neighbours with labels", data=TABLES)

# %% [markdown]
# Wine is easy once its columns are standardised: most clusterers reach what five neighbours with labels reach, which is
# no true ceiling. PPP has k-means' ARI because its labels are those of k-means. Multicut at an α that was not chosen
# for it agrees less. For one seed of the quick run iLA-SDP leaves the k-means labels from which it starts for far
# worse ones; in the long run it does not, and the full mixture fails for one. *Our guess*: for either some thirty rows
# are few for a covariance of thirteen columns.

# %% [markdown]
# ````{dropdown} Statements that were dropped, reworded or added after a first look
# What stands was measured on seeds 5 to 9, in the long run 5 to 7, which took no part in any choice. A first run, on
# seeds 0 to 4, changed the list; all that it changed was inconclusive there. Dropped was, on polyhedra, *At the highest
# price the sparse objective speaks of fewer features than the one that counts complexity*; in its place stands how
# often a feature is taken up. Reworded was, on MNIST-Nd, *With β kept as in eight dimensions …*: as in two. Taken out
# and put back, some beside another, were both statements on iris under iLA-SDP, groups at forty to the programme, both
# on Leiden in 64 dimensions, and k-means' loss against Leiden's. Added were the energy, the Voronoi cells and the
# completion under ClAM.
# ````

# %% [markdown]
# ## What carries over
# Each statement with its verdict and mean difference at every length that was measured, under what its paper reports.
# The long run settles less with its three seeds, and turns no settled finding into its opposite. The order of the arms
# is mostly the same; not so, within what seeds can tell, for ClAM and its rivals in silhouette, the spread over starts
# of iLA-SDP and EM, the bars with and without layer normalisation, and KPCA and all features in ARI and in their
# riskiest
# clusters. More rows and steps make the decline of full mixtures with
# the dimension visible; over longer trainings the persistence score on ten classes differs from seed to seed.

# %%
run.carry_over()

# %% [markdown]
# ## Exercises
# ````{exercise-start} How many memories may a hot energy have?
# :label: ex-clustering-temperature
# ````
# Two prototypes at distance $2a$ on a line, no mask. For which β does the energy have one hollow, half-way between
# them, and for which two? Find
# the threshold on paper, then look for it with `recall`.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-clustering-temperature
# :class: dropdown
# ````
# In the middle the softmax is even and its slope along the line is βa: the step is -v + a·tanh(βav), so that the middle
# attracts while βa² < 1. With a = 1
# the threshold is β = 1. A grid of one axis shows it.

# %%
# NBVAL_CHECK_OUTPUT
two = torch.tensor([[-1.0], [1.0]])
for beta in (0.5, 0.9, 1.2, 4.0):
    end = C.recall(torch.tensor([[0.05]]), two, beta, steps=2000, rate=0.1)
    print(f"β = {beta}: from 0.05 to {float(end):.2f}")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} An index that likes singletons
# :label: ex-clustering-singletons
# ````
# Take customers and kernel components at a large γ. Which clusters does Ward find, and why is the silhouette inside the
# embedding not bad? Count the rows
# of the largest cluster.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-clustering-singletons
# :class: dropdown
# ````
# All off-diagonal entries of the kernel are nearly 0, so each leading eigenvector belongs to few customers, who stand
# far from a heap of all others at
# the origin. The heap is compact and the few are far away: the index has nothing to object to.

# %%
# NBVAL_CHECK_OUTPUT
some = C.customers(200, tables.draws(1, 0))
found = trials.pipelines_at(some, 0.2, 5)
print("largest cluster holds more than four fifths:", found["largest cluster"] > 0.8, "| ARI below 0.1:", found["ARI"] < 0.1)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A certificate for a bad guess
# :label: ex-clustering-certificate
# ````
# Multipliers that are all zero give a bound too. How far is it from what the solver's bound comes down to, on two
# groups of different shape? How many steps take most of it away?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-clustering-certificate
# :class: dropdown
# ````
# Without multipliers the bound is the sum of the largest eigenvalues of the $A_k$: true, and loose. Even its sign is wrong. A few steps of the solver improve it most.

# %%
x, y, known = tables.shapes(30, 4, 4.0, 0)
a = C.likelihood_affinity(x, known)
print(f"eigenvalues alone: {float(torch.linalg.eigvalsh(a)[:, -1].sum()):.0f}", end="; ")
for steps in (5, 50, 400):
    print(f"after {steps} steps: {float(C.solve_lifted(a, steps=steps).bound):.0f}", end="; ")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For
# instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} One step down ClAM's energy
# :label: ex-clam-step
# ````
# Write one step of the recursion for a batch of states: hidden coordinates move by $\alpha \sum_l \sigma_l(\rho_l - v)$ with
# $\sigma = \operatorname{softmax}_l(-\frac\beta2\lVert v - \rho_l\rVert^2)$, visible ones stay. It must survive β = 10⁴.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-clam-step
# :class: dropdown
# ````
# The softmax is taken over the prototypes; computed as such, and not as a ratio of exponentials, it does not underflow.

# %% tags=["task:clam-step"]
import torch


def clam_step(v, prototypes, beta, mask, rate):
    """States v (n, d) after one step; prototypes (k, d), mask (n, d) true where hidden."""
    ### BEGIN SOLUTION
    distance = (v[:, None] - prototypes).square().sum(2)
    share = torch.softmax(-beta / 2 * distance, 1)
    pull = share @ prototypes - v
    return v + rate * pull * mask
    ### END SOLUTION


# %% tags=["task-tests:clam-step:3", "remove-cell"]
v, r = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
hidden = torch.tensor([[True, True]])
assert abs(float(clam_step(v, r, 1e-9, hidden, 0.5)[0, 0]) + 0.5) < 1e-4, "hot: half-way to the mean of the prototypes"
assert abs(float(clam_step(v, r, 1e4, hidden, 0.5)[0, 0]) - 0.5) < 1e-4, "cold: half-way to the nearest"
### BEGIN HIDDEN TESTS
import math

g = torch.Generator().manual_seed(0)
v, r = torch.randn(5, 3, generator=g), torch.randn(4, 3, generator=g)
hidden = torch.rand(5, 3, generator=g) < 0.5
found = clam_step(v, r, 1.7, hidden, 0.2)
for i in range(5):
    weights = [math.exp(-0.85 * sum((a - b) ** 2 for a, b in zip(v[i].tolist(), row))) for row in r.tolist()]
    for j in range(3):
        moved = sum(w * (row[j] - float(v[i, j])) for w, row in zip(weights, r.tolist())) / sum(weights)
        want = float(v[i, j]) + (0.2 * moved if hidden[i, j] else 0.0)
        assert abs(float(found[i, j]) - want) < 1e-5, "one coordinate of one state, by hand"
### END HIDDEN TESTS

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} The multicut objective without a matrix
# :label: ex-multicut-value
# ````
# Write $\sum_{i<j} (\langle f_i, f_j\rangle - \alpha)[c_i \ne c_j]$ from the sums of the clusters' features and their sizes alone, in O(nd). No n×n matrix.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-multicut-value
# :class: dropdown
# ````
# The square of the sum of all features holds every ordered pair twice and every row with itself; take off the same for
# each cluster, and the rows
# with themselves cancel. Pairs are counted likewise.

# %% tags=["task:multicut-value"]
import torch


def multicut_value(f, labels, alpha):
    """The objective, a number, of features f (n, d) and labels (n,)."""
    ### BEGIN SOLUTION
    member = torch.nn.functional.one_hot(labels).to(f.dtype)
    sums, count = member.T @ f, member.sum(0)
    products = (f.sum(0).square().sum() - sums.square().sum()) / 2
    pairs = (len(f) ** 2 - count.square().sum()) / 2
    return float(products - alpha * pairs)
    ### END SOLUTION


# %% tags=["task-tests:multicut-value:3", "remove-cell"]
f = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
assert abs(multicut_value(f, torch.tensor([0, 0, 1]), 0.5) + 1.0) < 1e-5, "two pairs are cut, each costs 0 - α"
assert abs(multicut_value(f, torch.tensor([0, 0, 0]), 0.5)) < 1e-5, "nothing is cut"
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(0)
f, names = torch.randn(9, 4, generator=g), torch.randint(4, (9,), generator=g)
for alpha in (0.0, 0.7):
    want = 0.0
    for i in range(9):
        for j in range(i):
            if int(names[i]) != int(names[j]):
                want += sum(a * b for a, b in zip(f[i].tolist(), f[j].tolist())) - alpha
    assert abs(multicut_value(f, names, alpha) - want) < 1e-3, "the sum over cut pairs, one after another"
### END HIDDEN TESTS

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to take with you
# - A convex relaxation comes with a certificate, which says when to trust a rounded answer to the problem as it was
# posed.
# - When costs are inner products, sums of vectors replace matrices.
# - An index judges the space that it is computed in; agreement of runs judges the method. Neither is being right.
# - A mixture needs its normaliser; compute its logarithm, and do not leave it.
#
# ## What to read next
# [Honest evaluation](../foundations/evaluation.ipynb) asks how much a difference between two runs is worth;
# [Choosing a run without labels](../self_supervision/redundancy.ipynb) is the persistence score's question for spectra.

# %%
run.close()
