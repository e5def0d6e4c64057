"""Peak signal-to-noise ratio against torchmetrics and by hand; errors of what could be seen, pixel by pixel."""

import itertools
import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from mmdiffusion.masks import paste
from mmdiffusion.metrics import PeakSignalNoiseRatio, VisibleError
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


def seen_of(image, seed=2):
    visible = (torch.rand(len(image), 1, 4, 4, generator=generator(seed)) < 0.6).float()
    return torch.cat([image * visible, visible], dim=1)


def test_the_error_of_what_could_be_seen_pixel_by_pixel():
    metric, squares = VisibleError(), []
    for restored, image in (pair(), pair(3, 5)):
        masked = seen_of(image)
        metric.update(restored, masked)
        squares += [
            (restored[sample, channel, row, column] - image[sample, channel, row, column]).item() ** 2
            for sample in range(len(image))
            for channel, row, column in itertools.product(range(3), range(4), range(4))
            if masked[sample, 3, row, column] == 1
        ]
    assert metric.compute().item() == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-6)
    assert metric.protocol() == {"pooled": "over all visible numbers", "num_values": len(squares), "num_samples": 10}


def test_what_is_put_back_has_no_error_and_what_is_hidden_does_not_count():
    (restored, image), metric = pair(), VisibleError()
    masked = seen_of(image)
    metric.update(paste(restored, masked), masked)
    assert metric.compute() == 0
    assert (metric.name(), metric.inputs) == ("visible_error[masked]", ("image", "masked"))


def test_with_nothing_to_be_seen_there_is_no_error():
    metric = VisibleError()
    metric.update(pair()[1], torch.zeros(7, 4, 4, 4))
    assert metric.compute() == 0
    assert metric.protocol()["num_values"] == 0


def test_no_samples_and_other_shapes_are_named():
    image, metric = pair()[1], VisibleError()
    with pytest.raises(ValueError, match=r"visible_error\[masked\]: found 0 samples"):
        metric.compute()
    with pytest.raises(ValueError, match=r"masked is \(7, 3, 4, 4\) beside images of \(7, 3, 4, 4\): expected"):
        metric.update(image, image)
