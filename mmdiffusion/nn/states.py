"""What the denoiser is told of an extra modality: its value, or why it is missing."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmdiffusion.nn.encoders import Value, as_mean, mean_shape
from mmdiffusion.types import Condition, LabelSpec, Spec

WIDTH = 64
"""Of the vectors that tell values and states; the denoiser has a layer of its own behind their sum."""


class Told(NamedTuple):
    """What one modality tells the denoiser.

    Attributes:
        vector: One vector a sample.
        planes: Pictures that stand beside the noisy image; no channels for labels and vectors.
        tokens: Context tokens for cross-attention; no tokens but for labels that are told in context.
    """

    vector: Float[Tensor, "b d"]
    planes: Float[Tensor, "b p h w"]
    tokens: Float[Tensor, "b n d"]


class Teller(nn.Module):
    """Tells the denoiser of one modality, in one of three states.

    The network must be told *why* a value is missing: `hidden` (it was aggregated into z_t, but is not shown) and
    `absent` (it is nowhere) are different distributions of z_t. A state is a vector; a label shown is a vector of its
    own instead, a vector of features goes through one layer, and pictures stand beside the noisy image as they are.

    Args:
        spec: The modality.
        size: Pixels a side of the image; pictures and maps are spread over it.
        in_context: Tell a label as a context token as well, for cross-attention (arXiv 2407.17571, Fig. 3, choice 3).

    Raises:
        ValueError: if a picture's side does not divide the image's, or what is to be in context is no label.
    """

    def __init__(self, spec: Spec, size: int, in_context: bool = False) -> None:
        super().__init__()
        shape = mean_shape(spec)
        self.spec, self.is_picture = spec, len(shape) == 3
        if self.is_picture and size % shape[1]:
            raise ValueError(f"spec has {spec}: expected a side that divides the image's, {size}")
        if in_context and not isinstance(spec, LabelSpec):
            raise ValueError(f"in_context has {spec}: expected a label")
        self.num_planes = shape[0] if self.is_picture else 0
        self.factor = size // shape[1] if self.is_picture else 1
        self.size, self.in_context = size, in_context
        self.hidden = nn.Parameter(torch.randn(WIDTH))
        self.absent = nn.Parameter(torch.randn(WIDTH))
        self.value: nn.Module | None = None
        if isinstance(spec, LabelSpec):
            self.value = nn.Embedding(spec.num_classes, WIDTH)
        elif not self.is_picture:
            self.value = nn.Linear(shape[0], WIDTH)
        else:
            self.shown = nn.Parameter(torch.randn(WIDTH))

    def forward(self, value: Value, is_shown: Bool[Tensor, " b"], is_absent: Bool[Tensor, " b"]) -> Told:
        """Tell values where they are shown, and the states of the others.

        Args:
            value: Values of the modality; where they are not shown, any.
            is_shown: Which samples are told the value.
            is_absent: Which of the others have it nowhere; the rest have it hidden.
        """
        own = self.shown if self.value is None else self.value(value)
        vector = torch.where(is_shown[:, None], own, torch.where(is_absent[:, None], self.absent, self.hidden))
        planes = torch.zeros(len(vector), 0, self.size, self.size, device=vector.device)
        if self.is_picture:
            mean = as_mean(value, self.spec).to(vector.dtype) * is_shown[:, None, None, None]
            planes = mean.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return Told(vector, planes, vector[:, None] if self.in_context else vector[:, None][:, :0])

    def unknown(self, batch_size: int, *, is_absent: bool) -> Told:
        """The state of samples that are all hidden, or all absent.

        Args:
            batch_size: Samples.
            is_absent: Nowhere, instead of aggregated and not shown.
        """
        vector = (self.absent if is_absent else self.hidden).expand(batch_size, -1)
        planes = torch.zeros(batch_size, self.num_planes, self.size, self.size, device=vector.device)
        return Told(vector, planes, vector[:, None] if self.in_context else vector[:, None][:, :0])


def together(told: Sequence[Told]) -> tuple[Condition, Float[Tensor, "b p h w"] | None]:
    """What several modalities tell: the sum of the vectors, all tokens, all planes.

    Args:
        told: Of each modality.

    Returns:
        The condition, without tokens where there are none; and the planes. Nothing at all of no modality.
    """
    if not told:
        return Condition(), None
    tokens = torch.cat([one.tokens for one in told], dim=1)
    vector = torch.stack([one.vector for one in told]).sum(0)
    planes = torch.cat([one.planes for one in told], dim=1)
    return Condition(vector, tokens if tokens.shape[1] else None), planes
