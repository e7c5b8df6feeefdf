"""Label-free scores on matrices whose rank and decay are known."""

import pytest
import torch

from labcode.self_supervision import redundancy as R


def test_rank_tools():
    turn = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    z = torch.linalg.qr(torch.randn(50, 5, dtype=torch.float64))[0] @ turn[:5]
    assert R.rankme(z) == pytest.approx(5, abs=1e-2) and R.rankme(1e4 * z) == pytest.approx(5, abs=1e-2)
    q = torch.linalg.qr(torch.randn(500, 30, dtype=torch.float64))[0]
    q = torch.linalg.qr(q - q.mean(0))[0]
    assert R.alpha_req(q * torch.arange(1, 31) ** -0.75) == pytest.approx(1.5, rel=1e-6)
    assert R.regret([1, 3, 2], [0.5, 0.6, 0.9]) == pytest.approx(0.3)
    assert R.spearman([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert R.distance_to_uniform((torch.arange(100)[:, None] + 0.5) / 100) == pytest.approx(0.005, abs=1e-6)


def test_the_second_data_set_is_another_and_its_probe_is_scikit_learns(tmp_path, monkeypatch):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from labcode.course.run import start
    from labcode.course.stage import Stage

    monkeypatch.setenv("LABCODE_SCALE", "quick")
    stage = Stage(start("part/chapter"))
    train, y, test, y_test = images = R.second_data(stage)
    assert train.shape[1:] == stage.train_images.shape[1:] and len(train) == len(y) and len(test) == len(y_test)
    assert not (train[:, None] == stage.train_images[None, :50]).flatten(2).all(2).any()
    encoder = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    scale = StandardScaler().fit(stage.features(encoder, train))
    a, b = (scale.transform(stage.features(encoder, x)) for x in (train, test))
    model = LogisticRegression(C=1 / (0.01 * len(y)), max_iter=500).fit(a, y)
    assert R.probe_on(stage, encoder, images) == pytest.approx(model.score(b, y_test), abs=0.01)
