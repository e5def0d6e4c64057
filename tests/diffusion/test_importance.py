"""Importance sampling of the steps (Nichol & Dhariwal 2021, Sec. 3.3, arXiv 2102.09672)."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

import mmdiffusion
from mmdiffusion.diffusion import ImportanceTimes
from tests.diffusion.discrete_oracles import generator

T = 5
LOSSES = torch.tensor([8.0, 1.0, 0.0, 3.0, 20.0])
"""A loss for each step, one of them none at all."""


def seen(num_rounds, losses=LOSSES):
    times = ImportanceTimes(T)
    for _ in range(num_rounds):
        times.update(torch.arange(1, T + 1), losses)
    return times


def test_steps_are_alike_until_each_was_seen_eleven_times():
    times = seen(10)
    np.testing.assert_array_equal(times.probabilities().numpy(), 1 / T)
    times.update(torch.tensor([1, 2, 3, 4]), LOSSES[:4])
    np.testing.assert_array_equal(times.probabilities().numpy(), 1 / T)
    times.update(torch.tensor([5]), LOSSES[4:])
    assert float(times.probabilities().max()) > 1 / T


def test_probabilities_follow_the_root_of_the_mean_square_with_the_first_step_like_the_second():
    weight = np.sqrt(LOSSES.double().numpy() ** 2 * (1 - 0.9**30) + 1e-10) + 1e-4
    weight[0] = weight[1]
    np.testing.assert_allclose(seen(30).probabilities().numpy(), weight / weight.sum(), rtol=1e-12)


def test_history_is_a_running_mean_of_squares():
    times, expected = ImportanceTimes(T), 0.0
    for loss in (3.0, 1.0, 7.0):
        times.update(torch.tensor([2]), torch.tensor([loss]))
        expected = 0.9 * expected + 0.1 * loss**2
    assert times.square.tolist() == pytest.approx([0, expected, 0, 0, 0], rel=1e-12)
    assert times.count.tolist() == [0, 3, 0, 0, 0]


def test_repeats_in_a_batch_are_averaged_and_counted():
    times = ImportanceTimes(T)
    times.update(torch.tensor([4, 4, 1, 4]), torch.tensor([1.0, 2.0, 5.0, 6.0]))
    assert times.square.tolist() == pytest.approx([2.5, 0, 0, 0.1 * (1 + 4 + 36) / 3, 0], rel=1e-12)
    assert times.count.tolist() == [1, 0, 0, 3, 0]


def test_order_within_a_batch_does_not_matter():
    one, other = ImportanceTimes(T), ImportanceTimes(T)
    one.update(torch.tensor([4, 1, 4]), torch.tensor([1.0, 5.0, 6.0]))
    other.update(torch.tensor([4, 4, 1]), torch.tensor([6.0, 1.0, 5.0]))
    assert torch.equal(one.square, other.square)


def test_update_takes_part_in_no_gradient():
    loss = LOSSES.clone().requires_grad_()
    times = ImportanceTimes(T)
    times.update(torch.arange(1, T + 1), loss * 2)
    assert not times.square.requires_grad


@pytest.mark.parametrize("num_rounds", [0, 30])
def test_draws_have_the_probabilities_that_come_with_them(num_rounds):
    times, size = seen(num_rounds), 50_000
    time, probability = times.draw(size, generator())
    assert torch.equal(probability, times.probabilities()[time - 1])
    drawn, expected = torch.bincount(time - 1, minlength=T).numpy(), size * times.probabilities().numpy()
    likely = expected > 5
    assert chisquare(drawn[likely], expected[likely] * drawn[likely].sum() / expected[likely].sum()).pvalue > 1e-3


@pytest.mark.parametrize("num_rounds", [0, 30])
def test_loss_over_probability_is_unbiased_for_any_losses(num_rounds):
    """Exactly: each step is possible, and its terms L_t / p_t, weighted by p_t, sum to the sum over t."""
    times, others = seen(num_rounds), torch.tensor([0.3, 2.0, 50.0, 0.0, 1.0]).double()
    chance = times.probabilities()
    assert float(chance.min()) > 0
    returned = chance.clone()
    for time, probability in zip(*times.draw(4000, generator(1)), strict=True):
        returned[time - 1] = probability
    assert float((chance * others / returned).sum()) == pytest.approx(float(others.sum()), rel=1e-12)


def test_variance_of_the_estimate_falls():
    """Of sum_t L_t from one draw; the second moment is sum_t L_t^2 / p_t."""
    steady = torch.tensor([1.0, 1.0, 0.2, 3.0, 20.0])

    def second_moment(times):
        return float((steady.double() ** 2 / times.probabilities()).sum())

    assert second_moment(seen(30, steady)) < 0.5 * second_moment(seen(0))


def test_draws_use_their_generator_alone():
    times, state = seen(30), torch.get_rng_state()
    first, second = times.draw(20, generator(3)), times.draw(20, generator(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resumed_history_goes_on_where_it_was():
    times, resumed = seen(30), ImportanceTimes(T)
    resumed.load_state_dict(times.state_dict())
    for history in (times, resumed):
        history.update(torch.tensor([2]), torch.tensor([9.0]))
    assert torch.equal(times.probabilities(), resumed.probabilities())
    assert set(times.state_dict()) == {"square", "count"}


def test_history_keeps_its_precision():
    times = seen(30)
    before = times.square.clone()
    assert torch.equal(times.to(torch.bfloat16).square, before)
    assert str(times) == "ImportanceTimes(num_steps=5, decay=0.9, warmup=11)"


@pytest.mark.parametrize("step", [0, T + 1])
def test_a_step_outside_the_schedule_is_refused(step):
    with pytest.raises(ValueError, match=rf"time is \[{step}\]: expected 1 to {T}"):
        ImportanceTimes(T).update(torch.tensor([step]), torch.ones(1))


@pytest.mark.parametrize(
    ("arguments", "message"), [({"num_steps": 1}, "num_steps is 1"), ({"num_steps": 5, "decay": 1.0}, "decay is 1.0")]
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImportanceTimes(**arguments)


# Two processes -------------------------------------------------------------------------------------------------

WORKER = Path(__file__).with_name("importance_worker.py")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of two processes knows that see five and three of every eight losses."""
    folder = tmp_path_factory.mktemp("importance")
    environment = os.environ | {"PYTHONPATH": str(Path(mmdiffusion.__path__[0]).parent), "OMP_NUM_THREADS": "1"}
    outputs = [folder / f"{rank}.json" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", WORKER, str(rank), "2", folder / "store", output],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [json.loads(output.read_text()) for output in outputs]


def test_two_processes_share_one_history(together):
    assert together[0] == together[1]


def test_two_processes_know_what_one_would(together):
    alone = runpy.run_path(str(WORKER))["history"](slice(None))
    assert together[0]["count"] == alone["count"]
    assert together[0]["square"] == pytest.approx(alone["square"], rel=1e-14)
    assert min(alone["count"]) > 11
