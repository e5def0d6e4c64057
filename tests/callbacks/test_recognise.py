"""Evaluate measures recognition: the method sees images and indices only, beside it stand images that tell nothing."""

import json

import pytest
import torch
from lightning import Trainer

from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.data import Digits
from mmdiffusion.metrics import ClassificationAccuracy, JudgedAccuracy, RetrievalRecall, ZeroShotAccuracy
from tests.helpers import PixelJudge, build_method
from tests.methods.build_diffdis import build

OWN, BLANK, OTHER = "recognise", "blank images", "other images"


def evaluate(folder, method, metrics, draws=None):
    callback = Evaluate(metrics, draws or {}, num_samples=10, batch_size=64)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        barebones=False,
    )
    trainer.test(method, datamodule=Digits(), verbose=False)
    return json.loads((folder / "metrics.json").read_text())


class Seer:
    """Embeds a digit as the text of its own class, which it finds by the picture; remembers what it was handed."""

    def __init__(self, method):
        test = Digits().columns("test")
        self.captions = {image.numpy().tobytes(): c for image, c in zip(test["image"], test["caption"], strict=True)}
        self.encode_text, self.handed = method.encode_text, []

    def __call__(self, batch):
        self.handed.append(set(batch))
        blank = "a handwritten zero"
        return self.encode_text([self.captions.get(image.numpy().tobytes(), blank) for image in batch["image"]])


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    method = build(spec=Digits().spec, patch_size=2)
    method.encode_image = seer = Seer(method)
    metrics = [ZeroShotAccuracy(templates=["a handwritten {}"]), RetrievalRecall(query="text", k=1)]
    return evaluate(tmp_path_factory.mktemp("run"), method, metrics), seer


def test_true_embeddings_are_all_right_and_those_of_other_images_at_chance(figures):
    row = figures[0]["zero_shot_top1[label]"]
    assert row[OWN]["value"] == 1
    assert row[BLANK]["value"] == pytest.approx(0.1, abs=0.02), "all zeros: one class of ten"
    labels = Digits().columns("test")["label"]
    others = labels[torch.randperm(360, generator=torch.Generator().manual_seed(0))]
    assert row[OTHER]["value"] == pytest.approx(float((labels == others).float().mean()))
    assert row[OWN]["chance"] == 0.1
    assert row[OWN]["num_samples"] == 360


def test_texts_find_images(figures):
    row = figures[0]["recall_at_1[text to image]"]
    assert row[OWN]["value"] == 1
    assert row[OWN]["num_samples"] == 10


def test_the_method_is_handed_images_and_indices_only(figures):
    assert figures[1].handed
    assert all(handed == {"image", "index"} for handed in figures[1].handed)


def test_a_label_that_was_not_given_is_what_the_judge_should_read(tmp_path):
    method = build(spec=Digits().spec, steps=1)
    test = Digits().rows("test", range(10))
    method.sample = lambda condition, seeds, **_: {**condition, "image": test["image"], "index": torch.tensor(seeds)}
    metrics = [JudgedAccuracy(PixelJudge(), label="reference_label")]
    made = evaluate(tmp_path, method, metrics, {"digit": Draw(["caption"])})
    expected = float((PixelJudge().predict(test["image"]) == test["label"]).float().mean())
    assert made["judged_accuracy[pixel]"]["digit"]["value"] == pytest.approx(expected)
    assert set(made["judged_accuracy[pixel]"]) == {"digit", "real", "shuffled"}


def test_a_method_without_classes_of_its_own_is_named_before_a_test(tmp_path):
    with pytest.raises(ValueError, match="classify_accuracy: DiffDis does not classify without words"):
        evaluate(tmp_path, build(spec=Digits().spec), [ClassificationAccuracy()])


def test_a_method_without_embeddings_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"zero_shot_top1\[label\]: MTDiffusion embeds no images"):
        evaluate(tmp_path, build_method(spec=Digits().spec), [ZeroShotAccuracy()])
