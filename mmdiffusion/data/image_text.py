"""Any pictures with captions, from the files that hold them."""

from abc import ABC, abstractmethod

from lightning.pytorch.utilities import rank_zero_info

from mmdiffusion.data.pairs import EvalCaptions, PairDataModule, Pairs, Part


class PairSource(ABC):
    """Where pictures and captions are; nothing is read before they are indexed."""

    @abstractmethod
    def index(self, max_bad_fraction: float) -> Pairs:
        """Find all pictures and captions.

        Args:
            max_bad_fraction: Share of samples that may be damaged or missing, in [0, 1).

        Raises:
            ValueError: naming what is missing or damaged, and the remedy.
        """


class ImageText(PairDataModule):
    """Pictures and captions of your own, or of a public set of pairs: a folder, a table or shards.

    A batch holds `image` (b 3 size size, in [-1, 1]), `caption` (list of str), `picture` (b, number of the picture in
    its split) and `index` (b). Where a picture has several captions, training draws one of them at each step; it also
    draws a random crop from the picture's middle. Nothing is mirrored: captions say left and right.

    Args:
        train: `PictureFolder`, `PictureTable` or `PictureShards` with the pairs for training.
        test: The same with pairs for tests; `None` for the pictures that are kept for validation.
        size: Height and width of the pictures in pixels.
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
        train: PairSource,
        test: PairSource | None = None,
        size: int = 256,
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
        if test is None and num_val == 0:
            raise ValueError("test is None and num_val is 0: expected one of them, to validate on")
        self.train, self.test, self.has_test = train, test, test is not None

    def pairs(self, part: Part) -> Pairs:
        """Pictures and captions of one part; see `PairDataModule`."""
        source = self.train if part == "train" else self.test
        assert source is not None
        pairs = source.index(self.max_bad_fraction)
        rank_zero_info(f"ImageText: {len(pairs):,} {part} pictures")
        return pairs
