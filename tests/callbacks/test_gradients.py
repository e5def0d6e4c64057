"""How much of the gradient a term makes: closed forms, and a training that does not notice."""

import pytest
import torch

from mmdiffusion.callbacks import GradientShare
from mmdiffusion.callbacks.gradients import gradient_shares, undisturbed
from mmdiffusion.methods import InterNegatives
from tests.helpers import Oracle, Pictures, build_trainer, weights
from tests.methods.test_cdcd import CONTRASTS, build, loss


class TwoTerms(Oracle):
    """Draws noise and has two terms of the one weight: 3 w n and w^2, and one that has no gradient."""

    def losses(self, batch, generator):
        noise = torch.rand((), generator=generator) + 1
        linear, square = 3 * self.weight.sum() * noise, self.weight.square().sum()
        return {"loss": linear + square, "linear": linear, "square": square, "constant": noise}


def fitted(folder, *callbacks):
    method = TwoTerms()
    method.weight.data.fill_(2.0)
    trainer = build_trainer(folder, *callbacks, max_epochs=2, limit_val_batches=0)
    trainer.fit(method, datamodule=Pictures())
    return method, trainer


def test_shares_by_hand():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
    terms = {"square": weight.square().sum(), "linear": -weight[0] * frozen.sum()}
    loss, parts = terms["square"] + terms["linear"], {**terms, "none": torch.ones(())}
    shares = gradient_shares(loss, parts, ["square", "linear", "none"], [weight, frozen])
    total = (5**2 + 8**2) ** 0.5
    assert shares == pytest.approx({"square": 10 / total, "linear": 1 / total, "none": 0})
    assert weight.grad is None


def test_an_unknown_term_is_named():
    weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"terms has speed: expected some of bound, the parts of the loss"):
        gradient_shares(weight.sum(), {"bound": weight.sum()}, ["speed"], [weight])


def test_a_share_is_logged_and_training_stays_the_same(tmp_path):
    plain, _ = fitted(tmp_path)
    watched, trainer = fitted(tmp_path, GradientShare(["square", "linear"], every_n_steps=1))
    assert all(torch.equal(weights(plain)[name], tensor) for name, tensor in weights(watched).items())
    shares = [trainer.callback_metrics[f"gradient/{name}"] for name in ("linear", "square")]
    # parallel gradients while the weight is positive: shares add up to one
    assert float(sum(shares)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", CONTRASTS)
def test_the_gradient_of_cdcds_loss_is_that_of_its_terms(name):
    method = build(contrasts=[CONTRASTS[name](negatives=InterNegatives(2))])
    losses = loss(method)
    parameters = [p for p in method.parameters() if p.requires_grad]

    def gradient(term):
        parts = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, parts, strict=True)]
        )

    total = sum(gradient(losses[term]) for term in ("bound", "auxiliary", "contrast"))
    assert torch.allclose(gradient(losses["loss"]), total, atol=1e-5)
    shares = gradient_shares(losses["loss"], method.weighed(losses), ["contrast"], parameters)
    assert shares["contrast"] == pytest.approx(float(gradient(losses["contrast"]).norm() / total.norm()), rel=1e-4)
    assert shares["contrast"] > 0


def test_what_a_method_remembers_of_training_stays():
    method = build(contrasts=[CONTRASTS["linear step shared"](negatives=InterNegatives(2, bank_size=8))])
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    buffers = [id(buffer) for buffer in method.buffers()]
    with undisturbed(method):
        loss(method)
        assert any(not torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    assert [id(buffer) for buffer in method.buffers()] == buffers
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    assert method.training


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        GradientShare(["contrast"], every_n_steps=0)
