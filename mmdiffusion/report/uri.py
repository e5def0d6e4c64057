"""Files inside a page: pictures and sounds as text."""

import base64
import io
from pathlib import Path

import soundfile
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

KINDS = {".png": "image/png", ".wav": "audio/wav"}


def uri(content: bytes, ending: str) -> str:
    """A file's content as an address that needs no file.

    Args:
        content: The bytes.
        ending: Of the file's name, such as ".png".
    """
    return f"data:{KINDS[ending]};base64,{base64.b64encode(content).decode('ascii')}"


def file_uri(path: Path) -> str:
    """A file as it is; see `uri`."""
    return uri(path.read_bytes(), path.suffix)


def picture_uri(image: Float[Tensor, "c h w"]) -> str:
    """A picture as PNG; see `uri`.

    Args:
        image: In [0, 1]: grey, RGB, or RGB with opacity.
    """
    levels = (image.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(content, "PNG", optimize=True)
    return uri(content.getvalue(), ".png")


def sound_uri(audio: Float[Tensor, " samples"], sample_rate: int) -> str:
    """A sound as WAV of 16 bits; see `uri`.

    Args:
        audio: Mono, in [-1, 1].
        sample_rate: Samples a second.
    """
    content = io.BytesIO()
    soundfile.write(content, audio.detach().cpu().numpy(), sample_rate, subtype="PCM_16", format="WAV")
    return uri(content.getvalue(), ".wav")
