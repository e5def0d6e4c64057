"""Neural audio codecs with released weights: EnCodec and DAC, one or several residual codebooks."""

from abc import abstractmethod
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.codecs.frozen import FrozenCodec
from mmdiffusion.codecs.pretrained import check_folder, load, needs
from mmdiffusion.types import DataSpec, MusicSpec, TokenSpec

Codes = Int[Tensor, "b books f"]


class AudioTokens(FrozenCodec):
    """Mono audio as tokens: a grid (books, frames), or (frames) where one codebook is used.

    Silence is audio like any other. A clip always has the length of the data, so none is empty; one that does not fill
    a single frame is refused, because its token would tell of the padding.

    Args:
        spec: The data, which has `music`.
        network: The codec's network.
        sample_rate: Samples a second that it was trained on.
        hop_length: Samples a frame.
        num_codes: Codes of each codebook.
        num_codebooks: Residual codebooks that are used.
    """

    def __init__(
        self,
        spec: DataSpec,
        network: nn.Module,
        sample_rate: int,
        hop_length: int,
        num_codes: int,
        num_codebooks: int,
    ) -> None:
        music, name = spec.get("music"), type(self).__name__
        if not isinstance(music, MusicSpec):
            raise ValueError(f"spec has {', '.join(spec)}: {name} expects data with music")
        if music.sample_rate != sample_rate:
            raise ValueError(
                f"music has {music.sample_rate} samples a second, the weights of {name} expect {sample_rate}: "
                "change the data's sample rate, or take other weights"
            )
        if music.num_samples < hop_length:
            raise ValueError(
                f"music has {music.num_samples} samples: {name} expects at least {hop_length}, one frame; "
                "take longer clips"
            )
        frames = -(-music.num_samples // hop_length)
        grid = (num_codebooks, frames) if num_codebooks > 1 else (frames,)
        super().__init__(network, TokenSpec(num_codes, grid), "music")
        self.num_samples, self.sample_rate, self.hop_length = music.num_samples, sample_rate, hop_length

    @abstractmethod
    def codes(self, audio: Float[Tensor, "b 1 s"]) -> Codes:
        """Codes of every codebook in use, by the library.

        Args:
            audio: The clips.
        """

    @abstractmethod
    def audio(self, codes: Codes) -> Float[Tensor, "b s"]:
        """Audio of codes, by the library; whole frames.

        Args:
            codes: Codes of every codebook in use.
        """

    def to_tokens(self, data: Float[Tensor, "b s"]) -> Int[Tensor, "b *grid"]:
        """The library's codes; see `FrozenCodec`."""
        if data.shape[1] != self.num_samples:
            raise ValueError(f"music has {data.shape[1]} samples: expected {self.num_samples}, as its spec says")
        codes = self.codes(data[:, None])
        return codes if len(self.latent.grid) == 2 else codes[:, 0]

    def to_data(self, tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b s"]:
        """The library's audio, as long as the clips; see `FrozenCodec`."""
        audio = self.audio(tokens if tokens.ndim == 3 else tokens[:, None])
        return F.pad(audio, (0, self.num_samples - audio.shape[1]))  # DAC's odd strides end a few samples early


class EnCodecTokens(AudioTokens):
    """EnCodec (Defossez et al. 2022, arXiv 2210.13438), by transformers; models that work on whole clips, at 24 kHz.

    Args:
        spec: The data, which has `music`.
        path: Folder with weights, such as a download of `facebook/encodec_24khz`.
        bandwidth: Kilobits a second, which the number of codebooks follows from; `None` for the lowest of the model.

    Raises:
        ValueError: if there are no weights at `path`, or they do not suit the data or the bandwidth.
    """

    def __init__(self, spec: DataSpec, path: str, bandwidth: float | None = None) -> None:
        try:
            from transformers import EncodecModel
        except ImportError as error:
            raise needs("pretrained", "transformers", error) from error

        check_folder(path, "model_type", "encodec", "facebook/encodec_24khz")
        network = load(EncodecModel, path)
        config: Any = network.config
        bandwidths = list(config.target_bandwidths)
        if config.audio_channels != 1:
            raise ValueError(f"path is {path}: audio_channels is {config.audio_channels}, music is mono; expected 1")
        if config.normalize or config.chunk_length_s is not None:
            raise ValueError(
                f"path is {path}: normalize is {config.normalize}, chunk_length_s is {config.chunk_length_s}; expected "
                "False and None, as in facebook/encodec_24khz: a clip's loudness is no token and could not be drawn"
            )
        bandwidth = bandwidths[0] if bandwidth is None else bandwidth
        if bandwidth not in bandwidths:
            raise ValueError(f"bandwidth is {bandwidth}: expected one of {', '.join(map(str, bandwidths))}")
        num_codebooks = min(config.num_quantizers, network.quantizer.get_num_quantizers_for_bandwidth(bandwidth))
        super().__init__(spec, network, config.sampling_rate, config.hop_length, config.codebook_size, num_codebooks)
        self.bandwidth = bandwidth

    def codes(self, audio: Float[Tensor, "b 1 s"]) -> Codes:
        """See `AudioTokens`."""
        return self.network.encode(audio, bandwidth=self.bandwidth).audio_codes[0]

    def audio(self, codes: Codes) -> Float[Tensor, "b s"]:
        """See `AudioTokens`."""
        return self.network.decode(codes[None], [None]).audio_values[:, 0]


class DACTokens(AudioTokens):
    """Descript Audio Codec (Kumar et al. 2023, arXiv 2306.06546), by transformers.

    Args:
        spec: The data, which has `music`.
        path: Folder with weights, such as a download of `descript/dac_16khz`.
        num_codebooks: Residual codebooks that are used, from the coarsest; `None` for all.

    Raises:
        ValueError: if there are no weights at `path`, or they do not suit the data or the number of codebooks.
    """

    def __init__(self, spec: DataSpec, path: str, num_codebooks: int | None = None) -> None:
        try:
            from transformers import DacModel
        except ImportError as error:
            raise needs("pretrained", "transformers", error) from error

        check_folder(path, "model_type", "dac", "descript/dac_16khz")
        network = load(DacModel, path)
        config: Any = network.config
        available = int(config.n_codebooks)
        num_codebooks = available if num_codebooks is None else num_codebooks
        if not 1 <= num_codebooks <= available:
            raise ValueError(f"num_codebooks is {num_codebooks}: expected 1 to {available}")
        super().__init__(spec, network, config.sampling_rate, config.hop_length, config.codebook_size, num_codebooks)
        self.num_codebooks = num_codebooks

    def codes(self, audio: Float[Tensor, "b 1 s"]) -> Codes:
        """See `AudioTokens`; the end is filled up to a whole frame, as the library's feature extractor does."""
        whole = F.pad(audio, (0, -audio.shape[-1] % self.hop_length))
        return self.network.encode(whole, n_quantizers=self.num_codebooks).audio_codes

    def audio(self, codes: Codes) -> Float[Tensor, "b s"]:
        """See `AudioTokens`."""
        return self.network.decode(audio_codes=codes).audio_values
