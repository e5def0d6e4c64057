"""Guiding, sharpening and drawing from categorical distributions, against plain Python."""

import math

import numpy as np
import pytest
import torch

from mmdiffusion.diffusion import categorical
from mmdiffusion.diffusion.categorical import draw_codes, guide, temper, top_k, truncate
from tests.diffusion.discrete_oracles import logits, uniform

NEVER = float("-inf")


def distributions(*shape, seed=0):
    return logits(*shape, seed=seed).float().log_softmax(-1)


# Draws ---------------------------------------------------------------------------------------------------------


def test_draw_is_the_inverse_distribution_function():
    log_probs = torch.tensor([0.25, 0.5, 0.0, 0.25]).log()
    numbers = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999])
    assert draw_codes(log_probs.expand(6, 4), numbers).tolist() == [0, 0, 1, 1, 3, 3]


def test_draw_is_plain_python_on_random_distributions():
    log_probs, numbers = distributions(3, 20, 37), uniform(3, 20, dtype=torch.float32)
    drawn = draw_codes(log_probs, numbers)
    for row, number, code in zip(log_probs.flatten(0, 1), numbers.flatten(), drawn.flatten(), strict=True):
        probs = np.exp(row.double().numpy())
        assert int(code) == int(np.searchsorted(np.cumsum(probs), float(number) * probs.sum(), side="right"))


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24, 1 - 2**-53])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draw_never_gives_a_code_of_no_mass(number, dtype):
    log_probs = distributions(50, 301).to(dtype)
    log_probs[:, 0], log_probs[:, 100:200], log_probs[:, -40:] = NEVER, NEVER, NEVER
    drawn = draw_codes(log_probs, torch.full((50,), number, dtype=torch.float64))
    assert bool(log_probs.gather(1, drawn[:, None]).isfinite().all())


def test_draw_needs_no_normalisation_and_ignores_the_batch():
    log_probs, numbers = distributions(6, 11), uniform(6)
    assert torch.equal(draw_codes(log_probs + 3, numbers), draw_codes(log_probs, numbers))
    alone = [draw_codes(log_probs[i : i + 1], numbers[i : i + 1]) for i in range(6)]
    assert torch.equal(torch.cat(alone), draw_codes(log_probs, numbers))


def test_draw_and_truncation_take_a_prediction_that_wants_gradients():
    log_probs = distributions(6, 11).requires_grad_()
    assert torch.equal(
        draw_codes(truncate(log_probs, 0.8), uniform(6)), draw_codes(truncate(log_probs.detach(), 0.8), uniform(6))
    )


def test_draw_takes_bfloat16():
    low = distributions(6, 11).bfloat16()
    assert torch.equal(draw_codes(low, uniform(6)), draw_codes(low.float(), uniform(6)))


# Guidance and temperature --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_the_power_of_the_ratio(scale):
    given, null = distributions(4, 9), distributions(4, 9, seed=1)
    weights = null.exp() * (given.exp() / null.exp()) ** scale
    torch.testing.assert_close(guide(given, null, scale).exp(), weights / weights.sum(-1, keepdim=True))


def test_guidance_of_scale_one_is_the_conditional_prediction():
    given, null = distributions(4, 9), distributions(4, 9, seed=1)
    torch.testing.assert_close(guide(given, null, 1.0), given, atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_is_a_power(temperature):
    log_probs = distributions(4, 9)
    weights = log_probs.exp() ** (1 / temperature)
    torch.testing.assert_close(temper(log_probs, temperature).exp(), weights / weights.sum(-1, keepdim=True))


# Truncation ----------------------------------------------------------------------------------------------------


def kept_by_hand(probs, share):
    """The smallest prefix, in falling order, whose preceding mass is below the share."""
    kept, before = [], 0.0
    for code in sorted(range(len(probs)), key=lambda code: -probs[code]):
        if before >= share:
            break
        kept.append(code)
        before += probs[code]
    return sorted(kept)


@pytest.mark.parametrize("share", [1e-6, 0.2, 0.5, 0.86, 0.999])
def test_truncation_keeps_the_smallest_prefix_that_reaches_the_share(share):
    log_probs = distributions(40, 23)
    cut = truncate(log_probs, share)
    for before, after in zip(log_probs, cut, strict=True):
        probs = before.double().exp().tolist()
        kept = kept_by_hand(probs, share)
        assert after.isfinite().nonzero().flatten().tolist() == kept
        expected = torch.tensor([probs[code] for code in kept])
        torch.testing.assert_close(after[kept].exp(), expected / expected.sum())


@pytest.mark.parametrize("probs", [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
@pytest.mark.parametrize(("share", "num_kept"), [(0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3)])
def test_truncation_counts_the_mass_before_a_code(probs, share, num_kept):
    cut = truncate(torch.tensor(probs).log(), share)
    assert int(cut.isfinite().sum()) == num_kept
    assert math.isfinite(cut[probs.index(0.5)])


def test_truncation_keeps_equals_whatever_their_order():
    log_probs = torch.tensor([0.2, 0.1, 0.2, 0.2, 0.3]).log()
    assert truncate(log_probs, 0.4).isfinite().tolist() == [True, False, True, True, True]
    assert torch.equal(truncate(log_probs.flip(0), 0.4), truncate(log_probs, 0.4).flip(0))


def test_truncation_does_not_depend_on_the_blocks_it_is_done_in(monkeypatch):
    log_probs = distributions(30, 9).unflatten(0, (3, 10))
    whole = truncate(log_probs, 0.7)
    monkeypatch.setattr(categorical, "NUM_ROWS", 7)
    assert whole.shape == log_probs.shape
    assert torch.equal(truncate(log_probs, 0.7), whole)
    assert truncate(log_probs[:0], 0.7).shape == (0, 10, 9)


def test_a_temperature_of_one_changes_nothing():
    log_probs = distributions(3, 9)
    assert torch.equal(temper(log_probs, 1.0), log_probs)


def test_truncation_to_everything_changes_nothing():
    log_probs = distributions(3, 9)
    assert torch.equal(truncate(log_probs, 1.0), log_probs)


@pytest.mark.parametrize("count", [1, 4, 23])
def test_top_k_keeps_the_most_probable(count):
    log_probs = distributions(10, 23)
    cut = top_k(log_probs, count)
    assert torch.equal(cut.isfinite(), torch.zeros(10, 23).scatter(1, log_probs.topk(count).indices, 1) > 0)
    torch.testing.assert_close(cut.exp().sum(1), torch.ones(10))


@pytest.mark.parametrize("sharpen", [lambda x: truncate(x, 0.8), lambda x: top_k(x, 5), lambda x: temper(x, 0.7)])
def test_sharpening_widens_bfloat16(sharpen):
    low = distributions(4, 23).bfloat16()
    assert sharpen(low).dtype == torch.float32
    assert torch.equal(sharpen(low), sharpen(low.float()))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda x: truncate(x, 0.0), "share is 0.0: expected above 0"),
        (lambda x: truncate(x, 1.5), "share is 1.5"),
        (lambda x: top_k(x, 0), "count is 0: expected 1 to 9"),
        (lambda x: top_k(x, 10), "count is 10: expected 1 to 9"),
        (lambda x: temper(x, 0.0), "temperature is 0.0: expected above 0"),
    ],
)
def test_mistakes_are_named(act, message):
    with pytest.raises(ValueError, match=message):
        act(distributions(2, 9))
