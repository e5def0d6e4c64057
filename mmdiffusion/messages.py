"""One clear message out of the argument parser's nested ones."""

import difflib
import importlib
import inspect
import re
from collections.abc import Collection, Iterable

NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: |Errors:$|Given value( type)?: |"
    r"(- )?Expected a <class 'NoneType'>|Not a valid subclass of \w+$|Subclass types expect one of:|"
    r"a class path \(str\)$|a dict with(out)? |usage:|tip:|Problem with given class_path .*:$"
)
UNKNOWN_OPTION = re.compile(r"class_path '([\w.]+)':\s+(?:- )?.*?Option '([\w.]+)' is not accepted", re.DOTALL)
KEY = re.compile(r'Parser key "([\w.]+)"')
NO_FILE = re.compile(r'Parser key "(\w+)": Unable to load config [\'"](.*?)[\'"]')
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\w+)|Import path (\S+) does not")


def clear_message(text: str, class_names: Collection[str] = ()) -> str:
    """What the user did wrong, without the parser's account of what it tried.

    Args:
        text: Message of the parser.
        class_names: Short names of the classes a configuration may name, for a suggestion.
    """
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


def suggestion(word: str, choices: Iterable[str]) -> str:
    """The nearest choices, or all of them when none is near."""
    choices = sorted(choices)
    return " or ".join(difflib.get_close_matches(word, choices, n=3)) or ", ".join(choices)


def settings(class_path: str) -> list[str]:
    """Names of a class's constructor arguments."""
    module, _, name = class_path.rpartition(".")
    return [p for p in inspect.signature(getattr(importlib.import_module(module), name)).parameters if p != "spec"]
