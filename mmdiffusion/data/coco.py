"""MS-COCO: photographs, and about five captions of each."""

from pathlib import Path
from typing import Literal

from mmdiffusion.data.coco_index import SITE, Photographs
from mmdiffusion.data.layout import existing_folder, first_folder, say_counts
from mmdiffusion.data.pairs import EvalCaptions, PairDataModule, Pairs, Part

Year = Literal[2014, 2017]
PUBLISHED: dict[int, dict[Part, dict[str, int]]] = {
    2014: {"train": {"training pictures": 82_783}, "test": {"validation pictures": 40_504}},
    2017: {"train": {"training pictures": 118_287}, "test": {"validation pictures": 5000}},
}
_FOLDERS: dict[Part, str] = {"train": "train", "test": "val"}


class COCO(PairDataModule):
    """MS-COCO captions (Lin et al. 2014, Chen et al. 2015), of 2014 or 2017.

    `root` holds `annotations/captions_train2017.json` and `captions_val2017.json`, and the pictures in `train2017` and
    `val2017`, there or in `images`; folders that hold themselves, such as `train2014/train2014`, are looked through.
    Tests use the publisher's validation pictures, whose test pictures have no captions. A batch holds `image` (b 3 size
    size, in [-1, 1]), `caption` (list of str), `picture` (b, number of the picture in its split) and `index` (b).

    Training draws one of a picture's captions at each step, and a random crop from its middle. Nothing is mirrored:
    captions say left and right.

    Args:
        root: Folder with annotations and pictures.
        size: Height and width of the pictures in pixels.
        year: 2017 (118,287 and 5,000 pictures), or 2014 (82,783 and 40,504), which the papers use.
        num_val: Training pictures that are kept for validation, spread evenly; 0 validates on the test pictures.
        eval_captions: Captions of a picture in validation and test: its `first`, or `all`, each as one sample.
        max_words: Longest caption in words; a longer one loses its end.
        batch_size: Samples per step and process, at least 1.
        eval_batch_size: Samples per batch in validation, test and prediction, at least 1.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of samples that may be damaged or missing, in [0, 1).
        seed: Seed of the order of the training samples, of crops and of the choice of captions.
    """

    def __init__(
        self,
        root: str,
        size: int = 256,
        year: Year = 2017,
        num_val: int = 0,
        eval_captions: EvalCaptions = "first",
        max_words: int = 64,
        batch_size: int = 64,
        eval_batch_size: int = 100,
        num_workers: int = 2,
        max_bad_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            size,
            num_val,
            eval_captions,
            max_words,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            max_bad_fraction=max_bad_fraction,
            seed=seed,
        )
        self.root, self.year = root, year
        self.places = {part: find_part(root, f"{_FOLDERS[part]}{year}", year) for part in ("train", "test")}

    def pairs(self, part: Part) -> Pairs:
        """Pictures and captions of one part; see `PairDataModule`."""
        photographs = Photographs(*self.places[part], self.max_bad_fraction)
        published = PUBLISHED[self.year][part]
        say_counts(f"COCO at {self.root}", dict.fromkeys(published, len(photographs)), published)
        return photographs


def find_part(root: str, name: str, year: Year) -> tuple[Path, Path]:
    """Pictures and captions of one part.

    Args:
        root: Folder that the user names.
        name: The publisher's name of the part, such as train2017.
        year: Its year.

    Returns:
        The folder of pictures, and the file of captions.

    Raises:
        ValueError: naming what is missing, and where it is offered.
    """
    folder = existing_folder(root, f"annotations and {name}")
    pictures = first_folder((folder, folder / "images"), (name,))
    inner = folder / f"annotations_trainval{year}"
    annotations = first_folder((folder, inner), ("annotations",)) or folder / "annotations"
    captions = annotations / f"captions_{name}.json"
    if pictures is None:
        raise ValueError(f"{folder / name} is missing: expected the pictures of {name}.zip, from {SITE}")
    if not captions.is_file():
        raise ValueError(
            f"{captions} is missing: expected the captions of {name}, in annotations_trainval{year}.zip from {SITE}"
        )
    return pictures, captions
