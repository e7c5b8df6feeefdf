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
# # Pretext tasks
#
# Turn a photograph by a quarter and ask which way is up. Cut four of them into pieces, mix the pieces, and ask which
# belong together. Nobody has to label anything: the question is made from the image, and so is its answer. The answer
# is of no use. What a network has to know to find it may be.
#
# **You will be able to**
# - write rotation, jigsaw clustering, relational reasoning and online bags of words as losses of a few lines;
# - say what a pretext task leaves in a network's last blocks, and where it is lost;
# - use the same turns beside labels, and say which of those ways hurt;
# - tell a task from its shortcut, and name an arm that takes the shortcut away.
#
# **You should know** the chapter [Contrastive learning](contrastive.ipynb) and what a linear probe is. **Run time:** a
# minute or two on a laptop; on a GPU the same cells take CIFAR-10 and a ResNet-18.

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
from functools import partial
from math import log10

import torch

import labcode as lab
from labcode.self_supervision import contrastive as C
from labcode.self_supervision import pretext as P

# %% tags=["hide-input"] mystnb={"image": {"alt": "Family map. Arrows lead from RotNet to SLA, to LoRot, to the comparison Revisiting and to OBoW; from jigsaw puzzles to JigClu and Revisiting; from SimCLR to JigClu and relational reasoning."}, "figure": {"caption": "Who answers whom. An arrow leads to the work that came as an answer.", "name": "fig-pretext-family"}}
PAPERS = {
    "jigsaw puzzles": (0, 2, "explained elsewhere"),
    "SimCLR": (0, 3, "explained elsewhere"),
    "RotNet": (0, 0.5, "a question about the image"),
    "JigClu": (1.4, 2, "a question about the image"),
    "relational\nreasoning": (1.4, 3, "a question about the image"),
    "OBoW": (2.8, 2.5, "a question about the image"),
    "Revisiting": (2.8, 1.25, "a comparison"),
    "SLA": (1.4, -0.3, "turning beside labels"),
    "LoRot": (2.8, 0.5, "turning beside labels"),
}
ARROWS = [
    ("RotNet", "Revisiting"), ("jigsaw puzzles", "Revisiting"), ("jigsaw puzzles", "JigClu"), ("SimCLR", "JigClu"),
    ("SimCLR", "relational\nreasoning"), ("RotNet", "OBoW"), ("RotNet", "SLA"), ("RotNet", "LoRot"),
]
_ = lab.plots.family(PAPERS, ARROWS)

# %%
run = lab.start("self_supervision/pretext")
stage = P.UprightStage(run)
run

# %%
stage

# %% [markdown]
# Each result below is a statement with a verdict:
# [How to read a verdict](../../book/how_to_use.md#how-to-read-a-verdict).

# %% [markdown]
# ## Images that have an upright
# A task can only teach what the images hold. A digit 8 upside down is an 8, a 6 is a 9: asked about them, a network may
# be right and be marked wrong. So the chapter's scenes show the digits 2 to 7 alone. How much of a turn the other four
# still tell, the first exercise asks.

# %% mystnb={"image": {"alt": "Twelve small images, two for each class: handwritten digits of any colour on a textured ground of any colour."}, "figure": {"caption": "Two training images of each class, with their digits at quick scale.", "name": "fig-pretext-images"}}
examples = torch.cat([stage.train_images[stage.train_labels == c][:2] for c in range(6)])
_ = lab.plots.images(examples, rows=1, labels=stage.train_labels.new_tensor(P.UPRIGHT).repeat_interleave(2).tolist())

# %% mystnb={"image": {"alt": "Three rows of small images: eight training images with handwritten digits, and under each two views of it, a little turned, moved and recoloured."}, "figure": {"caption": "Eight training images and two views of each. The views bend an image a little and turn its colours freely, so that upright stays upright and colour tells nothing.", "name": "fig-pretext-stage"}}
_ = stage.look()

# %% [markdown]
# All arms get the same images and, where nothing else is said, the same number of pixels a step: four times those of
# `IMAGES` images, be they turned copies, patches, or views. `stage.arm` trains an arm once a seed. The encoder has four
# blocks, and `stage.probes` fits a linear probe on what it holds after one of them, the third if nothing else is said.
#
# `run.pick` takes the value for the length of the run: *quick*, a minute, is this page, *full* is for a GPU. *Long*,
# four times the steps, has three seeds for the minute's five, so that a statement can become open for that alone; its
# verdicts stand in the table at the end. Rotation has `plain_views`: here the views above, at full scale views that
# leave colours as they are. `FEW` is how many labels count as few.

# %%
IMAGES, STEPS = stage.budget.batch_size, stage.budget.steps
models = {
    "random encoder": [stage.untrained(s) for s in run.seeds],
    "random, BatchNorm as it starts": [stage.encoder(s) for s in run.seeds],
    "all labels": stage.arm("labels", lambda e: P.Classifier(e, stage.train_labels, stage.classes)),
    "SimCLR": stage.arm("SimCLR", C.SimCLR, 2, 2 * IMAGES),
}
rotation = partial(stage.arm, "rotation", P.RotNet, stage.plain_views)
steady = run.pick(quick=P.steady_views, full=stage.views)
steady_simclr = partial(stage.arm, "SimCLR, steady colours", C.SimCLR, partial(steady, views=2), 2 * IMAGES)

# %%
pixels = [x.flatten(1).float() / 255 for x in (stage.train_images, stage.test_images)]
flat = lab.evaluate.linear_probe(pixels[0], stage.train_labels, pixels[1], stage.test_labels, l2=(0.1,), steps=50)
results = {"chance": [1 / stage.classes] * len(run.seeds), "raw pixels": [flat.accuracy] * len(run.seeds)}
results |= {name: stage.probes(trained) for name, trained in models.items()}
floor = results["random encoder"]
UNTRAINED = sum(floor) / len(run.seeds)  # the dashed line of the figures that follow

# %%
FEW, SHORT = run.pick(quick=180, full=5000), dict(steps=run.pick(quick=110, full=20 * 390))
labelled = partial(stage.classifiers, labels=FEW, **SHORT)  # networks that are taught by few labels


def told(trained):
    """Turns of test images that rotation networks tell, one share a seed."""
    return [m.correct(stage.test_images).float().mean().item() for m in trained]

# %% mystnb={"image": {"alt": "Horizontal bars of probe accuracy: chance, raw pixels, a random encoder, the same with BatchNorm as it starts, training with all labels, SimCLR. The random encoder is far below SimCLR, and lower still with BatchNorm as it starts; labels are highest."}, "figure": {"caption": "Where the chapter starts: SimCLR and labels leave the random encoder (dashes) far behind. Dots are seeds.", "name": "fig-pretext-floor"}}
lab.plots.bars(lab.plots.axes(1, 6, 2.0)[1], results, "probe accuracy after block 3", chance=UNTRAINED)

# %% [markdown]
# Two random encoders, and the difference between them is a trap. Before training, BatchNorm takes every unit to have
# mean 0 and variance 1, which no image has shown. *Our guess* why that costs so much: the signal shrinks from block to
# block until GELU is a straight line, and the untrained network is nearly linear. Training sets the statistics right
# whatever its task, even one that has no answer. So a random encoder is a fair rival only after its statistics have
# been estimated from images, and from here on it is.

# %%
# NBVAL_CHECK_OUTPUT
print(stage.classes, "classes,", 4 * IMAGES, "images a step, blocks of", *stage.encoder(0).widths, "channels")

# %% [markdown]
# (rotnet)=
# ## Which way is up?
# Predict the missing part of an image, its colours, its motion: early pretext tasks were elaborate. RotNet asks for one
# of four turns. To see that a 4 lies on its side one must have noticed its parts and how they stand to each other.
#
# $$\mathcal L = \frac1T \sum_{r=1}^{T} -\log p_r(t_r x), \qquad t_r x = \text{rotate}\bigl(x,\; (r-1)\, 90°\bigr)$$
#
# $x$ is an image, $r$ its turn, $t_r x$ the turned image, $T$ the number of turns, and $p_r$ the probability that the
# network gives to the right one. All $T = 4$ copies of an image go through the network in one batch. A quarter turn
# only moves pixels; a turn by 45° would have to interpolate them, and the network would read the blur.

# %%
lab.show(P.rotations, P.rotation_loss)

# %%
lab.show(P.RotNet)

# %% mystnb={"image": {"alt": "Three digits, each shown upright and turned by 90, 180 and 270 degrees."}, "figure": {"caption": "Three images under the four turns. What is asked is the number above them.", "name": "fig-rotnet-turns"}}
_ = lab.plots.images(P.rotations(stage.train_images[:3] / 255), labels=[f"{90 * v}°" for v in range(4) for _ in range(3)])

# %% [markdown]
# A trap first. Where images are mirrored at random, the mirror must come *before* the turn. After it, a quarter to the
# left becomes a quarter to the right, and half the labels of 90° and 270° are wrong:

# %%
# NBVAL_CHECK_OUTPUT
x = stage.test_images[:8]
print(
    "turned left, then mirrored = mirrored, then turned right:",
    torch.equal(torch.rot90(x, 1, (2, 3)).flip(3), torch.rot90(x.flip(3), 3, (2, 3))),
)

# %% [markdown]
# Three rivals get the same number of images a step. A net that must only tell 0° from 180°. A net whose training images
# were turned at random, once and for all, before it saw them: same task, same pixels, but no upright to discover, so
# what it learns must come from elsewhere. And no training at all.

# %%
quarters = torch.randint(4, (len(stage.train_images),), generator=torch.Generator().manual_seed(0))
pre_turned = P.turn(stage.train_images, quarters.to(stage.train_images.device))
models["rotation"] = rotation()
models["0° and 180° only"] = stage.arm("half turns", lambda e: P.RotNet(e, (0, 2)), stage.plain_views, 2 * IMAGES)
models["pre-turned images"] = stage.arm("pre-turned", P.RotNet, stage.plain_views, images=pre_turned)

