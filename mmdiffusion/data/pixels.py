"""Pictures from files as bytes, decoded under limits; `crops.py` brings them to one size.

JPEGs go through simplejpeg, whose pixels are Pillow's bit by bit in two thirds of the time. What it refuses and all
other formats go through Pillow, which decides whether a file is damaged. Not taken: torchvision's decoders, deprecated
since 0.29, one of which ended the process on a PNG with a wrong checksum; and decoding at a fraction of the size, 1.3
times as fast at 64 pixels where Pillow's draft mode was off by 2 levels in the mean and 60 at most.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from simplejpeg import decode_jpeg, decode_jpeg_header
from torch import Tensor

from mmdiffusion.data.files import DamagedError

MAX_PIXELS = 89_478_485
"""Of a picture, Pillow's own limit: a small file can claim any size, and memory is taken before it is decoded."""
MAX_BYTES = 2**28
"""Of a file."""
_MODES = {1: "L", 3: "RGB"}
_JPEG_MODES = {1: "GRAY", 3: "RGB"}

Pixels = UInt8[Tensor, "c h w"]
Size = tuple[int, int]
"""Width and height."""


def read_pixels(path: Path, channels: int = 3) -> Pixels:
    """Read a picture file.

    Grey becomes three equal channels and colours become grey by their luma, CMYK and palettes become RGB, transparency
    is dropped and the colours behind it stay, 16 bits a channel become 8, of an animation the first picture is read.
    The orientation that EXIF notes is not applied: torchvision's ImageFolder and most code on these data sets do not,
    and widths, boxes and masks of the annotations are those of the stored pixels.

    Args:
        path: File of any format that Pillow reads.
        channels: 3 for RGB, 1 for grey.

    Returns:
        (channels, h, w) of 0 to 255.

    Raises:
        DamagedError: if it is missing, cut off, no picture, or beyond `MAX_BYTES` or `MAX_PIXELS`.
    """
    return decode_pixels(read_bytes(path), path, channels)


def read_bytes(path: Path) -> bytes:
    """Read a file of a sample whole.

    Args:
        path: The file.

    Raises:
        DamagedError: if it cannot be read, or is beyond `MAX_BYTES`.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DamagedError(path, f"{size} bytes, expected at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(path, error.strerror) from error


def decode_pixels(stored: bytes, path: Path | str, channels: int = 3) -> Pixels:
    """Decode a picture file that is in memory, such as a member of an archive; see `read_pixels`.

    Args:
        stored: The file's bytes.
        path: What messages call it.
        channels: 3 for RGB, 1 for grey.

    Returns:
        (channels, h, w) of 0 to 255.

    Raises:
        DamagedError: if it is cut off, no picture, or beyond `MAX_PIXELS`.
    """
    try:
        return _decode_jpeg(stored, path, _JPEG_MODES[channels])
    except ValueError:
        return _decode_picture(stored, path, _MODES[channels])


def _decode_jpeg(stored: bytes, path: Path | str, mode: str) -> Pixels:
    height, width, colours, _ = decode_jpeg_header(stored)
    check_size(int(width), int(height), path)
    if colours in ("CMYK", "YCCK"):
        raise ValueError(f"{colours}: Pillow converts it")
    return torch.from_numpy(decode_jpeg(stored, mode)).permute(2, 0, 1)


def _decode_picture(stored: bytes, path: Path | str, mode: str) -> Pixels:
    picture = open_picture(stored, path)
    try:
        return as_pixels(_converted(picture, mode))
    except Exception as error:  # a damaged picture can fail in any way
        raise DamagedError(path, error) from error


def check_size(width: int, height: int, path: Path | str) -> None:
    """Check what the header of a picture claims, before memory is taken for it.

    Args:
        width: In pixels.
        height: In pixels.
        path: What messages call it.

    Raises:
        DamagedError: if it is beyond `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise DamagedError(path, f"{width} x {height} pixels, expected at most {MAX_PIXELS} in all")


def picture_size(path: Path) -> Size:
    """Width and height that the header of a picture file says; no pixel is read.

    Args:
        path: File of any format that Pillow reads.

    Raises:
        DamagedError: if it is missing, no picture, or beyond `MAX_PIXELS`.
    """
    try:
        with path.open("rb") as file:
            return _opened(file, path).size
    except OSError as error:
        raise DamagedError(path, error.strerror) from error


def open_picture(stored: bytes, path: Path | str) -> Image.Image:
    """Open a picture file that is in memory without decoding it: its header says format, mode and size.

    Args:
        stored: The file's bytes.
        path: What messages call it.

    Raises:
        DamagedError: if it is no picture, or beyond `MAX_PIXELS`.
    """
    return _opened(io.BytesIO(stored), path)


def _opened(file: io.BytesIO | io.BufferedReader, path: Path | str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, refused below, and of notes beside the pixels
            picture = Image.open(file)
    except Image.UnidentifiedImageError as error:
        raise DamagedError(path, f"no picture ({file.seek(0, io.SEEK_END)} bytes)") from error
    except Exception as error:  # as above
        raise DamagedError(path, error) from error
    check_size(picture.width, picture.height, path)
    return picture


def as_pixels(picture: Image.Image) -> Pixels:
    """A picture of 8 bits a channel as a tensor (c, h, w)."""
    array = np.array(picture)
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.array(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"32 bits a channel (mode {picture.mode}), expected 8 or 16")
    opaque = picture.convert("RGBA").convert("RGB") if picture.mode == "P" else picture
    return opaque.convert(mode)
