"""Pictures from files: decoders against Pillow, damage and bombs."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiffusion.data import pixels as module
from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.pixels import decode_pixels, read_pixels
from tests.data.pictures import scene, stored


def by_pillow(data, mode="RGB"):
    array = np.array(Image.open(io.BytesIO(data)).convert(mode))
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "MPO"])
def test_formats_decode_as_pillow_does(file_format, mode, channels):
    data = stored(scene(mode=mode), file_format)
    found, expected = decode_pixels(data, "a", channels), by_pillow(data, {1: "L", 3: "RGB"}[channels])
    assert found.dtype == torch.uint8
    assert found.shape == (channels, 40, 60)
    assert (found.int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize(
    ("mode", "file_format"), [("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG")]
)
def test_modes_become_rgb_as_pillows_do(mode, file_format):
    data = stored(scene(mode=mode), file_format)
    assert (decode_pixels(data, "a").int() - by_pillow(data).int()).abs().max() <= 2


def test_colours_behind_transparency_stay():
    picture = scene(mode="RGBA")
    picture.putalpha(0)
    assert torch.equal(decode_pixels(stored(picture, "PNG"), "a"), by_pillow(stored(scene(), "PNG")))


def test_palette_with_transparent_entries_is_read():
    data = stored(scene(mode="P"), "PNG", transparency=bytes([0, 128, 255]))
    assert torch.equal(decode_pixels(data, "a"), by_pillow(stored(scene(mode="P"), "PNG")))


def test_sixteen_bits_become_eight():
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    found = decode_pixels(stored(Image.fromarray(values), "PNG"), "a", 1)
    assert found.tolist() == [[[0, 0, 1, 255]]]


def test_thirty_two_bits_are_refused():
    with pytest.raises(DamagedError, match=r"a: 32 bits a channel \(mode F\), expected 8 or 16"):
        decode_pixels(stored(scene(mode="F"), "TIFF"), "a")


def test_noted_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x112] = 6
    assert decode_pixels(stored(scene(), "JPEG", exif=exif), "a").shape == (3, 40, 60)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_cut_off_file_is_damaged(file_format, tmp_path):
    path = tmp_path / "cut.jpg"
    data = stored(scene(), file_format)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedError, match=r"cut\.jpg: "):
        read_pixels(path)


def test_png_with_a_wrong_checksum_is_damaged():
    data = bytearray(stored(scene(), "PNG"))
    data[len(data) // 2] ^= 255
    with pytest.raises(DamagedError, match=r"^a: "):
        decode_pixels(bytes(data), "a")


def test_jpeg_that_pillow_can_read_is_read():
    data = stored(scene(), "JPEG")
    noted = data[:-2] + bytes(9) + data[-2:]  # decoders that count extraneous bytes as damage refuse it
    assert torch.equal(decode_pixels(noted, "a"), by_pillow(data))


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>"])
def test_other_file_is_damaged(data):
    with pytest.raises(DamagedError, match="a: no picture"):
        decode_pixels(data, "a")


def test_missing_file_is_damaged(tmp_path):
    with pytest.raises(DamagedError, match=r"none\.jpg: No such file"):
        read_pixels(tmp_path / "none.jpg")


def bomb(width, height):
    """A small JPEG whose header claims another size."""
    data = bytearray(stored(scene(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize("side", [9500, 65000])
def test_bomb_is_refused_before_it_is_decoded(side, monkeypatch):
    monkeypatch.setattr(module, "decode_jpeg", None)
    with pytest.raises(DamagedError, match=r"a: .*pixels"):
        decode_pixels(bomb(side, side), "a")


def test_large_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 99)
    (tmp_path / "a.jpg").write_bytes(bytes(100))
    with pytest.raises(DamagedError, match="100 bytes, expected at most 99"):
        read_pixels(tmp_path / "a.jpg")
