"""The suites: every row can be opened by torchvision, and one that lies on disk comes with its prompts."""

import inspect
import pickle

import numpy as np
import pytest
import torchvision.datasets

from mmdiffusion.data.suites import SUITES, open_suite, readable


@pytest.mark.parametrize("name", SUITES)
def test_settings_are_those_of_torchvision(name):
    suite = SUITES[name]
    kind = getattr(torchvision.datasets, suite.dataset)
    known = set(inspect.signature(kind.__init__).parameters)
    if "kwargs" not in known:
        assert {"root", "transform", *dict(suite.options)} <= known
    assert all("{}" in template for template in suite.templates)
    assert len(set(suite.templates)) == len(suite.templates)


def test_there_are_twelve():
    assert len(SUITES) == 12


@pytest.mark.parametrize("name", SUITES)
def test_files_that_are_missing_are_named(name, tmp_path):
    with pytest.raises(ValueError, match=f"expected {SUITES[name].dataset} as torchvision"):
        open_suite(name, tmp_path / "nowhere")


def test_an_unknown_suite_is_named(tmp_path):
    with pytest.raises(ValueError, match="suite is 'mnist': expected one of cifar10"):
        open_suite("mnist", tmp_path)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Ten pictures in CIFAR-10's own files; only their checksums are not the published ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.arange(10 * 3072, dtype=np.int64).reshape(10, 3072) % 256
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels.astype(np.uint8), "labels": list(range(10))}))
    names = [f"kind_{i}" for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    return tmp_path


def test_a_suite_comes_with_the_prompts_of_its_classes(cifar):
    data, prompts = open_suite("cifar10", cifar, transform=np.asarray)
    assert len(prompts) == 10
    assert prompts[3][0] == "a photo of a kind 3."
    assert len(prompts[3]) == len(SUITES["cifar10"].templates)
    picture, label = data[7]
    assert label == 7
    assert picture[0, 0].tolist() == [(7 * 3072 + channel * 1024) % 256 for channel in range(3)]


def test_another_number_of_classes_is_named(cifar):
    (cifar / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"]}))
    with pytest.raises(ValueError, match="CIFAR10 has 1 classes, expected 10"):
        open_suite("cifar10", cifar)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("faces_easy", "faces easy"),
        ("/a/abbey", "abbey"),
        ("/c/church/indoor", "indoor church"),
        ("707-320", "707 320"),
    ],
)
def test_names_become_words(name, words):
    assert readable(name) == words
    assert readable((name, "another")) == words
