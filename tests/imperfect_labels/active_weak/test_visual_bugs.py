"""The game, its masks, the label model and the measures of found bugs."""

import pytest
import torch

from labcode.imperfect_labels import active_weak as A


def test_game_is_repeatable_and_bugs_hide_the_view():
    once = lambda: A.play(200, 0.1, generator=torch.Generator().manual_seed(0))  # noqa: E731
    game = once()
    assert game.frames.shape == (200, 3, 24, 24)
    assert int(game.bug.sum()) == 20 and torch.equal(once().frames, game.frames)
    assert float(game.frames.min()) >= 0 and float(game.frames.max()) <= 1
    hidden = game.hidden[game.bug]
    assert float(game.hidden[~game.bug].abs().max()) == 0 and 0.3 < float(hidden.min()) < float(hidden.max()) < 0.8
    with pytest.raises(ValueError, match="shares"):
        A.play(5, 1.5, generator=torch.Generator())


def test_masks_part_the_frame_and_are_described():
    frames = torch.zeros(1, 3, 12, 12)
    frames[:, :, :, 6:] = 1.0
    masks = A.segment(frames, 2, place=0.0)
    assert (masks.sum(1) == 1).all() and sorted(masks.float().mean((2, 3))[0].tolist()) == [0.5, 0.5]
    box = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    box[..., 3:7, 2:8] = True
    area, fill, contact, *_ = A.describe(frames, box)[0, 0].tolist()
    assert (area, fill, contact) == pytest.approx((24 / 144, 1.0, 0.0))
    assert bool(A.geometric_filter(A.describe(frames, box)))
    assert not A.geometric_filter(A.describe(frames, torch.ones_like(box)))
    kept = A.cluster_filter(torch.rand(30, 4, 6, generator=torch.Generator().manual_seed(0)))
    assert kept.shape == (30, 4) and 0 < float(kept.double().mean()) < 1
    assert A.box_masks(5, 12, 12, torch.Generator().manual_seed(0)).flatten(1).any(1).all()


def test_paste_covers_its_share_and_leaves_the_rest():
    g = torch.Generator().manual_seed(0)
    frames, sources = torch.zeros(20, 3, 24, 24), torch.ones(20, 3, 24, 24)
    masks = A.box_masks(20, 24, 24, g)
    pasted = A.paste(frames, sources, masks, generator=g, seam=True)
    covered = (pasted[:, 0] > 0.1).double().mean((1, 2))
    assert 0.37 < float(covered.min()) and float(covered.max()) < 0.73
    assert float(A.paste(frames, frames, masks, generator=g).abs().max()) == 0


def test_filters_are_convolutions_by_hand():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    f = A.filter_bank(x, 1)
    assert f.shape == (2, 13)
    assert torch.allclose(f[:, :3], x.mean((2, 3)), atol=1e-6)
    grey = x.mean(1)
    across = (grey[:, 1:-1, 2:] - grey[:, 1:-1, 1:-1]).abs().mean((1, 2))
    assert torch.allclose(f[:, 3], (across + 0.02).log(), atol=1e-5)


def votes(n=3000, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=g) < 0.2).long()
    rows = []
    for right, speak in ((0.95, 0.8), (0.9, 0.5), (0.55, 0.9), (0.5, 0.9), (0.8, 0.7)):
        said = torch.where(torch.rand(n, generator=g) < right, y, 1 - y)
        rows.append(torch.where(torch.rand(n, generator=g) < speak, said, -1))
    return y, torch.stack(rows, 1)


def test_label_model_finds_the_reliable_rules_and_never_loses_likelihood():
    y, v = votes()
    prior = torch.tensor([0.8, 0.2])
    found = A.label_model(v, prior)
    told = found.tables[:, 1, 1] / (found.tables[:, 1, 0] + found.tables[:, 1, 1])
    assert (told - torch.tensor([0.95, 0.9, 0.55, 0.5, 0.8])).abs().max() < 0.08
    assert all(b >= a - 1e-6 for a, b in zip(found.likelihood, found.likelihood[1:], strict=False))
    share = lambda p: float((p.argmax(1) == y).double().mean())  # noqa: E731
    assert share(found.posterior) > share(A.majority_vote(v)) + 0.03
    assert torch.allclose(found.posterior.sum(1), torch.ones(3000).double())


