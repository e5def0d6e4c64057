"""CUB-200-2011: birds of 200 species, and ten captions of each."""

from mmdiffusion.data.cub_index import NUM_CLASSES, PUBLISHED, Birds, Division, Places
from mmdiffusion.data.layout import say_counts
from mmdiffusion.data.pairs import EvalCaptions, PairDataModule, Pairs, Part
from mmdiffusion.types import DataSpec, LabelSpec


class CUB(PairDataModule):
    """Caltech-UCSD Birds-200-2011 (Wah et al. 2011), with the captions of Reed et al. 2016.

    `root` holds `CUB_200_2011/images`, or `images`, beside `text`, and the lists of a split; folders that hold
    themselves, such as `text/text`, are looked through. A batch holds `image` (b 3 size size, in [-1, 1]), `caption`
    (list of str), `label` (b, the species), `picture` (b, number of the picture in its split) and `index` (b).

    Training draws one of a picture's captions at each step, and a random crop from its middle. Nothing is mirrored:
    captions say left and right.

    Args:
        root: Folder with pictures, captions and lists.
        size: Height and width of the pictures in pixels.
        division: Lists that divide training and test: `species` are those of AttnGAN, which the papers use and in
            which a species is in one of them only; `official` are those of the pictures' authors.
        around_bird: Cut to a square around the bird's box, half as large again, as StackGAN and AttnGAN do; CDCD shows
            the whole picture.
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
        division: Division = "species",
        around_bird: bool = False,
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
        self.places, self.division, self.around_bird = Places(root), division, around_bird
        self.names = {part: self.places.names(division, part) for part in ("train", "test")}
        found = {what: len(names) for what, names in zip(PUBLISHED[division], self.names.values(), strict=True)}
        say_counts(f"CUB at {root}", found, PUBLISHED[division])

    @property
    def spec(self) -> DataSpec:
        """RGB pictures, captions of any words, and 200 species."""
        return super().spec | {"label": LabelSpec(NUM_CLASSES, self.places.classes())}

    def pairs(self, part: Part) -> Pairs:
        """Pictures and captions of one part; see `PairDataModule`."""
        boxes = self.places.boxes() if self.around_bird else None
        return Birds(self.places, self.names[part], boxes, self.max_bad_fraction)
