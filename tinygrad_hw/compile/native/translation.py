"""From native text to LLVM's.

Native text is a small part of Python. Names stand for numbers of one dtype each, for memory, or
for functions of three kinds: those of intrinsics.py and products.py write LLVM's instructions,
those of formulas.py are native text, and NumPy's and C's are called. A dtype converts. A loop goes
over a ``range``, or over ``pairs`` or ``quads``, of which rounds are interleaved.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial, reduce
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from . import formulas, products  # noqa: F401
from .emission import (
    POINTER,
    SIZE,
    Builder,
    Dtype,
    Memory,
    Value,
    applied,
    binary,
    compared,
    converted,
    counting,
    kept,
    kind,
    loaded,
    negative,
    number,
    slot,
    store,
)
from .intrinsics import INTRINSICS
from .object_code import ENTRY


class _Variable(NamedTuple):
    """Where a number is that a name stands for, and its dtype."""

    place: Any
    dtype: Dtype | None


def translated(source: str) -> str:
    """Give LLVM's text for a source of ``native(self, objects, count)``.

    The function is one of C named ``ENTRY``, which takes and returns pointers to objects.
    """
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    module = ir.Module()
    shape = ir.FunctionType(POINTER, [POINTER, POINTER.as_pointer(), SIZE])
    function = ir.Function(module, shape, ENTRY)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    names = [argument.arg for argument in definition.args.args]
    given = dict(zip(names, function.args, strict=True))
    _Writer(builder, given).function(definition)
    return str(module)


_KNOWN: dict[str, Any] = {
    **vars(formulas),
    **INTRINSICS,
    "np": np,
    "math": math,
}
_FORMULAS = {
    node.name: node
    for node in ast.parse(inspect.getsource(formulas)).body
    if isinstance(node, ast.FunctionDef)
}


# What a loop goes over to how many of its rounds are interleaved.
_ABREAST = {"range": 0, "pairs": 2, "quads": 4}


def _assigned(nodes: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that statements assign to, as often as they do."""
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                yield target.id
        elif isinstance(node, (ast.For, ast.While, ast.If)):
            yield from _assigned([*node.body, *node.orelse])


