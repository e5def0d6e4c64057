"""Does a sample show what it was asked to show? A judge that never saw the model reads it."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.metrics.features import as_stored


class Judge(ABC):
    """A reader of samples that is independent of every model and feature extractor under test.

    Attributes:
        name: Short name that appears in the metric, as in `judged_accuracy[digits-svm]`.
    """

    name: str

    @abstractmethod
    def fit(self, data: Shaped[Tensor, "b ..."], labels: Int[Tensor, " b"], /) -> None:
        """Learn from the real training split: images (b c h w) in [-1, 1] or tokens (b n), say, with classes (b,)."""

    @abstractmethod
    def predict(self, data: Shaped[Tensor, "b ..."], /) -> Int[Tensor, " b"]:
        """Classes (b,) read from samples of the same kind, on their device."""

    @abstractmethod
    def signature(self) -> str:
        """One line that says how the judge came about, for the protocol of a result."""


class SVMJudge(Judge):
    """Support vector classifier with a Gaussian kernel on pixels: no gradient, no network, hence no shared blind spot.

    Source: scikit-learn's digits example, whose gamma 0.001 on grey levels 0..16 is 0.064 here (a factor 8 between the
    pixels, squared).

    Args:
        name: Short name that appears in the metric; say which data it was fitted on.
        gamma: Inverse squared width of the kernel for pixels in [-1, 1], above 0; divide by 4 where the side doubles.
        regularisation: Penalty C of a misread training image, above 0.

    Raises:
        ValueError: If `gamma` or `regularisation` is not above 0.
    """

    def __init__(
        self,
        name: str = "digits-svm",
        gamma: float = 0.064,
        regularisation: float = 1.0,
    ) -> None:
        for field, value in (("gamma", gamma), ("regularisation", regularisation)):
            if value <= 0:
                raise ValueError(f"{field}: found {value}, expected above 0; the default suits 8 x 8 digits")
        self.name, self.gamma, self.regularisation = name, gamma, regularisation
        self.num_fitted = 0

    def fit(self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> None:
        """Fit on the real training split, (b c h w) in [-1, 1] with classes (b,)."""
        from sklearn.svm import SVC

        self.model = SVC(gamma=self.gamma, C=self.regularisation)  # pyright: ignore[reportArgumentType] - guessed from its default
        self.model.fit(as_stored(images).flatten(1).cpu().numpy(), labels.cpu().numpy())
        self.num_fitted = len(images)

    def predict(self, images: Float[Tensor, "b c h w"]) -> Int[Tensor, " b"]:
        """Classes (b,) read from images (b c h w) in [-1, 1], on the device of the images.

        Raises:
            ValueError: Before `fit`.
        """
        if self.num_fitted == 0:
            raise ValueError(
                f"judge {self.name!r}: found no fitted classifier, expected one; "
                "call fit(images, labels) with the real training split first"
            )
        if len(images) == 0:
            return torch.zeros(0, dtype=torch.int64, device=images.device)
        return torch.from_numpy(self.model.predict(as_stored(images).flatten(1).cpu().numpy())).to(images.device)

    def signature(self) -> str:
        """Name, kernel, penalty and number of training images."""
        return (
            f"{self.name}, Gaussian kernel, 8-bit input, gamma {self.gamma}, "
            f"C {self.regularisation}, fitted on {self.num_fitted} images"
        )


class Accuracy(SampleMetric):
    """Share of predictions that equal their label: the states and the division, for metrics of accuracy."""

    higher_is_better = True
    num_correct: Tensor
    num_seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("num_correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_seen", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def count(self, prediction: Shaped[Tensor, " b"], label: Shaped[Tensor, " b"]) -> None:
        """Add what was read (b,) and what is true (b,)."""
        self.num_correct += (prediction == label).sum().to(self.num_correct.device)
        self.num_seen += len(label)

    def compute(self) -> Float[Tensor, ""]:
        """Share in [0, 1] over all processes, a float64 scalar.

        Raises:
            ValueError: If there is no sample altogether.
        """
        self.count_samples(self.num_seen)
        return self.num_correct.double() / self.num_samples


class ClassificationAccuracy(Accuracy):
    """Share of samples whose predicted class is the true one, higher is better."""

    inputs = ("prediction", "label")

    def name(self) -> str:
        """`classify_accuracy`: it depends on no outside network."""
        return "classify_accuracy"

    def protocol(self) -> dict[str, str | int | float]:
        """The count behind the last value."""
        return {"num_samples": self.num_samples}

    def update(self, prediction: Int[Tensor, " b"], label: Int[Tensor, " b"]) -> None:
        """Add predicted classes (b,) and true classes (b,)."""
        self.count(prediction, label)


class LabelAccuracy(Accuracy):
    """Share of drawn labels that are those of the real data whose other modalities were given, higher is better.

    Args:
        label: Name of the batch entry.
    """

    def __init__(self, label: str = "label") -> None:
        super().__init__()
        self.inputs = (label, f"reference_{label}")

    def name(self) -> str:
        """`label_accuracy[label]`, with the entry."""
        return f"label_accuracy[{self.inputs[0]}]"

    def protocol(self) -> dict[str, str | int | float]:
        """The count behind the last value."""
        return {"num_samples": self.num_samples}

    def update(self, drawn: Int[Tensor, " b"], true: Int[Tensor, " b"]) -> None:
        """Add drawn classes (b,) and true classes (b,)."""
        self.count(drawn, true)


class JudgedAccuracy(Accuracy):
    """Share of samples in which a judge reads the label they were drawn for, higher is better.

    The upper bound is the judge's own accuracy on real test samples, chance is one over the number of classes.

    Args:
        judge: Reads a class from a sample; fitted on the real training split.
        entry: Name of the batch entry that the judge reads, such as "image" or "music_tokens".
        label: Name of the batch entry that it should read: "label" where samples are drawn for labels,
            "reference_label" where they are drawn for something else that has one, such as a caption.
    """

    def __init__(
        self,
        judge: Judge,
        entry: str = "image",
        label: str = "label",
    ) -> None:
        super().__init__()
        self.judge = judge
        self.inputs = (entry, label)
        self.fit_inputs = (entry, label.removeprefix("reference_"))

    def name(self) -> str:
        """`judged_accuracy[...]` with the judge's name."""
        return f"judged_accuracy[{self.judge.name}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Judge, what it read, and the count behind the last value."""
        return {"judge": self.judge.signature(), "entry": self.inputs[0], "num_samples": self.num_samples}

    def fit(self, data: Shaped[Tensor, "b ..."], labels: Int[Tensor, " b"]) -> None:
        """Fit the judge on the real training split: the entry it reads (b ...) with classes (b,)."""
        self.judge.fit(data, labels)

    def update(self, data: Shaped[Tensor, "b ..."], label: Int[Tensor, " b"]) -> None:
        """Add samples (b ...), the entry that the judge reads, and the classes (b,) they were drawn for."""
        self.count(self.judge.predict(data), label)
