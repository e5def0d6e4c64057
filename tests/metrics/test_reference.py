"""Stored statistics: which rows they are of, how a metric takes them, and what is no such file."""

import json
from collections import Counter

import pytest
import torch

from mmdiffusion.metrics import FrechetDistance, Reference, SmallClassifier
from mmdiffusion.metrics.features import FeatureExtractor
from mmdiffusion.metrics.inception import InceptionScore
from mmdiffusion.metrics.reference import pack_statistics, read_protocol, read_statistics
from tests.helpers import generator


class Means(FeatureExtractor):
    """Mean of each half of an image; nothing to learn."""

    name, num_features = "means", 2

    def features(self, images):
        return torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, -1)], 1)

    def logits(self, images):
        return self.features(images)

    def signature(self):
        return "means"


def test_each_row_once():
    assert Reference("a").rows(5) == [0, 1, 2, 3, 4]


def test_a_part_is_drawn_once_for_all():
    rows = Reference("a", num_rows=100).rows(1000)
    assert rows == Reference("b", num_rows=100).rows(1000)
    assert len(set(rows)) == 100
    assert max(rows) > 800, "from all over the split"
    assert rows != sorted(rows)


def test_more_rows_than_there_are_come_evenly():
    counts = Counter(Reference("a", num_rows=23).rows(10))
    assert sorted(counts) == list(range(10))
    assert sorted(counts.values()) == [2] * 7 + [3] * 3


def test_a_covariance_needs_two_rows():
    with pytest.raises(ValueError, match=r"reference\.num_rows is 1: expected at least 2"):
        Reference("a", num_rows=1)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (None, "fid[means]"),
        (Reference("a"), "fid[means, train]"),
        (Reference("a", "test", 30_000), "fid[means, 30000 of test]"),
    ],
)
def test_a_metric_s_name_says_what_it_compares_with(reference, name):
    assert FrechetDistance(Means(), reference).name() == name


def test_added_references_count_like_images():
    images = torch.rand(40, 1, 8, 8, generator=generator()) * 2 - 1
    fed, given = FrechetDistance(Means()), FrechetDistance(Means(), Reference("a"))
    fed.update(images[:25], real=True)
    features = Means().features(images[:25]).double()
    given.add_references(torch.tensor(25), features.sum(0), features.T @ features)
    for metric in (fed, given):
        metric.update(images[25:])
    assert float(given.compute()) == pytest.approx(float(fed.compute()), rel=1e-12)
    assert given.protocol()["num_references"] == 25
    assert given.protocol()["reference"] == "train, a"


def test_a_pretrained_extractor_asks_for_no_training_data():
    assert not FrechetDistance(Means()).fit_inputs
    assert not InceptionScore(Means()).fit_inputs
    assert FrechetDistance(SmallClassifier()).fit_inputs == ("image", "label")


def test_statistics_come_back_with_their_protocol(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack_statistics({"count": torch.tensor(3)}, {"split": "train", "rows": 3}))
    assert read_protocol(str(path)) == {"split": "train", "rows": 3}
    assert int(read_statistics(str(path))["count"]) == 3


@pytest.mark.parametrize("contents", [b"", b"no statistics", json.dumps({"split": "train"}).encode()])
def test_what_holds_no_statistics_is_named(tmp_path, contents):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"a\.safetensors: no such file; compute it with `mmdiffusion prepare"):
        read_protocol(str(path))
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"a\.safetensors: it holds no statistics of `mmdiffusion prepare`"):
        read_protocol(str(path))
