"""Shapes: captioned scenes of coloured shapes, with combinations that no training scene shows. No download."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.data.base import Arrays, DataModule, Split
from mmdiffusion.data.scenes import ABSENT, SCENE, SIDE, Looks, describe, draw
from mmdiffusion.seeding import SampleNoise, stream_seed
from mmdiffusion.types import Batch, DataSpec, ImageSpec, LabelSpec, SegmentationSpec, TextSpec

HELD_OUT = {
    "val": ("green circle", "red square", "magenta triangle", "cyan diamond", "blue cross"),
    "test": ("blue circle", "yellow square", "red triangle", "green diamond", "magenta cross"),
}
"""What only this split shows; each colour and each shape is in other company elsewhere."""
PAIRS = tuple(f"{colour} {shape}" for shape in SCENE.shapes for colour in SCENE.colours)
"""Shapes in their colours, in the order of the labels."""
_ALONE = torch.cartesian_prod(*(torch.arange(len(names)) for names in SCENE.names))[:, None]
COMBINATIONS = tuple(describe(_ALONE))
"""Captions of all scenes with one object, in the order of their classes."""
SEEN = tuple(pair for pair in PAIRS if not any(pair in held for held in HELD_OUT.values()))
"""What training scenes show."""

_NUM_VAL, _NUM_TEST = 500, 1000
_SCENES = 0
"""Seed of the scenes."""
_CHUNK = 1000
"""Scenes made at a time, which bounds the memory this takes."""


class Shapes(DataModule):
    """Scenes of one or two coloured shapes and the captions that describe them, made up.

    Half of the scenes show one object, half two; an object is a circle, square, triangle, diamond or cross in one of
    six colours and two sizes in a corner of the picture. Place within the corner, exact size and the grey of the
    background vary and are nowhere in the caption. Of the 30 pairs of shape and colour, 20 are in training scenes, 5
    are kept for validation and 5 for test: a scene of these splits shows one pair of its own and, where there is a
    second object, a pair that training shows as well. So no caption of validation or test occurs in training.

    A batch holds `image` (b 3 32 32, in [-1, 1]), `caption` ("a large red circle at the top left and a small blue
    square at the bottom right"), `label` (b, shape and colour of the object named first: other labels mean other
    captions), `combination` (b, the class of a scene with one object among all 240 such captions, -1 for two objects),
    `attributes` (b 2 4: shape, colour, size and position, in the order of the caption, -1 for an absent
    second object), `segmentation` (b 32 32: 0 for the background, 1 + shape) and `index` (b). Scene i of a split is a
    function of (split, i). Validation has 500 scenes and test 1,000.

    Args:
        batch_size: Scenes per training step and process, at least 1.
        eval_batch_size: Scenes per batch in validation, test and prediction, at least 1.
        num_train: Training scenes, at least 1.
        seed: Seed of the order of the training scenes; the scenes are always the same.
    """

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        num_train: int = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if num_train < 1:
            raise ValueError(f"num_train is {num_train}: expected at least 1")
        self.sizes: dict[Split, int] = {"train": num_train, "val": _NUM_VAL, "test": _NUM_TEST}
        self._splits: dict[Split, PackedScenes] = {}

    @property
    def spec(self) -> DataSpec:
        """Colour pictures of 32 pixels a side, captions of up to 17 words out of 21, and what they are made of."""
        words = ("a", "at", "the", "and", *SCENE.sizes, *SCENE.colours, *SCENE.shapes)
        places = dict.fromkeys(word for position in SCENE.positions for word in position.split())
        return {
            "image": ImageSpec(channels=3, size=SIDE),
            "caption": TextSpec(max_words=8 * SCENE.num_objects + 1, vocabulary=(*words, *places)),
            "label": LabelSpec(len(PAIRS), PAIRS),
            "combination": LabelSpec(len(COMBINATIONS), COMBINATIONS),
            "attributes": SCENE,
            "segmentation": SegmentationSpec(("background", *SCENE.shapes), SIDE),
        }

    def split(self, name: Split) -> "PackedScenes":
        """One split; every process makes the same, at the first call."""
        if name not in self._splits:
            size = self.sizes[name]
            chunks = [_columns(name, range(i, min(i + _CHUNK, size))) for i in range(0, size, _CHUNK)]
            columns = {key: torch.cat([chunk[key] for chunk in chunks]) for key in chunks[0]}
            self._splits[name] = PackedScenes(columns)
        return self._splits[name]

    def columns(self, name: Split) -> Batch:
        """All values of a split by modality, unpacked: 123 MB of pictures for 10,000 scenes."""
        return unpack(super().columns(name))


class PackedScenes(Arrays):
    """Scenes that keep pictures and maps in bytes, an eighth to a quarter of what a batch holds.

    Args:
        columns: Modality name to values; `caption` and `label` are made from `attributes`.
    """

    def __init__(self, columns: dict[str, Tensor]) -> None:
        attributes = columns["attributes"]
        shape, colour, size, position = attributes[:, 0].unbind(1)
        label = shape * len(SCENE.colours) + colour
        combination = (label * len(SCENE.sizes) + size) * len(SCENE.positions) + position
        is_alone = attributes[:, 1, 0] == ABSENT
        named = {"label": label, "combination": torch.where(is_alone, combination, -1)}
        super().__init__({**columns, **named, "caption": describe(attributes)})

    def __getitem__(self, index: int) -> dict:
        """One sample."""
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch at once, unpacked."""
        return unpack(super().__getitems__(indices))


