"""Lets a file do what NumPy once did: homework is handed on for years.

NumPy took an array of one entry for a number until 2.4, as in ``y[i, j, k] = total + b[k]`` with a
column ``b``, and had names such as ``np.float`` that are gone. In the rewritten file assignments to
entries, ``int(...)``, ``math.exp(...)``, ``"%f" % ...`` and the like, and those names are calls:
they do what they did, and note what only an older NumPy would have done.

The process that runs a student's file loads this module by its path.
"""

from __future__ import annotations

import ast
import math
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_SET, _UPDATE, _CONVERT, _FORMAT, _NAMED, _INDEX, _PART = (
    f"_hw5_checker_{name}"
    for name in ("set", "update", "convert", "format", "named", "index", "part")
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
# What takes numbers alone.
CONVERTERS: list[Any] = [int, float, *filter(callable, vars(math).values())]
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

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.stmt]:
        """``a[i], b = v`` in parts: ``p0, p1 = v``, ``a[i] = p0``, ``b = p1``: the value first."""
        self.generic_visit(node)
        into = [leaf for target in node.targets for leaf in _leaves(target)]
        if not any(isinstance(leaf, ast.Subscript) for leaf in into):
            return node
        names = [f"{_PART}{number}" for number in range(len(into))]
        parts = _Parts(dict(zip(into, names, strict=True)))
        whole = ast.Assign([parts.visit(target) for target in node.targets], node.value)
        assigned = [_assigned(node, *pair) for pair in zip(into, names, strict=True)]
        return [ast.copy_location(whole, node), *assigned]

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
        """``int(v)``, ``math.exp(v)`` and the like."""
        self.generic_visit(node)
        module, _, name = ast.unparse(node.func).rpartition(".")
        known = hasattr(math, name) if module in ("", "math") else False
        if node.keywords or not (known or (not module and name in ("int", "float"))):
            return node
        call = ast.Call(ast.Name(_CONVERT, ast.Load()), [node.func, *node.args], [])
        return ast.copy_location(call, node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """``"%.3f" % v``."""
        self.generic_visit(node)
        text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
        if not text or not isinstance(node.op, ast.Mod):
            return node
        call = ast.Call(ast.Name(_FORMAT, ast.Load()), [node.left, node.right], [])
        return ast.copy_location(call, node)


class _Parts(ast.NodeTransformer):
    """Puts names in the place of what is assigned to."""

    def __init__(self, names: dict[ast.expr, str]) -> None:
        self.names = names

    def visit(self, node: ast.AST) -> Any:
        if node in self.names:
            return ast.Name(self.names[node], ast.Store())
        return self.generic_visit(node)


def _leaves(target: ast.expr) -> Iterator[ast.expr]:
    """What is assigned to, part by part."""
    if isinstance(target, (ast.Tuple, ast.List)):
        for part in target.elts:
            yield from _leaves(part)
    else:
        yield target.value if isinstance(target, ast.Starred) else target


def _assigned(node: ast.stmt, target: ast.expr, name: str) -> ast.stmt:
    part = ast.Name(name, ast.Load())
    if isinstance(target, ast.Subscript):
        return _statement(node, _SET, target, part)
    return ast.copy_location(ast.Assign([target], part), node)


def _compiles(decorator: ast.expr) -> bool:
    """Whether a decorator is one of numba's, by its name."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).split(".")[-1] in COMPILERS


def _statement(node: ast.stmt, name: str, target: ast.Subscript, *values: ast.expr) -> ast.stmt:
    # What stands in the brackets, slices too, is an expression behind a name that gives it back.
    index = ast.Subscript(ast.Name(_INDEX, ast.Load()), target.slice, ast.Load())
    arguments = [target.value, index, *values]
    call = ast.Call(ast.Name(name, ast.Load()), arguments, [])
    return ast.copy_location(ast.Expr(call), node)


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
        names |= {_SET: self._set, _UPDATE: self._update, _INDEX: np.s_}
        names |= {_CONVERT: self._convert, _FORMAT: self._format, _NAMED: self._named}
        limit = sys.getrecursionlimit()
        # Python itself reads deeper expressions than a visitor, three calls a level, comes through.
        sys.setrecursionlimit(10 * limit)
        try:
            rewritten: ast.Module = ast.fix_missing_locations(Rewriter().visit(tree))
        finally:
            sys.setrecursionlimit(limit)
        return rewritten

    def _set(self, target: Any, index: Any, value: Any) -> None:
        try:
            target[index] = value
        except (TypeError, ValueError):
            if not _is_one_entry(value):
                raise
            target[index] = self._number(value)

    def _update(self, target: Any, index: Any, value: Any, kind: str) -> None:
        self._set(target, index, _OPERATORS[kind](target[index], value))

    def _convert(self, kind: Any, *values: Any) -> Any:
        try:
            return kind(*values)
        except TypeError:
            # A function of the file's own may bear the name of one.
            if kind not in CONVERTERS or not any(map(_is_one_entry, values)):
                raise
            return kind(*map(self._number, values))

    def _format(self, text: str, values: Any) -> Any:
        try:
            return text % values
        except TypeError:
            many = values if isinstance(values, tuple) else (values,)
            if not any(map(_is_one_entry, many)):
                raise
            return text % tuple(map(self._number, many))

    def _number(self, value: Any) -> Any:
        """The one entry of an array; anything else as it is."""
        if not _is_one_entry(value):
            return value
        self._note(ONE_ENTRY)
        return value.item()

    def _named(self, name: str) -> Any:
        self._note(f"np.{name} is gone")
        return GONE[name]

    def _note(self, use: str) -> None:
        if use not in self.needed:
            self.needed.append(use)


def _is_one_entry(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size == 1 and value.ndim > 0
