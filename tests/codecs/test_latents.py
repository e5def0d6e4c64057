"""Continuous latents: pixels, and diffusers' AutoencoderKL shifted and scaled once."""

import json

import pytest
import torch

from mmdiffusion.codecs import AutoencoderKLLatents, Pixels
from mmdiffusion.types import ImageSpec, MusicSpec
from tests.helpers import generator

SPEC = {"image": ImageSpec(3, 16)}


def images(size=16, channels=3):
    return torch.rand(2, channels, size, size, generator=generator()) * 2 - 1


# Pixels --------------------------------------------------------------------------------------------------------


def test_pixels_are_their_own_latents():
    codec, x = Pixels(SPEC), images()
    assert (codec.image, codec.latent, codec.clip) == (SPEC["image"], SPEC["image"], 1.0)
    assert torch.equal(codec.encode(x), x)
    assert torch.equal(codec.encode(x, torch.ones_like(x)), x), "nothing is drawn"
    assert torch.equal(codec.decode(x), x)
    assert codec.decode(torch.tensor([-3.0, -0.5, 2.0]).view(1, 3, 1, 1)).flatten().tolist() == [-1, -0.5, 1]
    assert codec.state_dict() == {}


@pytest.mark.parametrize(("size", "channels"), [(18, 3), (16, 1)])
def test_pixels_of_another_size_are_named(size, channels):
    message = rf"image has shape \({channels}, {size}, {size}\): expected \(3, 16, 16\) \(channels, height, width\)"
    with pytest.raises(ValueError, match=message):
        Pixels(SPEC).encode(images(size, channels))


def test_pixels_of_data_without_images_are_named():
    with pytest.raises(ValueError, match="spec has music: Pixels expects data with image"):
        Pixels({"music": MusicSpec(16, 16)})


# AutoencoderKL -------------------------------------------------------------------------------------------------


def library():
    return pytest.importorskip("diffusers", reason="needs the extra `pretrained`").AutoencoderKL


def save(path, **changes):
    settings = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 2,
        "latent_channels": 5,
        "scaling_factor": 0.7,
        "shift_factor": 0.3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        library()(**settings | changes).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("kl"))


CONFIGS = pytest.mark.parametrize(
    ("changes", "scale", "shift"),
    [
        ({}, 0.7, 0.3),
        ({"scaling_factor": 0.18215, "shift_factor": None}, 0.18215, 0),
        ({"use_quant_conv": False, "use_post_quant_conv": False}, 0.7, 0.3),
    ],
)


@CONFIGS
def test_latents_are_the_library_s_shifted_and_scaled_once(tmp_path, changes, scale, shift):
    path, x = save(tmp_path, **changes), images()
    codec = AutoencoderKLLatents(SPEC, path)
    assert codec.latent == ImageSpec(5, 8)
    assert codec.image == SPEC["image"]
    assert codec.clip is None
    with torch.no_grad():
        posterior = library().from_pretrained(path).eval().encode(x).latent_dist
    torch.testing.assert_close(codec.encode(x), (posterior.mode() - shift) * scale)
    noise = torch.randn(2, 5, 8, 8, generator=generator(3))
    drawn = codec.encode(x, noise)
    torch.testing.assert_close(drawn, (posterior.sample(generator(3)) - shift) * scale)
    assert (drawn - codec.encode(x)).abs().mean() > 0.05, "noise that does nothing would prove nothing"


@CONFIGS
def test_images_are_the_library_s(tmp_path, changes, scale, shift):
    path, latents = save(tmp_path, **changes), 8 * torch.randn(2, 5, 8, 8, generator=generator())
    with torch.no_grad():
        theirs = library().from_pretrained(path).eval().decode(latents / scale + shift).sample
    codec = AutoencoderKLLatents(SPEC, path)
    torch.testing.assert_close(codec.decode(latents), theirs.clamp(-1, 1))


def test_images_are_clamped(folder):
    codec = AutoencoderKLLatents(SPEC, folder)
    with torch.no_grad():
        codec.network.decoder.conv_out.weight.mul_(50)
    made = codec.decode(torch.randn(2, 5, 8, 8, generator=generator()))
    assert (made.min(), made.max()) == (-1, 1)


def test_there_and_back_undoes_shift_and_scale(folder):
    codec, x = AutoencoderKLLatents(SPEC, folder), images()
    with torch.no_grad():
        theirs = library().from_pretrained(folder).eval()(x).sample
    torch.testing.assert_close(codec.decode(codec.encode(x)), theirs.clamp(-1, 1))


def test_its_weights_are_outside_of_the_model(folder):
    codec = AutoencoderKLLatents(SPEC, folder)
    model = torch.nn.Sequential(codec).train().requires_grad_(True)
    assert model.state_dict() == {}
    assert not [*model.parameters(), *model.buffers()]
    assert list(codec.network.parameters())
    assert not any(parameter.requires_grad for parameter in codec.network.parameters())
    assert not any(module.training for module in codec.network.modules())
    x = images().requires_grad_()
    assert not codec.encode(x).requires_grad
    assert not codec.decode(codec.encode(x)).requires_grad


def test_the_precision_around_it_changes_nothing(folder):
    codec, x, noise = AutoencoderKLLatents(SPEC, folder), images(), torch.randn(2, 5, 8, 8, generator=generator())
    exact = codec.encode(x, noise)
    made = codec.decode(exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(x, noise), exact)
        assert torch.equal(codec.decode(exact), made)


def test_cast_weights_give_float32(folder):
    codec, x, noise = AutoencoderKLLatents(SPEC, folder), images(), torch.randn(2, 5, 8, 8, generator=generator())
    exact = codec.encode(x, noise)
    made, codec = codec.decode(exact), codec.double()
    assert codec.dtype == torch.float64
    assert codec.encode(x).dtype == codec.decode(exact).dtype == torch.float32
    torch.testing.assert_close(codec.encode(x, noise), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.decode(exact), made, atol=1e-5, rtol=1e-5)


def test_loading_and_coding_leave_the_global_generator(folder):
    before = torch.get_rng_state()
    codec = AutoencoderKLLatents(SPEC, folder)
    codec.decode(codec.encode(images(), torch.zeros(2, 5, 8, 8)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"image": ImageSpec(1, 16)}, "in_channels is 3, out_channels is 3; expected 1 of each"),
        ({"image": ImageSpec(3, 15)}, "image has size 15: .* expect a multiple of 2"),
        ({"music": MusicSpec(16, 16)}, "spec has music: AutoencoderKLLatents expects data with image"),
    ],
)
def test_data_that_does_not_suit_is_named(folder, spec, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderKLLatents(spec, folder)


def test_images_of_another_size_are_named(folder):
    with pytest.raises(ValueError, match=r"image has shape \(3, 18, 18\): expected \(3, 16, 16\)"):
        AutoencoderKLLatents(SPEC, folder).encode(images(18))


def test_what_is_no_folder_of_weights_is_named(tmp_path):
    library()
    with pytest.raises(ValueError, match=r"config\.json is missing; get one with `hf download stabilityai/sd-vae-ft"):
        AutoencoderKLLatents(SPEC, str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(ValueError, match="_class_name is 'VQModel', expected 'AutoencoderKL'"):
        AutoencoderKLLatents(SPEC, str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(ValueError, match="its weights cannot be read"):
        AutoencoderKLLatents(SPEC, str(tmp_path))
