"""What every codec of tokens offers."""

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.types import TokenSpec


class TokenCodec(Encoder):
    """A frozen first stage: data to tokens and back.

    Args:
        latent: The tokens.
        source: Entry of a batch that is encoded.
        result: Entry of a batch that decoding makes; `None` for the source again.
    """

    def __init__(self, latent: TokenSpec, source: str, result: str | None = None) -> None:
        super().__init__()
        self.latent, self.source, self.result = latent, source, source if result is None else result
        self.reads = source

    @abstractmethod
    def encode(self, data: Tensor) -> Int[Tensor, "b *grid"]:
        """Tokens of a modality, 0 to `latent.num_codes - 1`.

        Args:
            data: The modality as a batch holds it.
        """

    @abstractmethod
    def decode(self, tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b ..."]:
        """The modality that tokens stand for.

        Args:
            tokens: 0 to `latent.num_codes - 1`.
        """

    def parts(self, values: Tensor) -> dict[str, Tensor]:
        """`tokens` (b *grid); see `Encoder`."""
        return {"tokens": self.encode(values)}

    def check(self, tokens: Int[Tensor, "b *grid"]) -> None:
        """Check tokens.

        Raises:
            ValueError: if one is outside the codebook, or their grid is another.
        """
        if tuple(tokens.shape[1:]) != self.latent.grid:
            raise ValueError(f"tokens has grid {tuple(tokens.shape[1:])}: expected {self.latent.grid}")
        outside = tokens[(tokens < 0) | (tokens >= self.latent.num_codes)]
        if len(outside):
            raise ValueError(
                f"tokens has {int(outside[0])}, outside the codebook: expected 0 to {self.latent.num_codes - 1}; check "
                "that the codec that made them is this one"
            )
