"""The model card of an export: what a stranger needs to use, judge and cite the weights."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdiffusion import __version__
from mmdiffusion.callbacks.table import Measured, in_words, protocol, read_figures, shared
from mmdiffusion.codecs.frozen import FrozenNetwork
from mmdiffusion.methods.base import Method
from mmdiffusion.runs import listed, settings_of

CARD = """\
---
library_name: mmdiffusion
tags: [diffusion, {method}]
---
# {method} on {data}

{paper} {summary}

{weights}

```python
import mmdiffusion

model = mmdiffusion.load("{folder}")
samples = model.sample({condition}, seeds=range({count}))
```

The folder holds `model.safetensors` (the weights), `method.json` (what the method is built from), `config.yaml` (all
settings of the training, which `mmdiffusion fit -c config.yaml` repeats) and this card. No file is a pickle.

## Batches

{batches}

## Parameters

{parameters}

{needs}

## Figures

{figures}

## Licence

mmdiffusion, which wrote this, is licensed under Apache-2.0. What these weights may be used for depends on the data they
were trained on as well, {data}: say so here before you hand them on.
"""
LONGEST = 160
"""Characters of a description; vocabularies may have thousands of words."""


def model_card(run: Path, method: Method, contents: dict[str, Any]) -> str:
    """Markdown about a trained method.

    Args:
        run: Its folder.
        method: The method.
        contents: Its checkpoint.
    """
    kind, spec = type(method), contents["hyper_parameters"]["spec"]
    config = settings_of(run)
    given = conditions(config, method)
    condition = ", ".join(f'"{name}": {name}' for name in given)
    return CARD.format(
        method=kind.__name__,
        data=config["data"]["class_path"].rsplit(".", 1)[-1],
        paper=(inspect.getdoc(sys.modules[kind.__module__]) or "").split("\n")[0],
        summary=(inspect.getdoc(kind) or "").split("\n")[0],
        weights=weights(contents),
        folder="FOLDER",
        condition=f"{{{condition}}}",
        count=f"len({given[0]})" if given else "4",
        batches=table(["entry", "what it is"], [[f"`{name}`", shortened(str(part))] for name, part in spec.items()]),
        parameters=parameters(method),
        needs=needs(contents["hyper_parameters"]),
        figures="\n".join(map(measured, read_figures(run))) or "None were measured; `mmdiffusion test --run RUN` does.",
    )


def conditions(config: dict[str, Any], method: Method) -> list[str]:
    """What samples are drawn for: as the run's own first kind of sample, or all that can be given."""
    callbacks = listed(config["trainer"]["callbacks"])
    draws = [draw for callback in callbacks for draw in callback.get("init_args", {}).get("draws", {}).values()]
    return draws[0]["given"] if draws else list(method.givable)


def weights(contents: dict[str, Any]) -> str:
    """How far the training went, and what the weights are."""
    steps = f"{contents['global_step']:,} steps of training (seed {contents['hyper_parameters']['seed']})"
    kind = "Averaged weights (EMA)" if "ema" in contents else "Weights"
    return f"{kind} after {steps}, exported by mmdiffusion {__version__}."


def parameters(method: Method) -> str:
    """Numbers of parameters, part by part; what is frozen is not in the export."""
    rows = []
    for name, part in method.named_children():
        count = sum(parameter.numel() for parameter in part.parameters())
        frozen = sum(p.numel() for m in part.modules() if isinstance(m, FrozenNetwork) for p in m.network.parameters())
        if count or frozen:
            rows.append([f"`{name}`", type(part).__name__, f"{count:,}", f"{frozen:,}"])
    count = sum(parameter.numel() for parameter in method.parameters())
    rows.append(["all", "", f"**{count:,}**", ""])
    return table(["part", "class", "in the export", "frozen, not in it"], rows)


def needs(settings: dict[str, Any]) -> str:
    """What the method reads by a path when it is loaded."""
    found = [f"- `{name}`: `{path}`" for name, path in paths(settings)]
    if not found:
        return "Nothing else is needed: no part is read from a path."
    return "\n".join(["Read from a path when it is loaded; the paths can be changed in `method.json`:", "", *found])


def paths(settings: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Settings that are paths, by where they stand."""
    entries = enumerate(settings) if isinstance(settings, list) else settings.items()
    for name, value in ((str(name), value) for name, value in entries):
        here = place if name == "init_args" else f"{place}.{name}".lstrip(".")
        if isinstance(value, dict | list):
            yield from paths(value, here)
        elif isinstance(value, str) and (name == "path" or (name.endswith("_path") and "class_path" not in name)):
            yield here, value


def measured(part: Measured) -> str:
    """Figures of one file with their protocol."""
    rows = [
        [f"`{name}`", *(f"{row[c]['value']:.4g}" if c in row else "" for c in part.columns)]
        for name, row in part.figures.items()
    ]
    text = [f"On the {part.split} split (`{part.file}`):", "", table(["metric", *part.columns], rows), ""]
    settings = {f"`{name}`": protocol(row) for name, row in part.figures.items()}
    settings |= {"How samples were made": shared(part.made)} if part.made else {}
    for name, (common, own) in settings.items():
        parts = [in_words(common), *(f"{column}: {in_words(values)}" for column, values in own.items())]
        text.append(f"- {name}: " + "; ".join(filter(None, parts)))
    return "\n".join([*text, ""])


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def shortened(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
