"""Mask-and-replace diffusion in low precision: at the public size, under autocast, in bfloat16, its tables."""

import torch

from mmdiffusion.diffusion import MaskReplaceDiffusion, ReleasedSchedule
from tests.diffusion.discrete_oracles import K, codes, logits, process, times, toy, uniform


def test_reverse_in_float32_at_the_public_size():
    num_codes, length = 2887, 16
    diffusion = MaskReplaceDiffusion(ReleasedSchedule(80), num_codes)
    noisy = codes(num_codes, 2, length)
    noisy[:, ::2] = num_codes
    log_probs = (
        logits(2, length, num_codes, scale=3)
        .scatter_add(2, noisy[..., None] % num_codes, torch.full((2, length, 1), 25.0).double())
        .log_softmax(-1)
    )
    time, target = torch.tensor([40, 80]), torch.tensor([39, 20])
    exact = diffusion.reverse(log_probs, noisy, time, target)
    single = diffusion.reverse(log_probs.float(), noisy, time, target)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, atol=2e-5, rtol=2e-6)
    torch.testing.assert_close(single.double().exp().sum(-1), torch.ones(2, length).double(), atol=1e-5, rtol=0)


def test_autocast_changes_nothing():
    diffusion, noisy, clean = process("toy", K), codes(K + 1, 2, 8), codes(K, 2, 8)
    log_probs, time, target = logits(2, 8, K).float().log_softmax(-1), times(4, 2), times(3, 2)

    def everything():
        return (
            diffusion.reverse(log_probs, noisy, time, target),
            *diffusion.divergence(log_probs, noisy, clean[:, None], time, target),
            diffusion.step(log_probs, noisy, time, target, uniform(2, 3, 8)),
        )

    outside = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = everything()
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(outside, inside, strict=True))


def test_bfloat16_predictions_are_widened():
    diffusion, noisy, clean = process("released", K), codes(K + 1, 2, 8), codes(K, 2, 1, 8)
    low, time, target = logits(2, 8, K).bfloat16(), times(4, 2), times(3, 2)
    for found, expected in zip(
        (diffusion.reverse(low, noisy, time, target), *diffusion.divergence(low, noisy, clean, time, target)),
        (
            diffusion.reverse(low.float(), noisy, time, target),
            *diffusion.divergence(low.float(), noisy, clean, time, target),
        ),
        strict=True,
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_tables_keep_their_precision_and_stay_out_of_checkpoints():
    diffusion, exact = toy(), toy()
    diffusion.to(torch.bfloat16)
    for name, table in exact.named_buffers():
        assert torch.equal(diffusion.get_buffer(name), table)
        assert diffusion.get_buffer(name).dtype == torch.float64
    assert not diffusion.state_dict()
    assert str(diffusion) == "MaskReplaceDiffusion(num_steps=5, num_codes=3)"
    assert diffusion.to("meta").alpha_bar.device.type == "meta"
