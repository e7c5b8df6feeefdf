"""Unsupervised Data Augmentation: predictions of an image and of its strongly changed copy must agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ... import augment
from ...loss import check_index, raised, unit_rows
from .. import views
from ..training import cross_entropy
from .stage import MILD, Batch, Method, Stage, forward

SCHEDULES = ("none", "log", "linear", "exp")
KINDS = ("Gaussian", "shift", "cutout", "turn and scale", "all together", "upside down")
ADVERSARIAL = 1.5  # length of VAT's step, in pixels


def _each(name: str, value: float | Tensor, logits: Tensor) -> Tensor:
    """A number for all networks or one for each, as (n, 1)."""
    if not isinstance(value, Tensor):
        return logits.new_full((1, 1), value)
    value = value.to(logits)
    if value.ndim > 1 or value.ndim and len(value) != len(logits):
        raise ValueError(f"{name} must be a number or one for each of {len(logits)} networks, got {tuple(value.shape)}")
    return value.reshape(-1, 1)


def consistency(
    clean: Float[Tensor, "n b k"], changed: Float[Tensor, "m c j"], temperature: float | Float[Tensor, "..."] = 0.4,
    threshold: float | Float[Tensor, "..."] = 0.8, stop: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:  # fmt: skip
    """UDA's loss of each network, with mask and sharpening (Xie et al. 2020, equation 1 and section 2.4), mean over b:

        1(max p(x) > threshold) · KL( softmax(clean / temperature) ‖ softmax(changed) ) .

    clean        logits of the images; the sharpened prediction is the target and has no gradient
    changed      logits of the changed images
    temperature  > 0; 0.4 in the authors' CIFAR-10 script, 1 sharpens nothing
    threshold    of the *unsharpened* confidence; 0.8 there, 0 keeps all. Images below it count as zeros in the mean
    stop         False for a network whose target has a gradient, which is not UDA

    Numbers are for all networks, tensors (n,) one for each. Half precision is computed in float32. Raises ValueError
    for logits that do not fit and numbers that do not.
    """
    if clean.shape != changed.shape or clean.ndim != 3:
        raise ValueError(f"changed must be (n, b, k) as clean is, got {tuple(changed.shape)} and {tuple(clean.shape)}")
    clean, changed = raised(clean), raised(changed)
    fixed = clean.detach() if stop is None else torch.where(stop[:, None, None], clean.detach(), clean)
    target = (fixed / _each("temperature", temperature, clean)[:, None]).log_softmax(-1)
    kept = clean.detach().softmax(-1).amax(-1) > _each("threshold", threshold, clean)
    kl = (target.exp() * (target - changed.log_softmax(-1))).sum(-1)
    return (kl * kept).mean(1)


def tsa_threshold(progress: float, schedule: str, classes: int) -> float:
    """Training-signal annealing, η_t = a (1 - 1/K) + 1/K: labelled images above this confidence are left out.

    progress  t / T in [0, 1]
    schedule  "linear": a = t/T; "exp": exp(5 (t/T - 1)), late, for few labels; "log": 1 - exp(-5 t/T), early;
              "none": 1, which leaves nothing out

    Raises ValueError for another schedule and a progress out of range.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be in [0, 1], got {progress}")
    annealed = {
        "linear": progress, "exp": math.exp(5 * (progress - 1)), "log": 1 - math.exp(-5 * progress), "none": 1.0
    }  # fmt: skip
    if schedule not in annealed:
        raise ValueError(f"schedule must be one of {', '.join(annealed)}, got {schedule!r}")
    return annealed[schedule] * (1 - 1 / classes) + 1 / classes


def annealed_cross_entropy(
    logits: Float[Tensor, "n b k"], y: Int[Tensor, "n b"], eta: float | Float[Tensor, "..."]
) -> Float[Tensor, " n"]:
    """Cross-entropy of the labelled images whose true class has a probability of at most eta, over their number.

    The released code's mean; 0 where no image is left. Raises ValueError for classes out of range.
    """
    check_index("y", y, logits.shape[-1])
    logits = raised(logits)
    log_p = logits.log_softmax(-1).gather(-1, y.long()[..., None])[..., 0]
    kept = log_p.detach().exp() <= _each("eta", eta, logits)
    return -(log_p * kept).sum(1) / kept.sum(1).clamp_min(1)


def adversarial_noise(
    net: nn.Module, u: Float[Tensor, "n b p"], clean: Float[Tensor, "n b k"], generator: Generator
) -> Float[Tensor, "n b p"]:
    """Virtual adversarial training's images (Miyato et al. 2018): one power step towards what changes the prediction
    most, of length ``ADVERSARIAL``. The rival has UDA's loss, with this noise for augmentation."""
    step = (0.1 * unit_rows(torch.randn(u.shape, generator=generator, device=u.device))).requires_grad_()
    with torch.enable_grad():
        distance = -(clean.detach().softmax(-1) * net(u.detach() + step).log_softmax(-1)).sum()
        (slope,) = torch.autograd.grad(distance, step)
    return (u + ADVERSARIAL * unit_rows(slope)).detach()


