"""The token judge tells material and order apart, and nothing else."""

import copy
import pickle

import pytest
import torch

from mmdiffusion.metrics import JudgedAccuracy, TokenJudge


def steps(num, length, seed, codes=24):
    """Sequences in steps of 1 (class 0), -1 (class 1) or 5 (class 2): the same tokens, other pairs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 3
    step = torch.tensor([1, -1, 5])[labels][:, None]
    start = torch.randint(codes, (num, 1), generator=generator)
    tokens = (start + step * torch.arange(length)) % codes
    noise = torch.rand(num, length, generator=generator) < 0.2
    return torch.where(noise, torch.randint(codes, (num, length), generator=generator), tokens), labels


def accuracy(judge, tokens, labels):
    return (judge.predict(tokens) == labels).double().mean().item()


@pytest.fixture(scope="module")
def judge():
    judge = TokenJudge(name="steps")
    judge.fit(*steps(90, 48, seed=0))
    return judge


def test_pairs_tell_the_order_that_single_tokens_do_not(judge):
    test = steps(60, 48, seed=1)
    assert accuracy(judge, *test) > 0.95
    single = TokenJudge(max_run=1)
    single.fit(*steps(90, 48, seed=0))
    assert accuracy(single, *test) < 0.6


def test_single_tokens_tell_the_material():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    tokens = torch.randint(12, (80, 30), generator=generator) + 8 * labels[:, None]
    judge = TokenJudge(max_run=1)
    judge.fit(tokens[:40], labels[:40])
    assert accuracy(judge, tokens[40:], labels[40:]) > 0.95


def test_length_of_a_sequence_does_not_matter(judge):
    assert accuracy(judge, *steps(60, 96, seed=2)) > 0.95


def test_judge_does_not_hear_where_a_run_stands(judge):
    tokens, _ = steps(20, 48, seed=3)
    again = TokenJudge(name="steps")
    again.fit(*steps(90, 48, seed=0))
    assert torch.equal(again.predict(tokens), judge.predict(tokens)), "fitting is deterministic"
    palindromes = torch.cat([tokens, tokens.flip(1)], 1)
    assert torch.equal(judge.predict(palindromes), judge.predict(palindromes.roll(48, 1)))


def test_few_columns_still_judge():
    judge = TokenJudge(num_features=2**10)
    judge.fit(*steps(90, 48, seed=0))
    assert accuracy(judge, *steps(60, 48, seed=1)) > 0.9
    assert judge.model[0].transform(["1 2"]).shape == (1, 1024)


def test_judged_accuracy_reads_the_entry_it_is_told(judge):
    metric = JudgedAccuracy(judge, entry="tokens")
    assert metric.inputs == metric.fit_inputs == ("tokens", "label")
    tokens, labels = steps(60, 48, seed=1)
    for part, target in zip(tokens.split(16), labels.split(16), strict=True):
        metric.update(part, target)
    assert metric.compute().item() == pytest.approx(accuracy(judge, tokens, labels))
    assert metric.name() == "judged_accuracy[steps]"
    protocol = metric.protocol()
    assert (protocol["entry"], protocol["num_samples"]) == ("tokens", 60)
    assert "runs of 1 to 2 tokens in 65536 columns, C 10, fitted on 90 sequences" in str(protocol["judge"])
    metric.reset()
    metric.update(tokens, (labels + 1) % 3)
    assert metric.compute().item() < 0.05


def test_judged_accuracy_fits_and_copies_its_token_judge():
    metric = JudgedAccuracy(TokenJudge(), entry="tokens")
    metric.fit(*steps(30, 48, seed=0))
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        other.update(*steps(30, 48, seed=1))
        assert other.compute().item() > 0.8
    assert not metric.state_dict()


def test_judge_of_no_sample_says_nothing(judge):
    assert judge.predict(torch.zeros(0, 48, dtype=torch.int64)).shape == (0,)


def test_errors_say_what_to_do():
    tokens, labels = steps(6, 8, seed=0)
    with pytest.raises(ValueError, match=r"judge 'token-runs'.*call fit"):
        TokenJudge().predict(tokens)
    with pytest.raises(ValueError, match=r"labels: found 1 classes.*expected at least 2"):
        TokenJudge().fit(tokens, torch.zeros_like(labels))
    for setting, value in {"max_run": 0, "num_features": 1, "regularisation": 0.0}.items():
        with pytest.raises(ValueError, match=rf"{setting}: found {value}"):
            TokenJudge(**{setting: value})
