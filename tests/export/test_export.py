"""What is exported comes back as it was, from files that cannot run code; and what is not ours is named."""

import json
import re
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import mmdiffusion
from mmdiffusion.callbacks import StartFrom
from mmdiffusion.checkpoints import described, read_checkpoint, undescribed, write_export
from mmdiffusion.types import ImageSpec, LabelSpec, TextSpec
from tests import tiny_runs
from tests.helpers import build_trainer, command

LABELS = torch.arange(3)
GIVEN = {
    "digits": {"label": LABELS},
    "dance": {"motion": torch.randn(3, 120, 51, generator=torch.Generator().manual_seed(0)), "label": LABELS},
    "captions": {"caption": ["a handwritten two", "a handwritten zero", "a handwritten two"]},
    "codec": {"image": torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1},
    "tokens": {"label": LABELS},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs by name; `tokens` reads the run `codec`. Every run has its export in `<run>/export`."""
    folder = tmp_path_factory.mktemp("export")
    tiny_runs.fit_all(folder)
    for name in GIVEN:
        status, _, error = command("export", "--run", folder / name)
        assert status == 0, error
    return folder


@pytest.fixture
def exported(folder, tmp_path):
    """A copy of one export, to spoil."""
    return shutil.copytree(folder / "digits" / "export", tmp_path / "copy")


# Round trip ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GIVEN)
def test_samples_equal_those_of_the_checkpoint(folder, name):
    from_run, from_export = (mmdiffusion.load(path) for path in (folder / name, folder / name / "export"))
    first, second = (method.sample(GIVEN[name], seeds=range(3)) for method in (from_run, from_export))
    assert type(from_export) is type(from_run)
    assert not from_export.training
    assert set(first) == set(second)
    for entry, values in first.items():
        assert torch.equal(values, second[entry]) if isinstance(values, torch.Tensor) else values == second[entry]


@pytest.mark.parametrize("name", GIVEN)
def test_all_settings_come_back(folder, name):
    original = read_checkpoint(folder / name / "checkpoints" / "last.ckpt")["hyper_parameters"]
    assert read_checkpoint(folder / name / "export" / "method.json")["hyper_parameters"] == original


@pytest.mark.parametrize("name", GIVEN)
def test_weights_are_the_averaged_ones(folder, name):
    checkpoint = torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)
    weights = load_file(folder / name / "export" / "model.safetensors")
    assert set(weights) == set(checkpoint["state_dict"])
    assert all(torch.equal(weights[entry], values) for entry, values in checkpoint["state_dict"].items())
    assert any(not torch.equal(weights[entry], values) for entry, values in checkpoint["ema"]["raw"].items())


def test_files_of_an_export(folder):
    assert {path.name for path in (folder / "digits" / "export").iterdir()} == {
        "README.md",
        "config.yaml",
        "method.json",
        "model.safetensors",
    }
    assert not list(folder.glob("*/export.part"))
    config = (folder / "digits" / "export" / "config.yaml").read_text()
    assert config == (folder / "digits" / "config.yaml").read_text()
    assert yaml.safe_load(config)["model"]["class_path"].endswith("MTDiffusion")


def test_frozen_parts_stay_outside(folder):
    """The codec of `tokens` is a network of its own run: its settings keep the path, and no weight of it is written."""
    weights = load_file(folder / "tokens" / "export" / "model.safetensors")
    assert weights
    assert not [name for name in weights if name.startswith("codec")]
    assert mmdiffusion.load(folder / "tokens" / "export").codec.network.latent.num_codes == 16


def test_a_codec_is_read_from_an_export(folder, tmp_path):
    """A first stage that was exported serves as well as its run."""
    fitted = tiny_runs.fit(tmp_path / "run", tiny_runs.tokens(folder / "codec" / "export"))
    first, second = (mmdiffusion.load(path).codec for path in (fitted, folder / "tokens"))
    image = GIVEN["codec"]["image"]
    assert torch.equal(first.encode(image), second.encode(image))


def test_a_training_starts_from_an_export(folder, tmp_path):
    trained, fresh = mmdiffusion.load(folder / "digits"), mmdiffusion.load(folder / "digits")
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    StartFrom(str(folder / "digits" / "export")).setup(build_trainer(tmp_path), fresh, "fit")
    assert all(map(torch.equal, fresh.parameters(), trained.parameters()))


@pytest.mark.parametrize("place", ["method.json", "model.safetensors"])
def test_a_file_of_an_export_stands_for_it(folder, place):
    assert mmdiffusion.load(folder / "digits" / "export" / place).steps == 3


def test_descriptions_survive_json():
    spec = {"image": ImageSpec(1, 8, 17), "label": LabelSpec(2, ("a", "b")), "caption": TextSpec(3, ("a",))}
    assert json.loads(json.dumps(spec, default=described), object_hook=undescribed) == spec


def test_tensors_that_share_memory_are_written(folder, tmp_path):
    table = torch.arange(6.0).reshape(2, 3)
    contents = {"hyper_parameters": {"_class_path": "a"}, "state_dict": {"a": table, "b": table[:1], "c": table.T}}
    write_export(tmp_path, contents)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["c"], table.T)


def test_a_single_callback_is_none_too_few(folder, tmp_path):
    """A configuration may name one callback without a list, and its run is made something of like any other."""
    run = tmp_path / "run"
    shutil.copytree(folder / "digits", run, ignore=shutil.ignore_patterns("export"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][2]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("export", "report"):
        status, _, error = command(name, "--run", run)
        assert status == 0, error
    assert "From noise" in (run / "report.html").read_text()
    assert mmdiffusion.load(run / "export").steps == 3


# Mistakes ------------------------------------------------------------------------------------------------------


def refused(path, *patterns):
    with pytest.raises(ValueError, match=".*".join(patterns)) as caught:
        mmdiffusion.load(path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["model.safetensors", "method.json"])
def test_a_missing_file_is_named(exported, name):
    (exported / name).unlink()
    refused(exported, rf"{name} is missing", "mmdiffusion export --run RUN")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.pkl"])
def test_a_pickle_in_place_of_the_weights_is_named_and_not_opened(exported, name):
    (exported / "model.safetensors").unlink()
    (exported / name).write_bytes(b"not even a pickle")
    refused(exported, r"model\.safetensors is missing", re.escape(name), "may run code")


def test_a_folder_of_pickles_alone_is_named(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    refused(tmp_path, r"method\.json is missing", r"pytorch_model\.bin may run code")


def test_a_truncated_file_is_named(exported):
    whole = (exported / "model.safetensors").read_bytes()
    (exported / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(exported, r"model\.safetensors cannot be read")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "hyper_parameters": 3}'])
def test_a_method_that_is_not_ours_is_named(exported, text):
    (exported / "method.json").write_text(text)
    refused(exported, r"method\.json is not one of mmdiffusion")


def test_another_format_is_named(exported):
    method = json.loads((exported / "method.json").read_text())
    (exported / "method.json").write_text(json.dumps(method | {"format": 2}))
    refused(exported, "has format 2, expected 1")


def test_an_unknown_method_is_named_and_not_imported(exported):
    method = json.loads((exported / "method.json").read_text())
    method["hyper_parameters"]["_class_path"] = "antigravity.Method"
    (exported / "method.json").write_text(json.dumps(method))
    refused(exported, r"no method antigravity\.Method is imported")


def test_weights_of_another_model_are_refused(exported):
    weights = load_file(exported / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: torch.zeros(3)}, exported / "model.safetensors")
    refused(exported, "(?s)cannot be rebuilt", re.escape(name))


def test_an_export_is_never_overwritten(folder):
    before = (folder / "digits" / "export" / "model.safetensors").read_bytes()
    status, _, error = command("export", "--run", folder / "digits")
    assert status == 2
    assert "an export is never overwritten" in error
    assert (folder / "digits" / "export" / "model.safetensors").read_bytes() == before


MISTAKES = [
    (["export"], ["export needs --run FOLDER"]),
    (["export", "--run", "absent"], ["expected the folder of a finished run", "config.yaml is missing"]),
    (["export", "--run", "RUN", "--to"], ["--to is empty"]),
    (["export", "--run", "RUN", "--format", "onnx"], ["export has no option --format", "--run and --to"]),
]


@pytest.mark.parametrize(("words", "expected"), MISTAKES)
def test_a_mistake_is_one_message(folder, tmp_path, words, expected):
    status, _, error = command(*[folder / "digits" if word == "RUN" else word for word in words])
    assert status == 2
    assert error.count("\n") == 1
    assert all(part in error for part in expected), error


def test_a_link_to_an_empty_folder_stays_one(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    status, _, error = command("export", "--run", folder / "digits", "--to", tmp_path / "link")
    assert status == 0, error
    assert (tmp_path / "elsewhere" / "model.safetensors").is_file()
    assert (tmp_path / "link").is_symlink()


def test_an_interrupted_export_leaves_no_folder(folder, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmdiffusion.export.model_card", fail)
    with pytest.raises(KeyboardInterrupt):
        command("export", "--run", folder / "digits", "--to", tmp_path / "to")
    assert not (tmp_path / "to").exists()
    monkeypatch.undo()
    assert command("export", "--run", folder / "digits", "--to", tmp_path / "to")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["to"]


def test_a_folder_beside_it_that_is_none_of_ours_is_left_alone(folder, tmp_path):
    (tmp_path / "to.part").mkdir()
    (tmp_path / "to.part" / "thesis.tex").write_text("mine")
    status, _, error = command("export", "--run", folder / "digits", "--to", tmp_path / "to")
    assert status == 2
    assert "to.part holds thesis.tex: expected no such folder" in error
    assert (tmp_path / "to.part" / "thesis.tex").read_text() == "mine"


# The card ------------------------------------------------------------------------------------------------------


def card(folder, name):
    return (folder / name / "export" / "README.md").read_text()


@pytest.mark.parametrize("name", GIVEN)
def test_the_card_s_lines_load_the_method(folder, name):
    """With the folder put in, and what is given of the kind that the card names, the example runs."""
    (example,) = re.findall(r"```python\n(.*?)```", card(folder, name), flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 3
    values = dict(GIVEN[name])
    exec(example.replace("FOLDER", str(folder / name / "export")), values)
    assert len(values["samples"]["index"]) == 3


def test_the_card_tells_method_data_size_and_licence(folder):
    text = card(folder, "dance")
    count = sum(parameter.numel() for parameter in mmdiffusion.load(folder / "dance").parameters())
    for part in (
        "# CDCD on Dance",
        "2206.07771",
        "after 2 steps",
        f"**{count:,}**",
        "MotionSpec(num_frames=120",
        "Apache",
    ):
        assert part in text
    assert "no part is read from a path" in text
    assert "None were measured" in text


def test_the_card_names_what_stays_outside(folder):
    text = card(folder, "tokens")
    network = mmdiffusion.load(folder / "tokens").codec.network
    assert f"`codec.path`: `{folder / 'codec'}`" in text
    assert f"{sum(parameter.numel() for parameter in network.parameters()):,}" in text


def test_the_card_s_figures_are_those_of_the_run(folder):
    figures = json.loads((folder / "digits" / "metrics.json").read_text())
    text = card(folder, "digits")
    for name, row in figures.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        found = [float(cell) for cell in line.split("|")[2:] if cell.strip()]
        assert found == pytest.approx([figure["value"] for figure in row.values()], rel=1e-3)
    assert "digits-svm, Gaussian kernel" in text
    assert "given label, drawn image" in text
