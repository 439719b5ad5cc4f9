"""What a recording takes for granted: the Python values that the function can reach.

A program is recorded with the numbers, flags and objects that the function found in its closure,
in globals and in the objects there. They are looked up before the recording; a run first makes
sure that the same are there.
"""

from __future__ import annotations

import array
import copy
import functools
import gc
import inspect
import operator
import os
import random
import sys
import sysconfig
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..graph import Handle, Recorded
from ..nn.module import Module
from ..optim import Optimizer
from .names import asked_of, imports_of, names_in, texts_in
from .progress import position_of, state_of
from .same import PLAIN, same_array, same_plain

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in (
        _PACKAGE,
        *{sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")},
    )
)
# A function that names one of these may ask for an attribute by a text.
_BY_TEXT = frozenset(
    "getattr hasattr setattr vars globals __dict__ attrgetter methodcaller".split()
)
# One that names one of these may make another object of a class.
_BY_CLASS = frozenset({"type", "__class__"})
# Of an optimiser these change at every step, and the program reads them.
_CHANGING = frozenset({"lr", "steps", "memory"})
# What shows the entries of a dict.
_VIEWS: tuple[type, ...] = (
    types.MappingProxyType,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)
# Containers that are compared as a whole.
_WHOLE = (set, frozenset, bytearray, array.array)
# Classes that have parts of their own, which a class of the user's may be derived from.
_DERIVED_FROM = (Handle, np.ndarray, dict, list, tuple, deque, set, frozenset)
_MOST, _LONG = 20_000, 100


class Place(NamedTuple):
    """An entry of a container, an attribute or a cell of a closure, and what was there."""

    kind: str
    owner: Any
    key: Any
    value: Any
    name: str

    def now(self) -> Any:
        """Give what is there now; the class of errors stands for nothing."""
        try:
            return _READ[self.kind](self.owner, self.key)
        except (LookupError, ValueError, AttributeError):
            return LookupError

    def can_put(self) -> bool:
        """Tell whether what is there now can be put there again: numbers, texts and flags can."""
        return self.kind in ("entry", "attribute", "class") and isinstance(self.now(), PLAIN)

    def put(self) -> None:
        """Put there what was there."""
        if self.kind == "entry":
            self.owner[self.key] = self.value
        else:
            setattr(self.owner, self.key, self.value)

    def same(self) -> bool:
        """Tell whether what is there is as good as what was."""
        value = self.now()
        if self.kind == "whole":
            return bool(value == self.value)
        return value is self.value or same_plain(value, self.value)

    def change(self) -> str:
        """Say what is different."""
        if self.kind == "absent":
            return f"{self.name} has a new attribute, {self.now()}"
        before, now = _brief(self.value), _brief(self.now())
        if before == now:
            return f"{self.name} is another {now.partition(' ')[2] or now}"
        return f"{self.name} changed from {before} to {now}"


# How to read what is at a place of each kind.
_READ: dict[str, Callable[[Any, Any], Any]] = {
    "cell": lambda owner, _: owner.cell_contents,
    "length": lambda owner, _: len(owner),
    # Of the attributes that an object has in this thread.
    "own length": lambda owner, _: len(vars(owner)),
    "whole": lambda owner, _: owner,
    "absent": lambda owner, keys: ", ".join(sorted(keys & owner.keys())),
    "attribute": getattr,
    # As it is there: a method of a class is another object each time that it is got.
    "class": lambda owner, key: vars(owner)[key],
    "entry": lambda owner, key: owner[key],
}


def _brief(value: Any) -> str:
    if value is LookupError:
        return "nothing"
    if isinstance(value, PLAIN):
        return repr(value)
    kind = np.ndarray if isinstance(value, Recorded) else type(value)
    return getattr(value, "__name__", None) or f"a {kind.__name__}"


