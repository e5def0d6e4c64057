"""The contract between a metric and the callback that feeds it."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from jaxtyping import Int, Shaped
from torch import Tensor
from torchmetrics import Metric

from mmdiffusion.types import DataSpec


class SampleMetric(Metric):
    """A number about generated samples, together with the protocol that makes it comparable.

    A caller reads `inputs` to know which entries of a batch to hand to `update`, in that order and by position. States
    are created in the constructor, so a process that saw no sample takes part in `compute` like any other.

    Attributes:
        inputs: Names of the batch entries that `update` takes, for example `("image",)`; what is judged comes first,
            and is not judged where it was given.
        fit_inputs: Names of the two entries of the training split that `fit` takes; empty where nothing is learned.
        uses_reference: Whether `update(..., real=True)` must also be fed with real samples.
        min_samples: Samples that a value needs.
        num_samples: Samples behind the last computed value, over all processes; 0 before `compute`.
    """

    inputs: tuple[str, ...]
    fit_inputs: tuple[str, ...] = ()
    uses_reference: ClassVar[bool] = False
    min_samples: int = 1
    full_state_update: bool | None = False
    num_samples: int

    def __init__(self) -> None:
        super().__init__()
        self.num_samples = 0

    @abstractmethod
    def name(self) -> str:
        """Name under which the value is logged, with what it depends on in brackets: `fid[digits-cnn]`."""

    @abstractmethod
    def protocol(self) -> dict[str, str | int | float]:
        """How the last value was obtained: extractor or judge, number of samples, number of references, seeds."""

    def describe(self, spec: DataSpec) -> None:
        """Say what the numbers of a batch stand for; called once, before `fit`.

        Args:
            spec: The modalities of the data.
        """

    def fit(self, data: Shaped[Tensor, "b ..."], labels: Int[Tensor, " b"], /) -> None:
        """Prepare the extractor or judge; called once, with the real training split and never with samples.

        Args:
            data: (b ...) first of `fit_inputs`, such as real training images in [-1, 1].
            labels: (b,) their classes, second of `fit_inputs`.
        """

    def read(self, encode_text: Callable[[Sequence[str]], Tensor], /) -> None:
        """Take the method's reader of texts, where it has one; called once, after `describe`.

        Args:
            encode_text: Texts to embeddings (n, d) of length 1.
        """

    def count_samples(self, num_seen: Int[Tensor, ""]) -> None:
        """Remember how many samples a value rests on, at the start of `compute`.

        Args:
            num_seen: Of all processes.

        Raises:
            ValueError: If there is none.
        """
        self.num_samples = int(num_seen)
        if self.num_samples == 0:
            raise ValueError(f"{self.name()}: found 0 samples, expected at least 1; draw samples before computing")

    def reset(self) -> None:
        """Forget every sample and reference; what `fit` learned stays."""
        super().reset()
        self.num_samples = 0

    def reset_samples(self) -> None:
        """Forget the samples and keep the references, to measure another set of samples against them."""
        self.reset()

    @property
    def update_called(self) -> bool:
        """Always true: an empty process is legal, and an altogether empty metric is an error raised by `compute`."""
        return True
