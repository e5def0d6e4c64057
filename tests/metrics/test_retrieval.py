"""Recall of retrieval against loops in plain Python, and its chance against every draw there is."""

import copy
import itertools

import pytest
import torch

from mmdiffusion.metrics import RetrievalRecall
from mmdiffusion.metrics.retrieval import chance_of_hit, from_digits, hits, one_each, to_digits
from tests.metrics.processes import compute_together

QUERIES = pytest.mark.parametrize("query", ["image", "text"])

# Numbers of images and captions, pair by pair.
PAIRS = {
    "one to one": ([4, 0, 9, 2, 7, 5], ["a", "b", "c", "d", "e", "f"]),
    "several captions an image": ([0, 0, 0, 1, 1, 2, 3, 3], ["a", "b", "c", "d", "e", "f", "g", "h"]),
    "one caption of several images": ([0, 1, 2, 3, 4, 5], ["a", "a", "b", "a", "c", "b"]),
    "both, and a pair twice": ([3, 3, 1, 1, 2, 5, 3, 8], ["a", "b", "a", "c", "B", "c ", "a", "d e"]),
}
KINDS = pytest.mark.parametrize("kind", PAIRS)


def pairs(kind, width=3, seed=0):
    """Embeddings of the pairs, the same for the same image and the same caption."""
    numbers, captions = PAIRS[kind]
    generator = torch.Generator().manual_seed(seed)
    images = {number: torch.randn(width, generator=generator) for number in numbers}
    texts = {caption.lower().strip(): torch.randn(width, generator=generator) for caption in captions}
    image = torch.stack([images[number] for number in numbers])
    text = torch.stack([texts[caption.lower().strip()] for caption in captions])
    return image, text, torch.tensor(numbers), captions


def measured(pairs, query="image", k=1):
    metric = RetrievalRecall(query, k)
    metric.update(*pairs)
    return metric.compute().item(), metric.protocol()


def sides(pairs, query):
    """Candidates of each query: name of the query -> embedding, and of the candidates; and which belong together."""
    image, text, numbers, captions = pairs
    images, texts, together = {}, {}, set()
    for i, (number, caption) in enumerate(zip(numbers.tolist(), captions, strict=True)):
        name = caption.lower().strip()
        images.setdefault(number, image[i].tolist())
        texts.setdefault(name, text[i].tolist())
        together.add((number, name) if query == "image" else (name, number))
    return (images, texts, together) if query == "image" else (texts, images, together)


def brute_force(pairs, query, k):
    """Recall by sorting the candidates of one query after another."""
    asked, offered, together = sides(pairs, query)
    found = 0
    for name, vector in asked.items():
        scores = {other: sum(x * y for x, y in zip(vector, offered[other], strict=True)) for other in offered}
        nearest = sorted(scores, key=lambda other: -scores[other])[:k]
        found += any((name, other) in together for other in nearest)
    return found / len(asked)


def enumerated(matches, k):
    """Share of the sets of k candidates that have a match, mean over the queries."""
    shares = []
    for row in matches:
        draws = list(itertools.combinations(range(len(row)), min(k, len(row))))
        shares.append(sum(any(row[i] for i in draw) for draw in draws) / len(draws))
    return sum(shares) / len(shares)


# Recall --------------------------------------------------------------------------------------------------------


@QUERIES
@KINDS
@pytest.mark.parametrize("k", [1, 2, 4, 50])
def test_it_is_that_of_a_search_by_hand(query, kind, k):
    for seed in range(5):
        data = pairs(kind, seed=seed)
        assert measured(data, query, k)[0] == pytest.approx(brute_force(data, query, k))


@QUERIES
def test_many_pairs_are_searched_as_by_hand(query):
    generator = torch.Generator().manual_seed(0)
    numbers, words = (torch.randint(high, (60,), generator=generator) for high in (40, 25))
    images, texts = (torch.randn(count, 5, generator=generator) for count in (40, 25))
    data = images[numbers] + 0, texts[words] + 0, numbers, [f"caption {word}" for word in words.tolist()]
    for k in (2, 5, 12):
        expected = brute_force(data, query, k)
        assert 0 < expected < 1
        assert measured(data, query, k)[0] == pytest.approx(expected)


