"""An extra modality of MT-Diffusion: how it is encoded, aggregated, shown, read and weighed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed

from mmdiffusion.diffusion.buffers import ExactBuffers
from mmdiffusion.diffusion.schedules import DriftSchedule
from mmdiffusion.masks import PatchMask
from mmdiffusion.methods.checks import check_entries, check_shares
from mmdiffusion.nn.encoders import Encoder, Mean, Shape, Value, as_mean
from mmdiffusion.nn.heads import Head, HeadShape, Output, is_categorical, mean_of, surprise, value_of
from mmdiffusion.nn.modalities import Image
from mmdiffusion.nn.states import Teller
from mmdiffusion.numbers import check_number
from mmdiffusion.types import Batch, DataSpec, LabelSpec, MaskedSpec, Spec

NUM_BINS = 20
"""Of the time, each with a residual variance of its own."""
MEMORY = 0.99
"""Of the running residual variance, a step."""


@dataclass(frozen=True)
class Extra:
    """Settings of an extra modality.

    Args:
        encoder: How it enters the diffusion space; fixed.
        head: How it is read off the denoiser.
        drift: How its encoding is aggregated over time.
        weight: lambda, weight of its cross-entropy or squared error (0.1 in the paper).
        absent_share: Share of training samples where it is neither aggregated nor shown.
        shown_share: Share of training samples where it is aggregated and shown; the rest have it hidden.
        in_context: Show a label to cross-attention as well (choice 3 of the paper's encoders).
        mask: Makes it in training, from the image; `None` takes it from the batch.
    """

    encoder: Callable[[Spec, Shape], Encoder]
    head: Callable[[HeadShape], Head]
    drift: DriftSchedule
    weight: float = 0.1
    absent_share: float = 0.2
    shown_share: float = 0.2
    in_context: bool = False
    mask: PatchMask | None = None


class ExtraModality(ExactBuffers):
    """One extra modality at work.

    Attributes:
        channels: Where its encoding is in the diffusion space; set by the method.

    Args:
        name: Its name in a batch.
        data: The data, which has it.
        extra: Its settings.
        shape: Channels, height and width of the image.

    Raises:
        ValueError: if the data lacks it, or a setting is out of range.
    """

    variance: Tensor
    head: Head

    def __init__(self, name: str, data: DataSpec, extra: Extra, shape: Shape) -> None:
        super().__init__()
        if name not in data or name == "image":
            raise ValueError(
                f"extras has {name!r}: expected a modality of the data beside the image, it has {', '.join(data)}"
            )
        check_shares(name, extra.absent_share, extra.shown_share, extra.weight)
        if extra.mask is not None:
            extra.mask.check(shape[1:])
        self.name, self.spec, self.weight, self.mask = name, data[name], extra.weight, extra.mask
        self.absent_share, self.shown_share = extra.absent_share, extra.shown_share
        self.encoder = extra.encoder(self.spec, shape)
        self.teller = Teller(self.spec, shape[1], extra.in_context)
        self.channels = slice(0, shape[0])
        self.register_buffer("variance", torch.ones(NUM_BINS))

    @property
    def is_hidden_at_times(self) -> bool:
        """Whether training hides it, so that it can be drawn together with the image."""
        return self.absent_share + self.shown_share < 1 - 1e-6

    @property
    def has_own_map(self) -> bool:
        """Whether channels of the space are its own, which the denoiser reads and puts out as pictures."""
        return self.encoder.own_channels > 0 and not self.encoder.is_vector

    def is_in(self, batch: Batch) -> bool:
        """Whether a batch has it; all do where it is made from the image."""
        return self.mask is not None or self.name in batch

    def read_batch(self, batch: Batch, size: int, generator: torch.Generator) -> Value:
        """Its values in training: from the batch, or made from the image; zeros where the batch does not have it.

        Args:
            batch: The batch.
            size: Its samples.
            generator: Source of masks.

        Raises:
            ValueError: if it is made from the image, and the batch has none.
        """
        if not self.is_in(batch):
            shape, is_class = self.encoder.mean_shape, is_categorical(self.spec)
            dtype = torch.long if is_class else torch.float
            return torch.zeros(size, *shape[is_class:], dtype=dtype, device=generator.device)
        source = self.name if self.mask is None else "image"
        check_entries(batch, [source], self.name)
        value = batch[source]
        assert isinstance(value, Tensor)
        return value if self.mask is None else self.mask(value, generator)

    def draw_states(
        self, batch: Batch, size: int, generator: torch.Generator
    ) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
        """Which samples of a training batch have it shown, and which have it nowhere: all, if the batch has it not.

        States are drawn in any case, so that what is drawn after them does not depend on what a batch has.

        Args:
            batch: The batch.
            size: Its samples.
            generator: Source of the states.
        """
        state, is_there = torch.rand(size, generator=generator, device=generator.device), self.is_in(batch)
        return (state >= 1 - self.shown_share) & is_there, (state < self.absent_share) | (not is_there)

    def encode(self, value: Value) -> Image:
        """Encoding of known values."""
        return self.encoder(as_mean(value, self.spec)).detach()

    def expectation(self, output: Output) -> Image:
        """Mean encoding under what the head says: the posterior mean that a reverse step needs, not that of a guess."""
        return self.encoder(mean_of(output, self.spec))

    def loss(self, output: Output, value: Value) -> Float[Tensor, " b"]:
        """Cross-entropy or squared error of each sample."""
        return surprise(output, value, self.spec)

    def value(self, mean: Mean | Output) -> Value:
        """Its most probable value, from a head's output or mean."""
        return value_of(mean, self.spec)

    # The head as a distribution --------------------------------------------------------------------------------

    @torch.no_grad()
    def remember(self, loss: Float[Tensor, " b"], share: Float[Tensor, " b"], keep: Bool[Tensor, " b"]) -> None:
        """Follow the residual variance of a Gaussian head, by part of the time; with several processes, all of theirs.

        Args:
            loss: Squared errors of a training batch.
            share: t / T in (0, 1].
            keep: Samples that count: those whose modality is known and was put nowhere.
        """
        if is_categorical(self.spec):
            return
        counts = keep & loss.isfinite()  # one bad step must not spoil it for good
        part = torch.nn.functional.one_hot(bins(share), NUM_BINS).to(self.variance) * counts[:, None]
        squares = torch.where(counts, loss, 0).to(self.variance)
        seen = torch.stack([part.sum(0), (part * squares[:, None]).sum(0)])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(seen)
        count, total = seen
        mean = total / count.clamp(min=1)
        self.variance.copy_(torch.where(count > 0, torch.lerp(mean, self.variance, MEMORY), self.variance))

    def log_probability(self, output: Output, value: Value, share: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """log p(x | z_t) in nats as the head says, of all its numbers together; Gaussian with the residual variance.

        Args:
            output: The head's.
            value: Known values.
            share: t / T in (0, 1].
        """
        loss = self.loss(output, value)
        if isinstance(self.spec, LabelSpec):
            return -loss
        if is_categorical(self.spec):
            return -loss * value[0].numel()
        variance = self.variance[bins(share)].clamp(min=1e-6)
        return -output[0].numel() / 2 * (loss / variance + (2 * math.pi * variance).log())


def check_used(
    extras: Sequence[ExtraModality],
    *,
    image_weight: float,
    uncertainty: bool,
    paste_known: bool,
) -> None:
    """Check that settings about extra modalities have some to act on.

    Args:
        extras: Those of a model.
        image_weight: Weight of the image's loss; at 0 something else must train.
        uncertainty: Whether their losses are weighed by learned uncertainties.
        paste_known: Whether what is seen of a masked image is put back.

    Raises:
        ValueError: naming the setting.
    """
    check_number("image_weight", image_weight, least=0)
    if image_weight == 0 and not any(extra.weight > 0 and extra.absent_share > 0 for extra in extras):
        raise ValueError(
            "image_weight is 0: expected above 0, as no extra is read off images; or one whose weight and absent_share "
            "are above 0"
        )
    if uncertainty and not any(extra.weight > 0 for extra in extras):
        raise ValueError(
            "uncertainty is True: expected False, as no extra has a loss to weigh; add one whose weight is above 0"
        )
    if paste_known and not any(isinstance(extra.spec, MaskedSpec) and extra.shown_share > 0 for extra in extras):
        raise ValueError(
            "paste_known is True: expected False, as no masked image can be given; add one to extras, with shown_share "
            "above 0"
        )


def bins(share: Float[Tensor, " b"]) -> Tensor:
    """Part of the time that each t / T in (0, 1] is in (derived: even bins)."""
    return (share * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
