"""A codec's weights belong to no model that uses it, and go where that model goes."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mmdiffusion.callbacks.ema import trained
from mmdiffusion.codecs import FrozenCodec
from mmdiffusion.diffusion import Ancestral, MaskAndReplaceSchedule
from mmdiffusion.methods import CDCD
from mmdiffusion.nn import Denoiser, LabelConditioner, Level
from mmdiffusion.types import TokenSpec
from tests.helpers import SPEC, build_batch, build_trainer, generator


class Network(nn.Module):
    """A projection whose sign is the token, and dropout that would show training mode."""

    def __init__(self):
        super().__init__()
        self.project = nn.Conv2d(1, 1, 2, stride=2)
        self.norm = nn.BatchNorm2d(1)
        self.dropout = nn.Dropout(0.5)


class Signs(FrozenCodec):
    def __init__(self, spec):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(Network(), TokenSpec(2, (4, 4)), "image")

    def to_tokens(self, data):
        assert not torch.is_autocast_enabled("cpu")
        assert data.dtype == self.dtype
        return (self.network.dropout(self.network.norm(self.network.project(data)))[:, 0] > 0).long()

    def to_data(self, tokens):
        return 3.0 * tokens[:, None].repeat_interleave(2, 2).repeat_interleave(2, 3).to(self.dtype)


def build_cdcd(codec=Signs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CDCD(
            spec=SPEC,
            codec=codec,
            conditioner=LabelConditioner,
            denoiser=partial(Denoiser, levels=[Level(16, 1, 2)], embedding_width=32),
            schedule=MaskAndReplaceSchedule(4),
            sampler=Ancestral(),
            steps=2,
        )


def test_a_model_on_top_has_none_of_its_weights():
    method = build_cdcd().train()
    assert not [name for name in method.state_dict() if name.startswith("codec")]
    owned = {id(tensor) for tensor in (*method.parameters(), *method.buffers())}
    weights = [*method.codec.network.parameters(), *method.codec.network.buffers()]
    assert weights
    assert not owned & {id(tensor) for tensor in weights}
    assert not [name for name, _ in trained(method) if name.startswith("codec")], "EMA averages none"
    assert method.codec not in method.codec.network.modules()
    assert not [module for module in method.modules() if isinstance(module, Network)]


def test_a_state_of_such_a_model_loads_back_strictly():
    method = build_cdcd()
    assert build_cdcd().load_state_dict(method.state_dict()).missing_keys == []


def test_it_stays_in_evaluation_mode_without_gradients():
    method = build_cdcd().train()
    method.requires_grad_(True)
    network = method.codec.network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    image = build_batch()["image"].requires_grad_()
    assert not method.codec.decode(method.codec.encode(image)).requires_grad


@pytest.mark.parametrize(
    "move", [nn.Module.double, nn.Module.half, lambda m: m.to("meta")], ids=["double", "half", "meta"]
)
def test_it_moves_with_the_model(move):
    method = move(build_cdcd())
    example = next(method.denoiser.parameters())
    tensors = [*method.codec.network.parameters(), method.codec.network.norm.running_mean]
    assert {(t.dtype, t.device) for t in tensors} == {(example.dtype, example.device)}


def test_data_is_float32_whatever_the_weights_are():
    codec, image = Signs(SPEC).double(), build_batch()["image"]
    assert torch.equal(codec.encode(image), Signs(SPEC).encode(image))
    rebuilt = codec.decode(codec.encode(image))
    assert rebuilt.dtype == torch.float32
    assert (rebuilt.min(), rebuilt.max()) == (0, 1), "clamped"


def test_the_precision_around_it_changes_no_token():
    codec, image = Signs(SPEC), build_batch(256)["image"]
    exact = codec.encode(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(image), exact)
        assert codec.decode(exact).dtype == torch.float32


def test_a_copy_has_weights_of_its_own():
    method = build_cdcd()
    other = copy.deepcopy(method)
    with torch.no_grad():
        other.codec.network.project.weight.zero_()
    assert method.codec.network.project.weight.any()


def test_ddp_and_the_optimizer_see_nothing_of_it(tmp_path):
    """What DDP would broadcast and reduce is what the module lists; and a step leaves the network as it was."""
    method = build_cdcd().train()
    before = copy.deepcopy(method.codec.network.state_dict())
    method.trainer = build_trainer(tmp_path, max_steps=1)
    optimizer = method.make_optimizer([p for p in method.parameters() if p.requires_grad])
    method.losses(build_batch(), generator())["loss"].backward()
    optimizer.step()
    handled = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not handled & {id(p) for p in method.codec.network.parameters()}
    assert all(torch.equal(value, before[name]) for name, value in method.codec.network.state_dict().items())


def test_tokens_are_checked():
    with pytest.raises(ValueError, match="tokens has 2, outside the codebook: expected 0 to 1"):
        Signs(SPEC).decode(torch.full((1, 4, 4), 2))
