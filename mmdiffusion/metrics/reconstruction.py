"""How much of the data a first stage keeps, or a restoration gives back."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.metrics.base import SampleMetric

DATA_RANGE = 2.0
"""From -1 to 1."""


class PooledSquares(SampleMetric):
    """Squared errors, summed over all samples before anything is made of them.

    Args:
        inputs: Entries of a batch: what was made, and what it should be.
    """

    squared_error: Tensor
    num_values: Tensor
    num_seen: Tensor

    def __init__(self, inputs: tuple[str, str]) -> None:
        super().__init__()
        self.inputs = inputs
        self.add_state("squared_error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_values", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_seen", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, squares: Float[Tensor, "*n"], num_samples: int) -> None:
        """Add errors.

        Args:
            squares: Squared errors of all numbers that count.
            num_samples: Samples they are of.
        """
        self.squared_error += squares.sum().to(self.squared_error.device)
        self.num_values += squares.numel()
        self.num_seen += num_samples


class PeakSignalNoiseRatio(PooledSquares):
    """10 log10(range^2 / mean squared error) of reconstructions, in dB, higher is better; infinite for equal data.

    The error is pooled over all samples before the logarithm, as torchmetrics' class of the same name does: not the
    mean of the samples' own ratios, which is never lower (Jensen) and which one perfect sample makes infinite.

    Args:
        entry: Name of the batch entry that was rebuilt, such as "image" or "music".
        estimate: Name of the entry that holds what was made of it; for restored images "image", beside the entry
            "reference_image".
    """

    higher_is_better = True

    def __init__(self, entry: str = "image", estimate: str = "reconstruction") -> None:
        super().__init__((estimate, entry))

    def name(self) -> str:
        """`psnr[image]`, with the entry."""
        return f"psnr[{self.inputs[1].removeprefix('reference_')}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Entry, range of the data, how errors are pooled, and the count behind the last value."""
        pooled = "over all samples"
        return {
            "entry": self.inputs[1],
            "data_range": DATA_RANGE,
            "pooled": pooled,
            "num_samples": self.num_samples,
        }

    def update(self, reconstruction: Float[Tensor, "b *size"], data: Float[Tensor, "b *size"]) -> None:
        """Add reconstructions and the data they were made from, both in [-1, 1]."""
        self.add((reconstruction.double() - data.double()).square(), len(data))

    def compute(self) -> Float[Tensor, ""]:
        """Ratio in dB over all processes, a float64 scalar.

        Raises:
            ValueError: If there is no sample altogether.
        """
        self.count_samples(self.num_seen)
        return 10 * torch.log10(DATA_RANGE**2 * self.num_values / self.squared_error)


class VisibleError(PooledSquares):
    """How far restored images are from what could be seen of them: root mean squared error over the visible pixels.

    In units of the images, which are in [-1, 1]; lower is better, and 0 where what could be seen is put back. It says
    what a restoration keeps by itself, which `psnr[image]` of images with pixels put back does not.

    Args:
        masked: Name of the batch entry with the masked images.
    """

    higher_is_better = False

    def __init__(self, masked: str = "masked") -> None:
        super().__init__(("image", masked))

    def name(self) -> str:
        """`visible_error[masked]`, with the entry."""
        return f"visible_error[{self.inputs[1]}]"

    def protocol(self) -> dict[str, str | int | float]:
        """How errors are pooled, and the counts behind the last value."""
        return {
            "pooled": "over all visible numbers",
            "num_values": int(self.num_values),
            "num_samples": self.num_samples,
        }

    def update(self, image: Float[Tensor, "b c h w"], masked: Float[Tensor, "b masked h w"]) -> None:
        """Add restored images in [-1, 1], and what was seen of them: their channels, and one more, 1 where visible.

        Raises:
            ValueError: if they differ in shape.
        """
        if len(image) != len(masked) or image.shape[1:] != (masked.shape[1] - 1, *masked.shape[2:]):
            raise ValueError(
                f"{self.inputs[1]} is {tuple(masked.shape)} beside images of {tuple(image.shape)}: expected "
                "the images' shape with one more channel"
            )
        visible = (masked[:, -1:] > 0).expand_as(image)
        self.add((image.double() - masked[:, :-1].double()).square()[visible], len(image))

    def compute(self) -> Float[Tensor, ""]:
        """Error over all processes, a float64 scalar in [0, 2]; 0 where nothing could be seen.

        Raises:
            ValueError: If there is no sample altogether.
        """
        self.count_samples(self.num_seen)
        return (self.squared_error / self.num_values.clamp(min=1)).sqrt()