# %%
blocks = run.pick(quick=(3, 4), full=(1, 2, 3, 4), long=(1, 2, 3, 4))
deep = {name: {b: stage.probes(models[name], b) for b in blocks} for name in ("all labels", "SimCLR", "rotation", "random encoder")}
results["rotation"] = deep["rotation"][3]
rivals = {name: stage.probes(models[name]) for name in ("0° and 180° only", "pre-turned images")}
for name in ("rotation", "pre-turned images"):
    print(f"{name:20} turns told {sum(told(models[name])) / len(run.seeds):.2f}")

# %% mystnb={"image": {"alt": "Probe accuracy after blocks 3 and 4 of the encoder for all labels, SimCLR, rotation and a random encoder. Labels and SimCLR stay high to the last block, rotation and the random encoder fall towards it."}, "figure": {"caption": "A linear probe after blocks 3 and 4, after all four in longer runs: rotation's features are near SimCLR's after block 3 and fall towards block 4. Dashes: random encoder after block 3.", "name": "fig-rotnet-depth"}}
depth = run.curve("rotnet", "probe accuracy after each block", blocks, {name: list(d.values()) for name, d in deep.items()},
                  "block of the encoder", "probe accuracy")  # fmt: skip
_ = lab.plots.curve(depth, floor=UNTRAINED)

# %%
run.claim("rotnet", "A rotation network's third block gives a better probe than a random encoder's",
          deep["rotation"][3], floor, margin=0.1, floor=floor)

# %%
fall = {name: [a - b for a, b in zip(deep[name][3], deep[name][4], strict=True)] for name in ("rotation", "SimCLR")}
run.claim("rotnet", "From the third block to the last a rotation network's probe loses more than SimCLR's",
          fall["rotation"], fall["SimCLR"], margin=0.02)

# %%
run.claim("rotnet", "Upright images give a better probe than the same images turned beforehand",
          deep["rotation"][3], rivals["pre-turned images"], margin=0.05, floor=floor)

# %%
run.claim("rotnet", "Four turns give a better probe than two, at as many images a step",
          deep["rotation"][3], rivals["0° and 180° only"], margin=0.02, floor=floor)

# %% [markdown]
# Two things that the paper follows along an axis. Do the features become better *while* the turns are learnt? Two
# lengths of training are drawn here, four in longer runs; no statement is made of them. And how many labels does a
# probe on these features need? Its rival is the same network, trained on these labels alone.

# %%
shares = run.pick(quick=(1 / 3, 1), full=(1 / 8, 1 / 4, 1 / 2, 1), long=(1 / 8, 1 / 4, 1 / 2, 1))
lengths = [rotation() if s == 1 else stage.arm(f"rotation {s:.2f}", P.RotNet, stage.plain_views, steps=round(s * STEPS)) for s in shares]
together = run.curve("rotnet", "turns told and probe accuracy over the training", shares,
                     {"probe after block 3": [stage.probes(m) for m in lengths], "turns told": [told(m) for m in lengths]},
                     "share of the steps", "accuracy")  # fmt: skip

# %%
every = len(stage.train_labels)
counts = run.pick(quick=(FEW, every), full=(250, 1000, FEW, every), long=(60, FEW, 600, every))
alone = {n: labelled("labels alone", P.Classifier, labels=n) for n in counts[:-1]} | {every: models["all labels"]}
few_labels = run.curve(
    "rotnet", "accuracy against number of labels", counts,
    {"probe on rotation, block 3": [*(stage.probes(models["rotation"], labels=n) for n in counts[:-1]), results["rotation"]],
     "network taught by these labels": [stage.right(alone[n]) for n in counts]},
    "labels", "test accuracy", log=True)  # fmt: skip

# %% mystnb={"image": {"alt": "Turns told and probe accuracy against the share of the training: both rise."}, "figure": {"caption": "The longer training tells more turns and leaves the better features.", "name": "fig-rotnet-together"}}
_ = lab.plots.curve(together)

# %% mystnb={"image": {"alt": "Test accuracy against the number of labels, of a probe on rotation's features and of a network taught by these labels alone. The taught network lies above at both ends."}, "figure": {"caption": "With few labels and with all of them the taught network is ahead of the probe.", "name": "fig-rotnet-labels"}}
_ = lab.plots.curve(few_labels)

# %%
run.claim("rotnet", "With few labels a probe on rotation's features beats the network that is taught by these labels alone",
          stage.probes(models["rotation"], labels=FEW), stage.right(alone[FEW]), margin=0.02, floor=floor)

# %% [markdown]
# *Measured*, at both lengths: rotation's features beat the random encoder's, and four turns beat two. Over the lengths
# of the longer run the probe rises with the turns told.
#
# The upright pays in the minute alone. Four times as long, images turned beforehand give as good a probe: the gain is
# surely smaller than we asked (*measured*). In the minute that network tells the turns of new images no better than by
# guessing, as the print above says, and its probe differs much from seed to seed. *Our guess*: to tell how an image of
# the training set *was* turned one can know the image, and that teaches features too, only later.
#
# From the third block to the last a rotation network loses more than SimCLR does; four times as long it still does with
# each seed, but our margin is open. Rotation's best of all four blocks is there the second with each seed, as in the
# paper, where labels and SimCLR rise to the last in the mean (all *measured*). The authors' reason, which is *our
# guess* too: its end belongs to its task.
#
# The paper's finding with few labels is reversed at both lengths: the taught network is ahead, in the longer run at
# each number of labels (*measured*). *Our guess* why: its views turn every colour, which tells it what a class does not
# depend on; the probe sees each labelled image once, as it is.

# %% [markdown]
# (revisiting-ssl-cnn)=
# ## Does the network matter as much as the question?
# Pretext tasks had been compared on whatever network was at hand. Revisiting Self-Supervised Visual Representation
# Learning crosses four tasks with several architectures and widths, all read by linear probes on every block, and finds
# that a ranking of tasks holds for one network and turns for another. Three of its findings can be tested here, in four
# statements: on skips, on width, and on what the accuracy on the pretext task tells. The first is about the way from
# block to block:
#
# $$h_{l+1} = \phi(h_l) \;\text{(plain)}, \qquad h_{l+1} = h_l + \phi(h_l) \text{(with skip)} .$$
#
# $h_l$ is what the network holds after block $l$, $\phi$ the block's convolutions. Towards the end, says the paper, a
# plain network gives up what its task does not need; one with skips need not. In the code the skip is the line with
# `self.residual`, and only blocks after the fourth have one.

# %%
lab.show(P.BlockNet.maps, P.Block.forward)

# %% [markdown]
# To have an end that can specialise, the encoder gets five blocks more, which keep the map's size: with and without
# skips, and with skips at more widths. The task is rotation. The probe reads two blocks here, the third and the last,
# so that the *best block* of the statement is the better of these two. Longer runs read more of them, and cross the
# networks with SimCLR, which asks which view belongs to which. Less is better in the verdict that follows, so it turns
# the difference round.

# %%
narrow, tail = run.pick(quick=16, full=32), run.pick(quick=dict(tail=5), full={})
widths = run.pick(quick=(16, 32), full=(32, 64), long=(8, 16, 24, 32))
NETS = {"plain": dict(width=narrow, residual=False) | tail, "skip": dict(width=narrow, residual=True) | tail}
DEPTHS = run.pick(quick=(3, 9), full=(2, 3, 4), long=(3, 4, 6, 9))
TASKS = {"rotation": rotation}
if run.scale != "quick":
    TASKS["SimCLR"] = partial(stage.arm, "SimCLR", C.SimCLR, 2, 2 * IMAGES)

# %%
crossed = {(task, net): train(network=NETS[net]) for task, train in TASKS.items() for net in NETS}
found = {key: {b: stage.probes(trained, b) for b in DEPTHS} for key, trained in crossed.items()}

# %% mystnb={"image": {"alt": "Probe accuracy after block 3 and after the last for a plain rotation network and one with skips. In a minute both fall by about as much, and the one with skips lies higher."}, "figure": {"caption": "A probe in the middle and at the end of networks that were taught rotation, in longer runs SimCLR too. Dashes: random encoder without the extra blocks, after block 3.", "name": "fig-revisiting-cross"}}
_ = lab.plots.curve(run.curve("revisiting-ssl-cnn", "probe accuracy after each block, with and without skips", DEPTHS,
                              {f"{task}, {net}": list(found[task, net].values()) for task, net in found},
                              "after block", "probe accuracy"), floor=UNTRAINED)  # fmt: skip

# %%
last = DEPTHS[-1]
after = {key: list(zip(*(found[key][b] for b in DEPTHS), strict=True)) for key in found}
drop = {key: [max(row) - row[-1] for row in rows] for key, rows in after.items()}

# %%
run.claim("revisiting-ssl-cnn", "With skips a rotation network loses less of its best block's probe by the last one",
          drop["rotation", "skip"], drop["rotation", "plain"], margin=0.02, higher_is_better=False)

# %%
if run.scale != "quick":
    run.claim("revisiting-ssl-cnn", "With skips a SimCLR network loses less of its best block's probe by the last one",
              drop["SimCLR", "skip"], drop["SimCLR", "plain"], margin=0.02, higher_is_better=False)

# %% [markdown]
# Width next, and with it the question whether the pretext's own accuracy says which network to take. The paper says:
# within one architecture perhaps, across them no.

# %%
wider = {w: rotation(network=NETS["skip"] | dict(width=w)) for w in widths}
width = run.curve("revisiting-ssl-cnn", "probe and rotation accuracy against width", widths,
                  {"probe after block 3": [stage.probes(m) for m in wider.values()],
                   "the same, 60 labels": [stage.probes(m, labels=60) for m in wider.values()],
                   "turns told": [told(m) for m in wider.values()]}, "channels of the first block", "accuracy")  # fmt: skip

# %% mystnb={"image": {"alt": "Accuracy against the width of the network: a probe on all labels, a probe on 60 labels, and the share of turns told. In the mean all rise with width, in a minute the probe on 60 labels by little."}, "figure": {"caption": "The wider network tells more turns and on average gives the better probe; with few labels the difference is small in a minute.", "name": "fig-revisiting-width"}}
_ = lab.plots.curve(width)

