"""CLIP's image tower: transformers' own embeddings and preprocessing, from a tiny model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mmdiffusion.codecs import CLIPImageTower
from mmdiffusion.codecs.image_tower import crop
from tests.helpers import generator

transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`")

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "projection_dim": 12,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny-clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION))
        with torch.no_grad():  # the library's own start makes all images alike
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(path)
    return path


def images(size=8, number=3, channels=3):
    """Smooth pictures of whole grey levels, whatever is done to them."""
    coarse = torch.rand(number, channels, 4, 4, generator=generator(0))
    levels = (F.interpolate(coarse, size, mode="bicubic").clamp(0, 1) * 255).round()
    return levels / 127.5 - 1


@torch.no_grad()
def theirs(path, pictures, **options):
    """The library's embeddings, through its own preprocessing of PIL images."""
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}, **options
    )
    levels = ((pictures + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pixels = processor([Image.fromarray(one) for one in levels], return_tensors="pt")["pixel_values"]
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(path).eval()
    return F.normalize(model(pixels).image_embeds, dim=-1)


def test_it_is_the_library_s(folder):
    tower, pictures = CLIPImageTower(str(folder)), images()
    made = tower(pictures)
    assert (tower.summary_width, tower.source) == (12, folder.name)
    torch.testing.assert_close(made, theirs(folder, pictures), atol=1e-5, rtol=1e-5)
    assert (made[0] - made[1]).abs().max() > 0.05


def test_larger_pictures_are_resized_as_the_library_does(folder):
    """PIL rounds to whole levels after each axis: a level or two."""
    pictures = images(20)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 8}, do_center_crop=False, do_rescale=False, do_normalize=False
    )
    levels = ((pictures + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    resized = np.stack(processor([Image.fromarray(one) for one in levels])["pixel_values"]).astype(float)
    assert np.abs((crop(pictures, 8).numpy() + 1) * 127.5 - resized).max() < 2
    torch.testing.assert_close(CLIPImageTower(str(folder))(pictures), theirs(folder, pictures), atol=0.02, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(16, 8), (8, 24), (16, 48)])
def test_the_middle_of_long_pictures_is_read(height, width):
    ramp = torch.linspace(-1, 1, max(height, width))
    picture = ramp[:, None].expand(-1, width) if height > width else ramp.expand(height, -1)
    square = crop(picture.expand(1, 3, height, width), 8)
    assert square.shape == (1, 3, 8, 8)
    assert square.mean().abs() < 1e-3, "the middle of a ramp is at its mean"


def test_grey_pictures_have_three_equal_channels(folder):
    tower, grey = CLIPImageTower(str(folder)), images(channels=1)
    assert torch.equal(tower(grey), tower(grey.expand(-1, 3, -1, -1)))


def test_the_folder_s_colours_are_used(tmp_path, folder):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(colours))
    tower, pictures = CLIPImageTower(str(tmp_path)), images()
    torch.testing.assert_close(tower(pictures), theirs(folder, pictures, **colours), atol=1e-5, rtol=1e-5)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.5]}')
    with pytest.raises(ValueError, match="expected three numbers each"):
        CLIPImageTower(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="expected image_mean and image_std"):
        CLIPImageTower(str(tmp_path))


def test_it_stays_outside_of_the_model(folder):
    tower = CLIPImageTower(str(folder)).train()
    assert torch.nn.Sequential(tower).state_dict() == {}
    assert not tower.network.training


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_a_folder_without_weights_is_named(path):
    with pytest.raises(ValueError, match=f"path is {path}: .*clip-vit-base-patch32"):
        CLIPImageTower(path)
