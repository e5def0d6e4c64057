"""Small denoisers and what they are called with, for several test files."""

import pytest
import torch

from mmdiffusion.nn.denoiser import Denoiser, Level
from mmdiffusion.types import Condition

ONE = [Level(16, 2, 2)]
THREE = [Level(16, 1, 2), Level(24, 1, 3), Level(32, 2, 2)]
LINE, PLANE = (16,), (8, 8)
NETS = [
    pytest.param(grid, levels, id=f"{len(grid)}d_{len(levels)}_levels")
    for grid in (LINE, PLANE)
    for levels in (ONE, THREE)
]
CHANNELS, OUT_CHANNELS, VECTOR, CONTEXT, QUERY = 3, 5, 7, 6, 10


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh(
    grid=PLANE,
    levels=THREE,
    vector_width: int | None = VECTOR,
    context_width: int | None = None,
    query_width: int | None = None,
    **options,
):
    torch.manual_seed(0)
    widths = (vector_width, context_width, query_width)
    return Denoiser(grid, CHANNELS, OUT_CHANNELS, *widths, levels, embedding_width=12, **options)


def busy(*args, **options):
    """A network none of whose weights is zero."""
    net = fresh(*args, **options)
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.add_(0.2 * normal(i, *parameter.shape))
    return net


def inputs(net, *, query=False, batch=2):
    """What a network is called with, by argument."""
    condition = Condition(
        vector=None if net.vector is None else normal(101, batch, VECTOR),
        tokens=normal(102, batch, 4, CONTEXT) if net.has_context else None,
    )
    time = torch.linspace(0.1, 0.9, batch * (net.num_times + query)).reshape(batch, -1)
    given = {"tokens": normal(103, batch, *net.grid, CHANNELS), "time": time, "condition": condition}
    return given | ({"query": normal(104, batch, 3, QUERY)} if query else {})
