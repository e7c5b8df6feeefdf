"""Membranes and how they are read, against scikit-learn's ridge and by hand."""

import numpy as np
import pytest
import torch
from self_supervision.predictive.helpers import draw

from labcode import nets
from labcode.self_supervision import predictive as P


def test_pixel_scores_are_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    tokens, new, mask = draw(5, 6, 3), draw(2, 6, 3, seed=1), draw(5, 4, 6, seed=2) > 0
    every, mean = tokens.flatten(0, 1), tokens.flatten(0, 1).mean(0)

    def piece(pixels, i, j):
        return pixels[i, 2 * (j // 3) : 2 * (j // 3) + 2, 2 * (j % 3) : 2 * (j % 3) + 2]

    wanted = torch.stack([piece(mask, i, j) for i in range(5) for j in range(6)]).flatten(1).numpy().astype(float)
    model = Ridge(alpha=0.1 * 30).fit(((every - mean) / every.std(0)).numpy(), wanted)
    found = P.pixel_scores(tokens, mask, new, (2, 2), l2=0.1)
    assert found.shape == (2, 4, 6)
    for i in range(2):
        for j in range(6):
            said = model.predict(((new[i, j] - mean) / every.std(0)).numpy()[None])[0]
            assert np.allclose(piece(found, i, j).numpy().ravel(), said, atol=1e-5)


def test_dice():
    mask = torch.tensor([[[True, True, False, False]]])
    assert P.dice(torch.tensor([[[1.0, -1.0, 1.0, -1.0]]]), mask) == 0.5
    assert P.dice(torch.where(mask, 1.0, -1.0), mask) == 1 and P.dice(-torch.ones(1, 1, 4), mask & False) == 1


def test_membranes_lie_between_cells():
    """Where two cells meet there is a membrane; it is darker than the cells."""
    made = P.membranes(4, seed=1)
    assert made.images.shape == (4, 1, 24, 24) and made.mask.shape == made.cells.shape == (4, 24, 24)
    meets = made.cells[:, 1:] != made.cells[:, :-1]
    assert (made.mask[:, 1:] | made.mask[:, :-1])[meets].all()
    assert 0.1 < made.mask.float().mean() < 0.55
    assert made.images[:, 0][made.mask].mean() < made.images[:, 0][~made.mask].mean() - 0.5
    down, right = ((cells.diff(dim=d) != 0).float().mean() for d, cells in ((1, made.cells), (2, made.cells)))
    assert right > 2 * down, "cells are long, and upright"
    assert torch.equal(P.membranes(4, seed=1).images, made.images)
    assert not torch.equal(P.membranes(4, seed=2).images, made.images)


def test_membranes_are_found_where_tokens_tell_them_and_at_the_rate_of_the_labelled_sections():
    few, new = P.membranes(24, 0, 24), P.membranes(24, 1, 24)
    masks = {m.images.data_ptr(): m.mask for m in (few, new)}
    truth = lambda images: nets.patchify(masks[images.data_ptr()][:, None].float(), (6, 6))  # noqa: E731
    noise = lambda images: torch.randn(24, 16, 36, generator=torch.Generator().manual_seed(len(images)))  # noqa: E731
    found, share = P.membrane_dice(truth, few, new, (6, 6)), float(few.mask.float().mean())
    assert found > 0.95 and P.membrane_dice(noise, few, new, (6, 6)) == pytest.approx(share, abs=0.08)


@pytest.mark.bad_input
def test_tokens_that_are_not_finite_are_refused_by_name():
    mask, tokens = draw(2, 4, 4) > 0, draw(2, 4, 3)
    odd = tokens.clone()
    odd[1, 2, 0] = float("nan")
    for few, new, message in ((odd, tokens, "tokens must be finite"), (tokens, odd, "new must be finite")):
        with pytest.raises(ValueError, match=message):
            P.pixel_scores(few, mask, new, (2, 2))
