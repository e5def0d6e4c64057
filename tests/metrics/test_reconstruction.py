"""Peak signal-to-noise ratio against torchmetrics and by hand."""

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from mmdiffusion.metrics import PeakSignalNoiseRatio
from tests.helpers import generator


def pair(size=7, seed=0):
    data = torch.rand(size, 3, 4, 4, generator=generator(seed)) * 2 - 1
    return (data + 0.2 * torch.randn(data.shape, generator=generator(seed + 1))).clamp(-1, 1), data


def measured(*batches):
    metric = PeakSignalNoiseRatio()
    for batch in batches:
        metric.update(*batch)
    return metric.compute().item(), metric


def test_it_equals_torchmetrics():
    first, second = pair(), pair(3, 5)
    value, metric = measured(first, second)
    estimate, data = (torch.cat(parts) for parts in zip(first, second, strict=True))
    expected = peak_signal_noise_ratio(estimate.double(), data.double(), data_range=2.0)
    assert value == pytest.approx(expected.item(), rel=1e-6)
    assert metric.protocol()["num_samples"] == 10


def test_an_error_of_one_level_in_two_hundred_and_fifty_five():
    """48.13 dB, as for any 8-bit picture that is off by one everywhere."""
    data = torch.zeros(2, 1, 4, 4)
    assert measured((data + 2 / 255, data))[0] == pytest.approx(20 * math.log10(255), rel=1e-5)


def test_equal_data_have_no_noise():
    assert measured((pair()[1], pair()[1]))[0] == math.inf


def test_names_and_an_empty_measurement():
    metric = PeakSignalNoiseRatio("music")
    assert (metric.name(), metric.inputs) == ("psnr[music]", ("reconstruction", "music"))
    restored = PeakSignalNoiseRatio("reference_image", "image")
    assert (restored.name(), restored.inputs) == ("psnr[image]", ("image", "reference_image"))
    with pytest.raises(ValueError, match=r"psnr\[music\]: found 0 samples"):
        metric.compute()