class Guards:
    """The places that a function can reach, as they are now.

    Attributes
    ----------
    places : list of Place
    arrays : list of (array, copy)
        Arrays outside of tensors: what is computed from them by NumPy alone is not recorded.
    generators : list of (Generator, RandomState or Random, state)
    iterators : list of (iterator, position, name)
    tensors : list of Tensor
    optimizers : list of Optimizer
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any] = ()) -> None:
        self.places: list[Place] = []
        self.arrays: list[tuple[Any, Any]] = []
        self.generators: list[tuple[Any, Any]] = []
        self.iterators: list[tuple[Iterator[Any], list[Any], str]] = []
        self.tensors: list[Any] = []
        self.optimizers: list[Optimizer] = []
        # Attributes of the user's objects matter once a function of the user's names them.
        self._names = {"training"}
        self._root = function
        self._unnamed: dict[str, list[tuple[Any, str]]] = {}
        self._kinds: set[type] = set()
        # Attributes of the user's objects and modules, where others may come later.
        self._open: list[tuple[dict[str, Any], type, str]] = []
        # Numbers of the objects that it has come by.
        self.seen: set[int] = set()
        name = getattr(function, "__name__", type(function).__name__)
        found = deque([(function, name)])
        # Arrays and tensors among the arguments may differ from call to call.
        found.extend(
            (leaf, f"argument {i}")
            for i, leaf in enumerate(arguments)
            if not isinstance(leaf, (Handle, np.ndarray))
        )
        # What is near comes first, lest a large container use up all places before it.
        while found and len(self.places) < _MOST:
            value, name = found.popleft()
            if not isinstance(value, PLAIN) and id(value) not in self.seen:
                self.seen.add(id(value))
                found.extend(self._visit(value, name))
        self.places += [self._absent(*there) for there in self._open]

    def _visit(self, value: Any, name: str) -> list[tuple[Any, str]]:
        found = self._parts(value, name)
        if isinstance(value, _DERIVED_FROM) and _by_user(type(value)):
            # What a class of the user's adds, such as methods.
            found += self._object(value, name)
        return found

    def _parts(self, value: Any, name: str) -> list[tuple[Any, str]]:
        """Note what a value tells of itself; give what can be reached through it."""
        from . import function

        behind = _behind(value)
        if behind is not None:
            return [(part, name) for part in behind]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, (types.ModuleType, type)):
            return self._of_the_user(value, name)
        if isinstance(value, classmethod):
            # It may make an object.
            return [(value.__func__, name), *self._name({"__init__"})]
        if isinstance(value, (operator.attrgetter, operator.methodcaller)):
            return self._name(asked_of(value))
        if isinstance(value, function.Compiled):
            return [(value.function, name), *self._named(vars(value), name)]
        if isinstance(value, Handle):
            self.tensors.append(value)
            extras = (value._node.extras if value._node else None) or {}
            return [(hook, f"a hook of {name}") for hook in extras.get("hooks", {}).values()]
        if isinstance(value, np.ndarray):
            self.arrays.append((value, value.copy()))
            return []
        if isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
            self.generators.append((value, state_of(value)))
            return []
        if isinstance(value, Iterator) and not _by_user(type(value)):
            self.iterators.append((value, position_of(value), name))
            return []
        if isinstance(value, _WHOLE) or _long_and_plain(value):
            self.places.append(Place("whole", value, None, copy.copy(value), name))
            return [(entry, name) for entry in value if not isinstance(entry, PLAIN)]
        if isinstance(value, dict):
            return self._entries(value, value, name, "{0}[{1!r}]")
        if isinstance(value, (list, tuple, deque)):
            return self._entries(value, range(len(value)), name, "{0}[{1}]")
        return self._object(value, name)

    def _object(self, value: Any, name: str) -> list[tuple[Any, str]]:
        kinds = [kind for kind in type(value).__mro__ if _by_user(kind)]
        found: list[tuple[Any, str]] = []
        for kind in kinds:
            if kind not in self._kinds:
                found += self._methods(kind, unnamed=kinds != list(type(value).__mro__[:-1]))
            self._kinds.add(kind)
            found += self._named(value, name, [k for k, v in vars(kind).items() if _is_data(v)])
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            return found
        if isinstance(value, threading.local):
            # Another thread has others.
            what = f"the number of attributes of {name}"
            self.places.append(Place("own length", value, None, len(attributes), what))
            keys = list(attributes)
            return found + [self._place("attribute", value, k, f"{name}.{k}") for k in keys]
        if isinstance(value, Module) and "_record" not in attributes:
            # A module notes this at its first call, which would look like a change.
            value._note_paths()
        if kinds and not isinstance(value, (Module, Optimizer)):
            self._open.append((attributes, type(value), name))
            return found + self._named(attributes, name)
        keys = [k for k in attributes if not (isinstance(value, Optimizer) and k in _CHANGING)]
        if isinstance(value, Optimizer):
            self.optimizers.append(value)
        return found + self._entries(attributes, keys, name, "{0}.{1}")

    def _methods(self, kind: type, unnamed: bool) -> list[tuple[Any, str]]:
        """Follow the methods of a class of the user's that run, for all that is known.

        Others than special ones run without being named where a library's class calls them, as a
        module its ``forward``. As to ``__init__``, an object that is there is not made again.
        """
        methods = [key for key, value in vars(kind).items() if _is_method(value)]
        at_once = [k for k in methods if unnamed or (k[:2] == "__" and k != "__init__")]
        others = [key for key in methods if key not in at_once]
        found = [self._attribute(kind, key, kind.__name__) for key in at_once]
        return found + self._named(kind, kind.__name__, others)

    def _absent(self, attributes: dict[str, Any], kind: type, name: str) -> Place:
        """Note the attributes that functions name and an object lacks: some may come later."""
        # A property, or another such descriptor, goes before what the object itself has.
        there = (inspect.getattr_static(kind, key, None) for key in self._names)
        hidden = (hasattr(attribute, "__set__") for attribute in there)
        keys = {key for key, hides in zip(self._names, hidden, strict=True) if not hides}
        keys -= attributes.keys()
        return Place("absent", attributes, frozenset(keys), "", name)

    def _of_the_user(self, value: Any, name: str) -> list[tuple[Any, str]]:
        """Follow a module or a class of the user's."""
        if not isinstance(value, type):
            if not _by_user(value):
                return []
            self._open.append((vars(value), type(value), name))
            # Python calls the function of this name for names that are not there.
            return [*self._name({"__getattr__"}), *self._named(vars(value), name)]
        found = []
        for kind in inspect.getmro(value) + inspect.getmro(type(value)):
            if _by_user(kind):
                there, what = vars(kind), f"the number of attributes of {kind.__name__}"
                self.places.append(Place("length", there, None, len(there), what))
                found += self._named(kind, kind.__name__)
                # Python calls these of the objects that the function makes, without their names.
                special = [k for k, v in vars(kind).items() if k[:2] == "__" and _is_method(v)]
                found += [self._attribute(kind, key, kind.__name__) for key in special]
        return found

    def _named(self, owner: Any, name: str, keys: Any = None) -> list[tuple[Any, str]]:
        """Follow the attributes that functions of the user's name, now or later."""
        found = []
        if keys is None:
            keys = vars(owner) if isinstance(owner, type) else owner
        for key in list(keys):
            if key in self._names:
                found.append(self._attribute(owner, key, name))
            else:
                self._unnamed.setdefault(key, []).append((owner, name))
        return found

    def _attribute(self, owner: Any, key: str, name: str) -> tuple[Any, str]:
        kind = "attribute"
        if isinstance(owner, (type, dict)):
            kind = "class" if isinstance(owner, type) else "entry"
        return self._place(kind, owner, key, f"{name}.{key}")

    def _entries(self, owner: Any, keys: Any, name: str, form: str) -> list[tuple[Any, str]]:
        if not isinstance(owner, tuple):
            what = "the number of attributes" if "." in form else "the length"
            self.places.append(Place("length", owner, None, len(owner), f"{what} of {name}"))
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
            # It may be made of the user's, as by `grad`, `contextmanager` and `singledispatch`.
            # What else it holds, such as a cache, is its own.
            parts = [vars(function).get(key) for key in ("__wrapped__", "registry")]
            held = [Place("cell", c, None, None, "").now() for c in function.__closure__ or ()]
            return [(part, function.__name__) for part in [*parts, *filter(callable, held)]]
        found = [
            self._place("cell", cell, None, name)
            for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
        ]
        names = names_in(code)
        asked = names | texts_in(code) if names & _BY_TEXT else names
        found += self._name(asked | {"__init__"} if names & _BY_CLASS else asked)
        for name in sorted(name for name in asked if name in function.__globals__):
            found.append(self._place("entry", function.__globals__, name, name))
        for name in sorted(imports_of(function)):
            found.append(self._place("entry", sys.modules, name, name))
        found += self._named(vars(function), function.__name__)
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            found.append(self._place("attribute", function, name, f"{function.__name__}.{name}"))
        return found

    def _name(self, names: set[str]) -> list[tuple[Any, str]]:
        """Follow the attributes of these names, of what was found before too."""
        new = sorted(names - self._names)
        self._names |= names
        return [
            self._attribute(owner, key, name)
            for key in new
            for owner, name in self._unnamed.pop(key, ())
        ]

    def written(self) -> list[Place]:
        """Give the places where the function itself put another number, text or flag."""
        return [p._replace(value=p.now()) for p in self.places if not p.same() and p.can_put()]

    def left(self) -> str:
        """Say what else the function itself changed, if anything: a run would not."""
        for place in self.places:
            if not place.same() and not place.can_put():
                return place.change()
        return self._written_array()

    def changed(self) -> str:
        """Say what is no longer as it was, if anything."""
        for place in self.places:
            if not place.same():
                return place.change()
        return self._written_array()

    def _written_array(self) -> str:
        for there, before in self.arrays:
            if not same_array(there, before):
                return (
                    f"an array {there.shape} that the function reaches was written to; pass it as "
                    "an argument"
                )
        return ""

    def test(self, test: Test) -> None:
        """Test that everything is the same; a value that is equal but another fails."""
        for kind, owner, key, value, _ in self.places:
            o, v = test.known(owner), test.known(value)
            if kind == "length":
                test.term(f"len({o}) == {value}")
            elif kind == "own length":
                test.term(f"len({o}.__dict__) == {value}")
            elif kind == "cell":
                test.term(f"{o}.cell_contents is {v}")
            elif kind == "whole":
                test.term(f"{o} == {v}")
            elif kind == "absent":
                # The keys are looked up in what may be a long module.
                test.term(f"{o}.keys().isdisjoint({test.known(key)})")
            elif kind == "attribute":
                plain = key.isidentifier() and not iskeyword(key)
                read = f"{o}.{key}" if plain else f"getattr({o}, {key!r})"
                test.term(f"{read} is {v}")
            elif kind == "class":
                test.term(f"{test.known(vars(owner))}[{key!r}] is {v}")
            else:
                place = repr(key) if type(key) in (int, str) else test.known(key)
                test.term(f"{o}[{place}] is {v}")
        for there, before in self.arrays:
            test.term(f"{test.known(same_array)}({test.known(there)}, {test.known(before)})")