# %%
run.claim("revisiting-ssl-cnn", "Twice the width gives a better probe after rotation",
          stage.probes(wider[2 * narrow]), stage.probes(wider[narrow]), margin=0.02, floor=floor)

# %%
run.claim("revisiting-ssl-cnn", "Twice the width gives a better probe after rotation on 60 labels too",
          stage.probes(wider[2 * narrow], labels=60), stage.probes(wider[narrow], labels=60), margin=0.0)

# %%
net_told = {net: told(crossed["rotation", net]) for net in NETS}
distance = lambda a, b: [abs(x - y) for x, y in zip(a, b, strict=True)]
run.claim("revisiting-ssl-cnn", "Plain and skip networks differ more in the last block's probe than in rotation accuracy",
          distance(found["rotation", "plain"][last], found["rotation", "skip"][last]),
          distance(net_told["plain"], net_told["skip"]), margin=0.02)  # fmt: skip

# %% [markdown]
# A minute leaves all four statements open; the longer run settles two, as the paper has them. With skips a rotation
# network loses far less of its best block's probe by the last one. And plain and skip networks tell the turns about
# equally often, while their last blocks differ far more (both *measured*): across architectures the pretext's accuracy
# does not say which network to take. *Our guess* why a minute shows neither: its last blocks have learnt little,
# whatever the way to them.
#
# Within one architecture it does: over four widths the turns told and the probe, with all labels and with 60, rise
# together in the mean (*measured*, without a statement). *Twice* the width has the better mean at both lengths, and
# both statements stay open.
#
# SimCLR's statement, asked in the longer run alone, is open and says nothing. These networks have half the channels and
# five blocks more, and on them SimCLR's probe lies below the dashed line after the third block, and near guessing from
# there on, with skips or without (*measured*).
#
# The paper's most quoted finding, that the order of the tasks turns with the network, needs more tasks than two and is
# left out at every length.

# %% [markdown]
# (jigclu)=
# ## Four images in one
# Contrastive methods send every image through the network twice. Jigsaw Clustering wants the comparison within a
# *single* pass: cut each image into four overlapping patches, shuffle the patches of the whole batch, and lay four
# strangers into each montage. The network sees the montages; its last map is cut into cells again. One pass is enough,
# since its cells are both the partners, three for each, and the strangers to be told from them.
#
# In the paper the montages of a batch have as many pixels as the batch. Here a patch, a window of 0.8 of the image's
# side, is cropped once more and resized to the size of an image: a step has the pixels of four copies, as for the other
# tasks.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A batch of images is cut into patches, the patches of all images are shuffled into montages, one network makes maps of these, and the maps are cut into cells. Each cell goes to two losses: which cells belong to one image, and from which quadrant a patch was cut."}, "figure": {"caption": "JigClu. One pass; the comparison is made between cells.", "name": "fig-jigclu-diagram"}}
parts = {
    "images": (0, 1), "4 patches\neach": (1, 1), "shuffled\nmontages": (2, 1), "network": (3, 1, "trained"), "cells": (3.9, 1),
    "same\nimage?": (4.9, 0.4, "loss"), "which\nquadrant?": (4.9, 1.6, "loss"),
}
order = ["images", "4 patches\neach", "shuffled\nmontages", "network", "cells"]
arrows = [*zip(order, order[1:], strict=False), ("cells", "same\nimage?"), ("cells", "which\nquadrant?")]
_ = lab.plots.diagram(parts, arrows, width=6.2)

# %% [markdown]
# For cell $i$, with $C_i$ the other cells of its image,
#
# $$\mathcal L_{clu} = \frac{1}{4M}\sum_i \frac{-1}{|C_i|} \sum_{j \in C_i} \log \frac{\exp(\cos(z_i, z_j)/\tau)}{\sum_{k \neq i} \exp(\cos(z_i, z_k)/\tau)},
# \qquad \mathcal L = \mathcal L_{clu} + \mathcal L_{loc} ,$$
#
# where $M$ is the number of images a step, $z_i$ the projection of cell $i$, $\tau$ a temperature, $|C_i| = 3$, and
# $\mathcal L_{loc}$ asks from which quadrant the patch was cut. Clustering needs what patches of an image share,
# location what tells them apart. The released code has a factor $\tau/0.07$ before the first, so that the two weigh
# 4.29 : 1; the longer run has an arm with it.

# %%
lab.show(P.montage, P.cells, P.cluster_loss)

# %%
lab.show(P.JigClu.parts, P.JigClu.forward)

# %% mystnb={"image": {"alt": "Eight montages, each of four patches that show parts of different digits in different colours."}, "figure": {"caption": "Montages of the patches of eight images, as the network sees them.", "name": "fig-jigclu-montages"}}
pieces = partial(P.patch_views, views=stage.views)
shown = pieces(stage.train_images[:8], run.generator(0))
_ = lab.plots.images(
    P.montage(shown[torch.randperm(32, generator=torch.Generator().manual_seed(0)).to(shown.device)]).clamp(0, 1)
)

# %%
arms = {"location alone": dict(clu=0.0), "1 : 1": {}, "4.29 : 1": dict(clu=0.3 / 0.07), "clustering alone": dict(loc=0.0)}
if run.scale == "quick":
    del arms["4.29 : 1"]
weighed = {name: stage.arm(f"jigclu {name}", partial(P.JigClu, **changed), pieces) for name, changed in arms.items()}
own_four = stage.arm("jigclu own four", partial(P.JigClu, mix=False), pieces)
models["JigClu"] = weighed["1 : 1"]
branches = {name: stage.probes(trained) for name, trained in weighed.items()}
results["JigClu"] = branches["1 : 1"]

# %% mystnb={"image": {"alt": "Probe accuracy of JigClu against the weight of its clustering branch, from location alone to clustering alone, at long scale also at the released code's 4.29 to 1. In a minute it falls from left to right."}, "figure": {"caption": "Weight of clustering against location. Dashes: random encoder.", "name": "fig-jigclu-branches"}}
_ = lab.plots.curve(run.curve("jigclu", "probe accuracy against the weight of clustering", list(arms), {"JigClu": list(branches.values())},
                              "clustering : location", "probe accuracy after block 3"), floor=UNTRAINED)  # fmt: skip

# %%
run.claim("jigclu", "Both branches give a better probe than clustering alone",
          results["JigClu"], branches["clustering alone"], margin=0.02, floor=floor)

# %%
run.claim("jigclu", "Both branches give a better probe than location alone",
          results["JigClu"], branches["location alone"], margin=0.0, floor=floor)

# %%
run.claim("jigclu", "Montages of four images give a better probe than an image's own four patches",
          results["JigClu"], stage.probes(own_four), margin=0.02, floor=floor)

# %%
run.claim("jigclu", "JigClu gives a better probe than SimCLR with as many pixels a step",
          results["JigClu"], results["SimCLR"], margin=0.0, floor=floor)

# %% [markdown]
# Both branches beat clustering alone, whose mean lies below the random encoder's, at both lengths (*measured*). Against
# location alone the minute's verdict is reversed; four times as long both branches are ahead with each seed, and the
# statement is open. The weights of the released code leave a far lower probe there (*measured*, without a statement).
# So location carries the result. *Our guess* why: a quarter of a digit is a stroke, its colours were drawn anew, and
# little is left by which four strokes of one 3 belong together. The paper has clustering first and location as a help.
#
# With both branches on, montages of strangers beat an image's own four patches at both lengths (*measured*); location
# alone was not trained on own patches. *Our guess* why: in a montage of one image neighbours are always partners, and
# the first convolution sees a pixel across the seam, so that the seam tells who belongs together, without a look at
# what a patch shows.
#
# Against SimCLR with as many pixels the verdict turns over: behind in the minute, JigClu is ahead four times as long,
# by little (both *measured*). Location alone is level with SimCLR there in the mean.

# %% [markdown]
# (relational-reasoning)=
# ## Same or different?
# SimCLR's loss, NT-Xent, picks the partner of a view among all others by their cosines
# ([Contrastive learning](contrastive.ipynb)). Why not let a network compare? Relational reasoning encodes $K$ copies of
# $M$ images, joins pairs of features, and asks a small perceptron $R$ whether they show the same image.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. Images in K copies go through one encoder to features. Features of two copies of one image are joined to positive pairs, features of two images to negative pairs. A small relation head says for each pair same or different."}, "figure": {"caption": "Relational reasoning. The comparison itself is a network; it is thrown away afterwards.", "name": "fig-relational-diagram"}}
parts = {
    "K copies of\nM images": (0, 1), "encoder": (1.1, 1, "trained"), "joined with\nitself": (2.4, 0.4), "joined with\nanother": (2.4, 1.6),
    "relation\nhead": (3.6, 1, "trained"), "same?": (4.6, 1, "loss"),
}
arrows = [("K copies of\nM images", "encoder"), ("encoder", "joined with\nitself"), ("encoder", "joined with\nanother")]
arrows += [("joined with\nitself", "relation\nhead"), ("joined with\nanother", "relation\nhead"), ("relation\nhead", "same?")]
_ = lab.plots.diagram(parts, arrows, width=6.2)

# %% [markdown]
# For each pair of copies $(a, b)$ every image gives one
# positive and, with a shift that changes from pair to pair, one negative:
#
# $$\mathcal L = \frac{1}{M K (K-1)} \sum_{a < b} \sum_{i} \ell\bigl(R([z^a_i, z^b_i]),\, 1\bigr) +
# \ell\bigl(R([z^a_i, z^b_{i + d}]),\, 0\bigr) , \qquad \ell = -\tfrac12 (1 - p)^\gamma \log p .$$
#
# $z^a_i$ is the feature of copy $a$ of image $i$, $[\cdot,\cdot]$ puts two features end to end, and $d$ is the shift,
# with which $i + d$ starts again at the first image. $p$ is the probability of the right answer, and $\gamma = 2$ gives
# pairs that are already clear less weight. The cost grows with $M$, not $M^2$; it does grow with $K^2$. The pairs are
# $M K (K-1)$, and yet cheap: the first layer of $R$ is linear, so $W[z, z'] = W_1 z + W_2 z'$ needs each feature once.
#
# The check below counts the pairs. The last of its three parts says that $d$ is never zero: no pair that is called
# different shows one image.

