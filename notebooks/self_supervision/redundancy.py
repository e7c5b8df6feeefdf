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
# # Redundancy reduction
#
# Two views of an image should get the same representation. The trivial answer, a constant, is the whole difficulty.
# Contrastive learning rules it out with other images. This chapter rules it out with other *features*: each must say
# something that the rest do not. No negatives, no momentum queue, sometimes not even a predictor.
#
# **You will be able to**
# - write the losses of Barlow Twins, VICReg, SSL-EY and E2MC, and say which term prevents what;
# - compute ‖AᵀB‖² for features wider than the batch without making the d×d matrix;
# - explain why a linear BYOL does not collapse, and replace its predictor by a formula;
# - choose a run without labels by its effective rank, and say when that goes wrong.
#
# **You should know** the chapter [Contrastive learning](contrastive.ipynb), covariance matrices, and what singular
# values are. **Run time:** about a minute on a laptop; on a GPU the same cells take CIFAR-10 and a ResNet-18.

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

import labcode as lab
from labcode.course.stage import Stage
from labcode.self_supervision import contrastive as C
from labcode.self_supervision import redundancy as R

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map. Barlow Twins at the left answers SimCLR. Arrows lead from it to Mixed Barlow Twins, SSL-EY and VICReg; from VICReg to E2MC; from BYOL to orthonormal BYOL; and from Mixed Barlow Twins, SSL-EY, E2MC and orthonormal BYOL to RankMe, which judges runs of all."}, "figure": {"caption": "Who answers whom. An arrow leads to the method that came as an answer, and to RankMe from what it judges.", "name": "fig-redundancy-family"}}
PAPERS = {
    "SimCLR": (0, 1, "explained elsewhere"), "BYOL": (0, 3, "explained elsewhere"), "VICReg": (2.4, 2, "explained elsewhere"),
    "Barlow Twins": (1.2, 1, "this chapter"), "Mixed Barlow": (2.4, 0, "this chapter"), "SSL-EY": (2.4, 1, "this chapter"),
    "E2MC": (3.6, 2, "this chapter"), "orthonormal\nBYOL": (1.2, 3, "this chapter"), "RankMe": (4.8, 1.5, "this chapter"),
}
ARROWS = [
    ("SimCLR", "Barlow Twins"), ("Barlow Twins", "Mixed Barlow"), ("Barlow Twins", "SSL-EY"), ("Barlow Twins", "VICReg"),
    ("VICReg", "E2MC"), ("BYOL", "orthonormal\nBYOL"), ("E2MC", "RankMe"), ("SSL-EY", "RankMe"), ("Mixed Barlow", "RankMe"),
    ("orthonormal\nBYOL", "RankMe"),
]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("self_supervision/redundancy")
stage = Stage(run)
run

# %% [markdown]
# The arms of a comparison share images, views, encoder, optimiser and number of steps. Only the loss changes. The
# projector's width is `WIDE`; it is larger than the batch, which matters below.

# %%
WIDE, LAM = run.pick(quick=(256, 0.1), full=(2048, 0.0051))
OPTIONS = dict(lr=1e-3, optimizer="adamw", weight_decay=run.pick(quick=1e-4, full=1e-6))
HEAD, LONG, SHORT = run.pick(quick=("linear", 320, 80), full=("mlp", 200 * 97, 40 * 97))


def pretrain(name, loss, seed, dim=WIDE, head=HEAD, **options):
    """An encoder trained with a loss of two views' projections; the same name and seed are trained once."""
    return stage.pretrain(name, lambda e: R.TwoViews(e, loss, dim, head), seed, **(OPTIONS | options))


def barlow(seed, name="full", dim=WIDE, lr=5e-4, **terms):
    """Barlow Twins as the chapter trains it, or with some of its terms."""
    return pretrain(
        f"barlow {name}",
        lambda a, b: R.barlow_twins(a, b, **(dict(lam=LAM) | terms)),
        seed,
        dim,
        lr=run.pick(quick=lr, full=1e-3),
        steps=LONG,
    )


# %% [markdown]
# VICReg has no section of its own; it serves two papers here: one goes on training it, one judges a sweep of it. Weighted by $s$, $\mu$ and $\nu$, over the
# batch it asks for a small distance of the views, for each feature a standard deviation of at least 1, and for covariances
# $C_{ij}$ near 0 within each view,
#
# $$\mathcal L = s\,\frac{1}{Nd}\lVert Z^A - Z^B \rVert^2 + \frac{\mu}{2d} \sum_{A,B} \sum_i \bigl(1 - \sqrt{C_{ii} + 10^{-4}}\bigr)_+ +
# \frac{\nu}{d} \sum_{A,B} \sum_{i \neq j} C_{ij}^2 .$$

# %%
lab.show(R.vicreg)

# %%
SWEEP = run.pick(quick=(0.0, 0.2, 1.0, 5.0, 20.0, 60.0), full=(0.0, 0.04, 0.2, 1.0, 5.0, 25.0, 125.0))


def vicreg(seed, cov=5.0):
    """VICReg with a given weight of its covariance term."""
    return pretrain(f"vicreg {cov}", lambda a, b: R.vicreg(a, b, sim=5.0, cov=cov), seed, head="mlp", steps=SHORT, lr=2e-3)


# %% [markdown]
# ## Where the chapter starts
# Before any new loss: what do chance, raw pixels, an untrained encoder, SimCLR and full supervision reach? The bars
# come back at the end with the chapter's methods beside them. Accuracy is that of a nearest-neighbour vote on the
# frozen features, except for the supervised net, which has its own classifier.

# %% mystnb={"image": {"alt": "Horizontal bars of kNN test accuracy for chance, raw pixels, a random encoder, supervised training and SimCLR: raw pixels and the random encoder are close, SimCLR well above them, supervised training highest."}, "figure": {"caption": "The bars to clear, before any method of this chapter. Dots are seeds.", "name": "fig-redundancy-floor"}}
found = [stage.references(seed) for seed in run.seeds]
results = {name: [f[name] for f in found] for name in found[0]}
results["SimCLR"] = [stage.knn(stage.pretrain("simclr", C.SimCLR, seed).encoder) for seed in run.seeds]
lab.plots.bars(lab.plots.axes(1, 6, 2.0)[1], results, "kNN test accuracy", chance=0.1)

