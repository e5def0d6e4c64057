"""`mmdiffusion report`: one page about a run."""

from pathlib import Path
from typing import Any

from lightning.pytorch.cli import instantiate_module
from lightning.pytorch.utilities import rank_zero_info

from mmdiffusion import __version__
from mmdiffusion.callbacks.draws import Draw
from mmdiffusion.callbacks.table import read_figures
from mmdiffusion.checkpoints import read_checkpoint
from mmdiffusion.data.base import DataModule
from mmdiffusion.methods.base import Method
from mmdiffusion.report.curves import charts
from mmdiffusion.report.film import Film, film
from mmdiffusion.report.page import write_page
from mmdiffusion.report.samples import grids
from mmdiffusion.report.sounds import clips
from mmdiffusion.runs import CONFIG, existing_run, import_own, listed, load_method, settings_of

NUM_FILMS = 2
"""Kinds of samples that are filmed."""


def report(run: str, to: str | None = None) -> Path:
    """Write one HTML file about a run: its samples, a film of the denoising, its figures, curves and settings.

    The file needs no other and asks no server for anything. Pictures, sounds, figures and curves are those of the run's
    folder; the film is drawn for the page, by the averaged weights in float32. What needs data that this machine does
    not have is left out, and the page says so.

    Args:
        run: Folder of a finished run.
        to: The file; `None` for `report.html` in the run's folder. An older one is replaced.

    Returns:
        The file.

    Raises:
        ValueError: if `run` is no finished run, its method cannot be rebuilt, or a file of its holds something else.
    """
    folder, checkpoint = existing_run(run)
    path = folder / "report.html" if to is None else Path(to)
    if path.is_dir():
        raise ValueError(f"--to is {path}: it is a folder, expected a file such as {path / 'report.html'}")
    if path.exists() and path.suffix not in (".html", ".htm"):
        raise ValueError(f"--to is {path}: it exists and is no page; expected a new file, or an .html file to replace")
    config = settings_of(folder)
    import_own(folder)
    method, data = load_method(checkpoint), build_data(config)
    missing: list[str] = []
    content = {
        "title": f"{type(method).__name__} on {type(data.source).__name__}",
        "folder": folder.resolve().name,
        "facts": facts(method, config, read_checkpoint(checkpoint)),
        "grids": grids(folder / "samples"),
        "films": filmed(method, data, config, missing),
        "clips": clips(folder / "samples", data, missing),
        "measured": read_figures(folder),
        "charts": charts(folder / "metrics.csv"),
        "missing": missing,
        "config": (folder / CONFIG).read_text(encoding="utf-8"),
        "version": __version__,
    }
    write_page(path, content)
    for reason in missing:
        rank_zero_info(f"{path}: {reason}")
    return path


def build_data(config: dict[str, Any]) -> DataModule:
    """The data module of a configuration.

    Raises:
        ValueError: if it cannot be built.
    """
    settings = config["data"]
    try:
        return instantiate_module(DataModule, {"_class_path": settings["class_path"], **settings.get("init_args", {})})
    except Exception as error:
        raise ValueError(f"{CONFIG}: its data {settings['class_path']} cannot be built; {error}") from error


def facts(method: Method, config: dict[str, Any], checkpoint: dict[str, Any]) -> dict[str, str]:
    """A run in a few words."""
    return {
        "steps": f"{checkpoint['global_step']:,}",
        "parameters": f"{sum(p.numel() for p in method.parameters()):,}",
        "weights": "averaged (EMA)" if "ema" in checkpoint else "as trained",
        "precision": str(config["trainer"]["precision"] or "32-true"),
        "seed": str(method.seed),
    }


def filmed(method: Method, data: DataModule, config: dict[str, Any], missing: list[str]) -> list[Film]:
    """Films of the kinds of samples that the run itself drew.

    Args:
        method: Draws.
        data: Has the conditions.
        config: Of the run.
        missing: Is told what cannot be filmed, and why.
    """
    found = []
    for callback in listed(config["trainer"]["callbacks"]):
        if callback["class_path"].rsplit(".", 1)[-1] == "LogSamples":
            found += callback["init_args"]["draws"].items()
    made = []
    for name, draw in found[:NUM_FILMS]:
        try:
            made.append(film(method, data, name, Draw(**draw)))
        except ValueError as error:
            missing.append(f"There is no film of {name}: {error}")
    return [each for each in made if each is not None]
