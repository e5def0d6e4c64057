"""Pictures on disk: grids while training, one file a sample in predict."""

import wave

import pytest
import torch
from PIL import Image
from pretty_midi import PrettyMIDI
from torchvision.transforms.functional import pil_to_tensor

from mmdiffusion.callbacks import EMA, Draw, LogSamples
from mmdiffusion.callbacks.samples import write_samples
from mmdiffusion.codecs import SymbolicMusic
from mmdiffusion.data import Dance, Digits
from mmdiffusion.data.digits import NAMES
from mmdiffusion.types import LabelSpec
from tests.helpers import Oracle, Pictures, PixelJudge, build_trainer, picture

DRAWS = {"conditional": Draw(["label"]), "joint": Draw([])}
ZOOM = 8
"""640 pixels over ten columns of eight."""


def fitted(folder, *, num_samples=20, every_n_steps=2, **settings):
    callback = LogSamples(DRAWS, num_samples, every_n_steps)
    defaults = {"max_steps": 4, "val_check_interval": 1}
    build_trainer(folder, callback, **defaults | settings).fit(Oracle(), datamodule=Pictures())
    return sorted(path.name for path in (folder / "samples").iterdir())


def cells(path, columns=10):
    """The samples of a grid at their own size, in [-1, 1]."""
    grid = pil_to_tensor(Image.open(path).convert("L")).float()[0] / 127.5 - 1
    side = 8 * ZOOM + 2
    rows = (grid.shape[0] - 2) // side
    starts = [(2 + r * side, 2 + c * side) for r in range(rows) for c in range(columns)]
    return torch.stack([grid[y : y + 8 * ZOOM : ZOOM, x : x + 8 * ZOOM : ZOOM] for y, x in starts])


def test_a_number_of_validation_batches_limits_the_samples(tmp_path):
    for limit, expected in ((1, 10), (1.0, 20)):
        fitted(tmp_path / str(limit), limit_val_batches=limit)
        assert len(cells(tmp_path / str(limit) / "samples" / "step-000004-joint.png")) == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fitted(folder)
    return folder


def test_grids_come_every_n_steps_and_once_at_the_end(folder, tmp_path):
    names = sorted(path.name for path in (folder / "samples").iterdir())
    assert names == [f"step-00000{step}-{kind}.png" for step in (2, 4) for kind in ("conditional", "joint")]
    assert fitted(tmp_path, every_n_steps=3, val_check_interval=2)[:2] == [
        "step-000004-conditional.png",
        "step-000004-joint.png",
    ]


def test_a_grid_without_validation_is_written_at_the_end(tmp_path):
    names = fitted(tmp_path, limit_val_batches=0)
    assert names == ["step-000004-conditional.png", "step-000004-joint.png"]


@pytest.mark.parametrize("kind", ["conditional", "joint"])
def test_size_of_a_grid(folder, kind):
    with Image.open(folder / "samples" / f"step-000004-{kind}.png") as grid:
        assert grid.size == (10 * (8 * ZOOM + 2) + 2, 2 * (8 * ZOOM + 2) + 2)


def test_a_grid_with_given_labels_has_one_column_a_class(folder):
    images = cells(folder / "samples" / "step-000004-conditional.png")
    assert PixelJudge().predict(images).tolist() == list(range(10)) * 2


def test_a_grid_with_drawn_labels_is_sorted_by_them(folder):
    read = PixelJudge().predict(cells(folder / "samples" / "step-000004-joint.png")).tolist()
    assert read == sorted(read)
    assert len(set(read)) == 10


def test_a_last_row_need_not_be_full(tmp_path):
    fitted(tmp_path, num_samples=7, max_steps=2)
    with Image.open(tmp_path / "samples" / "step-000002-conditional.png") as grid:
        assert grid.size[1] == 8 * ZOOM + 4


def test_predict_writes_each_sample_by_index_and_label(tmp_path):
    trainer = build_trainer(tmp_path, LogSamples(DRAWS), limit_predict_batches=2)
    trainer.predict(Oracle(), datamodule=Pictures(), return_predictions=False)
    paths = sorted((tmp_path / "samples" / "predict").iterdir())
    assert [path.name for path in paths] == [f"{i:05d}-label-{i % 10}.png" for i in range(20)]
    images = torch.stack([pil_to_tensor(Image.open(path).convert("L"))[0] for path in paths])
    assert images.shape == (20, 8, 8)
    assert PixelJudge().predict(images).tolist() == [i % 10 for i in range(20)]