class _Writer(ast.NodeVisitor):
    """Writes the instructions of a function with some names given."""

    def __init__(
        self, builder: Builder, given: dict[str, Any], kept: dict[Any, Value] | None = None
    ) -> None:
        self.builder, self.names = builder, given
        # Constants of formulas, made where the function begins.
        self.kept = {} if kept is None else kept
        # Name of a function of the text, and what is known of its arguments, to LLVM's function.
        self.made: dict[Any, Any] = {}
        # Names that need a place, since they stand for several numbers, one after the other.
        self.changing: set[str] = set()

    def function(self, definition: ast.FunctionDef) -> None:
        """Write the body of a function."""
        counts = Counter(_assigned(definition.body))
        self.changing = {name for name, count in counts.items() if count > 1}
        self.statements(definition.body)

    def statements(self, nodes: list[ast.stmt]) -> Any:
        """Write statements; give what the last one returns."""
        result = None
        for node in nodes:
            result = self.visit(node)
        return result

    def generic_visit(self, node: ast.AST) -> None:
        """Refuse what is not native text."""
        raise TypeError(f"native text has no {type(node).__name__}: {ast.unparse(node)}")

    # --- Expressions ----------------------------------------------------------------------------

    def visit_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def visit_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(map(self.visit, node.elts))

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            return self._known(_KNOWN[node.id])
        found = self.names[node.id]
        if not isinstance(found, _Variable):
            return found
        return Value(self.builder.load(found.place), found.dtype)

    def _known(self, thing: Any) -> Any:
        """Give what a name from outside the text stands for."""
        if type(thing) is tuple:
            return tuple(map(self._known, thing))
        if not isinstance(thing, np.floating):
            return thing
        if thing not in self.kept:
            self.kept[thing] = kept(self.builder, thing)
        return self.kept[thing]

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        return getattr(self.visit(node.value), node.attr)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        whole, index = self.visit(node.value), self.visit(node.slice)
        return whole[index] if type(whole) is tuple else loaded(self.builder, whole, index)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        x = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return compared(self.builder, "Eq", x, False)
        if isinstance(node.op, ast.Invert):
            return binary(self.builder, "BitXor", x, -1)
        assert isinstance(node.op, ast.USub)
        return negative(self.builder, x) if isinstance(x, Value) else -x

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        a, b = self.visit(node.left), self.visit(node.right)
        return binary(self.builder, type(node.op).__name__, a, b)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        """Both sides are computed."""
        operator = "BitAnd" if isinstance(node.op, ast.And) else "BitOr"
        return reduce(partial(binary, self.builder, operator), map(self.visit, node.values))

    def visit_Compare(self, node: ast.Compare) -> Value:
        (operator,), (right,) = node.ops, node.comparators
        sides = self.visit(node.left), self.visit(right)
        return compared(self.builder, type(operator).__name__, *sides)

    def visit_Call(self, node: ast.Call) -> Any:
        function, given = self.visit(node.func), [self.visit(a) for a in node.args]
        if isinstance(function, type) and issubclass(function, np.generic):
            (given,) = given
            return converted(self.builder, given, np.dtype(function))
        if isinstance(function, FunctionType) and function.__module__ == formulas.__name__:
            return self._formula(_FORMULAS[function.__name__], given)
        if isinstance(function, FunctionType):
            return function(self.builder, *given)
        if isinstance(function, ast.FunctionDef):
            return self._call(function, given)
        return applied(self.builder, function.__name__, *given)

    def _formula(self, formula: ast.FunctionDef, given: list[Any]) -> Any:
        """Write a formula in place of its call; what gives no number is called."""
        if not isinstance(formula.body[-1], ast.Return):
            return self._call(formula, given)
        names = [argument.arg for argument in formula.args.args]
        inside = _Writer(self.builder, dict(zip(names, given, strict=True)), self.kept)
        return inside.statements(formula.body)

    def _call(self, definition: ast.FunctionDef, given: list[Any]) -> None:
        """Call LLVM's function of one of the text's, for arguments of these kinds.

        Of small functions LLVM makes code in less time than of a long one, and memories that are
        arguments can be told not to overlap.
        """
        numbers = [g.number if isinstance(g, Memory) else None for g in given]
        apart = [n is not None and numbers.count(n) == 1 for n in numbers]
        key = definition.name, tuple(g.dtype for g in given), tuple(apart)
        if key not in self.made:
            shape = ir.FunctionType(ir.VoidType(), [g.code.type for g in given])
            self.made[key] = ir.Function(self.builder.module, shape, f"step_{len(self.made)}")
            self._define(self.made[key], definition, given, apart)
        self.builder.call(self.made[key], [g.code for g in given])

    def _define(
        self, function: Any, definition: ast.FunctionDef, given: list[Any], apart: list[bool]
    ) -> None:
        function.linkage = "internal"
        function.attributes.add("noinline")
        names = {}
        arguments = zip(definition.args.args, given, function.args, apart, strict=True)
        for name, g, argument, alone in arguments:
            if alone:
                argument.add_attribute("noalias")
            names[name.arg] = g._replace(code=argument)
        inside = ir.IRBuilder(function.append_basic_block("entry"))
        _Writer(inside, names).function(definition)
        inside.ret_void()

    # --- Statements -----------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names[node.name] = node

    def visit_Expr(self, node: ast.Expr) -> None:
        self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        (target,), value = node.targets, self.visit(node.value)
        if isinstance(target, ast.Subscript):
            store(self.builder, self.visit(target.value), self.visit(target.slice), value)
        else:
            assert isinstance(target, ast.Name)
            self._assign(target.id, value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        assert isinstance(node.target, ast.Name)
        a, b = self.visit_Name(node.target), self.visit(node.value)
        self._assign(node.target.id, binary(self.builder, type(node.op).__name__, a, b))

    def _assign(self, name: str, value: Any) -> None:
        if isinstance(value, (Value, int, float, np.generic)):
            value = number(value)
            if name not in self.changing:
                self.names[name] = value
                return
            if name not in self.names:
                place = slot(self.builder, kind(value.dtype))
                self.names[name] = _Variable(place, value.dtype)
            variable = self.names[name]
            if variable.dtype != value.dtype:
                raise TypeError(f"native text: {name} is {variable.dtype} and {value.dtype}")
            self.builder.store(value.code, variable.place)
        else:
            self.names[name] = value

    def visit_For(self, node: ast.For) -> None:
        assert isinstance(node.iter, ast.Call)
        assert isinstance(node.target, ast.Name)
        assert isinstance(node.iter.func, ast.Name)
        span = [self.visit(a) for a in node.iter.args]
        if len(span) == 1:
            span.insert(0, 0)
        with counting(self.builder, *span, abreast=_ABREAST[node.iter.func.id]) as index:
            self.names[node.target.id] = index
            self.statements(node.body)

    def visit_While(self, node: ast.While) -> None:
        builder = self.builder
        head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        builder.cbranch(self.visit(node.test).code, body, end)
        builder.position_at_end(body)
        self.statements(node.body)
        builder.branch(head)
        builder.position_at_end(end)

    def visit_If(self, node: ast.If) -> None:
        condition = number(self.visit(node.test)).code
        if not node.orelse:
            with self.builder.if_then(condition):
                self.statements(node.body)
            return
        with self.builder.if_else(condition) as (then, otherwise):
            with then:
                self.statements(node.body)
            with otherwise:
                self.statements(node.orelse)

    def visit_Return(self, node: ast.Return) -> Any:
        assert node.value is not None
        return self.visit(node.value)
