"""Zero-shot accuracy on embeddings whose nearest classes are known, and on prompts that are averaged by hand."""

import copy
import itertools

import numpy as np
import pytest
import torch

from mmdiffusion.metrics import ZeroShotAccuracy
from mmdiffusion.seeding import text_number
from mmdiffusion.types import LabelSpec, TextSpec
from tests.metrics.processes import compute_together

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
TEMPLATES = ("{}", "a {}", "one {} and another {}")
SCORES = ("top1", "top5", "mean_per_class")


def axes(prompts):
    """Class i is axis i: the entries of an embedding are its similarities."""
    return torch.eye(len(NAMES))[[NAMES.index(prompt) for prompt in prompts]]


def random_text(prompts, width=12):
    """A fixed vector a prompt, of any length."""
    rows = [torch.randn(width, generator=torch.Generator().manual_seed(text_number(p) % 2**31)) for p in prompts]
    return torch.stack([row * (1 + len(prompt)) for row, prompt in zip(rows, prompts, strict=True)])


def build(score="top1", among="all", templates=("{}",), names=NAMES, reader=axes):
    metric = ZeroShotAccuracy(templates=templates, score=score, among=among)
    metric.describe({"label": LabelSpec(len(names), tuple(names))})
    metric.read(reader)
    return metric


def value(embedding, label, **settings):
    metric = build(**settings)
    metric.update(torch.as_tensor(embedding), torch.as_tensor(label))
    return metric.compute().item()


def ranking(*order):
    """An embedding whose nearest classes are these, in this order."""
    row = torch.full((len(NAMES),), -1.0)
    row[list(order)] = torch.linspace(1, 0.1, len(order))
    return row


def random_data(size, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, width, generator=generator), torch.randint(7, (size,), generator=generator)


# By hand -------------------------------------------------------------------------------------------------------

EMBEDDINGS = torch.stack(
    [
        ranking(0, 1, 2, 3, 4),  # an ant, first
        ranking(0, 2),  # an ant, first
        ranking(1, 2, 3, 4, 0),  # an ant, fifth
        ranking(4, 3, 2, 1, 5, 0),  # an ant, sixth
        ranking(3, 5),  # a dog, first
        ranking(5, 4, 3),  # a dog, third
        ranking(2),  # a cat, first
        ranking(1),  # of no class
    ]
)
LABELS = [0, 0, 0, 0, 3, 3, 2, -1]
ANSWERS = {"top1": 4 / 7, "top5": 6 / 7, "mean_per_class": (2 / 4 + 1 / 2 + 1) / 3}


@pytest.mark.parametrize("score", SCORES)
def test_by_hand(score):
    assert value(EMBEDDINGS, LABELS, score=score) == pytest.approx(ANSWERS[score])


def test_the_length_of_an_embedding_does_not_matter():
    lengths = torch.tensor([0.1, 5, 3, 0.2, 1, 7, 100, 2])[:, None]
    assert value(EMBEDDINGS * lengths, LABELS) == ANSWERS["top1"]


@pytest.mark.parametrize("score", SCORES)
def test_images_of_no_class_are_left_out(score):
    metric = build(score)
    metric.update(EMBEDDINGS, torch.tensor(LABELS))
    without = value(EMBEDDINGS[:-1], LABELS[:-1], score=score)
    assert metric.compute().item() == without
    assert (metric.num_samples, metric.protocol()["num_samples"]) == (7, 7)


def test_classes_to_choose_from_may_be_those_present():
    """Among ant, cat and dog: the third ant is a cat, the fourth and the second dog become dogs."""
    metric = build(among="present")
    metric.update(EMBEDDINGS, torch.tensor(LABELS))
    assert metric.compute().item() == pytest.approx(5 / 7)
    assert metric.protocol()["num_classes"] == 3
    assert value(EMBEDDINGS, LABELS, among="present", score="mean_per_class") == pytest.approx((2 / 4 + 1 + 1) / 3)
    assert value(EMBEDDINGS, LABELS, among="present", score="top5") == 1


def test_ties_are_no_answers_of_their_own():
    """An embedding that says nothing picks one class, whatever it is, and not all at once."""
    blank = torch.zeros(7, 7)
    assert value(blank, torch.arange(7)) == pytest.approx(1 / 7)
    assert value(blank, torch.arange(7), score="top5") == pytest.approx(5 / 7)


