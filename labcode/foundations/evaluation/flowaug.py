"""FlowAug: shift the global latents of a normalising flow, keep the local ones, decode.

"Better May Not Be Fairer: A Study on Subgroup Discrepancy in Image Classification".
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from ...data.batches import shuffled
from ...loss import raised
from ...train import fit

Images = Float[Tensor, "n c h w"]


class Coupling(nn.Module):
    """Affine coupling: the chosen half becomes x exp(s) + t, with s and t functions of the other half and a context.

    RealNVP (Dinh et al.). ln |det| = Σ s, exactly. s = 2 tanh(·/2), so that no step is steeper than e²; it begins as
    the identity.

    moved  which of the features are changed; the others pass
    """

    def __init__(self, moved: Bool[Tensor, " d"], context: int, hidden: int):
        super().__init__()
        self.register_buffer("moved", torch.nonzero(moved)[:, 0])
        self.register_buffer("kept", torch.nonzero(~moved)[:, 0])
        n = len(self.moved)
        self.net = nn.Sequential(nn.Linear(len(self.kept) + context, hidden), nn.GELU(), nn.Linear(hidden, 2 * n))
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def terms(self, x: Float[Tensor, "n d"], context: Float[Tensor, "n k"]) -> tuple[Tensor, Tensor]:
        s, t = self.net(torch.cat([x[:, self.kept], context], 1)).chunk(2, 1)
        return 2 * torch.tanh(s / 2), t

    def forward(self, x: Float[Tensor, "n d"], context: Float[Tensor, "n k"]) -> tuple[Tensor, Float[Tensor, " n"]]:
        s, t = self.terms(x, context)
        return x.index_copy(1, self.moved, x[:, self.moved] * s.exp() + t), s.sum(1)

    def inverse(self, y: Float[Tensor, "n d"], context: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        s, t = self.terms(y, context)
        return y.index_copy(1, self.moved, (y[:, self.moved] - t) * (-s).exp())


def cosine_basis(size: int) -> Float[Tensor, "{size} {size}"]:
    """The orthonormal discrete cosine transform, one basis vector a row, slowest first."""
    k, i = torch.arange(size)[:, None].double(), torch.arange(size)[None].double()
    basis = math.sqrt(2 / size) * torch.cos(math.pi * (i + 0.5) * k / size)
    basis[0] /= math.sqrt(2)
    return basis.float()


class GlobalLocalFlow(nn.Module):
    """A normalising flow with two kinds of latents: global ones and, given those, local ones.

    p(x) = p(g) p(l | g): g are the coarse × coarse slowest cosine coefficients of every channel, l all others, and
    affine couplings turn each into a Gaussian, those of l with g as context. Moving the global latents leaves the local
    ones as they are. The paper uses a pre-trained flow with a variational encoder for its global part (Ma et al.,
    decoupling global and local representations); here the whole likelihood is exact.

    size, channels  of the images
    coarse          1 makes the mean colour global
    layers          couplings of each part
    """

    def __init__(
        self, size: int, channels: int = 3, coarse: int = 1, layers: int = 4, hidden: int = 64, seed: int = 0
    ):
        super().__init__()
        if not 1 <= coarse < size:
            raise ValueError(f"coarse must be in 1 … {size - 1}, got {coarse}")
        self.shape, d = (channels, size, size), channels * size * size
        self.register_buffer("basis", cosine_basis(size))
        slow = torch.zeros(self.shape, dtype=torch.bool)
        slow[:, :coarse, :coarse] = True
        self.register_buffer("order", slow.flatten().logical_not().to(torch.int8).argsort(stable=True))
        self.k = int(slow.sum())
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.coarse = self._couplings(self.k, 0, layers, hidden)
            self.fine = self._couplings(d - self.k, self.k, layers, hidden)

    @staticmethod
    def _couplings(d: int, context: int, layers: int, hidden: int) -> nn.ModuleList:
        """Couplings of which every second moves a random half of the features, and the one after it the other half."""
        halves = [torch.randperm(d) < d // 2 for _ in range((layers + 1) // 2)]
        moved = [m for half in halves for m in (half, ~half)]
        return nn.ModuleList([Coupling(m, context, hidden) for m in moved[:layers]])

    def coefficients(self, x: Images) -> Float[Tensor, "n d"]:
        """Cosine coefficients, the global ones first: an orthonormal change of basis, in float32 at least."""
        with torch.autocast(x.device.type, enabled=False):
            return (self.basis @ raised(x) @ self.basis.T).flatten(1)[:, self.order]

    def standardise(self, x: Images) -> "GlobalLocalFlow":
        """Set the first, diagonal layer: every coefficient gets mean 0 and standard deviation 1 over these images."""
        y = self.coefficients(x)
        self.mean.copy_(y.mean(0))
        self.scale.copy_(y.std(0) + 1e-3)
        return self

    def forward(self, x: Images) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n m"], Float[Tensor, " n"]]:
        """Global latents, local latents and ln |det ∂z/∂x|."""
        g, fine = ((self.coefficients(x) - self.mean) / self.scale).split([self.k, len(self.mean) - self.k], 1)
        z, total = g, -self.scale.log().sum()
        for layer in self.coarse:
            z, logdet = layer(z, z[:, :0])
            total = total + logdet
        for layer in self.fine:
            fine, logdet = layer(fine, g)
            total = total + logdet
        return z, fine, total

    def inverse(self, z: Float[Tensor, "n k"], fine: Float[Tensor, "n m"]) -> Images:
        for layer in reversed(self.coarse):
            z = layer.inverse(z, z[:, :0])
        for layer in reversed(self.fine):
            fine = layer.inverse(fine, z)
        y = torch.empty_like(torch.cat([z, fine], 1))
        y[:, self.order] = torch.cat([z, fine], 1) * self.scale + self.mean
        return self.basis.T @ y.view(-1, *self.shape) @ self.basis

    def nll(self, x: Images) -> Float[Tensor, ""]:
        """Mean negative log-likelihood in nats a pixel and channel."""
        z, fine, logdet = self(x)
        latents = torch.cat([z, fine], 1)
        density = -0.5 * (latents.square() + math.log(2 * math.pi)).sum(1) + logdet
        return -density.mean() / latents.shape[1]


def fit_flow(
    flow: GlobalLocalFlow, images: Images, steps: int, lr: float = 2e-3, batch: int = 128, seed: int = 0
) -> GlobalLocalFlow:
    """Maximum likelihood on images in [0, 1], with a grey level's worth of noise added (dequantisation).

    Raises ValueError for images that are not float, or not in [0, 1].
    """
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"images must be float in [0, 1], got {images.dtype}: divide bytes by 255")
    flow.standardise(images)
    g = Generator(images.device).manual_seed(seed)

    def step(index: Tensor) -> dict[str, Tensor]:
        x = images[index]
        return {"loss": flow.nll(x + torch.rand(x.shape, generator=g, device=x.device) / 256)}

    order = shuffled(len(images), min(batch, len(images)), seed, images.device)
    fit(flow, step, order, steps=steps, lr=lr, clip=1.0, generators=[g], progress=False)
    return flow.eval().requires_grad_(False)


def flow_aug(flow: GlobalLocalFlow, sigma: float, part: str = "global") -> Callable[..., Images]:
    """FlowAug: encode, shift the global latents by N(0, σ²), decode; the local latents stay.

    part  "global", the paper's; "local" shifts the others; "pixels" leaves the flow out and shifts the coefficients by
          σ of their standard deviations

    Raises ValueError for an unknown part.
    """
    if part not in ("global", "local", "pixels"):
        raise ValueError(f"part must be 'global', 'local' or 'pixels', got {part!r}")

    @torch.no_grad()
    def augment(x: Images, *, generator: Generator) -> Images:
        if part == "pixels":
            shift = sigma * torch.randn(len(x), flow.k, generator=generator, device=x.device) * flow.scale[: flow.k]
            y = torch.zeros(len(x), len(flow.mean), device=x.device)
            y[:, flow.order[: flow.k]] = shift
            return (x + flow.basis.T @ y.view(-1, *flow.shape) @ flow.basis).clamp(0, 1)
        z, fine, _ = flow(x)
        moved = z if part == "global" else fine
        moved += sigma * torch.randn(moved.shape, generator=generator, device=x.device)
        return flow.inverse(z, fine).clamp(0, 1)

    return augment
