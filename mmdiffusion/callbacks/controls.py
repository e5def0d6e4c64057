"""Controls: samples that no model has drawn, measured like those of a draw, to read its figures by."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmdiffusion.callbacks.partners import REFERENCE
from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.data.dance import Dance
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import Batch, MaskedSpec, MusicSpec

_CLICK_HERTZ, _CLICK_HALF_LIFE = 1000.0, 0.005


class Control(ABC):
    """Samples made by a rule. Sample i stands beside the condition, and the real data, of the split's row i.

    Attributes:
        makes: Entries of a batch of samples.
    """

    makes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def check(self, data: DataModule) -> None:
        """Check, before any work, that samples can be made.

        Args:
            data: The data module.

        Raises:
            ValueError: naming what the data lack.
        """

    @abstractmethod
    def samples(self, data: DataModule, split: Split, indices: Sequence[int]) -> Batch:
        """The entries `makes` of samples, each a function of (split, index) alone.

        Args:
            data: The data module.
            split: Where their conditions come from.
            indices: Samples; beyond the split's rows its conditions are counted on from the start again.
        """

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """How samples are made, for the record of a figure."""


class ClickTrack(Control):
    """A click at a constant rate, the same for every sample: what rhythm metrics give to music that knows nothing.

    The first click comes after half a beat.

    Args:
        beats_per_minute: Rate, above 0 and at most 1000.
    """

    makes = ("music",)

    def __init__(self, beats_per_minute: int | float = 120) -> None:
        if not 0 < beats_per_minute <= 1000:
            raise ValueError(f"beats_per_minute is {beats_per_minute}: expected above 0 and at most 1000")
        self.beats_per_minute = beats_per_minute

    def check(self, data: DataModule) -> None:
        """Check that the data have music, and clips long enough for a click; see `Control`."""
        music = data.spec.get("music")
        if not isinstance(music, MusicSpec):
            raise ValueError(
                f"{type(data).__name__} has {', '.join(data.spec)}: ClickTrack expects data with music, such as Dance "
                "with audio: true"
            )
        seconds = music.num_samples / music.sample_rate
        if 30 / self.beats_per_minute >= seconds:
            raise ValueError(
                f"beats_per_minute is {self.beats_per_minute}: its first click would come after the {seconds:g} s of a "
                f"clip, expected above {30 / seconds:g}"
            )

    def samples(self, data: DataModule, split: Split, indices: Sequence[int]) -> Batch:
        """Clicks; see `Control`."""
        music, period = data.spec["music"], 60 / self.beats_per_minute
        assert isinstance(music, MusicSpec)
        since_first = torch.arange(music.num_samples, dtype=torch.float64) / music.sample_rate - period / 2
        since = since_first % period
        click = torch.sin(2 * torch.pi * _CLICK_HERTZ * since) * torch.exp2(-since / _CLICK_HALF_LIFE)
        return {"music": torch.where(since_first < 0, 0.0, click).float().expand(len(indices), -1)}

    def protocol(self) -> dict[str, Any]:
        """Name and rate; see `Control`."""
        return {"control": "ClickTrack", "beats_per_minute": self.beats_per_minute}


class AnotherPiece(Control):
    """Another piece composed for the same dance: its genre, tempo and phase, the rest drawn anew.

    In `Dance` nothing but genre, tempo and phase connects music and dance, so this is the best a model can do: an upper
    bound of every metric that compares with the true piece.
    """

    makes = ("music_tokens", "music")

    def check(self, data: DataModule) -> None:
        """Check that the data can compose; see `Control`."""
        if not isinstance(data.source, Dance):
            raise ValueError(f"{type(data).__name__} composes no music: AnotherPiece expects Dance")

    def samples(self, data: DataModule, split: Split, indices: Sequence[int]) -> Batch:
        """Pieces, as tokens and rendered; see `Control`."""
        dance = data.source
        assert isinstance(dance, Dance)
        tokens = dance.other_pieces(split, indices)
        return {"music_tokens": tokens, "music": dance.codec.render(tokens)}

    def protocol(self) -> dict[str, Any]:
        """Name; see `Control`."""
        return {"control": "AnotherPiece"}


class MaskedInput(Control):
    """What can be seen of a masked image, middle grey where it is hidden: what restoring nothing scores."""

    makes = ("image",)

    def check(self, data: DataModule) -> None:
        """Check that the data have masked images; see `Control`."""
        if not isinstance(data.spec.get("masked"), MaskedSpec):
            raise ValueError(
                f"{type(data).__name__} has {', '.join(data.spec)}: MaskedInput expects data with masked, such as "
                "Digits with mask_share, or ImageNet with num_masked"
            )

    def samples(self, data: DataModule, split: Split, indices: Sequence[int]) -> Batch:
        """Masked images without the channel that says where; see `Control`."""
        masked = data.rows(split, indices, ["masked"])["masked"]
        assert isinstance(masked, Tensor)
        return {"image": masked[:, :-1]}

    def protocol(self) -> dict[str, Any]:
        """Name; see `Control`."""
        return {"control": "MaskedInput"}


def readers(
    control: Control,
    metrics: Sequence[SampleMetric],
    data: DataModule,
    givable: Sequence[str],
) -> list[SampleMetric]:
    """Metrics that read something of a control's, and nothing that does not stand beside it.

    Args:
        control: The control.
        metrics: Which metrics to consider.
        data: The data module, which has the real data beside it.
        givable: Names of the modalities that are conditions.
    """
    entries = {*control.makes, *givable, *(REFERENCE + name for name in data.spec), "index"}
    return [metric for metric in metrics if set(metric.inputs) & set(control.makes) and set(metric.inputs) <= entries]


def check_controls(
    controls: dict[str, Control],
    metrics: Sequence[SampleMetric],
    data: DataModule,
    givable: Sequence[str],
) -> None:
    """Check controls against the data and the metrics, before any work starts.

    Args:
        controls: Controls by name.
        metrics: What is measured.
        data: The data module.
        givable: Names of the modalities that are conditions.

    Raises:
        ValueError: naming the control, and what the data lack, or that nothing would be measured.
    """
    for name, control in controls.items():
        try:
            control.check(data)
        except ValueError as error:
            raise ValueError(f"controls.{name}: {error}") from error
        if not readers(control, metrics, data, givable):
            raise ValueError(
                f"controls.{name} makes {' and '.join(control.makes)}, which no metric reads: expected one that does, "
                "such as BeatFMeasure for music, or no such control"
            )
