"""Classes of a user's own: commands about a run import what its settings name; loading a checkpoint does not."""

import json
import re
import sys

import pytest
import torch

import mmdiffusion
from tests.helpers import CONFIG, command, write_config

MODULE = """
from pathlib import Path

from mmdiffusion.methods import MTDiffusion
from mmdiffusion.nn import TableEncoder

Path(__file__).with_name("imported").touch()


class Mine(MTDiffusion):
    pass


class MyEncoder(TableEncoder):
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A run of a method and a part of `own_parts`, which nothing has imported since; `own/imported` tells if it was."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    settings = json.loads(json.dumps(CONFIG["model"]["init_args"]))
    settings["extras"]["label"]["encoder"]["class_path"] = "own_parts.MyEncoder"
    config = write_config(
        tmp_path / "own.yaml", CONFIG | {"model": {"class_path": "own_parts.Mine", "init_args": settings}}
    )
    status, _, error = command("fit", "-c", config, "--run", tmp_path / "run")
    assert status == 0, error
    forget(folder)
    yield tmp_path
    sys.modules.pop("own_parts", None)


def forget(folder):
    del sys.modules["own_parts"]
    (folder / "imported").unlink()


def test_a_run_is_exported_and_reported_with_classes_of_its_own(own):
    status, _, error = command("export", "--run", own / "run", "--to", own / "export")
    assert status == 0, error
    assert type(mmdiffusion.load(own / "export")).__name__ == "Mine"
    forget(own / "own")
    status, _, error = command("report", "--run", own / "run")
    assert status == 0, error
    assert "Mine on Digits" in (own / "run" / "report.html").read_text()


def test_a_module_that_is_gone_is_named(own):
    (own / "own" / "own_parts.py").write_text("import a_module_that_is_not_there\n")
    status, _, error = command("export", "--run", own / "run")
    assert status == 2
    assert "config.yaml: own_parts.Mine cannot be imported, No module named 'a_module_that_is_not_there'" in error


def test_loading_imports_nothing(own):
    with pytest.raises(ValueError, match=r"no method own_parts\.Mine is imported; import its module first"):
        mmdiffusion.load(own / "run")
    assert not (own / "own" / "imported").exists()


@pytest.mark.parametrize(
    "part",
    [{"class_path": "own_parts.MyEncoder"}, "own_parts.MyEncoder"],
    ids=["class", "function"],
)
def test_loading_imports_no_part_of_a_method(own, part):
    path = own / "run" / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    contents["hyper_parameters"]["_class_path"] = "mmdiffusion.methods.MTDiffusion"
    contents["hyper_parameters"]["extras"]["label"]["encoder"] = part
    torch.save(contents, own / "changed.ckpt")
    with pytest.raises(ValueError, match=re.escape("own_parts.MyEncoder is of own_parts, which is not imported")):
        mmdiffusion.load(own / "changed.ckpt")
    assert not (own / "own" / "imported").exists()
