"""Controls: columns that no model draws, what they are made of, and what they are measured beside."""

import json

import pytest
import torch

from mmdiffusion.callbacks import AnotherPiece, ClickTrack, Control, Draw, Evaluate, MaskedInput
from mmdiffusion.data import Dance, Digits
from mmdiffusion.methods.base import Method
from mmdiffusion.metrics import BeatFMeasure, JudgedAccuracy, OnsetPeaks, TokenJudge
from mmdiffusion.metrics.base import SampleMetric
from tests.helpers import Oracle, Pictures, PixelJudge, build_trainer, check

RATE = 22050
DRAWS = {"dance": Draw(["motion", "label"])}


@pytest.fixture(scope="module")
def data():
    return Dance(batch_size=4, num_train=20, seconds=2.0, audio=True)


def beats(tolerance=0.07):
    return BeatFMeasure(OnsetPeaks(RATE), tolerance)


# Click track ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [60, 120, 150.5])
def test_clicks_come_at_their_rate_and_are_all_heard(data, rate):
    audio = ClickTrack(rate).samples(data, "test", range(3))["music"]
    assert isinstance(audio, torch.Tensor)
    assert audio.shape == (3, 44100)
    assert torch.equal(audio[0], audio[2])
    assert 0.7 < audio.max() <= 1
    expected = torch.arange(30 / rate, 2, 60 / rate, dtype=torch.float64)
    (found,) = OnsetPeaks(RATE)(audio[:1])
    assert len(found) == len(expected)
    assert ((found - expected > -0.01) & (found - expected < 0.05)).all()
    assert not audio[0, : int(30 / rate * RATE)].any()


@pytest.mark.parametrize("rate", [0, -120, 1001, float("nan")])
def test_a_rate_out_of_range_is_named(rate):
    with pytest.raises(ValueError, match=f"beats_per_minute is {rate}: expected above 0 and at most 1000"):
        ClickTrack(rate)


# Masked input --------------------------------------------------------------------------------------------------


def test_a_masked_input_is_the_image_where_it_can_be_seen_and_grey_elsewhere():
    data, rows = Digits(mask_share=0.5), [3, 0, 360]
    made, real = MaskedInput().samples(data, "test", rows)["image"], data.rows("test", rows)
    is_seen = real["masked"][:, -1:].bool()
    torch.testing.assert_close(made, real["image"] * is_seen)
    assert is_seen.float().mean() == 0.5


def test_without_masks_there_is_no_masked_input():
    with pytest.raises(ValueError, match=r"Digits has image.*: MaskedInput expects data with masked"):
        MaskedInput().check(Digits())


# Another piece -------------------------------------------------------------------------------------------------


def test_another_piece_has_the_rhythm_of_the_true_one_and_other_notes(data):
    made = AnotherPiece().samples(data, "test", range(60))
    true = data.rows("test", range(60))
    tokens = made["music_tokens"]
    assert isinstance(tokens, torch.Tensor)
    assert torch.equal(made["music"], data.codec.render(tokens))
    differs = tokens != true["music_tokens"]
    assert differs.any(1).float().mean() > 0.8, "two choices a voice may fall together"
    same, other, shuffled = beats(), beats(), beats()
    same.update(true["music"], true["music"])
    other.update(made["music"], true["music"])
    shuffled.update(made["music"], true["music"].roll(7, 0))
    assert float(same.compute()) == 1
    assert 0.8 < float(other.compute()) < 0.97
    assert float(shuffled.compute()) < 0.6