def test_label_model_one_step_is_bayes_by_loop():
    v = torch.tensor([[0, 1], [1, -1], [-1, -1]])
    prior = torch.tensor([0.7, 0.3])
    found = A.label_model(v, prior, iterations=1)
    for i in range(3):
        joint = [float(prior[c]) for c in range(2)]
        for c in range(2):
            for r in range(2):
                joint[c] *= float(found.tables[r, c, 2 if v[i, r] < 0 else v[i, r]])
        assert float(found.posterior[i, 1]) == pytest.approx(joint[1] / sum(joint), rel=1e-5)
    assert A.majority_vote(v).tolist() == [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]]
    with pytest.raises(ValueError, match="votes"):
        A.label_model(v + 2, prior)
    with pytest.raises(ValueError, match="prior"):
        A.label_model(v, torch.tensor([0.5, 0.6]))


def test_label_model_against_snorkel():
    labeling = pytest.importorskip("snorkel.labeling.model")
    y, v = votes()
    peer = labeling.LabelModel(cardinality=2, verbose=False)
    peer.fit(v.numpy(), class_balance=[0.8, 0.2], n_epochs=500, seed=0)
    ours = A.label_model(v, torch.tensor([0.8, 0.2])).posterior.argmax(1)
    same = torch.tensor(peer.predict_proba(v.numpy())).argmax(1) == ours
    assert float(same.double().mean()) > 0.95


def test_measures_are_scikit_learns():
    from sklearn.metrics import average_precision_score, f1_score

    g = torch.Generator().manual_seed(0)
    s, bug = torch.randn(3, 50, dtype=torch.float64, generator=g), torch.rand(50, generator=g) < 0.2
    for i in range(3):
        assert float(A.average_precision(s, bug)[i]) == pytest.approx(average_precision_score(bug, s[i]))
    at = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    assert A.f1_at(s, bug, at).tolist() == pytest.approx([f1_score(bug, row > t) for row, t in zip(s, at, strict=True)])
    best = A.f1_at(s, bug, A.best_threshold(s, bug))
    for i in range(3):
        every = max(f1_score(bug, s[i] > t) for t in s[i] - 1e-9)
        assert float(best[i]) == pytest.approx(every)
    with pytest.raises(ValueError, match="bug"):
        A.average_precision(s, torch.zeros(50, dtype=torch.bool))
    shown = torch.tensor([[0, 1], [2, 3], [4, 5]])
    assert A.exemplar_threshold(s, shown)[0] == s[0, :2].max() + s[0, :2].std(correction=0)


def test_training_on_draws():
    g = torch.Generator().manual_seed(0)
    bug = torch.arange(200) % 10 == 0
    draws = A.labelled_draws(bug, 20, 5, g)
    assert draws.shape == (5, 20) and (bug[draws].sum(1) == 2).all() and all(len(r.unique()) == 20 for r in draws)
    rows = A.balanced_rows(bug.long()[draws], 400, g)
    assert 0.35 < float(bug[draws].gather(1, rows).double().mean()) < 0.65
    x = torch.randn(200, 4, generator=g) + 3 * bug[:, None]
    net = A.fine_tune(A.detector(5, 4, 0), x, bug.long(), draws, steps=25, generator=g, lr=2e-2)
    assert float(A.average_precision(A.bug_scores(net, x), bug).mean()) > 0.9
    same = A.detector(6, 4, 0, same=3)
    assert torch.equal(same(x)[0], same(x)[3]) and not torch.equal(same(x)[0], same(x)[1])
    own, new = torch.zeros(8, 4), torch.ones(8, 4)
    loss = A.pasted_loss(net, own, new, g)
    q = torch.softmax(net(torch.stack([own[0], new[0]])), 2)
    assert float(loss.detach()) == pytest.approx(float(-(q[:, 0, 0].log() + q[:, 1, 1].log()).sum() / 2), rel=1e-4)
    far = A.neighbour_distance(torch.tensor([[0.0], [5.0]]), torch.tensor([[0.0], [1.0], [3.0]]), 2)
    assert far.tolist() == [0.5, 3.0]  # the two nearest: 0 and 1; 2 and 4
