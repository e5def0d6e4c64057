"""The judge reads real digits, and the accuracies count."""

import copy
import pickle

import pytest
import torch

from mmdiffusion.metrics import ClassificationAccuracy, JudgedAccuracy, LabelAccuracy, SVMJudge
from mmdiffusion.metrics.features import as_stored


@pytest.fixture(scope="module")
def judge(digits):
    judge = SVMJudge()
    judge.fit(digits.train_images, digits.train_labels)
    return judge


def test_judge_reads_held_out_digits(judge, digits):
    accuracy = (judge.predict(digits.test_images) == digits.test_labels).double().mean()
    assert accuracy >= 0.985


def test_judge_equals_scikit_learns_example_on_its_own_scale(judge, digits):
    from sklearn.svm import SVC

    example = SVC(gamma=0.001).fit((as_stored(digits.train_images).flatten(1) + 1) * 8, digits.train_labels)
    expected = example.predict((as_stored(digits.test_images).flatten(1) + 1) * 8)
    assert (judge.predict(digits.test_images).numpy() == expected).mean() > 0.998


def test_judge_is_deterministic_and_sees_eight_bits(judge, digits):
    again = SVMJudge()
    again.fit(digits.train_images, digits.train_labels)
    assert torch.equal(again.predict(digits.test_images), judge.predict(digits.test_images + 1e-4))


def test_judge_errors(digits):
    with pytest.raises(ValueError, match=r"judge 'digits-svm'.*call fit"):
        SVMJudge().predict(digits.test_images)
    with pytest.raises(ValueError, match=r"gamma: found 0"):
        SVMJudge(gamma=0.0)
    with pytest.raises(ValueError, match=r"regularisation: found -1"):
        SVMJudge(regularisation=-1.0)


def test_judged_accuracy_between_its_bounds(judge, digits):
    metric = JudgedAccuracy(judge)
    for images, labels in zip(digits.test_images.split(100), digits.test_labels.split(100), strict=True):
        metric.update(images, labels)
    assert metric.compute().item() == (judge.predict(digits.test_images) == digits.test_labels).double().mean()
    assert metric.name() == "judged_accuracy[digits-svm]"
    assert metric.protocol()["num_samples"] == 540
    assert metric.protocol()["entry"] == "image"
    assert metric.inputs == metric.fit_inputs == ("image", "label")
    assert "fitted on 1257 images" in str(metric.protocol()["judge"])
    metric.reset()
    assert metric.num_samples == 0
    metric.update(digits.test_images, (digits.test_labels + 1) % 10)
    assert metric.compute().item() < 0.02


def test_judged_accuracy_fits_its_judge(digits):
    metric = JudgedAccuracy(SVMJudge())
    metric.fit(digits.train_images[:200], digits.train_labels[:200])
    metric.update(digits.test_images[:50], digits.test_labels[:50])
    assert metric.compute().item() > 0.7
    assert not metric.state_dict()


def test_judged_accuracy_copies(judge, digits):
    metric = JudgedAccuracy(judge)
    metric.update(digits.test_images[:9], digits.test_labels[:9])
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        other.update(digits.test_images[:1], digits.test_labels[:1] + 1)
        assert other.compute().item() == pytest.approx(0.9)
    assert metric.compute().item() == 1


def test_classification_accuracy():
    metric = ClassificationAccuracy()
    with pytest.raises(ValueError, match=r"classify_accuracy: found 0 samples"):
        metric.compute()
    metric.update(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 0]))
    metric.update(torch.tensor([5]), torch.tensor([4]))
    assert metric.compute().item() == 0.5
    assert metric.protocol() == {"num_samples": 4}
    assert metric.name() == "classify_accuracy"


def test_label_accuracy_compares_drawn_labels_with_the_true_ones():
    metric = LabelAccuracy()
    metric.update(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4]))
    assert metric.compute().item() == 0.75
    assert (metric.name(), metric.inputs) == ("label_accuracy[label]", ("label", "reference_label"))
    assert metric.protocol() == {"num_samples": 4}
    assert LabelAccuracy("action").inputs == ("action", "reference_action")
