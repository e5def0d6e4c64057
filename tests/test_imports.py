"""What `import mmdiffusion` gives and costs."""

import subprocess
import sys
from pathlib import Path

import mmdiffusion

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("lightning", "numpy", "PIL", "sklearn", "torch", "torchmetrics", "torchvision")


def heavy_after(statement: str) -> list[str]:
    """Names of the heavy packages that a fresh interpreter has loaded after the statement."""
    code = f"import sys\n{statement}\nfor name in {HEAVY!r}:\n    if name in sys.modules: print(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    assert heavy_after("import mmdiffusion") == []


def test_the_probe_sees_a_heavy_import():
    assert "numpy" in heavy_after("import numpy")


def test_public_names_are_frozen():
    assert sorted(mmdiffusion.__all__) == ["__version__", "load"]


def test_public_names_resolve():
    assert all(hasattr(mmdiffusion, name) for name in mmdiffusion.__all__)


def test_usage_is_said_without_importing_anything_heavy():
    said = "usage: mmdiffusion"
    loaded = heavy_after("from mmdiffusion.__main__ import main\nsys.argv[1:] = ['--help']\nmain()")
    assert " ".join(loaded).startswith(said)
    assert not set(HEAVY) & set(loaded)
