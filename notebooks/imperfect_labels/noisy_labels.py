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
# # Noisy labels
#
# Labels are wrong: annotators slip, search engines guess, whole images show something else. A network that is large
# enough learns the mistakes by heart. This chapter finds wrong labels, trains in spite of them, learns who made them,
# and asks when it is best to do nothing about them.
#
# **You will be able to**
# - rank samples by the area under their margin and choose the cut without knowing how many labels are wrong;
# - fit two betas to a network's losses and mix each label with the network's own answer accordingly;
# - say what ordering, splitting and confidence do against memorising, and measure memorising itself;
# - recover each annotator's confusion matrix, and say why that needs a confident classifier;
# - compute how much of a signal noise leaves, and predict when ignoring it is right.
#
# **You should know** cross-entropy, EM, and the chapter [Contrastive
# learning](../self_supervision/contrastive.ipynb), whose loss makes the features of the last three sections. **Run
# time:** under a minute a seed on a laptop (*quick*, what is shown, five seeds); *long* trains four times as long,
# with three seeds, and adds sweeps and a second data set; on a GPU the same cells take CIFAR-10 and ResNet-18
# (*full*), which nobody has run yet.

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
from labcode.imperfect_labels import noisy_labels as N
from labcode.imperfect_labels.label_sets import transition

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map in three rows. Losses of training: AUM, then the beta mixture, then the web-noise detector. Networks: nested dropout, CrossSplit, annotators. Features: contrastive learning (SimCLR) leads to ignorance is bliss, and that to RCAL, calibration on a long tail. Annotators stand alone."}, "figure": {"caption": "What is used against wrong labels: how losses go (top), how networks are built and paired (middle), features that never saw a label (bottom).", "name": "fig-noisy-labels-family"}}
PAPERS = {
    "AUM": (0, 0, "this chapter"), "Beta mixture": (1.3, 0, "this chapter"), "PLS-LSA": (2.6, 0, "this chapter"),
    "Nested dropout": (0, 1, "this chapter"), "CrossSplit": (1.3, 1, "this chapter"), "Annotators": (2.6, 1, "this chapter"),
    "SimCLR": (0, 2, "explained elsewhere"), "Ignorance\nis bliss": (1.3, 2, "this chapter"), "RCAL": (2.6, 2, "this chapter"),
}
ARROWS = [("AUM", "Beta mixture"), ("Beta mixture", "PLS-LSA"), ("Nested dropout", "CrossSplit"), ("SimCLR", "Ignorance\nis bliss"),
          ("Ignorance\nis bliss", "RCAL")]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("imperfect_labels/noisy_labels", first_seed=5)
stage = N.Stage(run)
SECOND = run.pick(quick=None, long=N.Stage(run, kind="optdigits"), full=None)  # a second data set, in longer runs
of, points, results = N.columns, N.points, {}
run


# %%
def forty():
    """AUM and all plain rivals on 40 % symmetric noise, for every seed: two sections look at them."""
    return run.once("forty", lambda: [N.compare_aum(stage, s, "symmetric", 0.4, retrain=True) for s in run.seeds])


# %% [markdown]
# **The stage.** A seed has 1,000 training images and a test set; test labels are right. Networks are perceptrons with
# BatchNorm and one hidden layer of 128, trained by AdamW with a cosine on batches of 64 unless a section says
# otherwise; CrossSplit has a second, smaller hidden layer, and so has what begins with SimCLR. Wrong labels come from
# one generator: *symmetric* noise turns a label into any other, all alike; *pair* noise always into the next class;
# *uniform* noise draws it anew from all classes, so that a tenth of the draws are right; *instance* noise depends on
# the image. A seed has one to three draws of the noise, whose networks train side by side, and its value is their
# mean.

# %%
# NBVAL_CHECK_OUTPUT
if run.scale == "quick":
    print(stage.source, len(stage.images(0).y), "labelled images,", stage.classes, "classes,", stage.draws, "draws of the noise")
    print({kind: [round(float(v), 3) for v in transition(kind, 10, 0.4)[0, :3]] for kind in ("symmetric", "pair", "uniform")})

# %%
# NBVAL_CHECK_OUTPUT
from inspect import signature

TAUGHT = {"AUM": N.compare_aum, "beta mixture": N.compare_bootstrapping, "nested dropout": N.compare_compression, "CrossSplit": N.compare_splits,
          "annotators": N.compare_annotators, "PLS-LSA": N.compare_web}
for name, compare in TAUGHT.items():
    given = {key: part.default for key, part in signature(compare).parameters.items()}
    more = {"rival_epochs": "its rivals", "second": "Co-teaching"}
    also = [f"{what} {given[key]}" for key, what in more.items() if key in given]
    print(f"{name:15}", ", ".join([f"epochs {given['epochs']}", *also, f"draws of the noise {given.get('draws') or 2}"]))

# %% mystnb={"image": {"alt": "Sixteen small handwritten digits in two rows, each with two numbers above it, the given label and the true one; in several the two differ."}, "figure": {"caption": "Training images with given label → true label, 40 % symmetric noise.", "name": "fig-noisy-labels-stage"}}
images = stage.images(run.seeds[0])
given = N.noisy(stage, images, "symmetric", 0.4, run.seeds[0]).labels[0]
told = [f"{a} → {b}" for a, b in zip(given[:16].tolist(), images.y[:16].tolist())]
_ = lab.plots.images(images.x[:16].view(-1, stage.channels, stage.side, stage.side).cpu(), rows=2, labels=told, width=6)

# %% [markdown]
# Each result below is a statement with a verdict: [How to read a
# verdict](../../book/how_to_use.md#how-to-read-a-verdict). Statements and margins were fixed, and settings chosen, on
# other seeds and on a validation split of the training images.
#
# Plain rivals come back through the chapter, on the same noisy labels. *Early stopping* holds a fifth of the noisy
# labels back and takes the epoch that agrees with them best. *Training longer* has twice the epochs. *GCE* is a loss
# that trusts what it finds hard less: $(1 - p_{\tilde y}^{\,q}) / q$ with $q = 0.7$, where $p_{\tilde y}$ is the
# probability of the given label. Its gradient is that of cross-entropy times $p_{\tilde y}^{\,q}$. *Memorised* is the
# share of the wrong labels that a network gives back at the end.
#
# Through the chapter $x$ is an image, $\tilde y$ its given and $y$ its true label, $K$ the number of classes, $p$ a
# network's probabilities and $f$ its features. A found wrong label is a *hit*: *precision* is the share of hits among
# what a method calls wrong, *recall* their share among what is wrong, *F1* the harmonic mean of both. *AUROC* judges a
# score before any cut is chosen: the chance that a wrong label scores higher than a right one.

# %%
lab.show(N.generalised_cross_entropy)