# %%
# NBVAL_CHECK_OUTPUT
print(
    stage.classes,
    "classes,",
    len(results),
    "references,",
    WIDE > stage.budget.batch_size,
    "that the projector is wider than the batch",
)

# %% [markdown]
# (barlow-twins)=
# ## Each feature agrees with itself and with no other
# Agreement alone allows all features to be copies of one easy quantity. Barlow Twins writes both wishes into one
# matrix. Standardise each feature over the batch, correlate the features of one view with those of the other,
#
# $$C_{ij} = \frac1N \sum_b z^A_{b,i}\, z^B_{b,j}, \qquad
# \mathcal L = \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \neq j} C_{ij}^2 ,$$
#
# and ask for the identity. The diagonal is *invariance*, the rest is *redundancy*. Gradients flow through both views.

# %%
lab.show(R.barlow_twins, R.off_diagonal2)

# %% [markdown]
# Why `off_diagonal2`? The paper's projector has 8192 features, so $C$ has 67 million entries for a batch of 256. But the
# sum of their squares is an inner product of two N×N matrices:
# $\lVert Z_1^\top Z_2\rVert^2 = \langle Z_1 Z_1^\top,\; Z_2 Z_2^\top\rangle$. To leave the diagonal out, the features are
# cut into strips: what two different strips share comes from their N×N matrices, what a strip shares with itself from a
# small block without its diagonal. The loss takes the cheaper way by itself. Is it the same loss, and the same gradient?

# %%
apart = []
for n, d in ((4, 64), (32, 32), (64, 512), (128, 8)):
    z1, z2 = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d)).requires_grad_()
    both = [R.barlow_twins(z1, z2, 0.01, gram=way) for way in (False, True)]
    slopes = [torch.autograd.grad(value, z1, retain_graph=True)[0] for value in both]
    apart += [abs(both[0] - both[1]).item() / both[0].item(), ((slopes[0] - slopes[1]).norm() / slopes[0].norm()).item()]
run.exact("barlow-twins", "The Gram identity gives the value and the gradient of the d×d loss, for d below and above N",
          max(apart), at_most=1e-10, data="random matrices")

# %% [markdown]
# Now take the loss apart: the whole, the diagonal alone, the off-diagonal alone, the whole with a narrow projector. One
# more arm changes where redundancy is measured. The paper's off-diagonal entries compare a feature of one view with another
# feature of the *other* view, so two copies of a feature that the views do not share look innocent. Measured *within* each
# view, as VICReg and SSL-EY do it, a copy is a copy.

