"""The data module: what a batch holds, and what it depends on."""

import pytest
import torch

from mmdiffusion.data import Dance
from mmdiffusion.data.rhythm import GENRES
from mmdiffusion.types import LabelSpec, MotionSpec, MusicSpec, TokenSpec

NAMES = ["index", "label", "motion", "music_tokens"]


@pytest.fixture(scope="module")
def dance():
    return Dance(batch_size=16, num_train=50, seconds=2.0)


def test_batch_fits_the_spec(dance):
    motion, tokens = MotionSpec(num_frames=120, num_joints=17, fps=60), TokenSpec(num_codes=216, grid=(40,))
    assert dance.spec == {"motion": motion, "label": LabelSpec(10, GENRES), "music_tokens": tokens}
    batch = next(iter(dance.train_dataloader()))
    assert sorted(batch) == NAMES
    assert batch["motion"].shape == (16, 120, 51)
    assert batch["motion"].dtype == torch.float32
    assert batch["music_tokens"].shape == (16, 40)
    assert batch["music_tokens"].dtype == batch["label"].dtype == torch.int64
    assert 0 <= batch["music_tokens"].min() <= batch["music_tokens"].max() < 216


def test_six_seconds_are_360_frames_and_120_tokens():
    spec = Dance().spec
    assert (spec["motion"].num_frames, spec["music_tokens"].grid) == (360, (120,))


def test_sizes(dance):
    assert [len(dance.split(name)) for name in ("train", "val", "test")] == [50, 200, 400]


def test_genres_come_in_turn(dance):
    assert torch.equal(dance.columns("test")["label"], torch.arange(400) % 10)
    assert torch.equal(dance.rhythm("test").genre, torch.arange(400) % 10)


def test_spec_is_read_back_from_a_checkpoint(tmp_path):
    spec = Dance(audio=True).spec
    torch.save(spec, tmp_path / "spec.ckpt")
    assert torch.load(tmp_path / "spec.ckpt", weights_only=True) == spec


# Determinism -----------------------------------------------------------------------------------------------------


def test_a_clip_is_a_function_of_split_and_index(dance):
    """Neither the global state, nor the number of clips, nor a split that was built before plays a part."""
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = Dance(num_train=170, seconds=2.0)
    again.split("val")
    columns, expected = again.columns("train"), dance.columns("train")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(columns["music_tokens"][:50], expected["music_tokens"])
    torch.testing.assert_close(columns["motion"][:50], expected["motion"], rtol=0, atol=1e-5)


def test_the_same_settings_give_the_same_bits(dance):
    again = Dance(num_train=50, seconds=2.0).columns("train")
    assert torch.equal(again["motion"], dance.columns("train")["motion"])


def test_the_seed_orders_clips_and_changes_none(dance):
    other = Dance(32, num_train=50, seconds=2.0, seed=1)
    assert torch.equal(other.columns("train")["music_tokens"], dance.columns("train")["music_tokens"])
    orders = [
        next(iter(data.train_dataloader()))["index"].tolist() for data in (other, Dance(32, num_train=50, seconds=2.0))
    ]
    assert orders[0] != orders[1]


def test_no_clip_is_in_two_splits(dance):
    rhythms = [dance.rhythm(name) for name in ("train", "val", "test")]
    phases = torch.cat([rhythm.phase for rhythm in rhythms])
    assert len(phases.unique()) == len(phases) == 650
    first = torch.cat([dance.columns(name)["motion"][:, 0] for name in ("train", "val", "test")])
    assert len(first.unique(dim=0)) == 650


def test_index_and_label_say_nothing_of_tempo_and_phase():
    rhythm = Dance(num_train=2000).rhythm("train")
    for values in (rhythm.tempo, rhythm.phase):
        for lag in (1, 2, 5, 10):
            assert torch.stack([values[lag:], values[:-lag]]).corrcoef()[0, 1].abs() < 0.2
    not_house = rhythm.genre != GENRES.index("house")
    assert torch.stack([rhythm.genre[not_house].float(), rhythm.tempo[not_house]]).corrcoef()[0, 1].abs() < 0.1


# Audio -----------------------------------------------------------------------------------------------------------


def test_audio_is_rendered_from_the_tokens():
    dance = Dance(batch_size=4, num_train=10, seconds=2.0, audio=True)
    assert dance.spec["music"] == MusicSpec(num_samples=44100, sample_rate=22050)
    batch = next(iter(dance.train_dataloader()))
    assert sorted(batch) == sorted([*NAMES, "music"])
    assert torch.equal(batch["music"], dance.codec.render(batch["music_tokens"]))
    assert 0.3 < batch["music"].abs().amax(1).min() <= batch["music"].abs().max() <= 1
    assert "music" not in dance.columns("train")


def test_one_sample_equals_a_row_of_a_batch():
    split = Dance(num_train=10, seconds=2.0, audio=True).split("train")
    sample, batch = split[3], split.__getitems__([7, 3])
    assert sorted(sample) == sorted(batch)
    assert all(torch.equal(sample[name], batch[name][1]) for name in sample)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        ({"num_train": 0}, "num_train is 0: expected at least 1"),
        ({"seconds": 0.02}, "seconds is 0.02: expected at least 0.75, a beat of the slowest tempo"),
        ({"seconds": 0.7}, "seconds is 0.7: expected at least 0.75"),
        ({"seconds": float("nan")}, "seconds is nan: expected at least 0.75"),
        ({"seconds": 1.02}, "seconds is 1.02: expected a multiple of 0.05, one token"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Dance(**options)
