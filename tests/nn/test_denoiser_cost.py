"""What the denoiser costs: operations as PyTorch counts them, and memory with gradient checkpointing."""

from weakref import WeakSet

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mmdiffusion.nn.denoiser import Level
from tests.nn.build_denoiser import CONTEXT, NETS, ONE, PLANE, QUERY, busy, fresh, inputs


@pytest.mark.parametrize("options", [{}, {"vector_width": None, "num_times": 2}], ids=["vector", "two_times"])
@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_flops_are_those_pytorch_counts(grid, levels, options):
    net = fresh(grid, levels, **options)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(**inputs(net, batch=1))
    assert net.flops() == pytest.approx(counter.get_total_flops(), rel=1e-9)


# Gradient checkpointing ----------------------------------------------------------------------------------------


def gradients(net, half=False, **given):
    """Gradients of all weights, and the bytes that the way back was given, those of the weights left out."""
    kept = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def keep(x):
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", torch.bfloat16, enabled=half):
        denoised = net(**given)
    loss = denoised.prediction.square().sum()
    loss = loss if denoised.query is None else loss + denoised.query.square().sum()
    num_bytes = sum(kept.values())
    return dict(zip(dict(net.named_parameters()), torch.autograd.grad(loss, net.parameters()), strict=True)), num_bytes


KINDS = pytest.mark.parametrize(
    "options",
    [{}, {"context_width": CONTEXT}, {"query_width": QUERY}, {"query_width": QUERY, "query_direction": "one_way"}],
    ids=["plain", "context", "two_way", "one_way"],
)
AGAIN = pytest.mark.parametrize("again", [True, "selective"], ids=["blocks", "selective"])


@AGAIN
@KINDS
@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_gradients_of_what_runs_twice_are_the_same_to_the_bit(options, positions, half, again):
    options = options | {"positions": positions}
    plain, twice = busy(**options), busy(**options, gradient_checkpointing=again)
    given = inputs(plain, query=plain.stream is not None)
    expected, made = gradients(plain, half, **given)[0], gradients(twice, half, **given)[0]
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


@pytest.mark.parametrize(("half", "share"), [(False, 0.65), (True, 0.75)], ids=["float32", "bfloat16"])
def test_selective_recomputation_keeps_less(half, share):
    options = {"context_width": CONTEXT, "positions": "learned"}
    plain, selective = (busy(PLANE, ONE, gradient_checkpointing=again, **options) for again in (False, "selective"))
    given = inputs(plain, batch=8)
    assert bytes_behind(selective, half, **given) < share * bytes_behind(plain, half, **given)


def bytes_behind(net, half, **given):
    """Bytes of what a forward pass made and left in memory; `gradients` does not see what is made again."""
    storages = WeakSet()

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            storages.update(x.untyped_storage() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
            return out

    with Made(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = net(**given).prediction.sum()
    assert loss.grad_fn is not None
    own = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    return sum(storage.nbytes() for storage in storages if storage.data_ptr() not in own)


def test_what_is_not_trained_runs_once():
    net = busy(gradient_checkpointing=True)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        net(**inputs(net, batch=1))
    with FlopCounterMode(display=False) as counter:
        net(**inputs(net, batch=1)).prediction.sum().backward()
    assert once.get_total_flops() == net.flops()
    assert 3.8 * net.flops() < counter.get_total_flops() < 4.3 * net.flops()


def test_selective_recomputation_repeats_no_product():
    totals = []
    for net in (busy(), busy(gradient_checkpointing="selective")):
        with FlopCounterMode(display=False) as counter:
            net(**inputs(net, batch=1)).prediction.sum().backward()
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1] > 0