# %%
arms = {
    "full": {},
    "on-diagonal only": dict(lam=0.0),
    "off-diagonal only": dict(on=0.0),
    "narrow": dict(dim=WIDE // 8),
    "within views": dict(within=True),
}
models = {name: [barlow(seed, name, **changed) for seed in run.seeds] for name, changed in arms.items()}
accuracy = {name: [stage.knn(m.encoder) for m in trained] for name, trained in models.items()}
results["Barlow Twins"] = accuracy["full"]

# %% mystnb={"image": {"alt": "Three cross-correlation matrices. With the full loss a bright diagonal stands on a nearly empty background; with the diagonal term alone the matrix is full of stripes, features are copies of each other; with the off-diagonal term alone nothing is correlated with anything."}, "figure": {"caption": "Cross-correlation of the first 48 projector features, on fresh views.", "name": "fig-barlow-matrices"}}
sample = stage.views(stage.train_images[:1000], generator=run.generator(7))
figure, panels = lab.plots.axes(3, 7, 2.5)
for panel, name in zip(panels, arms, strict=False):
    with torch.no_grad():
        matrix = R.cross_correlation(*models[name][0].project(sample).chunk(2))
    shown = panel.imshow(matrix[:48, :48].cpu(), vmin=-1, vmax=1, cmap="RdBu_r")
    panel.set(title=name, xlabel="feature of view B", ylabel="feature of view A")
    panel.grid(False)
_ = figure.colorbar(shown, ax=panels, label="correlation", shrink=0.8)

# %%
ranks = {name: [R.rankme(stage.features(m.network, stage.train_images)) for m in models[name]] for name in list(arms)[:3]}
for name, values in ranks.items():
    print(f"{name:18} effective rank {sum(values) / len(values):6.1f} of {WIDE}, kNN {sum(accuracy[name]) / len(values):.3f}")

# %% mystnb={"image": {"alt": "Bars of kNN test accuracy for Barlow Twins whole, with its diagonal or off-diagonal part alone, with a narrow projector, and with redundancy measured within each view."}, "figure": {"caption": "Barlow Twins taken apart, equal learning rate and steps. Dots are seeds, dashes chance.", "name": "fig-barlow-arms"}}
lab.plots.bars(lab.plots.axes(1, 6, 2.0)[1], accuracy, "kNN test accuracy", chance=1 / stage.classes)

# %%
run.claim("barlow-twins", "Redundancy measured within each view gives a better kNN than across the views",
          accuracy["within views"], accuracy["full"], margin=0.05)

# %%
run.claim("barlow-twins", "The full loss gives a better kNN than its diagonal alone",
          accuracy["full"], accuracy["on-diagonal only"], margin=0.05)

# %%
run.claim("barlow-twins", "The full loss gives a better kNN than its off-diagonal part alone",
          accuracy["full"], accuracy["off-diagonal only"], margin=0.05)

# %%
probe = {name: [stage.probe(m.encoder) for m in models[name]] for name in ("full", "off-diagonal only")}
run.claim("barlow-twins", "The full loss gives a better linear probe than its off-diagonal part alone",
          probe["full"], probe["off-diagonal only"], margin=0.05)

# %%
run.claim("barlow-twins", "A projector eight times as wide gives a better kNN", accuracy["full"], accuracy["narrow"], margin=0.02)

# %% [markdown]
# The diagonal alone does not collapse to a point, standardisation forbids that. It collapses to *a few numbers*, the
# ones that both views share most cheaply, here the colour that a view keeps in part, and copies them into every feature:
# worse than no training at all. The off-diagonal term alone learns nothing and so destroys little.
#
# What surprised us is the arm that is not the paper's. With nothing changed but the place where redundancy is measured, it
# leaves Barlow Twins far behind. Early in training hardly any feature is shared by the views, so its cross-view
# correlations are small whatever the features repeat; the redundancy term begins to work only once invariance is there.
# Within a view every copy counts from the first step. A training of two hundred epochs has time for both, a minute has
# not.

# %% [markdown]
# (mixed-barlow-twins)=
# ## Guarding against overfitting with mixed samples
# Nothing in Barlow Twins looks across images, so with few images and many steps it can memorise them. Mixed Barlow
# Twins adds images that nobody has memorised: mix view A with a shuffled view B, $x_M = \alpha x_A + (1-\alpha) x_B[\pi]$,
# and ask that features mix like pixels,
#
# $$\lambda_{reg}\,\lambda\,\bigl(\lVert C_{MA} - G_{MA}\rVert^2 + \lVert C_{MB} - G_{MB}\rVert^2\bigr), \qquad
# G_{MA} = \tfrac{\alpha}{N} z_A^\top z_A + \tfrac{1-\alpha}{N} z_B[\pi]^\top z_A .$$
#
# Both differences share a factor, the residual $r = z_M - \alpha z_A - (1-\alpha) z_B[\pi]$. So the guard says: what is
# *not* linear in the mixture must not correlate with the views.

# %%
lab.show(R.mixed_barlow, R.MixedBarlow)

# %%
torch.manual_seed(0)
model = R.MixedBarlow(stage.encoder(0), 64).to(run.device).train()
x1, x2 = stage.views(stage.train_images[:64], generator=run.generator(0)).chunk(2)
order = torch.randperm(64, device=run.device)
with torch.no_grad():
    z1, z2 = model.project(x1), model.project(x2)
    ends, middle = (
        [float(model.guard(x1, x2, z1, z2, a, order)) for a in (0.0, 1.0)],
        float(model.guard(x1, x2, z1, z2, 0.5, order)),
    )
run.exact("mixed-barlow-twins", "The guard is zero at α = 0 and α = 1", max(ends), at_most=1e-6)

# %%
# NBVAL_CHECK_OUTPUT
print("the guard at α = ½ is far from zero:", middle > 100 * max(ends + [1e-6]))

# %% [markdown]
# To see overfitting in seconds, take few images, a perceptron as encoder, and two lengths of training. The guard needs
# a third forward pass, so the plain arm gets half as many steps again: equal forwards, not equal steps.

# %%
few = stage.train_images[: run.pick(quick=256, full=5000)]
lengths = run.pick(quick=(50, 150), full=(40 * 97, 160 * 97))
encoder = run.pick(quick=lambda seed: torch.manual_seed(seed) and R.FlatNet(), full=stage.encoder)
trained = {}
for weight, name in ((0.0, "plain"), (4.0, "mixed")):
    for steps in lengths:
        trained[name, steps] = [
            stage.pretrain(
                f"{name} few {steps}",
                lambda e, w=weight: R.MixedBarlow(e, WIDE, LAM, w),
                s,
                images=few,
                encoder=encoder(s),
                steps=steps if weight else steps * 3 // 2,
                **OPTIONS,
            )
            for s in run.seeds
        ]

# %%
held = stage.test_images[: len(few)]
views = [stage.views(images, generator=run.generator(11)) for images in (few, held)]
with torch.no_grad():
    losses = {
        key: [[float(R.barlow_twins(*m.project(v).chunk(2), LAM)) / WIDE for v in views] for m in ms]
        for key, ms in trained.items()
    }
gap = {key: [out - seen for seen, out in pairs] for key, pairs in losses.items()}
late = {key: [stage.knn(m.encoder) for m in ms] for key, ms in trained.items()}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels against the number of steps, plain and mixed Barlow Twins: the gap between held-out and training loss, and the kNN accuracy."}, "figure": {"caption": "Training on few images: the loss gap and kNN accuracy against length. Dots are seeds.", "name": "fig-mixed-overfit"}}
figure, panels = lab.plots.axes(2, 7, 2.6)
for panel, values, label in zip(panels, (gap, late), ("loss gap, held-out − training", "kNN test accuracy"), strict=True):
    for i, name in enumerate(("plain", "mixed")):
        panel.plot(lengths, [sum(values[name, n]) / len(run.seeds) for n in lengths], color=lab.plots.COLOURS[i], label=name)
        panel.plot(
            [n for n in lengths for _ in run.seeds],
            [v for n in lengths for v in values[name, n]],
            "o",
            color=lab.plots.COLOURS[i],
        )
    panel.set(xlabel="steps of the mixed arm (equal forwards)", ylabel=label)
_ = panels[0].legend()

# %%
run.claim("mixed-barlow-twins",
          "After the long training on few images the guard leaves a smaller gap between held-out and training loss",
          gap["mixed", lengths[1]], gap["plain", lengths[1]], margin=0.0, higher_is_better=False)

# %%
run.claim("mixed-barlow-twins", "At equal forward passes the guard gives a better kNN after the long training on few images",
          late["mixed", lengths[1]], late["plain", lengths[1]], margin=0.0)

# %% [markdown]
# The guard pays, but not where it was said to. The neighbour vote gains at equal forward passes; the gap between held-out and
# training loss, which was to show less overfitting, is on average wider with the guard. So what helps here is not that
# training images are memorised less. Neither arm declines within these lengths: what the paper guards against needs many
# more epochs.

# %% [markdown]
# (cca-ey)=
# ## Canonical correlation without constraints
# Finding features that agree between views and are uncorrelated within them is a hundred years old: canonical
# correlation analysis. Its constraint, $W^\top B W = I$, is awkward in small batches: whitening with a batch covariance is
# biased. The Eckart–Young loss has no constraint. With $A$ the covariance between and $B$ within the views,
#
# $$\mathcal L(W) = -2\operatorname{tr}(W^\top A W) + \operatorname{tr}\bigl((W^\top B W)^2\bigr)$$
#
# is smallest on the top subspace, where it is $-\sum_i \rho_i^2$. It is a polynomial in covariances, so *two independent
# batches* give it without bias: $\operatorname{tr}(V V')$ in place of $\operatorname{tr}(V^2)$.

# %%
lab.show(R.ssl_ey, R.ey_halves)

# %% [markdown]
# Plant four canonical correlations in Gaussian views, where the exact answer is a singular value decomposition away.

# %%
rho, p, n = (0.9, 0.8, 0.6, 0.3), 50, run.pick(quick=5000, full=20000)
x1, x2 = R.planted_views(n, p, rho)
exact = R.canonical_correlations(x1, x2)[: len(rho)]
w1, w2 = R.linear_cca(R.ssl_ey, x1, x2, len(rho), 400, n, 0.05)
value = R.ssl_ey((x1 @ w1).double(), (x2 @ w2).double())
run.exact("cca-ey", "Full-batch minimisation reaches minus the sum of squared exact canonical correlations (relative error)",
          abs(float(value / exact.square().sum()) + 1), at_most=0.01, data="planted Gaussian views")

# %% [markdown]
# The bias has a closed form for Gaussian features: one batch of $n$ overestimates $\operatorname{tr}(\Sigma^2)$ by
# $(\operatorname{tr}(\Sigma)^2 + \operatorname{tr}(\Sigma^2))/(n-1)$. Two batches overestimate by nothing.

# %%
g = torch.Generator().manual_seed(0)
z = torch.randn(600, 4, 64, 5, dtype=torch.float64, generator=g)
one = torch.stack([R.ssl_ey(a, b) - R.ssl_ey(a, b, (c, d)) for a, b, c, d in z])
wanted = 2 * (5**2 + 5) / 63
run.exact("cca-ey", "One batch is biased by the closed form and two independent batches are not (in standard errors)",
          abs(float((one.mean() - wanted) / (one.std() / len(one) ** 0.5))), at_most=4.0, data="Gaussian draws")

# %% [markdown]
# Does the bias matter? Train on batches of 16 with the two-batch form, the one-batch form, and the classical rival that
# whitens each batch. The measure is the share of the exact correlations that the learnt subspace holds.

# %%
arms = {"two batches": R.ey_halves, "one batch": R.ssl_ey, "whiten the batch": R.whitened_correlation}
held, scale = {name: [] for name in arms}, {name: [] for name in arms}
for seed in run.seeds:
    x1, x2 = R.planted_views(n, p, rho, seed)
    exact = R.canonical_correlations(x1, x2)[: len(rho)]
    for name, loss in arms.items():
        w1, w2 = R.linear_cca(loss, x1, x2, len(rho), 800, 16, 0.01, seed)
        held[name].append(float(R.canonical_correlations(x1 @ w1, x2 @ w2).sum() / exact.sum()))
        scale[name].append(float(R.ssl_ey(x1 @ w1, x2 @ w2) + exact.square().sum()))

# %% mystnb={"image": {"alt": "Bars of the share of canonical correlation captured with batches of 16: two-batch and one-batch Eckart-Young, and batch whitening."}, "figure": {"caption": "Correlation captured by batches of 16.", "name": "fig-ey-captured"}}
lab.plots.bars(lab.plots.axes(1, 6, 1.6)[1], held, "captured share of the exact canonical correlations")

# %%
run.claim("cca-ey", "With batches of 16, Eckart-Young captures more correlation than whitening each batch",
          held["two batches"], held["whiten the batch"], margin=0.05, data="planted Gaussian views")

# %%
run.claim("cca-ey", "With batches of 16, the two-batch form ends nearer to the exact minimum than the one-batch form",
          scale["two batches"], scale["one batch"], margin=0.0, higher_is_better=False, data="planted Gaussian views")

# %% [markdown]
# On images, the loss is the same with network outputs in place of $W^\top x$. There is no λ to choose. Both methods have
# the same steps, and at quick scale each a learning rate of its own, chosen on other draws of the training digits.

# %%
results["SSL-EY"] = [
    stage.knn(pretrain("ssl-ey", R.ssl_ey, seed, steps=LONG, **run.pick(quick=dict(lr=4e-3), full={})).encoder)
    for seed in run.seeds
]
rival = [stage.knn(barlow(seed).encoder) for seed in run.seeds]
run.claim("cca-ey", "SSL-EY is within three points of Barlow Twins on images", results["SSL-EY"], rival, margin=-0.03)

# %% [markdown]
# In direction the two forms are nearly equal. What bias does is shrink the features, and not even that is settled by our
# seeds: on average two batches end nearer to the minimum, but they are also noisier. That is why
# the released code can afford it. On images the within-view term pays, far beyond what the claim asks: it decorrelates what
# only one view sees as well.

# %% [markdown]
# (orthonormal-byol)=
# ## Why BYOL does not collapse: a predictor that is a projection
# BYOL has no term against collapse at all: it predicts a slow copy of itself. Take its predictor to be one matrix. The
# least-squares optimum $P = (Z^\top Z)^{-1} Z^\top Z'$ projects onto what the online network already spans, and gradient
# steps towards $Z'$ through such a $P$ push the singular values apart from zero. If that is the mechanism, training $P$ is
# unnecessary. With $S = Z^\top Z$, matrix products alone give
#
# - **NE**, two terms of the Neumann series: $P = 2 Z^\top Z' - Z^\top Z\, Z^\top Z'$;
# - **Visser**: $P \leftarrow P + \eta (S - P^2)$, which tends to $S^{1/2}$;
# - **NS**, Newton–Schulz: $A \leftarrow A(3I - BA)/2$, $B \leftarrow (3I - BA)B/2$, also $S^{1/2}$;
# - **Stiefel**: $(S^\top S)^{-1/2} S^\top$, an orthogonal matrix.

# %%
lab.show(R.newton_schulz, R.visser, R.closed_form_predictor)

# %%
z = torch.randn(256, 64, generator=torch.Generator().manual_seed(1)).double()
s = z.T @ z / (z.T @ z).norm()
values, vectors = torch.linalg.eigh(s)
root = vectors * values.sqrt() @ vectors.T
errors = [float((r - root).norm() / root.norm()) for r in (R.newton_schulz(s)[0], R.visser(s, 200))]
run.exact("orthonormal-byol", "Newton-Schulz and Visser give the matrix square root of the eigendecomposition (relative error)",
          max(errors), at_most=1e-2, data="a random covariance matrix")

# %%
# NBVAL_CHECK_OUTPUT
q = R.newton_schulz(s.T @ s, 30)[1] @ s.T
print("with enough steps the Stiefel predictor is orthogonal:", bool((q @ q.T - torch.eye(64)).norm() < 1e-3))
print("a projection of rank 5 has stable rank", round(R.stable_rank(torch.eye(64) * (torch.arange(64) < 5)), 6))

# %% [markdown]
# Four ways to predict, and two controls: no predictor (the identity), and no stop-gradient.

# %%
arms = {"NE": dict(predictor="ne"), "NS": dict(predictor="ns"), "Stiefel": dict(predictor="stiefel"),
        "trained linear": {}, "identity": dict(predictor="identity"), "no stop-gradient": dict(stop_gradient=False)}
models = {name: [stage.pretrain(f"byol {name}", lambda e, k=k: R.LinearBYOL(e, 64, **k), seed, steps=SHORT, **OPTIONS)
                 for seed in run.seeds] for name, k in arms.items()}
accuracy = {name: [stage.knn(m.encoder) for m in ms] for name, ms in models.items()}
ranks = {name: [R.rankme(stage.features(m.network, stage.train_images)) for m in ms] for name, ms in models.items()}
results["BYOL, NE"] = accuracy["NE"]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: bars of the effective rank of the projections for six BYOL variants, closed forms on top and controls below. Right: stable rank of the predictor against training step for the three closed forms and the trained matrix."}, "figure": {"caption": "Effective rank after training, and the predictor's stable rank on the way.", "name": "fig-byol-rank"}}
figure, panels = lab.plots.axes(2, 7.5, 2.7)
lab.plots.bars(panels[0], ranks, "effective rank of 64 projections")
for name in list(arms)[:4]:
    seen = models[name][0].trace
    panels[1].plot([10 * i for i in range(len(seen))], [R.stable_rank(q) for q in seen], label=name)
panels[1].set(xlabel="training step", ylabel="stable rank of P")
_ = panels[1].legend()

# %%
run.claim("orthonormal-byol", "The closed-form predictor NE gives a better kNN than a trained matrix",
          accuracy["NE"], accuracy["trained linear"], margin=0.05)

# %%
run.claim("orthonormal-byol", "The Newton-Schulz predictor is no worse in kNN than a trained matrix by more than a point",
          accuracy["NS"], accuracy["trained linear"], margin=-0.01)

# %%
run.claim("orthonormal-byol", "Projections keep a higher effective rank with Newton-Schulz than with the identity as predictor",
          ranks["NS"], ranks["identity"], margin=2.0)

# %%
run.claim("orthonormal-byol", "Without stop-gradient the effective rank falls below that of the trained matrix",
          ranks["no stop-gradient"], ranks["trained linear"], margin=0.0, higher_is_better=False)

# %% [markdown]
# A formula that is never trained does better here than the matrix that gradient descent finds, and NE, the crudest of all,
# keeps most dimensions. But read the table: at this length NE ends near the *random* encoder. It has prevented collapse
# more than it has learnt; the other arms have lost what a random encoder still had.

# %% [markdown]
# (e2mc)=
# ## Finish with entropy
# A trained representation can be uncorrelated and still badly spread: covariance sees only second moments. Joint entropy
# is hopeless to estimate in many dimensions, but the entropy of *one* feature is a sort away. E2MC maps each feature to
# (0, 1) and adds, for a few last epochs, on top of the model's own loss,
#
# $$\beta \sum_{A,B} \mathcal L_{cov} - \frac{\alpha}{2D} \sum_{A,B} \sum_d \hat H_d, \qquad
# \hat H_d = \frac1{N-m}\sum_i \log\Bigl(\tfrac{N+1}{m}\,(x_{(i+m)} - x_{(i)})\Bigr),\quad m = \sqrt N .$$

# %%
lab.show(R.m_spacing_entropy, R.e2mc)

# %% [markdown]
# First the estimator, on distributions whose entropy is known: uniform (0), normal ($\tfrac12\log 2\pi e$), and an even
# mixture of two normals far apart ($\log 2$ more).

# %%
g, normal = torch.Generator().manual_seed(0), 0.5 * torch.log(torch.tensor(2 * torch.pi * torch.e)).item()
draws = {"uniform": lambda n: torch.rand(n, 500, generator=g), "normal": lambda n: torch.randn(n, 500, generator=g),
         "bimodal": lambda n: torch.randn(n, 500, generator=g) + 20 * torch.randint(2, (n, 500), generator=g)}
truth = {"uniform": 0.0, "normal": normal, "bimodal": normal + torch.tensor(2.0).log().item()}
bias = {name: [float(R.m_spacing_entropy(draw(n)).mean()) - truth[name] for n in (64, 256, 1024)] for name, draw in draws.items()}
run.exact("e2mc", "The m-spacing estimate is within 0.1 nats of the truth on uniform, normal and bimodal samples of 1024",
          max(abs(values[-1]) for values in bias.values()), at_most=0.1, data="uniform, normal and bimodal draws")

# %%
# NBVAL_CHECK_OUTPUT
for name, values in bias.items():
    print(f"{name:8} the error shrinks with the sample:", abs(values[0]) > abs(values[-1]))

# %% [markdown]
# Then the paper's experiment. One VICReg encoder a seed; three more epochs with the same batches and views; only what is
# added to VICReg's own loss differs. Going on with *nothing* added is the control that matters.

# %%
extra = {
    "base": lambda a, b: 0.0,
    "+ entropy": lambda a, b: R.e2mc(a, b, cov=0.0),
    "+ covariance": lambda a, b: R.e2mc(a, b, entropy=0.0),
    "+ both (E2MC)": R.e2mc,
    "+ uniformity": lambda a, b: (R.uniformity_loss(a) + R.uniformity_loss(b)) / 2,
}
after = {name: [] for name in extra}
options = OPTIONS | dict(lr=5e-4, steps=run.pick(quick=45, full=3 * 97))
for seed in run.seeds:
    start = copy.deepcopy(vicreg(seed))
    for name, add in extra.items():
        loss = lambda a, b, f=add: R.vicreg(a, b, sim=5.0, cov=5.0) + f(a, b)
        method = lambda e, f=loss, h=start.head: R.TwoViews(e, f, head=copy.deepcopy(h))
        encoder = copy.deepcopy(start.encoder)
        after[name].append(stage.pretrain(f"go on {name}", method, seed, encoder=encoder, **options))

# %%
few_labels = {
    name: [stage.probe(m.encoder, labels=200, seed=s) for m, s in zip(ms, run.seeds, strict=True)]
    for name, ms in after.items()
}
uneven = {
    name: [R.distance_to_uniform(stage.features(m.network, stage.train_images).sigmoid()) for m in ms]
    for name, ms in after.items()
}
results["VICReg + E2MC"] = [stage.knn(m.encoder) for m in after["+ both (E2MC)"]]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two bar charts over the five ways of going on: distance of the features' distribution to the uniform one, and probe accuracy with 200 labels."}, "figure": {"caption": "Three more epochs: how uniform the mapped features are, and what a probe on 200 labels makes of them.", "name": "fig-e2mc"}}
figure, panels = lab.plots.axes(2, 8, 2.4)
lab.plots.bars(panels[0], uneven, "Kolmogorov–Smirnov distance to uniform")
lab.plots.bars(panels[1], few_labels, "probe accuracy, 200 labels")
_ = panels[1].set_yticklabels([])

# %%
run.claim("e2mc", "Three epochs with E2MC bring the mapped features nearer to uniform than three epochs without",
          uneven["+ both (E2MC)"], uneven["base"], margin=0.02, higher_is_better=False)

# %%
run.claim("e2mc", "Three epochs with E2MC give a better few-label probe than three epochs without",
          few_labels["+ both (E2MC)"], few_labels["base"], margin=0.0)

# %%
run.claim("e2mc", "Three epochs with E2MC give a better few-label probe than three epochs with uniformity",
          few_labels["+ both (E2MC)"], few_labels["+ uniformity"], margin=0.0)

# %% [markdown]
# The criterion reaches what it asks for in a few dozen steps: the marginals flatten. The probe does not follow in step.
# Without the control that trains on with nothing added, whatever the extra epochs give would have gone to its account.

# %% [markdown]
# (rankme)=
# ## Choosing a run without labels
# All of this chapter's losses have weights, and the loss value cannot choose them: each weight makes another loss. RankMe
# scores the embedding itself. With $p_k = \sigma_k / \lVert\sigma\rVert_1 + \epsilon$ over the singular values of the
# projections of the training images,
#
# $$\mathrm{RankMe}(Z) = \exp\Bigl(-\sum_k p_k \log p_k\Bigr).$$
#
# A collapsed run has a low value. High rank is necessary, not sufficient: noise has the highest of all.

# %%
lab.show(R.rankme, R.alpha_req, R.regret)

# %%
g = torch.Generator().manual_seed(0)
left, right = (torch.linalg.qr(torch.randn(n, 12, generator=g, dtype=torch.float64))[0] for n in (400, 64))
turn = torch.linalg.qr(torch.randn(64, 64, generator=g, dtype=torch.float64))[0]
z = left @ right.T
run.exact("rankme", "Twelve equal singular values give rank 12, whatever the scale and rotation",
          max(abs(R.rankme(y) - 12) for y in (z, 1000 * z, z @ turn)), at_most=0.01, data="random matrices")

# %%
# NBVAL_CHECK_OUTPUT
noise = torch.randn(4000, 64, generator=g)
print("pure noise has nearly full rank:", R.rankme(noise) > 63, "| 64 rows of it do not:", R.rankme(noise[:64]) < 60)

# %% [markdown]
# A sweep within one method, as the paper demands: VICReg's covariance weight, from none to far too much.

# %%
sweep = {cov: [vicreg(seed, cov) for seed in run.seeds] for cov in SWEEP}
probe = [[stage.probe(sweep[cov][i].encoder) for cov in SWEEP] for i in range(len(run.seeds))]
embeddings = [[stage.features(sweep[cov][i].network, stage.train_images) for cov in SWEEP] for i in range(len(run.seeds))]
scores = {"RankMe": [[R.rankme(z) for z in row] for row in embeddings],
          "minus α-ReQ": [[-R.alpha_req(z) for z in row] for row in embeddings],
          "minus loss": [[-float(sweep[cov][i].history.losses[-10:].mean()) for cov in SWEEP] for i in range(len(run.seeds))]}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Probe accuracy against RankMe, one dot a run, labelled with the covariance weight: runs without decorrelation lie low on both axes, the best runs have high rank."}, "figure": {"caption": "Probe accuracy against RankMe for the sweep of VICReg's covariance weight.", "name": "fig-rankme"}}
figure, axis = lab.plots.axes(1, 6, 3)
for i in range(len(run.seeds)):
    axis.plot(scores["RankMe"][i], probe[i], "o", color=lab.plots.COLOURS[i % 6], label=f"seed {run.seeds[i]}")
for cov, x, y in zip(SWEEP, scores["RankMe"][0], probe[0], strict=True):
    axis.annotate(f"{cov:g}", (x, y), textcoords="offset points", xytext=(5, -9), fontsize=8)
axis.set(xlabel=f"RankMe of the projections, at most {WIDE}", ylabel="probe accuracy, all labels")
_ = axis.legend()

# %%
order = {name: [R.spearman(s, a) for s, a in zip(rows, probe, strict=True)] for name, rows in scores.items()}
healthy = [[j for j, score in enumerate(row) if score > max(row) / 2] for row in scores["RankMe"]]
without = [
    R.spearman([s[j] for j in kept], [a[j] for j in kept])
    for s, a, kept in zip(scores["RankMe"], probe, healthy, strict=True)
]
lost = {name: [R.regret(s, a) for s, a in zip(rows, probe, strict=True)] for name, rows in scores.items()}
lost["random pick"] = [max(a) - sum(a) / len(a) for a in probe]
for name in scores:
    print(
        f"{name:12} Spearman {sum(order[name]) / len(order[name]):+.2f}   regret {100 * sum(lost[name]) / len(lost[name]):.1f} points"
    )
print(f"RankMe without collapsed runs: Spearman {sum(without) / len(without):+.2f}")

# %%
run.claim("rankme", "The run with the highest RankMe loses less probe accuracy than a random pick",
          lost["RankMe"], lost["random pick"], margin=0.01, higher_is_better=False)

# %%
run.claim("rankme", "RankMe orders the sweep better than the loss value", order["RankMe"], order["minus loss"], margin=0.2)

# %%
run.claim("rankme", "RankMe orders the sweep better than α-ReQ", order["RankMe"], order["minus α-ReQ"], margin=0.0)

# %%
run.claim("rankme",
          "Without the collapsed runs RankMe orders the sweep as well as with them, within 0.1 of Spearman's coefficient",
          without, order["RankMe"], margin=-0.1)

# %% [markdown]
# Much of the correlation is the work of the collapsed runs: accuracy first rises with rank and then falls, as too much
# decorrelation buys rank with noise. RankMe tells collapsed runs from healthy ones; among healthy ones it is a poor ruler, and
# whether choosing by it beats choosing at random, or α-ReQ, the seeds do not settle.

# %% [markdown]
# ## Where the chapter ends

# %% mystnb={"image": {"alt": "Bars of kNN accuracy: chance, raw pixels, random encoder, supervised, SimCLR, and the chapter's methods."}, "figure": {"caption": "kNN test accuracy of the references and of this chapter's methods. BYOL and VICReg had fewer steps.", "name": "fig-redundancy-results"}}
lab.plots.bars(lab.plots.axes(1, 6.5, 3.0)[1], results, "kNN test accuracy", chance=0.1)

# %%
run.summarise("kNN test accuracy", results, floor="random encoder", ceiling="supervised")

# %% [markdown]
# 0 of the way is the untrained encoder, 1 the same encoder taught with all labels. The
# [part's page](../../book/parts/self_supervision.md) has these rows beside the other chapters'.

# %% [markdown]
# How this table was made matters to how it should be read. Learning rates differ by method; like all lengths, margins and
# statements they were fixed on seeds and validation images of their own, then everything was measured once. An earlier
# version of this page had been measured on other scenes; from it come two statements, Barlow Twins' linear probe and
# RankMe against α-ReQ, and the margin of the NE predictor. The arm with redundancy within views came out of the search
# for why Barlow Twins is so slow here, on validation images.

# %%
run.table()

# %% [markdown]
# ## Exercises
# ````{exercise-start} The smallest off-diagonal term
# :label: ex-redundancy-rank
# ````
# With $d > N$ features and a batch of $N$ images, the matrix $C$ cannot be the identity. Its rank is at most $N-1$, as
# features are centred. If every $C_{ii}$ is 1, how small can $\sum_{i\neq j} C_{ij}^2$ be? Check with random features.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-redundancy-rank
# :class: dropdown
# ````
# With equal views, C has trace d and at most N - 1 nonzero eigenvalues, so ‖C‖² ≥ d²/(N-1), and the off-diagonal part is
# at least d²/(N-1) - d.

# %%
# NBVAL_CHECK_OUTPUT
z = torch.randn(32, 512, generator=torch.Generator().manual_seed(0))
off = float(R.barlow_twins(z, z, lam=1.0, on=0.0))
print("above the bound:", off > 512**2 / 31 - 512, "| within 10 % of it:", off < 1.1 * (512**2 / 31 - 512))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A weight that does not care for the width
# :label: ex-redundancy-lambda
# ````
# For untrained features, how does the off-diagonal sum grow with d at a fixed batch? Which λ(d) keeps the two terms of
# Barlow Twins in proportion?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-redundancy-lambda
# :class: dropdown
# ````
# Each of the d(d-1) entries has variance about 1/N, so the sum grows as d²/N; the diagonal sum grows as d. Their ratio is
# constant for λ proportional to 1/d.

# %%
# NBVAL_CHECK_OUTPUT
g = torch.Generator().manual_seed(0)
for d in (64, 256, 1024):
    z1, z2 = torch.randn(2, 128, d, generator=g)
    print(d, round(float(R.barlow_twins(z1, z2, 1.0, on=0.0)) * 128 / d**2, 1))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Can rank be fooled?
# :label: ex-redundancy-fool
# ````
# A small research question. Raise the RankMe of a trained encoder's features without training and without making them more
# useful. What does that say about comparing *methods* by their rank?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-redundancy-fool
# :class: dropdown
# ````
# Add isotropic noise: the singular values even out, the rank rises, the neighbours get worse. Rank says how many
# directions are used, never what for. So it may compare runs of one method, whose noise is alike, and not methods.

# %%
train, y, test, y_test = stage.both(stage.pretrain("simclr", C.SimCLR, run.seeds[0]).encoder)
for level in (0.0, 1.0, 3.0):
    noisy = [x + level * x.std() * torch.randn(x.shape, generator=run.generator(1), device=x.device) for x in (train, test)]
    print(f"noise {level}: RankMe {R.rankme(noisy[0]):6.1f}, kNN {lab.evaluate.knn(noisy[0], y, noisy[1], y_test):.3f}")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} Barlow Twins from its equation
