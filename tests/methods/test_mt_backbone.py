"""The denoiser as MT-Diffusion's encoder of a label: what it makes of each class, and when it is asked."""

from functools import partial

import torch

from mmdiffusion.nn import BackboneEncoder
from tests.helpers import Pictures, build_batch, build_method, build_trainer, generator


def made_by_hand(method):
    """What the network predicts of the fixed noise for each class at t = 0.9 T, less its mean, of RMS 0.5."""
    noise = method.extra("label").encoder.noise.expand(10, -1, -1, -1)
    told = method.network.tell({"label": torch.arange(10)}, (), 10)
    with torch.no_grad():
        made, _ = method.network(noise, torch.full((10,), 45), told)
    centred = made - made.mean(0)
    return 0.5 * centred / centred.square().mean().sqrt()


def test_the_backbone_encodes_what_it_is_shown_without_a_gradient():
    method = build_method(encoder=BackboneEncoder)
    label, encoder = method.extra("label"), method.extra("label").encoder
    assert isinstance(encoder, BackboneEncoder)
    assert not label.encode(torch.arange(10)).any(), "nothing before it is asked"
    method.network.ask_backbone("label", encoder)
    torch.testing.assert_close(label.encode(torch.arange(10)), made_by_hand(method), rtol=1e-4, atol=1e-5)
    assert not encoder.table.requires_grad
    method.losses(build_batch(), generator())["loss"].backward()
    assert encoder.table.grad is None


def test_training_asks_it_every_n_steps(tmp_path, monkeypatch):
    """The encodings in the loss of each of four steps, beside what the weights of that moment make."""
    encoder, optimizer = partial(BackboneEncoder, every_n_steps=2), partial(torch.optim.AdamW, lr=0.1)
    method, used, made = build_method(encoder=encoder, optimizer=optimizer), [], []
    losses = method.losses

    def watched(batch, draws):
        used.append(method.extra("label").encode(torch.arange(10)))
        made.append(made_by_hand(method))
        return losses(batch, draws)

    monkeypatch.setattr(method, "losses", watched)
    build_trainer(tmp_path, max_steps=4, limit_val_batches=0).fit(method, datamodule=Pictures())
    assert len(used) == 4
    for step, expected in ((0, made[0]), (1, made[0]), (2, made[2]), (3, made[2])):
        torch.testing.assert_close(used[step], expected, rtol=1e-4, atol=1e-5)
    assert all((made[step] - made[step - 1]).abs().max() > 0.01 for step in (1, 2, 3)), "the weights move"
