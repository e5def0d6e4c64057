"""Feature extractors: what a metric looks at instead of pixels.

An image enters as a float in [-1, 1] and is first rounded to 8 bits, so that what is measured is what a PNG file would
hold. Frozen weights belong to the extractor, never to a metric's `state_dict`.
"""

import functools
import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"


def to_uint8(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """Clamp to [-1, 1] and round to the nearest of 256 levels; nothing wraps, nothing is truncated.

    Args:
        images: (b c h w), nominally in [-1, 1]; values outside are clamped.

    Returns:
        (b c h w) in 0..255.

    Raises:
        ValueError: If an image holds NaN, which has no grey level.
    """
    if images.isnan().any():
        num_broken = int(images.isnan().flatten(1).any(1).sum())
        raise ValueError(
            f"images: {num_broken} of {len(images)} hold NaN, expected numbers in [-1, 1]; "
            "the sampler or its weights have diverged, so lower the learning rate or the guidance"
        )
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def as_stored(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Images in [-1, 1] after a trip through 8 bits and back, as float32 (b c h w)."""
    return to_uint8(images).float() / 127.5 - 1


def move(network: nn.Module, device: torch.device) -> Any:
    """Move a network in place; Lightning evaluates in inference mode, whose tensors must not become its weights."""
    with torch.inference_mode(False):
        return network.to(device)


class FeatureExtractor(nn.Module, ABC):
    """A frozen map from images to features and class logits.

    Attributes:
        name: Short name that appears in the metric, as in `fid[digits-cnn]`.
        num_features: Width d of a feature vector.
    """

    name: str
    num_features: int

    @abstractmethod
    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Feature vectors (b d) of images (b c h w) in [-1, 1]."""

    @abstractmethod
    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Unnormalised class log-probabilities (b k) of images (b c h w) in [-1, 1]."""

    @property
    def learns(self) -> bool:
        """Whether `fit` has to be called before anything else."""
        return type(self).fit is not FeatureExtractor.fit

    @abstractmethod
    def signature(self) -> str:
        """One line that says how the features came about, for the protocol of a result."""

    def fit(self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]) -> None:
        """Learn from the real training split; a pretrained extractor has nothing to learn and ignores it.

        Args:
            images: (b c h w) real training images in [-1, 1].
            labels: (b,) their classes.
        """


class InceptionFeatures(FeatureExtractor):
    """The Inception-v3 of the published FID and IS, as converted by torch-fidelity.

    Resize is TensorFlow 1's bilinear one to 299 x 299 without antialiasing; features are the 2048 of the last pooling;
    logits leave out the bias, as torch-fidelity's Inception Score does. Extractors of one file share one network.
    Source: Heusel et al. 2017 (arXiv:1706.08500); Obukhov et al., torch-fidelity.

    Args:
        weights_path: The file `weights-inception-2015-12-05-6726825d.pth`; it is never downloaded.
        chunk_size: Images sent through the network at once, at least 1; changes memory, not the result.
        name: Short name that appears in the metric.

    Raises:
        ValueError: If the file is missing, unreadable or of another network.
    """

    def __init__(
        self,
        weights_path: str,
        chunk_size: int = 64,
        name: str = "inception-v3",
    ) -> None:
        super().__init__()
        if not Path(weights_path).is_file():
            raise ValueError(
                f"weights_path: found no file at {weights_path!r}, expected {INCEPTION_FILE}; "
                f"its publisher offers it at {INCEPTION_ADDRESS}"
            )
        if chunk_size < 1:
            raise ValueError(f"chunk_size: found {chunk_size}, expected at least 1; 64 suits most machines")
        self.name, self.num_features = name, 2048
        self.weights_path, self.chunk_size = weights_path, chunk_size

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The 2048 features of the last pooling, (b 2048)."""
        return self._run(images, "2048")

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The 1008 class logits without bias, (b 1008)."""
        return self._run(images, "logits_unbiased")

    def signature(self) -> str:
        """Name, first eight digits of the file's SHA-256, resize and rounding."""
        return f"{self.name}@{file_digest(self.weights_path)}, 8-bit input, TF1 bilinear 299 without antialias"

    @torch.no_grad()
    def _run(self, images: Float[Tensor, "b c h w"], layer: str) -> Float[Tensor, "b d"]:
        network = move(load_inception(self.weights_path), images.device)
        pixels = _as_colour(to_uint8(images))
        with torch.autocast(images.device.type, enabled=False):
            outputs = [network.convert_features_tuple_to_dict(network(part)) for part in pixels.split(self.chunk_size)]
        return torch.cat([output[layer] for output in outputs])


def _as_colour(pixels: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Repeat a grey channel three times; any number of channels but 1 and 3 is an error."""
    if pixels.shape[1] not in (1, 3):
        raise ValueError(
            f"images: found {pixels.shape[1]} channels, expected 1 (grey) or 3 (colour); decode them before measuring"
        )
    return pixels.expand(-1, 3, -1, -1)


@functools.lru_cache(maxsize=4)
def file_digest(path: str) -> str:
    """First eight hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


@functools.lru_cache(maxsize=1)
def load_inception(weights_path: str) -> Any:
    """Build torch-fidelity's network and fill it from a file; one per process, whatever the number of metrics.

    Args:
        weights_path: File with the network's state dict; pickled code in it is refused.

    Returns:
        The frozen network in evaluation mode, which maps uint8 (b 3 h w) to a tuple (features, logits without bias).

    Raises:
        ValueError: If the file is not a state dict of tensors or not of this network.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        torch.load(weights_path, map_location="cpu", weights_only=True)  # torch-fidelity itself would run pickled code
        with torch.inference_mode(False):
            return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], weights_path)
    except (RuntimeError, UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise ValueError(
            f"weights_path: {weights_path!r} does not hold the weights of Inception-v3, expected {INCEPTION_FILE} "
            f"as offered at {INCEPTION_ADDRESS}; fetch it again. Reason: {str(error)[:300]}"
        ) from error