# %%
lab.show(P.relation_pairs, P.RelationHead, P.relation_loss)

# %%
counts = [(m, k, P.relation_pairs(m, k)) for m, k in ((2, 2), (32, 8), (7, 4))]
wrong = sum(
    abs(len(same) - m * k * (k - 1))
    + abs(2 * int(same.sum()) - len(same))
    + int((same != (left % m == right % m)).sum())
    for m, k, (left, right, same) in counts
)
run.exact("relational-reasoning",
          "M images in K copies give MK(K-1) pairs, half of them positive, and no negative is one in secret",
          wrong, at_most=0, data="indices")

# %% [markdown]
# More copies help, says the paper, and counts steps. But $K$ copies cost $K$ forward passes. So longer runs vary $K$
# twice: at the same number of images, as here, and at the same number of passes, where few copies leave room for more
# images. They alone put a scaled cosine, a dot product of unit vectors, in the place of $R$, and so ask whether the
# learned comparison is worth it.
#
# One thing is different in this section, for relational reasoning and for SimCLR beside it: the colours of the views
# move but do not turn. While settings were chosen, and not on this page, the head did not get going on colours that
# turn freely. Rotation, whose neighbours are compared below, keeps the views it had.

# %%
few, most = IMAGES // 2, 8
counts = run.pick(quick=(2, most), full=(2, 4, most), long=(2, 4, most))


def relational(k, images, head="relation"):
    made = partial(P.Relational, head=head)
    return stage.arm(f"relational {k} {images} {head}", made, partial(steady, views=k), images)


