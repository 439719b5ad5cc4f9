"""Values and primitives as the Python text that makes them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..dispatch import Primitive
from ..graph import Handle

_LARGE = 64


def spell(value: Any) -> str:
    """Write a value as an expression of Python and NumPy, exactly.

    Examples
    --------
    >>> spell(np.array([[0.5, 1.0]], np.float32)), spell((np.float64, slice(1, None), Ellipsis))
    ('np.array([[0.5, 1.0]], np.float32)', '(np.float64, slice(1, None, None), ...)')
    """
    if isinstance(value, Handle):
        value = value._data
    if isinstance(value, np.ndarray):
        return _spell_array(value)
    if isinstance(value, np.generic):
        return spell(value.item())
    if isinstance(value, type) and issubclass(value, np.generic):
        return f"np.{value.__name__}"
    if isinstance(value, np.dtype):
        return f"np.dtype({value.name!r})"
    if value is Ellipsis:
        return "..."
    if isinstance(value, tuple) and type(value) is tuple:
        inner = ", ".join(map(spell, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, list):
        return f"[{', '.join(map(spell, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {spell(v)}" for k, v in value.items()) + "}"
    return _with_names(repr(value)) if isinstance(value, float) else repr(value)


def _spell_array(array: np.ndarray[Any, Any]) -> str:
    dtype = "" if array.dtype in (np.float64, np.int64, np.bool_) else f", np.{array.dtype.name}"
    if array.size == 0:
        return f"np.zeros({array.shape}, np.{array.dtype.name})"
    return f"np.array({_with_names(repr(array.tolist()))}{dtype})"


def _with_names(text: str) -> str:
    return re.sub(r"\b(nan|inf)\b", r"np.\1", text)


def is_large(values: Any) -> bool:
    """Tell whether arrays are too large to be printed."""
    return sum(np.size(v) for v in values) > _LARGE


def primitive_name(primitive: Primitive) -> tuple[str, str]:
    """Give the import that a primitive needs, and the expression that names it."""
    import tinygrad_hw as tg

    if getattr(tg, primitive.name, None) is primitive:
        return "import tinygrad_hw as tg", f"tg.{primitive.name}"
    if tg.ops.primitives().get(primitive.name) is primitive:
        return "import tinygrad_hw as tg", f'tg.ops.primitives()["{primitive.name}"]'
    module = sys.modules.get(primitive.__module__)
    for name, found in vars(module).items() if module is not None else ():
        if found is primitive:
            return f"import {primitive.__module__}", f"{primitive.__module__}.{name}"
    return "", primitive.name


def function_name(fn: Callable[..., Any], unknown: str = "fn") -> tuple[str, str]:
    """Give the import that a function needs, and the expression that names it.

    A function that cannot be imported is named by its place, in a comment.
    """
    if isinstance(fn, Primitive):
        return primitive_name(fn)
    if isinstance(fn, np.ufunc):
        return "", f"np.{fn.__name__}"
    name = getattr(fn, "__qualname__", "")
    module = getattr(fn, "__module__", None)
    if not name:
        kind = type(fn)
        return f"# {unknown} is an object of the class {kind.__module__}.{kind.__name__}", unknown
    if module and "<" not in name and "." not in name:
        if module == "__main__":
            return f"# {name} is in {_place(fn)}", name
        return f"from {module} import {name}", name
    return f"# {unknown} is {name} in {_place(fn)}", unknown


def _place(fn: Any) -> str:
    code = getattr(fn, "__code__", None)
    if code is None or code.co_filename.startswith("<"):
        return "an unknown place"
    return f"{code.co_filename}:{code.co_firstlineno}"


def script(fn: Any, args: Any, check: str, options: str = "") -> str:
    """Write the lines that check a function, or a tuple of a forward and a backward, again."""
    ready = getattr(fn, "script", None)
    if ready is not None:
        return str(ready(check, options))
    functions = fn if isinstance(fn, tuple) else (fn,)
    unknown = ("forward", "backward") if isinstance(fn, tuple) else ("fn",)
    named = [function_name(f, name) for f, name in zip(functions, unknown, strict=True)]
    imports = ["import numpy as np", *dict.fromkeys(line for line, _ in named if line)]
    imports.append(f"from tinygrad_hw.testing import {check}")
    if is_large([a for a in args if isinstance(a, (np.ndarray, Handle))]):
        shapes = ", ".join(str(np.shape(a)) for a in args)
        return "\n".join([*imports, f"# the arguments, of shape {shapes}, are too large to print"])
    spelled = ", ".join([name for _, name in named] + [spell(a) for a in args])
    return "\n".join([*imports, f"{check}({spelled}{options})"])