def test_every_grid_shows_the_averaged_weights(tmp_path):
    ema, seen = EMA(decay=0.9, warmup=False), []

    class Watched(Oracle):
        def sample(self, *args, **kwargs):
            seen.append((self.weight.item(), ema._average["weight"].item()))
            return super().sample(*args, **kwargs)

    method = Watched()
    method.weight.data.fill_(5.0)
    settings = {"max_steps": 3, "limit_val_batches": 1, "val_check_interval": 1, "gradient_clip_val": 1.0}
    callbacks = (ema, LogSamples({"joint": Draw([])}, 4, 1))
    build_trainer(tmp_path, *callbacks, **settings).fit(method, datamodule=Pictures())
    assert len(seen) == 3
    assert all(shown == average for shown, average in seen)
    assert len(set(seen)) == 3


def test_music_comes_as_sound_and_notes(tmp_path):
    data = Dance(num_train=10, seconds=2.0)
    tokens = data.columns("test")["music_tokens"][:3]

    class Player(Oracle):
        codec = SymbolicMusic(data.spec)

    batch = {"index": torch.arange(3), "label": torch.arange(3), "tokens": tokens, "music": Player.codec.decode(tokens)}
    write_samples(batch, tmp_path, "x-", Player())
    stems = [f"x-{i:05d}-label-{i}" for i in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(s + e for s in stems for e in (".mid", ".wav"))
    notes = [PrettyMIDI(str(tmp_path / f"{stem}.mid")) for stem in stems]
    assert torch.equal(Player.codec.codec.encode(notes), tokens)
    with wave.open(str(tmp_path / f"{stems[0]}.wav")) as file:
        assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (22050, 44100, 1)


class Reader(Oracle):
    """Draws for captions: a sample shows the label that its caption names."""

    def __init__(self):
        super().__init__()
        self.givable, self.drawable, self.makes = ("caption",), ("image",), ("image",)

    def sample(self, condition, *, seeds, drawn=None, steps=None, guidance=None):
        label = torch.tensor([NAMES.index(caption.split()[-1]) for caption in condition["caption"]])
        return {**condition, "image": picture(label), "index": torch.tensor(seeds)}


def test_captions_are_written_beside_what_was_drawn_for_them(tmp_path):
    callback = LogSamples({"read": Draw(["caption"])}, num_samples=15)
    trainer = build_trainer(tmp_path, callback, max_steps=1, limit_val_batches=0)
    trainer.fit(Reader(), datamodule=Digits(batch_size=8))
    trainer.predict(Reader(), datamodule=Digits(eval_batch_size=4), return_predictions=False)
    (grid,) = (tmp_path / "samples").glob("*.png")
    captions = grid.with_suffix(".txt").read_text().splitlines()
    assert captions == Digits().columns("test")["caption"][:15]
    read = PixelJudge().predict(cells(grid)).tolist()[:15]
    assert [NAMES[label] for label in read] == [caption.split()[-1] for caption in captions]
    assert (tmp_path / "samples" / "predict" / "00007.txt").read_text() == captions[7] + "\n"
    assert (tmp_path / "samples" / "predict" / "00007.png").exists()


def test_white_and_black_stay_white_and_black(folder):
    image = cells(folder / "samples" / "step-000004-conditional.png")
    assert image.max() == 1
    assert image.min() <= -0.79


@pytest.mark.parametrize("setting", ["num_samples", "every_n_steps"])
def test_numbers_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting} is 0.*expected at least 1"):
        LogSamples(DRAWS, **{setting: 0})


def test_an_unknown_modality_is_named_before_training(tmp_path):
    trainer = build_trainer(tmp_path, LogSamples({"wrong": Draw(["lable"])}), max_steps=1, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"draws.wrong: given is 'lable': expected image or label from this model"):
        trainer.fit(Oracle(), datamodule=Pictures())
    assert trainer.global_step == 0


class ManyClasses(Pictures):
    """Forty classes, more than there are samples."""

    @property
    def spec(self):
        return super().spec | {"label": LabelSpec(40)}


def test_fewer_samples_than_classes_come_in_rows_of_ten(tmp_path):
    trainer = build_trainer(tmp_path, LogSamples(DRAWS, 20), max_steps=1, limit_val_batches=0)
    trainer.fit(Oracle(), datamodule=ManyClasses())
    for path in (tmp_path / "samples").iterdir():
        with Image.open(path) as grid:
            assert grid.size == (2 + 10 * (8 * ZOOM + 2), 2 + 2 * (8 * ZOOM + 2))