# %%
copied = {"as many images a step": [relational(k, few) for k in counts]}
if run.scale != "quick":
    copied["as many passes a step"] = [relational(k, few * most // k) for k in counts]
models |= {"rotation": rotation(), "relational": relational(most, few)}
rival = steady_simclr()
results["relational"] = stage.probes(models["relational"])
related = {name: [stage.probes(m) for m in trained] for name, trained in copied.items()}

# %% mystnb={"image": {"alt": "Probe accuracy against the number of copies, at as many images a step, in longer runs also at as many forward passes. It rises with the copies."}, "figure": {"caption": "Copies at the same number of images; in longer runs at the same price too. Dashes: random encoder.", "name": "fig-relational-copies"}}
_ = lab.plots.curve(run.curve("relational-reasoning", "probe accuracy against the number of copies", counts, related,
                              "copies K of an image", "probe accuracy after block 3", log=True), floor=UNTRAINED)  # fmt: skip

# %%
run.claim("relational-reasoning", "Eight copies give a better probe than two, at the same number of steps and images",
          results["relational"], related["as many images a step"][0], margin=0.02, floor=floor)

# %%
if run.scale != "quick":
    run.claim("relational-reasoning", "A network that compares gives a better probe than a cosine",
              results["relational"], stage.probes(relational(most, few, "dot")), margin=0.0, floor=floor)

# %%
run.claim("relational-reasoning", "Relational reasoning gives a better probe than SimCLR at the same forward passes",
          results["relational"], stage.probes(rival), margin=0.0, floor=floor)

# %% [markdown]
# Do the features serve other classes than those of the training? The paper trains on one data set and probes on
# another; here the digits 0, 1, 8 and 9 are the other. And do an image's nearest neighbours show its class? The paper
# holds them against rotation's.

# %%
foreign = {name: stage.probes(m, odd=True) for name, m in (models | {"SimCLR": rival}).items()
           if name in ("relational", "SimCLR", "random encoder")}  # fmt: skip
run.claim("relational-reasoning", "On digits that no encoder has seen relational reasoning gives a better probe than SimCLR",
          foreign["relational"], foreign["SimCLR"], margin=0.0, floor=foreign["random encoder"])

# %%
nearest = {name: [lab.evaluate.knn(*stage.both(P.Block(getattr(m, "encoder", m), 3)), k=1) for m in models[name]]
           for name in ("relational", "rotation", "random encoder")}  # fmt: skip
run.claim("relational-reasoning", "The nearest neighbour shares the class more often than among rotation's features",
          nearest["relational"], nearest["rotation"], margin=0.02, floor=nearest["random encoder"])

# %% [markdown]
# At equal steps many copies beat two by a wide margin at both lengths (*measured*), and that is the paper's ablation.
# Two copies of so few images end below the random encoder in the mean. At an equal number of passes, the fairer price,
# most of the gain is gone: in the longer run two copies of more images come near eight (*measured*, without a
# statement). Whether a network that compares beats a cosine, which is the idea itself, stays open there; the cosine is
# ahead with each seed.
#
# Three statements are reversed at both lengths. SimCLR gives the better probe, and the better one on digits that were
# never seen. And the nearest neighbour shares the class more often among rotation's features; relational reasoning's
# share is in the mean even below the random encoder's, the floor of that verdict. Four times the steps help the rivals
# and not its own probe (all *measured*). *Our guess* why: the encoder can lean on whatever makes pairs easy to tell
# apart, here colour.

# %% [markdown]
# (obow)=
# ## Guess the words
# RotNet's own author later dropped rotation. A rotation network can serve as the *first* teacher: describe an image by
# the visual words it holds, as one did before deep learning, and let a student guess that bag of words from a part of
# the image. OBoW does without the first teacher and its k-means: everything is made online.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. A whole image goes through the teacher, a slow copy of the student, to features at each place; compared with a queue of words they make a bag of words. A crop goes through the student to one feature. A generator makes a classifier from the words; the loss compares the student's guess with the bag. No gradient flows into the teacher's side."}, "figure": {"caption": "OBoW. Teacher, words and classifier all move with the student; no gradient reaches the teacher (✕).", "name": "fig-obow-diagram"}}
parts = {
    "image": (0, 0), "crop": (0, 2), "teacher": (1.1, 0, "copy"), "student": (1.1, 2, "trained"), "words": (2.4, 1, "store"),
    "bag": (3.5, 0), "generator": (3.5, 1, "trained"), "guess": (3.5, 2), "loss": (4.6, 1, "loss"),
}
arrows = [
    ("image", "teacher"), ("crop", "student"), ("student", "teacher", "average"), ("teacher", "words"), ("teacher", "bag"),
    ("words", "bag"), ("words", "generator"), ("student", "guess"), ("generator", "guess"), ("bag", "loss", "", "stop"), ("guess", "loss"),
]
_ = lab.plots.diagram(parts, arrows, width=6.2)

# %% [markdown]
# The slow copy, $\theta_T \leftarrow m\,\theta_T + (1-m)\,\theta_S$, makes
# features $f_u$ at each place $u$; the words $v_k$ are a queue of recent ones; and
#
# $$q_k(u) = \operatorname{softmax}_k\Bigl(-\tfrac{1}{\delta}\lVert f_u - v_k \rVert^2\Bigr), \qquad b_k \propto \max_u q_k(u), \qquad
# \mathcal L = -\sum_k b_k \log \operatorname{softmax}_k\bigl(\kappa\, s^\top G(v_k)\bigr) ,$$
#
# with $\theta_T$ and $\theta_S$ the weights of teacher and student, $m$ the momentum, $q_k(u)$ how much of word $k$ is
# at place $u$, $b$ the bag, whose entries sum to 1, $s$ the student's feature of a crop, and $\kappa$ a scale. The
# words change at every step, so no classifier can be learnt for the $k$-th: the generator $G$, a perceptron of two
# layers whose output is brought to length 1, makes it from the word. $\delta$ follows the mean distance to the nearest
# word. The code takes features and words from the words' mean, which changes no distance and keeps more of its digits.
#
# Nothing in the loss forbids a teacher to whom all images hold the same word, so the words in use are counted below.
# *Our guess* what holds them apart: they are the teacher's own recent features, and $\delta$ shrinks with their
# distances.

# %%
lab.show(P.soft_codes, P.bag_of_words, P.bow_loss)

# %%
lab.show(P.OBoW.target, P.OBoW.forward)

# %% [markdown]
# One arm takes something out: it has no crops. Longer runs add the rival that OBoW came to replace, **BoWNet**, whose
# code is shown below and does not run here: the rotation network of above is the teacher and stays, $k$-means makes the
# words, once, and their classifiers are learnt.
#
# Views have steady colours, as in the section before: a random teacher's words are colours first of all, and what is
# drawn anew for every view cannot be guessed. And a method that lifts itself by its own bootstraps gets more steps than
# others: `BOW["steps"]` of them, with two crops of an image.

# %%
lab.show(P.vocabulary, P.BoWNet.target, P.BoWNet.forward)

# %%
BOW = run.pick(quick=dict(batch_size=24, steps=300, lr=2e-3), full=dict(batch_size=IMAGES, steps=STEPS))
WORDS = run.pick(quick=dict(level=3, words=128, renew=4, momentum=0.97, kappa=5.0),
                 full=dict(level=4, words=4096, momentum=0.99, kappa=5.0, inv_delta=10.0))  # fmt: skip
level = WORDS["level"]
least = run.pick(quick=(0.3, 1.0), full=(0.1, 0.3, 1.0), long=(0.3, 0.6, 1.0))
parts = {low: partial(P.crop_views, views=steady, crops=2, scale=(low, min(low + 0.5, 1))) for low in least}
obow = partial(P.OBoW, steps=lab.train.allowed(BOW["steps"]), **WORDS)
cropped = {low: stage.arm(f"OBoW crops {low}", obow, seen, **BOW) for low, seen in parts.items()}

# %%
models["OBoW"] = cropped[0.3]
sizes = {low: stage.probes(trained) for low, trained in cropped.items()}
results["OBoW"] = sizes[0.3]
if run.scale != "quick":
    models["BoWNet"] = []
    for seed, turner in zip(run.seeds, rotation(), strict=True):
        words = P.vocabulary(turner.encoder, stage.train_images, level, WORDS["words"], seed)
        made = partial(P.BoWNet, teacher=turner.encoder, words=words, level=level)
        models["BoWNet"].append(stage.pretrain("BoWNet", made, seed, views=parts[0.3], **BOW))
    results["BoWNet"] = stage.probes(models["BoWNet"])

# %% [markdown]
# Is the task learnt at all? On new images the student's guess from a crop can be held against the best guess that does
# not look, the mean bag. Both are losses: less is better, and the verdict turns the difference round, so that plus is
# good.

# %%
seen = parts[0.3](stage.test_images[:500], run.generator(3))
with torch.no_grad():
    targets = [m.target(seen[:500]) for m in models["OBoW"]]
    blind = [float(P.bow_loss((t.mean(0, keepdim=True) + 1e-9).log().expand_as(t), t)) for t in targets]
    guess = [float(P.bow_loss(m.encoder(seen[500:]) @ m.classifiers().T, t)) for m, t in zip(models["OBoW"], targets, strict=True)]
run.claim("obow", "From a crop of a new image the student guesses its words better than the mean bag does, in nats",
          guess, blind, margin=0.1, higher_is_better=False)

# %%
used = [P.perplexity(t) for t in targets]
print(
    f"words in use: {sum(u[0] for u in used) / len(used):.0f} in an image, {sum(u[1] for u in used) / len(used):.0f} in 500 images, of {WORDS['words']}"
)

# %%
# NBVAL_CHECK_OUTPUT
print(
    "targets sum to one:",
    all(torch.allclose(t.sum(1), torch.ones_like(t[:, 0]), atol=1e-4) for t in targets),
    "| no collapse to a few words:",
    min(u[1] for u in used) > 8,
)

# %%
run.claim("obow", "Guessing bags of words gives a better probe than a random encoder",
          results["OBoW"], floor, margin=0.02, floor=floor)

# %%
run.claim("obow", "Guessing the words from crops gives a better probe than from the whole image",
          results["OBoW"], sizes[1.0], margin=0.01, floor=floor)

# %%
if run.scale != "quick":
    run.claim("obow", "Made online, bags of words give a better probe than BoWNet's, whose teacher is a rotation network",
              results["OBoW"], results["BoWNet"], margin=0.0, floor=floor)

# %%
run.claim("obow", "OBoW gives a better probe than SimCLR on the same views",
          results["OBoW"], stage.probes(steady_simclr()), margin=0.0, floor=floor)

# %% mystnb={"image": {"alt": "Probe accuracy of OBoW against the smallest share of the image that a crop keeps."}, "figure": {"caption": "The smaller the crop, the less of the image the student sees; whether that helps, the seeds do not settle. Dashes: random encoder.", "name": "fig-obow-crops"}}
_ = lab.plots.curve(run.curve("obow", "probe accuracy against the size of crops", least, {"OBoW": list(sizes.values())},
                              "least share of the image in a crop", "probe accuracy after block 3"), floor=UNTRAINED)  # fmt: skip

# %% [markdown]
# Something is learnt: the student guesses words of new images, and its probe beats the random encoder's, by more in the
# longer run. It is little: that OBoW beats SimCLR is reversed at both lengths (all *measured*). A bag of words is a
# bootstrap. A random teacher describes an image by patches of colour, the student that guesses them may become a
# slightly better teacher, and so on. *Our guess* why so little comes of it: either run has too few such rounds.
#
# BoWNet's teacher has learnt something before it begins. That OBoW beats it, asked in the longer run, is reversed
# (*measured*). Whether crops are worth more than whole images neither run settles. *Our guess*: words of colour can be
# guessed from any part, so a part is no harder a question.

# %% [markdown]
# ## Beside labels
# So far labels were only for the test. Where there *are* a few, should the question about the image be asked beside the
# question about its class? The two papers that follow answer yes, and warn against the obvious way. All arms below see
# the same `FEW` labelled images, four views of each a step; they differ in what is turned and what is asked. A second
# question weighs `LAMBDA` wherever one is asked.

# %%
LAMBDA = 0.1
second = lambda task, kinds, lam=LAMBDA: partial(P.TwoHeads, task=task, kinds=kinds, lam=lam)  # a second question
ASKED = {
    "labels alone": P.Classifier,
    "turned copies": partial(P.Classifier, turned=True),
    "whole turns as second task": second(P.turn_all, 4),
    "LoRot-E": second(P.turn_cell, 16),
    "LoRot-I": second(P.turn_patch, 4),
}
teach = lambda *names: {name: labelled(name, ASKED[name]) for name in names}

# %% [markdown]
# (lorot)=
# ## Turn only a part
# A second task shares the images with the first. If it turns whole images, three quarters of what the classifier sees
# is not what it will be tested on. LoRot turns a *part*: one cell of a 2×2 grid (LoRot-E, which also asks for the cell,
# 16 answers) or one random square (LoRot-I, 4 answers), and lets both heads look at the same image:
#
# $$\mathcal L = \mathrm{CE}\bigl(y, p(x')\bigr) + \lambda\, \mathrm{CE}\bigl(r, p'(x')\bigr) .$$
#
# $x'$ is the image with a part turned, $y$ its class, $r$ the turn (for LoRot-E turn and cell), $p$ and $p'$ what the
# two heads say, and $\lambda$ the weight of the second, `LAMBDA`.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. An image, of which one part is turned, goes through one encoder to two heads: one says the class, the other the turn. Each has its loss."}, "figure": {"caption": "LoRot. Both heads see the same image, nearly as it was.", "name": "fig-lorot-diagram"}}
parts = {
    "image": (0, 0.5), "a part\nturned": (1.1, 0.5), "encoder": (2.2, 0.5, "trained"), "class head": (3.4, 0, "trained"),
    "turn head": (3.4, 1, "trained"), "CE, class": (4.6, 0, "loss"), "λ CE, turn": (4.6, 1, "loss"),
}
arrows = [
    ("image", "a part\nturned"), ("a part\nturned", "encoder"), ("encoder", "class head"), ("encoder", "turn head"),
    ("class head", "CE, class"), ("turn head", "λ CE, turn"),
]
_ = lab.plots.diagram(parts, arrows, width=6.2, height=1.9)

# %%
lab.show(P.turn_cell, P.turn_patch)

# %%
lab.show(P.TwoHeads.forward)

# %% mystnb={"image": {"alt": "Four digits as they are, turned as a whole, with one quarter of the image turned, and with one inner square turned."}, "figure": {"caption": "Three ways of turning. After the last two a digit is still the same digit.", "name": "fig-lorot-turns"}}
x, ones = stage.test_images[:4].float() / 255, torch.ones_like(stage.test_labels[:4])
cell = P.turn_cell(x, label=torch.tensor([1, 5, 9, 13], device=x.device))[0]
shown = torch.cat([x, P.turn(x, ones), cell, P.turn_patch(x, (4, 6, 8), ones)[0]])
names = [label for name in ("as it is", "whole", "cell (E)", "square (I)") for label in (name, "", "", "")]
_ = lab.plots.images(shown, labels=names, width=9)

# %% [markdown]
# How far does each leave the images as they are? *Affinity* takes a network that never saw the task: its accuracy on
# transformed images, over its accuracy on the images themselves.

# %%
squares = lambda x: (torch.cat([P.turn_patch(part)[0] for part in x.split(20)]), None)  # a batch has one square
tasks = {"whole": P.turn_all, "cell (LoRot-E)": P.turn_cell, "square (LoRot-I)": squares}
torch.manual_seed(0)
with torch.no_grad():
    said = [lambda x, m=m: float((m.scores(x).argmax(1) == stage.test_labels).float().mean()) for m in models["all labels"]]
    near = {name: [P.affinity(correct, stage.test_images, task) for correct in said] for name, task in tasks.items()}

# %%
same = {
    tuple(
        P.turn_cell(stage.test_images[:1].float(), label=torch.tensor([k], device=run.device))[0].flatten().tolist()
    )
    for k in range(16)
}
run.exact("lorot",
          "Of LoRot-E's 16 labels 4 are one image, so that a perfect network tells 13 of 16 (distance from that share)",
          abs(len(same) / 16 - 13 / 16), at_most=0.0)

# %%
run.claim("lorot", "A turned square stays nearer to the images than a turned cell",
          near["square (LoRot-I)"], near["cell (LoRot-E)"], margin=0.02)

# %%
run.claim("lorot", "A turned cell stays nearer to the images than a turned whole",
          near["cell (LoRot-E)"], near["whole"], margin=0.1)

# %% [markdown]
# Accuracy is one thing. The paper also wants to know whether the network notices what belongs to no class: here the
# digits 0, 1, 8 and 9, which it has never seen. The score is KL(uniform ‖ softmax), the measure the area under the ROC
# curve.

# %%
parted = teach("labels alone", "whole turns as second task", "LoRot-I", *run.pick(quick=(), full=("LoRot-E",), long=("LoRot-E",)))
scored = {name: stage.right(trained) for name, trained in parted.items()}
noticed = {name: [P.noticed(m, stage.test_images, stage.odd_images) for m in trained] for name, trained in parted.items()}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three bar charts: affinity of whole, cell and square turns; test accuracy; and AUROC for unseen classes of classifiers taught by few labels."}, "figure": {"caption": "A turned whole changes most, a square least (left), and the turned whole leaves the worst classifier (middle). A turned square costs some accuracy beside labels alone; whether it helps to notice unseen classes (right), five seeds do not settle. Dots are seeds, dashes guessing.", "name": "fig-lorot-results"}}
figure, panels = lab.plots.axes(3, 9, 2.3)
lab.plots.bars(panels[0], near, "affinity")
lab.plots.bars(panels[1], scored, "test accuracy", chance=1 / stage.classes)
lab.plots.bars(panels[2], noticed, "AUROC, unseen digits", chance=0.5)
_ = panels[2].set_yticklabels([])

# %%
run.claim("lorot", "Turning a square beside few labels gives a better accuracy than turning the whole",
          scored["LoRot-I"], scored["whole turns as second task"], margin=0.05)

# %%
run.claim("lorot", "Turning a square beside few labels gives a better accuracy than labels alone",
          scored["LoRot-I"], scored["labels alone"], margin=0.0)

# %%
if run.scale != "quick":
    run.claim("lorot", "Turning a cell beside few labels gives a better accuracy than labels alone",
              scored["LoRot-E"], scored["labels alone"], margin=0.0)

# %%
run.claim("lorot", "Turning a square notices unseen digits better than labels alone",
          noticed["LoRot-I"], noticed["labels alone"], margin=0.0)

# %% [markdown]
# What of it is the question, and what only the turned squares as augmentation? At $\lambda = 0$ the squares are turned
# and nobody asks.

# %%
weights = run.pick(quick=(0.0, LAMBDA), full=(0.0, LAMBDA, 0.5), long=(0.0, LAMBDA, 0.3, 1.0))
asked = {lam: parted["LoRot-I"] if lam == LAMBDA else labelled(f"LoRot-I {lam}", second(P.turn_patch, 4, lam)) for lam in weights}

# %% mystnb={"image": {"alt": "Test accuracy of LoRot-I against the weight of its second task, from 0 on: nearly level."}, "figure": {"caption": "Squares that are turned, with and without the question for their turn: the points lie close together.", "name": "fig-lorot-weight"}}
_ = lab.plots.curve(run.curve("lorot", "test accuracy against the weight of the second task", weights,
                              {"LoRot-I": [stage.right(m) for m in asked.values()]}, "λ", "test accuracy"))  # fmt: skip

# %% [markdown]
# Did it matter that only unseen *digits* were foreign? The same networks are shown textures without a digit, and noise.

# %%
run.curve("lorot", "AUROC for unseen digits, by arm", list(noticed), {"AUROC": list(noticed.values())}, "arm", "AUROC")
FAR = {name: {kind: [P.noticed(m, stage.test_images, images) for m in trained] for kind, images in stage.foreign.items()}
       for name, trained in parted.items()}  # fmt: skip
run.curve("lorot", "AUROC by what is foreign", list(stage.foreign),
          {name: list(found.values()) for name, found in FAR.items()}, "what is foreign", "AUROC")

# %%
run.claim("lorot", "Turning a square notices unseen digits better than turning the whole",
          noticed["LoRot-I"], noticed["whole turns as second task"], margin=0.03)

# %%
run.claim("lorot", "Turning a square notices textures without digits better than labels alone",
          FAR["LoRot-I"]["textures"], FAR["labels alone"]["textures"], margin=0.0)

# %% [markdown]
# Affinity says how near a task stays. *Diversity* says how much it adds: the loss of the classes in training, on images
# that the task transforms, over that of labels alone on the same images as they are, here its logarithm to base 10, as
# labels alone learn few images nearly by heart and the ratio is large. A good task has much of both, says the paper.
# And a turned cell should stay the nearer, the more cells there are.

# %%
OWN = {"labels alone": (), "whole turns as second task": (P.turn_all,), "LoRot-I": (squares,), "LoRot-E": (P.turn_cell,)}
more = {name: [] for name in parted}
for i, seed in enumerate(run.seeds):
    images, y = stage.few(min(FEW, 600), seed)
    x = stage.copies(4)(images, generator=run.generator(seed))
    for name, trained in parted.items():
        torch.manual_seed(seed)
        more[name].append(log10(P.diversity(trained[i], parted["labels alone"][i], x, y.repeat(4), *OWN[name])))
run.curve("lorot", "diversity by task", list(more), {"diversity": list(more.values())}, "task", "diversity, log10")

# %%
finer = {}
with torch.no_grad():
    for grid in (1, 2, 4):
        torch.manual_seed(0)
        finer[grid] = [P.affinity(correct, stage.test_images, partial(P.turn_cell, grid=grid)) for correct in said]
run.curve("lorot", "affinity against the cells of the grid", list(finer), {"one cell turned": list(finer.values())},
          "cells a side", "affinity")

# %%
run.claim("lorot", "Turning the whole raises the training loss of the classes more than turning a square",
          more["whole turns as second task"], more["LoRot-I"], margin=0.2)

# %%
run.claim("lorot", "One cell of sixteen turned stays nearer to the images than one of four",
          finer[4], finer[2], margin=0.05)

# %% [markdown]
# Do parts make a classifier sturdier? Noise is added to the test images. An attack moves each value by at most so much,
# in the direction that raises the loss, in a few steps.

# %%
clear = stage.test_images.float() / 255
cloud = torch.randn(clear.shape, generator=torch.Generator().manual_seed(0)).to(clear.device)
right = lambda m, x, y: float((m.scores(x).argmax(1) == y).float().mean())
NOISE, PUSH = (0.0, 0.05, 0.1, 0.2), run.pick(quick=(0.0, 0.01), long=(0.0, 0.005, 0.01, 0.02), full=(0.0, 0.005, 0.01, 0.02))
with torch.no_grad():
    foggy = {name: [[right(m, (clear + s * cloud).clamp(0, 1), stage.test_labels) for m in trained] for s in NOISE]
             for name, trained in parted.items()}  # fmt: skip

# %% tags=["hide-input"] mystnb={"image": {"alt": "Test accuracy against the standard deviation of noise for labels alone, whole turns as second task and LoRot-I, in longer runs LoRot-E too: all fall."}, "figure": {"caption": "The classifiers on test images with noise of this standard deviation added to values between 0 and 1.", "name": "fig-lorot-noise"}}
_ = lab.plots.curve(run.curve("lorot", "test accuracy against noise", NOISE, foggy,
                              "standard deviation of the noise", "test accuracy"))  # fmt: skip

# %%
x, y = clear[:500], stage.test_labels[:500]
pushed = {name: [[right(m, P.attacked(m.scores, x, y, size), y) for m in trained] for size in PUSH]
          for name, trained in parted.items()}  # fmt: skip
run.curve("lorot", "test accuracy against the size of an attack", PUSH, pushed, "largest change of a value", "test accuracy")

# %%
run.claim("lorot", "On noisy images a square turned beside few labels gives a better accuracy than labels alone",
          foggy["LoRot-I"][2], foggy["labels alone"][2], margin=0.0)

# %%
left = {name: [a / max(b, 0.01) for a, b in zip(points[PUSH.index(0.01)], points[0], strict=True)]
        for name, points in pushed.items()}  # fmt: skip
run.claim("lorot", "Under attack a turned square keeps a larger share of its accuracy than a turned whole",
          left["LoRot-I"], left["whole turns as second task"], margin=0.1)

# %% [markdown]
# And the price? Given one view of each image, LoRot turns a part of it and sends it through the encoder once. RotNet and
# SLA send four copies. (In this chapter all arms get four views of each image, so their steps cost about the same.)

# %%
batch, taken = clear[:IMAGES], torch.arange(IMAGES, device=clear.device)
priced = {"labels alone": parted["labels alone"][0], "LoRot-I": parted["LoRot-I"][0]}
priced["RotNet"] = P.RotNet(stage.encoder(0)).to(clear.device)
priced["SLA"] = P.SLA(stage.encoder(0), stage.train_labels, stage.classes).to(clear.device)
views = {name: batch.repeat(4, 1, 1, 1) if name == "SLA" else batch for name in priced}  # SLA turns copy by copy
cost = {name: P.step_cost(m, views[name], taken) for name, m in priced.items()}
run.curve("lorot", "seconds a step at one view of each image", list(cost),
          {"a step": [[seconds] * len(run.seeds) for _, seconds in cost.values()]}, "method", "seconds a step")
run.exact("lorot", "Of one view LoRot sends one image through the encoder, RotNet and SLA four (images too many)",
          sum(abs(cost[name][0] - n * IMAGES) for name, n in (("LoRot-I", 1), ("RotNet", 4), ("SLA", 4))), at_most=0)

# %%
if run.scale != "quick":
    jigsaw = labelled("jigsaw as second task", second(P.shuffle_quarters, 24))
    run.claim("lorot", "Turning a square beside few labels gives a better accuracy than a jigsaw as second task",
              scored["LoRot-I"], stage.right(jigsaw), margin=0.02)

# %% [markdown]
# To turn a square is far better than to turn the whole, and a turned cell stays nearer to the images than a turned
# whole, at both lengths. A square stays nearer still, as in the paper; the longer run has that order with each seed,
# and leaves the margin open (all *measured*).
#
# That a part turned *helps* is another matter. Beside labels alone the minute has the square reversed: it costs a
# little accuracy (*measured*). Four times as long the square, and the cell, asked there alone, are behind with each
# seed, and both statements are open. Whether anybody asks for the turn of the square, and with what weight, changes
# little in the curves of either run. So, by *our guess*, it is the turned square that costs. The paper's gain comes
# with all the labels of its data.
#
# Whether a square beside labels notices unseen digits better than labels alone neither run settles. Against a turned
# whole, against textures, in noise and under attack the verdicts above say how it came out, and the curves hold every
# arm. We had guessed that the paper's clear gain comes from foreign images of another kind. Textures without a digit are
# of another kind: where its statement is reversed or open, that guess does not hold up here, and *our guess* is the few
# labels, with which a part turned costs accuracy first.

# %% [markdown]
# (sla)=
# ## Make the turn part of the label
# Augmentation tells the classifier: this turned 4 is a 4, *do not look* at its turn. A second head says: tell me its
# turn, from the same features that should not look. SLA drops the conflict. There are $4N$ classes, a 4 lying on its
# left side being one of them:
#
# $$\mathcal L_{SLA} = \frac1T \sum_{r=1}^{T} \mathrm{CE}\bigl(\sigma(f(t_r x); w),\, (y, r)\bigr), \qquad
# A_i = \frac1T \sum_{r=1}^{T} w_{ir}^\top f(t_r x) .$$
#
# $f$ is the encoder, $t_r x$ the image under turn $r$ of $T = 4$, $y$ its class of $N$, $w_{ir}$ the weights for class
# $i$ under turn $r$, $\sigma(f; w)$ the softmax of $w^\top f$, and $A_i$ the aggregated score of class $i$. The code's
# comments keep the paper's letters, $M$ for $T$ and $s_i$ for $A_i$.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram. An image in four turns goes through one encoder to a joint head over pairs of class and turn. Its loss asks for the pair. The four answers, each for its own turn, are averaged; a plain head on the upright copy is trained towards that average, through which no gradient flows."}, "figure": {"caption": "SLA. One head for class and turn together; at the test its four answers are averaged, or distilled into a plain head (✕: no gradient).", "name": "fig-sla-diagram"}}
parts = {
    "4 turns": (0, 1), "encoder": (1.1, 1, "trained"), "joint head": (2.4, 0.3, "trained"), "plain head": (2.4, 1.7, "trained"),
    "class, turn": (4.8, 0.3, "loss"), "average": (3.6, 1), "distil": (4.8, 1.7, "loss"),
}
arrows = [
    ("4 turns", "encoder"), ("encoder", "joint head"), ("encoder", "plain head", "upright"), ("joint head", "class, turn"),
    ("joint head", "average"), ("average", "distil", "", "stop"), ("plain head", "distil"),
]
_ = lab.plots.diagram(parts, arrows, width=6.2)

# %% [markdown]
# At the test, each of the four turned copies is asked only for the classes of its own turn, and the four answers are
# averaged: $A_i$. That costs four passes. So self-distillation trains a plain head $w'$ on the upright copy towards the
# average, $\mathrm{KL}(P_{agg} \,\Vert\, \sigma(f(x); w')) + \beta\,\mathrm{CE}$, with $P_{agg}$ the softmax of $A$ and
# $\beta$ the weight of the true class. What it keeps of the gain, the longer run asks.

# %%
lab.show(P.sla_loss, P.aggregate, P.self_distillation)

# %%
lab.show(P.SLA.forward, P.SLA.single, P.SLA.aggregated)

# %%
turned = run.pick(quick=(4,), full=(2, 4), long=(2, 4))
joint = {m: labelled(f"SLA {m}", partial(P.SLA, copies=m), views=stage.copies(m), batch_size=4 * IMAGES // m) for m in turned}
members = range(run.pick(quick=2, full=4, long=4))
ensemble = [labelled("labels alone", P.Classifier, start=i) for i in members]

# %% [markdown]
# Two controls belong to the average of four. Averaging may pay without any labels for turns, so the plain classifier
# gets an ensemble as well: the same network trained from other weights, two of them here, four at long scale, as in the
# paper. And the single pass gets its own comparison, with the ways that also use turned copies.

# %%
rivals = teach("labels alone", "turned copies", "whole turns as second task")
scored = {name: stage.right(trained) for name, trained in rivals.items()}
scored["SLA, one pass"] = stage.right(joint[4], "single")
scored["SLA, four turns"] = stage.right(joint[4], "aggregated")
scored["ensemble"] = stage.right([P.Ensemble(several) for several in zip(*ensemble, strict=True)])

# %% mystnb={"image": {"alt": "Bars of test accuracy: labels alone, turned copies, whole turns as second task, SLA with one pass, SLA with four turns, and an ensemble of plain networks."}, "figure": {"caption": "Classifiers from few labels: one pass of SLA is far ahead of the other ways with turned copies, and four turns are ahead of one pass. One pass is a little behind labels alone. The last two make several passes a test image; dashes: guessing.", "name": "fig-sla-results"}}
lab.plots.bars(lab.plots.axes(1, 6.5, 3.0)[1], scored, "test accuracy", chance=1 / stage.classes)

# %%
run.claim("sla", "With one pass SLA is more accurate than a classifier taught on turned copies",
          scored["SLA, one pass"], scored["turned copies"], margin=0.02)

# %%
run.claim("sla", "With one pass SLA is more accurate than a second head for the turns",
          scored["SLA, one pass"], scored["whole turns as second task"], margin=0.02)

# %%
run.claim("sla", "With one pass SLA is more accurate than labels alone",
          scored["SLA, one pass"], scored["labels alone"], margin=0.0)

# %%
run.claim("sla", "The average over four turns is more accurate than one pass",
          scored["SLA, four turns"], scored["SLA, one pass"], margin=0.01)

# %%
run.claim("sla", "One network over four turns is no worse than an ensemble of networks by more than a point",
          scored["SLA, four turns"], scored["ensemble"], margin=-0.01)

# %%
if run.scale != "quick":
    run.claim("sla", "The distilled head is more accurate than the joint head's single pass",
              stage.right(labelled("SLA distilled", partial(P.SLA, distil=1.0))), scored["SLA, one pass"], margin=0.0)

# %% mystnb={"image": {"alt": "Test accuracy against the number of turns in label and average: it rises from one to four."}, "figure": {"caption": "More turns in the label and in the average: one turn is the plain classifier. The axis has the paper's M for the number of turns, T in the text.", "name": "fig-sla-turns"}}
averages = [scored["labels alone"], *(stage.right(trained, "aggregated") for trained in joint.values())]
_ = lab.plots.curve(run.curve("sla", "test accuracy against the number of turns", (1, *turned), {"SLA, all turns": averages},
                              "turns M", "test accuracy"))  # fmt: skip

# %% [markdown]
# With one pass SLA is far ahead of a classifier that must ignore the turns, and of a second head that is asked for
# them, at both lengths (*measured*). *Our guess* why: the conflict was real, and naming the turn ends it.
#
# That one pass beats labels alone is reversed in the minute (*measured*), and open four times as long, where the two
# are level in the mean. The paper's own table promises no more than such a tie. *Our guess* why it takes time: there
# are four times as many classes to learn from as few images.
#
# The average over four turns beats one pass in the minute (*measured*); four times as long it is ahead with each seed,
# by less, and open. The distilled head, asked there alone, is level with one pass in the mean: it keeps nothing of that
# gain, but its verdict is open. So is at both lengths whether one network over four turns keeps up with an ensemble, of
# two networks in the minute and of four, as in the paper, in the longer run.

# %% [markdown]
# ## Where the chapter ends
# A shortcut answers the question without what the question was meant to teach. Some arms of this chapter take one away:
# - **rotation**: quarter turns leave no blur to read. Images turned beforehand go the other way: they take the upright
#   and leave, by *our guess*, only the shortcut of knowing an image; given time, it teaches as much.
# - **JigClu**: montages of strangers take away the seam.
# - **colour**: views whose colours turn leave two views of an image no colour in common. Relational reasoning and OBoW
#   have steady colours and keep this shortcut. SimCLR was trained with both; no statement holds one against the other.
# - **OBoW**: a crop hides a part of what is to be guessed.
# - **beside labels**: squares that are turned without a question part the task from the augmentation.
#
# Now the tasks side by side, after a minute: what did each question leave, and where? Images and encoder are the same.
# Steps and pixels are too, save for OBoW, which has more steps. Views are not: relational reasoning and OBoW have
# steady colours, with which SimCLR's probe is lower than in its row of the table, as the verdicts against it above
# print.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Table of probe accuracies after blocks 3 and 4 for a random encoder, rotation, JigClu, relational reasoning, OBoW, SimCLR and training with all labels."}, "figure": {"caption": "Probe accuracy by task and block, mean over seeds.", "name": "fig-pretext-table"}}
kept = [name for name in ("random encoder", "rotation", "JigClu", "relational", "OBoW", "SimCLR", "all labels") if name in models]
table = [[sum(v) / len(v) for v in (stage.probes(models[name], b) for b in (3, 4))] for name in kept]
axis = lab.plots.axes(1, 4, 3)[1]
axis.imshow(table, cmap="viridis", aspect="auto", vmin=0.3, vmax=1)
for i, row in enumerate(table):
    for j, value in enumerate(row):
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.75 else "black")
axis.set(xticks=range(2), xticklabels=(3, 4), yticks=range(len(kept)), yticklabels=kept, xlabel="after block")
axis.grid(False)

# %%
run.summarise("probe accuracy after block 3", results, floor="random encoder", ceiling="all labels")

# %% [markdown]
# Four times as long rotation and JigClu are no longer behind SimCLR: JigClu is ahead by its verdict, rotation with each
# seed, without a statement. Relational reasoning and OBoW stay far behind; by *our guess* both live on colour. At the
# end of a deep rotation network skips keep what is lost without them. Beside labels, no way of turning was shown to
# beat labels alone with one pass, and turning the whole costs most.
#
# How the settings were chosen. Views, steps, learning rates, the probe's one regulariser, the scale of the crops and
# OBoW's sizes were chosen on other seeds and on validation images, with a few minutes of computing a method; all tasks
# but OBoW share learning rate and steps. Margins were fixed before the measurement.
#
# The list of statements was not left alone. Two that went on holding with the method broken were replaced: that the
# third block is better than the fourth, which is true of untrained networks too, and that generated word classifiers
# give the better probe, which was true of shuffled ones.
#
# Five were moved to longer runs after a look at three seeds, since their arms are dear and these seeds had left them
# open: SimCLR with skips, the learned comparison against a cosine, BoWNet, LoRot's cell beside labels, and the
# distilled head. On earlier images five seeds had the comparison and the cell reversed. All those verdicts are in the
# history of the results. The longer run leaves the five open again, save for BoWNet's.
#
# LoRot's statements on textures, diversity, finer grids, noise, attacks, its price and the jigsaw were added later, with
# margins from other seeds and validation images, before a look at this page's seeds. On those other seeds the two that
# hold a square against labels alone, on textures and in noise, came out reversed; they stay, since the paper says so.

# %% [markdown]
# ## What carries over
# Each statement with its verdict and mean difference at every length that was measured, under what its paper reports. A
# dash means: not measured at that length. Where two lengths disagree, believe the longer.

# %%
run.carry_over()

# %% [markdown]
# ## Exercises
# ````{exercise-start} Which digits have no upright?
# :label: ex-pretext-upright
# ````
# The rotation network has never seen the digits 0, 1, 8 and 9. For each of them, which turns does it tell, and which
# does it confuse? Guess before you run: a 0 and an 8 look the same after half a turn, and a 1 nearly so. And what is a
# 9 to a network that knows the 6?
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-pretext-upright
# :class: dropdown
# ````
# Compare the answer with the true turn modulo a half turn: where the first is rarer than the second, the digit has an
# axis but no upright that the network is sure of. For 0, 1 and 8 one expects the toss of a coin there, half of what is
# told up to half a turn. The print, which is of one network, says otherwise: of an 8 and a 1 the turn is told about as
# often as of the digits of the training, whose share is printed in the section on RotNet. *Our guess* why: the two
# halves of a handwritten digit are not alike, so that most have an upright after all. Of a 0 much less is told, but
# more than by the coin.
#
# The 9 has an upright, but half a turn makes it a 6, and the network has met the 6: one expects an upright 9 to be
# called upside down. The print does not bear that out.

# %%
odd, which = stage.odd[2:]
net = rotation()[0]
if run.scale != "full":
    with torch.no_grad():
        guess = net.scores(odd.float() / 255).argmax(1).view(4, -1)
    exact, half = guess == torch.arange(4)[:, None], guess % 2 == torch.arange(4)[:, None] % 2
    for digit in P.ODD:
        print(
            digit,
            f"turn told {exact[:, which == digit].float().mean():.2f}, up to half a turn {half[:, which == digit].float().mean():.2f}",
        )

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} A finer grid
# :label: ex-pretext-grid
# ````
# With 2×2 cells LoRot-E has 16 labels, of which 4 show the same image. What is the best accuracy with g×g cells, and to
# what does it tend? Check by counting images.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-pretext-grid
# :class: dropdown
# ````
# The g² labels without a turn share one image, of which one label can be right: $3g^2 + 1$ of $4g^2$, which falls from
# 1 to ¾.

# %%
# NBVAL_CHECK_OUTPUT
image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
for g in (1, 2, 4):
    told = {tuple(P.turn_cell(image, g, torch.tensor([k]))[0].flatten().tolist()) for k in range(4 * g**2)}
    print(g, len(told) / (4 * g**2), (3 * g**2 + 1) / (4 * g**2))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} The pretext as a judge
# :label: ex-pretext-judge
# ````
# A small research question. A rotation network is sure of what looks like its training images. Is its *own* loss on an
# image, averaged over the four turns, a score for "belongs to none of the classes", without a single label? Compare
# with the classifier taught on few labels.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-pretext-judge
# :class: dropdown
# ````
# Hardly, with this one network: the score lies near chance, which is a half, and the classifier is ahead. *Our guess*
# why: a digit that has no upright has a high loss, but so has a badly written 4.

# %%
with torch.no_grad():
    said = [
        net.scores(x.float() / 255).log_softmax(1).view(4, len(x), 4).diagonal(dim1=0, dim2=2).mean(1)
        for x in (stage.test_images, stage.odd_images)
    ]
few_labels = P.noticed(labelled("labels alone", P.Classifier)[0], stage.test_images, stage.odd_images)
print(f"AUROC of the rotation loss {P.auroc(*said):.2f}, of the classifier with {FEW} labels {few_labels:.2f}")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# Two more exercises, which also come as an assignment that grades itself
# ([For instructors](../../book/instructors.md)).

# %% [markdown]
# ````{exercise-start} JigClu's clustering loss from its equation
# :label: ex-cluster-loss
# ````
# Write JigClu's equation 1. Row $i$ of $z$ is the embedding of a patch, and $C_i$ are the *other* patches of the same
# image:
#
# $$\ell_i = -\frac{1}{|C_i|} \sum_{j \in C_i}
# \log \frac{\exp(\cos(z_i, z_j)/\tau)}{\sum_{k \neq i} \exp(\cos(z_i, z_k)/\tau)}.$$
#
# The loss is the mean of $\ell_i$ over the rows that have a partner; rows without one count for nothing there, though
# they stay among the candidates of the others.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-cluster-loss
# :class: dropdown
# ````
# The sum over partners stands outside the logarithm. Inside, a single good partner would be enough.

# %% tags=["task:cluster-loss"]
import torch
import torch.nn.functional as F


def cluster_loss(z, source, tau):
    """The loss, a scalar, of embeddings z (n, d), not normalised; source (n,) says which image a row comes from."""
    ### BEGIN SOLUTION
    z = F.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool)
    logits = z @ z.T / tau
    log_p = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    partner = (source[:, None] == source) & ~itself
    paired = partner.any(1)
    each = -(log_p * partner).sum(1)[paired] / partner.sum(1)[paired]
    return each.mean()
    ### END SOLUTION


