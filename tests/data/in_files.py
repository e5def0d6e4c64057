"""A data set that is read sample by sample, as from files, without any."""

import torch

from mmdiffusion.data.files import FileDataModule, Files
from mmdiffusion.types import ImageSpec, LabelSpec, TextSpec

SIZES = {"train": 23, "val": 10, "test": 11}
WORDS = ("a", "dark", "light", "picture")


class Painted(Files):
    """Row r is an image of its own, made from `look` and r; cropped where it is asked for."""

    def __init__(self, size, look, side, is_random, seed):
        super().__init__(size, 0.0, seed)
        self.look, self.side, self.is_random = look, side, is_random

    def read(self, row, generator):
        made = torch.Generator().manual_seed(1000 * self.look + row)
        image = torch.randint(256, (3, self.side + 4, self.side + 4), dtype=torch.uint8, generator=made)
        top, left = torch.randint(5, (2,), generator=generator).tolist() if self.is_random else (2, 2)
        caption = f"a {WORDS[1 + row % 2]} picture"
        return {"image": image[:, top : top + self.side, left : left + self.side], "label": row % 4, "caption": caption}


class InFiles(FileDataModule):
    """Painted pictures in three splits; only training crops them at random, if any does."""

    def __init__(
        self, batch_size: int = 8, num_workers: int = 0, side: int = 8, look: int = 0, is_random: bool = False, seed=0
    ):
        super().__init__(batch_size, 4, num_workers, 0.0, seed)
        self.side, self.look, self.is_random = side, look, is_random

    @property
    def spec(self):
        return {"image": ImageSpec(3, self.side), "label": LabelSpec(4), "caption": TextSpec(3, WORDS)}

    def files(self, name):
        is_random = self.is_random and name == "train"
        return Painted(SIZES[name], self.look * 3 + len(name), self.side, is_random, self.seed)
