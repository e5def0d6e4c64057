"""What is made again on the way back: what is freed, how often it is made, and that gradients stay what they are."""

import weakref
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.nn.recomputation import in_precision_of_products, recomputed, recomputing


class Making:
    """A cheap operator that counts its calls and looks at what became of its results."""

    def __init__(self, function):
        self.function, self.results, self.precisions = function, [], []

    def __call__(self, *given):
        made = self.function(*given)
        self.results.append(weakref.ref(made.untyped_storage()))
        self.precisions.append(made.dtype)
        return made

    @property
    def alive(self):
        return [result() is not None for result in self.results]


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_made_again_is_not_kept(enabled):
    make, x, weight = Making(F.gelu), normal(0, 4, 3), normal(1, 2, 3)
    with recomputing(enabled):
        out = recomputed(partial(make, x), lambda hidden: F.linear(hidden, weight))
    assert make.alive == [not enabled]
    made = torch.autograd.grad(out.square().sum(), (x, weight))
    assert make.alive == ([False, False] if enabled else [False])
    expected = torch.autograd.grad(F.linear(F.gelu(x), weight).square().sum(), (x, weight))
    for gradient, wanted in zip(made, expected, strict=True):
        assert torch.equal(gradient, wanted)


def test_it_is_made_once_for_all_views_of_it_and_for_every_way_back():
    make, x = Making(torch.sin), normal(0, 5, 6)
    with recomputing(True):
        out = recomputed(partial(make, x), lambda both: both[:, :3] @ both[:, 3:].T)
    expected = torch.autograd.grad((x[:, :3].sin() @ x[:, 3:].sin().T).sum(), x)[0]
    for num_made in (2, 3):
        torch.testing.assert_close(torch.autograd.grad(out.sum(), x, retain_graph=True)[0], expected)
        assert make.alive == [False] * num_made


def test_what_else_an_operator_reads_is_kept():
    make, x, other = Making(torch.sin), normal(0, 4), normal(1, 4)
    with recomputing(True):
        out = recomputed(partial(make, x), lambda made: made * (other * 2))
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], x.cos() * other * 2)


def test_without_gradients_nothing_is_made_twice():
    make, x = Making(torch.sin), normal(0, 4)
    with recomputing(True), torch.no_grad():
        assert torch.equal(recomputed(partial(make, x), torch.exp), x.sin().exp())
    assert len(make.results) == 1


def test_gradients_of_gradients_are_those_of_the_formula():
    x, weight = normal(0, 4, 3), normal(1, 2, 3)

    def penalty(out):
        return torch.autograd.grad(out.square().sum(), x, create_graph=True)[0].square().sum()

    with recomputing(True):
        out = recomputed(partial(torch.tanh, x), lambda hidden: F.linear(hidden, weight))
    made = torch.autograd.grad(penalty(out), (x, weight))
    expected = torch.autograd.grad(penalty(F.linear(x.tanh(), weight)), (x, weight))
    torch.testing.assert_close(made, expected)


def test_a_product_under_autocast_keeps_no_copy_and_its_input_is_made_in_its_precision():
    make, x, weight = Making(lambda x: in_precision_of_products(x.sin())), normal(0, 4, 3), normal(1, 2, 3)
    with torch.autocast("cpu", torch.bfloat16), recomputing(True):
        out = recomputed(partial(make, x), lambda hidden: F.linear(hidden, weight))
    assert make.alive == [False]
    out.sum().backward()
    assert make.precisions == [torch.bfloat16, torch.bfloat16]


def test_only_autocast_changes_the_precision():
    x = normal(0, 3)
    assert in_precision_of_products(x) is x
    assert in_precision_of_products(torch.ones(3, device="meta")).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert in_precision_of_products(x).dtype == torch.bfloat16


def test_tensors_without_numbers_are_told_apart():
    x, weight = (torch.ones(3, 3, device="meta", requires_grad=True) for _ in range(2))
    make = Making(torch.sin)
    with recomputing(True):
        out = recomputed(partial(make, x), lambda made: made @ weight.cos())
    out.sum().backward()
    assert len(make.results) == 2
