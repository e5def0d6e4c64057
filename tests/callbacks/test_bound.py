"""Bound: its table is the mean over the split, and other methods have none."""

import json
import math

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
    nats = {name: values.mean().item() for name, values in expected.items()}
    assert list(nats) == ["prior", *(f"diffusion_t{i}" for i in range(1, 5)), "decoder", "image", "label"]
    assert nats["image"] == pytest.approx(sum(nats[name] for name in list(nats)[:-2]), rel=1e-5)
    of_image = {name: value for name, value in nats.items() if name != "label"}
    written = {metric: {name: figure["value"] for name, figure in row.items()} for metric, row in figures.items()}
    assert list(written) == ["bound, bits/dim", "bound, nats", "-log p, nats", "-log p x T, nats"]
    assert written["bound, nats"] == pytest.approx(of_image, rel=1e-5)
    assert written["bound, bits/dim"] == pytest.approx({n: v / 64 / math.log(2) for n, v in nats.items()}, rel=1e-5)
    assert written["-log p, nats"] == pytest.approx({"label": nats["label"]}, rel=1e-5)
    assert written["-log p x T, nats"] == pytest.approx({"label": 50 * nats["label"]}, rel=1e-5)
    for figure in (figure for row in figures.values() for figure in row.values()):
        assert (figure["num_samples"], figure["num_strata"], figure["num_steps"]) == (30, 4, 50)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80, "as wide as a terminal"
    assert any(line.split() == ["image", *(f"{written[m]['image']:.4g}" for m in list(written)[:2])] for line in lines)


def test_without_extras_there_is_no_row_of_them(tmp_path):
    trainer = build_trainer(tmp_path, Bound(num_strata=2))
    trainer.test(build_method(extras={}), datamodule=Pictures(), verbose=False)
    assert list(json.loads((tmp_path / "bound.json").read_text())) == ["bound, bits/dim", "bound, nats"]


@pytest.mark.parametrize(("limit", "expected"), [(2, 20), (0.5, 15)])
def test_a_limit_of_the_trainer_holds(tmp_path, limit, expected):
    trainer = build_trainer(tmp_path, Bound(num_strata=2), limit_test_batches=limit)
    trainer.test(build_method(), datamodule=Pictures(), verbose=False)
    written = json.loads((tmp_path / "bound.json").read_text())["bound, nats"]["image"]
    assert written["num_samples"] == expected


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
        (
            lambda: Bound(num_strata=2),
            lambda: build_method(absent_share=0.2, shown_share=0.8),
            "absent_share and shown_share of label are 1 in sum: .* leave Bound out of this run",
        ),
    ],
)
def test_what_has_no_bound_is_named_before_training(tmp_path, callback, method, message):
    with pytest.raises(ValueError, match=message):
        build_trainer(tmp_path, callback(), max_steps=1).fit(method(), datamodule=Pictures())


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="num_strata is 0"):
        Bound(num_strata=0)
