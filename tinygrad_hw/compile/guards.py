"""What a recording takes for granted: the Python values that the function can reach.

A program is recorded with the numbers, flags and objects that the function found in its closure,
in globals and in the objects there. They are looked up before the recording; a run first makes
sure that the same are there.
"""

from __future__ import annotations

import functools
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..graph import Handle
from ..optim import Optimizer

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = (_PACKAGE, *{sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")})
# Of an optimiser these change at every step, and the program reads them.
_CHANGING = frozenset({"lr", "steps", "memory"})
_PLAIN = (int, float, complex, bool, str, bytes, type(None), np.generic, np.dtype)
_MOST = 20_000


class Place(NamedTuple):
    """An entry of a container or a cell of a closure, and what was there."""

    kind: str
    owner: Any
    key: Any
    value: Any
    name: str

    def now(self) -> Any:
        """Give what is there now; the class of errors stands for nothing."""
        try:
            if self.kind == "cell":
                return self.owner.cell_contents
            return len(self.owner) if self.kind == "length" else self.owner[self.key]
        except (LookupError, ValueError):
            return LookupError

    def same(self) -> bool:
        """Tell whether what is there is as good as what was."""
        value = self.now()
        if value is self.value:
            return True
        return (
            type(value) is type(self.value)
            and isinstance(value, _PLAIN)
            and _same(value, self.value)
        )

    def change(self) -> str:
        """Say what is different."""
        return f"{self.name} changed from {_brief(self.value)} to {_brief(self.now())}"


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) or (a != a and b != b)


def _brief(value: Any) -> str:
    if value is LookupError:
        return "nothing"
    return repr(value) if isinstance(value, _PLAIN) else f"another {type(value).__name__}"


class Guards:
    """The places that a function can reach, as they are now.

    Attributes
    ----------
    places : list of Place
    arrays : list of (array, copy)
        Arrays outside of tensors: what is computed from them by NumPy alone is not recorded.
    generators : list of (Generator, state)
    tensors : list of Tensor
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.places: list[Place] = []
        self.arrays: list[tuple[Any, Any]] = []
        self.generators: list[tuple[np.random.Generator, Any]] = []
        self.tensors: list[Any] = []
        # Attributes of the user's objects matter once a function of the user's names them.
        self._names = {"training"}
        self._root = function
        self._unnamed: dict[str, list[tuple[Any, str]]] = {}
        seen: set[int] = set()
        stack: list[tuple[Any, str]] = [(function, getattr(function, "__name__", "function"))]
        while stack and len(self.places) < _MOST:
            value, name = stack.pop()
            if not isinstance(value, _PLAIN) and id(value) not in seen:
                seen.add(id(value))
                stack.extend(reversed(self._visit(value, name)))

    def _visit(self, value: Any, name: str) -> list[tuple[Any, str]]:
        from . import function

        if isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType)):
            return []
        if isinstance(value, Handle):
            self.tensors.append(value)
            return []
        if isinstance(value, np.ndarray):
            self.arrays.append((value, value.copy()))
            return []
        if isinstance(value, np.random.Generator):
            self.generators.append((value, value.bit_generator.state))
            return []
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return [(value.__self__, name), (value.__func__, name)]
        if isinstance(value, function.Compiled):
            return [(value.function, name)]
        if isinstance(value, functools.partial):
            return [(value.func, name), (value.args, name), (value.keywords, name)]
        if isinstance(value, dict):
            return self._entries(value, value, name, "{0}[{1!r}]")
        if isinstance(value, (list, tuple)):
            return self._entries(value, range(len(value)), name, "{0}[{1}]")
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            return []
        methods = [
            (method, name)
            for kind in type(value).__mro__
            for method in vars(kind).values()
            if isinstance(method, types.FunctionType)
            and not method.__code__.co_filename.startswith(_LIBRARIES)
        ]
        if methods:
            return methods + self._named_attributes(attributes, name)
        keys = [k for k in attributes if not (isinstance(value, Optimizer) and k in _CHANGING)]
        return self._entries(attributes, keys, name, "{0}.{1}")

    def _named_attributes(self, attributes: dict[str, Any], name: str) -> list[tuple[Any, str]]:
        found = []
        for key in list(attributes):
            if key in self._names:
                found.append(self._place("entry", attributes, key, f"{name}.{key}"))
            else:
                self._unnamed.setdefault(key, []).append((attributes, name))
        return found

    def _entries(self, owner: Any, keys: Any, name: str, form: str) -> list[tuple[Any, str]]:
        if not isinstance(owner, tuple):
            self.places.append(Place("length", owner, None, len(owner), f"the length of {name}"))
        return [self._place("entry", owner, key, form.format(name, key)) for key in list(keys)]

    def _place(self, kind: str, owner: Any, key: Any, name: str) -> tuple[Any, str]:
        place = Place(kind, owner, key, None, name)
        value = place.now()
        if not isinstance(owner, tuple):
            self.places.append(place._replace(value=value))
        return value, name

    def _function(self, function: types.FunctionType) -> list[tuple[Any, str]]:
        code = function.__code__
        if code.co_filename.startswith(_LIBRARIES) and function is not self._root:
            return []
        found = [
            self._place("cell", cell, None, name)
            for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
        ]
        names = _names(code)
        for key in sorted(names - self._names):
            for attributes, name in self._unnamed.pop(key, ()):
                found.append(self._place("entry", attributes, key, f"{name}.{key}"))
        self._names |= names
        for name in sorted(name for name in names if name in function.__globals__):
            value = function.__globals__[name]
            if not isinstance(value, types.ModuleType):
                found.append(self._place("entry", function.__globals__, name, name))
        return [*found, (function.__defaults__, "defaults"), (function.__kwdefaults__, "defaults")]

    def changed(self) -> str | None:
        """Say what is no longer as it was, if anything."""
        for place in self.places:
            if not place.same():
                return place.change()
        for array, copy in self.arrays:
            if not same_array(array, copy):
                return (
                    f"an array {array.shape} that the function reaches was written to; pass it as "
                    "an argument"
                )
        return None

    def test(self, test: Test) -> None:
        """Test that everything is the same; a value that is equal but another fails."""
        for kind, owner, key, value, _ in self.places:
            o, v = test.known(owner), test.known(value)
            if kind == "length":
                test.term(f"len({o}) == {value}")
            elif kind == "cell":
                test.term(f"{o}.cell_contents is {v}")
            else:
                place = repr(key) if type(key) in (int, str) else test.known(key)
                test.term(f"{o}[{place}] is {v}")
        for array, copy in self.arrays:
            test.term(f"{test.known(same_array)}({test.known(array)}, {test.known(copy)})")


class Test:
    """Collects conditions, and makes one fast function of them."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._ids: dict[int, str] = {}
        self._terms: list[str] = []

    def known(self, value: Any) -> str:
        """Name an object in the conditions."""
        name = self._ids.get(id(value))
        if name is None:
            name = self._ids[id(value)] = f"k{len(self._ids)}"
            self._names[name] = value
        return name

    def term(self, condition: str) -> None:
        """Add a condition."""
        self._terms.append(condition)

    def function(self, arguments: int) -> Callable[..., bool]:
        """Make a function of ``a0``, ``a1`` and so on of the conditions up to now."""
        names = ", ".join(f"a{i}" for i in range(arguments))
        source = f"def holds({names}):\n    return {' and '.join(self._terms) or 'True'}\n"
        exec(compile(source, "<guards>", "exec"), self._names)
        holds: Callable[..., bool] = self._names["holds"]
        return holds


def same_array(array: Any, copy: Any) -> bool:
    """Tell whether an array is still equal to its copy."""
    if array.shape != copy.shape or array.dtype != copy.dtype:
        return False
    return bool(np.array_equal(array, copy, equal_nan=array.dtype.kind in "fc"))


def _names(code: types.CodeType) -> set[str]:
    """Names that a function looks up, and the functions defined in it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names
