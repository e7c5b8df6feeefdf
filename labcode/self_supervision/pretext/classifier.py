"""The classifier that LoRot and SLA are held against: the same classes for every copy of an image."""

from collections.abc import Iterable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...loss import check_index
from .turning import Images, Labels, turn_all

Copies = Float[Tensor, "m c h w"]
Scalar = Float[Tensor, ""]


class Classifier(nn.Module):
    """The same classes for every copy of an image: as it is, or turned for augmentation.

    labels  of the training images, in the order of ``index``: 0 … classes - 1
    turned  copy v is turned by v quarters

    Raises ValueError for labels that are no class.
    """

    def __init__(self, encoder: nn.Module, labels: Labels, classes: int, turned: bool = False):
        super().__init__()
        check_index("labels", labels.cpu(), classes)  # once, so a look at a GPU's labels costs nothing
        self.encoder, self.turned = encoder, turned
        self.head = nn.Linear(encoder.features, classes)
        self.register_buffer("labels", labels, persistent=False)

    def scores(self, x: Images) -> Float[Tensor, "n classes"]:
        return self.head(self.encoder(x))

    def forward(self, views: Copies, index: Labels) -> Scalar:
        copies = len(views) // len(index)
        x = turn_all(views, copies)[0] if self.turned else views
        return F.cross_entropy(self.scores(x), self.labels[index].repeat(copies))


class Ensemble(nn.Module):
    """The mean score of classifiers that were trained apart."""

    def __init__(self, members: Iterable[Classifier]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def scores(self, x: Images) -> Float[Tensor, "n classes"]:
        return sum(m.scores(x) for m in self.members) / len(self.members)
