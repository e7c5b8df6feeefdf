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
# # Predicting what is missing
#
# [Contrastive learning](contrastive.ipynb) and [redundancy reduction](redundancy.ipynb) compare two views of an image,
# and somebody had to say what a view is. This chapter asks for less: hide a part of what you have, and predict it, the
# next patch, a masked one, all that follow; or let a film say what belongs together. What must a network know for that?
#
# **You will be able to**
# - write a transformer that predicts patches, and show that it never sees what it predicts;
# - say what a mask, an order and a prefix ask of the same network, and let a model go on by itself;
# - build a masked autoencoder whose encoder takes any number of channels;
# - say which baseline a claim such as "the loss tracks accuracy" has to beat;
# - predict features instead of pixels in video, and take a film's own continuity as the label.
#
# **You should know** how attention works, and from [Contrastive learning](contrastive.ipynb) InfoNCE and MoCo. Several
# methods start from the *masked autoencoder*, MAE: its encoder sees a random quarter of an image's patches, and a light
# decoder, thrown away later, paints the rest from blanks, with the squared error of its pixels as the loss.
# **Run time:** one to three minutes on a laptop for the *quick* run, which made this page. A *long* run trains four
# times as long and adds arms. It has three seeds for the minute's five, so that a statement can become open for that
# alone; its verdicts stand in the table at the end. A *full* run, on a GPU, takes CIFAR-10 and larger models. *Longer
# scales* are the last two.

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
from labcode import nets
from labcode.course.stage import Stage
from labcode.self_supervision import predictive as P
from labcode.self_supervision.redundancy import FlatNet, spearman

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map. On the left the masked autoencoder and the next-token prediction of language. Arrows lead from the masked autoencoder to CA-MAE, to self-distilled further pre-training, to TokenUnify and to V-JEPA; from next-token prediction to AIM and from AIM to TokenUnify. In the lower half MoCo and BYOL lead to V-JEPA, to the study of several clips as positives and to label-free tracking; the study leads to scene and motion, and online clustering to clustering along tracks."}, "figure": {"caption": "Who answers whom. An arrow leads to the method that came as an answer.", "name": "fig-predictive-family"}}
PAPERS = {
    "next token": (0, 0, "explained elsewhere"), "MAE": (0, 1.2, "explained elsewhere"),
    "MoCo, BYOL": (0, 2.6, "explained elsewhere"), "online clusters": (0, 3.6, "explained elsewhere"),
    "AIM": (1.3, 0, "images"), "TokenUnify": (2.6, 0, "images"), "CA-MAE": (1.3, 0.9, "images"),
    "self-distilled\nfurther training": (2.6, 1.2, "images"), "V-JEPA": (1.3, 1.9, "video"),
    "several clips": (1.3, 2.8, "video"), "scene and motion": (2.6, 2.3, "video"),
    "tracking": (2.6, 3.1, "video"), "clusters along\ntracks": (1.3, 3.7, "video"),
}
ARROWS = [
    ("next token", "AIM"), ("AIM", "TokenUnify"), ("MAE", "TokenUnify"), ("MAE", "CA-MAE"),
    ("MAE", "self-distilled\nfurther training"), ("MAE", "V-JEPA"), ("MoCo, BYOL", "V-JEPA"),
    ("MoCo, BYOL", "several clips"), ("several clips", "scene and motion"),
    ("MoCo, BYOL", "tracking"),
    ("online clusters", "clusters along\ntracks"),
]
_ = lab.plots.family(PAPERS, ARROWS, height=4.2)

# %%
run = lab.start("self_supervision/predictive")
stage = Stage(run)
run

# %% [markdown]
# One helper trains everything on images: AdamW, a rate that falls as a cosine, gradients clipped at norm 1. An *arm*,
# one way of training among those compared, is trained once a seed. A *probe* is a small model fitted on frozen
# features.


# %%
def learn(name, method, encoder, x, seed, steps, lr=5e-3, batch=32, decay=0.05):
    """``method(encoder)`` trained on float images x."""
    options = dict(images=x, encoder=encoder, steps=steps, batch_size=batch, lr=lr, weight_decay=decay)
    options |= dict(views=lambda x, generator: x, optimizer="adamw", clip=1.0)
    return stage.pretrain(name, method, seed, **options)


gained = {}  # what training gave over the same network untrained, for the end of the chapter
difference = lambda ours, theirs: [a - b for a, b in zip(ours, theirs, strict=True)]
level = lambda values: sum(values) / len(values)  # where a figure draws the untrained network


seeded = lambda seed, make, *given, **options: nets.seeded(seed, make, *given, **options).to(run.device)
vit = lambda seed, width=32, depth=3, size=16, patch=4, channels=1, **options: seeded(
    seed, nets.ViT, (size, size), (patch, patch), channels, width, depth, **options)


# %% [markdown]
# The first pictures are handwritten digits, in grey, moved and turned. At full scale they are those
# of CIFAR-10. They move so that raw pixels are a poor representation and prediction has something to win.

# %%
if run.scale != "full":
    drawn = dict(shift=0.2, rotation=0.3, occupancy=0.8)
    (x, y), (x_test, y_test) = (
        P.grey_digits(n, split, **drawn) for n, split in zip((2000, 1500), run.splits, strict=True)
    )
else:
    both = (stage.train_images, stage.test_images)
    x, x_test = ((images.float() / 255 - 0.47) / 0.25 for images in both)
    y, y_test = stage.train_labels, stage.test_labels

# %%
SHAPE = dict(bias=False) | run.pick(  # of transformers for these images
    quick=dict(depth=2), full=dict(size=32, patch=4, channels=3, depth=8, heads=6)
)
WIDTHS = run.pick(quick=(48,), long=(16, 48), full=(96, 384))
LENGTHS = run.pick(quick=(28, 224), long=(28, 56, 112, 224), full=(2000, 16_000))
RATE = run.pick(quick=(5e-3, 32), full=(1e-3, 256))  # and batch

# %% tags=["hide-input"]
size = lambda net: f"{sum(p.numel() for p in net.parameters()):,} parameters"
side = SHAPE.get("patch", 4)
widths = "; ".join(f"width {width}, {size(vit(0, width, **SHAPE))}" for width in WIDTHS)
pictures = run.pick(quick="handwritten digits, moved and turned", full=stage.source)
stage.facts = lambda: {
    "images": f"{pictures}: {len(x):,} to learn from, {len(x_test):,} new ones, {x.shape[2]}×{x.shape[3]} pixels, "
    f"{x.shape[1]} channels, {len(y.unique())} classes; {side}×{side} pixels a patch",
    "views": "none: what is hidden is drawn anew in every step",
    "encoder": f"`ViT`, {SHAPE['depth']} blocks: {widths}",
    "training": f"AdamW, {' or '.join(map(str, LENGTHS))} steps of {RATE[1]} images, learning rate {RATE[0]:g}, cosine, "
    f"weight decay {learn.__defaults__[2]:g}, gradients clipped",
    "measured": "what a probe reads from frozen tokens of new images, beside the same network untrained",
}
stage

