"""VQAutoencoder: its loss, what it gives back, and one model in validation, in checkpoints and after loading."""

import json
import wave
from functools import partial

import pytest
import torch
from PIL import Image

from mmdiffusion.callbacks import EMA, Draw, Evaluate, LastCheckpoint, LogSamples
from mmdiffusion.callbacks.draws import check_draws
from mmdiffusion.callbacks.samples import shown, write_samples
from mmdiffusion.losses import spectral_distance
from mmdiffusion.methods import VQAutoencoder
from mmdiffusion.metrics import PeakSignalNoiseRatio
from mmdiffusion.nn import QuantisedAutoencoder
from mmdiffusion.types import LabelSpec, MusicSpec
from tests.helpers import SPEC, Pictures, build_batch, build_trainer, generator, weights

MUSIC = {"music": MusicSpec(200, 1000), "label": LabelSpec(2)}


def build(**changes):
    network = partial(QuantisedAutoencoder, num_codes=16, code_width=4, strides=[2], width=8, depth=1)
    settings = {"spec": SPEC, "network": network, "optimizer": partial(torch.optim.AdamW, lr=1e-2), "warmup_steps": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VQAutoencoder(**settings | changes)


def clips(size=4):
    music = torch.rand(size, 200, generator=generator()) * 2 - 1
    return {"music": music, "index": torch.arange(size)}


# Loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_its_terms():
    """Written out from one pass in evaluation mode, in which nothing moves."""
    method = build(squared_weight=0.5, absolute_weight=2.0, commitment_weight=0.3).eval()
    batch = build_batch()
    terms, rebuilt = method.losses(batch, generator()), method.network(batch["image"])
    difference = rebuilt.data - batch["image"]
    expected = 0.5 * difference.square().mean() + 2 * difference.abs().mean() + 0.3 * rebuilt.commitment
    torch.testing.assert_close(terms["loss"], expected)
    assert set(terms) == {"loss", "squared", "absolute", "commitment", "perplexity", "used"}


def test_audio_is_compared_by_its_spectrum_too():
    method = build(spec=MUSIC, modality="music", spectral_weight=0.1).eval()
    batch = clips()
    terms = method.losses(batch, generator())
    rebuilt = method.network(batch["music"]).data
    torch.testing.assert_close(terms["spectral"], spectral_distance(rebuilt, batch["music"]))
    expected = terms["squared"] + 0.1 * terms["spectral"] + 0.25 * terms["commitment"]
    torch.testing.assert_close(terms["loss"], expected)


def test_use_of_the_codebook_is_counted():
    method, batch = build().eval(), build_batch()
    tokens = method.network.encode(batch["image"])
    terms = method.losses(batch, generator())
    assert terms["used"] == len(tokens.unique()) / 16
    assert 1 <= terms["perplexity"] <= len(tokens.unique()) + 1e-4


def test_gradients_reach_every_parameter():
    method = build().train()
    method.losses(build_batch(), generator())["loss"].backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()]


def test_nothing_draws_from_the_global_generator():
    method = build().train()
    before = torch.get_rng_state()
    method.losses(build_batch(), generator())
    method.eval().sample({"image": build_batch()["image"]}, seeds=range(16))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_repeats_with_its_generator():
    books = []
    for seed in (0, 0, 1):
        method = build().train()
        method.losses(build_batch(), generator(seed))
        books.append(method.network.quantiser.lookup.codebook.clone())
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


# Reconstruction ------------------------------------------------------------------------------------------------


def test_a_reconstruction_comes_beside_what_it_was_made_from():
    method, image = build().eval(), build_batch()["image"]
    made = method.sample({"image": image}, seeds=range(16))
    assert set(made) == {"image", "reconstruction", "tokens", "index"}
    assert torch.equal(made["image"], image)
    assert torch.equal(made["reconstruction"], method.network.decode(method.network.encode(image)))
    assert made["reconstruction"].abs().max() <= 1
    alone = torch.cat([method.sample({"image": image[i : i + 1]}, seeds=[i])["reconstruction"] for i in range(16)])
    torch.testing.assert_close(alone, made["reconstruction"])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"condition": {}}, "given is nothing: expected image, which is rebuilt"),
        ({"condition": {"label": torch.zeros(1)}}, "given is 'label': expected image"),
        ({"seeds": [0, 1]}, "image has 1 entries, seeds has 2"),
        ({"drawn": ["image"]}, "drawn is 'image': expected reconstruction"),
        ({"steps": 5}, "steps is 5: expected None, a reconstruction is not drawn"),
        ({"guidance": 2.0}, "guidance is 2.0: expected None"),
    ],
)
def test_a_request_that_it_cannot_serve_is_named(request_, message):
    with pytest.raises(ValueError, match=message):
        build().eval().sample(**{"condition": {"image": torch.zeros(1, 1, 8, 8)}, "seeds": [0]} | request_)


