"""A label that is known, and one that is not."""

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


def test_every_label_and_not_knowing_it_has_its_own_vector(conditioner):
    rows = [vector(conditioner({"label": torch.arange(10)})), vector(conditioner.null(1))]
    assert len(torch.cat(rows).unique(dim=0)) == 11


def test_dropped_labels_look_as_if_unknown(conditioner):
    dropped = vector(conditioner({"label": torch.tensor([7, 7])}, torch.tensor([False, True])))
    assert torch.equal(dropped[:1], vector(conditioner({"label": torch.tensor([7])})))
    assert torch.equal(dropped[1:], vector(conditioner.null(1)))


def test_gradients_reach_the_vectors_in_use_only():
    conditioner = LabelConditioner({"label": LabelSpec(4)}, width=3)
    torch.as_tensor(vector(conditioner.null(2))).sum().backward()
    assert conditioner.table.weight.grad is not None
    assert conditioner.table.weight.grad.any(1).tolist() == [False] * 4 + [True]
