import numpy as np
import pytest
import torch

from labcode.data.synthetic import SPLITS
from labcode.data.synthetic import digits as originals
from labcode.imperfect_labels.images import digits, foreign


@pytest.mark.parametrize("size", [14, 28, 1, 9])
def test_digits_are_means_of_areas(size):
    x, y = digits("test", size)
    assert x.shape == (1000, size**2) and x.dtype == torch.float32 and 0 <= x.min() and x.max() <= 1
    picture = originals()[0][4003].double().numpy()
    fine = np.kron(picture, np.ones((size, size)))  # 28 size × 28 size: both grids fit into it
    wanted = fine.reshape(size, 28, size, 28).mean((1, 3))
    np.testing.assert_allclose(x[3].view(size, size).numpy(), wanted, atol=1e-6)


def test_splits_are_parts_of_the_file_with_their_labels():
    everything = originals()
    for split, (first, last) in SPLITS["mnist"].items():
        x, y = digits(split, 28)
        torch.testing.assert_close(x, everything[0][first:last].flatten(1), rtol=0, atol=1e-6)
        assert torch.equal(y, everything[1][first:last])
        y.zero_()  # a reader's own copy
        assert torch.equal(digits(split)[1], everything[1][first:last])


@pytest.mark.parametrize("kind", ["textures", "faces", "mixed"])
def test_foreign_images_are_varied_and_depend_on_the_seed_alone(kind):
    x = foreign(300, seed=1, kind=kind)
    assert x.shape == (300, 196) and 0 <= x.min() and x.max() <= 1
    assert torch.equal(x, foreign(300, seed=1, kind=kind)) and not torch.equal(x, foreign(300, seed=2, kind=kind))
    assert x.std(1).min() > 0.02  # none is blank
    assert len(x.unique(dim=0)) > 250
    assert foreign(3, 8, seed=0, kind=kind).shape == (3, 64)
    digit, _ = digits("test")
    nearest = torch.cdist(x, digit).min(1).values.median()
    assert nearest > 1.1 * torch.cdist(digits("train")[0][:300], digit).min(1).values.median()


def test_mixed_are_textures_and_faces_in_turn():
    x, textures = foreign(9, seed=3, kind="mixed"), foreign(9, seed=3)
    assert torch.equal(x[::2], textures[:5]) and not torch.equal(x[1::2], textures[1:5])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "work, words",
    [
        (lambda: digits("training"), "split must be one of .* got 'training'"),
        (lambda: digits("train", 29), "size must be in 1 … 28 .* got 29"),
        (lambda: foreign(0, seed=0), "n must be at least 1, got 0"),
        (lambda: foreign(2, 26, seed=0), "size must be in 1 … 25 .* got 26"),
        (lambda: foreign(2, seed=0, kind="cats"), "kind must be .* got 'cats'"),
    ],
)
def test_bad_input_is_named(work, words):
    with pytest.raises(ValueError, match=words):
        work()
