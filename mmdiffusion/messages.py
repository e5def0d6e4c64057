"""One clear message out of the argument parser's nested ones."""

import difflib
import errno
import importlib
import inspect
import os
import re
from collections.abc import Collection, Iterable

NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: |Errors:$|Given value( type)?: |"
    r"(- )?Expected a <class 'NoneType'>|Not a valid subclass of \w+$|Subclass types expect one of:|"
    r"a class path \(str\)$|a dict with(out)? |usage:|tip:|Problem with given class_path .*:$"
)
UNKNOWN_OPTION = re.compile(r"class_path '([\w.]+)':\s+(?:- )?.*?Option '([\w.]+)' is not accepted", re.DOTALL)
KEY = re.compile(r'Parser key "([\w.]+)"')
FROM_WORKER = re.compile(r"\ACaught \w+ in DataLoader worker process .*^\w+: (.*)\Z", re.DOTALL | re.MULTILINE)
NO_FILE = re.compile(r'Parser key "(\w+)": Unable to load config [\'"](.*?)[\'"]')
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL", "ProcessGroup")
NO_ROOM = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\w+)|Import path (\S+) does not")


def clear_message(text: str, class_names: Collection[str] = ()) -> str:
    """What the user did wrong, without the parser's account of what it tried.

    Args:
        text: Message of the parser.
        class_names: Short names of the classes a configuration may name, for a suggestion.
    """
    from_worker = FROM_WORKER.search(text)
    if from_worker:
        return from_worker.group(1).strip()
    unknown = UNKNOWN_OPTION.search(text)
    if unknown:
        path, option = unknown.groups()
        return f"{path} has no setting {option!r}: expected one of {suggestion(option, settings(path))}"
    no_file = NO_FILE.search(text)
    if no_file:
        section, value = no_file.groups()
        return f"--{section} is {value}: expected a file of settings; a single one is --{section}.NAME VALUE"
    misspelt = UNKNOWN_CLASS.search(text)
    if misspelt:
        name = misspelt.group(1) or misspelt.group(2)
        field = ".".join([*KEY.findall(text[: misspelt.start()])[-1:], "class_path"])
        if name in class_names:
            return f"{field} is {name!r}: expected a class of another kind"
        return f"{field} is {name!r}: expected {suggestion(name, class_names)}"
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    kept = [line for line in lines if line and not NOISE.match(line)]
    return " ".join(dict.fromkeys(kept)) or text


def failure(text: str) -> str | None:
    """What happened, for failures that are no mistake of this program: `None` for all others.

    Args:
        text: Message of a `RuntimeError` or an `OSError`.
    """
    if any(sign in text for sign in NO_ROOM):
        return f"there is no room on the disk: {text}; make some"
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
        reason = text.strip().splitlines()[0]
        return (
            f"a process that reads data was ended: {reason.rstrip('. ')}. Mostly memory ran out: expected fewer "
            "num_workers, or a smaller batch"
        )
    lost = next((sign for sign in LOST if sign in text), None)
    return lost and f"another process of this training has ended, so this one does ({lost}); see what that one said"


def shortened(value: object) -> str:
    """A value as a message shows it."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def suggestion(word: str, choices: Iterable[str]) -> str:
    """The nearest choices, or all of them when none is near."""
    choices = sorted(choices)
    return " or ".join(difflib.get_close_matches(word, choices, n=3)) or ", ".join(choices)


def settings(class_path: str) -> list[str]:
    """Names of a class's constructor arguments."""
    module, _, name = class_path.rpartition(".")
    return [p for p in inspect.signature(getattr(importlib.import_module(module), name)).parameters if p != "spec"]
