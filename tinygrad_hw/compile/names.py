"""What a function's code looks up: names, modules, and texts that may be names."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterator
from importlib.util import resolve_name
from typing import Any

_IMPORT_NAME = dis.opmap["IMPORT_NAME"]


def names_in(code: types.CodeType) -> set[str]:
    """Names that a function looks up, and the functions defined in it."""
    return {name for part in _codes(code) for name in part.co_names}


def imports_of(function: types.FunctionType) -> set[str]:
    """Full names of the modules that a function imports when it runs."""
    found: set[str] = set()
    for part in _codes(function.__code__):
        if _IMPORT_NAME not in part.co_code[::2]:
            continue
        level: Any = 0
        names: Any = None
        for step in dis.get_instructions(part):
            if step.opcode == _IMPORT_NAME:
                found |= _imported(function.__globals__, "." * level + step.argval, names or ())
            elif step.opcode != dis.EXTENDED_ARG:
                level, names = names, step.argval
    return found


def _imported(there: dict[str, Any], name: str, names: tuple[str, ...]) -> set[str]:
    """Full names of the modules that one import is of."""
    try:
        module = resolve_name(name, there.get("__package__"))
    except ImportError:
        # It fails when it runs, too.
        return set()
    # What is taken from a package may be a module too.
    below = {f"{module}.{name}" for name in names}
    return {module, *(below & sys.modules.keys())}


def texts_in(code: types.CodeType) -> set[str]:
    """Texts in a function that may be names."""
    constants = (constant for part in _codes(code) for constant in part.co_consts)
    return {c for c in constants if isinstance(c, str) and c.isidentifier()}


def asked_of(getter: Any) -> set[str]:
    """Give the names of what one of Python's getters asks for."""
    made_by, given = getter.__reduce__()
    # One with keywords is made by a partial.
    texts = [text for text in (*given, *getattr(made_by, "args", ())) if isinstance(text, str)]
    return {name for text in texts for name in text.split(".")}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Give the code of a function and of those defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
