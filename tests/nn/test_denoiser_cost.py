"""What the denoiser costs: operations as PyTorch counts them, and memory with gradient checkpointing."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from mmdiffusion.nn.denoiser import Level
from tests.nn.build_denoiser import CONTEXT, NETS, PLANE, QUERY, busy, fresh, inputs


@pytest.mark.parametrize("options", [{}, {"vector_width": None, "num_times": 2}], ids=["vector", "two_times"])
@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_flops_are_those_pytorch_counts(grid, levels, options):
    net = fresh(grid, levels, **options)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(**inputs(net, batch=1))
    assert net.flops() == pytest.approx(counter.get_total_flops(), rel=1e-9)


# Gradient checkpointing ----------------------------------------------------------------------------------------


def gradients(net, **given):
    """Gradients of all weights, and the bytes that the way back was given, those of the weights left out."""
    kept = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def keep(x):
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        denoised = net(**given)
    loss = denoised.prediction.square().sum()
    loss = loss if denoised.query is None else loss + denoised.query.square().sum()
    num_bytes = sum(kept.values())
    return dict(zip(dict(net.named_parameters()), torch.autograd.grad(loss, net.parameters()), strict=True)), num_bytes


@pytest.mark.parametrize(
    "options",
    [{}, {"context_width": CONTEXT}, {"query_width": QUERY}, {"query_width": QUERY, "query_direction": "one_way"}],
    ids=["plain", "context", "two_way", "one_way"],
)
def test_gradients_of_blocks_that_run_twice_are_the_same_to_the_bit(options):
    plain, twice = busy(**options), busy(**options, gradient_checkpointing=True)
    given = inputs(plain, query=plain.stream is not None)
    expected, made = gradients(plain, **given)[0], gradients(twice, **given)[0]
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(made[name], gradient), name


def test_blocks_that_run_twice_keep_their_inputs_alone():
    levels = [Level(16, 1, 2), Level(24, 6, 3)]
    plain, twice = busy(PLANE, levels), busy(PLANE, levels, gradient_checkpointing=True)
    given = inputs(plain, batch=8)
    tokens = 8 * 8 * 8
    of_inputs = 4 * (2 * tokens * 16 + 6 * tokens // 4 * 24)  # these the checkpoint keeps itself
    assert gradients(twice, **given)[1] + of_inputs < 0.3 * gradients(plain, **given)[1]


def test_what_is_not_trained_runs_once():
    net = busy(gradient_checkpointing=True)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        net(**inputs(net, batch=1))
    with FlopCounterMode(display=False) as counter:
        net(**inputs(net, batch=1)).prediction.sum().backward()
    assert once.get_total_flops() == net.flops()
    assert 3.8 * net.flops() < counter.get_total_flops() < 4.3 * net.flops()
