"""What the denoiser is given: times, a condition, a grid and levels, and what of these does not fit."""

import pytest
import torch

from mmdiffusion.nn.denoiser import Level, check_levels
from mmdiffusion.types import Condition
from tests.nn.build_denoiser import CHANNELS, CONTEXT, ONE, PLANE, THREE, VECTOR, busy, fresh, inputs, normal

# Times ---------------------------------------------------------------------------------------------------------


def test_one_time_may_come_without_its_axis():
    net = busy()
    given = inputs(net)
    flat = net(**given | {"time": given["time"][:, 0]})
    assert torch.equal(flat.prediction, net(**given).prediction)


@pytest.mark.parametrize("column", [0, 1])
def test_prediction_follows_the_time_of_each_modality(column):
    net = busy(num_times=2)
    given = inputs(net)
    moved = given["time"].clone()
    moved[:, column] += 0.05
    assert (net(**given | {"time": moved}).prediction - net(**given).prediction).abs().max() > 1e-3


def test_modalities_have_time_embeddings_of_their_own():
    net = busy(num_times=2)
    given = inputs(net)
    assert not torch.allclose(net(**given | {"time": given["time"].flip(1)}).prediction, net(**given).prediction)


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_wrong_number_of_times_is_refused(columns):
    net = fresh(num_times=2)
    with pytest.raises(ValueError, match=f"time has {columns} columns: expected num_times = 2"):
        net(**inputs(net) | {"time": torch.zeros(2, columns)})


# Condition -----------------------------------------------------------------------------------------------------


def test_prediction_follows_the_vector():
    net = busy()
    given = inputs(net)
    moved = given | {"condition": Condition(normal(9, 2, VECTOR))}
    assert not torch.allclose(net(**moved).prediction, net(**given).prediction)


def test_masked_context_tokens_have_no_influence():
    net = busy(context_width=CONTEXT)
    given = inputs(net)
    vector, tokens, _ = given["condition"]
    mask = torch.tensor([[True, True, False, False], [True, False, True, False]])
    other = torch.where(mask[..., None], tokens, 100.0)
    first, second = (net(**given | {"condition": Condition(vector, x, mask)}).prediction for x in (tokens, other))
    assert torch.equal(first, second)


def test_masked_context_tokens_are_as_good_as_missing():
    net = busy(context_width=CONTEXT)
    given = inputs(net)
    vector, tokens, _ = given["condition"]
    masked = Condition(vector, tokens, torch.tensor([[True, True, True, False]] * 2))
    torch.testing.assert_close(
        net(**given | {"condition": masked}).prediction,
        net(**given | {"condition": Condition(vector, tokens[:, :3])}).prediction,
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("options", "condition", "message"),
    [
        ({}, Condition(), r"condition\.vector is missing"),
        ({"vector_width": None}, Condition(normal(0, 2, VECTOR)), r"condition\.vector is given"),
        ({"context_width": CONTEXT}, Condition(normal(0, 2, VECTOR)), r"condition\.tokens is missing"),
        ({}, Condition(normal(0, 2, VECTOR), normal(1, 2, 4, CONTEXT)), r"condition\.tokens is given"),
    ],
)
def test_condition_that_does_not_fit_is_refused(options, condition, message):
    net = fresh(**options)
    with pytest.raises(ValueError, match=message):
        net(**inputs(net) | {"condition": condition})


# Grid and levels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(8, 4), (64,), (4, 8)])
def test_other_grid_is_refused(grid):
    net = fresh()
    with pytest.raises(ValueError, match=rf"tokens has grid \({grid[0]},.*\): expected \(8, 8\)"):
        net(**inputs(net) | {"tokens": torch.zeros(2, *grid, CHANNELS)})


@pytest.mark.parametrize(
    ("grid", "levels", "message"),
    [
        ((6, 8), THREE, r"grid is \(6, 8\), levels has 3: .* multiples of 4"),
        ((8, 6), THREE, r"grid is \(8, 6\), levels has 3: .* multiples of 4"),
        ((7,), THREE[:2], r"grid is \(7,\), levels has 2: .* multiples of 2"),
        ((0,), ONE, r"grid is \(0,\)"),
        ((4, 4, 4), ONE, r"grid is \(4, 4, 4\): expected one or two axes"),
        ((), ONE, r"grid is \(\): expected one or two axes"),
        (PLANE, [], "levels is empty"),
        (PLANE, [*ONE, Level(10, 1, 4)], r"levels\[1\] is Level\(width=10, depth=1, heads=4\)"),
        (PLANE, [Level(16, 0, 2)], r"levels\[0\] is .*depth=0.* expected positive numbers"),
    ],
)
def test_levels_that_cannot_be_built_are_refused(grid, levels, message):
    with pytest.raises(ValueError, match=message):
        check_levels(grid, levels)


def test_constructor_checks_the_levels():
    with pytest.raises(ValueError, match="levels is empty"):
        fresh(PLANE, [])
