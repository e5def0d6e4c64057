"""Diffusion of unit embeddings: its moments, DDIM with an oracle, the leak that a larger scale would be, learning."""

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.methods.text_query import TextQuery
from mmdiffusion.nn import AlignmentHead
from tests.helpers import generator
from tests.methods.build_diffdis import batch_of, build

WIDTH, T = 768, 1000


def query(gamma=1.0, **changes):
    head = AlignmentHead(4, 4, width=4, depth=1, heads=1)
    settings = {"gamma": gamma, "is_diffused": True, "drop_image": 0.0, "pure_share": 0.0} | changes
    return TextQuery(head, WIDTH, CosineSchedule(T), **settings)


def unit(size, seed=0, width=WIDTH):
    return F.normalize(torch.randn(size, width, generator=generator(seed)), dim=-1)


@pytest.mark.parametrize("gamma", [1.0, 0.3])
@pytest.mark.parametrize("t", [1, 500, T])
def test_noisy_embeddings_have_the_moments_of_the_forward_process(gamma, t):
    embedding, count = unit(1), 2000
    noise = torch.randn(count, WIDTH, generator=generator(1))
    noisy = query(gamma).corrupt(embedding.expand(count, -1), torch.full((count,), t), noise)
    alpha_bar = float(CosineSchedule(T).alpha_bar()[t])
    mean, variance = gamma * alpha_bar**0.5 * embedding[0], 1 - alpha_bar
    assert (noisy.mean(0) - mean).abs().max() < 5 * (variance / count) ** 0.5
    assert noisy.var(0).mean() == pytest.approx(variance, rel=0.01)


@pytest.mark.parametrize("gamma", [1.0, 0.3])
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_an_oracle_is_found_and_the_state_keeps_its_norm(gamma, steps):
    """Norm sqrt(gamma^2 alpha_bar + (1 - alpha_bar) 768), within 10 %; the step without its divisor collapses."""
    model, truth, norms = query(gamma), unit(8), []

    def oracle(noisy, time):
        norms.append((round(float(time[0]) * T), noisy[:, 0].norm(dim=1)))
        return truth[:, None]

    found = model.denoise(torch.randn(8, WIDTH, generator=generator(2)), steps, [oracle], 1.0)
    assert len(norms) == steps
    assert F.cosine_similarity(found, truth).min() > 0.9999
    for t, norm in norms:
        alpha_bar = float(CosineSchedule(T).alpha_bar()[t])
        torch.testing.assert_close(
            norm, torch.full((8,), (gamma**2 * alpha_bar + (1 - alpha_bar) * WIDTH) ** 0.5), rtol=0.1, atol=0
        )


def test_guidance_combines_unit_estimates_of_images_and_of_blanks():
    shown, blank = unit(4, 1), unit(4, 2)
    images = [lambda query, time: shown[:, None], lambda query, time: blank[:, None]]
    noise = torch.randn(4, WIDTH, generator=generator(3))
    torch.testing.assert_close(query().denoise(noise, 1, images, 1.7), F.normalize(1.7 * shown - 0.7 * blank, dim=-1))
    torch.testing.assert_close(query().denoise(noise, 1, images[:1], 1.0), shown)
    torch.testing.assert_close(query().denoise(noise, 1, images, 0.0), blank)


def leak(scale, num_pairs=256):
    """Accuracy over uniform times of the nearest text to the noisy embedding alone; no image is looked at."""
    common = unit(1, 5)
    texts = F.normalize(common + unit(num_pairs, 6), dim=-1)  # mean similarity of two texts: about 0.5
    time = torch.randint(1, T + 1, (num_pairs,), generator=generator(7))
    noise = torch.randn(num_pairs, WIDTH, generator=generator(8))
    noisy = scale * query().corrupt(texts, time, torch.zeros_like(noise)) + query().corrupt(0 * texts, time, noise)
    return float(((noisy @ texts.T).argmax(1) == torch.arange(num_pairs)).float().mean())


def test_unit_embeddings_hardly_give_themselves_away_and_rescaled_ones_do():
    """The trap of rescaling embeddings to unit variance: the contrast would be won without the image."""
    assert leak(1.0) < 0.2
    assert leak(0.1) < 0.05
    assert leak(WIDTH**0.5) > 0.8


@pytest.mark.parametrize("gamma", [-1.0, 0.0, WIDTH**0.5])
def test_a_scale_that_leaks_is_refused(gamma):
    with pytest.raises(ValueError, match="gives the caption away"):
        query(gamma)


@pytest.mark.parametrize("direction", ["two_way", "one_way"])
def test_eight_pairs_are_learned_from_pure_noise(direction):
    """Retrieval 100 % from pure noise, blank images at chance, and the images' loss falls."""
    pairs = batch_of(8)
    method = build(direction, drop_image=0.0, pure_share=0.5).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for step in range(100):
        terms = method.losses(pairs, generator(step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(float(terms["generation"].detach()))
    method.eval()
    right = torch.arange(8)
    assert method.retrieve(pairs, pairs["caption"]).argmax(1).tolist() == right.tolist()
    blank = pairs | {"image": torch.zeros_like(pairs["image"])}
    assert (method.retrieve(blank, pairs["caption"]).argmax(1) == right).sum() <= 4
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
