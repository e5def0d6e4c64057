"""Shapes: captioned scenes of coloured shapes, with combinations that no training scene shows. No download."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmdiffusion.data.base import Arrays, DataModule, Split
from mmdiffusion.data.scenes import ABSENT, SCENE, SIDE, Looks, describe, draw
from mmdiffusion.seeding import SampleNoise, stream_seed
from mmdiffusion.types import Batch, DataSpec, ImageSpec, LabelSpec, SegmentationSpec, TextSpec

HeldOut = Literal["combinations", "pairs"]
PAIRS = tuple(f"{colour} {shape}" for shape in SCENE.shapes for colour in SCENE.colours)
"""Shapes in their colours, in the order of the labels."""
_ALONE = torch.cartesian_prod(*(torch.arange(len(names)) for names in SCENE.names))
COMBINATIONS = tuple(describe(_ALONE[:, None]))
"""Captions of all scenes with one object, in the order of their classes."""
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_PAIRS_OF = {
    "val": ("green circle", "red square", "magenta triangle", "cyan diamond", "blue cross"),
    "test": ("blue circle", "yellow square", "red triangle", "green diamond", "magenta cross"),
}
"""What only this split shows where pairs are held out; each colour and each shape is in other company elsewhere."""

_NUM_VAL, _NUM_TEST = 500, 1000
_SCENES = 0
"""Seed of the scenes."""
_CHUNK = 1000
"""Scenes made at a time, which bounds the memory this takes."""


class Shapes(DataModule):
    """Scenes of one or two coloured shapes and the captions that describe them, made up.

    Half of the scenes show one object, half two; an object is a circle, square, triangle, diamond or cross in one of
    six colours and two sizes in a corner of the picture. Place within the corner, exact size and the grey of the
    background vary and are nowhere in the caption. Of the 240 combinations of shape, colour, size and corner, 160 are
    in training scenes, 40 are kept for validation and 40 for test: a scene of these splits shows one combination of its
    own and, where there is a second object, one that training shows as well. So no caption of validation or test occurs
    in training. `held_out` says whether a kept combination is new as a whole, while each two of its attributes occur
    together in training, or whether its shape never had its colour, which is much harder.

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
        held_out: What validation and test show and training never does: `combinations` of all four attributes, or
            `pairs` of shape and colour, in every size and corner.
        seed: Seed of the order of the training scenes; the scenes are always the same.
    """

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        num_train: int = 10_000,
        held_out: HeldOut = "combinations",
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if num_train < 1:
            raise ValueError(f"num_train is {num_train}: expected at least 1")
        self.home = home(held_out)
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
            chunks = [_columns(name, self.home, range(i, min(i + _CHUNK, size))) for i in range(0, size, _CHUNK)]
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


def home(held_out: HeldOut) -> Int[Tensor, " combinations"]:
    """The split that shows each combination as its own: 0 training, 1 validation, 2 test.

    Whole combinations are dealt out by a Latin square: for each shape, size and corner one of the six colours is
    validation's and one is test's, and for each shape and colour no more than two of eight sizes and corners.
    """
    shape, colour, size, position = _ALONE.unbind(1)
    if held_out == "combinations":
        deal = (shape + colour + 3 * size + position) % len(SCENE.colours)
        return torch.where(deal < 2, deal + 1, 0)
    number = {PAIRS.index(pair): _SPLITS.index(split) for split, pairs in _PAIRS_OF.items() for pair in pairs}
    return torch.tensor([number.get(pair, 0) for pair in range(len(PAIRS))])[shape * len(SCENE.colours) + colour]


def choose(split: Split, home: Int[Tensor, " combinations"], uniform: Float[Tensor, "b 4"]) -> Int[Tensor, "b 2 4"]:
    """Attributes of the objects: one combination of the split's own, and in half of the scenes one of training's.

    The two objects differ in shape or colour, and in position; their order is random.

    Args:
        split: Training, validation or test.
        home: The split of each combination, by number.
        uniform: (b, 4) numbers in [0, 1).

    Returns:
        (b, 2, 4) shape, colour, size and position; -1 for an absent second object.
    """
    num_objects, order, own, other = uniform.unbind(1)
    first = _pick(own, (home == _SPLITS.index(split)).expand(len(own), -1))
    is_near = (_ALONE[first, None, 3] == _ALONE[:, 3]) | (_ALONE[first, None, :2] == _ALONE[:, :2]).all(-1)
    second = _pick(other, (home == 0) & ~is_near)
    attributes = _ALONE[torch.stack([first, second], 1)]
    is_single = num_objects < 0.5
    attributes[is_single, 1] = ABSENT
    return torch.where((~is_single & (order < 0.5))[:, None, None], attributes.flip(1), attributes)


def _columns(split: Split, home: Int[Tensor, " combinations"], indices: range) -> dict[str, Tensor]:
    uniform = SampleNoise(stream_seed(_SCENES, f"shapes/{split}", 0), indices).uniform((11,))
    attributes = choose(split, home, uniform[:, :4])
    looks = 2 * uniform[:, 4:10] - 1
    image, segmentation = draw(attributes, Looks(looks[:, :4].unflatten(1, (2, 2)), looks[:, 4:], uniform[:, 10]))
    return {"image": image, "attributes": attributes, "segmentation": segmentation}


def _pick(uniform: Float[Tensor, " b"], allowed: Bool[Tensor, "b k"]) -> Int[Tensor, " b"]:
    """One of the allowed numbers of each row, all as likely; `clamp`: a product just below the count may round up."""
    count = allowed.sum(1)
    return (allowed.cumsum(1) > (uniform * count).long().clamp(max=count - 1)[:, None]).int().argmax(1)