# :label: ex-barlow-twins
# ````
# Write equations 1 and 2 of Barlow Twins. $C$ is the correlation, over the batch, of feature $i$ of one view with feature $j$ of the other,
# and every feature is first centred over the batch:
#
# $$C_{ij} = \frac{\sum_b z^A_{b,i} z^B_{b,j}}{\sqrt{\sum_b (z^A_{b,i})^2} \sqrt{\sum_b (z^B_{b,j})^2}}, \qquad
#   \mathcal L = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \neq i} C_{ij}^2.$$
#
# What does the loss become if each feature is scaled and shifted?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-barlow-twins
# :class: dropdown
# ````
# Everything is normalised along the batch, dimension 0, and nothing along the features: that would be the contrastive habit. So scale
# and shift of a feature make no difference.

# %% tags=["task:barlow-twins"]
import torch
import torch.nn.functional as F


def barlow_twins(z1, z2, lam):
    """The loss, a scalar, of projections z1 and z2 (n, d) of the two views; lam >= 0."""
    ### BEGIN SOLUTION
    z1, z2 = (F.normalize(z - z.mean(0), dim=0) for z in (z1, z2))
    c = z1.T @ z2
    on = (1 - c.diagonal()).square().sum()
    off = c.square().sum() - c.diagonal().square().sum()
    return on + lam * off
    ### END SOLUTION


