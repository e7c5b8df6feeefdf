"""Further pre-training on the target images, with a teacher distilled from it, and fine-tuning afterwards.

Lee et al., "Self-Distillation for Further Pre-training of Transformers" (2023).
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_finite, check_index, check_matrix, float32
from ...nets.vit import ViT
from ...train import fit
from .mae import MAE

Images = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]


@float32
def self_distillation_loss(student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"]) -> Scalar:
    """Squared distance of the student's hidden representation to the frozen teacher's, summed over features.

    Lee et al. (2023), eq. 4: (1/B) Σᵢ ‖h_student(xᵢ) - sg h_teacher(xᵢ)‖², with h the class token after the last
    LayerNorm, of the whole image. Nothing flows into the teacher.

    Raises ValueError for matrices that do not fit together.
    """
    check_matrix("student", student)
    check_matrix("teacher", teacher, like=student)
    return (student - teacher.detach()).square().sum(1).mean()


class Further(nn.Module):
    """Going on with a pre-trained masked autoencoder on the target images.

    Lee et al. (2023), algorithm 1. Without a teacher this is plain further pre-training, which makes the teacher. With
    one, start again from the *first* weights and add ``self_distillation_loss``: the student runs twice a step, masked
    for its own loss and whole for the teacher's.

    mae      a copy of the pre-trained ``MAE``, whose encoder has a class token
    teacher  an encoder, kept frozen
    pull     weight of ½‖θ - θ₀‖² instead: the obvious way to stay near the start
    masked   False leaves the masked autoencoder's own loss out: distillation alone, the paper's ablation

    Raises ValueError where no loss is left: not masked, and no teacher.

    ``forward(x, index)`` is the loss.
    """

    def __init__(self, mae: MAE, teacher: ViT | None = None, pull: float = 0.0, masked: bool = True):
        super().__init__()
        if teacher is None and not masked:
            raise ValueError("masked must be True where there is no teacher: nothing else is to be learnt")
        self.masked = masked
        self.mae, self.encoder = mae, mae.encoder
        self.teacher = None if teacher is None else copy.deepcopy(teacher).eval().requires_grad_(False)
        self.pull, self.start = pull, [p.detach().clone() for p in mae.encoder.parameters()] if pull else []

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        loss = self.mae(x) if self.masked else x.new_zeros(())
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(x)[:, 0]
            loss = loss + self_distillation_loss(self.encoder(x)[:, 0], wanted)
        if self.pull:
            loss = loss + self.pull / 2 * moved(self.encoder, self.start)
        return loss


def moved(module: nn.Module, start: Sequence[Tensor]) -> Scalar:
    """‖θ - θ₀‖², the squared distance of a module's parameters from a list of earlier ones."""
    return sum((p - q.to(p.device)).square().sum() for p, q in zip(module.parameters(), start, strict=True))


def encoder_tokens(method: Further, x: Images) -> int:
    """Tokens that go through encoders in one training step, the student's and the teacher's together: what it costs.

    A masked pass sees a share of an image's tokens, a whole one all of them, and the class token. torch's random
    numbers are left as they were.
    """
    seen: list[int] = []
    nets = [net for net in (method.encoder, method.teacher) if net is not None]
    hooks = [net.register_forward_hook(lambda net, given, made: seen.append(made[..., 0].numel())) for net in nets]
    with torch.random.fork_rng([x.device] if x.is_cuda else []), torch.no_grad():
        method(x)
    for hook in hooks:
        hook.remove()
    return sum(seen)


@torch.no_grad()
def masked_error(mae: MAE, x: Images, draws: int = 4, seed: int = 0) -> float:
    """The masked autoencoder's loss on images with fixed masks, the mean of several draws: one protocol for all models.

    seed  of the masks; torch's own random numbers are left as they were
    """
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        return sum(float(mae(x)) for _ in range(draws)) / draws


def distillation_rounds(
    x: Float[Tensor, "n d"], away: Float[Tensor, " d"], time: float, rounds: int
) -> Float[Tensor, "rounds d"]:
    """w_t - w_init of a linear model after t = 0 … rounds - 1 rounds of self-distillation, in closed form.

    The mechanism that Lee et al. (2023), section 4, prove. Each round starts at w_init and follows the gradient flow of
    ½‖X w - X w_{t-1}‖²/n for ``time``, so w_t - w_init = (I - e^{-time XᵀX/n}) (w_{t-1} - w_init): every direction
    shrinks by its own factor below 1, those that the data hardly show by most.

    XᵀX/n is the matrix of the inputs' second moments: no mean is taken off.

    away  w_0 - w_init, how far the first teacher went from the weights before it

    Raises ValueError for inputs that are not finite or not as wide as ``away``. Our reading: the paper's model has a
    masked input; a linear model's target is what the teacher predicts.
    """
    check_matrix("x", x)
    check_finite(x=x, away=away)
    if away.shape != x.shape[1:]:
        raise ValueError(f"away must have {x.shape[1]} values, got {tuple(away.shape)}")
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    factor = 1 - (-time * values.clamp_min(0)).exp()
    inside = vectors.T @ away
    return torch.stack([vectors @ (factor**t * inside) for t in range(rounds)])


class Reader(nn.Module):
    """An encoder and one linear layer on its class token.

    out  classes
    """

    def __init__(self, encoder: ViT, out: int):
        super().__init__()
        if encoder.cls is None:
            raise ValueError("encoder must have a class token to be read, got one without")
        self.encoder, self.head = encoder, nn.Linear(encoder.features, out)

    def forward(self, x: Images) -> Float[Tensor, "n out"]:
        return self.head(self.encoder(x)[:, 0])


def fine_tune(
    encoder: ViT, x: Images, y: Int[Tensor, " n"], out: int, *, steps: int, lr: float = 1e-3, batch_size: int = 32,
    seed: int = 0,
) -> Reader:  # fmt: skip
    """A ``Reader`` of a copy of the encoder, all of it trained on labelled images; the encoder stays as it is.

    y    classes 0 … out - 1

    Raises ValueError for labels that are none of these or not one an image, and no images.
    """
    check_index("y", y, out)
    if not len(x) or y.shape != x.shape[:1]:
        raise ValueError(f"y must be one class for each of the {len(x)} images, at least one, got {tuple(y.shape)}")
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        reader = Reader(copy.deepcopy(encoder), out).to(x.device)
        for p in reader.parameters():
            p.requires_grad_(True)

        def step(index: Tensor) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(reader(x[index]), y[index])}

        batches = shuffled(len(x), min(batch_size, len(x)), seed, x.device)
        fit(reader, step, batches, steps=steps, lr=lr, weight_decay=0.05, clip=1.0, progress=False)
    return reader