@pytest.mark.parametrize("score", SCORES)
def test_coincidence_is_the_score_of_the_same_answers_in_all_other_orders(score):
    """Every answer beside every label: the mean over the seven rotations of what is right by hand."""
    metric = build(score)
    metric.update(EMBEDDINGS[:-1], torch.tensor(LABELS[:-1]))
    metric.compute()
    rotated = [value(EMBEDDINGS[:-1].roll(i, 0), LABELS[:-1], score=score) for i in range(7)]
    assert metric.protocol()["coincidence"] == pytest.approx(np.mean(rotated))


def test_one_answer_for_all_is_right_as_often_as_its_class_occurs():
    metric = build()
    metric.update(ranking(3).expand(10, -1), torch.tensor([3, 3, 3, 3, 0, 1, 2, 2, 1, 0]))
    assert metric.compute().item() == pytest.approx(0.4)
    assert metric.protocol()["coincidence"] == pytest.approx(0.4)
    assert metric.protocol()["chance"] == pytest.approx(1 / 7)


@pytest.mark.parametrize(("score", "equal"), [("top1", True), ("mean_per_class", True), ("top5", False)])
def test_on_balanced_data_the_mean_over_classes_is_the_share(score, equal):
    embedding, _ = random_data(70)
    labels = torch.arange(70) % 7
    share = value(embedding, labels, reader=random_text)
    assert 0 < share < 1
    assert (value(embedding, labels, score=score, reader=random_text) == pytest.approx(share)) == equal


# Prompts -------------------------------------------------------------------------------------------------------


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def by_hand(templates, names=NAMES):
    """Mean of unit vectors with length 1, in float64."""
    rows = []
    for name in names:
        prompts = [template.replace("{}", name) for template in templates]
        rows.append(unit(unit(random_text(prompts).double().numpy()).mean(0)))
    return np.array(rows)


@pytest.mark.parametrize("templates", [TEMPLATES[:1], TEMPLATES[1:2], TEMPLATES])
def test_a_class_is_the_mean_of_its_prompts_as_unit_vectors(templates):
    classes = by_hand(templates)
    np.testing.assert_allclose(build(templates=templates, reader=random_text).classes, classes, atol=1e-6)
    embedding, labels = random_data(60)
    nearest = (embedding.double().numpy() @ classes.T).argmax(1)
    expected = (nearest == labels.numpy()).mean()
    assert value(embedding, labels, templates=templates, reader=random_text) == pytest.approx(expected)


def test_the_order_of_templates_changes_nothing():
    classes = build(templates=TEMPLATES, reader=random_text).classes
    for order in itertools.permutations(TEMPLATES):
        other = build(templates=order, reader=random_text).classes
        torch.testing.assert_close(other, classes, atol=1e-6, rtol=0)


def test_an_ensemble_of_one_is_its_template():
    alone = build(templates=("a {}",), reader=random_text).classes
    expected = random_text([f"a {name}" for name in NAMES])
    torch.testing.assert_close(alone, expected / expected.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("among", ["all", "present"])
def test_the_order_of_classes_changes_nothing(score, among):
    embedding, labels = random_data(60)
    labels = torch.where(labels == 6, -1, labels)
    order = [3, 0, 6, 2, 5, 1, 4]
    moved = torch.tensor([*np.argsort(order), -1])[labels]
    settings = {"score": score, "among": among, "templates": TEMPLATES, "reader": random_text}
    first = value(embedding, labels, **settings)
    assert value(embedding, moved, names=[NAMES[i] for i in order], **settings) == pytest.approx(first)
    assert 0 < first < 1


# Chance and protocol -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "chance"),
    [
        ({}, 1 / 7),
        ({"score": "top5"}, 5 / 7),
        ({"score": "mean_per_class"}, 1 / 7),
        ({"among": "present"}, 1 / 4),
        ({"among": "present", "score": "top5"}, 1.0),
    ],
)
def test_images_that_tell_nothing_are_at_the_chance_of_the_protocol(settings, chance):
    embedding, _ = random_data(8000, width=7)
    labels = torch.arange(8000) % (4 if "among" in settings else 7)
    metric = build(**settings)
    assert metric.protocol()["chance"] == 0, "unknown before a value is"
    metric.update(embedding, labels)
    assert metric.compute().item() == pytest.approx(chance, abs=0.02)
    assert metric.protocol()["chance"] == pytest.approx(chance)