# %% [markdown]
# (aum)=
# ## Who keeps losing? The area under the margin
# A network fits right labels first, because they agree with each other. A wrong label is fitted late and against a
# pull: all images that look alike vote for another class. So watch the *margin* of each sample while the network
# trains, and do not wait until it has learnt everything by heart:
#
# $$\mathrm{AUM}(x, \tilde y) = \frac1T \sum_{t=1}^{T} \Bigl( a^{(t)}_{\tilde y}(x) - \max_{c \ne \tilde y} a^{(t)}_c(x) \Bigr).$$
#
# $a^{(t)}_c(x)$ is the logit of class $c$ in epoch $t$ of $T$, taken in the ordinary training pass.
# Where is the cut? Take some samples, give them a label that is surely wrong, namely a class $K + 1$ that does not
# exist, and look what AUM *they* get. A sample is flagged below their 99th percentile. A second run with other such
# *threshold samples* judges the first run's, and a flag needs every run that judged the sample.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Samples and threshold samples relabelled to class K+1 go to a network with K+1 outputs. Its margins go to a running mean, AUM. The threshold samples' 99th percentile is the cut; below it samples are dropped and a new network is trained on the rest."}, "figure": {"caption": "AUM. The fake class learns the cut; nothing about the noise is known.", "name": "fig-aum-diagram"}}
parts = {
    "samples": (0, 0), "threshold\nsamples": (0, 1), "network,\nK + 1 outputs": (1.2, 0.5, "trained"), "margins,\nmean: AUM": (2.5, 0.5, "store"),
    "99th\npercentile": (3.6, 1), "retrain\non the rest": (3.6, 0, "trained"),
}
arrows = [("samples", "network,\nK + 1 outputs"), ("threshold\nsamples", "network,\nK + 1 outputs"), ("network,\nK + 1 outputs", "margins,\nmean: AUM"),
          ("margins,\nmean: AUM", "99th\npercentile"), ("margins,\nmean: AUM", "retrain\non the rest"), ("99th\npercentile", "retrain\non the rest")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(N.margins, N.threshold_sets)

# %%
lab.show(N.flagged)

# %% [markdown]
# Batches of 16, a high constant learning rate and few epochs keep the network from memorising early. The rivals:
# the last epoch's margin and loss as scores; a beta mixture of the last losses (next section); the largest losses, so
# many as are wrong, a number that AUM is not told; and what a network taught with the *other half* does not confirm.

# %%
RATES = run.pick(quick=(0.0, 0.1, 0.2, 0.4), long=(0.0, 0.1, 0.2, 0.4, 0.6, 0.8), full=(0.0, 0.2, 0.4, 0.6))
aum = {rate: forty() if rate == 0.4 else [N.compare_aum(stage, s, "symmetric", rate) for s in run.seeds] for rate in RATES}
pair = [N.compare_aum(stage, s, "pair", 0.4) for s in run.seeds]
main = aum[0.4]
results["AUM, retrained"] = of(main, "retrained", "AUM")

# %% mystnb={"image": {"alt": "Mean margins over the epochs for right labels, wrong labels and threshold samples. Right labels' margins rise from the start; those of wrong labels and of threshold samples begin below zero, together, and rise late."}, "figure": {"caption": "Margins while a network trains, 40 % symmetric noise. Wrong labels go with the threshold samples.", "name": "fig-aum-margins"}}
epochs = list(range(1, 1 + min(len(one["track"]["right"]) for one in main)))
arms = {name: points(main, "track", name)[: len(epochs)] for name in ("right", "wrong", "threshold")}
if len(epochs) > 1:
    _ = lab.plots.curve(run.curve("aum", "margins over the epochs", epochs, arms, "epoch", "mean margin (logits)"))

# %% mystnb={"image": {"alt": "Horizontal bars of F1 at finding wrong labels: AUM highest, then one run of AUM, disagreement of the other half, the largest losses at the known rate, and the beta mixture of the last losses."}, "figure": {"caption": "F1 of the wrong labels, 40 % symmetric noise. Dots are seeds.", "name": "fig-aum-bars"}}
WAYS = {"AUM": "AUM", "AUM, one run": "one run", "largest losses, rate known": "known rate", "other half disagrees": "halves", "beta mixture, last epoch": "beta mixture"}
lab.plots.bars(lab.plots.axes(1, 6, 2.4)[1], {name: of(main, key, "F1") for name, key in WAYS.items()}, "F1")

# %%
run.claim("aum", "The area under the margin ranks wrong labels higher than the last epoch's loss does, in AUROC",
          of(main, "AUROC", "AUM"), of(main, "AUROC", "last loss"), margin=0.05)

# %%
run.claim("aum", "AUM with its learnt cut finds wrong labels with a higher F1 than the largest last losses at the known rate",
          of(main, "AUM", "F1"), of(main, "known rate", "F1"), margin=0.03)

# %%
run.claim("aum", "AUM finds wrong labels with a higher F1 than a beta mixture of the last epoch's losses",
          of(main, "AUM", "F1"), of(main, "beta mixture", "F1"), margin=0.05)

# %%
run.claim("aum", "AUM finds wrong labels with a higher precision than disagreement with a network taught on the other half",
          of(main, "AUM", "precision"), of(main, "halves", "precision"), margin=0.0)

# %%
run.claim("aum", "The removed share is within ten points of the noise rate at 20 and at 40 % (mean distance)",
          [(abs(a - 0.2) + abs(b - 0.4)) / 2 for a, b in zip(of(aum[0.2], "AUM", "removed"), of(main, "AUM", "removed"))],
          [0.1] * len(run.seeds), margin=0.0, higher_is_better=False)

# %%
run.claim("aum", "Without any wrong label AUM removes at most a tenth of the samples",
          of(aum[0.0], "AUM", "removed"), [0.1] * len(run.seeds), margin=0.0, higher_is_better=False)

# %%
run.claim("aum", "A second run with other threshold samples raises precision",
          of(main, "AUM", "precision"), of(main, "one run", "precision"), margin=0.02)

# %%
run.claim("aum", "Two runs agree more on AUM than on the last margin, in rank correlation",
          of(main, "agree", "aum"), of(main, "agree", "last"), margin=0.05)

# %% [markdown]
# Detection is a means. A new network is trained on what is left, without the fake class, against the plain rivals,
# and against the oracle that drops exactly the wrong ones.

# %% mystnb={"image": {"alt": "Horizontal bars of test accuracy: the oracle highest, then AUM, early stopping, GCE; cross-entropy on all labels and training longer lowest."}, "figure": {"caption": "Test accuracy after training on 40 % symmetric noise. Dots are seeds.", "name": "fig-aum-retrained"}}
KEPT = ("cross-entropy", "training longer", "GCE", "early stopping", "AUM", "oracle")
lab.plots.bars(lab.plots.axes(1, 6, 2.8)[1], {name: of(main, "retrained", name) for name in KEPT}, "test accuracy")

# %%
run.claim("aum", "Retraining on what AUM keeps is better than training on everything",
          of(main, "retrained", "AUM"), of(main, "retrained", "cross-entropy"), margin=0.1)

# %%
run.claim("aum", "Retraining on what AUM keeps is better than early stopping",
          of(main, "retrained", "AUM"), of(main, "retrained", "early stopping"), margin=0.0)

# %%
run.claim("aum", "Retraining on what AUM keeps is better than GCE on everything",
          of(main, "retrained", "AUM"), of(main, "retrained", "GCE"), margin=0.02)

# %% mystnb={"image": {"alt": "Removed share, precision and recall over the noise rate. The removed share follows the diagonal closely; precision rises with the rate; recall is high and falls a little."}, "figure": {"caption": "What AUM removes, over the rate of symmetric noise.", "name": "fig-aum-rates"}}
wrongs = [rate for rate in RATES if rate]
arms = {name: [of(aum[rate], "AUM", name) for rate in wrongs] for name in ("removed", "precision", "recall")}
_ = lab.plots.curve(run.curve("aum", "removed share, precision and recall over the noise rate", wrongs, arms, "noise rate", "share"))

# %% [markdown]
# Pair noise is harder: the wrong class of all threes is one class, and they agree with each other.

# %%
run.claim("aum", "AUM ranks wrong labels worse under pair noise than under symmetric noise of the same rate, in AUROC",
          of(main, "AUROC", "AUM"), of(pair, "AUROC", "AUM"), margin=0.1)

# %%
if SECOND:
    other = [N.compare_aum(SECOND, s, "symmetric", 0.4, retrain=True) for s in run.seeds]
    run.claim("aum", "On digits of other hands too AUM ranks wrong labels higher than the last epoch's loss does, in AUROC",
              of(other, "AUROC", "AUM"), of(other, "AUROC", "last loss"), margin=0.05, data=SECOND.source)
    run.claim("aum", "On digits of other hands too retraining on what AUM keeps is better than training on everything",
              of(other, "retrained", "AUM"), of(other, "retrained", "cross-entropy"), margin=0.05, data=SECOND.source)

# %% mystnb={"image": {"alt": "Sixteen digits with the lowest areas under the margin where all labels are right: crooked, broken or ambiguous writing."}, "figure": {"caption": "The sixteen lowest AUM where no label is wrong.", "name": "fig-aum-lowest"}}
low = aum[0.0][0]["lowest"]
pictures = images.x[low].view(-1, stage.channels, stage.side, stage.side).cpu()
_ = lab.plots.images(pictures, rows=2, labels=[str(c) for c in images.y[low].tolist()], width=6)

# %% [markdown]
# Why does the mean over the epochs beat the last epoch? At this high rate of learning a single epoch is a noisy
# reading, on which two runs hardly agree; the mean is a steady one (*measured*: their rank correlations). In longer
# training the last epoch has moreover learnt wrong labels by heart, while the early ones, in which they were losing,
# stay in the mean (*our guess*). The fake class works because a threshold sample is in the situation of a wrong
# label: alone against those that look like it. Under pair noise a wrong label has company, which a class of random
# samples does not imitate (*our guess*). What the filter is worth: far more than training on everything, more than
# GCE; over early stopping, which needs no second training, its lead is small and not settled.

# %% [markdown]
# (bmm-dynamic-bootstrapping)=
# ## Two bumps in the losses: dynamic bootstrapping
# Early in training the losses of all samples have two bumps: small ones for right labels, large ones for wrong ones.
# Fit a mixture of two beta distributions to them, after each epoch, and read off for each sample the probability $w$
# that its label is wrong. Then train with the label only as far as it is to be trusted, and with the network's own
# answer for the rest:
#
# $$w(x) = P(\text{high bump} \mid \ell(x)), \qquad
# L = -\sum_{c} \bigl( (1 - w)\, \tilde y_c + w\, s_c \bigr) \log p_c(x) \;+\; \sum_c \tfrac1K \log \frac{1/K}{\bar p_c} .$$
#
# $\ell(x)$ is the loss of the given label, brought to 0 … 1; $\tilde y_c$ is 1 for the given class, else 0; $s$ is
# the network's answer as one class (*hard*) or as probabilities (*soft*); $\bar p$ is the batch's mean prediction:
# the last term keeps the network from sending all to one class. With a *static* $w$, the same for all, this is plain
# bootstrapping. *Mixup* trains on mixtures of two images and of their two targets, which by itself makes memorising
# hard. At very high noise the mixture follows the trust, more of the sample with the smaller $w$, and $s$ goes from
# soft to hard. The paper's names for the two: M-DYR-H (mixup, dynamic, hard) and MD-DYR-SH.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Losses of all samples after an epoch go to a two-beta mixture, which gives w. Label and own answer are mixed by w into a target; two images and two targets are mixed by mixup; the network is trained on them and gives the next losses."}, "figure": {"caption": "Dynamic bootstrapping with mixup (M-DYR). The mixture is fitted anew after each epoch.", "name": "fig-bmm-diagram"}}
parts = {
    "losses of\nall samples": (0, 0), "two betas:\nw": (1.2, 0, "store"), "target:\nlabel or\nown answer": (2.5, 0), "mixup": (3.6, 0.5),
    "network": (1.2, 1, "trained"), "cross-entropy\n+ prior": (2.6, 1, "loss"),
}
arrows = [("losses of\nall samples", "two betas:\nw"), ("two betas:\nw", "target:\nlabel or\nown answer"), ("target:\nlabel or\nown answer", "mixup"),
          ("mixup", "cross-entropy\n+ prior"), ("network", "cross-entropy\n+ prior"), ("network", "losses of\nall samples")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(N.fit_two)

# %%
lab.show(N.TwoBumps.looked_up, N.normalised)

# %%
lab.show(N.bootstrapped, N.uniform_prior, N.mixing_shares)

# %% [markdown]
# Half of the labels are drawn anew from all ten classes (*uniform* noise, the paper's). Bootstrapping begins after 15 %
# of the epochs. All arms begin with the same weights and see the same batches.

# %%
SIX = ("cross-entropy", "mixup", "static", "dynamic", "dynamic, mixup", "no prior")
half = [N.compare_bootstrapping(stage, s, 0.5, SIX) for s in run.seeds]
heavy = [N.compare_bootstrapping(stage, s, 0.8, run.pick(quick=("cross-entropy", "dynamic, mixup", "no prior"), full=None), draws=1, against=False)
         for s in run.seeds]
results["dynamic bootstrapping"] = of(half, "last", "dynamic, mixup")

# %% mystnb={"image": {"alt": "Histogram of normalised losses at the switch: right labels pile up near zero, wrong ones near one; the curve of the posterior rises from zero to one between them."}, "figure": {"caption": "Losses when bootstrapping begins, 50 % uniform noise, cross-entropy, first seed. The line is the probability of a wrong label.", "name": "fig-bmm-histogram"}}
loss, w, wrong = (half[0][name] for name in ("losses", "posterior", "wrong"))
figure, axis = lab.plots.axes(1, 6, 2.4)
axis.hist([loss[~wrong].numpy(), loss[wrong].numpy()], bins=25, label=["right", "wrong"])
order = loss.argsort()
right = axis.twinx()
right.plot(loss[order], w[order], color=lab.plots.GREY)
right.set_ylabel("probability of a wrong label")
axis.set(xlabel="normalised loss", ylabel="samples")
_ = axis.legend(loc="upper center")

# %%
run.claim("bmm-dynamic-bootstrapping", "When bootstrapping begins the beta mixture tells wrong labels with an AUROC of at least 0.9",
          of(half, ("AUROC", "beta")), [0.9] * len(run.seeds), margin=0.0)

# %%
run.claim("bmm-dynamic-bootstrapping", "Two betas fit the losses better than two Gaussians, in nats a sample",
          of(half, ("log-likelihood", "beta")), of(half, ("log-likelihood", "gaussian")), margin=0.05)

# %%
run.claim("bmm-dynamic-bootstrapping", "Two betas tell wrong labels with a higher F1 than two Gaussians, both cut at one half",
          of(half, ("F1", "beta")), of(half, ("F1", "gaussian")), margin=0.0)

# %% mystnb={"image": {"alt": "Test accuracy over the epochs for cross-entropy, mixup, dynamic bootstrapping and both together. Cross-entropy peaks within a few epochs and falls; mixup falls later; both together stay near their peak longest."}, "figure": {"caption": "Test accuracy while training on 50 % uniform noise.", "name": "fig-bmm-track"}}
epochs = list(range(1, 1 + len(half[0]["track"]["mixup"])))
arms = {name: points(half, "track", name) for name in ("cross-entropy", "mixup", "dynamic", "dynamic, mixup")}
if len(epochs) > 1:
    _ = lab.plots.curve(run.curve("bmm-dynamic-bootstrapping", "test accuracy over the epochs", epochs, arms, "epoch", "test accuracy"))

# %% mystnb={"image": {"alt": "Horizontal bars of the last test accuracy: cross-entropy and the static weight lowest, dynamic, mixup and GCE in the middle, dynamic with mixup, with and without the prior, highest, and early stopping close behind."}, "figure": {"caption": "Last test accuracy, 50 % uniform noise: the arms of bootstrapping, and two plain rivals. Dots are seeds.", "name": "fig-bmm-bars"}}
bars = {name: of(half, "last", name) for name in SIX} | {name: of(half, "rivals", name) for name in ("GCE", "early stopping")}
lab.plots.bars(lab.plots.axes(1, 6, 3)[1], bars, "test accuracy")

# %%
run.claim("bmm-dynamic-bootstrapping", "Cross-entropy ends at least ten points below its best epoch",
          of(half, "best", "cross-entropy"), of(half, "last", "cross-entropy"), margin=0.1)

# %%
run.claim("bmm-dynamic-bootstrapping", "Dynamic bootstrapping with mixup ends within three points of its best epoch",
          of(half, "last", "dynamic, mixup"), of(half, "best", "dynamic, mixup"), margin=-0.03)

# %%
run.claim("bmm-dynamic-bootstrapping", "Trust sample by sample is better than the same trust for all: dynamic above static, without mixup",
          of(half, "last", "dynamic"), of(half, "last", "static"), margin=0.02)

# %%
run.claim("bmm-dynamic-bootstrapping", "Dynamic bootstrapping with mixup is better than mixup alone",
          of(half, "last", "dynamic, mixup"), of(half, "last", "mixup"), margin=0.05)

# %%
run.claim("bmm-dynamic-bootstrapping", "Dynamic bootstrapping with mixup is better than dynamic bootstrapping alone",
          of(half, "last", "dynamic, mixup"), of(half, "last", "dynamic"), margin=0.05)

# %%
run.claim("bmm-dynamic-bootstrapping", "Dynamic bootstrapping with mixup is better than GCE",
          of(half, "last", "dynamic, mixup"), of(half, "rivals", "GCE"), margin=0.02)

# %%
run.claim("bmm-dynamic-bootstrapping", "Dynamic bootstrapping with mixup is better than early stopping",
          of(half, "last", "dynamic, mixup"), of(half, "rivals", "early stopping"), margin=0.0)

# %%
run.claim("bmm-dynamic-bootstrapping", "At 80 % noise the uniform prior helps dynamic bootstrapping with mixup",
          of(heavy, "last", "dynamic, mixup"), of(heavy, "last", "no prior"), margin=0.01)

# %%
SWEEP = run.pick(quick=(), long=(0.0, 0.2, 0.5, 0.8, 0.9), full=(0.0, 0.2, 0.5, 0.8, 0.9))
RATED = ("cross-entropy", "mixup", "dynamic, mixup", "MD-DYR-SH")
if SWEEP:
    swept = {rate: [N.compare_bootstrapping(stage, s, rate, RATED, draws=1, against=False) for s in run.seeds] for rate in SWEEP}
    arms = {name: [of(swept[rate], "last", name) for rate in SWEEP] for name in RATED}
    run.curve("bmm-dynamic-bootstrapping", "last accuracy over the noise rate", list(SWEEP), arms, "share of labels drawn anew", "test accuracy")
    run.claim("bmm-dynamic-bootstrapping", "At 90 % noise dynamic mixup from soft to hard is better than fixed mixup with hard answers",
              of(swept[0.9], "last", "MD-DYR-SH"), of(swept[0.9], "last", "dynamic, mixup"), margin=0.0)

# %%
if SECOND:
    other = [N.compare_bootstrapping(SECOND, s, 0.5, SIX) for s in run.seeds]
    run.claim("bmm-dynamic-bootstrapping", "On digits of other hands too dynamic bootstrapping with mixup is better than mixup alone",
              of(other, "last", "dynamic, mixup"), of(other, "last", "mixup"), margin=0.02, data=SECOND.source)

# %% [markdown]
# The ablation says which part does what: a static weight hardly changes where cross-entropy ends, and trust sample by
# sample needs mixup beside it (*measured*: the bars), because a network that has memorised a label gives it back as its
# own answer (*our guess*). Two things came out otherwise than the paper says. The betas fit the losses better, yet two
# Gaussians name the wrong labels better: the clipping piles losses up at both ends, where a beta is rewarded in
# likelihood, while the cut lies in the middle (*our guess*). And the last epoch is several points below the best one,
# much nearer than cross-entropy's but not as near as the paper's curves: some wrong labels are learnt after all. Early
# stopping is hard to beat, for the network that it picks is the one that the mixture was fitted on; what comes after
# can only keep it, or gain a little from corrected labels (*our guess*).

# %% [markdown]
# (nested-dropout-noisy-labels)=
# ## Few features first: nested dropout
# Memorising needs room. Take the room away: keep only the first $k$ of the features before the classifier, a random $k$
# for each batch. Features then order themselves: the first must do the common work at any $k$, and what only helps a
# few samples can live at most in the rarely used rest. At test time choose how many to keep.
#
# $$P(k) \propto e^{-(k/\sigma)^2}, \qquad p(x) = \mathrm{softmax}\Bigl( b + \sum_{j \le k} W_{\cdot j} f_j(x) \Bigr) .$$
#
# $f_j$ is feature $j$ of the last hidden layer, $W_{\cdot j}$ its column of the classifier, $b$ the bias, $\sigma$
# how far down the list training usually reaches. Ordinary *dropout* before the classifier compresses without an
# order. In a second stage two such networks do *Co-teaching*: each picks the samples of a batch with the smallest
# losses, at its own $k$, as many as are right at the known rate of noise, and the other is trained on them.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. An image goes through layers to ordered features; a random k cuts them; the head gives logits. Two such networks exchange the small-loss samples of a batch."}, "figure": {"caption": "Stage one trains two networks apart; in stage two each chooses the other's samples.", "name": "fig-nested-diagram"}}
parts = {
    "image": (0, 0.5), "layers": (1, 0.5, "trained"), "features\n1 … k, 0": (2.2, 0.5), "head": (3.3, 0.5, "trained"), "small\nlosses": (4.4, 0.5, "store"),
    "the other\nnetwork": (4.4, 1.4, "trained"),
}
arrows = [("image", "layers"), ("layers", "features\n1 … k, 0"), ("features\n1 … k, 0", "head"), ("head", "small\nlosses"), ("small\nlosses", "the other\nnetwork", "samples")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(N.truncation, N.draw_lengths, N.keep_first)

# %%
lab.show(N.logits_by_length, N.saturation)

# %%
lab.show(N.co_teaching_weights, N.small_loss)

# %% [markdown]
# First a picture in one dimension: noisy points of a sine. The same network is fitted with and without nested dropout;
# of the latter all prefixes can be looked at.

# %% mystnb={"image": {"alt": "Noisy points of a sine. The plain network's curve is wiggly and passes near many points; the nested network's curve of the first few features is smooth and near the sine."}, "figure": {"caption": "Noisy points, the plain fit, and the nested fit with its first eight features.", "name": "fig-nested-sine"}}
sine = [N.smooth_regression(s) for s in run.seeds]
one, (figure, axis) = sine[0], lab.plots.axes(1, 6, 2.6)
axis.plot(*one["points"], ".", color=lab.plots.GREY)
for name, y in (("truth", one["truth"]), ("plain", one["plain"]), ("nested, 8 features", one["nested"][3])):
    axis.plot(one["x"], y, label=name)
axis.set(xlabel="x", ylabel="y")
_ = lab.plots.legend(axis)

# %%
run.claim("nested-dropout-noisy-labels", "With its first eight features the nested network is nearer to the noiseless sine than a plain one",
          [float(s["error nested"][3]) for s in sine], [float(s["error plain"][0]) for s in sine], margin=0.02, higher_is_better=False)

# %%
run.claim("nested-dropout-noisy-labels", "The nested network departs more from the sine with all features than with the first eight",
          [float(s["error nested"][-1]) for s in sine], [float(s["error nested"][3]) for s in sine], margin=0.02)

# %%
compressed = [N.compare_compression(stage, s) for s in run.seeds]
plain = [one["retrained"] for one in forty()]
first = [c[1] for c in compressed]
taught = [c[2] for c in compressed]
results["nested dropout, Co-teaching"] = of(taught, "clean k", "nested")

# %% mystnb={"image": {"alt": "Test accuracy over the number of kept features for cross-entropy, dropout, nested dropout and GCE. Nested dropout is at its best from about sixteen features on and falls slightly with more; the others rise until all are kept."}, "figure": {"caption": "Test accuracy when only the first features are kept, 40 % symmetric noise.", "name": "fig-nested-lengths"}}
lengths = first[0]["lengths"]
arms = {name: points(first, "by length", name) for name in N.KINDS}
_ = lab.plots.curve(run.curve("nested-dropout-noisy-labels", "test accuracy over the number of kept features", lengths, arms, "kept features", "test accuracy", log=True))

# %%
run.claim("nested-dropout-noisy-labels", "Nested dropout memorises fewer wrong labels than cross-entropy",
          of(first, "memorised", "nested"), of(first, "memorised", "cross-entropy"), margin=0.2, higher_is_better=False)

# %%
run.claim("nested-dropout-noisy-labels", "Nested dropout memorises fewer wrong labels than dropout",
          of(first, "memorised", "nested"), of(first, "memorised", "dropout"), margin=0.1, higher_is_better=False)

# %%
run.claim("nested-dropout-noisy-labels", "Nested dropout needs fewer features to be within a point of its best than cross-entropy, by at least 32",
          of(first, "features", "nested"), of(first, "features", "cross-entropy"), margin=32, higher_is_better=False)

# %%
run.claim("nested-dropout-noisy-labels", "A single nested network is better than a single one trained by cross-entropy",
          of(first, "clean k", "nested"), of(first, "clean k", "cross-entropy"), margin=0.02)

# %%
run.claim("nested-dropout-noisy-labels", "Choosing k on noisy held-out labels costs at most two points against clean ones",
          of(first, "noisy k", "nested"), of(first, "clean k", "nested"), margin=-0.02)

# %%
run.claim("nested-dropout-noisy-labels", "Networks with nested dropout vary less from one another than those trained by cross-entropy",
          of(first, "variance", "nested"), of(first, "variance", "cross-entropy"), margin=0.0, higher_is_better=False)

# %%
run.claim("nested-dropout-noisy-labels", "The price is bias: the mean of nested networks is further from the truth than that of networks trained by cross-entropy",
          of(first, "bias", "nested"), of(first, "bias", "cross-entropy"), margin=0.0)

# %% mystnb={"image": {"alt": "Horizontal bars of test accuracy for four networks, each before and after Co-teaching, and early stopping. Co-teaching raises cross-entropy and dropout most; GCE with Co-teaching and early stopping lie above nested dropout."}, "figure": {"caption": "Test accuracy at the chosen number of features, 40 % symmetric noise, before and after Co-teaching. Dots are seeds.", "name": "fig-nested-bars"}}
bars = {name + add: of(stage_, "clean k", name) for name in N.KINDS for add, stage_ in (("", first), (", Co-teaching", taught))}
lab.plots.bars(lab.plots.axes(1, 6, 3.4)[1], bars | {"early stopping": of(plain, "early stopping")}, "test accuracy")

# %%
three = ("cross-entropy", "dropout", "nested")
run.claim("nested-dropout-noisy-labels", "Co-teaching in stage two raises accuracy, mean over cross-entropy, dropout and nested dropout",
          [sum(v) / 3 for v in zip(*[of(taught, "clean k", name) for name in three])],
          [sum(v) / 3 for v in zip(*[of(first, "clean k", name) for name in three])], margin=0.01)

# %%
run.claim("nested-dropout-noisy-labels", "Nested dropout with Co-teaching is better than early stopping",
          of(taught, "clean k", "nested"), of(plain, "early stopping"), margin=0.0)

# %%
run.claim("nested-dropout-noisy-labels", "Nested dropout with Co-teaching is better than GCE with Co-teaching",
          of(taught, "clean k", "nested"), of(taught, "clean k", "GCE"), margin=0.0)

# %%
SIGMAS = run.pick(quick=(), long=(3.0, 10.0, 30.0, 100.0), full=(10.0, 100.0))
if SIGMAS:
    swept = {sigma: compressed if sigma == 10 else [N.compare_compression(stage, s, sigma=sigma) for s in run.seeds] for sigma in SIGMAS}
    arms = {"accuracy": [of(swept[v], 1, "clean k", "nested") for v in SIGMAS], "memorised": [of(swept[v], 1, "memorised", "nested") for v in SIGMAS]}
    run.curve("nested-dropout-noisy-labels", "accuracy and memorised share over sigma", list(SIGMAS), arms, "σ", "share", log=True)
    hard = [N.compare_compression(stage, s, kind="pair") for s in run.seeds]
    run.claim("nested-dropout-noisy-labels", "Under pair noise too a single nested network is better than cross-entropy",
              of(hard, 1, "clean k", "nested"), of(hard, 1, "clean k", "cross-entropy"), margin=0.02)

# %% [markdown]
# The order of the features is what makes the difference to dropout: dropout takes a share of the features away at
# random, and a sample's own feature survives often enough to be used; under nested dropout it would have to stand
# early in the list, where everybody needs the place (*our guess*). The variance between networks falls and their mean
# moves away from the truth: that is the trade of bias for variance which the paper describes (*measured*: both
# statements above). Co-teaching helps most where most was memorised (*measured*: the bars), and so nested dropout,
# which memorised least, gains least: in the end it lies *below* early stopping, and below GCE with the same second
# stage. In the paper's tables too the lead of nested dropout over dropout is gone after Co-teaching, and on CIFAR-100
# a single nested network lies below cross-entropy.

# %% [markdown]
# (crosssplit)=
# ## Ask somebody who was not taught it: CrossSplit
# A network that corrects its own labels asks a witness who has learnt the mistakes by heart. CrossSplit parts the
# training set into two halves and trains a network on each. A network's labels are corrected by its *peer*, which has
# never seen them; how much, says the distance of the peer's answer from the label. And each network uses the peer's
# half too, without its labels.
#
# $$s = \mathrm{sharpen}\bigl( \beta\, q + (1 - \beta)\, \tilde y \bigr), \qquad
# \beta = \frac{\mathrm{JSD}(\tilde y, q) - \min_{\tilde y} \mathrm{JSD}}{\max_{\tilde y} \mathrm{JSD} - \min_{\tilde y} \mathrm{JSD}} .$$
#
# $q$ is the peer's prediction, mean over two weak views; JSD is the Jensen-Shannon divergence, and its minimum and
# maximum are taken over the samples with the same given label; *sharpen* squares the probabilities and brings them
# back to sum 1; $s$ is the target. When correction begins, $\beta$ is drawn towards one half, and step by step let
# go. The rest is MixMatch: corrected and unlabelled images, in strong views, are mixed with each other and with their
# targets; on unlabelled ones the target is the network's own sharpened mean, and the loss a squared error. A term of
# SimCLR on two strong views of the unlabelled half and the uniform prior are added, with small weights.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Half A trains network A and half B network B. Network B predicts on half A; the prediction and the given label make A's target. Half B without labels goes to network A as well."}, "figure": {"caption": "CrossSplit, seen from network A; B does the same with the halves swapped.", "name": "fig-crosssplit-diagram"}}
parts = {
    "half A,\nlabels": (0, 0), "half B,\nlabels": (0, 1), "network B": (1.2, 1, "trained"), "target:\nlabel or\npeer": (2.4, 0), "network A": (3.6, 0.5, "trained"),
    "unlabelled\nhalf B": (2.4, 1),
}
arrows = [("half A,\nlabels", "target:\nlabel or\npeer"), ("half B,\nlabels", "network B"), ("network B", "target:\nlabel or\npeer", "predicts A", "stop"),
          ("target:\nlabel or\npeer", "network A"), ("unlabelled\nhalf B", "network A")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(N.label_divergence, N.mixing_weight)

# %%
lab.show(N.sharpen, N.corrected)

# %%
lab.show(N.learn_crosssplit, start="def loss(rows", end="return value + contrast")

# %% [markdown]
# The arms take out one thing at a time: the split (both networks see all labels, as the released loaders do), the peer
# (a network corrects its own labels), the correction itself, and in longer runs the unlabelled half. Pair noise, 40 %;
# in the warm-up, a quarter of the epochs, images are not changed, so that there is time to learn by heart. We ask of
# the network *that gives the target*: with how many of the wrong labels does it agree?

# %%
FOUR = ("CrossSplit", "no split", "self", "labels as given")
FIVE = run.pick(quick=FOUR, long=(*FOUR, "no unlabelled half"), full=(*FOUR, "no unlabelled half"))
split = [N.compare_splits(stage, s, FIVE) for s in run.seeds]
results["CrossSplit"] = of(split, "accuracy", "CrossSplit")

# %% mystnb={"image": {"alt": "Share of wrong labels that the network which gives the target agrees with, over the epochs. It rises during the warm-up and falls when correction begins, lowest for CrossSplit, higher without the split and with the network's own answers; labels as given end highest."}, "figure": {"caption": "Wrong labels with which the giver of the target agrees: the peer, or for self and labels as given the network itself. Correction begins after a quarter of the epochs.", "name": "fig-crosssplit-track"}}
epochs = list(range(1, 1 + len(split[0]["track"]["CrossSplit"])))
arms = {name: points(split, "track", name) for name in FOUR}
if len(epochs) > 1:
    _ = lab.plots.curve(run.curve("crosssplit", "wrong labels agreed with over the epochs", epochs, arms, "epoch", "share of wrong labels"))

# %%
run.claim("crosssplit", "When correction begins a peer taught on the other half agrees with fewer wrong labels than one taught on all",
          of(split, "at the start", "CrossSplit"), of(split, "at the start", "no split"), margin=0.05, higher_is_better=False)

# %%
run.claim("crosssplit", "At the end too a peer taught on the other half agrees with fewer wrong labels than one taught on all",
          of(split, "memorised", "CrossSplit"), of(split, "memorised", "no split"), margin=0.0, higher_is_better=False)

# %%
run.claim("crosssplit", "When correction begins a peer agrees with fewer of the wrong labels than the network itself does",
          of(split, "at the start", "CrossSplit"), of(split, "at the start", "self"), margin=0.3, higher_is_better=False)

# %%
run.claim("crosssplit", "CrossSplit gives back at most half as many wrong labels as plain cross-entropy does",
          [2 * v for v in of(split, "fitted", "CrossSplit")], of(split, "rivals memorised", "cross-entropy"), margin=0.0, higher_is_better=False)

# %% mystnb={"image": {"alt": "Horizontal bars of test accuracy: CrossSplit and its variants above early stopping, GCE and cross-entropy."}, "figure": {"caption": "Test accuracy after training on 40 % pair noise. Dots are seeds.", "name": "fig-crosssplit-bars"}}
bars = {name: of(split, "accuracy", name) for name in FIVE} | {name: of(split, "rivals", name) for name in ("early stopping", "GCE", "cross-entropy", "training longer")}
lab.plots.bars(lab.plots.axes(1, 6, 3.2)[1], bars, "test accuracy")

# %%
run.claim("crosssplit", "CrossSplit is better than early stopping",
          of(split, "accuracy", "CrossSplit"), of(split, "rivals", "early stopping"), margin=0.02)

# %%
run.claim("crosssplit", "CrossSplit is better than GCE",
          of(split, "accuracy", "CrossSplit"), of(split, "rivals", "GCE"), margin=0.05)

# %%
run.claim("crosssplit", "Correcting labels is better than taking them as given, with the same unlabelled half and mixing",
          of(split, "accuracy", "CrossSplit"), of(split, "accuracy", "labels as given"), margin=0.0)

# %%
run.claim("crosssplit", "The peer's correction is better than a network's own, in accuracy",
          of(split, "accuracy", "CrossSplit"), of(split, "accuracy", "self"), margin=0.0)

# %%
run.claim("crosssplit", "Splitting costs no accuracy: CrossSplit is at most five points below the same without the split",
          of(split, "accuracy", "CrossSplit"), of(split, "accuracy", "no split"), margin=-0.05)

# %%
if "no unlabelled half" in FIVE:
    run.claim("crosssplit", "The unlabelled half is worth its place: without it accuracy is lower",
              of(split, "accuracy", "CrossSplit"), of(split, "accuracy", "no unlabelled half"), margin=0.0)

# %%
KINDS = run.pick(quick=(), long=(("symmetric", 0.2), ("symmetric", 0.5), ("symmetric", 0.7), ("pair", 0.2)), full=(("symmetric", 0.5), ("symmetric", 0.8)))
if KINDS:
    swept = {kind: [N.compare_splits(stage, s, (*FOUR[:3], "not by class"), draws=1, kind=kind[0], rate=kind[1]) for s in run.seeds] for kind in KINDS}
    arms = {name: [of(swept[kind], "accuracy", name) for kind in KINDS] for name in FOUR[:3]} | {"GCE": [of(swept[kind], "rivals", "GCE") for kind in KINDS]}
    run.curve("crosssplit", "accuracy over the kind of noise", [f"{a} {b:g}" for a, b in KINDS], arms, "noise", "test accuracy")
    run.claim("crosssplit", "At 50 % symmetric noise normalising the divergence within each label is better than over all samples",
              of(swept["symmetric", 0.5], "accuracy", "CrossSplit"), of(swept["symmetric", 0.5], "accuracy", "not by class"), margin=0.0)

# %% [markdown]
# What the split buys is said by the first two statements, and it is the paper's point: a peer from the other half
# cannot have learnt these labels by heart. It costs half of the labels at each network. In accuracy the arms lie so
# close that neither the correction nor its source is told apart from its absence. Nearly all of the distance to the
# plain rivals comes from strong views, mixing, two networks and the unlabelled half, which *labels as given* has too
# and the rivals have not (*measured*: its bar).

# %% [markdown]
# (confident-noisy-annotators)=
# ## Whose mistake? Annotators with confusion matrices
# Three annotators have labelled each image, and none of them well. A majority vote throws away who said what. Better:
# the classifier says what is *true*, a confusion matrix for each annotator says what *they* would call it, and both are
# learnt from what they did say.
#
# $$p_r(x) = T_r(x)\, p(x), \qquad L = -\sum_{r} \log\, [p_r(x)]_{\tilde y_r} \;+\; \lambda\, H\bigl(p(x)\bigr) .$$
#
# $\tilde y_r$ is what annotator $r$ says; $T_r(x)$ is $K \times K$, its entry $(a, b)$ the chance that $r$ says $a$
# where $b$ is true, so that columns sum to 1; it comes from the features, and so may differ from image to image; $H$
# is the entropy and $\lambda$ its weight; in the code the sum over $r$ is a mean. Why $H$? For any invertible $S$ the
# pair $(T S^{-1}, S p)$ predicts the same answers. The likelihood cannot choose; a classifier that has to be
# confident can no longer carry the noise in $p$, and it must go into $T$. Tanno and colleagues *lower* the trace of
# $T$ for the same purpose.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. An image goes through the features to the class probabilities p and to matrices T, one an annotator. Their product predicts each annotator's answer; the loss compares with the answers; an entropy term acts on p."}, "figure": {"caption": "The classifier says what is true, the matrices what each annotator makes of it.", "name": "fig-annotators-diagram"}}
parts = {
    "image": (0, 0.5), "features": (1, 0.5, "trained"), "p: what\nis true": (2.1, 0, "trained"), "T: who says\nwhat": (2.1, 1, "trained"), "T p": (3.2, 0.5),
    "answers": (4.2, 1), "likelihood": (4.2, 0.2, "loss"), "entropy": (3.2, -0.3, "loss"),
}
arrows = [("image", "features"), ("features", "p: what\nis true"), ("features", "T: who says\nwhat"), ("p: what\nis true", "T p"), ("T: who says\nwhat", "T p"),
          ("T p", "likelihood"), ("answers", "likelihood"), ("p: what\nis true", "entropy")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(N.annotator_loss, N.entropy, N.mean_trace)

# %%
lab.show(N.Confusions, start="def __init__")

# %%
lab.show(N.dawid_skene)

# %%
g = torch.Generator().manual_seed(0)
p = torch.rand(50, 4, dtype=torch.float64, generator=g).softmax(1)
t, s = (torch.eye(4, dtype=torch.float64) + 0.2 * torch.rand(4, 4, dtype=torch.float64, generator=g) for _ in range(2))
run.exact("confident-noisy-annotators", "Another classifier with other matrices predicts the same answers: no likelihood tells them apart",
          N.same_likelihood(p, t, s), at_most=1e-10, data="random matrices")

# %% [markdown]
# The annotators: one wrong half of the time at random, one who calls 45 % by the next class, one at random in four
# cases of five. The rivals: cross-entropy, GCE and early stopping on the majority; Dawid and Skene's EM on the
# answers alone, which guesses each truth from the answers, counts each annotator's confusions, and repeats, with a
# classifier taught by its soft truth; the same model without a regulariser and with the trace; matrices that do not
# look at the image. The ceiling is trained on the true labels. The paper does not print its regulariser's weight:
# $\lambda$ is ours.

# %%
crowd = [N.compare_annotators(stage, s) for s in run.seeds]
OURS = "image, entropy"
results["annotators, confident"] = of(crowd, "accuracy", OURS)

# %% mystnb={"image": {"alt": "Horizontal bars of test accuracy. The majority is lowest; GCE on it, Dawid-Skene and matrices that do not look at the image lie above it; early stopping and image-dependent matrices without a regulariser higher; with the entropy highest below the ceiling."}, "figure": {"caption": "Test accuracy from three bad annotators. Dots are seeds.", "name": "fig-annotators-bars"}}
ORDER = ("majority", "GCE on the majority", "early stopping", "Dawid-Skene", "no regulariser", "trace", "entropy", "image, no regulariser", OURS, "truth")
lab.plots.bars(lab.plots.axes(1, 6, 3.2)[1], {name: of(crowd, "accuracy", name) for name in ORDER}, "test accuracy")

# %%
run.claim("confident-noisy-annotators", "Confident matrices are better than cross-entropy on the majority vote",
          of(crowd, "accuracy", OURS), of(crowd, "accuracy", "majority"), margin=0.1)

# %%
run.claim("confident-noisy-annotators", "Confident matrices are better than GCE on the majority vote",
          of(crowd, "accuracy", OURS), of(crowd, "accuracy", "GCE on the majority"), margin=0.05)

# %%
run.claim("confident-noisy-annotators", "Confident matrices are better than early stopping on the majority vote",
          of(crowd, "accuracy", OURS), of(crowd, "accuracy", "early stopping"), margin=0.02)

# %%
run.claim("confident-noisy-annotators", "Confident matrices are better than a classifier taught by Dawid and Skene's truth",
          of(crowd, "accuracy", OURS), of(crowd, "accuracy", "Dawid-Skene"), margin=0.03)

# %%
run.claim("confident-noisy-annotators", "The entropy makes the classifier more accurate than the same model without a regulariser",
          of(crowd, "accuracy", OURS), of(crowd, "accuracy", "image, no regulariser"), margin=0.03)

# %%
run.claim("confident-noisy-annotators", "With matrices of the annotators alone too the entropy is better than the trace, in accuracy",
          of(crowd, "accuracy", "entropy"), of(crowd, "accuracy", "trace"), margin=0.02)

# %%
run.claim("confident-noisy-annotators", "Matrices that depend on the image are better than those that do not, with the entropy",
          of(crowd, "accuracy", OURS), of(crowd, "accuracy", "entropy"), margin=0.05)

# %%
run.claim("confident-noisy-annotators", "Without a regulariser the classifier is less sure: the entropy of its test predictions is higher",
          of(crowd, "entropy", "image, no regulariser"), of(crowd, "entropy", OURS), margin=0.1)

# %% [markdown]
# And the matrices? The error is the mass that a mean row of the recovered matrix has in the wrong place, 0 … 2.

# %% mystnb={"image": {"alt": "Two rows of three small matrices, true above and recovered below. The first has a grey diagonal, the second a diagonal and a line beside it, the third is nearly uniform; the recovered ones show the same patterns."}, "figure": {"caption": "True confusion matrices (top) and the recovered ones (bottom), first seed; rows are true classes.", "name": "fig-annotators-matrices"}}
true, found = crowd[0]["matrices"].float(), crowd[0]["recovered"][OURS].float()
shown = torch.cat([true, found]).clamp(0, 0.6)[:, None] / 0.6
_ = lab.plots.images(shown, rows=2, names=("true", "found"), width=4.5)

# %%
run.claim("confident-noisy-annotators", "The entropy recovers the confusion matrices better than no regulariser does",
          of(crowd, "error", OURS), of(crowd, "error", "image, no regulariser"), margin=0.1, higher_is_better=False)

# %%
run.claim("confident-noisy-annotators", "The recovered matrices are nearer to the true ones than those of Dawid and Skene",
          of(crowd, "error", OURS), of(crowd, "error", "Dawid-Skene"), margin=0.0, higher_is_better=False)

# %%
LEVELS = run.pick(quick=(), long=(0.2, 0.4, 0.6, 0.8), full=(0.2, 0.6))
if LEVELS:
    swept = {v: [N.compare_annotators(stage, s, (("symmetric", v), ("pair", min(v, 0.45)), ("symmetric", v))) for s in run.seeds] for v in LEVELS}
    arms = {name: [of(swept[v], "accuracy", name) for v in LEVELS] for name in (OURS, "image, no regulariser", "Dawid-Skene", "early stopping", "majority")}
    run.curve("confident-noisy-annotators", "accuracy over the annotators' noise", list(LEVELS), arms, "noise of the annotators", "test accuracy")
    run.claim("confident-noisy-annotators", "The lead over the majority vote is larger at 60 than at 20 % noise",
              [a - b for a, b in zip(of(swept[0.6], "accuracy", OURS), of(swept[0.6], "accuracy", "majority"))],
              [a - b for a, b in zip(of(swept[0.2], "accuracy", OURS), of(swept[0.2], "accuracy", "majority"))], margin=0.02)

# %% [markdown]
# The ambiguity shows: without the entropy the classifier is less sure and the matrices are further from the truth
# (*measured*: entropy and error). That matrices which look at the image do better than those which do not is, *our
# guess*, because they can also take up the memorising: a wrong answer that is learnt by heart goes into $T(x)$ and
# leaves $p(x)$ alone. Dawid and Skene, who look at no image, have the *nearer* matrices: theirs are counted from all
# answers at once, ours are means of what a network says of each image. But a classifier taught by their truth is far
# worse, as their guess at a single image rests on three bad answers (*our guess*). So: EM to learn about annotators,
# the joint model to learn the classes.

# %% [markdown]
# (ni-erm)=
# ## Do nothing: ignorance is bliss
# If the most frequent noisy label of an image is its true class, then minimising the noisy risk, as if nothing were
# wrong, finds the right classifier. How much of the signal is left is a number, for each point:
#
# $$M(x) = \min_{j} \frac{\max_i \tilde\eta_i(x) - \tilde\eta_j(x)}{\max_i \eta_i(x) - \eta_j(x)}, \qquad
# \text{excess risk} \;\le\; P(M \le \kappa) + \frac1\kappa\, O\Bigl(\sqrt{V/n}\Bigr).$$
#
# $\eta_i(x)$ and $\tilde\eta_i(x)$ are the chances of class $i$, given the image, to be the true and the noisy label;
# $0/0 = \infty$; $M$ is the *relative signal strength*, 0 exactly where the two argmaxes differ; $V$ is the VC
# dimension of the class of classifiers, $n$ the number of samples, and $\kappa > 0$ any strength. In the first
# statement below $e$ is the rate of symmetric noise. Where there is no signal nobody can know; elsewhere the noise
# costs samples, and nothing more. The risk is that of the *noise-ignorant* empirical risk minimiser, NI-ERM, and a
# lower bound for every method looks nearly the same.

# %%
lab.show(N.relative_signal_strength, N.symmetric_strength)

# %%
g = torch.Generator().manual_seed(1)
eta = torch.rand(2000, 10, dtype=torch.float64, generator=g).softmax(1)
gap = max(abs(float(v) - N.symmetric_strength(rate, 10)) for rate in (0.2, 0.5, 0.85) for v in N.relative_signal_strength(eta, eta @ transition("symmetric", 10, rate)))
run.exact("ni-erm", "Under symmetric noise the relative signal strength is 1 - eK/(K - 1) at every point", gap, at_most=1e-9, data="random posteriors")

# %%
other = (4 * torch.rand(2000, 10, dtype=torch.float64, generator=g)).softmax(1)
noisy = torch.lerp(eta, other, 0.2)
zero = N.relative_signal_strength(eta, noisy) == 0
run.exact("ni-erm", "The strength is zero exactly where the noisy and the clean argmax differ: points for which this fails",
          int((zero != (eta.argmax(1) != noisy.argmax(1))).sum()), at_most=0, data="random posteriors")

# %% [markdown]
# Ten Gaussians in ten dimensions, symmetric noise of rising rate, logistic regression that knows nothing of it. The
# strength reaches zero at 90 %, and behind it the true class is the *least* likely label.

# %%
RATES = run.pick(quick=(0.0, 0.3, 0.6, 0.8, 0.9, 0.98), long=(0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.98), full=(0.0, 0.3, 0.6, 0.8, 0.9, 0.98))
SAMPLES = run.pick(quick=10_000, long=40_000, full=40_000)
flat = [N.mixture_sweep(list(RATES), n=SAMPLES, seed=s) for s in run.seeds]
at = {rate: [one[i] for one in flat] for i, rate in enumerate(RATES)}

# %% mystnb={"image": {"alt": "Accuracy over the rate of symmetric noise: nearly flat up to about 80 percent, then a steep fall through a tenth at 90 percent to nearly zero."}, "figure": {"caption": "Noise-ignorant logistic regression on ten Gaussians: flat, then a cliff at nine tenths.", "name": "fig-ni-cliff"}}
_ = lab.plots.curve(run.curve("ni-erm", "accuracy over the rate of symmetric noise", list(RATES), {"NI-ERM": [at[r] for r in RATES]}, "noise rate", "accuracy on true labels", data="ten Gaussians"))

# %%
run.claim("ni-erm", "At 60 % symmetric noise ignoring it costs at most two points", at[0.6], at[0.0], margin=-0.02, data="ten Gaussians")

# %%
run.claim("ni-erm", "Behind nine tenths of noise the accuracy falls below chance", at[0.98], [0.1] * len(run.seeds), margin=0.05,
          higher_is_better=False, data="ten Gaussians")

# %% [markdown]
# The theorem can be looked at without an approximation on a finite domain: 40 cells, four classes, and all classifiers,
# so that $V = 40$ and empirical risk minimisation is each cell's most frequent label. In a tenth of the cells the noise
# tells nothing; elsewhere it leaves a strength of 0.8 or 0.2.

# %%
lab.show(N.zero_signal, N.erm_excess)

# %%
COUNTS, LOST = (100, 300, 1000, 3000, 10_000), 4


def excess(strength):
    """Mean excess risk at each number of samples: one list a point, one value a seed."""
    each = []
    for seed in run.seeds:
        g = torch.Generator().manual_seed(seed)
        clean = N.cells(40, 4, generator=g)
        noisy = N.zero_signal(clean, LOST, strength)
        each.append([float(N.erm_excess(clean, noisy, n, 40, generator=g).mean()) for n in COUNTS])
    return [list(v) for v in zip(*each)]


risk = {strength: excess(strength) for strength in (0.8, 0.2)}

# %% mystnb={"image": {"alt": "Excess risk over the number of samples for two strengths, both axes logarithmic, with the theorem's bound for each. Both fall towards a positive floor, the weak one later; the bounds lie above them."}, "figure": {"caption": "Excess risk of NI-ERM where a tenth of the cells carries no signal.", "name": "fig-ni-excess"}}
arms = {f"strength {k:g}": v for k, v in risk.items()}
arms |= {f"bound, {k:g}": [[N.upper_bound(LOST / 40, k, 40, n)] * len(run.seeds) for n in COUNTS] for k in risk}
figure = lab.plots.curve(run.curve("ni-erm", "excess risk over the number of samples", list(COUNTS), arms, "samples", "excess risk", log=True, data="40 cells"))
figure.axes[0].set_yscale("log")

# %%
run.claim("ni-erm", "At 1,000 samples a strength of 0.2 costs more excess risk than one of 0.8",
          risk[0.2][2], risk[0.8][2], margin=0.02, data="40 cells")

# %%
run.claim("ni-erm", "At 10,000 samples and strength 0.8 the excess risk is at most the mass without a signal",
          risk[0.8][4], [LOST / 40] * len(run.seeds), margin=0.0, higher_is_better=False, data="40 cells")

# %%
g = torch.Generator().manual_seed(2)
regret = [N.minimax_regret(LOST, 4, rule, trials=4000, generator=g) for rule in ("ni-erm", "minority", "first")]
run.exact("ni-erm", "Where the noise tells nothing every rule is wrong in (K - 1) / K of the cells on average: largest departure of three rules",
          max(abs(v - 0.75) for v in regret), at_most=0.02, data="40 cells")

# %% [markdown]
# In practice: take features that never saw a label, and fit a linear classifier to the noisy ones, its penalty chosen
# on *noisy* held-out labels. Features come from SimCLR on all training images of the data set, many more than a seed
# has labels for, without their labels. Rivals: the same classifier on pixels; with *forward correction*, which is
# told the matrix $T$ of the noise and fits $T^\top p$ to the noisy labels; with GCE; and networks trained end to end
# on the same labels from random weights, which never see the further images.

# %%
lab.show(N.noise_ignorant)

# %%
bliss = [N.compare_ignorance(stage, s) | one["retrained"] for s, one in zip(run.seeds, forty())]
results["NI-ERM on features"] = of(bliss, "ni-erm, features")

# %% mystnb={"image": {"alt": "Horizontal bars of test accuracy: linear classifiers on contrastive features highest, whichever the loss; on pixels lower; networks trained end to end lowest except with early stopping."}, "figure": {"caption": "Test accuracy from 40 % symmetric noise. Dots are seeds.", "name": "fig-ni-bars"}}
ORDER = ("cross-entropy", "training longer", "GCE", "early stopping", "ni-erm, pixels", "ni-erm, features", "forward, features", "gce, features")
lab.plots.bars(lab.plots.axes(1, 6, 3)[1], {name: of(bliss, name) for name in ORDER}, "test accuracy")

# %%
run.claim("ni-erm", "A noise-ignorant linear classifier on contrastive features is better than a network trained end to end",
          of(bliss, "ni-erm, features"), of(bliss, "cross-entropy"), margin=0.1)

# %%
run.claim("ni-erm", "It is better than a network trained end to end with early stopping",
          of(bliss, "ni-erm, features"), of(bliss, "early stopping"), margin=0.02)

# %%
run.claim("ni-erm", "Contrastive features are better than pixels for a noise-ignorant linear classifier",
          of(bliss, "ni-erm, features"), of(bliss, "ni-erm, pixels"), margin=0.03)

# %%
run.claim("ni-erm", "On the same features ignoring the noise is at most three points below forward correction with the true matrix",
          of(bliss, "ni-erm, features"), of(bliss, "forward, features"), margin=-0.03)

# %%
run.claim("ni-erm", "On the same features ignoring the noise is at most two points below GCE",
          of(bliss, "ni-erm, features"), of(bliss, "gce, features"), margin=-0.02)

# %%
NOISES = run.pick(quick=(), long=(("symmetric", 0.2), ("symmetric", 0.6), ("symmetric", 0.8), ("pair", 0.4), ("instance", 0.4)), full=(("symmetric", 0.2), ("symmetric", 0.6), ("instance", 0.4)))
if NOISES:
    swept = {noise: [N.compare_ignorance(stage, s, kind=noise[0], rate=noise[1], against=True) for s in run.seeds] for noise in NOISES}
    arms = {name: [of(swept[noise], name) for noise in NOISES] for name in ("ni-erm, features", "ni-erm, pixels", "forward, features", "cross-entropy", "early stopping")}
    run.curve("ni-erm", "accuracy over the kind of noise", [f"{a} {b:g}" for a, b in NOISES], arms, "noise", "test accuracy")
    run.claim("ni-erm", "Under noise that depends on the image too, features are better than pixels for a noise-ignorant classifier",
              of(swept["instance", 0.4], "ni-erm, features"), of(swept["instance", 0.4], "ni-erm, pixels"), margin=0.02)

# %% [markdown]
# The theorem bounds what is lost at the limit of many samples; with a thousand, the noise's price is the factor
# $1/\kappa$, and a loss that knows the noise, or distrusts hard samples, may save some of it. The two last statements
# ask how much: some points, GCE more than forward correction. Near-optimal is not optimal. That features which never
# saw a label help is clear from the bound: a smaller $V$ at hardly more error (*our guess* for the size of the gain).
# What a toy cannot show is the paper's record on CIFAR-N, which rests on features trained on a hundred million other
# images.

# %% [markdown]
# (pls-lsa)=
# ## Foreign images: detection is not all you need
# A search engine returns images with wrong labels *and* images of nothing at all. Contrastive features separate the
# latter from the rest by a hyperplane, nearly without a mistake. One would think that this settles it. The paper says
# that it does not: what the hyperplane wrongly rejects are *simple* images, whose small loss shows at once that they
# are right. The authors' earlier PLS (pseudo-loss selection) goes by the losses alone; PLS-LSA, with linear
# separation added, takes turns, an epoch each: the hyperplane, then the losses.
#
# $$\text{loss turn: } \mathcal N = \{ x : P(\text{high bump} \mid \ell(x)) > 0.95 \}, \qquad
# \text{linear turn: } \mathcal N = \{ x : v^\top h(x) + v_0 > 0 \} .$$
#
# $\mathcal N$ are the samples taken as noisy, $\ell$ is the loss and its two bumps now Gaussians; $h$ are the current
# network's intermediate features, of length 1, and $(v, v_0)$ a logistic regression, fitted after each epoch to tell
# the loss turn's $\mathcal N$ from the rest. Nothing in $\mathcal N$ is dropped: its target becomes the network's own
# sharpened answer, weighed by how sure a second mixture is of that answer. The rest is mixup, a supervised
# contrastive term and the uniform prior.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A network that began as SimCLR gives losses and intermediate features. A Gaussian mixture of the losses splits the samples; a hyperplane in the features is fitted to this split. In turn one of the two answers decides whose label is replaced by the network's own guess; the network is trained on it."}, "figure": {"caption": "PLS-LSA. The small-loss split teaches the hyperplane; both take turns in deciding.", "name": "fig-lsa-diagram"}}
parts = {
    "network,\nfrom SimCLR": (0, 0.5, "trained"), "losses": (1.2, 0), "features h": (1.2, 1), "two\nGaussians": (2.3, 0, "store"), "hyperplane": (2.3, 1, "trained"),
    "noisy:\nguess,\nweight": (3.5, 0.5), "mixup +\ncontrast": (4.6, 0.5, "loss"),
}
arrows = [("network,\nfrom SimCLR", "losses"), ("network,\nfrom SimCLR", "features h"), ("losses", "two\nGaussians"), ("features h", "hyperplane"), ("two\nGaussians", "hyperplane", "split"),
          ("two\nGaussians", "noisy:\nguess,\nweight", "even"), ("hyperplane", "noisy:\nguess,\nweight", "odd"), ("noisy:\nguess,\nweight", "mixup +\ncontrast")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(N.by_small_loss, N.pseudo_weights)

# %%
lab.show(N.balanced_separator)

# %%
lab.show(N.mixed_supervised_contrast)

# %% [markdown]
# Web noise: 600 digits, a fifth with a wrong label, and 400 squares of photographs with random labels. All arms begin
# from the same SimCLR network. *Loss only* is PLS; *no detection* has its mixup and contrast, and takes every label
# as given; *cross-entropy* and *GCE* have neither, but the same weak views.

# %% mystnb={"image": {"alt": "Sixteen small images in two rows: digits above, squares of photographic texture below, each with a label above it."}, "figure": {"caption": "The web set: digits, some with wrong labels, and foreign images with labels drawn at random.", "name": "fig-lsa-set"}}
web, labels = N.web_set(stage, run.seeds[0], 0.4, 0.2)
shown = torch.cat([web.x[:8], web.x[-8:]]).view(-1, stage.channels, stage.side, stage.side).cpu()
_ = lab.plots.images(shown, rows=2, labels=[str(c) for c in torch.cat([labels.labels[0, :8], labels.labels[0, -8:]]).tolist()], width=6)

# %%
plane = [N.hyperplane(stage, s) for s in run.seeds]
found = [N.compare_web(stage, s) for s in run.seeds]
results["PLS-LSA (web noise)"] = of(found, "accuracy", "alternating")

# %%
run.claim("pls-lsa", "A hyperplane in contrastive features, fitted with the truth, tells foreign images with an AUROC of at least 0.98",
          of(plane, "contrastive"), [0.98] * len(run.seeds), margin=0.0)

# %%
run.claim("pls-lsa", "Contrastive features are better for this than pixels, in AUROC",
          of(plane, "contrastive"), of(plane, "pixels"), margin=0.02)

# %%
run.claim("pls-lsa", "In training, without the truth, the linear detector tells foreign images with a higher AUROC than small losses do",
          of(found, "AUROC foreign", "linear only"), of(found, "AUROC foreign", "loss only"), margin=0.05)

# %% mystnb={"image": {"alt": "Scatter of training images, loss against the linear detector's probability of being noisy. Foreign images lie at high probability with all losses; right digits at low probability and low loss, some at high probability and low loss; flipped digits at high loss."}, "figure": {"caption": "Both scores of the training images at the end, small-loss arm, first seed.", "name": "fig-lsa-scatter"}}
s, odd, wrong = found[0]["scores"], found[0]["foreign"], found[0]["wrong"]
figure, axis = lab.plots.axes(1, 6, 2.6)
for name, mask in (("right", ~wrong), ("flipped", wrong & ~odd), ("foreign", odd)):
    axis.plot(s["linear"][0].cpu()[mask], s["loss"][0].cpu()[mask], ".", markersize=3, label=name)
axis.set(xlabel="linear detector: probability of noise", ylabel="loss")
_ = lab.plots.legend(axis)

# %%
run.claim("pls-lsa", "Of what the linear detector rejects, small losses keep a larger share of the right images than of the wrong ones",
          of(found, "kept by loss"), of(found, "kept of wrong"), margin=0.1)

# %%
run.claim("pls-lsa", "Right images that the linear detector rejects have a lower median loss than wrong ones",
          of(found, "loss of rejected"), of(found, "loss of wrong"), margin=1.0, higher_is_better=False)

# %%
run.claim("pls-lsa", "The linear score and the loss are far from the same: their rank correlation is at most 0.8",
          of(found, "agree"), [0.8] * len(run.seeds), margin=0.0, higher_is_better=False)

# %% mystnb={"image": {"alt": "Horizontal bars of test accuracy. GCE is highest, then cross-entropy and no detection, then alternating and linear only; loss only is lowest."}, "figure": {"caption": "Test accuracy from web noise, all from the same contrastive start. Dots are seeds.", "name": "fig-lsa-bars"}}
ORDER = ("cross-entropy", "GCE", "no detection", "loss only", "linear only", "alternating")
lab.plots.bars(lab.plots.axes(1, 6, 2.2)[1], {name: of(found, "accuracy", name) for name in ORDER}, "test accuracy")

# %%
run.claim("pls-lsa", "The more accurate detection of foreign images is no gain: linear alone is at most a point above small losses alone",
          of(found, "accuracy", "loss only"), of(found, "accuracy", "linear only"), margin=-0.01)

# %%
run.claim("pls-lsa", "Taking turns is at most two points below small losses alone",
          of(found, "accuracy", "alternating"), of(found, "accuracy", "loss only"), margin=-0.02)

# %%
run.claim("pls-lsa", "Detection pays: small losses are better than the same mixup and contrast with every label taken as given",
          of(found, "accuracy", "loss only"), of(found, "accuracy", "no detection"), margin=0.0)

# %%
run.claim("pls-lsa", "Taking turns is better than GCE from the same start",
          of(found, "accuracy", "alternating"), of(found, "accuracy", "GCE"), margin=0.0)

# %%
SHARES = run.pick(quick=(), long=(0.2, 0.4, 0.6, 0.8), full=(0.2, 0.4, 0.6))
if SHARES:
    swept = {v: found if v == 0.4 else [N.compare_web(stage, s, share=v) for s in run.seeds] for v in SHARES}
    arms = {name: [of(swept[v], "accuracy", name) for v in SHARES] for name in ORDER}
    run.curve("pls-lsa", "accuracy over the share of foreign images", list(SHARES), arms, "share of foreign images", "test accuracy")
    bare = [N.compare_web(stage, s, start=False) for s in run.seeds]
    run.claim("pls-lsa", "The contrastive start helps: taking turns from it is better than from random weights",
              of(found, "accuracy", "alternating"), of(bare, "accuracy", "alternating"), margin=0.0)

# %% [markdown]
# The paper's riddle can be seen in the scatter: the two scores look at different things, whether an image is a
# *digit* at all, and whether its *label* fits. But its solution is not what this stage shows. Small losses alone are
# the worst of the detectors, taking turns mends that, and still no detection at all is as good or better, and GCE
# better than each (*measured*: the bars). What the paper says of detection mostly holds; that detection is worth
# something does not. A foreign image hardly hurts a network that learns digits: its label is learnt in a corner of
# feature space where no digit lies. A right digit that is taken for noise does hurt, and a Gaussian mixture of the
# losses of a small set takes many (*our guess*). Published gains over PLS are one to two points on a hundred classes
# of photographs, of best epochs.

# %% [markdown]
# (rcal)=
# ## Wrong labels on a long tail: RCAL
# With a long tail the usual signs fail: a rare class's right samples have large losses too, and its label is mostly
# worn by others, for mistakes of frequent classes outnumber it. RCAL works on contrastive features, and assumes that
# each class is normally distributed there. It cleans each label's cloud from outliers, lends tail classes statistics of
# similar head classes, and draws *virtual* features until all classes are alike in number.
#
# $$\mu'_k = \gamma\, \mu_k + (1 - \gamma) \sum_{j} \omega_{kj}\, \mu_j, \qquad \Sigma'_k = \gamma\, \Sigma_k + (1 - \gamma) \sum_j \omega_{kj}\, \Sigma_j, \qquad
# \hat f \sim \mathcal N(\mu'_k, \Sigma'_k) .$$
#
# $\mu_k$, $\Sigma_k$ are mean and covariance of what the *local outlier factor* leaves of label $k$; $j$ runs over
# the head classes nearest to a tail class, $\omega_{kj}$ grows with their count and nearness; $\gamma$ is what stays
# its own. While the classifier is trained, a penalty on the squared distance holds each sample's feature near its
# contrastive one (*individual calibration*). The local outlier factor compares the density around a point with that
# around its neighbours.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Contrastive features with noisy labels go through the local outlier factor to class statistics; tail classes borrow from near head classes; virtual features are drawn; a classifier is trained on real and virtual ones, with a penalty towards the contrastive features."}, "figure": {"caption": "RCAL: clean, borrow, draw, and stay near.", "name": "fig-rcal-diagram"}}
parts = {
    "contrastive\nfeatures": (0, 0.5, "copy"), "outliers\nout": (1.2, 0), "μ, Σ of\nlabels": (2.3, 0, "store"), "tail\nborrows": (3.4, 0, "store"), "virtual\nfeatures": (4.5, 0),
    "classifier": (4.5, 1, "trained"), "stay near": (2.3, 1, "loss"),
}
arrows = [("contrastive\nfeatures", "outliers\nout"), ("outliers\nout", "μ, Σ of\nlabels"), ("μ, Σ of\nlabels", "tail\nborrows"), ("tail\nborrows", "virtual\nfeatures"),
          ("virtual\nfeatures", "classifier"), ("contrastive\nfeatures", "stay near"), ("stay near", "classifier")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(N.local_outlier_factor, N.inliers)

# %%
lab.show(N.borrow)

# %%
lab.show(N.virtual_features, N.prior_flips)

# %% [markdown]
# First where the truth is known: ten Gaussians with random covariances, a tail, and 30 % of the labels flipped to other
# classes in proportion to their size. How far are the estimated means from the true ones?

# %%
RATIOS = run.pick(quick=(5, 20, 50), long=(2, 5, 10, 20, 50, 100), full=(5, 20, 50))
known = {ratio: [N.known_gaussians(ratio, 0.3, s, draws=8) for s in run.seeds] for ratio in RATIOS}
WAYS = ("raw", "LOF", "LOF, borrow", "oracle")

# %% mystnb={"image": {"alt": "Distance of the tail classes' estimated means from the true ones over the imbalance ratio: after the outlier factor it is lower than raw at every ratio, the oracle lowest; with borrowing it is highest, above raw."}, "figure": {"caption": "Error of the tail classes' means over the imbalance, 30 % flips.", "name": "fig-rcal-known"}}
arms = {name: [of(known[ratio], name, "tail") for ratio in RATIOS] for name in WAYS}
_ = lab.plots.curve(run.curve("rcal", "error of the tail's means over the imbalance", list(RATIOS), arms, "largest to smallest class", "distance of the means", data="ten Gaussians"))

# %%
run.claim("rcal", "Dropping outliers brings the head classes' means nearer to the true ones",
          of(known[20], "LOF", "head"), of(known[20], "raw", "head"), margin=0.05, higher_is_better=False, data="ten Gaussians")

# %%
run.claim("rcal", "Dropping outliers brings the tail classes' means nearer to the true ones",
          of(known[20], "LOF", "tail"), of(known[20], "raw", "tail"), margin=0.1, higher_is_better=False, data="ten Gaussians")

# %% [markdown]
# Now digits: a tail of 20 (the largest class over the smallest), the same flips, features from SimCLR. The encoder is
# frozen behind a linear map that begins as the identity and stands for fine-tuning. *Balanced* accuracy is the mean
# of the classes' recalls. Rivals: cross-entropy, GCE, [logit adjustment](long_tail.ipynb), and GCE with the
# adjustment; *naive* Gaussians drawn from the polluted statistics, neither cleaned nor lent; and RCAL less each of
# its parts. RCAL is told the rate of noise, and drops that share of each label.

# %%
# NBVAL_CHECK_OUTPUT
from labcode.imperfect_labels.label_sets import tail_counts

print("training images of each class:", tail_counts(10, 300, 20).tolist())

# %%
long = [N.compare_tail(stage, s) for s in run.seeds]
results["RCAL (long tail)"] = of(long, "balanced", "RCAL")

# %% mystnb={"image": {"alt": "Horizontal bars of balanced accuracy for cross-entropy, GCE, logit adjustment, adjusted GCE, naive Gaussians, RCAL and RCAL without each part."}, "figure": {"caption": "Balanced test accuracy: a tail of 20 and 30 % flips. Dots are seeds.", "name": "fig-rcal-bars"}}
lab.plots.bars(lab.plots.axes(1, 6, 3.4)[1], {name: of(long, "balanced", name) for name in N.RECIPES}, "balanced accuracy")

# %%
run.claim("rcal", "RCAL is better than cross-entropy on the same features, in balanced accuracy",
          of(long, "balanced", "RCAL"), of(long, "balanced", "cross-entropy"), margin=0.02)

# %%
run.claim("rcal", "RCAL is better than logit adjustment on the same features",
          of(long, "balanced", "RCAL"), of(long, "balanced", "logit adjustment"), margin=0.0)

# %%
run.claim("rcal", "RCAL is better than GCE with logit adjustment on the same features",
          of(long, "balanced", "RCAL"), of(long, "balanced", "GCE, adjusted"), margin=0.0)

# %%
run.claim("rcal", "Cleaning and borrowing pay: RCAL is better than Gaussians drawn from the polluted statistics",
          of(long, "balanced", "RCAL"), of(long, "balanced", "naive Gaussians"), margin=0.0)

# %%
run.claim("rcal", "RCAL recognises rare classes better than cross-entropy does, in mean recall",
          of(long, "few", "RCAL"), of(long, "few", "cross-entropy"), margin=0.05)

# %%
run.claim("rcal", "Virtual features are what helps: without them RCAL is less accurate",
          of(long, "balanced", "RCAL"), of(long, "balanced", "no sampling"), margin=0.01)

# %%
run.claim("rcal", "Dropping outliers before the statistics are taken raises balanced accuracy",
          of(long, "balanced", "RCAL"), of(long, "balanced", "no LOF"), margin=0.0)

# %%
run.claim("rcal", "Borrowing from head classes raises the recall of rare classes",
          of(long, "few", "RCAL"), of(long, "few", "no borrowing"), margin=0.02)

# %%
run.claim("rcal", "Staying near the contrastive features raises balanced accuracy",
          of(long, "balanced", "RCAL"), of(long, "balanced", "no penalty"), margin=0.0)

# %%
run.claim("rcal", "What the outlier factor drops is wrong more often than a sample drawn at random is",
          of(long, "precision of LOF"), of(long, "wrong"), margin=0.1)

# %%
GRID = run.pick(quick=(), long=((10, 0.1), (10, 0.5), (50, 0.1), (50, 0.5)), full=((10, 0.1), (50, 0.5)))
if GRID:
    swept = {cell: [N.compare_tail(stage, s, ratio=cell[0], rate=cell[1]) for s in run.seeds] for cell in GRID}
    arms = {name: [of(swept[cell], "balanced", name) for cell in GRID] for name in ("cross-entropy", "GCE, adjusted", "logit adjustment", "no LOF", "RCAL")}
    run.curve("rcal", "balanced accuracy over imbalance and noise", [f"{a}, {b:g}" for a, b in GRID], arms, "imbalance, noise rate", "balanced accuracy")
    run.claim("rcal", "The lead of RCAL over cross-entropy is larger in the hardest corner than in the easiest",
              [a - b for a, b in zip(of(swept[50, 0.5], "balanced", "RCAL"), of(swept[50, 0.5], "balanced", "cross-entropy"))],
              [a - b for a, b in zip(of(swept[10, 0.1], "balanced", "RCAL"), of(swept[10, 0.1], "balanced", "cross-entropy"))], margin=0.0)

# %% [markdown]
# Where the classes *are* normal, cleaning brings the estimates nearer to the truth, and borrowing takes them further
# off, since random Gaussians have nothing to lend each other (*measured*: the curve). On digits cleaning costs
# accuracy, and the naive Gaussians are better than all of RCAL. Two things pull in opposite directions: outliers are
# wrong labels more often than other samples are (*measured*), but with so few samples each that is dropped in vain
# costs; and a frequent mistake is no outlier, it has company (*our guess*). What stays is the ablation of the draws:
# balance in number does the work (*measured*: no sampling), and logit adjustment, which only counts, does it as well
# as far as seeds tell.

# %% [markdown]
# ## Where the chapter ends
# Each method on the noise of its own section; the numbers of two sections are not a comparison.

# %% mystnb={"image": {"alt": "Horizontal bars of test accuracy, one for each method of the chapter on its own section's noise."}, "figure": {"caption": "Test accuracy of each section's method on that section's noise.", "name": "fig-noisy-labels-results"}}
if results:
    lab.plots.bars(lab.plots.axes(1, 6.5, 3)[1], results, "test accuracy, each on its own noise")

# %%
if results:
    run.summarise("test accuracy, each on its own noise", results)

# %% [markdown]
# **To take along.** Look at labels *while* the network trains, not after. Before anything clever, try early stopping
# and a robust loss: nested dropout, PLS-LSA and, as far as seeds tell, bootstrapping do not get past both of them
# here. Who said what is worth more than a vote. Features that never saw a label cannot have memorised one. On a tail,
# count first.

# %% [markdown]
# ````{dropdown} Statements that were added after a first look
# What stands was measured on seeds 5 to 9, in the long run 5 to 7, which took no part in any choice. A first run, on
# seeds 0 to 4, had no rival of three kinds, and these were added: early stopping on the majority of the annotators,
# the training of PLS-LSA without any detection, and, as a statement, Gaussians from polluted statistics under RCAL.
# Added too was the bias of nested dropout. The error of the sine's fits became a median over draws in place of a
# mean, which one draw had ruled; and precision and recall of AUM are no longer drawn where no label is wrong. Nothing
# was dropped or reworded.
# ````

# %% [markdown]
# ## What carries over
# Each statement with its verdict and mean difference at every length that was measured, under what its paper reports. A
# dash means: not measured at that length.

# %%
run.carry_over()

# %% [markdown]
# ## Exercises
# ````{exercise-start} How many labels are wrong?
# :label: ex-noisy-uniform
# ````
# A paper says *80 % symmetric noise* and draws those labels from all ten classes. How many are wrong? At which rate of
# that kind does the relative signal strength reach zero?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-noisy-uniform
# :class: dropdown
# ````
# A tenth of the drawn labels is right by chance: $0.8 \cdot 0.9 = 0.72$. The diagonal stays the largest entry as long
# as the rate is below 1, and the strength is $1 - \text{rate}$.

# %%
# NBVAL_CHECK_OUTPUT
t = transition("uniform", 10, 0.8)
print("wrong:", round(1 - float(t[0, 0]), 3))
for rate in (0.8, 0.95):
    row = transition("uniform", 10, rate)[:1]
    print(f"rate {rate}: strength", round(float(N.relative_signal_strength(torch.eye(10)[:1], row)[0]), 3))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A hundred threshold samples
# :label: ex-noisy-threshold
# ````
# The cut is the 99th percentile of the threshold samples' AUM. What happens to the removed share with the 50th? Try
# it on normal scores: right samples at +2, wrong ones and threshold samples at -1, all with standard deviation 1.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-noisy-threshold
# :class: dropdown
# ````
# Half of the wrong samples survive the median; the 99th percentile lets hardly any through, at the price of right ones.

# %%
# NBVAL_CHECK_OUTPUT
g = torch.Generator().manual_seed(0)
wrong = torch.arange(3000) < 900
mask = torch.zeros(2, 3000, dtype=torch.bool)
mask[0, ::20], mask[1, 1::20] = True, True
score = torch.randn(2, 3000, generator=g) + torch.where(wrong | mask, -1.0, 2.0)
for percentile in (50, 99):
    found = N.flagged(score, mask, percentile)
    print(percentile, "finds", round(float(found[wrong].double().mean()), 1), "of the wrong, removes", round(float(found.double().mean()), 1))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For
# instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} The margin and its area
# :label: ex-aum
# ````
# Write the area under the margin of every sample from the logits of all epochs.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-aum
# :class: dropdown
# ````
# The given class must be out of the maximum; the mean goes over the epochs, of margins and not of logits.

# %% tags=["task:aum"]
import torch


def area_under_margin(logits, labels):
    """Logits (epochs, n, classes) and given labels (n,) to the area under the margin (n,)."""
    ### BEGIN SOLUTION
    place = labels[None, :, None].expand(len(logits), -1, 1)
    given = logits.gather(2, place)[..., 0]
    other = logits.scatter(2, place, -torch.inf).max(2).values
    return (given - other).mean(0)
    ### END SOLUTION


# %% tags=["task-tests:aum:3", "remove-cell"]
z = torch.tensor([[[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]], [[1.0, 4.0, 0.0], [1.0, 2.0, 0.0]]])
assert torch.allclose(area_under_margin(z, torch.tensor([0, 1])), torch.tensor([-0.5, -1.0])), "two epochs by hand"
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(0)
z, y = torch.randn(7, 9, 5, generator=g), torch.randint(5, (9,), generator=g)
for i in range(9):
    want = sum(float(e[i, y[i]]) - max(float(e[i, c]) for c in range(5) if c != y[i]) for e in z) / 7
    assert abs(float(area_under_margin(z, y)[i]) - want) < 1e-5
### END HIDDEN TESTS

# %% tags=["task-tests:aum:2", "remove-cell"]
z = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))
y = torch.tensor([0, 1, 2, 0, 1, 2])
assert torch.allclose(area_under_margin(z + 5, y), area_under_margin(z, y), atol=1e-5), "a constant on all logits changes nothing"
### BEGIN HIDDEN TESTS
assert torch.allclose(area_under_margin(z[:1], y), area_under_margin(z[:1].expand(3, -1, -1), y), atol=1e-6), "one epoch, repeated"
low = torch.full((2, 3, 4), -20.0)
low[:, :, 0] = -10.0
assert torch.allclose(area_under_margin(low, torch.zeros(3, dtype=torch.long)), torch.full((3,), 10.0)), "negative logits"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z, y = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 4
print("as the package has it:", torch.allclose(area_under_margin(z, y), N.margins(z, y.expand(3, 8)).mean(0), atol=1e-5))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A loss that shrugs
# :label: ex-gce
# ````
# Write the generalised cross entropy $(1 - p_{\tilde y}^{\,q}) / q$, mean over a batch, so that it is exact for
# probabilities of $10^{-30}$ too. What is its limit for $q \to 0$?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-gce
# :class: dropdown
# ````
# In the logarithm: $p^q = e^{q \log p}$, and $1 - e^{t}$ is `-expm1(t)`. For $q \to 0$ it is $-\log p$.

# %% tags=["task:gce"]
import torch


def gce(logits, labels, q=0.7):
    """Generalised cross entropy, a scalar, of logits (n, k) and labels (n,)."""
    ### BEGIN SOLUTION
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return (-torch.expm1(q * log_p) / q).mean()
    ### END SOLUTION


# %% tags=["task-tests:gce:3", "remove-cell"]
z = torch.zeros(2, 4)
assert abs(float(gce(z, torch.tensor([0, 3]), 1.0)) - 0.75) < 1e-6, "q = 1 is one less the probability"
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(0)
z, y = torch.randn(9, 5, generator=g), torch.randint(5, (9,), generator=g)
for q in (0.3, 0.7):
    want = ((1 - z.softmax(1)[torch.arange(9), y] ** q) / q).mean()
    assert abs(float(gce(z, y, q) - want)) < 1e-5
### END HIDDEN TESTS

# %% tags=["task-tests:gce:2", "remove-cell"]
z, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])
assert abs(float(gce(z, y, 1e-4) - torch.nn.functional.cross_entropy(z, y))) < 1e-2, "towards q = 0 it is cross-entropy"
### BEGIN HIDDEN TESTS
assert abs(float(gce(torch.tensor([[0.0, 90.0]]), torch.tensor([0]), 0.01)) - (1 - 2.718281828 ** (-0.9)) / 0.01) < 1e-2, "tiny probabilities"
z = z.double().requires_grad_()
gce(z, y).backward()
step = torch.zeros_like(z)
step[2, 1] = 1e-5
slope = float(gce(z.detach() + step, y) - gce(z.detach() - step, y)) / 2e-5
assert abs(float(z.grad[2, 1]) - slope) < 1e-6, "the gradient"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])
print("as the package has it:", torch.allclose(gce(z, y), N.generalised_cross_entropy(z[None], y[None]), atol=1e-6))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [The long tail](long_tail.ipynb) has imbalance without wrong labels. [Contrastive
# learning](../self_supervision/contrastive.ipynb) trains the features of the last three sections.

# %%
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