# %% [markdown]
# Later sections draw sections and cells from a microscope, then films; sizes and steps stand in their cells. Every
# claim carries a line that says how it came out:
# [How to read a verdict](../../book/how_to_use.md#how-to-read-a-verdict). Where less is better, as with errors,
# distances and switches, its difference is rival minus ours. *Surely* means that the interval leaves zero out, *by more
# than asked* the margin too. *Measured* without a line: in a figure or a printed row.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two rows of grey images of handwritten digits, small, off centre and turned, on a dark background; in the lower row only the upper part of each is left, the rest is one grey."}, "figure": {"caption": "Images of the first section, and what a prefix shows of them: whoever wants to say what comes below has to know which digit it is.", "name": "fig-predictive-digits"}}
pieces = nets.patchify(x[:8], (side, side)).clone()
pieces[:, 3 * pieces.shape[1] // 8 :] = 0
rows = torch.cat([x[:8], nets.unpatchify(pieces, (side, side), (x.shape[2] // side, x.shape[3] // side))])
_ = lab.plots.images((rows / 4 + 0.2).repeat(1, 4 - len(x[0]), 1, 1)[:, :3], 2, names=("image", "prefix"))

# %%
# NBVAL_CHECK_OUTPUT
print(tuple(x.shape[1:]), "an image,", len(y.unique()), "classes")

# %% [markdown]
# (aim)=
# ## The next patch
# Language models grew by one recipe: predict the next token, make everything larger, and the loss tells how good the model
# will be. Does it work for images? AIM cuts an image into patches $x_1 \dots x_K$ in raster order and predicts
# the pixels of each from those before it,
#
# $$\mathcal L = \frac1{K-S}\sum_{j > S} \bigl\lVert \hat x_j(x_{<j}) - \mathrm{norm}(x_j) \bigr\rVert^2 ,$$
#
# with $x_j$ the pixels of the patch at place $j$ of $K$, $\hat x_j$ what the network says of them from the patches $x_{<j}$
# before it, $S$ the length of a prefix that is no target, and norm, which gives each patch mean 0 and variance 1. This
# is one image's; the code takes the mean over all targets of a batch and all values of a patch, as it does for next-all,
# the Fourier term and V-JEPA below.
#
# Two details make it a representation learner. *A prefix:* the first $S$ patches, $S$ uniform on $1 \dots K-1$, see
# each other in both directions and are no targets; those after it see all of it, what came before them and themselves.
# So the *trunk*, the part that is kept, meets attention that goes everywhere, as in its later use. *A head:* an MLP on
# each token, which is told its place once more, takes the work on pixels, and is thrown away.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Patches go through the trunk, whose attention is steered by a mask of prefix and order, and through the head to the error. The normalised next patch enters the error from below, and no gradient flows to it. The probe reads the trunk."}, "figure": {"caption": "AIM: the head is thrown away, the trunk is kept and read.", "name": "fig-aim-mechanism"}}
parts = {
    "patches": (0, 0), "prefix and\norder": (1, 1), "trunk": (1, 0, "trained"), "head": (2, 0, "trained"),
    "error": (3, 0, "loss"), "next patch,\nnormalised": (3, 1), "probe": (2, 1),
}
arrows = [
    ("patches", "trunk"), ("prefix and\norder", "trunk", "mask"), ("trunk", "head"), ("head", "error"),
    ("next patch,\nnormalised", "error"), ("trunk", "probe", "", "stop"),
]
_ = lab.plots.diagram(parts, arrows)

# %% [markdown]
# Mask, head and loss:

# %%
lab.show(nets.prefix_causal, P.AIM.predict)

# %%
lab.show(P.autoregressive_loss, start="target =")

# %% [markdown]
# Whoever is off by one here trains a copying machine, and the loss looks wonderful. So first: with a short, a middle and
# the longest prefix, change the patches from $j$ on. Predictions of patches up to $j$ must stay the same.

# %%
draw = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))

# %%
model, pictures, leaks = P.AIM(vit(0)).to(run.device), draw.to(run.device), []
with torch.no_grad():
    for prefix in (1, 5, 15):
        lengths = torch.full((4,), prefix, device=run.device)
        before = model.predict(pictures, lengths)
        for j in range(prefix, 16):
            patches = nets.patchify(pictures, (4, 4)).clone()
            patches[:, j:] = 3.0
            changed = nets.unpatchify(patches, (4, 4), (4, 4))
            apart = before - model.predict(changed, lengths)
            leaks += [apart[:, prefix - 1 : j].abs().max().item()]
run.exact("aim", "No prediction changes when its target and everything after it do, for any prefix",
          max(leaks), at_most=1e-4, data="random images")

# %% [markdown]
# Now the length of the training, and at longer scales two widths. Accuracy is read from frozen tokens, the mean of the
# last two blocks, with attention in both directions. Which blocks are read matters: in the paper the best are not the
# last, at any size, with 7 billion parameters 84.0 % against 82.4 %; our guess is that the last turn to pixels. The
# paper's *attentive probe*, a layer of attention that picks from the tokens, is itself trained. Here, where a minute has
# to do, a *ridge regression* of the classes, least squares with a penalty on large weights, sees all tokens side by side.

# %%
aim = lambda seed, width, steps=LENGTHS[-1], **part: learn(
    f"aim {width} {steps} {part}", lambda e: P.AIM(e, **part), vit(seed, width, **SHAPE), x, seed, steps, *RATE)


def probed(tokens, seed):
    """Test accuracy of a probe on all tokens that ``tokens`` makes of images."""
    made = [torch.cat([tokens(part) for part in images.split(1000)]) for images in (x, x_test)]
    if run.scale == "full":
        options = dict(steps=4000, batch_size=512, lr=2e-3, seed=seed)
        return lab.evaluate.attentive_probe(made[0], y, made[1], y_test, **options)
    flat = [z.flatten(1) for z in made]
    return P.ridge_probe(flat[0], y, flat[1], y_test)


read = lambda seed, encoder, last=2: probed(lambda images: P.block_average(encoder, images, last), seed)

# %%
grid = [(width, steps) for width in WIDTHS for steps in LENGTHS]
accuracy = {cell: [read(seed, aim(seed, *cell).encoder) for seed in run.seeds] for cell in grid}
untrained = {width: [read(seed, vit(seed, width, **SHAPE)) for seed in run.seeds] for width in WIDTHS}
short, long = (accuracy[WIDTHS[-1], steps] for steps in (LENGTHS[0], LENGTHS[-1]))
FLOOR = untrained[WIDTHS[-1]]
raw = probed(lambda part: nets.patchify(part, (side, side)), run.seeds[0])
print(f"chance 0.10, raw patches {raw:.2f}, untrained {level(FLOOR):.2f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of probe accuracy over training steps, at longer scales for two widths; a dashed line at the untrained network."}, "figure": {"caption": "What a probe reads after so many steps. The dashed line is the network untrained, at longer scales the wider one.", "name": "fig-aim-steps"}}
steps_taken = [lab.train.allowed(steps) for steps in LENGTHS]
found = run.curve("aim", "probe accuracy against training steps", steps_taken,
                  {f"width {w}": [accuracy[w, n] for n in LENGTHS] for w in WIDTHS},
                  "training steps", "probe accuracy", log=True)
_ = lab.plots.curve(found, floor=level(FLOOR))

# %%
run.claim("aim", "A trained trunk is read better by a probe than an untrained one",
          long, FLOOR, margin=0.02, floor=FLOOR)

# %%
run.claim("aim", "Trained eight times as long, the model is read better",
          long, short, margin=0.01, floor=FLOOR)

# %% [markdown]
# The same with a part taken out: the very last block read alone, and at full scale a network without a prefix.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of probe accuracy for AIM as it is and for its last block alone, at full scale also without a prefix; a dashed line at the untrained network."}, "figure": {"caption": "AIM with parts taken out. The dashed line is the network untrained.", "name": "fig-aim-parts"}}
lacking = {"AIM": long, "last block alone": [read(s, aim(s, WIDTHS[-1]).encoder, last=1) for s in run.seeds]}
if run.scale == "full":
    lacking["no prefix"] = [read(s, aim(s, WIDTHS[-1], causal=True).encoder) for s in run.seeds]
found = run.curve("aim", "probe accuracy of AIM with parts taken out", list(lacking),
                  {f"width {WIDTHS[-1]}": list(lacking.values())}, "what was taken out", "probe accuracy")
_ = lab.plots.curve(found, floor=level(FLOOR))

# %% [markdown]
# Does the loss *tell* the accuracy? A wider transformer may be read better even untrained, which no loss can know. So
# the question is what training *added*, and the rival is size alone: does the loss order the models better than their
# widths do? That takes two widths, and is asked at longer scales; the quick run has no answer. The validation loss
# uses the same prefixes for every model, or losses could not be compared.

# %%
if len(WIDTHS) > 1:
    loss = {cell: [aim(s, *cell).validation_loss(x_test[:1000]) for s in run.seeds] for cell in grid}
    added = {cell: difference(accuracy[cell], untrained[cell[0]]) for cell in grid}
    gains, losses = (list(zip(*of.values(), strict=True)) for of in (added, loss))  # a row a seed
    told = [spearman([-v for v in row], gain) for row, gain in zip(losses, gains, strict=True)]
    by_size = [spearman([width for width, _ in grid], gain) for gain in gains]
    run.claim("aim", "Validation loss orders models of two sizes by what training added "
              "better than their size does", told, by_size, margin=0.0)

# %%
gained["AIM, probe"] = difference(long, FLOOR)

# %% [markdown]
# The mask does what it must, and what is trained is read better than what is not, by more than we had asked for. In a
# minute a few steps bring a good part of the gain on average, and whether eight times as many bring more is open. Four
# times as long they do, by more than asked, and both widths still rise at the end (measured). There the last block
# alone is read worse than the mean of both with each seed, as in the paper; in a minute it is read as well on average
# (measured). An untrained trunk is already ahead of raw patches (measured).
#
# The loss orders the models by what training added better than their size does with each seed of the longer run, but
# three seeds leave it open. That both go together up to 7 billion parameters, as in the paper, a small experiment
# cannot say.

# %% [markdown]
# (tokenunify)=
# ## A hidden patch, the next one, all that follow
# An autoregressive model that goes on by itself sees its own mistakes, and makes new ones from them. TokenUnify, made for
# electron microscopes, mixes three questions on the same network: *random*, what stands at a hidden place? *next*, what
# comes next? and *next-all*, what is everything that follows,
#
# $$\mathcal L_{\text{next-all}} = \sum_i \sum_{j > i} \bigl\lVert \hat x_j(x_{\le i}) - x_j \bigr\rVert^2 ?$$
#
# The last one has to plan, and a network trained on it can answer for all later places at once, so that errors need not
# add up; it is tried both ways, in one answer and fed back. Here $x_j$ is the patch at place $j$, $x_{\le i}$ are the
# patches up to place $i$, and $\hat x_j(x_{\le i})$ is what the network says of the one from the others. One head $f$ serves all
# three questions: $\hat x_j = f(h_i, e_j)$ with $h_i$ the token at place $i$ and $e_j$ the embedding of place $j$.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Patches go through one trunk and one head. Three losses hang on the head: for hidden patches, for the next one, and for all that follow. Places enter the head from below."}, "figure": {"caption": "TokenUnify: one trunk and one head, three questions in turn.", "name": "fig-tokenunify-mechanism"}}
parts = {
    "patches": (0, 1), "trunk": (1, 1, "trained"), "head f": (2, 1, "trained"), "place j": (2, 2),
    "random": (3, 0, "loss"), "next": (3, 1, "loss"), "next-all": (3, 2, "loss"),
}
arrows = [("patches", "trunk"), ("trunk", "head f"), ("place j", "head f")]
arrows += [("head f", question) for question in ("random", "next", "next-all")]
_ = lab.plots.diagram(parts, arrows)

# %% [markdown]
# What follows a place is what counts in the sum, and every token is asked about every place:

# %%
lab.show(P.next_all_loss, P.TokenUnify.answer)

# %%
lab.show(P.TokenUnify.loss)

# %% [markdown]
# Real volumes are large, so we draw sections along a bundle of long cells: dark membranes, greys of their own, much noise.
# What stands in the first rows goes on below, so there is something to plan with. The cell says the sides of a section
# and of a patch in pixels, and how many sections there are without and with labels.

# %% mystnb={"image": {"alt": "Top row: six noisy grey sections through upright long cells, with dark lines between them. Bottom row: the membranes alone as white lines."}, "figure": {"caption": "Sections and their membranes.", "name": "fig-membranes"}}
SIZE, PATCH, SECTIONS, LABELLED = run.pick(quick=(24, 6, 1500, 32), full=(64, 8, 10_000, 32))
counts = (128, 8, 16) if run.dry else (SECTIONS, LABELLED, 200)
sections = {s: [P.membranes(n, 10 * s + i, SIZE).to(run.device) for i, n in enumerate(counts)]
            for s in run.seeds}
shown = sections[run.seeds[0]][2]
pictures = torch.cat([shown.images[:6] / 6 + 0.6, shown.mask[:6, None].float()])
_ = lab.plots.images(pictures.repeat(1, 3, 1, 1), rows=2)

# %%
QUESTIONS = {"next": ("next",), "mixture": ("random", "next", "next-all")}
QUESTIONS |= run.pick(quick={}, long=(alone := {"random": ("random",)}), full=alone)
TOKENS = run.pick(quick=dict(steps=270, lr=1e-2), full=dict(steps=20_000, lr=1e-3))
fresh = lambda seed: vit(seed, *run.pick(quick=(48, 2), full=(256, 6)), SIZE, PATCH)


unified = lambda seed, name: learn(
    f"tokens {name}", lambda e: P.TokenUnify(e, QUESTIONS[name]), fresh(seed),
    sections[seed][0].images, seed, **TOKENS)


# %% [markdown]
# First, let the models go on by themselves, in a *rollout*: a third of a section is shown, the rest is theirs. Fed
# back, a model reads its own patches; in one answer, it says everything from the end of what it was shown. Whoever says
# nothing, a mean grey, has an error of about 1 and is a rival too.

# %%
RUNS = {"next, fed back": ("next", True), "mixture, fed back": ("mixture", True)}
RUNS["mixture, one answer"] = ("mixture", False)
hidden = {s: sections[s][2].images for s in run.seeds}
wrong = {label: [] for label in RUNS}
for label, (name, feed_back) in RUNS.items():
    for s, images in hidden.items():
        model, true = unified(s, name), nets.patchify(images, (PATCH, PATCH))
        error = (P.rollout(model, images, model.tokens // 3, feed_back) - true).square().mean((0, 2))
        wrong[label].append(error[model.tokens // 3 :].tolist())
silence = [nets.patchify(images, (PATCH, PATCH)).square().mean((0, 2)) for images in hidden.values()]
wrong["saying nothing"] = [error[model.tokens // 3 :].tolist() for error in silence]
late = {k: [sum(e[-len(e) // 4 :]) / -(-len(e) // 4) for e in errors] for k, errors in wrong.items()}
rival = [min(pair) for pair in zip(late["next, fed back"], late["saying nothing"])]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Squared error against the number of patches after the shown part; at the first patch the next-token model that is fed back is lowest; in a minute it lies late in the section about where saying nothing does, and there the mixture that is fed back is lower, and its one answer too, except at the last patch. In the longer run next tokens end far above all others."}, "figure": {"caption": "In a minute a model of next tokens that is fed back is late in a section about as far from the truth as saying nothing; the mixture that is fed back is nearer, its one answer on average between. In the longer run next tokens begin ahead and end far behind.", "name": "fig-tokenunify-rollout"}}
later = torch.arange(1, len(wrong["saying nothing"][0]) + 1).tolist()
found = run.curve("tokenunify", "squared error of a rollout against the number of patches", later,
                  {k: list(zip(*errors, strict=True)) for k, errors in wrong.items()},
                  "patches after the shown part", "squared error")
_ = lab.plots.curve(found)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four rows of six sections: the true ones, and three whose upper third is the same and whose rest is painted by next tokens fed back, by the mixture fed back, and by one answer of the mixture; what is painted is nearly grey, with faint blurred stripes that go on downwards."}, "figure": {"caption": "Six sections, and how three models go on from their upper third. Rows: the truth; next tokens fed back; the mixture fed back; one answer of the mixture.", "name": "fig-tokenunify-painted"}}
images, grid = hidden[run.seeds[0]][:6], (SIZE // PATCH, SIZE // PATCH)
rows = [P.rollout(unified(run.seeds[0], name), images, model.tokens // 3, fed) for name, fed in RUNS.values()]
rows = torch.cat([images, *(nets.unpatchify(row, (PATCH, PATCH), grid) for row in rows)])
run.picture("tokenunify", "sections continued", (rows / 6 + 0.6).clamp(0, 1), "sections and how models go on", columns=6)

# %%
run.claim("tokenunify", "In the last quarter of a rollout one answer of the mixture is nearer to "
          "the truth than the better of next tokens fed back and saying nothing",
          late["mixture, one answer"], rival, margin=0.0, higher_is_better=False)

# %%
run.claim("tokenunify", "Fed back, the mixture is nearer to the truth in the last quarter than "
          "the better of a model of next tokens and saying nothing",
          late["mixture, fed back"], rival, margin=0.0, higher_is_better=False)

# %% [markdown]
# The use that the paper has in mind is finding membranes with few labelled sections. A linear map reads each patch from
# its frozen token, in closed form, and as many pixels are called membrane as the labelled sections hold. *Dice* is
# twice the number of pixels that are rightly called so, over the number called so and that of all membrane pixels
# together: 1 is perfect.

# %%
lab.show(P.pixel_scores, P.membrane_dice)

# %%
found = lambda seed, tokens: P.membrane_dice(tokens, *sections[seed][1:], (PATCH, PATCH))
frozen = lambda encoder: lambda images: P.block_average(encoder, images)
dice = {"raw patches": [found(s, lambda x: nets.patchify(x, (PATCH, PATCH))) for s in run.seeds]}
dice["random encoder"] = [found(s, frozen(fresh(s))) for s in run.seeds]
dice |= {name: [found(s, frozen(unified(s, name).encoder)) for s in run.seeds] for name in QUESTIONS}
print("Dice:", ", ".join(f"{name} {level(values):.2f}" for name, values in dice.items()))

# %%
if "random" in QUESTIONS:
    run.claim("tokenunify", "The mixture finds membranes better than masks alone",
              dice["mixture"], dice["random"], margin=0.0, floor=dice["random encoder"])

# %%
run.claim("tokenunify", "The mixture finds membranes better than the untrained network",
          dice["mixture"], dice["random encoder"], margin=0.0, floor=dice["random encoder"])

# %%
run.claim("tokenunify", "The mixture finds membranes better than next-token prediction alone",
          dice["mixture"], dice["next"], margin=0.0, floor=dice["random encoder"])

# %%
gained["TokenUnify, Dice"] = difference(dice["mixture"], dice["random encoder"])

# %% [markdown]
# Four times as long the paper's reason shows. A model of next tokens that eats its own patches is well ahead at the
# first of them, and then its errors pile up until it is much farther from the truth than a mean grey (measured); in a
# minute it ends about level with the grey. One answer of the mixture escapes: in the last quarter it is surely nearer
# than the better of both, if not by much, at both lengths. Fed back, the mixture is nearer still in a minute, on
# average; in the longer run it is far nearer than next tokens, but no nearer than the grey on average, and the verdict
# is open (measured). It is cautious, too: it paints nearly grey. Our guess is that so noisy a section can hardly be
# foretold. Which of its other questions helps it, no arm tells.
#
# The membranes tell less. The mixture finds them surely better than the untrained network and, in the longer run, than
# masks alone, a weak rival that ends below the untrained network (measured). Next tokens alone are surely ahead of it
# in a minute. Four times as long that is open: they have lost some of it with each seed, the mixture has not
# (measured). A linear map of the raw patch does about as well as any network of a minute (measured). Our guess: a
# membrane is a local thing, so that pre-training can only lose less of the patch than random weights do.

# %% [markdown]
# (ca-mae)=
# ## Any number of channels
# A microscope shows a cell in as many pictures as there are stains, and every laboratory stains differently. Kraus et al.
# train masked autoencoders on such images, and a variant, *channel-agnostic*, CA-MAE, which cuts *every channel* into
# tokens of its own. One projection embeds them all, and the encoder is told their places, not their channels, so it takes
# any number of these. One small decoder per channel, thrown away later, paints what was hidden; its blanks alone say
# which stain they stand for. A quarter of all tokens is seen; what is hidden in one stain may be visible in another. The
# loss adds a term on the moduli of the Fourier transform, since squared error alone is content with a blur,
#
# $$\mathcal L = \mathrm{MSE}_{\text{hidden}}(\hat x, x) + 0.01\,\bigl\lVert\, |\mathcal F \hat x| - |\mathcal F x| \,\bigr\rVert_1 ,$$
#
# with $x$ the image, $\hat x$ the painted one, $\mathcal F$ the Fourier transform of each channel, and the squared error taken over
# hidden tokens alone.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Stains are cut into tokens, each stain into its own; a quarter of all tokens goes through one shared encoder. Cross-attention from blanks to what was seen, then one decoder for each stain paints it."}, "figure": {"caption": "CA-MAE: one encoder for all stains, one small decoder for each.", "name": "fig-ca-mae-mechanism"}}
parts = {
    "stain 1": (0, 0), "stain 2": (0, 1), "stain …": (0, 2), "a quarter\nof tokens": (1, 1),
    "shared\nencoder": (2, 1, "trained"), "cross-\nattention": (3, 1, "trained"),
    "decoder 1": (4, 0, "trained"), "decoder 2": (4, 1, "trained"), "decoder …": (4, 2, "trained"),
}
arrows = [(stain, "a quarter\nof tokens") for stain in ("stain 1", "stain 2", "stain …")]
arrows += [("a quarter\nof tokens", "shared\nencoder"), ("shared\nencoder", "cross-\nattention")]
arrows += [("cross-\nattention", decoder) for decoder in ("decoder 1", "decoder 2", "decoder …")]
_ = lab.plots.diagram(parts, arrows, width=6.4)

# %% [markdown]
# What is seen is drawn over the tokens of all stains at once:

# %%
lab.show(P.ChannelMAE.forward, P.fourier_loss)

# %%
lab.show(P.ChannelMAE.decode)

# %% [markdown]
# Our cells have seven factors of shape. A *pathway* is a direction in the space of these factors, and every gene of a pathway,
# when knocked out, moves its cells along it, forwards or backwards. Plates differ in lamp and gain. The question of the paper: do
# the embeddings know which genes belong together?

# %% mystnb={"image": {"alt": "Four rows, nucleus, cytoplasm, granules and membrane, of six cells each in grey: a blob, a wider blob with a darker centre, a few bright dots, and a ring."}, "figure": {"caption": "Six cells in four stains: nucleus, cytoplasm, granules, membrane.", "name": "fig-cells"}}
CELL = run.pick(quick=12, full=32)
SCREENS = run.pick(quick=((4, 320), (8, 240)), full=((16, 2000), (50, 400)))  # images a gene, genes
SCREENS = ((4, 40), (8, 40)) if run.dry else SCREENS
look = dict(size=CELL, effect=4.0, noise=0.15)
drawn = lambda seed, per, genes: P.cells(per, genes, genes // 5, seed=seed, **look)
screen = {s: (drawn(1000 + s, *SCREENS[0]), drawn(s, *SCREENS[1])) for s in run.seeds}
seen = {s: [P.self_standardise(c.images).to(run.device) for c in pair] for s, pair in screen.items()}
six = seen[run.seeds[0]][0][:6].transpose(0, 1).reshape(24, 1, CELL, CELL)
_ = lab.plots.images(six.repeat(1, 3, 1, 1) / 5 + 0.4, rows=4)

# %% [markdown]
# The baseline is what the field used: a classifier of perturbations, trained with the labels that a screen gives for
# free, from which the last layer is taken off. It has the same transformer as the MAE, and in a minute some more steps.
# All are trained on a screen of *other* genes, many of them with few images each, as screens are. A patch of one stain
# is larger than one of all four, or CA-MAE would have four times the tokens.
#
# For every network: average the tokens, for CA-MAE those of each stain by themselves, side by side; correct for the
# plate; average the images of a gene, in units of how much images of one gene differ anyway; and count which share of
# the related pairs, the *recall*, lies in the two tails of all cosines. The tails hold a tenth of all pairs, so chance
# is a tenth.

# %%
lab.show(P.relation_recall)

# %%
PIECE, SINGLE = run.pick(quick=(4, 6), full=(4, 8))  # sides of a patch: all stains, a single one
CELLS = run.pick(quick=dict(width=24, depth=2), full=dict(width=256, depth=8))
DECODER = run.pick(quick=dict(width=24, depth=1), full=dict(width=128, depth=2))
STEPS = run.pick(quick={"MAE": 350, "CA-MAE": 280, "classifier": 400},
                 full={"MAE": 20_000, "CA-MAE": 20_000, "classifier": 20_000})
all_stains = lambda seed: vit(seed, size=CELL, patch=PIECE, channels=4, **CELLS)


one_stain = lambda seed: seeded(seed, P.ChannelViT, (CELL, CELL), (SINGLE, SINGLE), **CELLS)


# %%
def screened(seed, name):
    """The encoder of an arm, trained on a screen of other genes."""
    labels = screen[seed][0].perturbation.to(run.device)
    make = {"MAE": lambda e: P.MAE(e, normalise=False, fourier=0.01, **DECODER),
            "CA-MAE": lambda e: P.ChannelMAE(e, 4, **DECODER),
            "classifier": lambda e: P.PerturbationClassifier(e, labels)}[name]
    encoder = one_stain(seed) if name == "CA-MAE" else all_stains(seed)
    lr, batch = run.pick(quick=(5e-3, 32), full=(3e-4, 64))
    return learn(name, make, encoder, seen[seed][0], seed, STEPS[name], lr, batch).encoder


# %%
def recall(embed, seed, gone=0):
    """Recall of related pairs of genes that no network met; the last ``gone`` stains are missing."""
    made = screen[seed][1]
    with torch.no_grad():
        z = torch.cat([embed(part, gone) for part in seen[seed][1].split(400)]).cpu()
    return P.relation_recall(P.typical_variation(z, made.perturbation, made.batch), made.pathway)


filled = lambda x, gone: torch.cat([x[:, : 4 - gone], torch.zeros_like(x[:, :gone])], 1)
padded = lambda encoder: lambda x, gone: encoder(filled(x, gone)).mean(1)
by_stain = lambda encoder: (
    lambda x, gone: encoder(x[:, : 4 - gone]).unflatten(1, (4 - gone, -1)).mean(2).flatten(1)
)

# %%
EMBED = {"random ViT": lambda s: padded(all_stains(s))}
EMBED["random, by stain"] = lambda s: by_stain(one_stain(s))
EMBED |= {name: lambda s, name=name: padded(screened(s, name)) for name in ("classifier", "MAE")}
EMBED["CA-MAE"] = lambda s: by_stain(screened(s, "CA-MAE"))
GONE, pairs = run.pick(quick=(0, 2), long=(0, 1, 2, 3), full=(0, 1, 2, 3)), {}
for name, embed in EMBED.items():
    nets_of = [embed(s) for s in run.seeds]
    pairs[name] = [[recall(net, s, gone) for net, s in zip(nets_of, run.seeds)] for gone in GONE]
whole, two = ({name: points[GONE.index(gone)] for name, points in pairs.items()} for gone in (0, 2))
pixels = [recall(lambda x, gone: x.flatten(1), s) for s in run.seeds]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Bars of the recall of related gene pairs with all four stains: chance, pixels, a random transformer, one read by stain, the classifier, MAE and CA-MAE; a dashed line at the random transformer."}, "figure": {"caption": "The autoencoders find more pairs than their untrained encoders; raw pixels find about as many as the best of a minute. The dashed line is the untrained transformer.", "name": "fig-ca-mae"}}
bars = {"chance": [0.1] * len(run.seeds), "pixels": pixels} | whole
axis = lab.plots.axes(1, 6.5, 2.6)[1]
lab.plots.bars(axis, bars, "recall of related pairs, four stains", chance=level(whole["random ViT"]))

# %%
run.claim("ca-mae", "Embeddings of the masked autoencoder recall more related pairs "
          "than the classifier's", whole["MAE"], whole["classifier"], margin=0.02, floor=whole["random ViT"])

# %%
run.claim("ca-mae", "Embeddings of the masked autoencoder recall more related pairs "
          "than those of its untrained encoder", whole["MAE"], whole["random ViT"], margin=0.05,
          floor=whole["random ViT"])

# %%
run.claim("ca-mae", "Embeddings of CA-MAE recall more related pairs "
          "than those of its untrained encoder, read alike",
          whole["CA-MAE"], whole["random, by stain"], margin=0.02, floor=whole["random, by stain"])

# %% [markdown]
# What if stains are missing? CA-MAE is given those that are there; the others cannot do without, and see the mean in their place.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of the recall of related pairs with none and two of four stains missing, at longer scales none to three, for MAE, CA-MAE, the classifier and the two untrained encoders; all fall; in a minute MAE is highest with none missing, CA-MAE with two, in the longer run CA-MAE throughout."}, "figure": {"caption": "Recall of related pairs as stains go missing, from the last one on: CA-MAE is given those that are there, the others the mean in place of the missing.", "name": "fig-ca-mae-missing"}}
found = run.curve("ca-mae", "recall of related pairs as stains go missing", list(GONE), pairs, "stains missing",
                  "recall of related pairs")
_ = lab.plots.curve(found)

# %%
run.claim("ca-mae", "With two stains missing CA-MAE recalls more related pairs "
          "than its untrained encoder",
          two["CA-MAE"], two["random, by stain"], margin=0.02, floor=two["random, by stain"])

# %%
gained["MAE, recall"] = difference(whole["MAE"], whole["random ViT"])
gained["CA-MAE, recall"] = difference(whole["CA-MAE"], whole["random, by stain"])

# %%
# NBVAL_CHECK_OUTPUT
net, cell = one_stain(0).cpu(), seen[run.seeds[0]][1][:5].cpu()
with torch.no_grad():
    same = torch.allclose(net(cell).mean(1), net(cell.flip(1)).mean(1), atol=1e-5)
print("the order of channels does not matter:", same)

# %% [markdown]
# Both autoencoders find more than their untrained encoders, by more than asked. The classifier has labels, and is
# behind the plain autoencoder all the same, by more than asked as well. Our guess: with a handful of images a gene,
# and genes that look alike because they act alike, it is punished for the very likeness that is asked of it later. One
# bar keeps a minute's networks modest: raw pixels, corrected for the plate as well, find about as many pairs as the
# best of them. Four times as long CA-MAE is ahead of pixels (both measured).
#
# That the order of stains does not matter to the mean of all tokens is built in; dropping stains is the test. With two
# missing CA-MAE still finds more than its untrained self, by more than asked: so much training gives. What channels of
# their own give, only the plain autoencoder can say, which sees a mean in place of the missing. In a minute MAE is on
# average ahead with all stains and behind without two; four times as long CA-MAE is on average ahead with all of them
# and with any number missing (measured, without a claim). Our guess is that tokens of a single stain say little each
# and need the longer training.

# %% [markdown]
# (self-distill-further-pretrain)=
# ## Going on without forgetting
# A pre-trained network meets a small set of unlabelled target images. Going on with the same objective on them seems
# obvious. By the authors' account it can do harm on vision transformers, as few images are soon learnt by heart. Lee et
# al. go on once, to get a *teacher*. Then they start again from the first weights and train a student with the same
# objective and the teacher's hidden representation as a target,
#
# $$\mathcal L = \mathcal L_{\mathrm{MAE}}(x) + \frac1B \sum_i \bigl\lVert h_{\text{student}}(x_i) - \mathrm{sg}\, h_{\text{teacher}}(x_i) \bigr\rVert^2 ,$$
#
# where $x_i$ are the $B$ images of a batch, $h$ is the *class token* of a whole image, an extra token that speaks for
# all of it, sg stops the gradient, and $\mathcal L_{\mathrm{MAE}}$ is the masked autoencoder's own loss, the squared
# error of hidden patches, each brought to mean 0 and variance 1. The student
# takes on what the teacher learnt, but not all the way it went.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. From the first weights two arrows lead to a teacher, which goes on with the masked loss, and to a student, which starts again. The student has the masked loss and the distance of its class token to the teacher's, through which no gradient flows back."}, "figure": {"caption": "Self-distilled further training: the teacher went on from the first weights, the student starts from them again.", "name": "fig-further-mechanism"}}
parts = {
    "first\nweights": (0, 1), "teacher": (1.2, 0, "copy"), "student": (1.2, 2, "trained"),
    "distance\nof h": (2.6, 1, "loss"), "masked\nloss": (2.6, 2, "loss"),
}
arrows = [
    ("first\nweights", "teacher", "goes on"), ("first\nweights", "student", "again"), ("student", "masked\nloss"),
    ("teacher", "distance\nof h", "", "stop"), ("student", "distance\nof h"),
]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(P.self_distillation_loss, P.Further.forward)

# %% [markdown]
# In a linear model this can be solved. If a round follows the gradient flow towards the teacher's outputs for a time $T$, the
# student's distance from the start shrinks in every direction by its own factor:
# $w_r - w_{\mathrm{init}} = (I - e^{-T\Sigma})\,(w_{r-1} - w_{\mathrm{init}})$, with $w_{\mathrm{init}}$ the weights from before
# any going on, where each round starts again, $w_0$ those of the first teacher, $w_r$ those of the student of round $r$,
# $I$ the identity and $\Sigma = X^\top X/n$ for the $n$ inputs in the rows of $X$, which is not centred: second moments, not
# a covariance. Directions that the data hardly show shrink most. Is that what gradient descent does?

# %%
made = (torch.Generator().manual_seed(i) for i in range(2))
inputs, away = (torch.randn(*shape, dtype=torch.float64, generator=g)
                for shape, g in zip(((40, 60), (60,)), made, strict=True))

# %%
rounds, teacher, gap = P.distillation_rounds(inputs, away, time=2.0, rounds=4), away.clone(), []
for r in range(1, 4):
    student = torch.zeros_like(away)
    for _ in range(4000):
        student -= 2.0 / 4000 * inputs.T @ (inputs @ (student - teacher)) / len(inputs)
    teacher = student
    gap.append(((student - rounds[r]).norm() / rounds[r].norm()).item())
run.exact("self-distill-further-pretrain",
          "In a linear model three rounds of descent end where the closed form says",
          max(gap), at_most=0.01, data="random inputs")

# %%
# NBVAL_CHECK_OUTPUT
far = rounds.norm(dim=1)
print("each round ends nearer to the start:", bool((far[1:] < far[:-1]).all()))

# %% [markdown]
# Nearer is not better by itself. Let the first teacher fit noisy labels without an error, which the wide model can. The
# truth, too, lies away from the start, so a student that comes back all the way has lost it. The test error is that of
# new inputs, without the noise of their labels.

# %%
ROUNDS, noise_kept = range(7), []
for seed in run.seeds:
    g = torch.Generator().manual_seed(7000 + seed)
    rows, truth, labels_noise = (torch.randn(*shape, dtype=torch.float64, generator=g) for shape in ((40, 60), (60,), (40,)))
    teacher_away = torch.linalg.pinv(rows) @ (rows @ truth / 60**0.5 + 0.5 * labels_noise)
    path = P.distillation_rounds(rows, teacher_away, time=2.0, rounds=len(ROUNDS))
    noise_kept.append((path - truth / 60**0.5).square().sum(1).tolist())
by_round = [list(values) for values in zip(*noise_kept)]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of the test error of a linear model over rounds of self-distillation, from the noisy teacher at zero rounds on."}, "figure": {"caption": "What rounds of distillation do to a teacher that has learnt its noise, in a linear model; at zero rounds stands the teacher.", "name": "fig-further-rounds"}}
_ = lab.plots.curve(run.curve(
    "self-distill-further-pretrain", "test error over rounds of distillation in a linear model", list(ROUNDS),
    {"noisy teacher": by_round}, "rounds", "test error", data="random inputs"))

# %%
run.claim("self-distill-further-pretrain", "In a linear model with a noisy teacher a round of distillation lowers the test error",
          by_round[1], by_round[0], margin=0.05, higher_is_better=False, data="random inputs")

# %% [markdown]
# The start: an MAE on cells of many genes, from one microscope. The target: cells from a noisier one, of eight genes
# whose effects are to be told apart. Every arm goes on from the same weights with the same few of them, and is then
# fine-tuned from the class token, twice, with other batches. Fine-tuning gets more cells than further training had, all
# of them labelled, to measure the weights and not the luck of a few labels. The teacher is plain further training with
# as many steps as the student; but behind the student stand the teacher's too, so the line on accuracy is not at equal
# compute; longer scales give plain training the steps of both. How badly a network paints new cells is measured with
# the same masks for all; as patches are normalised, painting nothing has an error of about 1. The cell says the steps
# of the start and of going on, and the cells to fine-tune and to go on with.

# %%
START, ON, LABELS, TARGETS = run.pick(quick=(400, 300, 200, 32), full=(20_000, 5000, 2000, 500))
SCOPE, KNOCKED = run.pick(quick=12, full=32), 8
many, PLENTY = run.pick(quick=(8, 240), full=(20, 1000)), run.pick(quick=125, full=500)
if run.dry:
    LABELS, many, PLENTY = 64, (4, 40), 16
clean = lambda made: P.self_standardise(made.images).to(run.device)
source = {s: clean(P.cells(*many, many[1] // 5, size=SCOPE, effect=4.0, noise=0.15, seed=1000 + s))
          for s in run.seeds}


# %%
def noisy(seed, draw, per):
    """Standardised cells of the second microscope and the gene that each lacks; draws differ in plates."""
    made = P.cells(per, KNOCKED, KNOCKED, size=SCOPE, effect=8.0, noise=0.25, seed=seed, draw=draw)
    order = torch.randperm(len(made.images), generator=torch.Generator().manual_seed(seed))
    return clean(made)[order], made.perturbation[order].to(run.device)


new = {s: noisy(s, 0, -(-max(LABELS, TARGETS) // KNOCKED)) for s in run.seeds}
held = {s: noisy(s, 1, PLENTY) for s in run.seeds}

# %%
SMALL = run.pick(quick=dict(width=32, depth=2), full=dict(width=128, depth=6))
blank = lambda seed: vit(seed, size=SCOPE, patch=4, channels=4, cls=True, **SMALL)
first = lambda e: P.MAE(e, width=24)
FIRST = dict(steps=START, lr=run.pick(quick=5e-3, full=1e-3))
started = lambda seed: learn("first mae", first, blank(seed), source[seed], seed, **FIRST)


def further(seed, steps=ON, teacher=None, pull=0.0, masked=True, kind=""):
    """The autoencoder after going on with the target images, from the first weights."""
    mae, name = copy.deepcopy(started(seed)), f"on {steps} {teacher is not None} {pull}{kind}"
    going, lr = (lambda e: P.Further(mae, teacher, pull, masked)), run.pick(quick=5e-3, full=5e-4)
    return learn(name, going, mae.encoder, new[seed][0][:TARGETS], seed, steps, lr, 32, 0.01)


# %%
TUNE = run.pick(quick=dict(steps=40, lr=3e-3), full=dict(steps=2000, lr=5e-4))


def labelled(seed, encoder, labels=LABELS):
    """Test accuracy after fine-tuning from the class token, mean of two."""
    few, (x_new, y_new) = [part[:labels] for part in new[seed]], held[seed]
    readers = [P.fine_tune(encoder, *few, KNOCKED, batch_size=50, seed=i, **TUNE) for i in range(2)]
    with torch.no_grad():
        return sum((r(x_new).argmax(1) == y_new).float().mean().item() for r in readers) / len(readers)


# %%
GOING = run.pick(quick=(ON,), long=(ON // 4, ON // 2, ON, 2 * ON), full=(ON, 2 * ON))
way = lambda steps: f"further, {lab.train.allowed(steps)} steps"  # as many as were made
went = {way(steps): lambda s, n=steps: further(s, n) for steps in GOING}
went["self-distilled"] = lambda s: further(s, teacher=further(s).encoder)
if run.scale != "quick":
    went["pulled to the start"] = lambda s: further(s, pull=0.01)
    went["distillation alone"] = lambda s: further(s, teacher=further(s).encoder, masked=False, kind=" alone")
    went["second round"] = lambda s: further(s, teacher=went["self-distilled"](s).encoder, kind=" second")
made = {name: [go(s) for s in run.seeds] for name, go in went.items()}
TEACHER, TWICE = way(ON), way(2 * ON)

# %%
encoders = {"from scratch": [blank(s) for s in run.seeds]}
encoders["no further training"] = [started(s).encoder for s in run.seeds]
encoders |= {name: [m.encoder for m in models] for name, models in made.items()}
tuned = {name: [labelled(s, e) for s, e in zip(run.seeds, es)] for name, es in encoders.items()}
painted = {name: [P.masked_error(m.mae, held[s][0]) for s, m in zip(run.seeds, ms)] for name, ms in made.items()}
print("fine-tuned:", ", ".join(f"{name} {level(values):.2f}" for name, values in tuned.items()))

# %%
KEY, student = "self-distill-further-pretrain", tuned["self-distilled"]
run.claim(KEY, "Plain further training on so few cells is worse than none",
          tuned[TEACHER], tuned["no further training"], margin=0.01, higher_is_better=False)

# %%
run.claim(KEY, "A self-distilled student is fine-tuned to a higher accuracy than its teacher",
          student, tuned[TEACHER], margin=0.01, floor=tuned["from scratch"])

# %% [markdown]
# How well is the network fine-tuned after so many steps of plain going on? A minute sees the two ends, longer runs what
# lies between.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of fine-tuned test accuracy over the steps of plain further training, falling, in the longer run most at first; a dashed line at the self-distilled student."}, "figure": {"caption": "Plain further training on so few cells loses accuracy on average, how much is open. The dashed line is the self-distilled student, which started again, with as many steps as its teacher had.", "name": "fig-further-steps"}}
going = {0: "no further training"} | {steps: way(steps) for steps in GOING}
run.curve(KEY, "fine-tuned accuracy by the way of going on", list(tuned), {"fine-tuned": list(tuned.values())},
          "way of going on", "test accuracy")
found = run.curve(KEY, "fine-tuned accuracy against steps of further training",
                  [lab.train.allowed(n) if n else 0 for n in going],
                  {"plain": [tuned[name] for name in going.values()]}, "steps of further training",
                  "test accuracy, fine-tuned")
_ = lab.plots.curve(found, floor=level(student))

# %%
run.claim(KEY, "On new cells the student's masked loss is lower than its teacher's",
          painted["self-distilled"], painted[TEACHER], margin=0.02, higher_is_better=False)

# %%
known = {name: [P.masked_error(m.mae, new[s][0][:TARGETS]) for s, m in zip(run.seeds, made[name])] for name in painted}
between = {name: difference(painted[name], known[name]) for name in painted}
run.claim(KEY, "The student's masked loss grows less from the target cells to new ones than its teacher's",
          between["self-distilled"], between[TEACHER], margin=0.03, higher_is_better=False)

# %%
run.claim(KEY, "A self-distilled student is fine-tuned to a higher accuracy than a network that did not go on",
          student, tuned["no further training"], margin=0.0, floor=tuned["from scratch"])

# %%
start = {seed: [p.detach() for p in started(seed).encoder.parameters()] for seed in run.seeds}
moved = {name: [P.moved(m.encoder, start[s]).item() ** 0.5 for s, m in zip(run.seeds, made[name])]
         for name in ("self-distilled", TEACHER)}
run.claim(KEY, "The student ends nearer to the first weights than its teacher",
          moved["self-distilled"], moved[TEACHER], margin=0.2, higher_is_better=False)

# %% [markdown]
# What does a step cost? A masked pass sees a share of the tokens; the student runs a second time, whole, and so does
# its teacher. In the longer run the student has rivals: plain training with the steps of both, a pull to the first
# weights, and its own parts: distillation alone, and a second round, whose teacher is the student.

# %%
cells = new[run.seeds[0]][0][:TARGETS]
both = {"plain": made[TEACHER][0], "student": P.Further(made[TEACHER][0].mae, made[TEACHER][0].encoder)}
price = {name: P.encoder_tokens(m, cells) for name, m in both.items()}
whole_pass = len(cells) * (1 + len(blank(0).position))
run.exact(KEY, "A student's step costs two whole passes more than a plain one: its own and its teacher's (tokens apart)",
          abs(price["student"] - price["plain"] - 2 * whole_pass), at_most=0)
run.curve(KEY, "tokens through encoders in a step", list(price),
          {"a step": [[v] * len(run.seeds) for v in price.values()]}, "method", "tokens")

# %%
if run.scale != "quick":
    run.claim(KEY, "A self-distilled student is fine-tuned to a higher accuracy than plain training with the steps of both",
              student, tuned[TWICE], margin=0.0, floor=tuned["from scratch"])
    run.claim(KEY, "A self-distilled student is fine-tuned to a higher accuracy than a pull to the first weights",
              student, tuned["pulled to the start"], margin=0.0, floor=tuned["from scratch"])
    run.claim(KEY, "Masked loss and distillation are fine-tuned to a higher accuracy than distillation alone",
              student, tuned["distillation alone"], margin=0.0, floor=tuned["from scratch"])

# %%
if run.scale != "quick":
    FEWER = (LABELS // 4, LABELS // 2, LABELS)
    read_by = {name: [[labelled(s, e, n) for s, e in zip(run.seeds, encoders[name])] for n in FEWER]
               for name in ("no further training", TEACHER, "self-distilled")}
    run.curve(KEY, "fine-tuned accuracy against labels", FEWER, read_by, "labelled cells", "test accuracy")
    run.curve(KEY, "distance to the first weights over rounds", (0, 1, 2), {"students": [
        [P.moved(m.encoder, start[s]).item() ** 0.5 for s, m in zip(run.seeds, made[name])]
        for name in (TEACHER, "self-distilled", "second round")]}, "rounds of distillation", "distance of the weights")

# %%
gained["self-distilled, accuracy"] = difference(student, tuned["from scratch"])

# %% [markdown]
# Going on plainly with so few cells does harm, in a minute surely, though not surely as much as we had asked for. Four
# times as long it does so with each seed, most of it in the first quarter of the steps (measured), but three seeds
# leave it open. The student, with the same cells and the teacher's steps behind it, ends nearer to the first weights
# than its teacher and paints new cells better, both by more than asked at both lengths. In a minute it is also
# fine-tuned to a higher accuracy, by more than asked; the longer run, with three seeds, leaves that open.
#
# Not going on at all would have lost nothing here. In a minute it leaves on average about the student's accuracy, and
# neither student nor teacher paints new cells much better than nothing would; in the longer run it is surely ahead of
# the student, whose line is reversed, and both paint worse than nothing (measured). The statement that asks the student to beat it, as the
# paper has it, was added later, after these arms had been seen; on other seeds it lay near zero. Our guess is that so
# few cells have little to add.
#
# The closed form says that each round comes nearer to the start. With a noisy teacher the curve shows what that is worth
# (measured): a first round takes noise away; where the error rises again after it, later rounds take truth away as well.
# So the best number of rounds is not the largest. The price of the student is its own whole pass and its teacher's, more
# tokens than the masked pass, which sees a quarter of an image. Plain training with the steps of both, a pull to the
# first weights, distillation alone and a second round are arms of the longer runs; their verdicts stand at the end. On
# other seeds, from which margins were set, the student was ahead of the longer plain training, and behind the pull and
# behind distillation alone; on these the pull is surely ahead, and the other two are open (measured). Our guess is that
# all that holds the weights near the start helps here.

# %% [markdown]
# ## From pictures to films
# A film hides its own answers: what the next moment shows, how another moment of it looks, where an object went. The
# films of this half are made of photo textures and handwritten digits, and everything is known: class and place, direction
# and speed, who hides whom. They stay small: four frames cost what four images do. An object that leaves on the right
# comes back on the left or turns round, so that no single frame gives its direction away. Where a direction is asked
# for, there are four, and chance is a quarter.

# %%
fit_split, test_split = run.splits
sizes = (100, 50) if run.dry else run.pick(quick=(2000, 1000), full=(20_000, 5000))
FILMS = "videos"
pan = run.pick(quick=dict(size=12, frames=4), full=dict(size=32, frames=8, photo=512))
lit = dict(drift=0.25, texture=0.0) | run.pick(
    quick=dict(size=8, frames=16),
    full=dict(size=24, extent=14.0, frames=32, classes=tuple(range(10))))
crowd = dict(size=32, frames=8, objects=4, walls="bounce", bar=7, spin=0.15, drift=0.05,
             classes=tuple(range(10)))

# %% mystnb={"image": {"alt": "Three rows of eight frames. In the first a camera moves over a grainy grey ground of bricks, grass or gravel. In the second a digit moves over a plain ground while all colours change. In the third four digits cross each other and vanish behind an upright bar."}, "figure": {"caption": "Three kinds of films: a camera that pans over a ground; a digit under changing light; objects that hide each other.", "name": "fig-predictive-films"}}
eight = [lab.data.Motion(**(kind | dict(frames=8))) for kind in (lit, crowd)]
shown = [P.panned_textures(1, 4, fit_split, **(pan | dict(frames=8)))]
shown += [lab.data.moving_scenes(1, 4, fit_split, motion) for motion in eight]
shown = [F.interpolate(v.frames[0].expand(-1, 3, -1, -1).float(), 32) for v in shown]
_ = lab.plots.images(torch.cat(shown).byte(), rows=3)

# %% [markdown]
# Where a clip needs one vector, a small 3-D convolutional net makes it. Augmented views are quiet: a small shift, a
# little noise, and the colours as they are. kNN and IDF1, a score of tracking, are explained where they are used.


# %%
clip_net = lambda seed: seeded(seed, P.ClipNet, *run.pick(quick=(24, 128), full=(96, 512)))


QUIET = lambda x, generator: P.recoloured(x, generator, turn=False)


# %% tags=["hide-input"]
kinds = [f"{name}, {kind['frames']} frames of {kind['size']}×{kind['size']} pixels"
         for name, kind in {"pans over textures": pan, "digits in changing light": lit, "crowds": crowd}.items()]
stage.facts = lambda: {
    "films": "; ".join(kinds) + f"; {sizes[0]:,} pans to learn from, {sizes[1]:,} new ones",
    "views": "quiet, `P.recoloured(turn=False)`, or none where a part is hidden",
    "encoder": f"`ClipNet`, {size(clip_net(0))}, where a clip needs one vector; else each section says",
    "training": "AdamW with a cosine; steps and batch stand in each section's cells",
    "measured": "probes and kNN on new films, IDF1 for tracks; beside the same network untrained",
}
stage


# %% [markdown]
# (v-jepa)=
# ## Features of what is hidden
# A masked autoencoder must paint every leaf of a tree. Most of that, so the argument, is noise to any later use. V-JEPA
# predicts not the pixels of what is hidden but their *features*, as a second encoder sees them that follows the first
# one slowly:
#
# $$\mathcal L = \frac1{|M|} \sum_{j \in M} \bigl\lVert P\bigl(E(x_{M^c})\bigr)_j - \mathrm{sg}\,\mathrm{LN}\bigl(\bar E(x)_j\bigr) \bigr\rVert_1 ,
# \qquad \bar\theta \leftarrow m\,\bar\theta + (1-m)\,\theta .$$
#
# Here $x$ is the clip, $M$ the hidden places and $M^c$ the visible ones. The encoder $E$ with weights $\theta$ sees the
# visible tokens only; its slow copy $\bar E$ with weights $\bar\theta$ and momentum $m$ sees the whole clip; the
# predictor $P$ is narrow and is asked by one blank for each place of $M$, with its position; LN is a LayerNorm without
# weights, and sg stops the gradient, so that $E$ and $P$ alone are trained by it. Constant targets would solve the
# task, and nothing in the loss forbids them, so they are to be watched. The masks are a few *large* blocks that span
# all frames, since a hole that opens for one frame can be filled from the frame before; the paper takes eight of 15 %
# of a frame, or two of 70 %. That they span all frames is an exercise here, no experiment.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. The clip's visible tokens go through the encoder and the predictor to the L1 loss. The whole clip goes through a slow copy of the encoder, whose normalised features at hidden places are the targets; no gradient flows back through them. The encoder's weights flow into the slow copy."}, "figure": {"caption": "V-JEPA: features of what is hidden, as a slow copy of the encoder sees them.", "name": "fig-vjepa-mechanism"}}
parts = {
    "clip": (0, 0.5), "visible": (1, 0), "encoder": (2, 0, "trained"), "predictor": (3, 0, "trained"),
    "slow\nencoder": (2, 1, "copy"), "targets,\nLayerNorm": (3, 1), "L1": (4, 0.5, "loss"),
}
arrows = [
    ("clip", "visible"), ("visible", "encoder"), ("encoder", "predictor"), ("predictor", "L1"),
    ("clip", "slow\nencoder", "all of it"), ("encoder", "slow\nencoder", "momentum"),
    ("slow\nencoder", "targets,\nLayerNorm"), ("targets,\nLayerNorm", "L1", "", "stop"),
]
_ = lab.plots.diagram(parts, arrows, width=6.4)

# %%
lab.show(P.VJEPA.forward, start="if self.predict", end="whole = normalise")

# %%
lab.show(P.VJEPA.forward, start="for i, mask", end="return total")

# %%
lab.show(P.jepa_loss, P.multiblock)

# %% mystnb={"image": {"alt": "Two rows of six small grids. In each grid bright cells are visible; in the upper row they surround large dark blocks, in the lower row they are scattered."}, "figure": {"caption": "Visible cells (bright) of six clips, the same in all frames, on a grid of 8×8: outside two blocks of 40 % above, random tubes with as many visible cells below. Scattered dark cells outside the blocks are neither shown nor asked for, so that every clip has as many tokens.", "name": "fig-vjepa-masks"}}
masked = lambda n, g: P.multiblock(n, (1, 8, 8), 2, 0.4, generator=g)[0]
seen = masked(6, torch.Generator().manual_seed(3))
tubes = P.random_tubes(6, (1, 8, 8), seen.shape[1], generator=torch.Generator().manual_seed(3))[0]
grids = torch.zeros(12, 64).scatter(1, torch.cat([seen, tubes]), 0.8).view(12, 1, 8, 8)
_ = lab.plots.images(grids, rows=2, width=6)

# %% [markdown]
# Random *tubes*, VideoMAE's mask, hide single cells in all frames. They hide as much and leave a visible cell next to
# nearly every hidden one, from which it can be continued. Blocks do not. The paper compared networks trained under both
# masks, and blocks won by far; a minute's grid is too small for it. On the grid of the figure, not the one that is
# trained, it can be counted how far a hidden cell is from what is seen, in cells.

# %%
hidden_by = {"blocks": [masked(64, torch.Generator().manual_seed(s)) for s in run.seeds]}
hidden_by["tubes"] = [
    P.random_tubes(64, (1, 8, 8), v.shape[1], generator=torch.Generator().manual_seed(s))[0]
    for s, v in zip(run.seeds, hidden_by["blocks"])]
far = {kind: [P.hidden_distance(v, 8) for v in seen] for kind, seen in hidden_by.items()}

# %%
run.claim("v-jepa",
          "What large blocks hide is farther from the nearest visible cell than what as many "
          "random tubes hide",
          far["blocks"], far["tubes"], margin=0.3, data="masks")

# %% [markdown]
# The films to learn from are pans over bricks, grass or gravel, seen through the grain of the film. Which of the three it is
# and where the camera goes is the same in every part of a clip, so a hidden part can be foretold that far; the single blade
# of grass and the grain cannot. Before full scale a clip is one token deep in time, with one block on three by three
# cells, so that there the check below could not fail.

# %%
films, new_films = (P.panned_textures(n, i, s, **pan).to(run.device)
                    for i, (n, s) in enumerate(zip(sizes, run.splits)))
answers = {"texture": (films.labels, new_films.labels),
           "direction": tuple(v.factors["direction"][:, 0] for v in (films, new_films))}
MASKS = run.pick(quick=((1, 0.5),), full=(P.SHORT, P.LONG))  # one block on a grid of 3×3 cells
JEPA = run.pick(quick=dict(steps=350, batch_size=64, lr=3e-3),
                full=dict(steps=20_000, batch_size=128, lr=6e-4))


# %%
CLIP = run.pick(quick=dict(patch=(4, 4, 4), width=48, depth=2),
                full=dict(patch=(2, 4, 4), width=192, depth=8))
extent = films.frames.shape[1:2] + films.frames.shape[3:]  # in time, height and width
clip_vit = lambda seed: seeded(seed, P.ClipViT, extent, channels=1, **CLIP)


# %%
# NBVAL_CHECK_OUTPUT
grid = clip_vit(0).grid
visible, hidden = P.multiblock(64, grid, *MASKS[0], generator=torch.Generator().manual_seed(0))
cells = grid[1] * grid[2]
in_time = (hidden[:, :, None] % cells == visible[:, None] % cells).any()
print("a hidden cell is visible in another frame:", bool(in_time))

# %% [markdown]
# The longer scales add, with the same films, masks, encoder and steps, `pixels`, which is VideoMAE's target in V-JEPA's
# place; full scale also `stills`, an image model: the same method, shown one frame of each clip instead of the clip.
# Another network, trained for a sixth of the steps, has neither stop-gradient nor slow copy. What a frozen encoder
# knows is read from the mean of its tokens by a ridge regression with few labels, as the mean over eight draws of them;
# this probe was chosen with results of an attentive one seen. The texture stands for appearance, the direction for
# motion.

# %%
HEAD = run.pick(quick=dict(momentum=0.97, depth=1), full=dict(width=96, depth=6))
still = films.frames[:, 1:2].expand_as(films.frames)  # one frame of each clip, held
TARGETS_OF = {"features": {}, "pixels": dict(predict="pixels"), "stills": {}, "no stop-gradient": dict(stop=False)}
pretrained = lambda name, seed: stage.pretrain(
    f"v-jepa {name}", lambda e: P.VJEPA(e, JEPA["steps"], masks=MASKS, **TARGETS_OF[name], **HEAD), seed,
    images=still if name == "stills" else films.frames, views=lambda x, generator: P.to_float(x),
    encoder=clip_vit(seed), optimizer="adamw", weight_decay=0.04,
    **JEPA | dict(steps=JEPA["steps"] // (6 if name == "no stop-gradient" else 1)))
KINDS = run.pick(quick=("features",), long=("features", "pixels"), full=("features", "pixels", "stills"))
jepa = {name: [pretrained(name, s) for s in run.seeds] for name in (*KINDS, "no stop-gradient")}

# %%
tokens = {"random encoder": [clip_vit(s) for s in run.seeds]}
tokens |= {name: [m.evaluated for m in jepa[name]] for name in KINDS}
tokens = {arm: [[P.frozen_tokens(e, v.frames) for v in (films, new_films)] for e in encoders]
          for arm, encoders in tokens.items()}
tokens["raw pixels"] = [[v.frames.flatten(1)[:, None] / 255 - 0.5 for v in (films, new_films)]]

# %%
LABELS = (25, 100) if run.dry else run.pick(quick=(25, 100), long=(25, 50, 100, 400), full=(100, 500, 2000))
USUAL = run.pick(quick=100, full=500)
few = lambda pair, kind, labels=USUAL: P.few_labels(
    pair[0].mean(1), answers[kind][0], pair[1].mean(1), answers[kind][1], labels)
read = {kind: {arm: [few(pair, kind) for pair in pairs] for arm, pairs in tokens.items()} for kind in answers}
for kind, arms in read.items():
    print(f"{kind}:", ", ".join(f"{arm} {level(values):.2f}" for arm, values in arms.items()))

# %%
run.claim("v-jepa",
          "Predicting features gives a better probe of appearance than the untrained encoder",
          read["texture"]["features"], read["texture"]["random encoder"], margin=0.0,
          floor=read["texture"]["random encoder"], data=FILMS)

# %%
run.claim("v-jepa",
          "Predicting features gives a better probe of motion than the untrained encoder",
          read["direction"]["features"], read["direction"]["random encoder"], margin=0.03,
          floor=read["direction"]["random encoder"], data=FILMS)

# %%
if "pixels" in KINDS:
    for what, kind in {"appearance": "texture", "motion": "direction"}.items():
        run.claim("v-jepa",
                  f"With equal masks and steps, predicting features gives a better probe of {what} than predicting pixels",
                  read[kind]["features"], read[kind]["pixels"], margin=0.0,
                  floor=read[kind]["random encoder"], data=FILMS)

# %% [markdown]
# The paper reads all tokens by an attentive probe, which may choose where to look, and finds that their mean says
# much less. With all labels, on the same frozen tokens, and on those of the untrained encoder:

# %%
y_pan, y_new_pan = answers["direction"]
attend = lambda z, z_new: lab.evaluate.attentive_probe(
    z, y_pan, z_new, y_new_pan, steps=run.pick(quick=120, full=1000), batch_size=128)
mean = lambda z, z_new: P.ridge_probe(z.mean(1), y_pan, z_new.mean(1), y_new_pan)
by = {arm: [[reader(*pair) for pair in tokens[arm]] for reader in (mean, attend)]
      for arm in ("features", "random encoder")}
run.curve("v-jepa", "the direction by a mean of tokens and by an attentive probe, all labels",
          ["mean of tokens", "attentive probe"], by, "probe", "probe accuracy, direction", data=FILMS)

# %%
run.claim("v-jepa",
          "From the same frozen tokens an attentive probe reads the direction better than a linear probe of their mean",
          by["features"][1], by["features"][0], margin=0.05, data=FILMS)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of the accuracy of a linear probe of the direction over the number of labels, for feature prediction, a random encoder and raw pixels, at longer scales also pixel prediction; feature prediction is above both, in the longer run pixel prediction above all."}, "figure": {"caption": "A linear probe of the mean of frozen tokens reads the direction better from predicted features than from the untrained encoder; the attentive probe with all labels, above, does not. In the longer run the linear probe reads predicted pixels best.", "name": "fig-vjepa-labels"}}
labelled_with = {arm: [[few(pair, "direction", n) for pair in pairs] for n in LABELS] for arm, pairs in tokens.items()}
labelled_with["raw pixels"] = [points * len(run.seeds) for points in labelled_with["raw pixels"]]
found = run.curve("v-jepa", "probe of the direction against the number of labels", list(LABELS), labelled_with,
                  "labels", "probe accuracy, direction", log=True, data=FILMS)
_ = lab.plots.curve(found)

# %% [markdown]
# Is anything predicted at all? On new clips the predictor may see the clip's own visible tokens, or another clip's; the
# rival in the line is the other clip's error less a tenth. And is it collapsing? `trace` holds the standard deviation of
# the normalised targets over a batch: 0 is one constant for all. There the rival is a tenth of what V-JEPA keeps.

# %%
clips = P.to_float(new_films.frames[:500])
told = [m.told(clips, run.generator(s)) for m, s in zip(jepa["features"], run.seeds)]
own, other = zip(*told)
run.claim("v-jepa",
          "On new clips, the clip's own context predicts the hidden features with an error at "
          "least a tenth lower than another clip's",
          own, [0.9 * v for v in other], margin=0.0, higher_is_better=False, data=FILMS)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Lines, one a seed, of the spread of the targets over training steps: with the stop-gradient it falls at first and comes back, with some seeds not all the way, without it falls to nearly nothing at once."}, "figure": {"caption": "Without stop-gradient and slow copy the targets collapse at once; with both they shrink at first and come back, with some seeds not all the way. Standard deviation of the normalised targets over a batch, one line a seed.", "name": "fig-vjepa-spread"}}
spread, lost = ([[float(v) for v in m.trace] for m in jepa[k]] for k in ("features", "no stop-gradient"))
_, axis = lab.plots.axes(1, 5, 2)
for lines, colour, name in ((spread, 0, "V-JEPA"), (lost, 1, "no stop-gradient")):
    for s, line in enumerate(lines):
        axis.plot(range(0, 10 * len(line), 10), line, color=lab.plots.COLOURS[colour], label=None if s else name)
axis.legend()
_ = axis.set(xlabel="step", ylabel="spread of the targets", ylim=(0, None))

# %%
kept = min(line[-1] / line[0] for line in spread)
run.exact("v-jepa",
          "With stop-gradient, slow targets and their LayerNorm the targets keep more than half "
          "of the spread they started with",
          kept, at_least=0.5, data=FILMS)

# %%
run.claim("v-jepa",
          "Without stop-gradient and slow targets the targets lose nine tenths of the spread that they keep with them",
          [line[-1] for line in lost], [line[-1] / 10 for line in spread], margin=0.0, higher_is_better=False,
          data=FILMS)

# %% [markdown]
# Whether features teach more than pixels do, the paper's point, the longer run answers, and not as the paper does.
# There, with equal masks and steps and for a linear probe of the mean, pixels teach appearance surely better; for
# motion they are ahead with each seed and at every number of labels, which three seeds leave open (measured). In the
# paper features are ahead where appearance counts, and level where motion does. Our guess: our films hold few leaves;
# beside texture and direction there is little but grain, which no painter can learn.
#
# For the same probe with few labels features teach, over the untrained encoder, texture and motion at both lengths,
# both surely, and motion by more than we had asked for. The lead is about as wide with 25 labels as with 100, on
# average (measured). For the paper's own kind of probe, with all labels, untrained tokens are better than trained ones
# at both lengths (measured, without a claim), and gain more by it over the linear one. Our guess is that it finds
# nearly anything that is not lost, and training loses some. Features do say something of the clip at hand: another
# clip's context foretells them worse.
#
# At first the targets do shrink, as a collapse would begin, and then they come back, in a minute with some seeds not
# all the way, four times as long nearly so with all (measured). With targets from the encoder itself and no
# stop-gradient, the spread falls to nearly nothing at once. Which of the two changes does it, no arm tells.

# %%
for kind in answers:
    ours, untrained = read[kind]["features"], read[kind]["random encoder"]
    gained[f"V-JEPA, probe of {kind}"] = difference(ours, untrained)

# %% [markdown]
# (rho-byol-study)=
# ## Several moments of one film
# A view is somebody's idea of what does not matter. Time has ideas of its own: minutes later the light has changed and the
# viewpoint, and it is still the same person dancing. The study takes $\rho$ clips of a video at random times as positives,
# in four frameworks. For SimCLR and MoCo each clip is a query against each of the $\rho - 1$ others,
#
# $$\mathcal L = \frac1{\rho(\rho-1)} \sum_{a \ne b} -\log \frac{e^{q_a \cdot k_b/\tau}}{e^{q_a \cdot k_b/\tau} + \sum_{\text{negatives}} e^{q_a \cdot k/\tau}} ;$$
#
# $q_a$ is the query of clip $a$, $k_b$ the key of clip $b$ of the same video, $k$ runs over keys of other videos, all of length
# one, and $\tau$ is the temperature. BYOL predicts each from each, SwAV predicts the codes of two, their shares in a set
# of clusters, from the others. $\rho = 1$ is what there was before: one clip, augmented twice and counted as two.
#
# MoCo's keys and BYOL's targets come from a *momentum encoder*, a slow average of the encoder's past, so that they hold
# still while it learns; SimCLR and SwAV have none. In the paper the two with it are ahead on Kinetics, at 66.6 and 67.4 %
# against 61.5 and 62.6 % with two clips. Numbers of clips are compared here at equal clips seen: at equal films a step
# more clips would simply be more training. The price is fewer films a step.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. From a film two clips at random times are cut. One goes through the encoder to a query, the other through the slow encoder to a key; keys of other films come from a queue. Query, key and queue meet in the loss."}, "figure": {"caption": "Two clips in MoCo's frame: the positive is another moment of the same film.", "name": "fig-rho-mechanism"}}
parts = {
    "film": (0, 0.5), "clip a": (1, 0), "clip b": (1, 1), "encoder": (2, 0, "trained"), "slow\nencoder": (2, 1, "copy"),
    "loss": (3, 0, "loss"), "queue": (3, 1, "store"),
}
arrows = [
    ("film", "clip a"), ("film", "clip b"), ("clip a", "encoder"), ("clip b", "slow\nencoder"), ("encoder", "loss", "q"),
    ("encoder", "slow\nencoder"), ("slow\nencoder", "loss", "k", "stop"),
    ("slow\nencoder", "queue"), ("queue", "loss"),
]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(P.rho_clips, P.rho_nt_xent)

# %%
lab.show(P.rho_moco, P.rho_byol, P.rho_swav)

# %% [markdown]
# In these films the light turns all colours and the digit, one of four kinds, of ten at full scale, wanders, so that
# nothing but its identity lasts. The augmentation is quiet on purpose: what time does should not have been done already.

# %%
LIT = lab.data.Motion(**lit)


path = lambda n, seed: P.wander(n, LIT.frames, 1, LIT.size, generator=torch.Generator().manual_seed(seed))
wandering = lambda n, split, seed: lab.data.moving_scenes(
    n, seed, split, LIT, path=path(n, seed)).to(run.device)


lasting = wandering(sizes[0] // 2, fit_split, 11)
new_lasting = wandering(sizes[1], test_split, 12)
centre = lambda v: torch.full((len(v),), LIT.frames // 2 - 2, device=run.device)
old_clips, new_clips = (P.cut(v.frames, centre(v), 4) for v in (lasting, new_lasting))

# %%
CLIPS, RHO_STEPS = run.pick(quick=(64, 140), full=(512, 5000))
COUNTS = run.pick(quick=(1, 2), long=(1, 2, 4), full=(1, 2, 4))  # clips a video
SPANS = run.pick(quick=(), long=(2, 12), full=(2, 28))  # frames between two clips, at most


def persist(framework, rho, seed, span=None):
    """The framework trained with ρ clips a video, CLIPS clips a step whatever ρ is."""
    momentum = run.pick(quick=0.9, full=0.994)
    method = lambda e: P.Rho(e, framework, rho, momentum=momentum, steps=RHO_STEPS)
    views = lambda x, generator: QUIET(P.rho_clips(x, rho, 4, span, generator=generator), generator)
    return stage.pretrain(f"{framework} rho {rho} span {span}", method, seed, views=views,
                          images=lasting.frames, encoder=clip_net(seed), steps=RHO_STEPS,
                          batch_size=CLIPS // max(2, rho), lr=3e-3, optimizer="adamw",
                          weight_decay=1e-4).encoder


# %%
known = lambda encoder: lab.evaluate.knn(stage.features(encoder, old_clips), lasting.labels,
                                         stage.features(encoder, new_clips), new_lasting.labels)


FRAMEWORKS = {"moco": "MoCo"}
BYOL = {"byol": "BYOL"}
FRAMEWORKS |= run.pick(quick={}, long=BYOL, full=BYOL | {"simclr": "SimCLR", "swav": "SwAV"})
arms = [("moco", rho) for rho in COUNTS] + [(f, rho) for f in FRAMEWORKS if f != "moco" for rho in (1, 2)]
study = {(f, rho): [known(persist(f, rho, s)) for s in run.seeds] for f, rho in arms}
spans = {span: [known(persist("moco", 2, s, span)) for s in run.seeds] for span in SPANS[:-1]}
if SPANS:
    spans[SPANS[-1]] = study["moco", 2]  # the last span is the whole film

# %%
flat = [c.flatten(1).float() / 255 - 0.5 for c in (old_clips, new_clips)]
pixels = lab.evaluate.knn(flat[0], lasting.labels, flat[1], new_lasting.labels)
untrained = [known(clip_net(s)) for s in run.seeds]
print(f"raw pixels {pixels:.2f}, untrained {level(untrained):.2f}")

# %% [markdown]
# The measure is *kNN*: a new clip gets the class for which the clips nearest to it, by the cosine of their features,
# vote. One clip could lose to two merely by learning the light, which would make two good by comparison only. So two
# clips have to beat the better of one clip and the untrained net.

# %%
RHO = dict(margin=0.01, floor=untrained, data=lasting.source)
rivals = {f: [max(pair) for pair in zip(study[f, 1], untrained)] for f in FRAMEWORKS}
BETTER = "two clips of a video give a better class kNN than the better of two augmentations of one and no training"
run.claim("rho-byol-study", f"MoCo: {BETTER}", study["moco", 2], rivals["moco"], **RHO)

# %%
for f, framework in list(FRAMEWORKS.items())[1:]:  # at longer scales
    run.claim("rho-byol-study", f"{framework}: {BETTER}", study[f, 2], rivals[f], **RHO)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of MoCo's kNN accuracy over the number of clips a video, rising from one clip to two, in the longer run on average to four; a dashed line at the untrained encoder."}, "figure": {"caption": "One clip and two, at equal clips seen; longer runs add four. The dashed line is the untrained encoder.", "name": "fig-rho-clips"}}
found = run.curve("rho-byol-study", "kNN accuracy against the number of clips a video", list(COUNTS),
                  {"MoCo": [study["moco", rho] for rho in COUNTS]}, "clips a video", "class, kNN accuracy")
_ = lab.plots.curve(found, floor=level(untrained))

# %% [markdown]
# How far apart may the moments be? In the paper even clips a minute apart are good positives. If what time brings is the
# change of light, clips close in time should teach *less*. The longer scales ask.

# %%
if SPANS:
    run.claim("rho-byol-study",
              "MoCo: clips from anywhere in the film give a better class kNN than clips at most two frames apart",
              study["moco", 2], spans[2], **RHO)
    run.curve("rho-byol-study", "kNN accuracy against the distance between two clips", list(SPANS),
              {"MoCo, two clips": [spans[s] for s in SPANS]}, "frames between two clips, at most",
              "class, kNN accuracy")

# %% [markdown]
# A second moment of the film teaches more than a second augmentation of the clip, by more than we had asked for, at
# both lengths; in the longer run with BYOL as well. There four moments teach MoCo more than two on average (measured).
# Distance helps: clips at most two frames apart teach less than clips from anywhere, by more than asked, and on
# average hardly more than a single clip (measured). Our guess is that with views of one moment the net learns what
# tells films apart at that moment, and that a good part of that is colour.

# %%
gained["MoCo, two clips, kNN"] = difference(study["moco", 2], untrained)

# %% [markdown]
# (dsm-scene-motion)=
# ## Scene against motion
# Instance discrimination asks *which film is this?*, and the scenery answers. If basketball is always played in a hall,
# nothing needs to be understood about motion. DSM, which decouples scene and motion, breaks one half at a time: the
# query $q$ is the clip with its *scene* broken, by bumps that pull the picture out of place, alike in all frames, and
# its motion kept; one extra negative $n$, `own` in the code, is the clip with its *motion* broken, here by frames
# played backwards or shuffled, and its scene intact:
#
# $$\mathcal L = -\log \frac{e^{q \cdot k/\tau}}{e^{q \cdot k/\tau} + \sum_{u \in \text{queue}} e^{q \cdot u/\tau} + e^{q \cdot n/\tau}} ,$$
#
# with $k$ the key of the clip as it is, the positive, $u$ the keys of other films, and $\tau$ the temperature.
# Gradients reach $q$ and $n$; the keys come from the slow encoder. Only what moves can tell $n$ from $k$.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A clip goes two ways through the encoder: with its scene broken it becomes the query, with its motion broken an extra negative. The clip as it is goes through the slow encoder and becomes the key, then enters a queue. All meet in the loss."}, "figure": {"caption": "DSM: the query has lost its scene, the extra negative its motion.", "name": "fig-dsm-mechanism"}}
parts = {
    "clip": (0, 1), "scene\nbroken": (1, 0), "motion\nbroken": (1, 1), "as it is": (1, 2),
    "encoder": (2, 0.5, "trained"), "slow\nencoder": (2, 2, "copy"), "loss": (3, 0.5, "loss"), "queue": (3, 2, "store"),
}
arrows = [("clip", "scene\nbroken"), ("clip", "motion\nbroken"), ("clip", "as it is")]
arrows += [("scene\nbroken", "encoder"), ("motion\nbroken", "encoder"), ("encoder", "loss", "q, n")]
arrows += [("as it is", "slow\nencoder"), ("encoder", "slow\nencoder")]
arrows += [("slow\nencoder", "loss", "k", "stop"), ("slow\nencoder", "queue"), ("queue", "loss", "u")]
_ = lab.plots.diagram(parts, arrows)

# %%
lab.show(P.dsm_loss)

# %%
lab.show(P.spatial_disturbance, P.temporal_disturbance)

# %% mystnb={"image": {"alt": "Three rows of four frames: a clip of a digit moving over a texture; the same clip with the picture bent by bumps that stay in place; the same frames in another order."}, "figure": {"caption": "A clip; its scene broken; its motion broken.", "name": "fig-dsm-clips"}}
HALL = lab.data.Motion(texture=0.4, free=True, **run.pick(
    quick=dict(size=12, frames=4),
    full=dict(size=32, extent=14.0, frames=8, classes=tuple(range(10)))))
clip = P.to_float(lab.data.moving_scenes(1, 2, fit_split, HALL).frames)
bent = P.spatial_disturbance(clip, generator=torch.Generator().manual_seed(1))
broken = P.temporal_disturbance(clip, generator=torch.Generator().manual_seed(0))
_ = lab.plots.images(torch.cat([clip, bent, broken], 1)[0], rows=3, width=4)

# %% [markdown]
# In the films to learn from, the texture gives the direction away nine times in ten, and ink and ground have a film's own
# colours, which the augmentation leaves alone: the scenery could answer. In those that are judged, texture and direction
# are independent.

# %%
scenes = lambda n, seed, split, share: P.tied_scenes(n, seed, split, HALL, share).to(run.device)
tied = scenes(sizes[0], 21, fit_split, 0.9)
fair, new_fair = scenes(sizes[0] // 2, 22, fit_split, 0.0), scenes(sizes[1], 23, test_split, 0.0)
DSM = run.pick(quick=dict(steps=160, batch_size=48), full=dict(steps=5000, batch_size=256))
parts = {"MoCo": (False, False), "DSM": (True, True)}
parts |= run.pick(quick={}, long=(one := {"MoCo + broken scene": (True, False)}), full=one)


twice = lambda x, generator: QUIET(torch.cat([x, x]), generator)
decoupled = lambda name, seed: stage.pretrain(
    f"dsm {name}", lambda e: P.DSM(e, *parts[name]), seed, images=tied.frames, views=twice,
    encoder=clip_net(seed), lr=3e-3, optimizer="adamw", weight_decay=1e-4, **DSM).encoder


# %%
moves, scene = lambda v: v.factors["direction"][:, 0], lambda v: v.factors["texture"]
arms = {"random encoder": [clip_net(s) for s in run.seeds]}
arms |= {name: [decoupled(name, s) for s in run.seeds] for name in parts}
vectors = {arm: [[stage.features(e, v.frames) for v in (tied, fair, new_fair)] for e in es] for arm, es in arms.items()}
vectors["raw pixels"] = [[v.frames.flatten(1) / 255 - 0.5 for v in (tied, fair, new_fair)]]

# %% [markdown]
# A linear probe of the direction is fitted twice: on fair films, for what is known of motion; and on the tied ones, as a user
# would who has no others. On new fair films, how often does the second one say what the *texture* would make it say?

# %%
probe = P.ridge_probe
halved = {"motion": {}, "follows the scene": {}}
for arm, films_of in vectors.items():
    halved["motion"][arm] = [probe(z, moves(fair), z_new, moves(new_fair)) for _, z, z_new in films_of]
    halved["follows the scene"][arm] = [probe(z, moves(tied), z_new, scene(new_fair)) for z, _, z_new in films_of]
for name, found in halved.items():
    print(f"{name}:", ", ".join(f"{arm} {level(values):.2f}" for arm, values in found.items()))

# %%
run.claim("dsm-scene-motion",
          "Where scene and motion were tied in training, DSM gives a better motion probe than "
          "MoCo",
          halved["motion"]["DSM"], halved["motion"]["MoCo"], margin=0.03,
          floor=halved["motion"]["random encoder"], data=tied.source)

# %%
if "MoCo + broken scene" in parts:
    run.claim("dsm-scene-motion",
              "The motion-broken negative adds to the scene-broken query: a better motion probe",
              halved["motion"]["DSM"], halved["motion"]["MoCo + broken scene"], margin=0.02,
              floor=halved["motion"]["random encoder"], data=tied.source)

# %%
follows = halved["follows the scene"]
run.claim("dsm-scene-motion",
          "Fitted on films that tie motion to the scene, a probe of DSM follows the scene less often than one of MoCo",
          follows["DSM"], follows["MoCo"], margin=0.0, higher_is_better=False, data=tied.source)

# %% [markdown]
# The paper also retrieves: is a film of the same motion among the nearest few, in films where the scene tells nothing?

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of the share of films that have one of the same motion among their k nearest, over k, for MoCo, DSM, a random encoder and raw pixels, at longer scales also MoCo with a broken scene; all rise with k, DSM is above the others."}, "figure": {"caption": "Films of the same motion lie nearest in DSM's features: share of new films with one among their k nearest, by the cosine after the mean is taken off.", "name": "fig-dsm-retrieval"}}
NEAREST = (1, 2, 5, 10)
retrieved = {arm: [[P.recall_at(z, moves(fair), z_new, moves(new_fair), k) for _, z, z_new in films_of]
                   for k in NEAREST] for arm, films_of in vectors.items()}
retrieved["raw pixels"] = [points * len(run.seeds) for points in retrieved["raw pixels"]]  # the same for all seeds
found = run.curve("dsm-scene-motion", "films of the same motion among the k nearest", list(NEAREST), retrieved, "k",
                  "share of films", log=True, data=tied.source)
_ = lab.plots.curve(found)

# %%
run.claim("dsm-scene-motion",
          "The nearest film has the same motion more often in DSM's features than in MoCo's",
          retrieved["DSM"][0], retrieved["MoCo"][0], margin=0.03, floor=retrieved["random encoder"][0], data=tied.source)

# %% [markdown]
# Films of the same motion come nearer with DSM than with MoCo, and a probe reads motion better, both by more than we
# had asked for, and four times as long the leads are wider on average (measured). The extra negative could hardly be
# simpler: the same frames in another order, which no texture and no colour can tell from the clip. Yet it does most of
# the work: in the longer run it adds to the bumps, meant to take the scene away, by far more than asked, while these
# alone give on average little over MoCo (measured).
#
# Is it the scene that DSM cures? Four times as long, a probe that is fitted on films in which the scene gives the
# motion away is surely misled by it less often with DSM's features than with MoCo's; in a minute the seeds leave that
# open, and MoCo follows this faint scene on average no more than the untrained net (measured). Our guess is that the
# negative asks for the order of frames, whatever the scene, and that whoever reads motion well has less need of the
# scene.

# %%
motion = halved["motion"]
gained["DSM, probe of motion"] = difference(motion["DSM"], motion["random encoder"])

# %% [markdown]
# (odct)=
# ## One cluster along a track
# Clustering makes its own labels: group the features, train on the groups, repeat. What turns is a trap, since a digit and
# the same digit upside down start in different groups and stay there. A film knows better: both are patches of one *track*.
# ODC, online deep clustering, keeps a memory of features and labels that every step refreshes,
#
# $$f_i \leftarrow \frac{m f_i + (1-m)\,\hat f_i}{\lVert \cdot \rVert}, \qquad y_i \leftarrow \arg\max_c\; \mu_c \cdot f_i ,$$
#
# with $\hat f_i$ what the encoder, before its head, just made of patch $i$, $f_i$ what memory holds, divided by its
# norm, $m$ the momentum, $y_i$ the label and $\mu_c$ the centroid of cluster $c$. It trains with weights $1/\sqrt{N_c}$
# for a cluster of $N_c$ patches, recomputes the centroids, plain means, every few steps, dissolves small clusters and
# splits large ones. ODCT, ODC with tracks, adds: all patches of a track get the label that most of them have. We know
# the paper's abstract and ODC's code; the majority vote is our reading. The judge is kNN of the class, one of ten
# digits.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Patches go through the encoder and a head to a cross-entropy. The encoder's features also enter a memory; memory and centroids make labels, a vote along each track makes them one, and the labels enter the cross-entropy. Every few steps the memory makes new centroids."}, "figure": {"caption": "ODC with tracks: the memory makes the labels, the track makes them agree.", "name": "fig-odct-mechanism"}}
parts = {
    "patches": (0, 0), "encoder": (1, 0, "trained"), "head": (2, 0, "trained"), "cross-\nentropy": (3, 0, "loss"),
    "memory f": (1, 1, "store"), "labels y": (3, 1, "store"), "centroids": (1, 2, "store"), "track vote": (3, 2),
}
arrows = [
    ("patches", "encoder"), ("encoder", "head"), ("head", "cross-\nentropy"), ("encoder", "memory f", "", "stop"),
    ("memory f", "labels y", "nearest centroid"), ("memory f", "centroids", "means"), ("centroids", "labels y"),
    ("track vote", "labels y", "one a track"), ("labels y", "cross-\nentropy"),
]
_ = lab.plots.diagram(parts, arrows, width=6.0)

# %% [markdown]
# One step in code: labels are targets with their weights, then memory and labels are refreshed, and the track votes.

# %%
lab.show(P.ODC.forward, P.ODC.remember)

# %%
lab.show(P.track_vote, P.ODC._dissolve)

# %%
turning = lab.data.Motion(size=16, frames=8, objects=3, walls="bounce", spin=0.2,
                          speed=(0.5, 1.5), classes=tuple(range(10)))
counts = (60, 30) if run.dry else run.pick(quick=(150, 300), full=(3000, 1000))
(patches, y_patch, track), (new_patches, y_new, _) = (
    (part.to(run.device) for part in P.tracked_patches(n, seed, split, turning))
    for n, seed, split in zip(counts, (31, 32), run.splits))
track = track.cpu()

# %% mystnb={"image": {"alt": "Four rows of eight grey patches; each row shows one digit turning, partly hidden by others now and then."}, "figure": {"caption": "Four tracks of eight patches: what a tracker hands to the clustering.", "name": "fig-odct-tracks"}}
_ = lab.plots.images(torch.cat([patches[track == i] for i in (0, 1, 5, 9)]), rows=4, width=5)

# %% [markdown]
# The abstract claims that noisy automatic tracks beat precise annotations. We suppose that automatic ones win by covering
# more objects, so ours are all tracks with identity errors in 15 % of the patches, and at the longer scales stand against
# a sixth of them, pure. Those scales also add groups that are nothing but errors, patches tied at random, and a control
# that could win: it keeps the tracks and clusters nothing, each track being given a label by lot.

# %%
g = torch.Generator().manual_seed(0)
ERRORS = run.pick(quick=(0.15,), full=(0.15, 0.3))
errors = {f"ODCT, all, {100 * share:.0f} % errors": P.mistracked(track[:, None], share, generator=g).flatten()
          for share in ERRORS}
some, every = (track % 6 == 0).nonzero()[:, 0], slice(None)
alone, shuffled = torch.arange(len(track)), track[torch.randperm(len(track), generator=g)]
lists = {"ODC": (every, alone), "ODCT, all, pure": (every, track)}
lists |= {name: (every, names) for name, names in errors.items()}
CONTROLS = {"random groups": (every, shuffled), "labels drawn once a track": (every, track)}
CONTROLS["ODCT, a sixth, pure"] = some, track[some]
lists |= run.pick(quick={}, long=CONTROLS, full=CONTROLS)
small = lambda seed: torch.manual_seed(seed) and nets.SmallNet(features=128).to(run.device)


# %%
def clustered(name, seed):
    """An ODC trained on the patches and with the tracks that the name says."""
    which, tracks = lists[name]
    names = tracks.unique(return_inverse=True)[1]
    kinds, learnt = 50 if run.dry else run.pick(quick=100, full=500), "drawn" not in name
    method = lambda e: P.ODC(e, names, kinds, learnt=learnt).to(run.device).start(patches[which], seed)
    views = lambda x, generator: QUIET(x[:, None], generator)[:, 0]
    return stage.pretrain(f"odc {name}", method, seed, images=patches[which], views=views,
                          encoder=small(seed), steps=run.pick(quick=220, full=5000), batch_size=128,
                          lr=3e-3, optimizer="adamw", weight_decay=1e-4).encoder


# %%
named = lambda features: lab.evaluate.knn(
    features(patches), y_patch, features(new_patches[::4]), y_new[::4])
shape = {"raw pixels": [named(lambda x: x.flatten(1) / 255 - 0.5)] * len(run.seeds)}
nets_of = {"random encoder": [small(s) for s in run.seeds]}
nets_of |= {name: [clustered(name, s) for s in run.seeds] for name in lists}
shape |= {name: [named(lambda x, e=e: stage.features(e, x)) for e in encoders]
          for name, encoders in nets_of.items()}

# %%
print("class, kNN:", ", ".join(f"{name} {level(values):.2f}" for name, values in shape.items()))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Points of kNN accuracy over the share of identity errors in the tracks; a dashed line at the random encoder."}, "figure": {"caption": "Identity errors in some of the patches cost next to nothing in a minute and a little in the longer run, where the last point, all errors, is random groups. The dashed line is the untrained encoder.", "name": "fig-odct-errors"}}
faulty = {f"{100 * share:.0f} % errors": share for share in ERRORS}
shares = [0.0, *ERRORS, *([1.0] if "random groups" in shape else [])]
at = ["ODCT, all, pure", *(f"ODCT, all, {name}" for name in faulty), "random groups"][: len(shares)]
found = run.curve("odct", "kNN accuracy against identity errors in the tracks", shares,
                  {"ODCT, all tracks": [shape[name] for name in at]}, "share of patches under a wrong name",
                  "class, kNN accuracy", data=FILMS)
_ = lab.plots.curve(found, floor=level(shape["random encoder"]))

# %%
run.claim("odct",
          "One label a track gives better features than online clustering without tracks",
          shape["ODCT, all, pure"], shape["ODC"], margin=0.03, floor=shape["random encoder"], data=FILMS)

# %%
run.claim("odct",
          "One label a track gives better features than the untrained encoder",
          shape["ODCT, all, pure"], shape["random encoder"], margin=0.01, floor=shape["random encoder"],
          data=FILMS)

# %%
if "labels drawn once a track" in shape:
    run.claim("odct",
              "Clustered labels give better features than labels drawn once a track",
              shape["ODCT, all, pure"], shape["labels drawn once a track"], margin=0.0,
              floor=shape["random encoder"], data=FILMS)

# %%
if "ODCT, a sixth, pure" in shape:
    run.claim("odct",
              "All tracks with 15 % identity errors give better features than a sixth of them without",
              shape["ODCT, all, 15 % errors"], shape["ODCT, a sixth, pure"], margin=0.0,
              floor=shape["random encoder"], data=FILMS)

# %% [markdown]
# Without tracks clustering forgets what the untrained encoder still knew, at both lengths (measured). Our guess: it
# sharpens whatever groups it began with, and those are strokes and positions, not digits. So ODC is a weak rival;
# against the untrained encoder tracks gain little in a minute, if more than we had asked for, and on average more in
# the longer run. Identity errors cost next to nothing in a minute on average, four times as long a little with each
# seed, and random groups end on average about where the untrained encoder is (all measured).
#
# How much of that is clustering? In the longer run labels drawn by lot, one a track and never changed, are behind with
# each seed, not surely; most of the gain over the untrained encoder they have too (measured). So our guess is that to
# tell many tracks apart is most of the lesson, whatever they are called. Whether many noisy tracks beat a few pure
# ones that run calls untaught: the noisy ones are ahead with each seed (measured), but with three seeds neither arm
# lies surely above the untrained encoder.

# %%
gained["ODCT, kNN"] = difference(shape["ODCT, all, pure"], shape["random encoder"])

# %% [markdown]
# (ucsl)=
# ## Tracking without a label
# A tracker needs an embedding in which an object looks like itself a second later and unlike its neighbours. Who is who would
# have to be labelled, frame by frame. UCSL, unsupervised contrastive similarity learning, uses that objects *persist*.
# Let $A_{ab}$ be the row softmax of the cosines between the objects of frames $a$ and $b$, so that $(A_{ab})_{ij}$ says
# how surely object $i$ of the one is object $j$ of the other. With $t$ a frame and $t+1$, $t+2$ those after it,
#
# $$\underbrace{-\log\,(A_{tt})_{ii}}_{\text{direct}} \qquad \underbrace{-\log\,(A_{t,t+1}A_{t+1,t})_{ii}}_{\text{indirect}} \qquad
# \underbrace{-\log \sum_j (A_{t,t+2})_{ij}\,(A_{t,t+1}A_{t+1,t+2})_{ij}}_{\text{cross}}$$
#
# say: I am not my neighbour; there and back I am myself; a leap over a frame ends where two steps end. A fourth term,
# *ambiguity*, takes objects whose round trip is less certain than `sure` and makes the entropy of their match small.
# Only the paper's abstract is open to us, so all this is our reading of it. One trap: an object that has gone cannot
# come back, so of frames with five and four objects only the four surest rows count.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. The objects of three frames in a row go through one embedding. Matches between frames are compared: a frame with itself for the direct term, there and back for the indirect term, two steps against one leap for the cross term."}, "figure": {"caption": "UCSL: matches between the objects of three frames, and what must hold for them.", "name": "fig-ucsl-mechanism"}}
parts = {
    "frame t": (0, 0), "frame t + 1": (0, 1), "frame t + 2": (0, 2), "embedding": (1.2, 1, "trained"),
    "matches A": (2.4, 1), "direct": (3.6, 0, "loss"), "indirect": (3.6, 1, "loss"), "cross": (3.6, 2, "loss"),
}
arrows = [(frame, "embedding") for frame in ("frame t", "frame t + 1", "frame t + 2")] + [("embedding", "matches A")]
arrows += [("matches A", term) for term in ("direct", "indirect", "cross")]
_ = lab.plots.diagram(parts, arrows, width=6.0)

# %%
lab.show(P.match, P.round_trip, P.indirect_contrast)

# %%
lab.show(P.cross_contrast, P.ambiguity_contrast)

# %% [markdown]
# Boxes are given; what is learnt is who is who. Objects change their heading, cross, pass behind a bar, and the first
# two of each film have one colour. An untrained and a raw-pixel embedding, at longer scales also a supervised one, use
# the same association: frame by frame the Hungarian method gives objects to tracks one to one, so that the sum of their
# cosines is largest. Another rival matches by the overlap of boxes alone. *IDF1* is the share of detections under the
# right name, with names given to objects one to one as well as possible.

# %%
CROWD = lab.data.Motion(**(crowd | run.pick(
    quick={}, full=dict(size=64, objects=8, frames=16, extent=12.0, bar=12))))
step, side, counts = run.pick(quick=(6.0, 8, (200, 50)), full=(8.0, 12, (2000, 500)))
counts = (64, 16) if run.dry else counts
(objects, found, _), (new_objects, new_found, new_boxes) = (
    P.shown_objects(n, seed, split, CROWD, step, side)
    for n, seed, split in zip(counts, (41, 42), run.splits))
print(f"{100 * (1 - new_found.float().mean()):.0f} % of the detections are hidden")

# %%
TERMS = {"direct": ("direct",), "direct + indirect": ("direct", "indirect"),
         "all four (UCSL)": ("direct", "indirect", "cross", "ambiguity")}
TERMS |= run.pick(quick={}, long=(labels := {"supervised": ("supervised",)}), full=labels)
TRACK = run.pick(quick=dict(steps=60, batch_size=64), full=dict(steps=5000, batch_size=32))
flat_net = lambda seed: torch.manual_seed(seed) and FlatNet(3 * side**2, 128).to(run.device)

# %%
tracker = lambda name, seed: stage.pretrain(
    f"ucsl {name}", lambda e: P.UCSL(e, TERMS[name], TRACK["steps"]), seed, images=objects.to(run.device),
    views=P.three_frames, encoder=flat_net(seed), lr=3e-3, optimizer="adamw", weight_decay=1e-4, **TRACK)


untaught = lambda seed: P.UCSL(flat_net(seed), ("direct",), 1).to(run.device)
trackers = {"random encoder": [untaught(s) for s in run.seeds]}
trackers |= {name: [tracker(name, s) for s in run.seeds] for name in TERMS}


# %%
every = new_objects.flatten(0, 1).to(run.device).float() / 255
embedded = lambda model: model.eval().embed(every).detach().unflatten(0, new_objects.shape[:2])
scores = {"boxes alone (IoU)": [P.tracking_score(new_found, boxes=new_boxes)] * len(run.seeds)}
raw = P.tracking_score(new_found, new_objects.flatten(3) / 255 - 0.5)
scores["raw pixels"] = [raw] * len(run.seeds)
scores |= {name: [P.tracking_score(new_found, embedded(m)) for m in ms]
           for name, ms in trackers.items()}
f1, _, after_gap = ({name: [row[i] for row in rows] for name, rows in scores.items()}
                    for i in range(3))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two bar charts over boxes alone, raw pixels, a random encoder, the direct term of UCSL, direct and indirect, and all four terms, at longer scales also a supervised embedding: IDF1, and identity switches a film right after an object was hidden; dashed lines at the random encoder."}, "figure": {"caption": "Two terms do all that can be seen: IDF1 on new films (higher is better) and identity switches right after an occlusion (lower is better). Dots are seeds, dashed lines the untrained embedding.", "name": "fig-ucsl"}}
figure, panels = lab.plots.axes(2, 8.5, 2.6)
lab.plots.bars(panels[0], f1, "IDF1", chance=level(f1["random encoder"]))
lab.plots.bars(panels[1], after_gap, "switches after a gap, per film", chance=level(after_gap["random encoder"]))
_ = panels[1].set_yticklabels([])

# %%
run.claim("ucsl",
          "The round trip adds to the direct term: higher IDF1",
          f1["direct + indirect"], f1["direct"], margin=0.03, floor=f1["random encoder"], data=FILMS)

# %%
run.claim("ucsl",
          "The cross and ambiguity terms add to the other two: higher IDF1",
          f1["all four (UCSL)"], f1["direct + indirect"], margin=0.0, floor=f1["random encoder"],
          data=FILMS)

# %%
untrained = ("boxes alone (IoU)", "raw pixels", "random encoder")
rivals = [min(values) for values in zip(*(after_gap[name] for name in untrained))]
run.claim("ucsl",
          "All four terms leave fewer identity switches after a gap than the best of boxes, raw "
          "pixels and an untrained net",
          after_gap["all four (UCSL)"], rivals, margin=0.3, higher_is_better=False, data=FILMS)

# %%
if "supervised" in TERMS:
    above = lambda name: difference(f1[name], f1["raw pixels"])
    run.claim("ucsl",
              "All four terms close at least a third of the gap in IDF1 between raw pixels and a supervised embedding",
              above("all four (UCSL)"), [v / 3 for v in above("supervised")], margin=0.0, data=FILMS)

# %% [markdown]
# Two of the four terms do all that can be seen: be unlike your neighbours, and come back to yourself. The round trip
# adds more than we had asked for. The other two, in our reading of them, add nothing that can be seen, and cost a
# little on average, in the longer run with each seed (measured); both lengths leave open whether they do. Our guess:
# where an object is hidden in the middle frame, the two ways *should* disagree, and a count of detections does not say
# where. All four together leave fewer identity switches after an object was hidden than boxes, raw pixels and an
# untrained net, by more than asked. In the longer run they close surely more than a third of the gap between raw
# pixels and a supervised embedding, with each seed less than half (measured).

# %%
gained["UCSL, IDF1"] = difference(f1["all four (UCSL)"], f1["random encoder"])


# %% [markdown]
# ## Where the chapter ends
# One question to every representation of the chapter: what did training add to the same network with random weights,
# in the same experiment, by the measure of its claims? Something, with every seed and at both lengths; on the same
# seeds each gain is on average larger four times as long. The measures differ, so their order is a rough one.
#
# Nor does a bar say what a method's own idea is worth. A good part of DSM's is MoCo's too; nearly all of the student's
# is the first pre-training, as without going on the network is fine-tuned about as well, in the longer run better; and
# V-JEPA's for the direction turns round with another probe (all measured). What an idea adds, its claim against the
# nearest rival says.
#
# There the longer run speaks for some ideas and against others (measured). Errors of next tokens do pile up, and one
# answer escapes them; moments far apart teach more than near ones; an order that is broken teaches motion, and the
# scene misleads less. But pixels, shown the same masks, teach appearance better than features do, and the student that
# should not forget ends below not going on at all.

# %% mystnb={"image": {"alt": "Horizontal bars, all positive with every seed, of the difference between each trained network and the same network untrained, for the experiments of the chapter. The longest by far is DSM's probe of motion, the shortest the Dice of TokenUnify."}, "figure": {"caption": "Training, all of it and not a method's part alone, adds something in every experiment. What it added to the untrained network (zero, dashed), in the measure of each experiment: accuracy, Dice, recall or IDF1, between 0 and 1. For fine-tuned networks the untrained one was fine-tuned alike.", "name": "fig-predictive-results"}}
lab.plots.bars(lab.plots.axes(1, 6.5, 3.2)[1], gained, "trained minus untrained", chance=0.0)

# %%
run.summarise("gain over the same network untrained, by experiment", gained)

# %% [markdown]
# Settings were chosen on other seeds, other digits, other strips of the photographs and other draws: for time, a minute
# for everything, for rates, and so that what is judged can be learnt. But these verdicts have had more than one chance:
# after looks at this page's seeds trainings became longer, arms moved to the longer scales, and some claims changed,
# with the rivals and margins of the two rollouts and the margin of how often DSM's probe follows the scene. So the
# longer scales are the better test.

# %% [markdown]
# ## What carries over
# Each claim at every scale that measured it, under what its paper reports. The sizes are mean differences, or what an
# exact check found.

# %%
run.carry_over()

# %% [markdown]
# ## Exercises
# ````{exercise-start} How many patches teach?
# :label: ex-predictive-prefix
# ````
# AIM draws its prefix uniformly from 1 to K - 1. Which share of the patches is a target, on average? What does plain causal
# training have, and what would a prefix that is always half the image change?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-predictive-prefix
# :class: dropdown
# ````
# K - S patches are targets, K/2 on average: half of the signal of causal training, which has K - 1. A fixed half would have as
# many, but the trunk would never meet a short or a long context.

# %%
# NBVAL_CHECK_OUTPUT
k, prefix = 16, torch.randint(1, 16, (100_000,), generator=torch.Generator().manual_seed(0))
print("share that are targets:", round(float((k - prefix).float().mean() / k), 2), "| causal:", round((k - 1) / k, 2))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A beautiful loss
# :label: ex-predictive-leak
# ````
# Let AIM's mask leak by one: each token also sees the patch that it predicts. In training the loss falls and nothing looks wrong.
# Which test would have warned you, before any training?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-predictive-leak
# :class: dropdown
# ````
# One that changes the target and watches the prediction: an honest one cannot move.

# %%
class Leaky(P.AIM):
    mask = lambda self, prefix: (
        (honest := nets.prefix_causal(len(self.encoder.position), prefix)) | honest.roll(1, 2)
    )  # row i sees i + 1
    predict = lambda self, x, prefix: self.head(self.encoder(x, mask=self.mask(prefix)) + self.encoder.position)


# %%
# NBVAL_CHECK_OUTPUT
patches, lengths = nets.patchify(draw, (4, 4)).clone(), torch.ones(4, dtype=torch.long)
patches[:, 8:] = 3.0  # patch 8 is what row 7 predicts
other = nets.unpatchify(patches, (4, 4), (4, 4))
for kind in (P.AIM, Leaky):
    model = kind(vit(0).cpu())
    moved = (model.predict(draw, lengths) - model.predict(other, lengths))[:, 7].abs().max()
    print(f"{kind.__name__:6} the prediction moves with its target: {bool(moved > 1e-4)}")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Does distillation end where it began?
# :label: ex-predictive-rounds
# ````
# In the linear model, rounds of pure distillation bring the student back to the first weights. But the real student keeps its own
# objective. Add a term $\tfrac12\lVert Xw - y\rVert^2/n$ to the flow of each round: where do the rounds lead?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-predictive-rounds
# :class: dropdown
# ````
# A round still follows a linear flow, so the rounds are a contraction with another fixed point: between the first weights and
# the solution of the objective. The distance no longer goes to zero.

# %%
# NBVAL_CHECK_OUTPUT
g = torch.Generator().manual_seed(0)
inputs, outputs = torch.randn(40, 20, dtype=torch.float64, generator=g), torch.randn(40, dtype=torch.float64, generator=g)
pure, mixed = (torch.ones(20, dtype=torch.float64) for _ in range(2))
for r in range(30):
    new_pure, new_mixed = torch.zeros(2, 20, dtype=torch.float64)
    for _ in range(100):
        new_pure = new_pure - 0.002 * inputs.T @ (inputs @ (new_pure - pure)) / 40
        new_mixed = new_mixed - 0.002 * inputs.T @ (inputs @ (new_mixed - mixed) + inputs @ new_mixed - outputs) / 40
    pure, mixed = new_pure, new_mixed
print(
    "pure distillation comes home:",
    bool(pure.norm() < 0.05),
    "| with its own objective it does not:",
    bool(mixed.norm() > 0.05),
)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A mask that can be copied from
# :label: ex-predictive-flicker
# ````
# V-JEPA's blocks span all frames. Suppose instead that each frame had its own random cells. Which share of the hidden cells
# would be visible in the frame before or after, with half of the cells visible? Why does that ruin the task?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-predictive-flicker
# :class: dropdown
# ````
# A hidden cell is visible in a given other frame with probability ½, so in one of two neighbours with probability ¾. What moves
# slowly can be copied from there: the network learns to copy, which is not what it was to learn.

# %%
# NBVAL_CHECK_OUTPUT
shown_cells = torch.rand(4000, 3, 64, generator=torch.Generator().manual_seed(0)) < 0.5
near = (shown_cells[:, 0] | shown_cells[:, 2])[~shown_cells[:, 1]]
print("hidden in a frame, visible in a neighbour:", round(float(near.float().mean()), 2))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself ([For instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} AIM's loss from its equation
# :label: ex-next-patch
# ````
# Write the loss of AIM, the one at the head of *The next patch*, for a batch; places count from 1 there, rows from 0
# here. Row $i$ of the prediction is what the network says about patch $i + 1$; the first $S$ patches of an image, its
# prefix, are no targets. Each target has its own mean taken away and is divided by its own standard deviation
# (the unbiased one, `torch.std`). With $K$ patches of $p$ values, and the mean over all targets of the batch, each counting alike:
#
# $$\mathcal L = \operatorname*{mean}_{\text{images, patches } j \ge S} \; \frac1p \lVert \hat x_j(x_{<j}) - x_j \rVert^2,
#   \qquad j = 0, \dots, K-1, \quad S \ge 1.$$
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-next-patch
# :class: dropdown
# ````
# Predictions are shifted by one against the targets, and the last one speaks of a patch that does not exist. With one
# mean over the batch, an image with a long prefix has fewer targets, so it counts less.

# %% tags=["task:next-patch"]
import torch


def next_patch_loss(predicted, patches, prefix):
    """The loss, a scalar, of predictions and raw patches, both (n, K, p); prefix (n,) holds S, 1 … K - 1, of each image."""
    ### BEGIN SOLUTION
    target = (patches - patches.mean(2, keepdim=True)) / patches.std(2, keepdim=True)
    error = (predicted[:, :-1] - target[:, 1:]).square().mean(2)
    counts = torch.arange(1, patches.shape[1]) >= prefix[:, None]
    return error[counts].mean()
    ### END SOLUTION


# %% tags=["task-tests:next-patch:3", "remove-cell"]
patches = torch.tensor([[[5.0, 7.0], [2.0, 0.0], [1.0, 9.0], [4.0, 3.0]]])  # one image, four patches of two values
found = next_patch_loss(torch.zeros(1, 4, 2), patches, torch.tensor([1]))
assert found.shape == () and abs(float(found) - 0.5) < 1e-4, "normalised, each patch is ±0.7071"
### BEGIN HIDDEN TESTS
said, patches = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
prefix, errors = [1, 4, 3], []
for a, b, s in zip(said.tolist(), (3 * patches + 1).tolist(), prefix):
    for k in range(s, 6):
        mean = sum(b[k]) / 4
        std = (sum((v - mean) ** 2 for v in b[k]) / 3) ** 0.5
        errors.append(sum((p - (v - mean) / std) ** 2 for p, v in zip(a[k - 1], b[k])) / 4)
found = next_patch_loss(said, 3 * patches + 1, torch.tensor(prefix))
assert abs(float(found) - sum(errors) / len(errors)) < 1e-4
### END HIDDEN TESTS

# %% tags=["task-tests:next-patch:2", "remove-cell"]
said = torch.zeros(2, 4, 3, requires_grad=True)
patches = torch.arange(24.0).view(2, 4, 3)
next_patch_loss(said, patches, torch.tensor([1, 3])).backward()
assert not said.grad[:, -1].any(), "the last row predicts nothing"
### BEGIN HIDDEN TESTS
trained = [[bool(row.any()) for row in image] for image in said.grad]
assert trained == [[True, True, True, False], [False, False, True, False]], "which rows have a target"
assert torch.allclose(said.grad[0, 0], said.grad[1, 2]), "every target counts alike"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
said, patches = torch.randn(2, 8, 16, 9, generator=torch.Generator().manual_seed(0))
prefix = torch.arange(1, 9)
print(
    "as the package has it:",
    torch.allclose(next_patch_loss(said, patches, prefix), P.autoregressive_loss(said, patches, prefix), rtol=1e-4),
)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Who may see whom
# :label: ex-prefix-mask
# ````
# Write AIM's attention mask for a batch of images with prefixes of different lengths: in raster order a token sees itself
# and all before it, and every token of an image sees the whole prefix of that image. Which off-by-one would leak the
# answer?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-prefix-mask
# :class: dropdown
# ````
# Row $i$ predicts patch $i+1$. A mask that lets it see $j \le i + 1$ shows it the answer, and so does a prefix longer by
# one: the patch at place $S$ is the first target.

# %% tags=["task:prefix-mask"]
import torch


def prefix_mask(k, prefix):
    """Boolean (n, k, k): may token i (row) see token j (column)? prefix (n,) holds each image's length, 0 … k."""
    ### BEGIN SOLUTION
    place = torch.arange(k)
    causal = place <= place[:, None]
    return causal | (place < prefix[:, None, None])
    ### END SOLUTION


# %% tags=["task-tests:prefix-mask:3", "remove-cell"]
mask = prefix_mask(3, torch.tensor([2]))
assert mask.shape == (1, 3, 3) and mask.dtype == torch.bool
assert mask[0].tolist() == [[True, True, False], [True, True, False], [True, True, True]], "a prefix of two"
### BEGIN HIDDEN TESTS
lengths = [0, 1, 3, 5]
mask = prefix_mask(5, torch.tensor(lengths)).tolist()
for n, s in enumerate(lengths):
    assert mask[n] == [[j <= i or j < s for j in range(5)] for i in range(5)]
### END HIDDEN TESTS

# %% tags=["task-tests:prefix-mask:1", "remove-cell"]
assert prefix_mask(4, torch.tensor([4])).all(), "a prefix of everything hides nothing"
### BEGIN HIDDEN TESTS
mask = prefix_mask(6, torch.tensor([2, 4, 1]))
first = torch.tensor([2, 4, 1])  # place of the first target
assert not mask[torch.arange(3), first - 1, first].any(), "the token before the first target sees it"
assert mask.diagonal(dim1=1, dim2=2).all(), "a token does not see itself"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
lengths = torch.arange(1, 16)
print("as the package has it:", torch.equal(prefix_mask(16, lengths), nets.prefix_causal(16, lengths)))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [Contrastive learning](contrastive.ipynb) and [redundancy reduction](redundancy.ipynb) say what a view is, and learn from few
# steps; [pretext tasks](pretext.ipynb) ask questions about a transformed image instead of a hidden one.

# %% tags=["remove-cell"]
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