# %% tags=["task-tests:barlow-twins:3", "remove-cell"]
z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # uncorrelated features
assert abs(float(barlow_twins(z, z, 1.0))) < 1e-3, "views agree, features are uncorrelated: nothing to pay"
assert abs(float(barlow_twins(z, -z, 1.0)) - 8) < 1e-3, "each of two features is correlated with -1"
### BEGIN HIDDEN TESTS
z1, z2 = 1 + torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
centre = lambda column: [v - sum(column) / len(column) for v in column]
one, two = ([centre(column) for column in z.T.tolist()] for z in (z1, z2))
c = lambda i, j: (
    sum(a * b for a, b in zip(one[i], two[j])) / sum(a * a for a in one[i]) ** 0.5 / sum(b * b for b in two[j]) ** 0.5
)
cells = [(i, j) for i in range(4) for j in range(4)]
for lam in (0.0, 0.3):
    want = sum((1 - c(i, j)) ** 2 if i == j else lam * c(i, j) ** 2 for i, j in cells)
    assert abs(float(barlow_twins(z1, z2, lam)) - want) < 1e-3
### END HIDDEN TESTS

# %% tags=["task-tests:barlow-twins:2", "remove-cell"]
z1, z2 = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(1))
assert abs(float(barlow_twins(z1, z2, 0.1) - barlow_twins(z2, z1, 0.1))) < 1e-3, "the views play the same part"
### BEGIN HIDDEN TESTS
scaled = z1 * torch.tensor([0.5, 2.0, 5.0]) + torch.tensor([3.0, 0.0, -1.0])
assert abs(float(barlow_twins(scaled, z2, 0.1) - barlow_twins(z1, z2, 0.1))) < 1e-3, "scale and shift of a feature"
both = torch.stack([z1, z2]).requires_grad_()
barlow_twins(*both, 0.1).backward()
for step in 0.01 * torch.eye(96).view(96, 2, 16, 3):  # each value of both views a little up and down
    slope = float(barlow_twins(*both.detach() + step, 0.1) - barlow_twins(*both.detach() - step, 0.1)) / 0.02
    assert abs(100 * float((both.grad * step).sum()) - slope) < 2e-3, "the gradient"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z1, z2 = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
