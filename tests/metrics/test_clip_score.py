"""CLIPScore against the library's own similarities, and by hand."""

import pytest
import torch

from mmdiffusion.codecs import CLIPImageTower, CLIPTower, HashTower, ImageTower
from mmdiffusion.metrics import CLIPScore
from mmdiffusion.types import TextSpec
from tests.codecs.test_clip import TEXT, VISION, save
from tests.codecs.test_image_tower import images

transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`")

SPEC = {"caption": TextSpec(20)}
CAPTIONS = ["a red cat", "Red", "ab c"]


class Fixed(ImageTower):
    """Reads the same vectors from whatever images."""

    def __init__(self, vectors):
        super().__init__(vectors.shape[1], "fixed")
        self.vectors = vectors

    def forward(self, images):
        return self.vectors[: len(images)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    vision = VISION | {"projection_dim": 12}
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=12)
    return save(tmp_path_factory.mktemp("tiny-clip"), "CLIPModel", config)


def build(image, text):
    metric = CLIPScore(image, text)
    metric.describe(SPEC)
    return metric


@torch.no_grad()
def test_it_is_the_library_s_similarity(folder):
    metric, pictures = build(CLIPImageTower(folder), lambda spec: CLIPTower(spec, folder)), images()
    metric.update(pictures[:2], CAPTIONS[:2])
    metric.update(pictures[2:], CAPTIONS[2:])
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    words = transformers.CLIPTokenizer.from_pretrained(folder)(CAPTIONS, return_tensors="pt", padding=True)
    levels = ((pictures + 1) * 127.5).round().to(torch.uint8)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    made = model(**words, **processor(list(levels), return_tensors="pt"))
    cosine = (made.logits_per_image / model.logit_scale.exp()).diagonal()
    assert metric.compute().item() == pytest.approx(100 * cosine.clamp(min=0).mean().item(), rel=1e-4)
    assert metric.name() == f"clip_score[{folder.split('/')[-1]}]"
    expected = {"image_tower": folder.split("/")[-1], "text_tower": "CLIPTower", "scale": 100, "num_samples": 3}
    assert metric.protocol() == expected
    assert metric.state_dict() == {}
    assert not list(metric.children())


def test_a_negative_cosine_counts_as_none():
    text = HashTower(SPEC, width=8)(CAPTIONS).summary
    metric = build(Fixed(torch.stack([text[0], -text[1], text[2]])), lambda spec: HashTower(spec, width=8))
    metric.update(images(), CAPTIONS)
    assert metric.compute().item() == pytest.approx(200 / 3, rel=1e-5)


def test_towers_of_two_spaces_are_refused():
    with pytest.raises(ValueError, match="vectors have 12 and 8 numbers; expected one space"):
        build(Fixed(torch.ones(1, 12)), lambda spec: HashTower(spec, width=8))


def test_it_says_what_is_missing():
    metric = CLIPScore(Fixed(torch.ones(1, 8)), lambda spec: HashTower(spec, width=8))
    with pytest.raises(ValueError, match=r"clip_score\[fixed\]: expected describe\(spec\) first"):
        metric.update(images(number=1), ["red"])
    with pytest.raises(ValueError, match=r"clip_score\[fixed\]: found 0 samples"):
        metric.compute()
