"""Frechet distance against closed forms, torch-fidelity and torchmetrics."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch_fidelity
from scipy import linalg
from torch_fidelity import metric_fid
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torchmetrics.image.fid import FrechetInceptionDistance

from mmdiffusion.metrics import FeatureExtractor, FrechetDistance, InceptionScore, frechet, frechet_distance, to_uint8


@pytest.fixture
def images(generator):
    """Two sets of colour images (40 and 50 of 3 x 4 x 4) of different brightness, some beyond [-1, 1]."""
    return torch.rand(40, 3, 4, 4, generator=generator) * 2.2 - 1.1, torch.randn(50, 3, 4, 4, generator=generator) / 3


def measured(extractor, real, fake, batch_size=16):
    metric = FrechetDistance(extractor)
    for part in real.split(batch_size):
        metric.update(part, real=True)
    for part in fake.split(batch_size):
        metric.update(part)
    return metric


def test_closed_form_of_diagonal_gaussians():
    mean1, mean2 = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 2.0, 0.5])
    deviation1, deviation2 = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 0.5, 1.5])
    expected = (mean1 - mean2).square().sum() + (deviation1 - deviation2).square().sum()
    distance = frechet_distance(mean1, deviation1.square().diag(), mean2, deviation2.square().diag())
    assert distance.dtype == torch.float64
    assert distance.item() == pytest.approx(expected.item(), rel=1e-12)


def test_distance_equals_the_matrix_square_root(generator):
    factors = torch.randn(2, 9, 7, generator=generator, dtype=torch.float64)
    means = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    cov1, cov2 = factors.mT @ factors
    root = np.trace(linalg.sqrtm((cov1 @ cov2).numpy())).real
    expected = (means[0] - means[1]).square().sum() + cov1.trace() + cov2.trace() - 2 * root
    assert frechet_distance(means[0], cov1, means[1], cov2).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("smallest", [1e-3, 1e-5, 1e-9, 0.0])
@pytest.mark.parametrize("block", [16, 512])
def test_narrow_covariances_keep_their_digits(smallest, block, generator, monkeypatch):
    """Covariances that share their axes, where each standard deviation is known: the distance is theirs."""
    monkeypatch.setattr(frechet, "BLOCK", block)
    axes, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))
    first = torch.logspace(0, -1, 60, dtype=torch.float64)
    first[30:] *= smallest
    second = first.flip(0)
    covariances = [axes * deviation.square() @ axes.T for deviation in (first, second)]
    mean = torch.zeros(60)
    distance = frechet_distance(mean, covariances[0], mean, covariances[1])
    assert distance.item() == pytest.approx((first - second).square().sum().item(), rel=1e-6)


def test_the_short_way_is_taken_where_it_is_safe(generator, monkeypatch):
    features = torch.randn(200, 40, generator=generator, dtype=torch.float64)
    mean, covariance = features.mean(0), features.T.cov()
    expected = frechet_distance(mean, covariance, mean + 1, 2 * covariance)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    monkeypatch.setattr(torch.linalg, "svdvals", None)
    assert torch.equal(frechet_distance(mean, covariance, mean + 1, 2 * covariance), expected)
    by_hand = 40 + (1 - math.sqrt(2)) ** 2 * covariance.trace()
    assert expected.item() == pytest.approx(by_hand.item(), rel=1e-10)
    with pytest.raises(TypeError):
        frechet_distance(mean, features[:20].T.cov(), mean, covariance)


def test_rank_deficient_set_is_at_distance_zero_from_itself(generator):
    features = torch.randn(20, 100, generator=generator, dtype=torch.float64)
    mean, covariance = features.mean(0), features.T.cov()
    assert abs(frechet_distance(mean, covariance, mean, covariance).item()) < 1e-11


def test_equals_torch_fidelity_on_the_same_features(projection, images):
    statistics = [metric_fid.fid_features_to_statistics(projection.features(part).double()) for part in images]
    expected = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID]
    assert expected > 0.01
    assert measured(projection, *images).compute().item() == pytest.approx(expected, rel=1e-9)


class Pixels(torch.utils.data.Dataset):
    """8-bit images as torch-fidelity reads them."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index]


