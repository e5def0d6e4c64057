"""A label shown, hidden or absent."""

import pytest
import torch

from mmdiffusion.nn.conditioners import LabelConditioner
from mmdiffusion.types import LabelSpec


@pytest.fixture(scope="module")
def conditioner():
    torch.manual_seed(0)
    return LabelConditioner({"label": LabelSpec(10)}, width=6)


def vector(condition):
    assert condition.tokens is None
    assert condition.mask is None
    return condition.vector


def test_every_label_and_every_way_of_not_knowing_it_has_its_own_vector(conditioner):
    rows = [
        vector(conditioner({"label": torch.arange(10)})),
        vector(conditioner.hidden(1)),
        vector(conditioner.null(1)),
    ]
    assert len(torch.cat(rows).unique(dim=0)) == 12


@pytest.mark.parametrize("state", ["hidden", "null"])
def test_unknown_labels_share_one_vector(conditioner, state):
    vectors = vector(getattr(conditioner, state)(4))
    assert vectors.shape == (4, 6)
    assert len(vectors.unique(dim=0)) == 1


def test_mixed_chooses_per_sample(conditioner):
    shown, absent = torch.tensor([True, False, False]), torch.tensor([False, True, False])
    mixed = vector(conditioner.mixed(torch.tensor([7, 7, 7]), shown, absent))
    rows = [
        vector(conditioner({"label": torch.tensor([7])})),
        vector(conditioner.null(1)),
        vector(conditioner.hidden(1)),
    ]
    assert torch.equal(mixed, torch.cat(rows))


def test_mixed_shows_nothing_of_a_label_that_is_not_shown(conditioner):
    nowhere, absent = torch.zeros(2, dtype=torch.bool), torch.tensor([True, False])
    first, second = (vector(conditioner.mixed(torch.tensor(x), nowhere, absent)) for x in ([1, 2], [8, 9]))
    assert torch.equal(first, second)


def test_gradients_reach_the_vectors_in_use_only():
    conditioner = LabelConditioner({"label": LabelSpec(4)}, width=3)
    torch.as_tensor(vector(conditioner.hidden(2))).sum().backward()
    assert conditioner.table.weight.grad is not None
    assert conditioner.table.weight.grad.any(1).tolist() == [False] * 4 + [True, False]
