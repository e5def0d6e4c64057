"""The `mmdiffusion` command, and `python -m mmdiffusion`: how it is used is said without importing PyTorch."""

import sys

from mmdiffusion.signals import end_when_asked
from mmdiffusion.usage import USAGE


def main() -> None:
    """Say how the command is used, or run it; see `mmdiffusion.cli`."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return
    if "fit" in sys.argv[1:]:
        end_when_asked()
    from mmdiffusion.cli import main as run  # takes seconds

    run()


if __name__ == "__main__":
    main()