print("as the package has it:", torch.allclose(barlow_twins(z1, z2, 0.1), R.barlow_twins(z1, z2, 0.1), rtol=1e-3))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} The rank that is used
# :label: ex-rankme
# ````
# Write RankMe (eq. 1 and 2) of features $Z$, which are not centred, with singular values $\sigma_k$:
#
# $$p_k = \frac{\sigma_k}{\sum_l \sigma_l} + \epsilon, \qquad \mathrm{RankMe} = \exp\Big(-\sum_k p_k \log p_k\Big), \qquad \epsilon = 10^{-7}.$$
#
# What is it for orthonormal columns, and for a single direction?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-rankme
# :class: dropdown
# ````
# It is $d$ for $d$ orthonormal columns and 1 for one direction. The $\epsilon$ keeps $0 \log 0$ away from singular values that are 0.

# %% tags=["task:rankme"]
import torch


def rankme(z, eps=1e-7):
    """The effective rank, a number or a scalar, of features z (n, d): between 1 and min(n, d)."""
    ### BEGIN SOLUTION
    values = torch.linalg.svdvals(z)
    p = values / values.sum() + eps
    return torch.exp(-(p * p.log()).sum())
    ### END SOLUTION


# %% tags=["task-tests:rankme:3", "remove-cell"]
assert abs(float(rankme(torch.eye(5, 3))) - 3) < 1e-3, "three directions, all alike"
### BEGIN HIDDEN TESTS
z = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, -1.0]])  # singular values 3 and 1
assert abs(float(rankme(z)) - 0.75**-0.75 * 0.25**-0.25) < 1e-3
z = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)) + 2
values = torch.linalg.eigvalsh(z.double().T @ z.double()).sqrt().tolist()
want = 1.0
for v in values:
    want *= (v / sum(values)) ** (-v / sum(values))
assert abs(float(rankme(z)) - want) < 1e-3
### END HIDDEN TESTS

# %% tags=["task-tests:rankme:1", "remove-cell"]
assert abs(float(rankme(torch.ones(8, 4))) - 1) < 1e-3, "one direction"
### BEGIN HIDDEN TESTS
z = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
assert abs(float(rankme(1000 * z) - rankme(z))) < 1e-3, "the scale of all features"
assert abs(float(rankme(torch.diag(torch.tensor([4.0, 0.0, 0.0])))) - 1) < 1e-3, "singular values that are 0"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
print("as the package has it:", abs(float(rankme(z)) - R.rankme(z)) < 1e-3)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [Contrastive learning](contrastive.ipynb) holds the other family: the same encoder, with other images instead of other
# features to prevent collapse. Compare its SimCLR section with the first one here: the Gram identity says that decorrelating
# features and separating images are two readings of one sum.

# %%
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
