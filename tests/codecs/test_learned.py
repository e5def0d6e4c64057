"""A trained autoencoder as a codec: from a run to the tokens of a CDCD, and back from its checkpoint."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import mmdiffusion
from mmdiffusion.codecs import LearnedTokens
from mmdiffusion.data import Digits
from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.types import ImageSpec, LabelSpec, TokenSpec
from tests.helpers import CONFIG, fit_run, write_config

CALLBACKS = [{"class_path": "EMA"}, {"class_path": "LastCheckpoint"}]
NETWORK = {"num_codes": 16, "code_width": 4, "strides": [2], "width": 8, "depth": 1}
FIRST = {
    "class_path": "VQAutoencoder",
    "init_args": {"network": {"class_path": "QuantisedAutoencoder", "init_args": NETWORK}},
}


def second(path):
    return {
        "class_path": "CDCD",
        "init_args": {
            "codec": {"class_path": "LearnedTokens", "init_args": {"path": str(path)}},
            "conditioner": {"class_path": "LabelConditioner"},
            "denoiser": {"class_path": "Denoiser", "init_args": {"levels": [{"width": 16, "depth": 1, "heads": 2}]}},
            "schedule": {"class_path": "ReleasedSchedule", "init_args": {"num_steps": 8}},
            "sampler": {"class_path": "Ancestral"},
            "steps": 4,
        },
    }


def fit(folder, model):
    config = write_config(
        folder / "config.yaml", CONFIG | {"model": model, "trainer": CONFIG["trainer"] | {"callbacks": CALLBACKS}}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mmdiffusion"])
        return MMDiffusionCLI(folder / "run", ["fit", "-c", str(config)])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    return folder / "run", fit(folder, FIRST).model.eval()


def images(count=12):
    return Digits().columns("test")["image"][:count]


@pytest.mark.parametrize("place", [".", "checkpoints/last.ckpt"])
def test_its_tokens_and_pictures_are_the_trained_model_s(first, place):
    run, method = first
    before = torch.get_rng_state()
    codec = LearnedTokens(Digits().spec, str(run / place))
    assert torch.equal(torch.get_rng_state(), before)
    assert (codec.latent, codec.source, codec.result) == (TokenSpec(16, (4, 4)), "image", "image")
    made = method.sample({"image": images()}, seeds=range(12))
    assert torch.equal(codec.encode(images()), made["tokens"])
    assert torch.equal(codec.decode(made["tokens"]), made["reconstruction"])
    again = mmdiffusion.load(run).sample({"image": images()}, seeds=range(12))
    assert torch.equal(again["reconstruction"], made["reconstruction"])


def test_a_cdcd_on_it_trains_and_comes_back_without_its_weights(first, tmp_path):
    run, _ = first
    trained = fit(tmp_path, second(run)).model.eval()
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert not [name for name in (*state["state_dict"], *state["ema"]["raw"]) if "codec" in name]
    loaded = mmdiffusion.load(tmp_path / "run")
    drawn = [m.sample({"label": torch.arange(4)}, seeds=range(4)) for m in (trained, loaded)]
    assert torch.equal(drawn[0]["tokens"], drawn[1]["tokens"])
    assert torch.equal(drawn[0]["image"], drawn[1]["image"])
    assert drawn[0]["image"].shape == (4, 1, 8, 8)


def test_a_cdcd_whose_first_stage_is_gone_says_so(first, tmp_path):
    shutil.copytree(first[0], tmp_path / "first")
    fit(tmp_path, second(tmp_path / "first"))
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(ValueError, match="first: expected a run of VQAutoencoder"):
        mmdiffusion.load(tmp_path / "run")


def test_a_damaged_run_is_read_from_the_checkpoint_before(first, tmp_path, caplog):
    run = shutil.copytree(first[0], tmp_path / "first")
    last = run / "checkpoints" / "last.ckpt"
    last.rename(last.with_name("previous.ckpt"))
    last.write_bytes(b"")
    codec, expected = (LearnedTokens(Digits().spec, str(path)) for path in (run, first[0]))
    assert torch.equal(codec.encode(images()), expected.encode(images()))
    assert f"{last} is damaged" in caplog.text


def test_a_path_without_a_run_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "absent.ckpt"):
        with pytest.raises(ValueError, match="is missing; train one with `mmdiffusion fit -c configs/vq_autoencoder"):
            LearnedTokens(Digits().spec, str(path))


def test_a_run_of_another_method_is_named(tmp_path):
    fit_run(tmp_path)
    with pytest.raises(ValueError, match=r"written by .*MTDiffusion, expected a run of VQAutoencoder"):
        LearnedTokens(Digits().spec, str(tmp_path / "run"))


@pytest.mark.parametrize("image", [ImageSpec(1, 16, 17), ImageSpec(3, 8, 17), None])
def test_data_of_another_size_is_named(first, image):
    spec = {"label": LabelSpec(10)} | ({} if image is None else {"image": image})
    with pytest.raises(
        ValueError, match=r"built for image ImageSpec\(channels=1, size=8, num_levels=17\), but the data"
    ):
        LearnedTokens(spec, str(first[0]))


def test_pictures_of_another_size_are_named(first):
    with pytest.raises(ValueError, match=r"image has shape \(1, 16, 16\): expected that of ImageSpec"):
        LearnedTokens(Digits().spec, str(first[0])).encode(torch.zeros(1, 1, 16, 16))


def test_settings_are_plain_data(first):
    contents = torch.load(Path(first[0]) / "checkpoints" / "last.ckpt", weights_only=True)["autoencoder"]
    assert json.loads(json.dumps(contents["settings"])) == contents["settings"]
    assert contents["settings"] | NETWORK == contents["settings"]
