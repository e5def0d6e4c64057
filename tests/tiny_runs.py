"""Finished runs of every method, trained for two steps: what commands about runs are tried on."""

from pathlib import Path
from typing import Any

from tests.codecs.test_learned import FIRST, second
from tests.helpers import CONFIG, QUIET, command, write_config
from tests.test_cli_cdcd import CONFIG as DANCE
from tests.test_cli_diffdis import CONFIG as CAPTIONS

MEASURED: Any = CONFIG["trainer"]["callbacks"][3]


def config(base: Any, draws: Any, model: Any = None, num_samples: int = 4) -> dict[str, Any]:
    """A tiny configuration that averages, keeps a checkpoint and writes samples."""
    callbacks = [
        {"class_path": "EMA"},
        {"class_path": "LastCheckpoint"},
        {"class_path": "LogSamples", "init_args": {"draws": draws, "num_samples": num_samples}},
    ]
    trainer = {
        **{key: value for key, value in QUIET.items() if key != "logger"},
        "max_steps": 2,
        "limit_val_batches": 1,
        "val_check_interval": 1,
        "callbacks": callbacks,
    }
    return {"seed_everything": 0, "trainer": trainer, "model": model or base["model"], "data": base["data"]}


def digits() -> dict[str, Any]:
    return CONFIG


def dance() -> dict[str, Any]:
    made = config(DANCE, {"dance": {"given": ["motion", "label"]}}, num_samples=2)
    made["data"] = {"class_path": "Dance", "init_args": DANCE["data"]["init_args"] | {"audio": True, "seconds": 2.0}}
    return made


def captions() -> dict[str, Any]:
    return config(CAPTIONS, {"digit": {"given": ["caption"]}})


def codec() -> dict[str, Any]:
    return config(CONFIG, {"rebuilt": {"given": ["image"]}}, model=FIRST)


def tokens(path: Path) -> dict[str, Any]:
    return config(CONFIG, {"conditional": {"given": ["label"]}}, model=second(path))


def fit_all(folder: Path) -> None:
    """Train every kind into a folder of its name, `tokens` on the run `codec`, and test `digits`."""
    for make in (digits, dance, captions, codec):
        fit(folder / make.__name__, make())
    fit(folder / "tokens", tokens(folder / "codec"))
    status, _, error = command("test", "--run", folder / "digits")
    assert status == 0, error


def fit(folder: Path, settings: dict[str, Any]) -> Path:
    """Train into a folder, and give it back."""
    written = write_config(folder.parent / f"{folder.name}.yaml", settings)
    status, _, error = command("fit", "-c", written, "--run", folder)
    assert status == 0, error
    return folder
