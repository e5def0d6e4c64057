"""Schedules of mask-and-replace diffusion (VQ-Diffusion, arXiv 2111.14822; MaskGIT, arXiv 2202.04200)."""

import numpy as np
import pytest
import torch

from mmdiffusion.diffusion import (
    CosineMaskingSchedule,
    MaskAndReplaceSchedule,
    MaskReplaceDiffusion,
    ReleasedSchedule,
    TableSchedule,
)
from mmdiffusion.diffusion.discrete_schedules import TokenSchedule
from tests.diffusion.discrete_oracles import SCHEDULES, TOY_KEEP, TOY_MASK, between, one_step_matrices, one_step_rates

LONG = {
    "released 80": ReleasedSchedule(80),
    "released 100": ReleasedSchedule(100),
    "mask_and_replace 80": MaskAndReplaceSchedule(80),
    "cosine 80": CosineMaskingSchedule(80),
}
EVERY = SCHEDULES | LONG

RELEASED = [
    (80, 1, 0.99999, 1.000e-6, 9.0e-6, 0.99999, 9e-6),
    (80, 2, 0.9873418861, 1.266e-8, 0.0126581013, 0.9873320127, 0.0126669873),
    (80, 8, 0.9863015033, 1.482e-8, 0.0136984819, 0.9113840886, 0.0886149114),
    (80, 41, 0.9750004444, 4.937e-8, 0.0249995063, 0.4936705063, 0.5063284937),
    (80, 79, 0.5001776902, 1.974e-5, 0.4998025742, 0.0126669873, 0.9873320127),
    (80, 80, 0.0007105083, 7.888e-5, 0.9992106086, 9e-6, 0.99999),
    (100, 10, 0.9890110966, 1.196e-8, 0.0109888914, 0.9090826364, 0.0909163636),
    (100, 100, 0.0008902238, 9.882e-5, 0.9990109604, 9e-6, 0.99999),
]
"""T, t, alpha, K beta, gamma, alpha_bar and gamma_bar, worked out from the public code's end points."""


@pytest.mark.parametrize(("num_steps", "t", "alpha", "replace", "gamma", "alpha_bar", "gamma_bar"), RELEASED)
def test_released_schedule_is_that_of_the_public_code(num_steps, t, alpha, replace, gamma, alpha_bar, gamma_bar):
    schedule = ReleasedSchedule(num_steps)
    steps = [rate[t - 1] for rate in one_step_rates(schedule)]
    np.testing.assert_allclose(steps, [alpha, replace, gamma], rtol=5e-4, atol=0)
    np.testing.assert_allclose([steps[0], steps[2]], [alpha, gamma], atol=6e-11)
    assert float(schedule.keep()[t]) == pytest.approx(alpha_bar, abs=6e-11)
    assert float(schedule.mask()[t]) == pytest.approx(gamma_bar, abs=6e-11)


def test_released_schedule_replaces_one_token_in_a_million():
    _, replace, _ = ReleasedSchedule(80).rates()
    np.testing.assert_allclose(replace[1:].numpy(), 1e-6, rtol=1e-9)


def test_toy_rates_are_the_golden_ones():
    alpha, replace, gamma = one_step_rates(SCHEDULES["toy"])
    np.testing.assert_allclose(alpha, [0.9, 0.763889, 0.690909, 0.552632, 0.190476], atol=6e-7)
    np.testing.assert_allclose(replace / 3, [0.016667, 0.008528, 0.014141, 0.027911, 0.079365], atol=6e-7)
    np.testing.assert_allclose(gamma, [0.05, 0.210526, 0.266667, 0.363636, 0.571429], atol=6e-7)
    beta_bar = MaskReplaceDiffusion(SCHEDULES["toy"], 3).beta_bar
    np.testing.assert_allclose(beta_bar[1:], [0.016667, 0.020833, 0.025, 0.029167, 0.033333], atol=6e-7)


@pytest.mark.parametrize("name", EVERY)
def test_every_step_keeps_replaces_and_masks(name):
    rates = one_step_rates(EVERY[name])
    assert all((rate > 0).all() for rate in rates)
    np.testing.assert_allclose(sum(rates), 1, atol=1e-15)


