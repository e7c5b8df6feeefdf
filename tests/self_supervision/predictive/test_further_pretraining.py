"""Further pre-training: the sum of its parts, the closed form against gradient flow, fine-tuning."""

import copy

import pytest
import torch
from self_supervision.predictive.helpers import draw, vit

from labcode.self_supervision import predictive as P


def test_self_distillation_loss_is_the_loop_and_stops_at_the_teacher():
    s, t = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    wanted = sum((s[i, j].item() - t[i, j].item()) ** 2 for i in range(3) for j in range(4)) / 3
    loss = P.self_distillation_loss(s, t)
    loss.backward()
    assert loss.item() == pytest.approx(wanted, rel=1e-12) and t.grad is None
    assert float(P.self_distillation_loss(2 * torch.ones(1, 5), torch.zeros(1, 5))) == 20, "a sum over features"


def test_further_is_the_sum_of_its_parts():
    base, x = P.MAE(vit(cls=True), width=16), draw(4, 1, 6, 6, dtype=torch.float32)
    teacher = vit(cls=True, seed=5)
    plain, distilled = P.Further(copy.deepcopy(base)), P.Further(copy.deepcopy(base), teacher)
    torch.manual_seed(3)
    first = float(plain(x).detach())
    torch.manual_seed(3)
    second = distilled(x)
    apart = (base.encoder(x)[:, 0] - teacher(x)[:, 0]).square().sum(1).mean()
    assert second.item() == pytest.approx(first + apart.item(), rel=1e-5)
    second.backward()
    assert all(p.grad is None and not p.requires_grad for p in distilled.teacher.parameters())
    assert all(p.requires_grad for p in teacher.parameters()), "the teacher itself is left as it was"


def test_distillation_alone_leaves_the_masked_loss_out():
    base, x, teacher = P.MAE(vit(cls=True), width=16), draw(4, 1, 6, 6, dtype=torch.float32), vit(cls=True, seed=5)
    loss = P.Further(copy.deepcopy(base), teacher, masked=False)(x)
    apart = (base.encoder(x)[:, 0] - teacher(x)[:, 0]).square().sum(1).mean()
    assert loss.item() == pytest.approx(apart.item(), rel=1e-5)
    with pytest.raises(ValueError, match="masked must be True where there is no teacher"):
        P.Further(base, masked=False)


def test_tokens_of_a_step_are_counted():
    """Nine patches and a class token: a masked pass sees a quarter of the patches, two; a whole pass all."""
    base, x = P.MAE(vit(cls=True), width=16), draw(4, 1, 6, 6, dtype=torch.float32)
    teacher, state = vit(cls=True), torch.get_rng_state()
    assert P.encoder_tokens(P.Further(base), x) == 4 * (2 + 1)
    assert P.encoder_tokens(P.Further(base, teacher), x) == 4 * (2 + 1) + 2 * 4 * (9 + 1)
    assert P.encoder_tokens(P.Further(base, teacher, masked=False), x) == 2 * 4 * (9 + 1)
    assert torch.equal(torch.get_rng_state(), state) and not base.encoder._forward_hooks


def test_pull_holds_the_encoder_where_it_started():
    base, x = P.MAE(vit(cls=True), width=16), draw(8, 1, 6, 6, dtype=torch.float32)
    far = []
    for pull in (0.0, 10.0):
        model = P.Further(copy.deepcopy(base), pull=pull)
        optimiser = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(10):
            optimiser.zero_grad()
            model(x).backward()
            optimiser.step()
        far.append(float(P.moved(model.encoder, list(base.encoder.parameters()))))
    assert far[1] < 0.2 * far[0]
    assert float(P.moved(base.encoder, list(base.encoder.parameters()))) == 0


def test_rounds_of_distillation_are_gradient_flow():
    x, away, time = draw(6, 9), draw(9, seed=1), 2.0
    rounds = P.distillation_rounds(x, away, time, 4)
    start = draw(9, seed=2)
    teacher = start + away
    for t in range(1, 4):
        w = start.clone()
        for _ in range(20_000):
            w -= time / 20_000 * x.T @ (x @ w - x @ teacher) / 6
        assert torch.allclose(w - start, rounds[t], atol=1e-4)
        teacher = w
    length = rounds.norm(dim=1)
    assert (length[1:] < length[:-1]).all() and torch.allclose(rounds[0], away)


def test_reader_reads_the_class_token():
    x, encoder = draw(3, 1, 6, 6, dtype=torch.float32), vit(cls=True)
    reader = P.Reader(encoder, 4)
    assert torch.equal(reader(x), reader.head(encoder(x)[:, 0])) and reader(x).shape == (3, 4)


def test_fine_tune_learns_and_leaves_the_encoder_alone():
    encoder, g = vit(cls=True), torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.randn(40, 1, 6, 6, generator=g) + 3 * (y[:, None, None, None] * 2 - 1) * torch.eye(6)
    before, state = [p.clone() for p in encoder.parameters()], torch.get_rng_state()
    reader = P.fine_tune(encoder, x, y, 2, steps=40, lr=5e-3)
    assert (reader(x).argmax(1) == y).float().mean() > 0.95
    assert all(torch.equal(p, q) for p, q in zip(encoder.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.bad_input
def test_labels_and_inputs_that_do_not_fit_are_named():
    x = draw(4, 1, 6, 6).float()
    with pytest.raises(ValueError, match="y must lie in 0 … 2, got 0 … 3"):
        P.fine_tune(vit(cls=True), x, torch.arange(4), 3, steps=1)
    with pytest.raises(ValueError, match="y must be one class for each of the 4 images"):
        P.fine_tune(vit(cls=True), x, torch.arange(3), 3, steps=1)
    odd = draw(5, 3)
    odd[0, 0] = float("inf")
    with pytest.raises(ValueError, match="x must be finite"):
        P.distillation_rounds(odd, draw(3), 1.0, 2)
    with pytest.raises(ValueError, match="away must have 3 values"):
        P.distillation_rounds(draw(5, 3), draw(4), 1.0, 2)


def test_the_masked_error_is_the_loss_with_the_same_masks_for_all():
    mae, x = P.MAE(vit(), width=8), draw(6, 1, 6, 6, dtype=torch.float32)
    before, found = torch.get_rng_state(), P.masked_error(mae, x, draws=3, seed=5)
    assert torch.equal(before, torch.get_rng_state()) and found == P.masked_error(mae, x, draws=3, seed=5)
    torch.manual_seed(5)
    with torch.no_grad():
        assert found == pytest.approx(sum(mae(x).item() for _ in range(3)) / 3, rel=1e-6)
