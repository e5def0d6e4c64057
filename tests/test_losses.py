"""InfoNCE and its kin, by hand and against the information of a known joint distribution; spectra and codebooks."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.losses import (
    info_nce,
    linear_contrast,
    mean_where,
    perplexity,
    spectral_distance,
    symmetric_info_nce,
)


def generator():
    return torch.Generator().manual_seed(0)


def test_by_hand():
    positive, negatives = torch.tensor([1.0]), torch.tensor([[2.0, 3.0]])
    expected = -math.log(math.exp(-1) / (math.exp(-1) + math.exp(-2) + math.exp(-3)))
    assert info_nce(positive, negatives).item() == pytest.approx(expected)
    assert info_nce(2 * positive, 2 * negatives, temperature=2.0).item() == pytest.approx(expected)
    assert linear_contrast(negatives).item() == -2.5


@pytest.mark.parametrize("count", [1, 10])
def test_equal_scores_cost_the_logarithm_of_their_number(count):
    scores = torch.full((3, count), 7.0)
    torch.testing.assert_close(info_nce(scores[:, 0], scores), torch.full((3,), math.log(count + 1)))


def test_bounds_and_invariances():
    positive, negatives = torch.randn(50, generator=generator()), torch.randn(50, 10, generator=generator()) * 5
    loss = info_nce(positive, negatives)
    assert (loss >= 0).all()
    torch.testing.assert_close(info_nce(positive + 3, negatives + 3), loss)
    order = torch.randperm(10, generator=generator())
    torch.testing.assert_close(info_nce(positive, negatives[:, order]), loss)
    torch.testing.assert_close(linear_contrast(negatives[:, order]), linear_contrast(negatives))


@pytest.mark.parametrize("num_negatives", [1, 3, 15])
def test_the_exact_density_ratio_stays_below_the_information(num_negatives):
    """log(n + 1) - loss is at most I(z; c), here that of a 4 x 4 table, in expectation (Oord et al. 2018, Eq. 5)."""
    joint = torch.rand(4, 4, generator=generator(), dtype=torch.float64) ** 4
    joint = joint / joint.sum()
    rows, columns = joint.sum(1, keepdim=True), joint.sum(0, keepdim=True)
    information = (joint * (joint / rows / columns).log()).sum().item()
    log_ratio = (joint / rows / columns).log()

    size = 40_000
    pairs = torch.multinomial(joint.flatten(), size, replacement=True, generator=generator())
    z, c = pairs // 4, pairs % 4
    others = torch.multinomial(rows[:, 0].expand(size, 4), num_negatives, replacement=True, generator=generator())
    loss = info_nce(-log_ratio[z, c], -log_ratio[others, c[:, None]]).mean().item()
    assert 0 < math.log(num_negatives + 1) - loss < information
    if num_negatives == 15:
        assert math.log(16) - loss > 0.6 * information, "a bound that is never near would prove nothing"


# Pairs ---------------------------------------------------------------------------------------------------------


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def eye(size):
    return torch.eye(size, dtype=torch.bool)


def pair_loss(images, texts, scale=1.0, is_same=None):
    logits = scale * images @ texts.T
    return symmetric_info_nce(logits, logits.T, 0, eye(len(images)) if is_same is None else is_same)


def test_pairs_by_hand():
    logits, across = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([[1.0, 0.5], [2.0, -1.0]])
    first = (math.log(1 + math.exp(2 - 1)) + math.log(1 + math.exp(0.5 - 1))) / 2
    second = (math.log(1 + math.exp(0.5 + 1)) + math.log(1 + math.exp(2 + 1))) / 2
    assert symmetric_info_nce(logits, across, 0, eye(2)).tolist() == pytest.approx([first, second])


def test_pairs_are_two_cross_entropies():
    logits, target = 5 * unit(9, 4) @ unit(9, 4, seed=1).T, torch.arange(9)
    loss = symmetric_info_nce(logits, logits.T, 0, eye(9))
    assert loss.mean() == pytest.approx(
        (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)).item() / 2
    )
    each = [F.cross_entropy(part, target, reduction="none") for part in (logits, logits.T)]
    torch.testing.assert_close(loss, (each[0] + each[1]) / 2)


def test_pairs_that_match_perfectly_cost_nothing():
    assert pair_loss(torch.eye(16), torch.eye(16), scale=100).max() < 1e-6
    assert pair_loss(torch.eye(16), torch.eye(16).roll(1, 0), scale=100).min() > 99


def test_random_pairs_cost_about_the_logarithm_of_their_number():
    loss = pair_loss(unit(64, 256), unit(64, 256, seed=1))
    assert loss.mean().item() == pytest.approx(math.log(64), abs=0.05)


def test_one_pair_alone_costs_exactly_nothing():
    assert pair_loss(unit(1, 8), unit(1, 8, seed=1), scale=50).tolist() == [0]


def test_the_order_of_pairs_changes_nothing():
    images, texts, order = unit(12, 6), unit(12, 6, seed=1), torch.randperm(12, generator=generator())
    words = torch.arange(12) % 5
    is_same = words[:, None] == words
    loss = pair_loss(images, texts, 8.0, is_same)
    moved = pair_loss(images[order], texts[order], 8.0, is_same[order][:, order])
    torch.testing.assert_close(moved, loss[order])
    torch.testing.assert_close(moved.mean(), loss.mean())


def test_each_process_has_its_rows_of_the_loss():
    logits, words = 6 * unit(8, 5) @ unit(8, 5, seed=1).T, torch.tensor([0, 1, 2, 0, 3, 2, 2, 4])
    is_same = words[:, None] == words
    whole = symmetric_info_nce(logits, logits.T, 0, is_same)
    for offset, size in ((0, 3), (3, 4), (7, 1)):
        rows = slice(offset, offset + size)
        part = symmetric_info_nce(logits[rows], logits.T[rows], offset, is_same[rows])
        torch.testing.assert_close(part, whole[rows])


def test_pairs_with_the_same_text_are_no_negatives():
    """Each row costs what it costs in a matrix without the other pairs of its text."""
    logits, words = 6 * unit(7, 5) @ unit(7, 5, seed=1).T, [0, 1, 0, 2, 0, 1, 3]
    is_same = torch.tensor([[a == b for a in words] for b in words])
    loss = symmetric_info_nce(logits, logits.T, 0, is_same)
    for row, word in enumerate(words):
        kept = [i for i, other in enumerate(words) if other != word or i == row]
        reduced = logits[kept][:, kept]
        expected = symmetric_info_nce(reduced, reduced.T, 0, eye(len(kept)))[kept.index(row)]
        torch.testing.assert_close(loss[row], expected)
    assert (loss[[0, 1, 2, 4, 5]] < symmetric_info_nce(logits, logits.T, 0, eye(7))[[0, 1, 2, 4, 5]]).all()


def test_pairs_that_all_say_the_same_cost_nothing_and_pull_nowhere():
    logits = (4 * unit(5, 3) @ unit(5, 3, seed=1).T).requires_grad_()
    is_same = torch.ones(5, 5, dtype=torch.bool)
    loss = symmetric_info_nce(logits, logits.T, 0, is_same)
    loss.sum().backward()
    assert loss.tolist() == [0] * 5
    assert torch.as_tensor(logits.grad).tolist() == [[0] * 5] * 5
    assert is_same.all(), "what was handed over is as it was"


def test_pairs_are_compared_in_single_precision():
    logits = (30 * unit(6, 4) @ unit(6, 4, seed=1).T).bfloat16()
    loss = symmetric_info_nce(logits, logits.T, 0, eye(6))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, symmetric_info_nce(logits.float(), logits.float().T, 0, eye(6)))


def test_the_mean_is_over_what_counts():
    value, keep = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, False, True])
    assert mean_where(value, keep) == 3.5
    assert mean_where(value, ~keep) == 2
    assert mean_where(value, torch.ones(3, dtype=torch.bool)) == 3
    assert mean_where(value > 1, keep) == 0.5
    assert mean_where(value, torch.zeros(3, dtype=torch.bool)) == 0
    assert mean_where(value[:0], keep[:0]) == 0


def test_the_mean_pulls_at_what_counts_alone():
    value = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    mean_where(value, torch.tensor([True, False, True])).backward()
    assert torch.as_tensor(value.grad).tolist() == [0.5, 0, 0.5]


# Spectra and codebooks -----------------------------------------------------------------------------------------


def noise(length=400, seed=0):
    return torch.randn(2, length, generator=torch.Generator().manual_seed(seed))


def test_spectra_by_hand():
    """Frames cut out and multiplied by the Fourier matrix, in numpy."""
    first, second, total = noise().double().numpy(), noise(seed=1).double().numpy(), 0.0
    for window in (64, 32):
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        frames = range(0, 400 - window + 1, window // 4)
        magnitudes = [
            np.abs(np.fft.rfft(np.stack([audio[:, i : i + window] * hann for i in frames], 1)))
            for audio in (first, second)
        ]
        total += np.abs(magnitudes[0] - magnitudes[1]).mean() + np.abs(np.diff(np.log(magnitudes), axis=0)).mean()
    found = spectral_distance(noise(), noise(seed=1), (64, 32))
    assert found.item() == pytest.approx(total, rel=1e-4)


def test_a_louder_copy_is_off_by_the_logarithm_of_its_gain():
    magnitude, found = noise(), spectral_distance(noise() * 3, noise(), (64,))
    linear = spectral_distance(noise() * 3, noise(), (64,)) - math.log(3)
    assert found.item() == pytest.approx(math.log(3) + linear.item())
    assert linear > 0
    assert spectral_distance(magnitude, magnitude) == 0


def test_silence_has_a_distance_and_a_gradient():
    estimate = (noise() * 0.1).requires_grad_()
    distance = spectral_distance(estimate, torch.zeros(2, 400))
    distance.backward()
    assert torch.isfinite(distance)
    assert torch.isfinite(estimate.grad).all()
    assert spectral_distance(torch.zeros(2, 400), torch.zeros(2, 400)) == 0


def test_windows_that_do_not_fit_are_left_out():
    assert spectral_distance(noise(100), noise(100, 1)) == spectral_distance(noise(100), noise(100, 1), (64,))
    with pytest.raises(ValueError, match="audio has 63 samples: expected at least 64"):
        spectral_distance(noise(63), noise(63))


@pytest.mark.parametrize(("tokens", "expected"), [([0, 0, 0], 1), ([0, 1, 2, 3], 4), ([0, 0, 1, 1], 2)])
def test_perplexity_counts_evenly_used_codes(tokens, expected):
    assert perplexity(torch.tensor([tokens]), 8).item() == pytest.approx(expected)
