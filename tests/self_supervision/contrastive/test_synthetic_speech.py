"""Signals with known phones and speakers."""

import pytest
import torch

from labcode.self_supervision import contrastive as C
from labcode.self_supervision.contrastive.synthetic_speech import _voices


def test_speech_has_its_factors():
    heard = C.speech(48, frames=200, seed=1, stay=0.9)
    assert heard.signal.shape == (48, 200 * C.FRAME)
    assert heard.speakers.bincount().tolist() == [6] * C.SPEAKERS
    stays = (heard.phones[:, 1:] == heard.phones[:, :-1]).double().mean()
    assert float(stays) == pytest.approx(0.9, abs=0.02)
    assert torch.equal(C.speech(48, frames=200, seed=1).signal, heard.signal)
    assert not torch.equal(C.speech(48, frames=200, seed=2).signal, heard.signal)


def test_a_clean_frame_has_the_strengths_of_phone_and_speaker():
    heard = C.speech(16, frames=10, jitter=0.5, grain=0.0, hiss=0.0)
    filters, timbres = _voices()
    wanted = filters[heard.phones] + timbres[heard.speakers][:, None]
    amplitude = (C.log_spectrum(heard.signal) / 2).exp() / (C.FRAME / 2)
    assert torch.allclose(amplitude, wanted.exp(), rtol=0.02, atol=2e-2)


@pytest.mark.parametrize("same", [True, False])
def test_pools_of_four_have_one_speaker_or_four(same):
    speakers = C.speech(64, frames=1).speakers
    index = C.pools(64, same)(3)
    met = speakers[index].view(-1, 4)
    assert all(len(row.unique()) == (1 if same else 4) for row in met)
    assert len(index.unique()) == 32


def test_both_arms_see_the_same_sequences_and_batches_repeat():
    one, other = C.pools(64, True, seed=4), C.pools(64, False, seed=4)
    assert all(torch.equal(one(i).sort()[0], other(i).sort()[0]) for i in range(5))
    assert torch.equal(one(7), C.pools(64, True, seed=4)(7))
    assert not torch.equal(one(7), one(8))