def test_a_piece_is_a_function_of_its_split_and_index(data):
    before = torch.get_rng_state()
    pieces = data.other_pieces("test", [3, 7])
    assert torch.equal(data.other_pieces("test", [7])[0], pieces[1])
    assert torch.equal(Dance(num_train=5, seconds=2.0).other_pieces("test", [3])[0], pieces[0])
    assert not torch.equal(data.other_pieces("val", [3])[0], pieces[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_beyond_the_split_a_dance_has_yet_another_piece(data):
    size = data.num_rows("val")
    first, further = data.other_pieces("val", range(20)), data.other_pieces("val", range(size, size + 20))
    assert (first != further).any(1).float().mean() > 0.8
    rhythm, song = beats(), data.codec.render
    rhythm.update(song(further), song(first))
    assert float(rhythm.compute()) > 0.8


# In the table --------------------------------------------------------------------------------------------------


class Silent(Method):
    """Draws silence for a dance."""

    def __init__(self):
        entries = {"givable": ("motion", "label"), "drawable": ("music",), "makes": ("music_tokens", "music")}
        super().__init__(torch.optim.SGD, warmup_steps=0, seed=0, **entries)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def losses(self, batch, generator):
        return {"loss": self.weight.square().sum()}

    def sample(self, condition, *, seeds, drawn=None, steps=None, guidance=None):
        tokens = torch.zeros(len(seeds), 40, dtype=torch.int64)
        return {
            **condition,
            "music_tokens": tokens,
            "music": torch.zeros(len(seeds), 44100),
            "index": torch.tensor(seeds),
        }

    def protocol(self):
        return {"sampler": "none"}


class Seen(SampleMetric):
    """Keeps what it is shown; its value is the number of clips whose label is that of the row of their index."""

    inputs = ("music", "reference_music", "motion", "label", "index")

    def __init__(self):
        super().__init__()
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")
        self.batches = []

    def name(self):
        return "seen"

    def protocol(self):
        return {"num_samples": int(self.count)}

    def update(self, *values):
        self.batches.append(values)
        self.count += (values[3] == values[4] % 10).sum()

    def compute(self):
        return self.count


def measure(folder, data, metrics, num_samples=20, batch_size=7):
    controls: dict[str, Control] = {"another piece": AnotherPiece(), "clicks": ClickTrack(120)}
    callback = Evaluate(metrics, DRAWS, num_samples, batch_size, controls)
    build_trainer(folder, callback).test(Silent(), datamodule=data, verbose=False)
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def few(data, monkeypatch):
    """The same data with 20 test clips: a table of 400 takes long to hear."""
    monkeypatch.setitem(data.sizes, "test", 20)
    monkeypatch.setattr(data, "_splits", {})
    return data


def test_controls_are_columns_beside_the_draws(few, tmp_path, capsys):
    metrics = [beats(), JudgedAccuracy(TokenJudge(), "music_tokens")]
    heard, judged = measure(tmp_path, few, metrics).values()
    assert set(heard) == {"dance", "another piece", "clicks", "real", "shuffled"}
    assert set(judged) == {"dance", "another piece", "real", "shuffled"}, "clicks have no tokens to judge"
    values = {name: figure["value"] for name, figure in heard.items()}
    assert values["dance"] == 0 < values["clicks"] < values["another piece"] < values["real"] == 1
    assert values["another piece"] > 0.8
    assert heard["clicks"]["num_samples"] == 20
    assert heard["clicks"]["made"] == {"control": "ClickTrack", "beats_per_minute": 120, "split": "test"}
    assert heard["another piece"]["made"] == {"control": "AnotherPiece", "split": "test"}
    header = next(line for line in capsys.readouterr().out.splitlines() if "metric" in line)
    assert [header.index(name) for name in ("dance", "another piece", "clicks", "real", "shuffled")] == sorted(
        header.index(name) for name in ("dance", "another piece", "clicks", "real", "shuffled")
    )
    other = measure(tmp_path, few, [beats()], batch_size=3)
    assert other["beat_f1[onset-70ms]"]["another piece"] == heard["another piece"], "the batch size plays no part"


def test_a_control_stands_beside_its_own_row_and_counts_on(few, tmp_path):
    seen = Seen()
    figures = measure(tmp_path, few, [seen], num_samples=25)["seen"]
    assert figures["another piece"]["value"] == figures["clicks"]["value"] == 25
    music, reference, motion, _, index = (torch.cat(parts) for parts in zip(*seen.batches[-8:-4], strict=True))
    rows = few.rows("test", range(25))
    assert torch.equal(index, torch.arange(25))
    assert torch.equal(reference, rows["music"])
    assert torch.equal(motion, rows["motion"])
    assert torch.equal(music, AnotherPiece().samples(few, "test", range(25))["music"])


# Mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classify", "real", "shuffled", "dance", "dance, shuffled"])
def test_a_control_with_the_name_of_another_column_is_refused(name):
    with pytest.raises(ValueError, match=f"controls has the name {name}: expected another"):
        Evaluate([beats()], DRAWS, controls={name: ClickTrack()})


def check_control(data, control, *metrics):
    check(Evaluate(list(metrics), DRAWS, controls={"clicks": control}), Silent(), data)


def test_what_the_data_cannot_give_is_named(data):
    without = Dance(num_train=5, seconds=2.0)
    with pytest.raises(ValueError, match=r"controls.clicks: Dance has motion, label, .*expects data with music.*audio"):
        check_control(without, ClickTrack(), beats())
    with pytest.raises(
        ValueError, match=r"controls.clicks: beats_per_minute is 10: its first click .*the 2 s.*above 15"
    ):
        check_control(data, ClickTrack(10), beats())


def test_a_control_that_no_metric_reads_is_named(data):
    with pytest.raises(
        ValueError, match=r"controls\.clicks makes music, which no metric reads: expected one that does"
    ):
        check_control(data, ClickTrack(), JudgedAccuracy(TokenJudge(), "music_tokens"))
    without = Dance(num_train=5, seconds=2.0)
    with pytest.raises(ValueError, match=r"controls\.clicks makes music_tokens and music, which no metric reads"):
        check_control(without, AnotherPiece(), beats())  # it compares with the true music, which these data do not hold


@pytest.mark.parametrize("call", ["fit", "test"])
def test_a_mistake_is_found_before_any_work(tmp_path, call):
    controls: dict[str, Control] = {"other": AnotherPiece()}
    callback = Evaluate([JudgedAccuracy(PixelJudge())], {"conditional": Draw(["label"])}, controls=controls)
    trainer, method = build_trainer(tmp_path, callback, max_steps=1), Oracle()
    with pytest.raises(ValueError, match=r"controls\.other: Pictures composes no music: AnotherPiece expects Dance"):
        getattr(trainer, call)(method, datamodule=Pictures())
    assert trainer.global_step == 0
    assert not method.batch_sizes