def test_name_and_protocol_say_what_was_measured():
    metric = build("top5", "present", TEMPLATES, reader=random_text)
    metric.update(*random_data(50))
    metric.compute()
    assert metric.protocol() == {
        "templates": "{} | a {} | one {} and another {}",
        "among": "present",
        "score": "top5",
        "num_classes": 7,
        "num_samples": 50,
        "chance": 5 / 7,
        "coincidence": pytest.approx(5 / 7, abs=0.05),
    }
    assert metric.name() == "zero_shot_top5[label, present]"
    assert build().name() == "zero_shot_top1[label]"
    assert (metric.inputs, metric.higher_is_better) == (("image_embedding", "label"), True)
    assert ZeroShotAccuracy(label="action").name() == "zero_shot_top1[action]"
    assert ZeroShotAccuracy(label="action").inputs == ("image_embedding", "action")


# States --------------------------------------------------------------------------------------------------------


def test_several_updates_are_one():
    embedding, labels = random_data(50)
    metric = build(reader=random_text)
    for part, target in zip(embedding.split(7), labels.split(7), strict=True):
        metric.update(part, target)
    assert metric.compute().item() == value(embedding, labels, reader=random_text)
    assert metric.num_samples == 50


def test_a_reset_forgets_images_and_keeps_the_classes():
    metric = build()
    metric.update(EMBEDDINGS, torch.tensor(LABELS))
    metric.compute()
    metric.reset_samples()
    assert metric.num_samples == 0
    metric.update(EMBEDDINGS[2:4], torch.tensor([0, 0]))
    assert metric.compute().item() == 0


def test_a_copy_has_images_of_its_own():
    metric = build()
    metric.update(EMBEDDINGS[:2], torch.tensor([0, 0]))
    other = copy.deepcopy(metric)
    other.update(EMBEDDINGS[2:4], torch.tensor([0, 0]))
    assert (metric.compute().item(), other.compute().item()) == (1, 0.5)
    assert metric.state_dict() == {}


@pytest.mark.parametrize("share", [20, 49, 50], ids=["even", "uneven", "empty"])
@pytest.mark.parametrize("score", SCORES)
def test_two_processes_equal_one(score, share):
    embedding, labels = random_data(50)
    metrics = [build(score, reader=random_text) for _ in range(2)]
    for metric, rows in zip(metrics, (slice(0, share), slice(share, 50)), strict=True):
        for part, target in zip(embedding[rows].split(15), labels[rows].split(15), strict=True):
            if len(part):
                metric.update(part, target)
    alone = value(embedding, labels, score=score, reader=random_text)
    assert compute_together(*metrics) == [alone, alone]
    assert [metric.num_samples for metric in metrics] == [50, 50]


# Errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ((), r"templates is \[\]: expected at least one, and each once"),
        (("a {}", "a {}"), "expected at least one, and each once"),
        (("{}", "a photo"), r"templates has 'a photo': expected \{\} where the name of a class goes"),
    ],
)
def test_templates_that_do_not_work_are_named(templates, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotAccuracy(templates=templates)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"caption": TextSpec(3)}, r"zero_shot_top1\[label\]: spec has caption, expected label with names"),
        ({"label": LabelSpec(7)}, "spec has label, expected label with names"),
        ({"label": TextSpec(3)}, "spec has label, expected label with names"),
        ({"label": LabelSpec(3, ("a", "b", "a"))}, "label names a class twice, or one alone; expected each once"),
        ({"label": LabelSpec(1, ("a",))}, "label names a class twice, or one alone; expected each once"),
    ],
)
def test_data_whose_classes_have_no_names_is_named(spec, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotAccuracy().describe(spec)


def test_a_value_needs_classes_that_were_read_and_images_of_them():
    metric = ZeroShotAccuracy()
    metric.update(EMBEDDINGS, torch.tensor(LABELS))
    with pytest.raises(ValueError, match=r"zero_shot_top1\[label\]: expected read\(encode_text\) first"):
        metric.compute()
    message = r"zero_shot_top1\[label\]: found 0 images with a class, expected at least 1"
    with pytest.raises(ValueError, match=message):
        build().compute()
    with pytest.raises(ValueError, match=message):
        value(EMBEDDINGS, [-1] * 8)
    with pytest.raises(ValueError, match=message):
        compute_together(build(), build())


@pytest.mark.parametrize("among", ["all", "present"])
def test_a_label_without_a_name_is_named(among):
    metric = build(among=among)
    metric.update(torch.eye(7)[:2], torch.tensor([0, 7]))
    with pytest.raises(ValueError, match="found label 7, expected below 7"):
        metric.compute()
