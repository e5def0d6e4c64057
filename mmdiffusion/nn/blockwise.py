"""Attention of long sequences on a CPU: PyTorch's fused forward pass, and a backward pass in blocks.

PyTorch's fused backward pass on a CPU is slow in bfloat16, and where heads are narrow. Here the weights of a block are
made again by plain products, in memory that the caches hold (derived; recomputation as in Dao et al. 2022, Alg. 4,
arXiv 2205.14135). `mmdiffusion.nn.attention` says where it pays.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count

WEIGHTS = {torch.bfloat16: 2**20, torch.float32: 2**17}
"""Attention weights that a thread has in a block, by precision; a block keeps two numbers for each."""
HIDDEN = -1e4
"""Logarithm of the weight of a masked key: exp of it is 0, and unlike infinity it may be multiplied."""


def blockwise_attention(
    queries: Float[Tensor, "b heads n d"],
    keys: Float[Tensor, "b heads m d"],
    values: Float[Tensor, "b heads m d"],
    mask: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b heads n d"]:
    """softmax(Q K^T / sqrt(d)) V, on the CPU.

    Args:
        queries: Of every head, in float32 or bfloat16.
        keys: Of every head, in the queries' precision; at least one.
        values: Of every head, in the queries' precision.
        mask: True where a key counts, at least one of each sample; `None` counts all.
    """
    return _BlockwiseAttention.apply(*(_with_channels_last(x) for x in (queries, keys, values)), mask)


def _with_channels_last(heads: Tensor) -> Tensor:
    """What the fused kernel takes for granted when it is called by its name."""
    return heads if heads.stride(-1) == 1 else heads.contiguous()


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        added = None
        if mask is not None:
            added = queries.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)[:, None, None]
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        mixed, log_totals = fused(queries, keys, values, attn_mask=added)
        ctx.save_for_backward(queries, keys, values, mask, mixed, log_totals)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *gradients(gradient, *ctx.saved_tensors), None


@library.custom_op("mmdiffusion::blockwise_attention_backward", mutates_args=())  # one node to torch.compile
def gradients(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    mixed: Tensor,
    log_totals: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values.

    With weights P = exp((Q K^T - sqrt(d) log_totals) / sqrt(d)) and the gradient G of the mixed values O:

        dV = P^T G,   dS = P * (G V^T - sum(G * O)),   dQ = dS K / sqrt(d),   dK = dS^T Q / sqrt(d)

    What is subtracted in each row, and from each masked key, stands in further columns of the factors, so that the
    products subtract it. Products divide by sqrt(d), as in the forward pass: queries divided and rounded would give
    other scores than those that the totals are of, and exp would make much of the difference where scores are large.

    Args:
        gradient: Of the mixed values, (b, heads, n, d) as all that follow.
        queries: As in the forward pass.
        keys: As in the forward pass.
        values: As in the forward pass.
        mask: As in the forward pass.
        mixed: Result of the forward pass.
        log_totals: Logarithm of each row's sum of exponentials, (b, heads, n).
    """
    (heads, width), scale = (queries.shape[:2], queries.shape[-1]), queries.shape[-1] ** -0.5
    products = gradient.to(log_totals.dtype) * mixed
    totals, shares = (_parts(-x, queries.dtype) for x in (log_totals / scale, products.sum(-1)))
    hidden = [] if mask is None else [~mask[:, None] * HIDDEN / scale]
    rows = _with_columns(queries, [*totals, *(1.0 for _ in hidden)])
    columns = _with_columns(keys, [*(1.0 for _ in totals), *hidden])
    row_gradients = _with_columns(gradient, shares)
    column_values = _with_columns(values, [1.0 for _ in shares])

    row_sums = rows.new_empty(rows.shape)
    column_sums, value_sums = (
        log_totals.new_zeros(len(x), x.shape[2], x.shape[1]) for x in (columns, column_values)
    )  # in float32: a sum over many blocks in bfloat16 would be rounded in each
    blocks = _blocks((rows, row_gradients, row_sums), (columns, column_values, column_sums, value_sums))
    for weights, scores, (query, row, query_sum), (key, value, key_sum, value_sum) in blocks:
        torch.baddbmm(weights, query, key.mT, beta=0, alpha=scale, out=weights).exp_()
        _add_product(value_sum, row.mT, weights)
        torch.bmm(row, value.mT, out=scores).mul_(weights)
        _add_product(key_sum, query.mT, scores)
        query_sum.copy_(torch.bmm(scores, key))  # not by `out`, slow where heads are not side by side
    by_keys, by_values = (
        x[:, :width].mT.unflatten(0, heads).to(queries.dtype).contiguous()
        for x in (column_sums.mul_(scale), value_sums)
    )
    return row_sums[..., :width].mul(scale).unflatten(0, heads), by_keys, by_values


@gradients.register_fake
def _(gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return queries.new_empty(queries.shape), keys.new_empty(keys.shape), values.new_empty(values.shape)


@register_flop_formula(torch.ops.mmdiffusion.blockwise_attention_backward)
def _num_operations(gradient: Any, queries: Any, keys: Any, values: Any, *rest: Any, **more: Any) -> int:
    """From shapes, as PyTorch counts its own kernels: scores, which are made a second time, and four products."""
    return sdpa_backward_flop_count(gradient, queries, keys, values)


def _blocks(by_query: Sequence[Tensor], by_key: Sequence[Tensor]) -> Iterator[tuple[Any, ...]]:
    """Heads for every thread, and some of their queries: room for their weights, twice; their rows; their columns.

    Args:
        by_query: Tensors (heads, n, ...).
        by_key: Tensors (heads, m, ...), or (heads, ..., m).
    """
    (num_heads, length, _), num_keys = by_query[0].shape, by_key[0].shape[1]
    most = WEIGHTS.get(by_query[0].dtype, WEIGHTS[torch.float32])
    num_together = min(num_heads, torch.get_num_threads() * max(1, most // (length * num_keys)))
    num_rows = min(length, max(1, most // num_keys))
    room = by_query[0].new_empty(2, num_together * num_rows * num_keys)
    for heads in zip(*(x.split(num_together) for x in (*by_query, *by_key)), strict=True):
        rows_of_heads, columns = heads[: len(by_query)], heads[len(by_query) :]
        for rows in zip(*(x.split(num_rows, dim=1) for x in rows_of_heads), strict=True):
            shape = (*rows[0].shape[:2], num_keys)
            weights, scores = (part[: math.prod(shape)].view(shape) for part in room)
            yield weights, scores, rows, columns


def _add_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    """Add products of matrices to a total that may be of a higher precision."""
    if total.dtype == first.dtype:
        total.baddbmm_(first, second)
    else:
        total.add_(torch.bmm(first, second))


def _parts(x: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Numbers as a sum of numbers of a lower precision: bfloat16 alone would round the weights by percents."""
    first = x.to(dtype)
    return [first] if dtype == x.dtype else [first, (x - first).to(dtype)]


def _with_columns(x: Float[Tensor, "b heads n d"], further: Sequence[Tensor | float]) -> Float[Tensor, "h n w"]:
    """Heads one after another, with further columns."""
    joined = x.new_empty(*x.shape[:-1], x.shape[-1] + len(further))
    joined[..., : x.shape[-1]] = x
    for i, column in enumerate(further, x.shape[-1]):
        joined[..., i] = column
    return joined.flatten(0, 1)
