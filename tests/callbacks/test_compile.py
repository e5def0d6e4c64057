"""Compiled training steps: what is compiled, when it is used, and what is said where nothing can be."""

import functools
import os

import pytest
import torch
from torch import nn

from mmdiffusion.callbacks import EMA, Compile, LogSamples
from mmdiffusion.nn import Denoiser
from tests.helpers import ROOT, Oracle, Pictures, build_method, build_trainer, command, weights, write_config

OVERLAY = ROOT / "configs" / "overlays" / "compile.yaml"


@pytest.fixture
def compiled(monkeypatch):
    """Compile without a compiler: graphs are run as they were captured, and their calls are counted."""
    calls = []

    def backend(graph, _):
        def run(*given):
            calls.append(torch.is_grad_enabled())
            return graph(*given)

        return run

    monkeypatch.setattr(Denoiser, "compile", functools.partialmethod(nn.Module.compile, backend=backend))
    yield calls
    torch.compiler.reset()


def fit(folder, method, *callbacks, **settings):
    trainer = build_trainer(folder, *callbacks, max_steps=3, limit_val_batches=1, val_check_interval=1, **settings)
    trainer.fit(method, datamodule=Pictures(8, num_train=24))
    return trainer


def test_training_steps_are_compiled_and_nothing_else(tmp_path, compiled):
    method, plain = build_method(), build_method()
    names = list(method.state_dict())
    fit(tmp_path, method, Compile())
    assert compiled == [True] * 3, "validation runs the denoiser as it is written"
    assert list(method.state_dict()) == names
    fit(tmp_path, plain)
    assert len(compiled) == 3
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(method)[name], weight, rtol=1e-4, atol=1e-6)


def test_blocks_that_run_twice_compile(tmp_path, compiled):
    denoiser = functools.partial(build_method().hparams["denoiser"], gradient_checkpointing=True)
    fit(tmp_path, build_method(denoiser=denoiser), Compile())
    assert len(compiled) >= 3


def test_what_others_compile_is_compiled_afterwards(tmp_path, compiled):
    fit(tmp_path, build_method(), Compile())

    @functools.partial(torch.compile, backend=lambda graph, _: lambda *given: compiled.append("later") or graph(*given))
    def double(x):
        return 2 * x

    assert double(torch.ones(())) == 2
    assert compiled[-1] == "later"


def test_nothing_to_compile_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Oracle has no Denoiser: expected one to compile"):
        fit(tmp_path, Oracle(), Compile())


def test_a_missing_compiler_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = write_config(tmp_path / "tiny.yaml")
    status, _, said = command("fit", "-c", config, "-c", OVERLAY, "--run", tmp_path / "run")
    assert status == 2
    assert "no-such-compiler is not on the PATH: expected a C++ compiler" in said
    assert "CXX" in said
    assert not (tmp_path / "run").exists()


def test_a_compiler_may_be_named_by_its_path(tmp_path, monkeypatch, compiled):
    compiler = tmp_path / "compiler"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", os.fspath(compiler))
    fit(tmp_path, build_method(), Compile())
    assert compiled


def test_the_overlay_adds_to_the_callbacks(tmp_path, monkeypatch):
    from mmdiffusion.experiment import MMDiffusionCLI

    monkeypatch.setattr("sys.argv", ["mmdiffusion"])
    words = ["--config", str(write_config(tmp_path / "tiny.yaml")), "--config", str(OVERLAY)]
    cli = MMDiffusionCLI(tmp_path, words, execute=False)
    kinds = [type(callback) for callback in cli.trainer.callbacks]
    assert [kinds.count(kind) for kind in (EMA, LogSamples, Compile)] == [1, 1, 1]