def test_a_draw_of_nothing_is_named_before_a_training():
    with pytest.raises(ValueError, match=r"draws.x: given is nothing: expected image"):
        check_draws({"x": Draw([])}, build())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "label"}, "modality is 'label': expected images or audio among image, label"),
        ({"modality": "music"}, "modality is 'music': expected images or audio"),
        ({"squared_weight": 0.0}, "squared_weight, absolute_weight and spectral_weight are 0"),
        ({"commitment_weight": -1.0}, "commitment_weight is -1.0: expected 0 or more"),
        ({"spectral_weight": 1.0}, "spectral_weight is 1.0: expected 0 for images"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


# A run ---------------------------------------------------------------------------------------------------------


def fit(folder, max_steps=6, ckpt_path=None):
    method = build()
    method.hparams.clear()  # closures of this test, which no checkpoint can hold
    draw = {"rebuilt": Draw(["image"])}
    callbacks = [EMA(0.9), LastCheckpoint(), LogSamples(draw, 10), Evaluate([PeakSignalNoiseRatio()], draw, 30)]
    trainer = build_trainer(
        folder, *callbacks, max_steps=max_steps, max_epochs=-1, enable_checkpointing=True, check_val_every_n_epoch=None,
        val_check_interval=2,
    )  # fmt: skip
    trainer.__class__ = type("Planned", (type(trainer),), {"estimated_stepping_batches": 6})
    trainer.fit(method, datamodule=Pictures(), ckpt_path=ckpt_path)
    return method, trainer


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vq")
    return folder, *fit(folder)


def test_validation_and_checkpoint_show_one_model(fitted):
    """Averaged weights beside the codebook of the last step, which is itself a running mean: in both the same."""
    folder, method, trainer = fitted
    state = read_state(folder)
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    again = build()
    again.load_state_dict(state)
    batch = next(iter(Pictures().val_dataloader()))
    terms = again.eval().losses(batch, generator())
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], terms["loss"])


def read_state(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_two_and_four_steps_are_six_codebook_and_all(fitted, tmp_path):
    folder, method, _ = fitted
    fit(tmp_path / "first", 2)
    second, _ = fit(tmp_path / "second", 6, tmp_path / "first" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(method).items())
    assert all(torch.equal(value, read_state(folder)[name]) for name, value in second.state_dict().items())


def test_pictures_show_both_and_the_table_measures_them(fitted):
    folder, method, trainer = fitted
    (*_, last) = sorted((folder / "samples").glob("*.png"))
    with Image.open(last) as picture:
        assert picture.width > 15 * picture.height, "a row of ten pairs"
    trainer.test(method, datamodule=Pictures(), verbose=False)
    figures = json.loads((folder / "metrics.json").read_text())["psnr[image]"]
    assert figures["rebuilt"]["made"]["num_codes"] == 16
    image = Pictures().columns("test")["image"]
    error = (method.network.decode(method.network.encode(image)) - image).square().mean()
    assert figures["rebuilt"]["value"] == pytest.approx(10 * torch.log10(4 / error).item(), rel=1e-4)
    assert figures["shuffled"]["value"] < figures["rebuilt"]["value"]


def test_music_is_written_with_what_it_was_made_from(tmp_path):
    method, batch = build(spec=MUSIC, modality="music").eval(), clips()
    write_samples(shown(method.sample({"music": batch["music"]}, seeds=range(4))), tmp_path, "", method)
    with wave.open(str(tmp_path / "00003.wav")) as file:
        assert (file.getnframes(), file.getframerate()) == (400, 1000)
