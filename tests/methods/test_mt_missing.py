"""MT-Diffusion on batches that lack an extra: it is absent for all their samples, in one process or several."""

import pytest
import torch

from mmdiffusion.methods.extras import NUM_BINS, Extra
from mmdiffusion.seeding import step_generator
from tests.helpers import Pictures, build_batch, build_method, build_trainer, generator
from tests.methods.build_extras import SETTINGS, batch_of, build
from tests.methods.missing_worker import LACKS, RATE, model
from tests.resuming import differences, run_two

FROM_DATA = ("label", "segmentation", "feature", "feature_map")


def without(batch, *names):
    return {name: values for name, values in batch.items() if name not in names}


def always_absent(name):
    """All extras, one of which training has nowhere."""
    extra = SETTINGS[name]
    return SETTINGS | {name: Extra(extra.encoder, extra.head, extra.drift, absent_share=1.0, shown_share=0.0)}


# One process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FROM_DATA)
def test_what_a_batch_lacks_is_absent_and_nothing_else_changes(name):
    """The same weights trained with it absent, from a whole batch: the image and the other extras, to the bit."""
    lacking = build(*SETTINGS).losses(without(batch_of(), name), generator())
    absent = build(*SETTINGS, settings=always_absent(name)).losses(batch_of(), generator())
    assert not {name, f"{name}_absent"} & set(lacking)
    for term in set(absent) - {"loss", name, f"{name}_absent"}:
        assert torch.equal(lacking[term], absent[term]), term
    torch.testing.assert_close(lacking["loss"], absent["loss"] - 0.1 * absent[name])


def test_every_weight_has_a_gradient_and_those_of_what_is_lacking_are_zero():
    method = build(*SETTINGS, uncertainty=True)
    loss = method.losses(without(batch_of(64), *FROM_DATA), generator())["loss"]
    names, parameters = zip(*method.named_parameters(), strict=True)
    gradients = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))  # which refuses unused ones
    for extra in FROM_DATA:
        own = {n for n in gradients if n.startswith(f"network.extras.{extra}.") or n == f"log_variance.{extra}"}
        moved = {name for name in own if gradients[name].any()}
        assert moved == {f"network.extras.{extra}.teller.absent"}, "the network is told that it is nowhere"


def test_a_loss_that_is_not_finite_does_not_count_in_the_residual_variance():
    extra, shares = build("feature").extra("feature"), torch.full((3,), 0.5)
    extra.remember(torch.tensor([2.0, torch.inf, torch.nan]), shares, torch.ones(3, dtype=torch.bool))
    kept = extra.variance.clone()
    extra = build("feature").extra("feature")
    extra.remember(torch.tensor([2.0]), shares[:1], torch.ones(1, dtype=torch.bool))
    assert torch.equal(kept, extra.variance)
    assert not torch.equal(kept, torch.ones(NUM_BINS))


def test_the_residual_variance_stays():
    method = build("feature", "feature_map")
    method.losses(without(batch_of(64), "feature"), generator())
    assert torch.equal(method.extra("feature").variance, torch.ones(NUM_BINS))
    assert not torch.equal(method.extra("feature_map").variance, torch.ones(NUM_BINS))


class Lacking(Pictures):
    """Pictures without labels in some stages."""

    def __init__(self, *stages):
        super().__init__()
        self.stages = stages

    def on_after_batch_transfer(self, batch, dataloader_idx):
        assert self.trainer is not None
        return without(batch, "label") if self.trainer.state.stage in self.stages else batch


def test_a_loss_that_is_none_is_not_logged(tmp_path):
    trainer = build_trainer(tmp_path, max_steps=2, limit_val_batches=0)
    trainer.fit(build_method(), datamodule=Lacking("train"))
    assert {"train/loss", "train/mse"} == set(trainer.callback_metrics)


def test_without_images_nothing_trains():
    with pytest.raises(ValueError, match="a batch has label, index: expected image as well"):
        build_method().losses(without(build_batch(), "image"), generator())
    with pytest.raises(ValueError, match=r"a batch has image\.mean: expected image as well, for masked"):
        build("masked").losses({"image.mean": batch_of()["image"]}, generator())


def test_data_without_what_is_asked_for_are_named():
    with pytest.raises(ValueError, match="the data have index, image, label: expected caption as well"):
        Pictures().rows("test", range(3), ["image", "caption"])


def test_validation_and_prediction_need_all(tmp_path):
    trainer = build_trainer(tmp_path)
    with pytest.raises(ValueError, match="a batch has index, image: expected label as well, for validation"):
        trainer.validate(build_method(), datamodule=Lacking("validate"), verbose=False)
    with pytest.raises(ValueError, match="a batch has index, image: expected label as well, for samples"):
        trainer.predict(build_method(), datamodule=Lacking("predict"))


# Two processes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `missing_worker.py` found in each of two processes."""
    folder = tmp_path_factory.mktemp("missing")
    processes, errors = run_two("methods/missing_worker.py", folder, timeout=240)
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_two_processes_end_alike(found):
    first, second = (one["last"] for one in found)
    assert first["steps"] == second["steps"] == 4
    assert differences(first, second) == []


def test_each_logs_what_it_has(found):
    for one, lacks in zip(found, LACKS, strict=True):
        assert f"train/{lacks}" not in one["logged"]
        assert {"train/label", "train/feature"} & set(one["logged"])


def test_their_step_is_down_the_mean_gradient(found):
    """Each process by itself, with its noise; the residual variance is that of the one that has features."""
    expected, gradients = model(), []
    for rank, one in enumerate(found):
        batch = without({name: values[one["rows"]] for name, values in batch_of(16).items()}, LACKS[rank])
        draws = step_generator(0, "train", 0, rank=rank, world_size=2, device="cpu")
        gradients.append(torch.autograd.grad(expected.losses(batch, draws)["loss"], list(expected.parameters())))
    with torch.no_grad():
        for parameter, first, second in zip(expected.parameters(), *gradients, strict=True):
            parameter.sub_(RATE * (first + second) / 2)
    assert (expected.extra("feature").variance != 1).any()
    for one in found:
        for name, values in expected.state_dict().items():
            torch.testing.assert_close(one["state"][name], values, rtol=1e-5, atol=1e-6, msg=name)
