"""Lets a file do what NumPy did before 2.4: take an array of one entry for a number.

``y[i, j, k] = total + b[k]`` with a column ``b`` was usual in homework, and is now an error. In the
rewritten file such an assignment is a call, and so are ``int(...)`` and ``float(...)``. They do
what they did, and note when only an older NumPy would have.

The process that runs a student's file loads this module by its path.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

_SET, _UPDATE, _CONVERT = (f"_hw5_checker_{name}" for name in ("set", "update", "convert"))
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.iadd,
    "Sub": operator.isub,
    "Mult": operator.imul,
    "Div": operator.itruediv,
}


class Rewriter(ast.NodeTransformer):
    """Turns assignments to entries, and conversions to numbers, into calls."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Leave alone what a decorator may want to read, as a compiler does."""
        return node if node.decorator_list else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """``a[i] = v``."""
        self.generic_visit(node)
        (target, *others) = node.targets
        if others or not isinstance(target, ast.Subscript):
            return node
        return _statement(node, _SET, target, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """``a[i] += v`` and the like."""
        self.generic_visit(node)
        kind = type(node.op).__name__
        if not isinstance(node.target, ast.Subscript) or kind not in _OPERATORS:
            return node
        return _statement(node, _UPDATE, node.target, node.value, ast.Constant(kind))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """``int(v)`` and ``float(v)``."""
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in ("int", "float") or len(node.args) != 1 or node.keywords:
            return node
        call = ast.Call(ast.Name(_CONVERT, ast.Load()), [node.func, *node.args], [])
        return ast.copy_location(call, node)


def _statement(node: ast.stmt, name: str, target: ast.Subscript, *values: ast.expr) -> ast.stmt:
    arguments = [target.value, _index(target.slice), *values]
    call = ast.Call(ast.Name(name, ast.Load()), arguments, [])
    return ast.copy_location(ast.Expr(call), node)


def _index(node: ast.expr) -> ast.expr:
    """What stands in the brackets as an expression outside of them."""
    if isinstance(node, ast.Tuple):
        return ast.Tuple([_index(part) for part in node.elts], ast.Load())
    if isinstance(node, ast.Slice):
        ends = (node.lower, node.upper, node.step)
        parts = [ast.Constant(None) if end is None else end for end in ends]
        return ast.Call(ast.Name("slice", ast.Load()), parts, [])
    return node


class OlderNumPy:
    """Rewrites a file and knows whether it needed it.

    Attributes
    ----------
    needed : bool
    """

    def __init__(self) -> None:
        self.needed = False

    def rewrite(self, tree: ast.Module, names: dict[str, Any]) -> ast.Module:
        """Rewrite a file that is to run with these global names."""
        names |= {_SET: self._set, _UPDATE: self._update, _CONVERT: self._convert}
        rewritten: ast.Module = ast.fix_missing_locations(Rewriter().visit(tree))
        return rewritten

    def _set(self, target: Any, index: Any, value: Any) -> None:
        try:
            target[index] = value
        except (TypeError, ValueError):
            target[index] = self._number(value)

    def _update(self, target: Any, index: Any, value: Any, kind: str) -> None:
        self._set(target, index, _OPERATORS[kind](target[index], value))

    def _convert(self, kind: Any, value: Any) -> Any:
        try:
            return kind(value)
        except TypeError:
            return kind(self._number(value))

    def _number(self, value: Any) -> Any:
        """The one entry of an array; for anything else, the error goes on."""
        if not isinstance(value, np.ndarray) or value.size != 1 or value.ndim == 0:
            raise
        self.needed = True
        return value.item()
