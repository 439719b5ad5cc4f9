"""Write ops.md from the registry of primitives; run it after a change to an op."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from tinygrad_hw import ops
from tinygrad_hw.dispatch import Primitive

PAGE = Path(__file__).with_name("ops.md")

HEAD = """# Primitives and functions

Made by `python docs/make_ops.py` from the registry `tinygrad_hw.ops.primitives()`.

A *primitive* is a box of the graph with a rule for its gradient; the *functions* that are made of
primitives follow each table. All of them take arrays, numbers and tensors. Rules are written in
primitives, so a derivative has derivatives: of any order, unless the table says otherwise.
"""


def page() -> str:
    """Give the page's text."""
    return "\n".join([HEAD, *map(_family, ops.FAMILIES)])


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


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("\n")[0]


def _order(primitive: Primitive) -> str:
    return "any" if primitive.gradient is not None else "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