@QUERIES
@KINDS
def test_a_match_that_is_nearest_is_found_and_one_behind_all_others_is_not(query, kind):
    """An image is the list of its texts: its similarity to a text is 1 where they belong together, else 0."""
    _, _, numbers, captions = data = pairs(kind)
    names, (_, offered, together) = sorted({c.lower().strip() for c in captions}), sides(data, query)
    texts = torch.eye(len(names))[[names.index(c.lower().strip()) for c in captions]]
    images = torch.stack([texts[numbers == number].amax(0) for number in numbers])
    assert measured((images, texts, numbers, captions), query)[0] == 1
    most = max(sum(asked == other for other, _ in together) for asked, _ in together)
    assert measured((images, -texts, numbers, captions), query, len(offered) - most)[0] == 0
    assert measured((images, -texts, numbers, captions), query, len(offered) - most + 1)[0] > 0


def test_directions_differ():
    """Both images are nearest to the first text; each text is nearest to its own image."""
    data = torch.tensor([[2.0, 0], [1, 0.5]]), torch.tensor([[1.0, 0], [0, 1]]), torch.arange(2), ["a", "b"]
    assert measured(data, "image")[0] == 0.5
    assert measured(data, "text")[0] == 1


def test_any_match_counts():
    """An image with two captions: the second is near, the first is not; and one caption of two images."""
    image, text = torch.tensor([[1.0, 0], [1, 0], [0, 1]]), torch.tensor([[-1.0, 0], [1, 0], [0, 1]])
    assert measured((image, text, torch.tensor([5, 5, 6]), ["a", "b", "c"]), "image")[0] == 1
    assert measured((image, text, torch.tensor([5, 5, 6]), ["a", "b", "c"]), "text")[0] == pytest.approx(2 / 3)
    image, text = torch.tensor([[-1.0, 0], [1, 0], [0, 1]]), torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert measured((image, text, torch.arange(3), ["a", "a", "c"]), "text")[0] == 1
    assert measured((image, text, torch.arange(3), ["a", "a", "c"]), "image")[0] == pytest.approx(2 / 3)


def test_of_equally_near_candidates_the_first_counts_as_nearer():
    similarity = torch.tensor([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.2, 0.7, 0.7]])
    is_match = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    assert hits(similarity, is_match, 1).tolist() == [True, False, False]
    assert hits(similarity, is_match, 2).tolist() == [True, True, True]
    assert hits(similarity, is_match, 9).tolist() == [True] * 3


@QUERIES
@pytest.mark.parametrize("k", [1, 3, 6])
def test_embeddings_that_are_all_the_same_are_at_chance(query, k):
    _, _, numbers, captions = pairs("one to one")
    found, protocol = measured((torch.ones(6, 3), torch.ones(6, 3), numbers, captions), query, k)
    assert found == pytest.approx(k / 6)
    assert protocol["chance"] == pytest.approx(k / 6)


@QUERIES
def test_a_pair_seen_twice_counts_once(query):
    data = pairs("several captions an image")
    twice = tuple(part[[*range(8), 3, 5]] for part in data[:3])
    assert measured((*twice, [*data[3], data[3][3], data[3][5]]), query) == measured(data, query)


# Chance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6, 9])
def test_chance_is_that_of_every_draw_there_is(k):
    generator = torch.Generator().manual_seed(k)
    is_match = torch.rand(12, 6, generator=generator) < torch.linspace(0, 1, 12)[:, None]
    assert not is_match[0].any()
    assert is_match[-1].all()
    assert chance_of_hit(is_match, k).item() == pytest.approx(enumerated(is_match.tolist(), k), abs=1e-12)


def test_chance_among_many_is_a_number():
    is_match = torch.zeros(2, 5000, dtype=torch.bool)
    is_match[:, :5] = True
    assert chance_of_hit(is_match, 10).item() == pytest.approx(1 - (4995 / 5000) ** 10, rel=1e-3)


@QUERIES
@KINDS
@pytest.mark.parametrize("k", [1, 2])
def test_the_protocol_has_queries_candidates_and_chance(query, kind, k):
    data = pairs(kind)
    asked, offered, together = sides(data, query)
    matches = [[(name, other) in together for other in offered] for name in asked]
    protocol = measured(data, query, k)[1]
    assert protocol.pop("chance") == pytest.approx(enumerated(matches, k))
    counts = {"num_samples": len(asked), "num_candidates": len(offered)}
    assert protocol == {"query": query, "match": "any"} | counts


