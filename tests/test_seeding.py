"""Streams of random numbers: none shared, none dependent on what runs beside it."""

import pytest
import torch

from mmdiffusion.seeding import SampleNoise, step_generator, stream_seed, text_number


def draws(seed=0, purpose="train", step=0, *, rank=0, world_size=1):
    generator = step_generator(seed, purpose, step, rank=rank, world_size=world_size, device="cpu")
    return torch.randn(4, generator=generator).tolist()


# Seeds ---------------------------------------------------------------------------------------------------------


def test_positions_never_share_a_seed():
    seeds = {stream_seed(0, "train", position) for position in range(200_001)}
    assert len(seeds) == 200_001


def test_seeds_are_what_the_generator_keeps_of_them():
    assert all(0 <= stream_seed(3, "train", position) < 2**32 for position in [0, 1, 10**6, 2**40])


def test_seed_of_a_stream_is_fixed_for_good():
    assert [stream_seed(0, "train", 0), stream_seed(7, "sample", 12)] == [1_087_439_964, 2_503_598_534]


@pytest.mark.parametrize(("seed", "purpose"), [(1, "train"), (0, "validation"), (0, "sample"), (10, "train")])
def test_other_seeds_and_purposes_give_other_streams(seed, purpose):
    first = {stream_seed(0, "train", position) for position in range(1000)}
    assert first.isdisjoint(stream_seed(seed, purpose, position) for position in range(1000))


# Texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["A red circle", "  a red\tcircle\n", "a  RED  circle"])
def test_capitals_and_blanks_do_not_change_the_number_of_a_text(text):
    assert text_number(text) == text_number("a red circle")


def test_the_number_of_a_text_is_fixed_for_good():
    assert [text_number("a red circle"), text_number("")] == [1_934_406_655_020_654_534, 6_510_301_506_637_419_378]


def test_texts_that_say_something_else_have_other_numbers():
    texts = [f"{colour} {number}" for colour in ("red", "blue", "circle red") for number in range(5000)]
    numbers = [text_number(text) for text in [*texts, "a b", "b a", "ab", "a b.", "a-b"]]
    assert len(set(numbers)) == len(numbers)


def test_the_number_of_a_text_fits_a_tensor_and_uses_its_range():
    numbers = [text_number(str(i)) for i in range(2000)]
    assert torch.tensor(numbers, dtype=torch.int64).tolist() == numbers
    assert 0 <= min(numbers) < 2**63 * 0.01
    assert 2**63 * 0.99 < max(numbers) < 2**63
    assert sum(number % 2 for number in numbers) / 2000 == pytest.approx(0.5, abs=0.05)


# Steps ---------------------------------------------------------------------------------------------------------


def test_step_repeats_its_numbers():
    assert draws(3, "train", 17, rank=1, world_size=2) == draws(3, "train", 17, rank=1, world_size=2)


@pytest.mark.parametrize("change", [{"seed": 1}, {"purpose": "validation"}, {"step": 1}, {"rank": 1}])
def test_step_differs_in_seed_purpose_number_and_rank(change):
    assert draws(**{"world_size": 2} | change) != draws(world_size=2)


def test_two_ranks_never_share_a_step():
    seeds = [
        step_generator(0, "train", step, rank=rank, world_size=2, device="cpu").initial_seed()
        for step in range(1000)
        for rank in range(2)
    ]
    assert len(set(seeds)) == 2000


# Samples -------------------------------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize("kind", ["normal", "uniform"])


@KINDS
@pytest.mark.parametrize("shape", [(3,), (1, 8, 8), (5, 7)])
def test_sample_does_not_depend_on_the_rest_of_its_batch(kind, shape):
    batch, alone, turned = SampleNoise(0, range(6)), SampleNoise(0, [4]), SampleNoise(0, [5, 4, 3])
    for _ in range(2):  # a second draw continues each stream
        first, second, third = (getattr(noise, kind)(shape) for noise in (batch, alone, turned))
        assert torch.equal(first[4], second[0])
        assert torch.equal(first[4], third[1])


@KINDS
def test_sample_neither_reads_nor_moves_the_global_state(kind):
    torch.manual_seed(1)
    first = getattr(SampleNoise(0, [0, 1]), kind)((8,))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(getattr(SampleNoise(0, [0, 1]), kind)((8,)), first)
    assert torch.equal(torch.get_rng_state(), state)


@KINDS
def test_samples_seeds_and_draws_differ(kind):
    noise = SampleNoise(0, [0, 1])
    rows = [getattr(noise, kind)((4,)), getattr(noise, kind)((4,)), getattr(SampleNoise(1, [0, 1]), kind)((4,))]
    assert len(torch.cat(rows).unique(dim=0)) == 6


def test_noise_knows_its_batch_size():
    assert len(SampleNoise(0, range(5))) == 5
    assert SampleNoise(0, range(5)).uniform().shape == (5,)


def test_normal_numbers_are_standard_normal():
    numbers = SampleNoise(0, range(2000)).normal((16,))
    assert numbers.mean().item() == pytest.approx(0, abs=0.03)
    assert numbers.std().item() == pytest.approx(1, abs=0.03)
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max() < 0.12


def test_uniform_numbers_fill_the_unit_interval():
    numbers = SampleNoise(0, range(2000)).uniform((16,))
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.01)
