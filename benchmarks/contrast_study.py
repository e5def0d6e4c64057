"""What CDCD's contrastive terms change: variants x sampling steps over several seeds, on digits or on dances.

    python -m benchmarks.contrast_study {digits,dance} [--seeds 0 1 2] [--out runs/contrast_study]

Every variant is trained from scratch with the settings of `configs/cdcd/`, shortened as `STUDIES` says, and tested at
all, a half, a quarter and an eighth of the steps. What is finished stays in the folder: a study that was interrupted
goes on, one that is complete prints its table at once. Nothing here is tuned on what it reports.
"""

import argparse
import csv
import json
import statistics
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.studies import kept, spread
from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.callbacks.column import Column, inputs
from mmdiffusion.callbacks.draws import Conditions, draw_samples
from mmdiffusion.callbacks.evaluate import fit
from mmdiffusion.callbacks.partners import REFERENCE, partners
from mmdiffusion.callbacks.table import Figures
from mmdiffusion.experiment import MMDiffusionCLI
from mmdiffusion.methods import CDCD
from mmdiffusion.metrics import SampleMetric

CONFIGS = Path(__file__).parents[1] / "configs" / "cdcd"
NUM_NEGATIVES = 10


@dataclass(frozen=True)
class Study:
    """One data set.

    Args:
        settings: What differs from its config, to be affordable in many runs.
        given: What samples are drawn for.
        num_samples: Samples a figure.
        figures: Figures and what each is multiplied by.
    """

    settings: dict[str, Any]
    given: list[str]
    num_samples: int
    figures: dict[str, float]


STUDIES = {
    "digits": Study(
        {"trainer.max_steps": 500},
        ["label"],
        360,
        {"fid[digits-cnn]": 1, "judged_accuracy[digits-svm]": 100},
    ),
    "dance": Study(
        {"trainer.max_steps": 400, "data.seconds": 3.0},
        ["motion", "label"],
        200,
        {"beat_f1[onset-70ms]": 1, "judged_accuracy[token-runs]": 100},
    ),
}


def contrast(negatives: str, **settings: object) -> dict[str, Any]:
    """One contrastive term as a configuration.

    Args:
        negatives: Class of the negatives.
        settings: Of the term.
    """
    bank = {"bank_size": 256} if negatives == "InterNegatives" else {}
    source = {"class_path": negatives, "init_args": {"num_negatives": NUM_NEGATIVES, **bank}}
    return {"class_path": "Contrast", "init_args": {"negatives": source, **settings}}


VARIANTS = {
    "vanilla": [],
    "step-intra": [contrast("IntraNegatives", flavour="step", weight=5e-5)],
    "step-inter": [contrast("InterNegatives", flavour="step", weight=5e-5)],
    "sample-intra": [contrast("IntraNegatives", flavour="sample", weight=5e-5)],
    "sample-inter": [contrast("InterNegatives", flavour="sample", weight=5e-5)],
    "infonce": [contrast("InterNegatives", flavour="sample", form="infonce", weight=0.1)],
}
WATCH = {"class_path": "GradientShare", "init_args": {"terms": ["contrast"], "every_n_steps": 50}}


def run(data: str, variant: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one variant and test it at every number of steps.

    Args:
        data: Name of the study.
        variant: Name of the variant.
        seed: Seed of everything.
        folder: Folder of the run.

    Returns:
        Share of the gradient, and every figure by number of steps.
    """
    study = STUDIES[data]
    settings = study.settings | {
        "seed_everything": seed,
        "model.contrasts": json.dumps(VARIANTS[variant]),
        "trainer.callbacks+": json.dumps(WATCH),
        "trainer.val_check_interval": study.settings["trainer.max_steps"] + 1,
        "trainer.accelerator": "cpu",
    }
    words = ["-c", str(CONFIGS / f"{data}.yaml"), *(f"--{name}={value}" for name, value in settings.items())]
    cli = MMDiffusionCLI(folder, ["fit", *words])
    assert isinstance(cli.model, CDCD)
    metrics = fitted_metrics(cli, study)
    all_steps = cli.model.steps
    by_steps = {}
    for divisor in (1, 2, 4, 8):
        cli.model.steps = all_steps // divisor
        by_steps[cli.model.steps] = figures(cli, study, metrics)
    return {"gradient_share": gradient_share(folder / "metrics.csv"), "steps": by_steps}


def fitted_metrics(cli: MMDiffusionCLI, study: Study) -> list[SampleMetric]:
    """The config's metrics that the study reports, judges and extractors fitted and references seen."""
    (evaluate,) = (c for c in cli.trainer.callbacks if isinstance(c, Evaluate))  # pyright: ignore[reportAttributeAccessIssue]
    metrics = [metric for metric in evaluate.metrics if metric.name() in study.figures]
    test = cli.datamodule.rows("test", range(cli.datamodule.num_rows("test")))
    for metric in metrics:
        fit(metric, cli.datamodule)
        if metric.uses_reference:
            metric.update(*inputs(metric, test), real=True)
    return metrics


def figures(cli: MMDiffusionCLI, study: Study, metrics: list[SampleMetric]) -> dict[str, float]:
    """Draw samples for conditions of the test split, and measure them."""
    data, draw, count = cli.datamodule, Draw(study.given), study.num_samples
    given, table = Conditions(data, draw.given, "test"), Figures()
    entries = {*cli.model.makes, *study.given, *(REFERENCE + name for name in data.spec), "index"}
    column = Column("drawn", metrics, entries, count, {})
    with torch.no_grad():
        for drawn in draw_samples(cli.trainer, cli.model, draw, given, range(count), 100, "drawing"):
            column.update(drawn | partners(drawn, given, column.read, torch.arange(count)))
    column.write(table)
    return {name: float(row["drawn"]["value"]) for name, row in table.items()}


def gradient_share(log: Path) -> float:
    """Median over a training of the contrast's share of the gradient; 0 where there is no contrast."""
    with log.open() as lines:
        shares = [float(row["gradient/contrast"]) for row in csv.DictReader(lines) if row.get("gradient/contrast")]
    return statistics.median(shares)


def table(data: str, results: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, in Markdown.

    Args:
        data: Name of the study.
        results: By variant and seed.
    """
    study, lines = STUDIES[data], []
    steps = list(next(iter(results.values()))["steps"])
    for name, factor in study.figures.items():
        lines += ["", f"{name}:", "", f"| | {' | '.join(f'{n} steps' for n in steps)} |", f"|---{'|---' * len(steps)}|"]
        for variant in dict.fromkeys(variant for variant, _ in results):
            runs = [result for (other, _), result in results.items() if other == variant]
            cells = [spread([factor * r["steps"][n][name] for r in runs]) for n in steps]
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    lines += ["", "| | contrast's share of the gradient |", "|---|---|"]
    for variant in dict.fromkeys(variant for variant, _ in results):
        shares = [100 * r["gradient_share"] for (other, _), r in results.items() if other == variant]
        lines.append(f"| {variant} | {spread(shares)} % |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/contrast_study"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    results: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in arguments.seeds:
        for variant in VARIANTS:
            folder = arguments.out / f"{arguments.data}-{variant}-{seed}"
            results[variant, seed] = kept(folder, partial(run, arguments.data, variant, seed, folder))
    Console(width=160).print(table(arguments.data, results), markup=False)


if __name__ == "__main__":
    main()
