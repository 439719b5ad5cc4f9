"""Lets a file do what NumPy once did: homework is handed on for years.

NumPy took an array of one entry for a number until 2.4, as in ``y[i, j, k] = total + b[k]`` with a
column ``b``, and had names such as ``np.float`` that are gone. In the rewritten file assignments to
entries, ``int(...)``, ``float(...)`` and those names are calls: they do what they did, and note
what only an older NumPy would have done.

The process that runs a student's file loads this module by its path.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

_SET, _UPDATE, _CONVERT, _NAMED = (
    f"_hw5_checker_{name}" for name in ("set", "update", "convert", "named")
)
ONE_ENTRY = "an array of one entry stands for a number (write b[k, 0] for b[k])"
# What is gone from NumPy, as far as this one lacks it.
GONE: dict[str, Any] = {
    "alltrue": np.all,
    "asscalar": lambda array: array.item(),
    "cumproduct": np.cumprod,
    "float": float,
    "float_": np.float64,
    "in1d": np.isin,
    "Inf": np.inf,
    "infty": np.inf,
    "int": int,
    "int_": np.int64,
    "math": math,
    "NaN": np.nan,
    "object": object,
    "product": np.prod,
    "row_stack": np.vstack,
    "sometrue": np.any,
    "str": str,
}
# The decorators of numba that compile a function.
COMPILERS = set("cfunc generated_jit guvectorize jit njit stencil vectorize".split())
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.iadd,
    "Sub": operator.isub,
    "Mult": operator.imul,
    "Div": operator.itruediv,
}


class Rewriter(ast.NodeTransformer):
    """Turns assignments to entries, and conversions to numbers, into calls."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Leave alone what numba compiles: it cannot compile the calls."""
        return node if any(map(_compiles, node.decorator_list)) else self.generic_visit(node)

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

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """``np.float`` and the like."""
        self.generic_visit(node)
        gone = node.attr in GONE and not hasattr(np, node.attr)
        if not gone or ast.unparse(node.value) not in ("np", "numpy"):
            return node
        call = ast.Call(ast.Name(_NAMED, ast.Load()), [ast.Constant(node.attr)], [])
        return ast.copy_location(call, node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """``int(v)`` and ``float(v)``."""
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in ("int", "float") or len(node.args) != 1 or node.keywords:
            return node
        call = ast.Call(ast.Name(_CONVERT, ast.Load()), [node.func, *node.args], [])
        return ast.copy_location(call, node)


def _compiles(decorator: ast.expr) -> bool:
    """Whether a decorator is one of numba's, by its name."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).split(".")[-1] in COMPILERS


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
    needed : list of str
        What of an older NumPy was needed so far.
    """

    def __init__(self) -> None:
        self.needed: list[str] = []

    def rewrite(self, tree: ast.Module, names: dict[str, Any]) -> ast.Module:
        """Rewrite a file that is to run with these global names."""
        names |= {_SET: self._set, _UPDATE: self._update}
        names |= {_CONVERT: self._convert, _NAMED: self._named}
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
        self._note(ONE_ENTRY)
        return value.item()

    def _named(self, name: str) -> Any:
        self._note(f"np.{name} is gone")
        return GONE[name]

    def _note(self, use: str) -> None:
        if use not in self.needed:
            self.needed.append(use)
