"""DiffDis recognises: embeddings that see no text, classes, retrieval, candidates that cannot be told apart."""

import pytest
import torch
from torch.nn import functional as F

from tests.methods.build_diffdis import DIRECTIONS, PROMPTS, batch_of, build

# Embeddings ----------------------------------------------------------------------------------------------------


@DIRECTIONS
@pytest.mark.parametrize("steps", [1, 3])
def test_embeddings_depend_on_image_and_index_alone(direction, steps):
    method, batch = build(direction).eval(), batch_of()
    whole = method.encode_image(batch, steps=steps, guidance=1.5, num_draws=2)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(20))
    order = torch.tensor([7, 3, 12])
    some = {"image": batch["image"][order], "index": order}
    part = method.encode_image(some, steps=steps, guidance=1.5, num_draws=2)
    torch.testing.assert_close(part, whole[order], atol=1e-5, rtol=1e-5)
    other = method.encode_image(some | {"image": batch["image"][order.flip(0)]}, steps=steps)
    assert not torch.allclose(other, method.encode_image(some, steps=steps), atol=1e-3)


def test_one_way_looks_once_for_all_steps():
    method, runs = build("one_way").eval(), []
    method.denoiser.register_forward_hook(lambda *_: runs.append(1))
    method.encode_image(batch_of(), steps=10, num_draws=3)
    assert len(runs) == 1
    method.encode_image(batch_of(), steps=10, guidance=2.0)
    assert len(runs) == 3


def test_guidance_of_one_is_the_model_s_own_and_of_zero_ignores_the_image():
    method, batch = build().eval(), batch_of()
    assert torch.equal(method.encode_image(batch, guidance=1.0), method.encode_image(batch))
    blank = batch | {"image": torch.zeros_like(batch["image"])}
    torch.testing.assert_close(method.encode_image(batch, guidance=0.0), method.encode_image(blank))


# Classes and retrieval -----------------------------------------------------------------------------------------


def test_classes_are_compared_by_the_softmax_of_scaled_similarities():
    method, batch = build().eval(), batch_of()
    expected = (method.inverse_temperature * method.encode_image(batch) @ method.encode_text(PROMPTS).T).softmax(1)
    torch.testing.assert_close(method.classify(batch, PROMPTS), expected)
    turned = method.classify(batch, PROMPTS[::-1])
    torch.testing.assert_close(turned.flip(1), expected)
    torch.testing.assert_close(method.classify(batch, [[prompt] for prompt in PROMPTS]), expected)
    assert torch.equal(method.classify(batch, method.encode_classes(PROMPTS)), method.classify(batch, PROMPTS))


def test_an_ensemble_is_the_mean_of_its_prompts():
    method = build()
    first, second = (method.encode_text([text]) for text in ("a one", "one"))
    classes = method.encode_classes([["a one", "one"], ["two"]])
    torch.testing.assert_close(classes[:1], F.normalize(first + second, dim=-1))


def test_retrieval_is_the_matrix_of_similarities():
    method, batch = build().eval(), batch_of(5)
    expected = method.encode_image(batch) @ method.encode_text(PROMPTS).T
    torch.testing.assert_close(method.retrieve(batch, PROMPTS), expected)


def test_untrained_classification_is_at_chance():
    method, batch = build("one_way").eval(), batch_of(400)
    right = (method.classify(batch, PROMPTS).argmax(1) == batch["index"] % 10).sum()
    assert 17 <= right <= 67, "99.99 % of the binomial distribution around 40"


# Mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (["a one"], "candidates has 1 classes"),
        (["a one", "a two", "a one"], "classes 0 and 2 are both 'a one'"),
        (["a one", []], "class 1 has no text"),
        (["a one", ""], "caption '' has 0 words"),
    ],
)
def test_impossible_candidates_are_named(candidates, message):
    with pytest.raises(ValueError, match=message):
        build().classify(batch_of(), [c if isinstance(c, list) else [c] for c in candidates])


def test_one_text_instead_of_several_is_named():
    with pytest.raises(ValueError, match="captions is 'a one': expected a list"):
        build().encode_text("a one")
    with pytest.raises(ValueError, match="candidates is 'a one': expected a list"):
        build().classify(batch_of(), "a one")


def test_an_image_of_another_size_is_named():
    batch = {"image": torch.zeros(2, 3, 8, 8)}
    with pytest.raises(ValueError, match=r"image has shape \(3, 8, 8\): expected \(1, 8, 8\)"):
        build().classify(batch, PROMPTS)


def test_recognition_that_was_not_trained_is_named():
    with pytest.raises(ValueError, match="alignment_weight is 0"):
        build(alignment_weight=0.0).classify(batch_of(), PROMPTS)
    with pytest.raises(ValueError, match="num_draws is 0"):
        build().encode_image(batch_of(), num_draws=0)
    with pytest.raises(ValueError, match="drop_image is 0"):
        build(drop_image=0.0).encode_image(batch_of(), guidance=2.0)
