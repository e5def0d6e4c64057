"""Feature hashing of captions against n-grams that are counted by hand."""

from hashlib import blake2b

import numpy as np
import pytest
import torch

from mmdiffusion.codecs import HashTower
from mmdiffusion.codecs.text import hashed_runs
from mmdiffusion.types import LabelSpec, TextSpec

SPEC = {"caption": TextSpec(7)}
CAPTIONS = ["a red circle", "a blue square and a red circle", "square", "red red red"]
FIELDS = ("tokens", "mask", "summary")


def build(**settings):
    return HashTower(SPEC, **{"width": 16} | settings)


def naive(caption, width=16, max_ngram=3, num_buckets=16_384, seed=0):
    """Tokens (words, width) and summary (width,) of one caption, run by run."""
    rows = torch.randn(num_buckets, width, generator=torch.Generator().manual_seed(seed)).double().numpy()
    words, tokens = caption.lower().split(), []
    for last in range(len(words)):
        token = np.zeros(width)
        for length in range(1, max_ngram + 1):
            if length <= last + 1:
                run = " ".join(words[last + 1 - length : last + 1])
                number = int(blake2b(run.encode(), digest_size=8).digest()[::-1].hex(), 16)
                token += rows[number // 2 % num_buckets] * (-1 if number % 2 else 1)
        tokens.append(token)
    total = np.sum(tokens, axis=0)
    return [token / np.sqrt(np.mean(token**2)) for token in tokens], total / np.linalg.norm(total)


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_ngram": 1}, {"max_ngram": 2, "seed": 3}, {"max_ngram": 9}, {"num_buckets": 5, "width": 24}],
)
def test_tokens_and_summaries_are_sums_over_runs_of_words(settings):
    text = build(**settings)(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        tokens, summary = naive(caption, **settings)
        np.testing.assert_allclose(text.tokens[row, : len(tokens)], tokens, atol=1e-5)
        np.testing.assert_allclose(text.summary[row], summary, atol=1e-5)


def test_a_bucket_and_a_sign_of_a_run_are_fixed_for_good():
    assert hashed_runs(("red", "circle"), 2, 16_384) == ((0, 13446, -1), (1, 2186, 1), (1, 478, -1))


def test_tokens_have_variance_one_and_summaries_length_one():
    text = build(width=64)(CAPTIONS)
    torch.testing.assert_close(text.tokens.square().mean(-1), text.mask.float())
    torch.testing.assert_close(text.summary.norm(dim=-1), torch.ones(4))


def test_the_mask_tells_words_from_filling():
    text = build()(CAPTIONS)
    assert text.mask.tolist() == [[i < count for i in range(7)] for count in (3, 7, 1, 3)]
    assert text.tokens.shape == (4, 7, 16)
    assert not text.tokens[~text.mask].any()
    assert (build().width, build().summary_width, build().max_tokens) == (16, 16, 7)


def test_capitals_and_blanks_say_nothing():
    plain, other = build()(["a red circle"]), build()(["  A\tRed   CIRCLE\n"])
    assert all(torch.equal(getattr(plain, field), getattr(other, field)) for field in FIELDS)


def test_the_order_of_words_counts_by_runs_alone():
    captions = ["red circle blue square", "blue circle red square"]
    first, second = build()(captions).summary
    assert first @ second < 0.95
    first, second = build(max_ngram=1)(captions).summary
    torch.testing.assert_close(first, second)


def test_captions_that_share_words_are_nearer():
    near, far = (
        build(width=256)(["a red circle", "a red square", "some blue stars"]).summary[1:]
        @ (build(width=256)(["a red circle"]).summary[0])
    )
    assert near > 0.3
    assert abs(far) < 0.2


def test_a_caption_does_not_depend_on_the_others_of_its_batch():
    together, alone = build()(CAPTIONS), build()(CAPTIONS[1:2])
    assert all(torch.equal(getattr(together, field)[1:2], getattr(alone, field)) for field in FIELDS)


def test_two_constructions_read_the_same_and_another_seed_does_not():
    before = torch.get_rng_state()
    first, second, other = (build(seed=seed)(CAPTIONS) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
    assert all(torch.equal(getattr(first, field), getattr(second, field)) for field in FIELDS)
    assert not torch.allclose(first.summary, other.summary, atol=0.1)


def test_the_projection_is_in_no_checkpoint_and_trains_nothing():
    tower = build()
    assert tower.state_dict() == {}
    assert list(tower.parameters()) == []
    assert tower.to("meta").projection.is_meta, "it moves all the same"


def test_a_batch_of_no_captions_is_read():
    text = build()([])
    assert [tuple(part.shape) for part in text] == [(0, 7, 16), (0, 7), (0, 16)]


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("", "caption '' has 0 words: expected 1 to 7"),
        (" \t", "has 0 words: expected 1 to 7"),
        ("a " * 8, "has 8 words: expected 1 to 7"),
    ],
)
def test_a_caption_that_is_empty_or_too_long_is_named(caption, message):
    with pytest.raises(ValueError, match=message):
        build()(["a red circle", caption])


def test_data_without_captions_is_named():
    with pytest.raises(ValueError, match="spec has label: HashTower expects data with a caption"):
        HashTower({"label": LabelSpec(10)})


@pytest.mark.parametrize(
    ("settings", "found"),
    [({"width": 0}, "0, 3, 16384"), ({"max_ngram": 0}, "16, 0, 16384"), ({"num_buckets": -1}, "16, 3, -1")],
)
def test_impossible_sizes_are_named(settings, found):
    with pytest.raises(ValueError, match=f"width, max_ngram, num_buckets are {found}: expected above 0"):
        build(**settings)
