"""The twelve zero-shot classification suites, read from where the user keeps them: one table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

PHOTO = ("a photo of a {}.", "a blurry photo of a {}.", "a close-up photo of a {}.", "a picture of a {}.")


@dataclass(frozen=True)
class Suite:
    """One suite.

    The list of suites is that of earlier papers of DiffDis's authors (FILIP, NLIP), recalled and not confirmed for this
    one; its prompts are unknown, these are ours.

    Args:
        dataset: Class of torchvision that reads it.
        num_classes: Classes.
        templates: Prompts, with {} where the name of a class goes.
        options: Settings of the class: which split, which annotation.
        names: Attribute of the data set with the names of its classes.
    """

    dataset: str
    num_classes: int
    templates: tuple[str, ...] = PHOTO
    options: tuple[tuple[str, Any], ...] = ()
    names: str = "classes"


TEST = (("split", "test"),)
SUITES = {
    "cifar10": Suite("CIFAR10", 10, options=(("train", False),)),
    "cifar100": Suite("CIFAR100", 100, options=(("train", False),)),
    "caltech101": Suite("Caltech101", 101, names="categories"),  # the whole of it: there is no test split
    "cars": Suite("StanfordCars", 196, ("a photo of a {}.", "a photo of a {}, a car."), TEST),
    "flowers": Suite("Flowers102", 102, ("a photo of a {}, a type of flower.",), TEST),
    "food": Suite("Food101", 101, ("a photo of {}, a type of food.",), TEST),
    "sun": Suite("SUN397", 397, ("a photo of a {}.", "a photo of the {}.")),  # the whole of it, as above
    "textures": Suite("DTD", 47, ("a photo of a {} texture.", "a photo of something {}."), TEST),
    "aircraft": Suite(
        "FGVCAircraft",
        100,
        ("a photo of a {}, a type of aircraft.",),
        (*TEST, ("annotation_level", "variant")),
    ),
    "pets": Suite("OxfordIIITPet", 37, ("a photo of a {}, a type of pet.",), TEST),
    "eurosat": Suite("EuroSAT", 10, ("a satellite photo of {}.",)),  # the whole of it, as above
    "imagenet": Suite("ImageNet", 1000, options=(("split", "val"),)),
}


def open_suite(
    name: str,
    root: str | Path,
    transform: Callable[[Any], Any] | None = None,
) -> tuple[Dataset, list[list[str]]]:
    """A suite and the prompts of its classes, in the order of its labels; nothing is downloaded.

    Args:
        name: One of `SUITES`.
        root: Folder that holds the files as torchvision expects them.
        transform: What is done to each picture.

    Returns:
        A data set of (picture, label), and for each class its prompts, as `classify` and `encode_classes` take them.

    Raises:
        ValueError: if there is no such suite, its files are not at `root`, or it has another number of classes.
    """
    import torchvision.datasets

    if name not in SUITES:
        raise ValueError(f"suite is {name!r}: expected one of {', '.join(SUITES)}")
    suite = SUITES[name]
    try:
        found = getattr(torchvision.datasets, suite.dataset)(str(root), transform=transform, **dict(suite.options))
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"root is {root}: expected {suite.dataset} as torchvision.datasets.{suite.dataset} lays it out; {error}"
        ) from error
    classes = [readable(one) for one in getattr(found, suite.names)]
    if len(classes) != suite.num_classes:
        raise ValueError(f"root is {root}: {suite.dataset} has {len(classes)} classes, expected {suite.num_classes}")
    return found, [[template.replace("{}", one) for template in suite.templates] for one in classes]


def readable(name: str | tuple[str, ...]) -> str:
    """A class name in words: the first of several, and no signs of file names.

    Args:
        name: As the data set has it, such as "/a/abbey", "faces_easy" or ("tench", "Tinca tinca").
    """
    first = name if isinstance(name, str) else name[0]
    parts = [part for part in first.split("/") if len(part) > 1]
    return " ".join(" ".join(reversed(parts)).replace("_", " ").replace("-", " ").split())