# %% tags=["task-tests:cluster-loss:3", "remove-cell"]
import math

source = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
alike = cluster_loss(torch.ones(8, 3), source, 0.3)
assert alike.shape == () and abs(float(alike) - math.log(7)) < 1e-4, "rows alike: each of seven others is as likely"
### BEGIN HIDDEN TESTS
z = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
source = [2, 0, 1, 0, 2, 2, 1, 0, 2]
unit = [[v / math.hypot(*row) for v in row] for row in z.tolist()]
e = [[math.exp(sum(a * b for a, b in zip(p, q)) / 0.4) for q in unit] for p in unit]
want = 0.0
for i in range(9):
    own = [j for j in range(9) if j != i and source[j] == source[i]]
    want -= sum(math.log(e[i][j] / (sum(e[i]) - e[i][i])) for j in own) / len(own) / 9
assert abs(float(cluster_loss(z, torch.tensor(source), 0.4)) - want) < 1e-4
### END HIDDEN TESTS

# %% tags=["task-tests:cluster-loss:2", "remove-cell"]
z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
found = cluster_loss(z, torch.tensor([0, 0, 1]), 1.0)
assert abs(float(found) - math.log(1 + math.exp(-1))) < 1e-4, "the third row has no partner, but is a candidate"
### BEGIN HIDDEN TESTS
found = cluster_loss(3 * z.repeat(2, 1), torch.tensor([0, 0, 1, 0, 2, 1]), 0.01)
want = 3 * math.log(3) / 5  # rows 0, 1 and 3 choose among three alike, 2 and 5 are certain, 4 has no partner
assert abs(float(found) - want) < 1e-3
far = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # partners opposite, the others beside
found = cluster_loss(far, torch.tensor([0, 1, 0, 1]), 0.001)
assert abs(float(found) - 1000 - math.log(2)) < 1e-2, "a partner that is far away"
z, source = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 0, 0, 1, 1])
leaf = z.clone().requires_grad_()
cluster_loss(leaf, source, 0.5).backward()
for step in 0.01 * torch.eye(18).view(18, 6, 3):  # each value a little up and down
    slope = float(cluster_loss(z + step, source, 0.5) - cluster_loss(z - step, source, 0.5)) / 0.02
    assert abs(100 * float((leaf.grad * step).sum()) - slope) < 2e-3, "the gradient"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
z = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
source = torch.arange(32) % 9
print("as the package has it:", torch.allclose(cluster_loss(z, source, 0.3), P.cluster_loss(z, source, 0.3)))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise-start} Ask each copy only what concerns it
# :label: ex-aggregate
# ````
# SLA's network scores pairs of class and turn. Row $i + n v$ of the scores belongs to image $i$ turned by $v$ quarters,
# which is $r = v + 1$ of the text; column $T c + v$ belongs to class $c$ and the same turn, with $T$ turns in all.
# Write equation 5: the score of a class is the mean over the turned copies, each of which is asked for its own turn
# alone,
#
# $$A_c(x) = \frac1T \sum_{v=0}^{T-1} f_{(c, v)}(t_{v+1}\,x).$$
#
# $f_{(c, v)}$ is the score of the pair.
# ````{exercise-end}
# ````

# %% [markdown]
# ````{solution-start} ex-aggregate
# :class: dropdown
# ````
# Of the $T \times T$ combinations of the turn that was made and the turn that is asked for, only the diagonal counts.

# %% tags=["task:aggregate"]
import torch


def aggregate(scores, copies):
    """Scores of the classes (n, classes) from joint scores (copies · n, classes · copies)."""
    ### BEGIN SOLUTION
    n = len(scores) // copies
    table = scores.view(copies, n, -1, copies)  # turn made, image, class, turn asked for
    return torch.stack([table[v, :, :, v] for v in range(copies)]).mean(0)
    ### END SOLUTION


