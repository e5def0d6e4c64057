"""What this package costs beside packages that can be installed, on equal work in one run, as one Markdown table.

    python -m benchmarks.peers [SECTION ...] [--rounds 7] [--threads 2]

Without a section all are measured, which takes about ten minutes on two CPU cores. Variants take turns in one process;
figures are medians over rounds, ratios are taken within a round. A peer that is missing is named before anything is
measured; all come with `pip install 'mmdiffusion[bench]'`.
"""

import argparse
import importlib.util
import platform
import sys
import warnings
from collections.abc import Sequence

import torch

from benchmarks.peers import distances, processes, sampling, tokens, unets
from benchmarks.peers.table import markdown
from mmdiffusion.allocation import keep_freed_memory

SECTIONS = {"unets": unets, "tokens": tokens, "sampling": sampling, "fid": distances, "processes": processes}


def check_peers(sections: Sequence[str]) -> None:
    """Check that what is compared with is installed.

    Args:
        sections: What is measured.

    Raises:
        ValueError: naming what is missing.
    """
    needed = dict.fromkeys(name for section in sections for name in SECTIONS[section].NEEDS)
    missing = [name.replace("_", "-") for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)}: not installed; pip install 'mmdiffusion[bench]' brings all peers")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = ", ".join(SECTIONS)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"what is measured: {sections}; all if none")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one for warming up")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch, where a bar names none")
    options = parser.parse_args()
    wanted = options.sections or list(SECTIONS)
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}: expected some of {sections}")
    if min(options.rounds, options.threads) < 1:
        parser.error(f"--rounds is {options.rounds}, --threads is {options.threads}: expected 1 or more")
    try:
        check_peers(wanted)
    except ValueError as error:
        parser.error(str(error))
    warnings.filterwarnings("ignore", module="diffusers|denoising_diffusion_pytorch")
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as in a training by the command line, here for everybody
    rows = [row for name in wanted for row in SECTIONS[name].measure(options.rounds)]
    sys.stdout.write(
        f"{options.rounds} rounds, {options.threads} threads, PyTorch {torch.__version__}, {platform.processor()}\n\n"
        f"{markdown(rows)}\n"
    )


if __name__ == "__main__":
    main()
