"""Captions as the denoiser reads them: words and their order, filling, what is trained, what is dropped."""

import pytest
import torch

from mmdiffusion.nn import Denoiser, Level, TowerConditioner, WordConditioner
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


# Captions that a tower has read --------------------------------------------------------------------------------

COUNTS = (3, 7, 1)


def tower(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TowerConditioner(12, 7, **{"width": 16, "depth": 2, "heads": 2, "vector_width": 8} | settings)


def read_by_a_tower(seed=0):
    """Tokens of three captions, and what fills them up: numbers too, so that none is told by a zero."""
    tokens = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(seed))
    return {"caption_tokens": tokens, "caption_mask": torch.arange(7) < torch.tensor(COUNTS)[:, None]}


@pytest.mark.parametrize("depth", [0, 2])
def test_what_a_tower_read_becomes_a_vector_and_tokens(depth):
    conditioner, known = tower(depth=depth), read_by_a_tower()
    condition = conditioner(known)
    assert condition.tokens.shape == (3, 7, 16)
    assert condition.vector.shape == (3, 8)
    assert torch.equal(condition.mask, known["caption_mask"])
    assert conditioner.reads == ("caption_tokens", "caption_mask")
    assert (conditioner.width, conditioner.context_width) == (8, 16)


def test_without_layers_a_token_of_a_tower_is_projected_in_its_place():
    conditioner, known = tower(depth=0), read_by_a_tower()
    weight, bias = conditioner.enter.weight, conditioner.enter.bias
    entered = torch.stack([known["caption_tokens"][0, i] @ weight.T + bias for i in range(7)])
    expected = conditioner.norm(entered + conditioner.positions)
    torch.testing.assert_close(conditioner(known).tokens[0], expected)
    torch.testing.assert_close(conditioner(known).vector[0], conditioner.summary(expected[: COUNTS[0]].mean(0)))


def test_what_fills_up_a_tower_s_tokens_has_no_influence():
    conditioner, known = tower(), read_by_a_tower()
    mask, other = known["caption_mask"], read_by_a_tower(1)["caption_tokens"] * 100
    filled = conditioner(known | {"caption_tokens": torch.where(mask[..., None], known["caption_tokens"], other)})
    condition = conditioner(known)
    torch.testing.assert_close(filled.vector, condition.vector)
    torch.testing.assert_close(filled.tokens[mask], condition.tokens[mask])
    assert not torch.allclose(conditioner(known | {"caption_tokens": other}).vector, condition.vector, atol=0.1)


def test_every_token_of_a_tower_sees_every_other():
    conditioner, known = tower(), read_by_a_tower()
    changed = known["caption_tokens"].clone()
    changed[1, 6] += 1
    before, after = conditioner(known), conditioner(known | {"caption_tokens": changed})
    assert ((before.tokens - after.tokens)[1].abs().amax(1) > 1e-6).all()
    for row in (0, 2):
        torch.testing.assert_close(after.tokens[row], before.tokens[row])


def test_a_dropped_caption_of_a_tower_looks_like_none():
    conditioner, known = tower(), read_by_a_tower()
    dropped = conditioner(known, torch.tensor([False, True, False]))
    shown, null = conditioner(known), conditioner.null(2)
    assert torch.as_tensor(null.mask).tolist() == [[True] + [False] * 6] * 2
    for field in FIELDS:
        assert torch.equal(getattr(dropped, field)[1], getattr(null, field)[0])
        assert torch.equal(getattr(dropped, field)[1], getattr(null, field)[1])
        assert torch.equal(getattr(dropped, field)[[0, 2]], getattr(shown, field)[[0, 2]])


def test_gradients_reach_every_weight_behind_a_tower():
    conditioner = tower()
    condition = conditioner(read_by_a_tower(), torch.tensor([True, False, False]))
    generator = torch.Generator().manual_seed(0)
    sum((part * torch.randn(part.shape, generator=generator)).sum() for part in condition[:2]).backward()
    assert not [name for name, p in conditioner.named_parameters() if p.grad is None or not p.grad.any()]
    assert torch.as_tensor(conditioner.positions.grad).any(1).all()


def test_a_width_that_heads_do_not_divide_is_named_behind_a_tower_too():
    with pytest.raises(ValueError, match="width is 16: expected a multiple of heads, which is 3"):
        tower(heads=3)
