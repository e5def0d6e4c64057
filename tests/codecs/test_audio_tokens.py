"""EnCodec and DAC: the library's own codes and audio, on grids computed from the configuration."""

import json

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.codecs import DACTokens, EnCodecTokens
from mmdiffusion.types import ImageSpec, MusicSpec, TokenSpec
from tests.helpers import generator

transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`")

RATE = 800


def build(kind, config):
    """The same weights at every call, and none of them zero: the library's own start leaves codebooks empty."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def save_encodec(path, **changes):
    settings = {
        "sampling_rate": RATE,
        "target_bandwidths": [0.2, 0.4, 0.8],  # 50 frames a second, 4 bits a code: 1, 2 and 4 books
        "hidden_size": 8,
        "num_filters": 2,
        "upsampling_ratios": [4, 4],
        "codebook_size": 16,
        "num_lstm_layers": 1,
    }
    model = build(transformers.EncodecModel, transformers.EncodecConfig(**settings | changes))
    with torch.no_grad():
        encodings = model.encoder(torch.randn(1, model.config.audio_channels, 256, generator=generator()))[0].T
        for index, layer in enumerate(model.quantizer.layers):  # codes among what they stand for
            layer.codebook.embed.copy_(encodings * (-0.5) ** index)
    model.save_pretrained(path)
    return str(path)


def save_dac(path, **changes):
    settings = {
        "sampling_rate": RATE,
        "encoder_hidden_size": 4,
        "decoder_hidden_size": 16,
        "downsampling_ratios": [4, 4],
        "n_codebooks": 3,
        "codebook_size": 16,
        "codebook_dim": 4,
    }
    build(transformers.DacModel, transformers.DacConfig(**settings | changes)).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def encodec(tmp_path_factory):
    return save_encodec(tmp_path_factory.mktemp("encodec"))


@pytest.fixture(scope="module")
def dac(tmp_path_factory):
    return save_dac(tmp_path_factory.mktemp("dac"))


def spec(num_samples, sample_rate=RATE):
    return {"music": MusicSpec(num_samples, sample_rate)}


def clips(num_samples, size=3):
    return torch.rand(size, num_samples, generator=generator()) * 2 - 1


LENGTHS = [16, 17, 160, 161, 175]


@pytest.mark.parametrize("num_samples", LENGTHS)
@pytest.mark.parametrize(("bandwidth", "books"), [(None, 1), (0.2, 1), (0.4, 2), (0.8, 4)])
def test_encodec_is_the_library_s(encodec, num_samples, bandwidth, books):
    codec, audio = EnCodecTokens(spec(num_samples), encodec, bandwidth), clips(num_samples)
    frames = -(-num_samples // 16)
    assert codec.latent == TokenSpec(16, (frames,) if books == 1 else (books, frames))
    tokens = codec.encode(audio)
    assert tokens.shape == (3, *codec.latent.grid)
    with torch.no_grad():
        theirs = transformers.EncodecModel.from_pretrained(encodec).eval()(audio[:, None], bandwidth=bandwidth)
    assert torch.equal(tokens.reshape(3, books, frames), theirs.audio_codes[0])
    assert len(tokens.unique()) > 3 or frames < 3
    torch.testing.assert_close(codec.decode(tokens), theirs.audio_values[:, 0, :num_samples].clamp(-1, 1))
    assert codec.decode(tokens).shape == audio.shape


@pytest.mark.parametrize("num_samples", LENGTHS)
@pytest.mark.parametrize(("num_codebooks", "books"), [(None, 3), (1, 1), (2, 2)])
def test_dac_is_the_library_s(dac, num_samples, num_codebooks, books):
    codec, audio = DACTokens(spec(num_samples), dac, num_codebooks), clips(num_samples)
    frames = -(-num_samples // 16)
    assert codec.latent == TokenSpec(16, (frames,) if books == 1 else (books, frames))
    tokens = codec.encode(audio)
    theirs = transformers.DacModel.from_pretrained(dac).eval()
    with torch.no_grad():
        codes = theirs.encode(F.pad(audio, (0, 16 * frames - num_samples))[:, None], books).audio_codes
        values = theirs.decode(audio_codes=codes).audio_values[:, :num_samples]
    assert torch.equal(tokens.reshape(3, books, frames), codes)
    assert len(tokens.unique()) > 3 or frames < 3
    torch.testing.assert_close(codec.decode(tokens), values.clamp(-1, 1))
    assert codec.decode(tokens).shape == audio.shape


@pytest.mark.parametrize("num_samples", [15, 149, 150])
def test_dac_with_odd_strides_gives_whole_clips(tmp_path, num_samples):
    codec = DACTokens(spec(num_samples), save_dac(tmp_path, downsampling_ratios=[3, 5]))
    assert codec.decode(codec.encode(clips(num_samples))).shape == (3, num_samples)
    assert codec.latent.grid[1] == -(-num_samples // 15)


@pytest.mark.parametrize("kind", [EnCodecTokens, DACTokens])
def test_silence_is_audio(encodec, dac, kind):
    codec = kind(spec(160), encodec if kind is EnCodecTokens else dac)
    audio = codec.decode(codec.encode(torch.zeros(2, 160)))
    assert torch.isfinite(audio).all()
    assert torch.equal(audio[0], audio[1])


@pytest.mark.parametrize("kind", [EnCodecTokens, DACTokens])
def test_loading_and_coding_leave_the_global_generator(encodec, dac, kind):
    before = torch.get_rng_state()
    codec = kind(spec(160), encodec if kind is EnCodecTokens else dac)
    codec.decode(codec.encode(clips(160)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [EnCodecTokens, DACTokens])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (spec(160, 8000), "music has 8000 samples a second, the weights of .* expect 800"),
        (spec(15), "music has 15 samples: .* expects at least 16, one frame"),
        (spec(0), "music has 0 samples: .* expects at least 16"),
        ({"image": ImageSpec(1, 8)}, "spec has image: .* expects data with music"),
    ],
)
def test_data_that_does_not_suit_is_named(encodec, dac, kind, data, message):
    with pytest.raises(ValueError, match=message):
        kind(data, encodec if kind is EnCodecTokens else dac)


@pytest.mark.parametrize("num_samples", [0, 15, 159, 161])
def test_clips_of_another_length_are_named(encodec, num_samples):
    with pytest.raises(ValueError, match=f"music has {num_samples} samples: expected 160"):
        EnCodecTokens(spec(160), encodec).encode(torch.zeros(2, num_samples))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize": True}, "normalize is True, .* loudness is no token"),
        ({"chunk_length_s": 1.0, "overlap": 0.01}, "chunk_length_s is 1.0; expected"),
        ({"audio_channels": 2}, "audio_channels is 2, music is mono"),
    ],
)
def test_weights_that_do_not_suit_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        EnCodecTokens(spec(160), save_encodec(tmp_path, **changes))


def test_settings_out_of_range_are_named(encodec, dac):
    with pytest.raises(ValueError, match=r"bandwidth is 1\.0: expected one of 0\.2, 0\.4, 0\.8"):
        EnCodecTokens(spec(160), encodec, 1.0)
    for number in (0, 4):
        with pytest.raises(ValueError, match=f"num_codebooks is {number}: expected 1 to 3"):
            DACTokens(spec(160), dac, number)


def test_what_is_no_folder_of_weights_is_named(tmp_path, encodec):
    with pytest.raises(ValueError, match=r"config\.json is missing; get one with `hf download facebook/encodec_24khz"):
        EnCodecTokens(spec(160), str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="model_type is 'encodec', expected 'dac'"):
        DACTokens(spec(160), encodec)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ValueError, match="is no configuration"):
        DACTokens(spec(160), str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "encodec"}))
    with pytest.raises(ValueError, match="its weights cannot be read"):
        EnCodecTokens(spec(160), str(tmp_path))


def test_weights_that_lack_a_part_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    path = save_encodec(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("quantizer.layers.0.codebook.embed")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"its weights lack quantizer\.layers\.0\.codebook\.embed"):
        EnCodecTokens(spec(160), path)
