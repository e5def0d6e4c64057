"""Restoration over the share that is hidden: MT-Diffusion, a conditional DDPM of the same cost, and nothing restored.

    python -m benchmarks.masks_study [--seeds 0] [--out runs/masks_study]

Both models have the network, the steps and the masks in training of `configs/mt_diffusion/digits_masked.yaml`. The
conditional DDPM is told what can be seen of an image, in nine of ten samples, and nothing else: nothing is aggregated,
no head is trained. Samples are 1,000, test split, what can be seen put back. What is finished stays in the folder.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.studies import kept, spread, test
from mmdiffusion.cli import execute

CONFIG = Path(__file__).parents[1] / "configs" / "mt_diffusion" / "digits_masked.yaml"
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
JUDGED, NOISE_RATIO = "judged_accuracy[digits-svm]", "psnr[image]"
CONDITIONAL_DDPM = {
    "encoder": {"class_path": "NoEncoder"},
    "drift": {"class_path": "NoDrift"},
    "weight": 0.0,
    "absent_share": 0.1,
    "shown_share": 0.9,
}
VARIANTS: dict[str, dict[str, Any]] = {"MT-Diffusion": {}, "conditional DDPM": CONDITIONAL_DDPM}


def config_of(variant: str, seed: int) -> dict[str, Any]:
    """The variant's configuration.

    Args:
        variant: Its name.
        seed: Seed of everything.
    """
    config = yaml.safe_load(CONFIG.read_text())
    config["model"]["init_args"]["extras"]["masked"] |= VARIANTS[variant]
    trainer = config["trainer"]
    trainer["val_check_interval"] = trainer["max_steps"] + 1
    trainer["callbacks"] = [one for one in trainer["callbacks"] if one["class_path"] not in ("LogSamples", "Bound")]
    evaluate = trainer["callbacks"][-1]["init_args"]
    evaluate["draws"] = {"restored": {"given": ["masked"]}}
    evaluate["metrics"] = [one for one in evaluate["metrics"] if one["class_path"] != "FrechetDistance"]
    return config | {"seed_everything": seed}


def run(variant: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one variant and test it at every share: figures by share, metric and column.

    Args:
        variant: Its name.
        seed: Seed of everything.
        folder: Folder of the run; its configuration is written beside it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(config_of(variant, seed)))
    execute(["fit", "-c", str(config), "--run", str(folder)])
    return {str(share): test(folder, f"--data.init_args.mask_share={share}") for share in SHARES}


def lines(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The table, in Markdown.

    Args:
        results: Figures of each seed, by variant.
    """
    names = [*VARIANTS, "masked input"]
    cells = [f"{name}: {what}" for what in ("label kept, %", "PSNR, dB") for name in names]
    table = [f"| hidden | {' | '.join(cells)} |", "|---" * (len(cells) + 1) + "|"]
    for share in map(str, SHARES):
        row = []
        for metric, factor in ((JUDGED, 100), (NOISE_RATIO, 1)):
            for name in names:
                column = "restored" if name in VARIANTS else name
                runs = results[name if name in VARIANTS else "MT-Diffusion"]
                row.append(spread([factor * figures[share][metric][column] for figures in runs]))
        table.append(f"| {100 * float(share):g} % | {' | '.join(row)} |")
    return table


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/masks_study"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    for seed in arguments.seeds:
        for variant in VARIANTS:
            folder = arguments.out / f"{variant.replace(' ', '-')}-{seed}"
            results[variant].append(kept(folder, partial(run, variant, seed, folder)))
    Console(width=200).print("\n".join(lines(results)), markup=False)


if __name__ == "__main__":
    main()
