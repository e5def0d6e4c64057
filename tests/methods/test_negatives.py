"""Negatives: the positive in another order, or samples of another class."""

import pytest
import torch

from mmdiffusion.methods import InterNegatives, IntraNegatives


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def places(size, length):
    """Tokens that are their own places."""
    return torch.arange(length).expand(size, -1)


# Another order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "chunks"), [(64, 8), (67, 8), (1033, 8), (4, 4), (5, 2)])
def test_no_chunk_keeps_its_place_and_no_token_is_lost(length, chunks):
    drawn = IntraNegatives(10, chunks)(places(6, length), None, generator())
    assert drawn.tokens.shape == (6, 10, length)
    assert torch.equal(drawn.tokens.sort(-1).values, torch.arange(length).expand(6, 10, -1))
    whole = length // chunks * chunks
    assert (drawn.tokens[..., :whole] != torch.arange(whole)).all()
    assert (drawn.tokens[..., whole:] == torch.arange(whole, length)).all()
    assert drawn.counts[..., :whole].all()
    assert not drawn.counts[..., whole:].any()
    steps = drawn.tokens[..., :whole].unflatten(-1, (chunks, -1)).diff(dim=-1)
    assert (steps == 1).all(), "a chunk stays whole"


def test_orders_differ_between_samples_and_negatives_and_repeat_with_the_seed():
    source, tokens = IntraNegatives(10), places(20, 64)
    drawn = source(tokens, None, generator()).tokens
    assert len(drawn.flatten(0, 1).unique(dim=0)) > 150
    assert torch.equal(source(tokens, None, generator()).tokens, drawn)


def test_every_other_place_is_reached_alike():
    first = IntraNegatives(1, 4)(places(6000, 4), None, generator()).tokens[:, 0, 0]
    counts = torch.bincount(first, minlength=4)
    assert counts[0] == 0
    assert (counts[1:] - 2000).abs().max() < 160  # four standard deviations


def test_a_token_that_is_the_positive_s_own_does_not_count():
    drawn = IntraNegatives(4, 2)(torch.tensor([[5, 5, 5, 1]]), None, generator())
    assert torch.equal(drawn.tokens[0, 0], torch.tensor([5, 1, 5, 5]))
    assert torch.equal(drawn.counts[0, 0], torch.tensor([False, True, False, True]))


# Another class -------------------------------------------------------------------------------------------------


def test_no_negative_shares_the_class_and_none_comes_twice():
    group = torch.arange(30) % 5
    tokens = torch.arange(30)[:, None].expand(-1, 3)
    negatives = InterNegatives(10)(tokens, group, generator())
    assert negatives is not None
    drawn = negatives.tokens[..., 0]
    assert (group[drawn] != group[:, None]).all()
    assert all(len(row.unique()) == 10 for row in drawn)


def test_too_few_of_another_class_are_named():
    with pytest.raises(ValueError, match="num_negatives is 10: a sample of this batch has 8 of another class"):
        InterNegatives(10)(torch.zeros(10, 3).long(), torch.arange(10) % 5, generator())
    with pytest.raises(ValueError, match="no label to tell other classes by"):
        InterNegatives(1)(torch.zeros(10, 3).long(), None, generator())


@pytest.mark.parametrize(("size", "num_groups", "bank_size"), [(32, 10, 0), (8, 2, 0), (30, 7, 5), (3, 10, 0)])
def test_what_no_batch_can_give_is_found_before_one_comes(size, num_groups, bank_size):
    """The most even batch is the best there is: enough for so many, and one more is refused."""
    group = torch.arange(size) % num_groups
    most = int((group[:, None] != group).sum(1).min()) + bank_size
    InterNegatives(most, bank_size).check_batch(size, num_groups)
    if bank_size == 0:
        assert InterNegatives(most)(torch.zeros(size, 3).long(), group, generator()) is not None
    with pytest.raises(ValueError, match=f"num_negatives is {most + 1}: .* batch of {size} .* has {most} of another"):
        InterNegatives(most + 1, bank_size).check_batch(size, num_groups)


def test_a_bank_remembers_what_was_seen_last():
    source = InterNegatives(4, bank_size=6)

    def draw(start, group):
        tokens = torch.arange(start, start + 4)[:, None].expand(-1, 2)
        return source(tokens, torch.full((4,), group), generator())

    assert draw(0, 1) is None, "it has to fill first"
    assert set(draw(4, 0).tokens[..., 0].flatten().tolist()) == {0, 1, 2, 3}
    assert source.bank_tokens[:, 0].tolist() == [4, 5, 6, 7, 0, 1]
    with pytest.raises(ValueError, match="num_negatives is 4: a sample of this batch has 2 of another class"):
        draw(8, 0)
    copy = InterNegatives(4, bank_size=6)
    copy.load_state_dict(source.state_dict())
    assert torch.equal(copy.bank_tokens, source.bank_tokens)
    source.eval()
    source(torch.zeros(4, 2).long(), torch.full((4,), 2), generator())
    assert torch.equal(copy.bank_tokens, source.bank_tokens), "evaluation leaves it alone"


def test_a_bank_holds_the_samples_of_all_processes(monkeypatch):
    """A second process stands in, whose numbers are higher by 100."""
    monkeypatch.setattr("mmdiffusion.methods.negatives.gather", lambda own: torch.cat([own, own + 100]))
    source = InterNegatives(2, bank_size=6)
    source(torch.arange(2)[:, None].expand(-1, 3), torch.tensor([0, 1]), generator())
    assert source.bank_tokens[:, 0].tolist() == [0, 1, 100, 101]
    assert source.bank_group.tolist() == [0, 1, 100, 101]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IntraNegatives(0), "num_negatives is 0: expected at least 1"),
        (lambda: IntraNegatives(1, 1), "num_chunks is 1: expected at least 2"),
        (lambda: InterNegatives(1, -1), "bank_size is -1: expected 0 or more"),
        (lambda: IntraNegatives(1, 8)(places(1, 7), None, generator()), "num_chunks is 8: expected at most 7"),
    ],
)
def test_settings_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