class Test:
    """Collects conditions, and makes one fast function of them."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._ids: dict[int, str] = {}
        self._terms: list[str] = []

    def known(self, value: Any) -> str:
        """Name an object in the conditions."""
        name = self._ids.setdefault(id(value), f"k{len(self._ids)}")
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


def _behind(value: Any) -> tuple[Any, ...] | None:
    """Give what one of Python's own objects calls, or is a view of; None for another object."""
    if isinstance(value, Recorded):
        # Somebody has kept it of an earlier recording: an array, or a number.
        return (value.value,)
    if isinstance(value, weakref.ref):
        return (value(),)
    if type(value) in weakref.ProxyTypes:
        # A method is bound to what is behind the proxy.
        return (value.__init__.__self__,)
    if isinstance(value, _VIEWS):
        return tuple(gc.get_referents(value))
    if isinstance(value, memoryview):
        return (value.obj,)
    if isinstance(value, (types.BuiltinMethodType, types.MethodWrapperType)):
        # Of a list or a dict, that is, such as its `get`; a function's is its module.
        return (value.__self__,)
    if isinstance(value, types.MethodType):
        return value.__self__, value.__func__
    if isinstance(value, staticmethod):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    return None


def _is_data(value: Any) -> bool:
    """Tell whether an attribute of a class is a value, or a slot for one, and no method."""
    return isinstance(value, types.MemberDescriptorType) or not hasattr(value, "__get__")


def _is_method(value: Any) -> bool:
    """Tell whether an attribute of a class runs code: a method, a property or the like."""
    made_by_python = (types.MemberDescriptorType, types.GetSetDescriptorType)
    return hasattr(value, "__get__") and not isinstance(value, made_by_python)


def _long_and_plain(value: Any) -> bool:
    """Tell whether a container is compared as a whole, faster than entry by entry."""
    if not isinstance(value, (list, dict)) or len(value) < _LONG:
        return False
    entries = value.values() if isinstance(value, dict) else value
    return all(isinstance(entry, PLAIN) for entry in entries)


def _by_user(value: Any) -> bool:
    """Tell whether a module or a class is neither of a library nor of Python."""
    module = value if isinstance(value, types.ModuleType) else sys.modules.get(value.__module__)
    about = {} if module is None else vars(module)
    file = about.get("__file__")
    if file is None:
        top = about.get("__name__", "builtins").partition(".")[0]
        return top not in sys.stdlib_module_names
    return not file.startswith(_LIBRARIES)
