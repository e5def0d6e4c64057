"""Shares of terms that are logged without their weights, against gradients taken by hand; every method's parts."""

import pytest
import torch

from mmdiffusion.callbacks import GradientShare
from mmdiffusion.callbacks.gradients import gradient_shares
from mmdiffusion.methods import InterNegatives
from tests.helpers import Pictures, build_batch, build_method, build_trainer, generator
from tests.methods import build_diffdis, build_extras, test_cdcd, test_vq_autoencoder

LAMBDAS = [0.0, 0.1, 1.0, 7.0]


def trained(method):
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def gradient(term, parameters):
    """All of a gradient in one row."""
    parts = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, parts, strict=True)]
    )


def shares(method, losses, terms):
    return gradient_shares(losses["loss"], method.weighed(losses), terms, list(method.parameters()))


def size(term, loss, parameters):
    return float(gradient(term, parameters).norm() / gradient(loss, parameters).norm())


# MT-Diffusion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", LAMBDAS)
def test_the_share_of_an_extra_is_that_of_its_weighed_term(weight):
    """lambda times the gradient of the term as it is logged, over that of MSE + lambda term."""
    method = build_method(weight=weight)
    losses, parameters = method.losses(build_batch(), generator()), trained(method)
    total = losses["mse"] + weight * losses["label"]
    found = shares(method, losses, ["mse", "label"])
    assert found["mse"] == pytest.approx(size(losses["mse"], total, parameters), rel=1e-4)
    assert found["label"] == pytest.approx(size(weight * losses["label"], total, parameters), rel=1e-4)
    assert (found["label"] == 0) == (weight == 0)


@pytest.mark.parametrize("weight", [w for w in LAMBDAS if w])  # uncertainty is refused where nothing has weight
@pytest.mark.parametrize("log_variance", [-2.0, 1.0])
def test_a_learned_uncertainty_counts(weight, log_variance):
    """lambda (exp(-s) L + s), which moves s as well (Kendall et al. 2018, Eq. 7)."""
    method = build_method(weight=weight, uncertainty=True)
    method.log_variance["label"].data.fill_(log_variance)
    losses, parameters = method.losses(build_batch(), generator()), trained(method)
    term = weight * ((-method.log_variance["label"]).exp() * losses["label"] + method.log_variance["label"])
    found = shares(method, losses, ["label"])
    assert found["label"] == pytest.approx(size(term, losses["mse"] + term, parameters), rel=1e-4)


def test_a_term_without_weight_is_logged_with_a_share_of_zero(tmp_path):
    trainer = build_trainer(tmp_path, GradientShare(["mse", "label"], 1), max_epochs=1, limit_val_batches=0)
    trainer.fit(build_method(weight=0.0), datamodule=Pictures())
    assert trainer.callback_metrics["gradient/label"] == 0
    assert trainer.callback_metrics["gradient/mse"] == pytest.approx(1)
    assert trainer.callback_metrics["train/label"] > 0


def test_what_only_informs_has_no_share():
    method = build_method()
    with pytest.raises(ValueError, match="terms has label_absent: expected some of mse, label, the parts of the loss"):
        shares(method, method.losses(build_batch(), generator()), ["label_absent"])


# Every method --------------------------------------------------------------------------------------------------

METHODS = {
    "mt_diffusion": lambda: (build_extras.build(*build_extras.SETTINGS, uncertainty=True), build_extras.batch_of()),
    "diffdis": lambda: (build_diffdis.build(generation_weight=0.7, alignment_weight=0.02), build_diffdis.batch_of()),
    "diffdis without images": lambda: (build_diffdis.build(generation_weight=0.0), build_diffdis.batch_of()),
    "vq_autoencoder": lambda: (
        test_vq_autoencoder.build(squared_weight=0.5, absolute_weight=2.0, commitment_weight=0.3),
        build_batch(),
    ),
    "cdcd": lambda: (
        test_cdcd.build(contrasts=[test_cdcd.CONTRASTS["infonce step shared"](negatives=InterNegatives(2))]),
        build_batch(),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_sum_of_its_parts_and_so_is_its_gradient(name):
    method, batch = METHODS[name]()
    losses, parameters = method.losses(batch, generator()), trained(method)
    parts = method.weighed(losses)
    assert set(parts) < set(losses)
    torch.testing.assert_close(losses["loss"], sum(parts.values()), check_dtype=False)
    total = sum(gradient(part, parameters) for part in parts.values())
    torch.testing.assert_close(gradient(losses["loss"], parameters), total, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["mt_diffusion", "diffdis", "vq_autoencoder"])
def test_terms_are_logged_without_their_weights(name):
    """So that curves of two weights compare: the parts are not what is logged."""
    method, batch = METHODS[name]()
    losses = method.losses(batch, generator())
    assert any(not torch.equal(part, losses[term]) for term, part in method.weighed(losses).items())


def test_diffdis_shares_by_hand():
    method, batch = METHODS["diffdis"]()
    losses, parameters = method.losses(batch, generator()), trained(method)
    found = shares(method, losses, ["generation", "alignment"])
    total = 0.7 * losses["generation"] + 0.02 * losses["alignment"]
    assert found["generation"] == pytest.approx(size(0.7 * losses["generation"], total, parameters), rel=1e-4)
    assert found["alignment"] == pytest.approx(size(0.02 * losses["alignment"], total, parameters), rel=1e-4)