def unpack(batch: Batch) -> Batch:
    """Pictures in [-1, 1] as float32 and maps as int64, from bytes."""
    image, segmentation = batch["image"], batch["segmentation"]
    assert isinstance(image, Tensor)
    assert isinstance(segmentation, Tensor)
    return batch | {"image": image.float() / 127.5 - 1, "segmentation": segmentation.long()}


def choose(split: Split, uniform: Float[Tensor, "b 8"]) -> Int[Tensor, "b 2 4"]:
    """Attributes of the objects: one pair of shape and colour of the split's own, and in half of the scenes a seen one.

    The two objects differ in shape or colour, and in position; their order is random.

    Args:
        split: Training, validation or test.
        uniform: (b, 8) numbers in [0, 1).

    Returns:
        (b, 2, 4) shape, colour, size and position; -1 for an absent second object.
    """
    num_objects, order, own, other, *sizes, place, step = uniform.unbind(1)
    pools = [_numbers(HELD_OUT.get(split, SEEN)), _numbers(SEEN)]
    first = _pick(own, len(pools[0]))
    another = (first + 1 + _pick(other, len(SEEN) - 1)) % len(SEEN)  # in one pool, any but the first
    second = another if split == "train" else _pick(other, len(SEEN))
    position = _pick(place, len(SCENE.positions))
    positions = [position, (position + 1 + _pick(step, len(SCENE.positions) - 1)) % len(SCENE.positions)]
    attributes = torch.stack(
        [
            torch.stack([pair // len(SCENE.colours), pair % len(SCENE.colours), _pick(size, len(SCENE.sizes)), at], 1)
            for pair, size, at in zip([pools[0][first], pools[1][second]], sizes, positions, strict=True)
        ],
        dim=1,
    )
    is_single = num_objects < 0.5
    attributes[is_single, 1] = ABSENT
    return torch.where((~is_single & (order < 0.5))[:, None, None], attributes.flip(1), attributes)


def _columns(split: Split, indices: range) -> dict[str, Tensor]:
    uniform = SampleNoise(stream_seed(_SCENES, f"shapes/{split}", 0), indices).uniform((15,))
    attributes = choose(split, uniform[:, :8])
    looks = 2 * uniform[:, 8:14] - 1
    image, segmentation = draw(attributes, Looks(looks[:, :4].unflatten(1, (2, 2)), looks[:, 4:], uniform[:, 14]))
    return {"image": image, "attributes": attributes, "segmentation": segmentation}


def _pick(uniform: Float[Tensor, " b"], count: int) -> Int[Tensor, " b"]:
    """Numbers from 0 to `count - 1`; `clamp` as a product just below `count` may round up to it."""
    return (uniform * count).long().clamp(max=count - 1)


def _numbers(pairs: tuple[str, ...]) -> Int[Tensor, " k"]:
    return torch.tensor([PAIRS.index(pair) for pair in pairs])
