"""Tables of Gaussian diffusion keep their precision when a model is cast, and follow it to another device."""

import pytest
import torch

from mmdiffusion.diffusion import AggregatedDiffusion, CosineSchedule, GaussianDiffusion, LinearDrift
from tests.helpers import build_method
from tests.methods import build_diffdis, build_extras

CASTS = [torch.bfloat16, torch.float16, torch.float64]
HALVES = [torch.bfloat16, torch.float16]


def aggregated(**settings):
    return AggregatedDiffusion(CosineSchedule(20), {"x": LinearDrift(0.5)}, **settings)


PROCESSES = {"gaussian": lambda **settings: GaussianDiffusion(CosineSchedule(20), **settings), "aggregated": aggregated}


def tables(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def same(found, expected):
    return all(torch.equal(found[name], table) and found[name].dtype == table.dtype for name, table in expected.items())


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PROCESSES)
def test_tables_keep_their_precision_and_stay_out_of_checkpoints(name, dtype, cast):
    diffusion = PROCESSES[name](dtype=dtype)
    before = tables(diffusion)
    assert set(before) == {"log_alpha_bar", "signal", "noise_level"} | ({"drift_x"} if name == "aggregated" else set())
    assert same(tables(diffusion.to(cast)), before)
    assert all(table.dtype == dtype for table in before.values())
    assert not diffusion.state_dict()


@pytest.mark.parametrize("name", PROCESSES)
def test_tables_follow_to_another_device(name):
    diffusion = PROCESSES[name]().to("meta")
    assert all(table.device.type == "meta" for table in diffusion.buffers())
    both = PROCESSES[name]().to("meta", torch.bfloat16)
    assert {(table.device.type, table.dtype) for table in both.buffers()} == {("meta", torch.float32)}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", PROCESSES)
def test_tables_in_half_precision_are_refused(name, dtype):
    with pytest.raises(ValueError, match=f"dtype is {dtype}: expected torch.float32, or torch.float64"):
        PROCESSES[name](dtype=dtype)


@pytest.mark.parametrize("cast", HALVES)
def test_a_method_in_half_precision_keeps_its_tables(cast):
    for method in (build_method(), build_diffdis.build()):
        before = {
            f"{name}.{n}": t for name, m in method.named_modules() if "diffusion" in name for n, t in m.named_buffers()
        }
        assert before
        method.to(cast)
        found = dict(method.named_buffers())
        assert same(found, before)
        assert (
            next(method.denoiser.parameters() if hasattr(method, "denoiser") else method.network.parameters()).dtype
            == cast
        )


@pytest.mark.parametrize("cast", HALVES)
def test_residual_variances_keep_their_precision_and_go_on(cast):
    """They are running means: in half precision a step of 1 % would be lost."""
    method = build_extras.build("feature")
    extra = method.extra("feature")
    extra.variance.copy_(torch.linspace(0.1, 1.1, len(extra.variance)))
    before = extra.variance.clone()
    method.to(cast)
    assert extra.variance.dtype == torch.float32
    assert torch.equal(extra.variance, before)
    keep, share = torch.ones(4, dtype=torch.bool), torch.full((4,), 0.01)
    extra.remember(torch.full((4,), 0.5, dtype=cast), share, keep)
    assert float(extra.variance[0]) == pytest.approx(0.99 * 0.1 + 0.01 * 0.5)
    assert torch.equal(extra.variance[1:], before[1:])


def test_residual_variances_stay_in_checkpoints():
    method, again = build_extras.build("feature"), build_extras.build("feature")
    method.extra("feature").variance.fill_(0.25)
    again.load_state_dict(method.state_dict())
    assert again.extra("feature").variance.eq(0.25).all()