@pytest.mark.parametrize("name", EVERY)
def test_tables_start_clean_and_run_one_way(name):
    keep, replace, mask = EVERY[name].rates()
    assert keep.dtype == replace.dtype == mask.dtype == torch.float64
    assert len(keep) == len(mask) == EVERY[name].num_steps + 1
    assert (float(keep[0]), float(replace[0]), float(mask[0])) == (1, 0, 0)
    assert bool((keep.diff() < 0).all())
    assert bool((mask.diff() > 0).all())
    np.testing.assert_allclose((keep + replace + mask).numpy(), 1, atol=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_product_of_the_steps_is_the_cumulative_form(name):
    num_codes, schedule = 4, SCHEDULES[name]
    matrices = one_step_matrices(schedule, num_codes)
    for t in range(1, schedule.num_steps + 1):
        keep, replace, mask = (float(rate[t]) for rate in schedule.rates())
        expected = keep * np.eye(num_codes) + replace / num_codes
        product = between(matrices, 0, t)
        np.testing.assert_allclose(product[:-1, :-1], expected, atol=1e-15, rtol=1e-8)
        np.testing.assert_allclose(product[-1, :-1], mask, atol=1e-14)


def test_mask_and_replace_is_linear_up_to_its_share():
    keep, replace, mask = MaskAndReplaceSchedule(50, mask_share=0.7).rates()
    share = np.arange(51) / 50
    np.testing.assert_allclose(mask.numpy(), 0.7 * share, atol=1e-5)
    np.testing.assert_allclose(replace.numpy(), 0.3 * share, atol=1e-5)
    assert 0 < float(keep[-1]) < 1e-5


def test_cosine_masking_read_backwards_is_maskgit():
    decoded = 1 - np.arange(31) / 30
    np.testing.assert_allclose(CosineMaskingSchedule(30).mask().numpy(), np.cos(np.pi * decoded / 2), atol=1.01e-5)


def test_table_is_what_the_user_gave():
    keep, _, mask = TableSchedule(TOY_KEEP, TOY_MASK).rates()
    assert keep.tolist() == [1.0, *TOY_KEEP]
    assert mask.tolist() == [0.0, *TOY_MASK]


BAD_TABLES = [
    ([0.8, 0.5, 0.0], [0.1, 0.2, 0.3], "keep at step 3 is 0: expected above 0"),
    ([0.8, 0.5, float("nan")], [0.1, 0.2, 0.3], "keep at step 3 is nan"),
    ([0.5, 0.2, 0.1], [0.1, 0.4, 1.0], "mask at step 3 is 1: expected below 1"),
    ([0.8, 0.5, 0.2], [0.1, 0.6, 0.7], "replaced share 1 - keep - mask at step 2 is -0.1: expected above 0"),
    ([0.8, 0.85, 0.2], [0.05, 0.1, 0.3], "keep at step 2 is 0.85: expected below"),
    ([0.8, 0.5, 0.2], [0.1, 0.05, 0.3], "mask at step 2 is 0.05: expected above"),
    ([0.5, 0.4, 0.05], [0.1, 0.45, 0.94], "at step 2 is 0.15: expected to grow"),
]


@pytest.mark.parametrize(("keep", "mask", "message"), BAD_TABLES)
def test_rates_that_leave_the_simplex_are_refused_by_step_and_value(keep, mask, message):
    with pytest.raises(ValueError, match="TableSchedule: ") as error:
        TableSchedule(keep, mask)
    assert message in str(error.value)


def test_tables_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="keep has 2 numbers and mask 1"):
        TableSchedule([0.9, 0.5], [0.05])


@pytest.mark.parametrize(("keep", "mask"), [([1.0, 0.5], [0.1, 0.3]), ([1.0], [0.0]), ([1.0, 0.5], [0.0, 0.3, 0.4])])
def test_a_schedule_that_does_not_start_clean_or_miscounts_is_refused(keep, mask):
    class Broken(TokenSchedule):
        def keep(self):
            return torch.tensor(keep, dtype=torch.float64)

        def mask(self):
            return torch.tensor(mask, dtype=torch.float64)

    with pytest.raises(ValueError, match=r"Broken: .* expected 2 for the steps 0 to num_steps"):
        MaskReplaceDiffusion(Broken(1), 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ReleasedSchedule(1), "num_steps is 1: ReleasedSchedule needs at least 2"),
        (lambda: CosineMaskingSchedule(0), "num_steps is 0"),
        (lambda: MaskAndReplaceSchedule(10, mask_share=1.0), "mask_share is 1.0"),
        (lambda: MaskAndReplaceSchedule(10, mask_share=0.0), "mask_share is 0.0"),
        (lambda: MaskReplaceDiffusion(ReleasedSchedule(10), 1), "num_codes is 1"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("schedule", [ReleasedSchedule, CosineMaskingSchedule, MaskAndReplaceSchedule])
@pytest.mark.parametrize("num_steps", [2, 3, 1000])
def test_presets_hold_at_any_length(schedule, num_steps):
    schedule(num_steps).rates()
