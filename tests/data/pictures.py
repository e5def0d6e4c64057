"""Picture files for the tests of data sets."""

import io

import numpy as np
from PIL import Image


def scene(width=60, height=40, mode="RGB"):
    """Smooth waves with some noise, as photographs have."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 5 + k) * np.cos(columns / (7 + k)) for k in range(3)], -1) * 90 + 128
    noise = np.random.default_rng(0).normal(0, 12, waves.shape)
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def stored(picture, file_format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def save(path, width=60, height=40, mode="RGB", file_format="JPEG"):
    """Write a picture file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored(scene(width, height, mode), file_format))
