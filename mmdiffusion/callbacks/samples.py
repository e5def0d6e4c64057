"""LogSamples: writes what the model draws as picture and music files."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchvision.utils import make_grid, save_image

from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.callbacks.draws import Conditions, Draw, check_draws, draw_samples, num_within
from mmdiffusion.callbacks.shown import shown
from mmdiffusion.codecs import SymbolicMusic, write_midi, write_wav
from mmdiffusion.data.base import DataModule
from mmdiffusion.methods.base import Method
from mmdiffusion.sharding import gathered
from mmdiffusion.types import Batch, LabelSpec

GRID_PIXELS = 640
"""Side of a picture of many samples, at most."""


class LogSamples(CheckedCallback):
    """Writes samples into the run's `samples/` while it trains, and each sample into files of its own in `predict`.

    Pictures come in grids: with a given label one column a class, if there are as many samples as classes, with a drawn
    label sorted by it. Music comes as
    `.wav` and, where the method's codec knows notes, as `.mid`. What belongs together stands side by side: what can be
    seen of a masked image, the image, its map of classes, its reconstruction. Captions that samples were drawn for are
    written beside them.

    Args:
        draws: Kinds of samples by name: what is given, the rest is drawn.
        num_samples: Samples of each kind: a grid of pictures, or so many pieces of music; fewer where
            `trainer.limit_val_batches` is a number of batches (of the data's `eval_batch_size`) that holds fewer.
        every_n_steps: Optimizer steps between them; some are written at the end in any case.
    """

    def __init__(self, draws: dict[str, Draw], num_samples: int = 100, every_n_steps: int = 1000) -> None:
        if num_samples < 1 or every_n_steps < 1:
            raise ValueError(
                f"num_samples is {num_samples}, every_n_steps is {every_n_steps}: expected at least 1 of each"
            )
        self.draws = draws
        self.num_samples = num_samples
        self.every_n_steps = every_n_steps
        self._last_step = 0

    @property
    def state_key(self) -> str:
        """One memory for each of several such callbacks."""
        return self._generate_state_key(draws=sorted(self.draws), every_n_steps=self.every_n_steps)

    def state_dict(self) -> dict[str, int]:
        """When it wrote last: a training that goes on writes at the same steps as one that was not stopped."""
        return {"last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Remember when it wrote last.

        Args:
            state_dict: What `state_dict` returned.
        """
        self._last_step = state_dict["last_step"]

    def check(self, trainer: Trainer, method: LightningModule, data: DataModule | None) -> None:
        """Check what is to be drawn; see `CheckedCallback`."""
        check_draws(self.draws, method)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write grids when enough steps have passed since the last; averaged weights are still in place here."""
        is_due = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if is_due and trainer.global_step >= self._last_step + self.every_n_steps:
            self._write_grids(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final grids."""
        if trainer.global_step != self._last_step:
            self._write_grids(trainer, pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write each predicted sample, named by its index and label."""
        assert isinstance(pl_module, Method)
        folder = Path(trainer.default_root_dir) / "samples" / "predict"
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(shown(outputs), folder, "", pl_module)

    def _write_grids(self, trainer: Trainer, method: LightningModule) -> None:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(method, Method)
        assert isinstance(data, DataModule)
        self._last_step = trainer.global_step
        with gathered(method):  # one process draws
            if trainer.is_global_zero:
                self._draw(trainer, method, data)

    def _draw(self, trainer: Trainer, method: Method, data: DataModule) -> None:
        num_samples, limit = self.num_samples, trainer.limit_val_batches
        if isinstance(limit, int) and limit > 0:  # a share of the validation split, or none of it, is about losses
            num_samples = num_within(num_samples, limit, data.eval_batch_size)
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in self.draws.items():
            given = Conditions(data, draw.given, "test")
            drawn = draw_samples(trainer, method, draw, given, range(num_samples), 250, f"drawing {name}")
            batches = [shown(batch) for batch in drawn]
            stem = f"step-{trainer.global_step:06d}-{name}"
            if "image" in batches[0]:
                label = data.spec.get("label")
                count = label.num_classes if "label" in batches[0] and isinstance(label, LabelSpec) else 10
                columns = count if count <= num_samples else 10
                save_grid(batches, folder / f"{stem}.png", columns, "label" in draw.given)
                if "caption" in draw.given:
                    captions = given.of(range(num_samples))["caption"]
                    (folder / f"{stem}.txt").write_text("".join(f"{caption}\n" for caption in captions))
            else:
                for batch in batches:
                    write_samples(batch, folder, f"{stem}-", method)


def write_samples(batch: Batch, folder: Path, prefix: str, method: Method) -> None:
    """Write each sample of a batch into files of its own.

    Args:
        batch: The samples.
        folder: Where to.
        prefix: Before the names of the files.
        method: Drew them.
    """
    index, label, image, music = (batch.get(name) for name in ("index", "label", "image", "music"))
    assert isinstance(index, Tensor)
    codec = getattr(method, "codec", None)
    rate = getattr(codec or method, "sample_rate", None)
    for i, number in enumerate(index.tolist()):
        stem = f"{prefix}{number:05d}" + ("" if label is None else f"-label-{int(label[i])}")
        if isinstance(image, Tensor):
            save_image(to_unit(image[i]), folder / f"{stem}.png")
        if isinstance(music, Tensor) and rate is not None:
            write_wav(folder / f"{stem}.wav", music[i], rate)
        if isinstance(music, Tensor) and isinstance(codec, SymbolicMusic):
            write_midi(folder / f"{stem}.mid", codec.notes(batch["tokens"][i : i + 1])[0])  # pyright: ignore
        if "caption" in batch:
            (folder / f"{stem}.txt").write_text(f"{batch['caption'][i]}\n")


def save_grid(batches: list[Batch], path: Path, columns: int, is_ordered: bool) -> None:
    """Write samples as one picture.

    Args:
        batches: The samples.
        path: PNG file.
        columns: Samples in a row.
        is_ordered: Keep their order; otherwise they are sorted by label, where they have one.
    """
    image = torch.cat([to_unit(b["image"]) for b in batches])  # pyright: ignore[reportArgumentType]
    if not is_ordered and "label" in batches[0]:
        image = image[torch.cat([b["label"] for b in batches]).argsort(stable=True).cpu()]  # pyright: ignore
    zoom = max(1, GRID_PIXELS // (columns * image.shape[-1]))
    image = image.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    save_image(make_grid(image, columns, padding=2, pad_value=0.5), path)


def to_unit(image: Tensor) -> Tensor:
    """Images in [-1, 1] as [0, 1] float32 on the CPU."""
    return ((image.float().cpu() + 1) / 2).clamp(0, 1)
