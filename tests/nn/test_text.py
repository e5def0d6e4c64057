"""Captions as the denoiser reads them: words and their order, filling, what is trained, what is dropped."""

import pytest
import torch

from mmdiffusion.nn import Denoiser, Level, WordConditioner
from mmdiffusion.nn.text import mean_word
from mmdiffusion.types import Condition, LabelSpec, TextSpec

WORDS = ("a", "red", "blue", "circle", "square", "and")
SPEC = {"caption": TextSpec(7, WORDS)}
CAPTIONS = ["a red circle", "a blue square and a red circle", "square"]
FIELDS = ("vector", "tokens", "mask")


def build(spec=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WordConditioner(spec or SPEC, **{"width": 16, "depth": 2, "heads": 2, "vector_width": 8} | settings)


def read(*captions, **settings):
    return build(**settings)({"caption": list(captions)})


def test_a_token_a_word_a_mask_and_a_vector():
    condition = read(*CAPTIONS)
    assert condition.tokens.shape == (3, 7, 16)
    assert condition.vector.shape == (3, 8)
    assert condition.mask.sum(1).tolist() == [3, 7, 1]
    assert build().reads == ("caption",)
    assert (build().width, build().context_width) == (8, 16)


def test_numbers_are_those_of_the_vocabulary():
    ids, mask = build().tokenize(["a  blue square", "and and red"])
    assert ids.tolist() == [[1, 3, 5, 0, 0, 0, 0], [6, 6, 2, 0, 0, 0, 0]]
    assert torch.equal(mask, ids > 0)
    assert ids.dtype == torch.int64


def test_filling_changes_nothing():
    """A conditioner for longer captions with the same weights reads the same."""
    short, long = build(), build({"caption": TextSpec(12, WORDS)})
    weights = short.state_dict() | {"positions": torch.randn(12, 16, generator=torch.Generator().manual_seed(1))}
    long.load_state_dict(weights)
    short.load_state_dict(weights | {"positions": weights["positions"][:7]})
    known = {"caption": CAPTIONS}
    ours, theirs = short(known), long(known)
    torch.testing.assert_close(ours.vector, theirs.vector)
    for row, count in enumerate([3, 7, 1]):
        torch.testing.assert_close(ours.tokens[row, :count], theirs.tokens[row, :count])


def test_a_caption_does_not_depend_on_the_others_of_its_batch():
    together, alone = read(*CAPTIONS), read(CAPTIONS[1])
    for field in FIELDS:
        torch.testing.assert_close(getattr(together, field)[1:2], getattr(alone, field))


def test_every_word_sees_every_other():
    before, after = read("a red circle"), read("a red square")
    changed = (before.tokens - after.tokens).abs().amax(2)[0] > 1e-6
    assert changed[:3].all()
    before, after = read("a red circle"), read("circle red a")
    assert not torch.allclose(before.vector, after.vector, atol=1e-4), "order counts"


def test_without_layers_a_token_is_its_word_in_its_place():
    conditioner = build(depth=0)
    tokens = conditioner({"caption": ["blue a"]}).tokens[0, :2]
    expected = conditioner.norm(conditioner.words.weight[[3, 1]] + conditioner.positions[:2])
    torch.testing.assert_close(tokens, expected)


def test_the_mean_counts_words_only():
    tokens = torch.arange(12.0).reshape(1, 3, 4)
    assert mean_word(tokens, torch.tensor([[True, True, False]])).tolist() == [[2.0, 3.0, 4.0, 5.0]]


def test_a_dropped_caption_looks_like_none():
    conditioner, known = build(), {"caption": CAPTIONS}
    dropped = conditioner(known, torch.tensor([False, True, False]))
    shown, null = conditioner(known), conditioner.null(1)
    assert torch.as_tensor(null.mask).tolist() == [[True] + [False] * 6]
    for field in FIELDS:
        assert torch.equal(getattr(dropped, field)[1], getattr(null, field)[0])
        assert torch.equal(getattr(dropped, field)[[0, 2]], getattr(shown, field)[[0, 2]])


def test_filling_leaves_no_trace_in_a_prediction():
    """A denoiser given the words alone predicts what one given the filled-up caption does."""
    condition = read("a red circle")
    words = Condition(condition.vector, condition.tokens[:, :3])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser((4,), 3, 3, 8, 16, None, levels=[Level(16, 1, 2)])
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        noisy, time = torch.randn(1, 4, 3), torch.tensor([0.3])
    torch.testing.assert_close(denoiser(noisy, time, condition).prediction, denoiser(noisy, time, words).prediction)


def test_gradients_reach_every_weight_and_every_word_in_use():
    conditioner = build()
    condition = conditioner({"caption": CAPTIONS}, torch.tensor([False, False, True]))
    generator = torch.Generator().manual_seed(0)
    sum((part * torch.randn(part.shape, generator=generator)).sum() for part in condition[:2]).backward()
    dead = [name for name, p in conditioner.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead
    assert torch.as_tensor(conditioner.words.weight.grad).any(1).tolist() == [False] + [True] * 6


def test_a_batch_of_no_captions_is_read():
    assert read().tokens.shape == (0, 7, 16)


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a green circle", "caption 'a green circle' has the word 'green': expected some of a, red, blue, circle"),
        ("A circle", "caption 'A circle' has the word 'A'"),
        ("", "caption '' has 0 words: expected 1 to 7"),
        ("a " * 8, "has 8 words: expected 1 to 7"),
    ],
)
def test_a_caption_of_other_words_is_named(caption, message):
    with pytest.raises(ValueError, match=message):
        read("a red circle", caption)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spec": {"label": LabelSpec(10)}}, "spec has label: expected data with a caption"),
        ({"spec": {"caption": TextSpec(10)}}, "caption has no vocabulary: expected data that names its words"),
        ({"heads": 3}, "width is 16: expected a multiple of heads, which is 3"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
