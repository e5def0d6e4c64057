"""Attention in blocks against finite differences and PyTorch's own, in every precision."""

import pytest
import torch
from torch import library
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmdiffusion.nn import blockwise
from mmdiffusion.nn.blockwise import blockwise_attention, gradients

MASK = torch.tensor([[True] * 5 + [False] * 2, [False] + [True] * 6])


def inputs(dtype=torch.float64, length=4, num_keys=7, width=6):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, count, 3, width) for count in (length, num_keys, num_keys)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [x.to(dtype).transpose(1, 2).requires_grad_() for x in drawn]


def with_gradients(mixed, leaves):
    wanted = torch.linspace(-1, 1, mixed.numel(), dtype=torch.float64).view_as(mixed).to(mixed.dtype)
    return [mixed, *torch.autograd.grad(mixed, leaves, wanted)]


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("num_weights", [1, 3 * 7, 4 * 7, 2 * 4 * 7, 2**21])  # one query, three of four, a head, two
def test_gradients_are_those_of_finite_differences_whatever_the_block(monkeypatch, mask, num_weights):
    monkeypatch.setitem(blockwise.WEIGHTS, torch.float32, num_weights)
    assert torch.autograd.gradcheck(lambda *x: blockwise_attention(*x, mask), inputs())


@pytest.mark.parametrize("mask", [None, MASK])
def test_in_float32_it_is_the_attention_of_pytorch(mask):
    leaves = inputs(torch.float32)
    allowed = None if mask is None else mask[:, None, None]
    expected = with_gradients(F.scaled_dot_product_attention(*leaves, allowed), leaves)
    for one, other in zip(with_gradients(blockwise_attention(*leaves, mask), leaves), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_weights", [2**20, 4 * 96], ids=["one block", "32 blocks"])
def test_in_bfloat16_it_is_about_as_exact_as_plain_products(monkeypatch, num_weights):
    monkeypatch.setitem(blockwise.WEIGHTS, torch.bfloat16, num_weights)
    half = inputs(torch.bfloat16, length=128, num_keys=96, width=12)
    exact = [x.detach().double().requires_grad_() for x in half]
    expected = with_gradients(F.scaled_dot_product_attention(*exact), exact)
    weights = (half[0] * half[0].shape[-1] ** -0.5 @ half[1].mT).softmax(-1)
    plain = with_gradients(weights @ half[2], half)
    for mine, other, truth in zip(with_gradients(blockwise_attention(*half), half), plain, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - truth).norm() <= 2 * (other - truth).norm()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_scores_are_no_less_exact_than_in_the_kernel_of_pytorch(dtype, masked):
    leaves = [(x * size).to(dtype) for x, size in zip(inputs(length=64, num_keys=96, width=12), (9, 9, 1), strict=True)]
    leaves = [x.detach().requires_grad_() for x in leaves]
    mask = (torch.arange(96) % 3 > 0).expand(2, -1) if masked else None
    allowed = None if mask is None else mask[:, None, None]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    assert (exact[0] @ exact[1].mT / 12**0.5).max() > 100
    expected = with_gradients(F.scaled_dot_product_attention(*exact, allowed), exact)
    fused = with_gradients(F.scaled_dot_product_attention(*leaves, allowed), leaves)
    mine = with_gradients(blockwise_attention(*leaves, mask), leaves)
    for found, other, truth in zip(mine, fused, expected, strict=True):
        assert (found - truth).norm() <= 2 * (other - truth).norm()


@pytest.mark.parametrize("which", [0, 1, 2], ids=["queries", "keys", "values"])
def test_channels_may_lie_apart(which):
    leaves = [x.detach() for x in inputs(torch.float32)]
    expected = blockwise_attention(*leaves)
    leaves[which] = leaves[which].mT.contiguous().mT
    torch.testing.assert_close(blockwise_attention(*leaves), expected)


def test_a_block_has_no_more_weights_than_it_may(monkeypatch):
    sizes, whole = [], torch.baddbmm

    def baddbmm(room, *factors, **options):
        sizes.append(room.numel())
        return whole(room, *factors, **options)

    monkeypatch.setattr(torch, "baddbmm", baddbmm)
    monkeypatch.setitem(blockwise.WEIGHTS, torch.float32, 2 * 7)
    leaves = inputs(torch.float32)
    with_gradients(blockwise_attention(*leaves), leaves)
    assert max(sizes) <= 2 * 7 * torch.get_num_threads()
    assert sum(sizes) == 2 * 3 * 4 * 7


def test_what_torch_compile_is_told_of_the_operator_is_true():
    leaves = [x.detach().requires_grad_() for x in inputs(torch.float32)]
    mixed, log_totals = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*leaves)
    arguments = (torch.ones_like(mixed), *leaves, MASK, mixed, log_totals)
    library.opcheck(gradients, [x.detach() for x in arguments], test_utils=("test_schema", "test_faketensor"))


def test_its_operations_are_counted_as_those_of_pytorch():
    counts = []
    for attend in (blockwise_attention, F.scaled_dot_product_attention):
        leaves = inputs(torch.float32)
        with FlopCounterMode(display=False) as counter:
            with_gradients(attend(*leaves), leaves)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 7 * 2 * (2 * 3 * 4 * 7 * 6)  # seven products of so many multiply-adds