def test_random_embeddings_are_near_their_chance():
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(1500, 8, generator=generator) for _ in range(2))
    found, protocol = measured((image, text, torch.arange(1500), [str(i // 5) for i in range(1500)]), "text", 20)
    chance = float(protocol["chance"])
    assert chance > 0.06
    assert found == pytest.approx(chance, abs=0.03)


def test_names_say_the_direction():
    metric = RetrievalRecall("text", 5, "frame")
    assert metric.name() == "recall_at_5[text to image]"
    assert RetrievalRecall().name() == "recall_at_1[image to text]"
    assert metric.inputs == ("image_embedding", "text_embedding", "frame", "caption")
    assert metric.higher_is_better


# States --------------------------------------------------------------------------------------------------------


def test_numbers_of_64_bits_survive_as_floats():
    edges = [0, 1, -1, 2**21, 2**42 - 1, -(2**42), 2**53 + 1, 2**63 - 1, -(2**63)]
    numbers = torch.cat([torch.tensor(edges), torch.randint(2**62, (50,), generator=torch.Generator().manual_seed(0))])
    digits = to_digits(numbers)
    assert (digits.dtype, digits.dim()) == (torch.float32, 1)
    assert torch.equal(from_digits(digits), numbers)


def test_one_value_a_number_is_the_first():
    values, rows = one_each(torch.arange(10.0).view(5, 2), torch.tensor([7, 3, 7, -2, 3]))
    assert values.tolist() == [[6, 7], [2, 3], [0, 1]], "in the order of the numbers"
    assert rows.tolist() == [2, 1, 2, 0, 1]


@QUERIES
def test_several_updates_are_one(query):
    image, text, numbers, captions = data = pairs("both, and a pair twice")
    metric = RetrievalRecall(query, 2)
    for rows in (slice(0, 3), slice(3, 4), slice(4, 8)):
        metric.update(image[rows], text[rows], numbers[rows], captions[rows])
    assert (metric.compute().item(), metric.protocol()) == measured(data, query, 2)


def test_a_reset_forgets_the_pairs():
    metric, data = RetrievalRecall(), pairs("one to one")
    metric.update(*data)
    metric.compute()
    metric.reset_samples()
    assert metric.num_samples == 0
    metric.update(*(part[:2] for part in data))
    metric.compute()
    assert (metric.num_samples, metric.protocol()["num_candidates"]) == (2, 2)


def test_a_copy_has_pairs_of_its_own():
    metric, data = RetrievalRecall(), pairs("one to one")
    metric.update(*(part[:2] for part in data))
    other = copy.deepcopy(metric)
    other.update(*(part[2:] for part in data))
    for each in (metric, other):
        each.compute()
    assert (metric.num_samples, other.num_samples) == (2, 6)
    assert metric.state_dict() == {}


@pytest.mark.parametrize("share", [4, 7, 8], ids=["even", "uneven", "empty"])
@QUERIES
@KINDS
def test_two_processes_equal_one(query, kind, share):
    image, text, numbers, captions = data = pairs(kind)
    metrics = [RetrievalRecall(query, 2) for _ in range(2)]
    for metric, rows in zip(metrics, (slice(0, share), slice(share, 8)), strict=True):
        for row in range(*rows.indices(len(captions))):
            part = slice(row, row + 1)
            metric.update(image[part], text[part], numbers[part], captions[part])
    found, protocol = measured(data, query, 2)
    assert compute_together(*metrics) == [found, found]
    assert [metric.protocol() for metric in metrics] == [protocol, protocol]


# Errors --------------------------------------------------------------------------------------------------------


def test_no_pair_has_no_recall():
    message = r"recall_at_1\[image to text\]: found 0 pairs, expected at least 1"
    with pytest.raises(ValueError, match=message):
        RetrievalRecall().compute()
    with pytest.raises(ValueError, match=message):
        measured((torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), []))
    with pytest.raises(ValueError, match=message):
        compute_together(RetrievalRecall(), RetrievalRecall())


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_below_one_is_named(k):
    with pytest.raises(ValueError, match=f"k is {k}: expected at least 1"):
        RetrievalRecall(k=k)
