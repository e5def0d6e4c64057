"""Dance and music belong together, and only by what can be seen and heard.

The judges are other libraries: librosa hears onsets, SciPy finds where a dancer slows down, scikit-learn reads genres.
Each figure stands beside its control, in which every dance is given the music of another.
"""

import librosa
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import argrelmin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmdiffusion.data import Dance

TOLERANCE = 0.07
NUM_CLIPS = 400


@pytest.fixture(scope="module")
def dance():
    return Dance(num_train=600)


@pytest.fixture(scope="module")
def test_columns(dance):
    return dance.columns("test")


@pytest.fixture(scope="module")
def speeds(test_columns):
    """(clips, frames - 1) mean speed of the joints in m/s."""
    positions = test_columns["motion"].unflatten(2, (17, 3))
    return (positions.diff(dim=1).norm(dim=-1).mean(dim=-1) * 60).numpy()


@pytest.fixture(scope="module")
def kinematic_beats(speeds):
    smooth = gaussian_filter1d(speeds, 3, axis=1)
    return [(argrelmin(speed)[0] + 0.5) / 60 for speed in smooth]


@pytest.fixture(scope="module")
def beats(dance):
    """Beats on which the music of each clip was written."""
    times = dance.rhythm("test").time(torch.arange(20.0))
    return [row[(row >= 0) & (row < 6)].numpy() for row in times]


@pytest.fixture(scope="module")
def shuffle():
    return torch.randperm(NUM_CLIPS, generator=torch.Generator().manual_seed(0)).tolist()


def f_measure(found, expected):
    """Greedy from the left, which is optimal for sorted times and one tolerance."""
    i = j = hits = 0
    while i < len(found) and j < len(expected):
        if abs(found[i] - expected[j]) <= TOLERANCE:
            i, j, hits = i + 1, j + 1, hits + 1
        elif found[i] < expected[j]:
            i += 1
        else:
            j += 1
    return 2 * hits / (len(found) + len(expected))


def mean_f(found, expected):
    return np.mean([f_measure(a, b) for a, b in zip(found, expected, strict=True)])


def test_dancers_slow_down_on_the_beats_of_their_music(kinematic_beats, beats, shuffle):
    assert mean_f(kinematic_beats, beats) > 0.93
    assert mean_f(kinematic_beats, [beats[i] for i in shuffle]) < 0.3


@pytest.mark.parametrize("genre", range(10))
def test_they_do_in_every_genre(kinematic_beats, beats, genre):
    assert mean_f(kinematic_beats[genre::10], beats[genre::10]) > 0.85


def test_what_is_heard_is_what_the_tokens_say(dance, test_columns):
    """Ten clips of each genre would cost more than they tell: four do."""
    tokens = test_columns["music_tokens"][:40]
    written = [(row.nonzero().flatten().numpy() + 0.5) / 20 for row in tokens]
    heard = [librosa.onset.onset_detect(y=clip, sr=22050, units="time") for clip in dance.codec.render(tokens).numpy()]
    assert mean_f(heard, written) > 0.95
    assert mean_f(heard, written[10:] + written[:10]) < 0.75


def test_tempo_shows_in_the_motion(dance, speeds):
    """The tempo at whose beat, and twice, three and four times that, the speed repeats itself best."""
    tempi, truth = np.arange(80, 136, 5), dance.rhythm("test").tempo.numpy()
    centred = speeds - speeds.mean(axis=1, keepdims=True)
    frames = centred.shape[1]
    similarity = np.stack([(centred[:, : frames - lag] * centred[:, lag:]).mean(axis=1) for lag in range(200)])
    lags = 3600 / tempi[:, None] * np.arange(1, 5)
    scores = [[np.interp(row, range(200), clip).sum() for row in lags] for clip in similarity.T]
    assert np.mean(tempi[np.argmax(scores, axis=1)] == truth) > 0.98


# Genre -----------------------------------------------------------------------------------------------------------


def readability(features, dance):
    """Share of test clips whose genre a linear classifier of the training clips reads off the features."""
    train, test = dance.columns("train"), dance.columns("test")
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    judge.fit(features(train), train["label"].numpy())
    return judge.score(features(test), test["label"].numpy())


def poses(columns):
    """Mean and spread of every joint about the hips."""
    positions = columns["motion"].unflatten(2, (17, 3))
    centre = positions[:, :, 11:13].mean(dim=2, keepdim=True) * torch.tensor([1.0, 0.0, 1.0])
    relative = (positions - centre).flatten(2)
    return torch.cat([relative.mean(dim=1), relative.std(dim=1)], dim=1).numpy()


def codes(columns):
    """How often each code is played."""
    return torch.nn.functional.one_hot(columns["music_tokens"], 216).float().mean(dim=1).numpy()


def test_genre_shows_in_the_motion(dance):
    assert readability(poses, dance) > 0.97


def test_genre_is_heard_in_the_tokens(dance):
    assert readability(codes, dance) > 0.97


def test_pieces_differ_between_clips(test_columns):
    assert len(test_columns["music_tokens"].unique(dim=0)) > 0.98 * NUM_CLIPS
