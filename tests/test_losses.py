"""InfoNCE and its linear stand-in, by hand and against the information of a known joint distribution."""

import math

import numpy as np
import pytest
import torch

from mmdiffusion.losses import info_nce, linear_contrast, perplexity, spectral_distance


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
