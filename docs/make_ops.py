"""Write ops.md from the registry of primitives and what modules export; run it after a change."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from tinygrad_hw import autodiff, nn, ops, optim
from tinygrad_hw.dispatch import Primitive

PAGE = Path(__file__).with_name("ops.md")

HEAD = """# Primitives and functions

Made by `python docs/make_ops.py` from the registry `tinygrad_hw.ops.primitives()`. Behind the ops
stand the [derivatives](#derivatives), the [layers](#layers), the [initialisers](#initialisers) and
the [optimisers](#optimisers); `help(tg.softmax)` tells more of one.

A *primitive* is a box of the graph with a rule for its gradient; the *functions* that are made of
primitives follow each table. All of them take arrays, numbers and tensors. Rules are written in
primitives, so a derivative has derivatives: of any order, unless the table says otherwise. Other
names that NumPy and the array API have for an op, such as `concat` and `pow`, work as well.
"""
REST = {
    "Derivatives": ("tg", autodiff),
    "Layers": ("tg.nn", nn),
    "Initialisers": ("tg.nn.init", nn.init),
    "Optimisers": ("tg.optim", optim),
}


def page() -> str:
    """Give the page's text."""
    rest = [_table(title, *where) for title, where in REST.items()]
    return "\n".join([HEAD, *map(_family, ops.FAMILIES), *rest])


def _family(module: ModuleType) -> str:
    # NumPy's ufuncs say that they are of NumPy; they are primitives of the first family.
    home = {p.name: p.__module__ for p in ops.primitives().values()}
    ours = {"numpy", module.__name__} if module is ops.FAMILIES[0] else {module.__name__}
    mine = [p for name, p in sorted(ops.primitives().items()) if home[name] in ours]
    lines = [f"## {module.__name__.rpartition('.')[2]}", "", _first_line(module), ""]
    if mine:
        lines += ["| primitive | where | conventions | order |", "|---|---|---|---|"]
        lines += [
            f"| `{p.name}` | {_cell(p.domain.text)} | {_cell(p.conventions)} | {_order(p)} |"
            for p in mine
        ]
        lines.append("")
    functions = [
        name for name in module.__all__ if not isinstance(getattr(module, name), Primitive)
    ]
    if functions:
        lines += ["Functions: " + ", ".join(f"`{name}`" for name in sorted(functions)) + ".", ""]
    return "\n".join(lines)


def _table(title: str, prefix: str, module: ModuleType) -> str:
    lines = [f"## {title}", "", f"| `{prefix}.` | |", "|---|---|"]
    for name in module.__all__:
        what = getattr(module, name)
        text = _first_line(what).replace(":func:`tinygrad_hw.", "`tg.").replace(":func:", "")
        call = "" if isinstance(what, ModuleType) else _call(what)
        lines.append(f"| `{name}{_cell(call)}` | {_cell(text).replace('``', '`')} |")
    return "\n".join([*lines, ""])


def _call(function: Any) -> str:
    """How it is called, without types."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    call = signature.replace(parameters=bare, return_annotation=signature.empty)
    return str(call).replace("<class 'numpy.float32'>", "np.float32")


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").partition("\n")[0]


def _order(primitive: Primitive) -> str:
    return "any" if primitive.gradient is not None else "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