class FidelityProjection(FeatureExtractorBase):
    """The tiny projection behind torch-fidelity's interface; `source` is set by the test."""

    source: FeatureExtractor

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return {"fid": "features", "isc": "logits"}[metric]

    def forward(self, pixels):
        values = pixels.float() / 127.5 - 1
        outputs = {"features": self.source.features(values), "logits": self.source.logits(values)}
        return tuple(outputs[name] for name in self.features_list)


def test_equals_torch_fidelity_end_to_end(projection, images, monkeypatch):
    monkeypatch.setattr(FidelityProjection, "source", projection, raising=False)
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "mmdiffusion-projection", FidelityProjection)
    real, fake = images
    expected = torch_fidelity.calculate_metrics(
        input1=Pixels(to_uint8(fake)),
        input2=Pixels(to_uint8(real)),
        feature_extractor="mmdiffusion-projection",
        fid=True,
        isc=True,
        isc_splits=1,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    score = InceptionScore(projection, split_size=len(fake))
    score.update(fake)
    distance = measured(projection, real, fake).compute().item()
    assert distance == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)
    assert score.compute().item() == pytest.approx(expected["inception_score_mean"], rel=1e-6)


class Callable(torch.nn.Module):
    """The tiny projection as torchmetrics calls an extractor."""

    def __init__(self, extractor):
        super().__init__()
        self.extractor, self.num_features = extractor, extractor.num_features

    def forward(self, images):
        return self.extractor.features(images)


def test_equals_torchmetrics(projection, images):
    peer = FrechetInceptionDistance(Callable(projection), input_img_size=(3, 4, 4))
    peer.update(images[0], real=True)
    peer.update(images[1], real=False)
    assert measured(projection, *images).compute().item() == pytest.approx(peer.compute().item(), rel=1e-5)


def test_batches_and_order_do_not_matter(projection, images):
    real, fake = images
    whole = measured(projection, real, fake, batch_size=64).compute().item()
    assert measured(projection, real.flip(0), fake.flip(0), batch_size=1).compute().item() == pytest.approx(whole)


def test_identical_sets_are_at_distance_zero_and_others_are_not(classifier, digits):
    real = digits.test_images
    assert abs(measured(classifier, real, real).compute().item()) < 1e-8
    halves = measured(classifier, real[:270], real[270:]).compute().item()
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert 0 < 5 * halves < measured(classifier, real, noise).compute().item()


def test_protocol_counts_and_reset(projection, images):
    metric = measured(projection, *images)
    assert metric.name() == "fid[projection]"
    assert metric.num_samples == 0
    metric.compute()
    assert metric.protocol() == {
        "extractor": "random projection",
        "num_samples": 50,
        "num_references": 40,
        "covariance": "unbiased",
    }
    metric.reset()
    assert (metric.num_samples, metric.num_references) == (0, 0)
    with pytest.raises(ValueError, match=r"fid\[projection\]: found 0 samples and 0 references"):
        metric.compute()


@pytest.mark.parametrize(("num_real", "num_fake"), [(1, 5), (5, 1), (5, 0)])
def test_too_few_samples(projection, images, num_real, num_fake):
    metric = measured(projection, images[0][:num_real], images[1][:num_fake])
    with pytest.raises(ValueError, match=f"found {num_fake} samples and {num_real} references, expected at least 2"):
        metric.compute()


def test_extractor_is_no_part_of_the_metric(projection):
    metric = FrechetDistance(projection)
    assert not metric.state_dict()
    assert not list(metric.parameters())
    assert not list(metric.children())


def test_copies_and_pickles(classifier, digits):
    metric = measured(classifier, digits.test_images[:100], digits.test_images[100:200])
    copies = [copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()]
    for other in [metric, *copies]:
        other.update(digits.test_images[200:300])
    values = [other.compute().item() for other in [metric, *copies]]
    assert math.isfinite(values[0])
    assert values == [values[0]] * 4
    assert copies[0].extractor is not metric.extractor


def test_fit_reaches_the_extractor(projection, monkeypatch, images):
    calls = []
    monkeypatch.setattr(type(projection), "fit", lambda *arguments: calls.append(arguments[1:]))
    labels = torch.zeros(40, dtype=torch.long)
    FrechetDistance(projection).fit(images[0], labels)
    InceptionScore(projection).fit(images[0], labels)
    assert [call[0] is images[0] and call[1] is labels for call in calls] == [True, True]
