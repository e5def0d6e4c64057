"""diffusers' VQModel: its own tokens and pictures."""

import pytest
import torch

from mmdiffusion.codecs import VQModelTokens
from mmdiffusion.types import ImageSpec, MusicSpec, TokenSpec
from tests.helpers import generator

VQModel = pytest.importorskip("diffusers", reason="needs the extra `pretrained`").VQModel


def save(path, **changes):
    settings = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "num_vq_embeddings": 24,
        "norm_num_groups": 2,
        "latent_channels": 4,
        "vq_embed_dim": 3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQModel(**settings | changes)
    with torch.no_grad():
        model.quantize.embedding.weight.copy_(torch.randn(24, 3, generator=generator()))
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("vq"))


def images(size=16, channels=3):
    return torch.rand(2, channels, size, size, generator=generator()) * 2 - 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lookup_from_codebook": True},
        {"norm_type": "spatial", "block_out_channels": (32, 32), "latent_channels": 3},
    ],
)
def test_it_is_the_library_s(tmp_path, changes):
    path, x = save(tmp_path, **changes), images()
    codec = VQModelTokens({"image": ImageSpec(3, 16)}, path)
    assert codec.latent == TokenSpec(24, (8, 8))
    tokens = codec.encode(x)
    assert tokens.shape == (2, 8, 8)
    assert len(tokens.unique()) > 2
    with torch.no_grad():
        theirs = VQModel.from_pretrained(path).eval()(x).sample
    torch.testing.assert_close(codec.decode(tokens), theirs.clamp(-1, 1))


def test_loading_leaves_the_global_generator(folder):
    before = torch.get_rng_state()
    VQModelTokens({"image": ImageSpec(3, 16)}, folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"image": ImageSpec(1, 16)}, "in_channels is 3, out_channels is 3; expected 1 of each"),
        ({"image": ImageSpec(3, 15)}, "image has size 15: .* expect a multiple of 2"),
        ({"music": MusicSpec(16, 16)}, "spec has music: VQModelTokens expects data with image"),
    ],
)
def test_data_that_does_not_suit_is_named(folder, spec, message):
    with pytest.raises(ValueError, match=message):
        VQModelTokens(spec, folder)


def test_images_of_another_size_and_a_missing_folder_are_named(folder, tmp_path):
    codec = VQModelTokens({"image": ImageSpec(3, 16)}, folder)
    with pytest.raises(ValueError, match=r"image has shape \(3, 18, 18\): expected \(3, 16, 16\)"):
        codec.encode(images(18))
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        VQModelTokens({"image": ImageSpec(3, 16)}, str(tmp_path))
