"""Classifiers and their augmentations, against soft labels and windows."""


import pytest
import torch
import torch.nn.functional as F
from foundations.evaluation.helpers import g

from labcode import nets
from labcode.foundations import evaluation as E


def rows(x):
    return {tuple(row) for row in x.flatten(1).tolist()}


def test_scikit_and_network_learn_the_digits():
    from sklearn.neighbors import KNeighborsClassifier

    x, y = E.two_sources("train", 0)["handwritten"]
    new, wanted = E.two_sources("test", 0)["handwritten"]
    direct = KNeighborsClassifier(1).fit(x.flatten(1).numpy(), y.numpy()).predict(new.flatten(1).numpy())
    assert E.scikit(lambda: KNeighborsClassifier(1))(x, y)(new).tolist() == direct.tolist()
    from labcode.nets import SmallNet

    learn = E.network(lambda: SmallNet(16, 32, channels=1), 10, 60, seed=0, lr=1e-2)
    assert float((learn(x, y)(new) == wanted).float().mean()) > 0.7
    assert torch.equal(learn(x, y)(new), learn(x, y)(new))


def test_crop_flip_gives_windows_of_the_padded_image():
    x = torch.rand(40, 3, 5, 5, generator=g())
    torch.testing.assert_close(E.crop_flip(0, 0.0)(x, generator=g()), x)
    torch.testing.assert_close(E.crop_flip(0, 1.0)(x, generator=g()), x.flip(-1))
    made, padded, used = E.crop_flip(1, 0.5)(x, generator=g(1)), F.pad(x, (1, 1, 1, 1), "reflect"), set()
    for i, image in enumerate(made):
        windows = {(r, c): padded[i, :, r : r + 5, c : c + 5] for r in range(3) for c in range(3)}
        found = [(*k, m) for k, w in windows.items() for m in (0, 1) if torch.equal(image, w.flip(-1) if m else w)]
        assert len(found) == 1
        used |= set(found)
    assert len(used) >= 14  # of 18


def test_mixup_is_cross_entropy_with_soft_labels():
    x, y = torch.randn(6, 3, 2, 2, generator=g()), torch.randint(4, (6,), generator=g())
    other = torch.randperm(6, generator=g(2))
    weight = torch.randn(12, 4, generator=g(3))
    soft = 0.3 * F.one_hot(y, 4) + 0.7 * F.one_hot(y[other], 4)
    scores = (0.3 * x + 0.7 * x[other]).flatten(1) @ weight
    wanted = -(soft * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(E.mixup_loss(lambda v: v.flatten(1) @ weight, x, y, 0.3, other), wanted)


def test_cutmix_pastes_one_box_and_says_what_is_left():
    x, other = torch.rand(5, 2, 8, 6, generator=g()), torch.tensor([3, 2, 4, 0, 1])
    shares = []
    for seed in range(40):
        mixed, left = E.cutmix(x, 0.6, other, g(seed))
        pasted = (mixed != x).all(1).any(0)
        assert torch.equal(mixed[:, :, pasted], x[other][:, :, pasted]) and torch.equal(
            mixed[:, :, ~pasted], x[:, :, ~pasted])  # fmt: skip
        assert left == pytest.approx(1 - float(pasted.double().mean()))
        line = pasted.any(1).sum() * pasted.any(0).sum()
        assert int(line) == int(pasted.sum()) <= round(8 * 0.4**0.5) * round(6 * 0.4**0.5), "a box"
        shares.append(left)
    assert 0.6 < sum(shares) / 40 < 0.8 and len(set(shares)) > 3
    assert torch.equal(E.cutmix(x, 1.0, other, g())[0], x)


def test_training_uses_the_augmentation_and_repeats_itself():
    from labcode.nets import SmallNet, seeded

    x, y = torch.rand(64, 3, 8, 8, generator=g()), torch.arange(64) % 2
    x[y == 1, 0] += 1
    calls = []

    def augment(images, *, generator):
        calls.append(len(images))
        return images

    def trained(mixup, cut=0.0):
        model = seeded(0, lambda: E.Classifier(SmallNet(8, 16), 2))
        return E.fit_classifier(model, x, y, 30, 0, augment, mixup=mixup, cut=cut, batch=32)

    nets = [trained(mixup) for mixup in (0.0, 0.0, 1.0)]
    assert calls == [32] * 90
    assert not torch.equal(trained(0.0, 1.0).head.weight, nets[0].head.weight)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(nets[0].head.weight, nets[2].head.weight)
    assert float((nets[0].predicted(x) == y).float().mean()) > 0.9


def test_predictions_are_made_in_evaluation_mode_and_move_no_statistics():
    torch.manual_seed(0)
    model, x = E.Classifier(nets.SmallNet(8, 16), 3), torch.rand(20, 3, 8, 8, generator=g())
    model(x)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    found = model.predicted(x, chunk=3)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(found, model.eval().predicted(x)) and not model.training


@pytest.mark.bad_input
def test_what_cannot_be_learnt_from_is_refused_by_name():
    x, y = torch.rand(6, 3, 8, 8, generator=g()), torch.arange(6) % 3
    odd = x.clone()
    odd[0, 0, 0, 0] = float("nan")
    for images, labels, message in [
        ((x * 255).byte(), y, "images must be float"),
        (odd, y, "images must be finite"),
        (x, y + 1, "labels must lie in 0 … 2, got 1 … 3"),
        (x, y[:4], "labels must be one an image, 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            E.fit_classifier(E.Classifier(nets.SmallNet(8, 16), 3), images, labels, 1, 0)
