"""What a cache holds of a batch, and settings that cannot be meant."""

import math

import pytest
import torch

from mmdiffusion.codecs import HashTower
from mmdiffusion.data import Cache, Dance
from mmdiffusion.data.recipe import described
from mmdiffusion.types import FeatureSpec
from tests.codecs.test_encoder import Colours
from tests.data.in_files import InFiles
from tests.data.test_encoding import Brightness

SPEC = InFiles().spec


def columns(recipe):
    stored = InFiles().split("val").__getitems__([0, 1])
    return recipe.columns(stored, InFiles().on_after_batch_transfer(stored, 0))


def test_an_encoded_entry_takes_the_place_of_its_source():
    made = columns(Cache("a").recipe([Brightness()], []))
    assert set(made) == {"index", "label", "caption", "image.tokens"}


def test_a_source_that_is_read_stays():
    made = columns(Cache("a").recipe([Brightness()], ["image"]))
    assert {"image", "image.tokens"} <= set(made)
    assert made["image"].dtype == torch.uint8


def test_captions_stay_beside_what_a_tower_makes_of_them():
    made = columns(Cache("a").recipe([HashTower(SPEC, width=4)], []))
    assert {"caption", "caption.tokens", "caption.mask", "caption.summary"} <= set(made)


def test_chosen_entries_alone_are_encoded():
    networks = [Brightness(), HashTower(SPEC, width=4)]
    made = columns(Cache("a", encoded=["image"]).recipe(networks, []))
    assert set(made) == {"index", "label", "caption", "image.tokens"}
    assert set(columns(Cache("a", encoded=[]).recipe(networks, []))) == {"index", "label", "caption", "image"}


def test_a_feature_is_what_the_tower_says_times_the_root_of_its_width():
    tower = Colours()
    made = columns(Cache("a", features={"feature": tower}).recipe([], []))
    image = InFiles().rows("val", [0, 1])["image"][:, :1]
    torch.testing.assert_close(tower(InFiles().rows("val", [0, 1])["image"]) * math.sqrt(2), made["feature"])
    assert made["feature"].shape == (len(image), 2)


def test_features_are_modalities_of_the_data():
    spec = Cache("a", features={"feature": Colours()}).describe(SPEC)
    assert spec == SPEC | {"feature": FeatureSpec((2,))}
    assert Cache().describe(SPEC) == SPEC


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 0}, "cache.views is 0: expected at least 1"),
        ({"shard_rows": 0}, "cache.shard_rows is 0: expected at least 1"),
        ({"features": {"f": Colours()}}, "cache.features has f, cache.folder is None: expected a folder"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Cache(**settings)


def test_an_entry_that_nothing_encodes_is_named():
    with pytest.raises(ValueError, match=r"cache\.encoded has 'music': expected image, which the method encodes"):
        Cache("a", encoded=["music"]).recipe([Brightness()], [])
    with pytest.raises(ValueError, match="expected nothing, which"):
        Cache("a", encoded=["music"]).recipe([], [])


def test_a_feature_with_the_name_of_a_modality_is_refused():
    with pytest.raises(ValueError, match=r"cache\.features has 'label': expected a name that is new"):
        Cache("a", features={"label": Colours()}).describe(SPEC)
    with pytest.raises(ValueError, match="and data with an image; they have motion, label, music_tokens"):
        Cache("a", features={"feature": Colours()}).describe(Dance(num_train=1).spec)


def test_a_split_is_described_in_plain_values():
    assert described(InFiles(is_random=True), "train") == {
        "class": "InFiles",
        "split": "train",
        "rows": 23,
        "drawn at random": ["image"],
        "spec": {
            "image": {"channels": 3, "size": 8, "num_levels": 256},
            "label": {"num_classes": 4, "names": []},
            "caption": {"max_words": 3, "vocabulary": ["a", "dark", "light", "picture"]},
        },
    }
