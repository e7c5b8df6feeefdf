import pytest
import torch
from sklearn import metrics

from labcode.imperfect_labels import measures


def g(seed=0):
    return torch.Generator().manual_seed(seed)


FOUND, WRONG = (torch.rand(4, 60, generator=g(i)) < share for i, share in ((0, 0.3), (1, 0.4)))
CLASSES = torch.arange(60) % 5


def test_detection_is_scikit_learns():
    for wrong in (WRONG, WRONG[0]):
        found = measures.detection(FOUND, wrong)
        for i, (said, so) in enumerate(zip(FOUND, wrong.expand(4, -1), strict=True)):
            p, r, f, _ = metrics.precision_recall_fscore_support(so, said, average="binary", zero_division=0)
            assert [float(found[name][i]) for name in ("precision", "recall", "F1")] == pytest.approx([p, r, f])
    nothing = torch.zeros(5, dtype=torch.bool)
    assert all(float(v) == 0 for v in measures.detection(nothing, ~nothing).values())
    assert all(float(v) == 0 for v in measures.detection(~nothing, nothing).values())
    assert all(float(v) == 1 for v in measures.detection(~nothing, ~nothing).values())


def test_auroc_is_scikit_learns_with_ties_too():
    score = torch.randn(4, 60, generator=g(2))
    for values in (score, score.round(), (2 * score).long(), score.half(), score.T.contiguous().T):
        for wrong in (WRONG, WRONG[0]):
            found = measures.auroc(values, wrong)
            pairs = zip(values.float(), wrong.expand(4, -1), strict=True)
            assert found.tolist() == pytest.approx([metrics.roc_auc_score(w, s) for s, w in pairs], abs=1e-12)
    assert float(measures.auroc(torch.ones(60), WRONG[0])) == 0.5
    assert float(measures.auroc(WRONG[0].double(), WRONG[0])) == 1
    assert measures.auroc(score.view(2, 2, 60), WRONG[0]).shape == (2, 2)


def test_recalls_are_scikit_learns_and_name_what_is_absent():
    predicted = torch.randint(5, (4, 60), generator=g(3))
    for labels in (CLASSES, torch.randint(5, (4, 60), generator=g(4))):
        found = measures.recalls(predicted, labels, 6)
        for row, said, so in zip(found, predicted, labels.expand(4, -1), strict=True):
            assert row[:5].tolist() == pytest.approx(metrics.recall_score(so, said, average=None, labels=range(5)))
            assert row[5].isnan()
            assert float(row[:5].mean()) == pytest.approx(metrics.balanced_accuracy_score(so, said))


def test_many_medium_and_few():
    recall = torch.tensor([[0.9, 0.8, 0.6, 0.5, 0.1], [1.0, 1.0, 0.0, 0.0, 0.5]])
    found = measures.many_medium_few(recall, torch.tensor([400, 101, 100, 20, 19]))
    wanted = dict(many=[0.85, 1.0], medium=[0.55, 0.0], few=[0.1, 0.5])
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.tolist() == pytest.approx(wanted[name])
    none = measures.many_medium_few(recall[0], torch.tensor([9, 9, 9, 9, 9]), groups=(5, 2))
    assert none["few"].isnan() and float(none["many"]) == pytest.approx(0.58)


def test_calibration_error_is_a_loop_over_bins():
    p = torch.randn(3, 60, 5, generator=g(5)).mul(2).softmax(-1)
    for bins in (1, 4, 15):
        found = measures.calibration_error(p, CLASSES, bins)
        for one, value in zip(p.double().numpy(), found.tolist(), strict=True):
            top, right, wanted = one.max(1), one.argmax(1) == CLASSES.numpy(), 0.0
            for b in range(bins):
                inside = (top > b / bins) & (top <= (b + 1) / bins)
                if inside.any():
                    wanted += inside.mean() * abs(right[inside].mean() - top[inside].mean())
            assert value == pytest.approx(wanted, abs=1e-12)
    sure = torch.eye(5)[CLASSES]
    assert float(measures.calibration_error(sure, CLASSES)) == 0
    assert float(measures.calibration_error(sure, (CLASSES + 1) % 5)) == 1
    edge = torch.tensor([[0.5, 0.5], [0.6, 0.4]])  # the first, right, is of the lower bin; the second, wrong, is not
    assert float(measures.calibration_error(edge, torch.tensor([0, 1]), 2)) == pytest.approx((0.5 + 0.6) / 2)
    sevens = torch.eye(2)[[0, 0, 1, 1]] * 0.4 + 0.3  # sure of 0.7, right half of the time
    assert float(measures.calibration_error(sevens, torch.tensor([0, 1, 1, 0]), 10)) == pytest.approx(0.2)


def test_area_is_the_mean_height():
    budgets = torch.tensor([10, 20, 50])
    values = torch.tensor([[0.2, 0.4, 1.0], [0.7, 0.7, 0.7]])
    wanted = [metrics.auc(budgets, v) / 40 for v in values.double().numpy()]
    assert measures.area(budgets, values).tolist() == pytest.approx(wanted)
    assert float(measures.area([1, 2], [0.0, 1.0])) == 0.5


BOTH = torch.tensor([True, False])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "work, words",
    [
        (lambda: measures.detection(FOUND, WRONG[:, :9]), r"wrong must be \(4, 60\) or \(60,\), .* got \(4, 9\)"),
        (lambda: measures.detection(FOUND.long(), WRONG), "found must be a mask of bools, got torch.int64"),
        (lambda: measures.detection(FOUND, WRONG.long()), "wrong must be a mask of bools, got torch.int64"),
        (lambda: measures.auroc(torch.ones(2), BOTH | True), "wrong must hold some of both kinds, got 2 of 2"),
        (lambda: measures.auroc(torch.ones(0), BOTH[:0]), "not empty"),
        (lambda: measures.auroc(torch.tensor([torch.nan, 1]), BOTH), "score must be finite"),
        (lambda: measures.recalls(CLASSES, CLASSES, 4), "predicted must lie in 0 … 3, got 0 … 4"),
        (lambda: measures.recalls(CLASSES * 0, CLASSES, 4), "labels must lie in 0 … 3, got 0 … 4"),
        (lambda: measures.many_medium_few(torch.ones(3), torch.ones(2)), r"counts must be .* 3 classes, got \(2,\)"),
        (lambda: measures.many_medium_few(torch.ones(2), torch.ones(2), (1, 2)), r"groups must be .* got \(1, 2\)"),
        (lambda: measures.calibration_error(torch.ones(2, 2) * 2, CLASSES[:2]), r"probabilities must .* in \[0, 1\]"),
        (lambda: measures.calibration_error(torch.ones(2, 2), CLASSES[:2], 0), "bins must be at least 1, got 0"),
        (lambda: measures.calibration_error(torch.ones(2, 2), CLASSES[:3] % 2), r"labels must be .* got \(3,\)"),
        (lambda: measures.area([1, 1], [1.0, 1.0]), "budgets must be two rising numbers"),
        (lambda: measures.area([1, 2], [1.0]), r"values must have one for each of the 2 budgets, got \(1,\)"),
    ],
)
def test_bad_input_is_named(work, words):
    with pytest.raises(ValueError, match=words):
        work()