# %% tags=["task-tests:aggregate:3", "remove-cell"]
# one image, two classes, two turns: rows are turns, columns are (class, turn)
found = aggregate(torch.tensor([[1.0, 90.0, 3.0, 90.0], [90.0, 5.0, 90.0, 9.0]]), 2)
assert found.tolist() == [[3.0, 6.0]], "(1 + 5)/2 for the first class, (3 + 9)/2 for the second"
### BEGIN HIDDEN TESTS
scores = torch.randn(4 * 3, 5 * 4, generator=torch.Generator().manual_seed(0))
found, rows = aggregate(scores, 4), scores.tolist()
assert found.shape == (3, 5)
for i in range(3):
    for c in range(5):
        want = sum(rows[i + 3 * v][4 * c + v] for v in range(4)) / 4
        assert abs(float(found[i, c]) - want) < 1e-6
### END HIDDEN TESTS

# %% tags=["task-tests:aggregate:1", "remove-cell"]
assert aggregate(torch.eye(3), 1).tolist() == torch.eye(3).tolist(), "one copy: nothing to aggregate"
### BEGIN HIDDEN TESTS
leaf = torch.zeros(6, 4, requires_grad=True)
aggregate(leaf, 2).sum().backward()
want = torch.tensor([[0.5, 0.0, 0.5, 0.0]] * 3 + [[0.0, 0.5, 0.0, 0.5]] * 3)
assert torch.allclose(leaf.grad, want), "which scores matter, and how much"
### END HIDDEN TESTS

# %%
# NBVAL_CHECK_OUTPUT
scores = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
print("as the package has it:", torch.allclose(aggregate(scores, 4), P.aggregate(scores, 4), atol=1e-6))

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## What to read next
# [Contrastive learning](contrastive.ipynb) asks one question, which view belongs to which, and spends its care on the
# comparison. [Redundancy reduction](redundancy.ipynb) asks none. If you wonder what RotNet's middle block and SimCLR's
# projection head have in common, read both: each is a way of keeping the last layer's damage away from what is kept.

# %%
# NBVAL_CHECK_OUTPUT
run.verdicts()

# %%
run.close()
