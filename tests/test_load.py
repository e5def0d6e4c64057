"""A trained method comes back from its run folder or checkpoint, and nothing else is taken for one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmdiffusion
from mmdiffusion.methods import MTDiffusion
from tests.helpers import ROOT, fit_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def trained(folder):
    """The model as training left it, with its average in place."""
    return fit_run(folder).model.eval()


def sampled(method):
    image = method.sample({"label": torch.arange(10)}, seeds=list(range(10)))["image"]
    assert isinstance(image, torch.Tensor)
    return image


@pytest.mark.parametrize("place", ["run", "run/checkpoints/last.ckpt"])
@pytest.mark.parametrize("kind", [str, Path])
def test_samples_equal_the_trained_model_s(folder, trained, place, kind):
    method = mmdiffusion.load(kind(folder / place))
    assert isinstance(method, MTDiffusion)
    assert not method.training
    assert torch.equal(sampled(method), sampled(trained))
    image = {"image": sampled(trained), "index": torch.arange(10)}
    assert torch.equal(method.classify(image), trained.classify(image))


def test_settings_come_back(folder, trained):
    method = mmdiffusion.load(folder / "run")
    for name in ("steps", "seed", "sampler", "read_steps"):
        assert getattr(method, name) == getattr(trained, name)


def test_loading_leaves_the_global_generator(folder, trained):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    mmdiffusion.load(folder / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_example_of_the_readme_runs_in_a_process_of_its_own(folder, trained):
    """A process of its own: the shape checks of the tests change how Lightning sees a constructor."""
    example, _ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    code = (
        example.replace("runs/mine", str(folder / "run")) + "print(tuple(digits.shape), tuple(probabilities.shape))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(10, 1, 8, 8) (10, 10)\n"


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"hyper_parameters": {"_class_path": "x"}, "state_dict": Trap(tmp_path / "sprung")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt: not a checkpoint of mmdiffusion"):
        mmdiffusion.load(tmp_path / "a.ckpt")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert (tmp_path / "sprung").exists(), "a trap that cannot spring would prove nothing"


def test_the_reason_of_a_refusal_is_short(tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt") as caught:
        mmdiffusion.load(tmp_path / "a.ckpt")
    message = str(caught.value)
    assert len(message) < 400
    assert "weights_only=False" not in message
    assert "weights_only` to `False`" not in message, "no advice to run foreign code"


def test_a_path_without_anything_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.ckpt: no such file"):
        mmdiffusion.load(tmp_path / "absent.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt: no such file"):
        mmdiffusion.load(tmp_path)


CONTENTS = {
    "no method": {"state_dict": {}},
    "no class": {"hyper_parameters": {"steps": 3}},
    "a list": [1, 2],
    "a tensor": torch.zeros(2),
    "hyper-parameters of another kind": {"hyper_parameters": 3},
    "an unknown class": {"hyper_parameters": {"_class_path": "mmdiffusion.methods.Other"}, "state_dict": {}},
    "a foreign class": {"hyper_parameters": {"_class_path": "os.system"}, "state_dict": {}},
}


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_a_checkpoint_that_is_not_ours_is_named(tmp_path, contents):
    torch.save(contents, tmp_path / "strange.ckpt")
    with pytest.raises(ValueError, match=r"strange\.ckpt"):
        mmdiffusion.load(tmp_path / "strange.ckpt")


@pytest.mark.parametrize("text", ["", "hello"])
def test_a_text_file_is_named(tmp_path, text):
    (tmp_path / "text.ckpt").write_text(text)
    with pytest.raises(ValueError, match=r"text\.ckpt: not a checkpoint of mmdiffusion"):
        mmdiffusion.load(tmp_path / "text.ckpt")


def test_a_truncated_checkpoint_is_named(folder, trained, tmp_path):
    whole = (folder / "run" / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.ckpt: not a checkpoint of mmdiffusion"):
        mmdiffusion.load(tmp_path / "cut.ckpt")
