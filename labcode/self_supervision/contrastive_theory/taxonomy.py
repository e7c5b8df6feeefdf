"""The review's taxonomy as code: methods placed by what their code has to tell, how it is asked, what it costs."""

from dataclasses import dataclass

ASKED = ("own view", "other view", "label")
THROUGH = ("critic", "covariances", "decoder", "distillation", "classifier")
CHARGES = ("nothing", "KL between the views' codes", "KL to a prior")


@dataclass(frozen=True)
class Method:
    """One method in the review's terms: max Σ I(z; asked) - β · charged.

    asked    what the code has to tell; several are summed
    through  how the first is bounded: a critic's scores, a Gaussian's log determinant, a decoder's likelihood, another
             network's targets, or a classifier
    charges  what compression is paid for
    """

    name: str
    asked: tuple[str, ...]
    through: str
    charges: str = "nothing"

    def __post_init__(self):
        for field, value, known in (("asked", self.asked, ASKED), ("through", (self.through,), THROUGH),
                                    ("charges", (self.charges,), CHARGES)):  # fmt: skip
            if not value or set(value) - set(known):
                raise ValueError(f"{field} must be of {', '.join(known)}, got {', '.join(value) or 'nothing'}")

    @property
    def family(self) -> str:
        """Where the review places it, by its sources: labels, the own view, another view."""
        if "label" in self.asked:
            return "supervised" if self.asked == ("label",) else "semi-supervised"
        return "multi-view" if "other view" in self.asked else "single-view"

    @property
    def contrastive(self) -> bool:
        return self.through == "critic"

    @property
    def keeps(self) -> tuple[str, ...]:
        """Which symbols of ``shared_and_private`` the objective asks for; the label names the shared one there."""
        told = set()
        for asked in self.asked:
            told |= {"own view": {"shared", "private"}, "other view": {"shared"}, "label": {"shared"}}[asked]
        return tuple(sorted(told, reverse=True))


METHODS = (
    Method("classifier", ("label",), "classifier"),
    Method("deep variational bottleneck", ("label",), "classifier", "KL to a prior"),
    Method("semi-supervised autoencoder", ("label", "own view"), "decoder", "KL to a prior"),
    Method("autoencoder", ("own view",), "decoder"),
    Method("variational autoencoder", ("own view",), "decoder", "KL to a prior"),
    Method("Deep InfoMax", ("own view",), "critic"),
    Method("CPC, SimCLR", ("other view",), "critic"),
    Method("multi-view bottleneck", ("other view",), "critic", "KL between the views' codes"),
    Method("VICReg, Barlow Twins", ("other view",), "covariances"),
    Method("BYOL, DINO", ("other view",), "distillation"),
    Method("masked autoencoder", ("other view",), "decoder"),
)


def table(methods: tuple[Method, ...] = METHODS) -> str:
    """One line a method: family, what is asked, through what, what is charged, and what the objective keeps."""
    lines = [f"{'method':29}{'family':17}{'must tell':21}{'through':14}{'charges':29}keeps"]
    for m in methods:
        asked, keeps = " + ".join(m.asked), ", ".join(m.keeps)
        lines.append(f"{m.name:29}{m.family:17}{asked:21}{m.through:14}{m.charges:29}{keeps}")
    return "\n".join(lines)
