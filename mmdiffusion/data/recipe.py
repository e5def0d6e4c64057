"""What a cache holds of a batch, and where it is."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.codecs.image_tower import ImageTower
from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.data.probe import varying
from mmdiffusion.types import Batch, DataSpec, FeatureSpec, ImageSpec


@dataclass(frozen=True)
class Recipe:
    """How batches are turned into what is stored.

    Args:
        encoders: What encodes entries that the method reads.
        features: What makes further entries of the image, by their name.
        needed: Entries that are kept although they are encoded.
    """

    encoders: Sequence[Encoder]
    features: dict[str, ImageTower]
    needed: Sequence[str]

    @property
    def replaced(self) -> list[str]:
        """Entries of a batch that are not stored, because nobody reads them once they are encoded."""
        return [part.reads for part in self.encoders if part.replaces and part.reads not in self.needed]

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What encodes, to be known again."""
        return {
            "encoders": {part.reads: _named(part) for part in self.encoders},
            "features": {name: _named(tower) for name, tower in self.features.items()},
            "replaced": self.replaced,
        }

    def columns(self, stored: Batch, batch: Batch) -> Batch:
        """What is stored of a batch.

        Args:
            stored: The batch as its split hands it out, pixels in bytes.
            batch: The same as methods take it, where the networks are.
        """
        columns = {name: values for name, values in stored.items() if name not in self.replaced}
        for part in self.encoders:
            columns |= part.stored(batch)
        for name, tower in self.features.items():
            image = batch["image"]
            assert isinstance(image, Tensor)
            columns[name] = tower.parts(image)["summary"] * math.sqrt(tower.summary_width)
        return {name: values.cpu() if isinstance(values, Tensor) else values for name, values in columns.items()}


class Cache:
    """A data set that frozen networks have encoded once, by `mmdiffusion prepare`; a training reads it instead.

    Args:
        folder: Its folder; `None` for none.
        encoded: Entries that are stored as the method's frozen networks encode them, such as `image`; `None` for all
            that it has networks for. The others are encoded at every step.
        features: Further entries of the data by name: vectors that a frozen tower makes of the image, times the root
            of their width, so that their numbers have about unit variance.
        views: Draws that are stored of each training sample, where crops or captions are drawn at random; a training
            takes them in turn, epoch by epoch.
        shard_rows: Rows of a file, at least 1: the work that an interruption loses at most.
    """

    def __init__(
        self,
        folder: str | None = None,
        encoded: list[str] | None = None,
        features: dict[str, ImageTower] = {},  # noqa: B006 - read only, and `--help` shows it
        views: int = 1,
        shard_rows: int = 1024,
    ) -> None:
        for name, value in (("views", views), ("shard_rows", shard_rows)):
            if value < 1:
                raise ValueError(f"cache.{name} is {value}: expected at least 1")
        if features and folder is None:
            raise ValueError(
                f"cache.features has {', '.join(features)}, cache.folder is None: expected a folder, which "
                "`mmdiffusion prepare` fills"
            )
        self.folder, self.encoded, self.features = folder, encoded, features
        self.views, self.shard_rows = views, shard_rows

    def describe(self, spec: DataSpec) -> DataSpec:
        """The modalities of the data and of the features.

        Args:
            spec: Those of the data.

        Raises:
            ValueError: if the data have a modality of this name, or no image.
        """
        for name in self.features:
            if name in spec or not isinstance(spec.get("image"), ImageSpec):
                raise ValueError(
                    f"cache.features has {name!r}: expected a name that is new to the data, and data with an image; "
                    f"they have {', '.join(spec)}"
                )
        return spec | {name: FeatureSpec((tower.summary_width,)) for name, tower in self.features.items()}

    def recipe(self, encoders: Sequence[Encoder], needed: Sequence[str]) -> Recipe:
        """What is stored for a method.

        Args:
            encoders: Its frozen networks.
            needed: Entries that it reads beside what they make of them.

        Raises:
            ValueError: if `encoded` names an entry that it does not encode.
        """
        possible = [part.reads for part in encoders]
        for name in self.encoded or ():
            if name not in possible:
                choices = " or ".join(possible) or "nothing"
                raise ValueError(f"cache.encoded has {name!r}: expected {choices}, which the method encodes")
        chosen = [part for part in encoders if self.encoded is None or part.reads in self.encoded]
        return Recipe(chosen, self.features, needed)


def described(data: DataModule, split: Split) -> dict[str, Any]:
    """A split in plain values, to be known again."""
    return {
        "class": type(data).__name__,
        "split": split,
        "rows": data.num_rows(split),
        "drawn at random": varying(data, split),
        "spec": json.loads(json.dumps({name: asdict(part) for name, part in data.spec.items()})),
    }


def _named(encoder: Encoder) -> dict[str, str]:
    return {"class": type(encoder).__name__, "identity": encoder.identity()}
