"""Rounding to 8 bits, the small classifier, and Inception-v3 from a file of random weights."""

import copy
import pickle

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3

from mmdiffusion.metrics import InceptionFeatures, SmallClassifier, to_uint8
from mmdiffusion.metrics.features import INCEPTION_FILE, as_stored


def single(value):
    return torch.full((1, 1, 1, 1), value)


@pytest.mark.parametrize(
    ("value", "level"),
    [(-1.0, 0), (1.0, 255), (1.004, 255), (1.01, 255), (-1.2, 0), (float("inf"), 255), (254.6 / 127.5 - 1, 255)],
)
def test_to_uint8_clamps_and_rounds(value, level):
    assert to_uint8(single(value)).item() == level


def test_to_uint8_inverts_every_level():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels)
    assert torch.equal(to_uint8(as_stored(levels.double() / 127.5 - 1)), levels)


def test_to_uint8_rounds_half_precision_like_single():
    values = torch.linspace(-1, 1, 4096).view(1, 1, 64, 64).half()
    assert torch.equal(to_uint8(values), to_uint8(values.float()))


def test_to_uint8_refuses_nan():
    images = torch.zeros(3, 1, 2, 2)
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"images: 1 of 3 hold NaN"):
        to_uint8(images)


def test_classifier_reads_held_out_digits(classifier, digits):
    predicted = classifier.logits(digits.test_images).argmax(1)
    assert (predicted == digits.test_labels).double().mean() >= 0.97
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_classifier_features_do_not_depend_on_batches(classifier, digits):
    images = digits.test_images
    parts = torch.cat([classifier.features(part) for part in images.split(7)])
    assert parts.shape == (len(images), classifier.num_features)
    torch.testing.assert_close(parts, classifier.features(images), rtol=1e-5, atol=1e-4)


def test_classifier_sees_eight_bits(classifier, digits):
    images = digits.test_images[:4]
    assert torch.equal(classifier.features(images), classifier.features(images + 1e-4))
    assert torch.equal(classifier.features(images), classifier.features(as_stored(images)))


def weights(extractor):
    return torch.cat([parameter.flatten() for parameter in extractor.parameters()])


def test_classifier_fit_is_deterministic_and_leaves_the_global_generator(digits):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, second, other = (SmallClassifier(num_steps=5, seed=seed) for seed in (0, 0, 1))
    first.fit(digits.train_images, digits.train_labels)
    torch.set_num_threads(2)
    second.fit(digits.train_images, digits.train_labels)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    other.fit(digits.train_images, digits.train_labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_classifier_fit_again_starts_afresh(digits):
    once, twice = SmallClassifier(num_steps=3), SmallClassifier(num_steps=3)
    once.fit(digits.train_images, digits.train_labels)
    twice.fit(digits.train_images[:100], digits.train_labels[:100])
    twice.fit(digits.train_images, digits.train_labels)
    assert torch.equal(weights(once), weights(twice))


def test_classifier_fits_in_inference_mode(digits):
    extractor = SmallClassifier(num_steps=2)
    with torch.inference_mode():
        extractor.fit(digits.train_images * 1, digits.train_labels * 1)
        inside = extractor.features(digits.test_images[:2])
    assert torch.equal(extractor.features(digits.test_images[:2]), inside)


def test_classifier_ignores_autocast(classifier, digits):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = classifier.logits(digits.test_images[:2])
    assert inside.dtype == torch.float32
    assert torch.equal(inside, classifier.logits(digits.test_images[:2]))


def test_classifier_errors_say_what_to_do(digits):
    images, labels = digits.train_images[:20], digits.train_labels[:20]
    with pytest.raises(ValueError, match=r"'digits-cnn'.*call fit"):
        SmallClassifier().features(images)
    with pytest.raises(ValueError, match=r"'digits-cnn'.*call fit"):
        SmallClassifier().logits(images)
    with pytest.raises(ValueError, match=r"channels: found images with 1, expected 3; set channels=1"):
        SmallClassifier(channels=3).fit(images, labels)
    with pytest.raises(ValueError, match=r"num_classes: found labels 0 to 9, expected 0 to 4; set num_classes=10"):
        SmallClassifier(num_classes=5).fit(images, torch.arange(20) % 10)
    with pytest.raises(ValueError, match=r"labels: found 0 training images"):
        SmallClassifier().fit(images[:0], labels[:0])


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A weights file of torch-fidelity's own network as initialised, made without its download."""
    path = tmp_path_factory.mktemp("weights") / INCEPTION_FILE
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network_class = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(network_class, "load_state_dict", lambda *_: None)
        network = network_class("inception-v3-compat", ["2048"])
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):  # PyTorch's own start would shrink the image to nothing
                torch.nn.init.kaiming_normal_(layer.weight)
        torch.save(network.state_dict(), path)
    return str(path)


def test_inception_equals_torch_fidelity(random_weights, generator):
    images = torch.rand(2, 3, 8, 8, generator=generator) * 2.4 - 1.2
    pixels = ((images.clamp(-1, 1) + 1) * 127.5 + 0.5).floor().to(torch.uint8)
    network = feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], random_weights
    )
    features, logits = network(pixels)
    extractor = InceptionFeatures(random_weights, chunk_size=1)
    torch.testing.assert_close(extractor.features(images), features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(extractor.logits(images), logits)
    assert features.shape == (2, extractor.num_features)
    assert features.std(0).mean() > 0.01 * features.mean(), "features blind to the image would prove nothing"


def test_inception_repeats_grey_and_refuses_four_channels(random_weights, generator):
    grey = torch.rand(1, 1, 8, 8, generator=generator)
    extractor = InceptionFeatures(random_weights)
    assert torch.equal(extractor.features(grey), extractor.features(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"images: found 4 channels, expected 1 \(grey\) or 3"):
        extractor.features(torch.zeros(1, 4, 8, 8))


def test_inception_carries_no_weights(random_weights):
    extractor = InceptionFeatures(random_weights)
    extractor.fit(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))
    assert not extractor.state_dict()
    assert len(pickle.dumps(extractor)) < 10_000
    assert copy.deepcopy(extractor).signature() == extractor.signature()
    assert "inception-v3@" in extractor.signature()


def test_inception_names_a_missing_or_wrong_file(tmp_path):
    with pytest.raises(ValueError, match=r"weights_path: found no file at .*absent\.pth.*torch-fidelity/releases"):
        InceptionFeatures(str(tmp_path / "absent.pth"))
    wrong = {"other network": {"weight": torch.zeros(1)}, "no dictionary": torch.zeros(2)}
    for kind, content in wrong.items():
        path = tmp_path / f"{kind}.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"weights_path: .*does not hold the weights of Inception-v3"):
            InceptionFeatures(str(path)).features(torch.zeros(1, 3, 8, 8))
    (tmp_path / "text.pth").write_text("not found")
    with pytest.raises(ValueError, match=r"weights_path: .*text\.pth"):
        InceptionFeatures(str(tmp_path / "text.pth")).features(torch.zeros(1, 3, 8, 8))


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def test_inception_does_not_run_code_from_a_file(tmp_path):
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match=r"weights_path: .*trap\.pth"):
        InceptionFeatures(str(tmp_path / "trap.pth")).features(torch.zeros(1, 3, 8, 8))
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "trap.pth", weights_only=False)
    assert (tmp_path / "sprung").exists(), "a trap that cannot spring would prove nothing"


def test_inception_refuses_an_empty_chunk(random_weights):
    with pytest.raises(ValueError, match=r"chunk_size: found 0, expected at least 1"):
        InceptionFeatures(random_weights, chunk_size=0)
