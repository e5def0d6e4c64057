"""Bound: its table is the mean over the split, and other methods have none."""

import json

import pytest
import torch

from mmdiffusion.callbacks import Bound
from mmdiffusion.methods.joint_bound import joint_bound
from tests.helpers import Oracle, Pictures, build_method, build_trainer


def test_it_writes_the_mean_over_the_split(tmp_path, capsys):
    method, data = build_method().eval(), Pictures()
    build_trainer(tmp_path, Bound(num_strata=4, batch_size=7)).test(method, datamodule=data, verbose=False)
    figures = json.loads((tmp_path / "bound.json").read_text())
    expected = joint_bound(method, data.rows("test", range(30)), 4)
    row = figures["bound, bits/dim"]
    assert list(row) == ["prior", *(f"diffusion_t{i}" for i in range(1, 5)), "decoder", "image"]
    for name, figure in row.items():
        assert figure["value"] == pytest.approx(expected[name].mean().item(), rel=1e-5)
        assert (figure["num_samples"], figure["num_strata"], figure["num_steps"]) == (30, 4, 50)
    assert figures["-log p, nats"]["label"]["value"] == pytest.approx(expected["label"].mean().item(), rel=1e-5)
    assert "bits/dim" in capsys.readouterr().out


def test_validation_has_a_file_of_its_own(tmp_path):
    trainer = build_trainer(tmp_path, Bound(num_strata=2))
    trainer.validate(build_method(), datamodule=Pictures(), verbose=False)
    assert not (tmp_path / "bound.json").exists()
    assert json.loads((tmp_path / "bound-val.json").read_text())["bound, bits/dim"]["image"]["num_samples"] == 10


def test_measuring_draws_nothing_from_the_global_generator():
    method, batch = build_method(), Pictures().rows("test", range(3))
    torch.manual_seed(4)
    before = torch.get_rng_state()
    joint_bound(method, batch, 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("callback", "method", "message"),
    [
        (lambda: Bound(num_strata=50), build_method, "num_strata is 50: expected 1 to 49"),
        (Bound, Oracle, "Bound has Oracle: expected MTDiffusion"),
    ],
)
def test_what_has_no_bound_is_named_before_training(tmp_path, callback, method, message):
    with pytest.raises(ValueError, match=message):
        build_trainer(tmp_path, callback(), max_steps=1).fit(method(), datamodule=Pictures())


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="num_strata is 0"):
        Bound(num_strata=0)