def noised(stage: Stage, u: Float[Tensor, "*n b p"], kind: str, generator: Generator) -> Float[Tensor, "*n b p"]:
    """Images changed in one of the ``KINDS``: pixel noise, parts of the strong view and all of it, and a change that
    breaks labels, for half of the images are turned by 180°, so that a 6 is a 9. Raises ValueError for another kind."""
    if kind == "Gaussian":
        return u + 0.3 * torch.randn(u.shape, generator=generator, device=u.device)
    if kind == "shift":
        return stage.weak(u, generator)
    if kind == "all together":
        return stage.strong(u, generator)
    if kind == "upside down":
        turned = u.unflatten(-1, (stage.channels, -1)).flip(-1).flatten(-2)
        return torch.where(torch.rand(*u.shape[:-1], 1, generator=generator, device=u.device) < 0.5, turned, u)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if stage.channels == 1:
        part = dict(cutout=MILD["cutout"]) if kind == "cutout" else {k: MILD[k] for k in ("shift", "degrees", "scale")}
        return views.strong(u, generator=generator, **dict.fromkeys(MILD, 0) | part)
    pictures = u.reshape(-1, stage.channels, stage.side, stage.side)
    change = partial(augment.cutout, size=12) if kind == "cutout" else partial(augment.affine, degrees=15, shift=0.12)
    return change(pictures, generator=generator).reshape(u.shape)


@dataclass(frozen=True)
class Arm:
    """One network's way; the defaults are the chapter's UDA, the paper's in brackets.

    noise        one of ``KINDS``
    threshold    0.6: a perceptron with few labels is less sure than a wide residual network (0.8)
    tsa          schedule of training-signal annealing; off in the authors' image runs
    stop         no gradient into the target
    """

    noise: str = "all together"
    temperature: float = 0.4
    threshold: float = 0.6
    tsa: str = "none"
    stop: bool = True


ARMS = {
    "UDA": Arm(), **{kind: Arm(noise=kind) for kind in KINDS if kind != "all together"},
    "no mask": Arm(threshold=0.0), "no sharpening": Arm(temperature=1.0), "gradient to the target": Arm(stop=False),
    "log": Arm(tsa="log"), "exp": Arm(tsa="exp"),
}  # fmt: skip


def uda_method(arms: Sequence[Arm], adversarial: bool = False) -> Method:
    """The method, one arm a network: labelled cross-entropy plus the consistency of u and its changed copy.

    adversarial  the copies are VAT's, whatever the arms' noise

    The clean image passes in training mode through the same weights, in one batch with the others, as in the released
    code. The labelled batch is half in weak and half in strong views, as for every method of the chapter; theirs is
    weak. Networks with the same noise share its draws where they share the images.
    """

    of, made = [arm.noise for arm in arms], {}

    def method(net: nn.Module, batch: Batch) -> Tensor:
        (x, y), u = batch.known(), batch.wide(batch.u)
        if not made:  # once, for a GPU waits for what comes from the host
            for name in ("temperature", "threshold", "stop"):
                made[name] = torch.tensor([getattr(arm, name) for arm in arms], device=u.device)
        if adversarial:
            changed = adversarial_noise(net, u, net(u), batch.g)
        else:
            seen = {kind: batch.wide(noised(batch.stage, batch.u, kind, batch.g)) for kind in dict.fromkeys(of)}
            changed = torch.stack([seen[kind][i] for i, kind in enumerate(of)])
        known, clean, copies = forward(net, x, u, changed)
        agree = consistency(clean, copies, **made)
        if all(arm.tsa == "none" for arm in arms):
            return cross_entropy(known, y) + agree.sum()
        eta = [known.new_full((1,), tsa_threshold(batch.progress, arm.tsa, known.shape[-1])) for arm in arms]
        return (annealed_cross_entropy(known, y, torch.cat(eta)) + agree).sum()

    return method


def unreached(shares: Float[Tensor, " c"], labels: int | Int[Tensor, " m"]) -> Float[Tensor, "*m"]:
    """Chance that a new image lies in a part of the augmentation graph without a label: Σ_i P_i (1 - P_i)^m (Xie et al.
    2020, theorem 1).

    shares  P_i of the graph's connected parts, adding up to 1
    labels  m, number of labelled images drawn at random

    Where augmentation connects all images of a class the parts are the classes. Raises ValueError for shares that are
    not.
    """
    shares = shares.double()
    if not len(shares) or bool((shares < 0).any()) or abs(float(shares.sum()) - 1) > 1e-6:
        raise ValueError(f"shares must be of parts and add up to 1, got a sum of {float(shares.sum()):g}")
    m = torch.as_tensor(labels, dtype=torch.float64)
    return (shares * (1 - shares) ** m[..., None]).sum(-1)


def parts(near: Bool[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """The connected part of each node of an undirected graph, named by its first node."""
    name = torch.arange(len(near))
    near = near | near.T | torch.eye(len(near), dtype=torch.bool)
    while True:
        lower = torch.where(near, name[None], len(near)).amin(1)
        lower = lower[lower]
        if torch.equal(lower, name):
            return name
        name = lower
