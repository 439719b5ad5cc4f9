"""The engine: primitives, the nodes they leave behind, and whether to leave them.

A *primitive* is a function of arrays that knows its local gradient, its *rule*. Called with plain
arrays it computes and returns an array. Called with tensors it also records a *node*: which
primitive ran, on which parents, and the values that its rule will ask for. The rule is written in
primitives, so it works on arrays (ordinary backward) and on tensors (backward of the backward).

Nodes point only towards inputs and never to the tensors that users hold, so that a graph has no
cycles and its memory goes when the last tensor does.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .errors import ShapeError

Rule = Callable[..., tuple[Any, ...]]

# The clock of the graph: nodes are numbered by it, raw writes are stamped by it.
tick = itertools.count(1).__next__


class Node:
    """One recorded call of a primitive.

    Attributes
    ----------
    primitive : Primitive or None
        None for a leaf.
    parents : tuple
        One entry an argument: its node, or the Python scalar itself.
    params : dict
        The static keyword arguments.
    inputs : tuple or None
        What the rule gets as its inputs: the arrays it keeps, elsewhere the parents. None when it
        keeps none, ``FREED`` after a backward that freed the graph.
    output : array or None
        The result, where the rule keeps it.
    index : int
        Creation time. Parents are older, so descending order is a reverse topological order.
    shape, dtype
        Of the result.
    written : int
        Time of the last raw write to the result's array; 0 for never.
    extras : dict or None
        Rare things: name, hooks, a retained gradient, the line that recorded the node.
    """

    __slots__ = (
        "__weakref__",
        "dtype",
        "extras",
        "index",
        "inputs",
        "output",
        "params",
        "parents",
        "primitive",
        "shape",
        "written",
    )
    primitive: Primitive | None
    parents: tuple[Any, ...]
    params: Mapping[str, Any]
    inputs: tuple[Any, ...] | None
    output: Any
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    written: int
    extras: dict[str, Any] | None

    tracked = True

    @property
    def name(self) -> str | None:
        """The user's name for the result, if any."""
        return None if self.extras is None else self.extras.get("name")

    def extra(self) -> dict[str, Any]:
        """Return the extras to write to."""
        if self.extras is None:
            self.extras = {}
        return self.extras

    def __repr__(self) -> str:
        op = "leaf" if self.primitive is None else self.primitive.name
        return f"<Node {self.index}: {op} {self.shape} {self.dtype}>"


class Leaf(Node):
    """A node that no primitive made: a variable, which accumulates its gradient."""

    __slots__ = ("grad",)
    grad: Any

    def __init__(self, value: Any, name: str | None = None) -> None:
        self.primitive = None
        self.parents = ()
        self.params = {}
        self.inputs = self.output = self.grad = None
        self.index = tick()
        self.shape, self.dtype = value.shape, value.dtype
        self.written = 0
        self.extras = None if name is None else {"name": name}


class Constant(Leaf):
    """A leaf without a gradient, recorded so that a picture can show it."""

    __slots__ = ()
    tracked = False


class Handle:
    """What primitives take and return while recording: a value and the node that made it.

    ``tinygrad_hw.Tensor`` is the one subclass; :data:`Handle.result` names it, so that the engine
    makes tensors without knowing them.
    """

    __slots__ = ("_data", "_node")
    _data: np.ndarray[Any, Any]
    _node: Node | None
    result: type[Handle]


Handle.result = Handle

FREED: tuple[Any, ...] = ("freed",)
_PLAIN = frozenset({float, int, bool, complex, np.ndarray})
_new = object.__new__


class Mode(NamedTuple):
    """What calls of primitives do besides computing."""

    recording: bool = True
    observers: tuple[Callable[..., None], ...] = ()


class _State(threading.local):
    mode = Mode()


_state = _State()


@contextmanager
def _entered(mode: Mode) -> Iterator[None]:
    before, _state.mode = _state.mode, mode
    try:
        yield
    finally:
        _state.mode = before


def no_grad() -> Any:
    """Compute without recording, in a ``with`` block or a decorated function.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([1.0], requires_grad=True)
    >>> with tg.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """
    return _entered(_state.mode._replace(recording=False))


def enable_grad() -> Any:
    """Record again, inside :func:`no_grad`."""
    return _entered(_state.mode._replace(recording=True))


def is_recording() -> bool:
    """Tell whether calls of primitives are recorded now, in this thread."""
    return _state.mode.recording


def observe(observer: Callable[..., None]) -> Any:
    """Call ``observer(primitive, args, params, result)`` after every primitive, in a ``with``."""
    return _entered(_state.mode._replace(observers=(*_state.mode.observers, observer)))


class Primitive:
    """A function of arrays with a rule for its gradient; made by :func:`primitive`."""

    def __init__(
        self,
        forward: Callable[..., Any],
        name: str,
        domain: Any,
        piece: Callable[..., Any] | None,
        conventions: str,
    ) -> None:
        self.forward = forward
        self.name = self.__name__ = name
        self.domain = domain
        self.piece = piece
        self.conventions = conventions
        self.gradient: Rule | None = None
        self.keeps_inputs: tuple[int, ...] = ()
        self.keeps_all = False
        self.keeps_output = False
        self.asks_needs = False
        self.__doc__ = forward.__doc__
        self.__module__ = getattr(forward, "__module__", __name__) or __name__
        self.__wrapped__ = forward

    def rule(self, function: Rule | None = None, *, keeps: str = "") -> Any:
        """Declare the local gradient, as a decorator or a call.

        Parameters
        ----------
        function : callable
            ``function(g, y, *inputs, **params)`` takes the cotangent of the output, the output and
            the inputs, and returns a tuple with the cotangent of each input, or None for zero. It
            is written with primitives and operators. With a keyword ``needs`` it is told which
            inputs want a gradient, as a tuple of bool.
        keeps : str
            Names of the parameters of ``function``, out of the output and the inputs, whose values
            it uses. The others are nodes: they have a shape and a dtype, but no value.
        """
        if function is None:
            return lambda function: self.rule(function, keeps=keeps)
        parameters = inspect.signature(function).parameters
        names = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        unknown = [name for name in keeps.split() if name not in names[1:] and name != "*"]
        if unknown or len(names) < 2:
            raise TypeError(
                f"{self.name}.rule: keeps={keeps!r} names {unknown}; "
                f"the rule is {inspect.signature(function)}, want names out of {names[1:]}"
            )
        kept = [names.index(name) - 1 for name in keeps.split() if name != "*"]
        self.keeps_output = 0 in kept
        self.keeps_inputs = tuple(i - 1 for i in kept if i > 0)
        self.keeps_all = "*" in keeps or (
            not variadic and len(self.keeps_inputs) == len(names) - 2 > 0
        )
        self.asks_needs = "needs" in parameters
        self.gradient = function
        return function

    def __call__(self, *args: Any, **params: Any) -> Any:
        values = []
        tracked = traced = False
        for arg in args:
            if isinstance(arg, Handle):
                values.append(arg._data)
                traced = True
                node = arg._node
                if node is not None and node.tracked:
                    tracked = True
            elif type(arg) in _PLAIN:
                values.append(arg)
            else:
                values.append(np.asarray(arg) if isinstance(arg, (list, tuple)) else arg)
        try:
            y = self.forward(*values, **params)
        except (ValueError, TypeError, IndexError, np.linalg.LinAlgError) as error:
            raise _explained(error, self, args, params) from error
        if type(y) is not np.ndarray:
            # Ufuncs turn 0-d arrays into scalars, and a scalar would be lifted as a constant.
            y = np.asarray(y)
        if not traced:
            return y
        recording, observers = _state.mode
        out = _new(Handle.result)
        out._data = y
        if tracked and recording:
            out._node = node = _new(Node)
            node.primitive = self
            node.parents = parents = tuple([_parent(arg) for arg in args])
            node.params = params
            if self.keeps_all:
                node.inputs = tuple(values)
            elif self.keeps_inputs:
                inputs = list(parents)
                for i in self.keeps_inputs:
                    inputs[i] = values[i]
                node.inputs = tuple(inputs)
            else:
                node.inputs = None
            node.output = y if self.keeps_output else None
            node.index = tick()
            node.shape = y.shape
            node.dtype = y.dtype
            node.written = 0
            node.extras = None
        else:
            out._node = None
        if observers:
            for observer in observers:
                observer(self, args, params, out)
        return out

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        # As a class attribute a primitive is a method, as a function would be.
        return self if instance is None else self.__call__.__get__(instance)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def primitive(
    forward: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    domain: Any = None,
    piece: Callable[..., Any] | None = None,
    conventions: str = "",
) -> Any:
    """Make a function of arrays a primitive, as a decorator or a call.

    Parameters
    ----------
    forward : callable
        Takes arrays as positional and static parameters as keyword-only arguments; returns one
        array and leaves its arguments alone. A ufunc will do.
    name : str, optional
        In pictures, errors and docs; by default the name of the function.
    domain : optional
        Where the function is defined and smooth, see :mod:`tinygrad_hw.domains`.
    piece : callable, optional
        Takes the arguments of ``forward`` and returns an array that names the smooth piece that
        they lie on: two calls with equal pieces can be compared by finite differences.
    conventions : str
        What the gradient is where mathematics leaves it open; for the docs.

    Returns
    -------
    Primitive
        Call it on arrays or tensors; declare its gradient with ``.rule``.

    Examples
    --------
    >>> import numpy as np, tinygrad_hw as tg
    >>> @tg.primitive
    ... def cube(x):
    ...     return x**3
    >>> @cube.rule(keeps="x")
    ... def _(g, y, x):
    ...     return (g * 3 * x**2,)
    >>> x = tg.Tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    array(12.)
    """
    if forward is None:
        return lambda forward: primitive(
            forward, name=name, domain=domain, piece=piece, conventions=conventions
        )
    return Primitive(forward, name or forward.__name__, domain, piece, conventions)


def _parent(arg: Any) -> Any:
    """Give what a node remembers of an argument: its node, or itself for a Python scalar."""
    if isinstance(arg, Handle):
        node = arg._node
        if node is None:
            arg._node = node = Constant(arg._data)
        return node
    if isinstance(arg, (np.ndarray, np.generic)):
        return Constant(arg)
    return Constant(np.asarray(arg)) if isinstance(arg, (list, tuple)) else arg


def _explained(error: Exception, op: Primitive, args: Any, params: Any) -> Exception:
    """Say which op failed on what; a ValueError about shapes becomes a ShapeError."""
    shapes = ", ".join(str(np.shape(_value(arg))) for arg in args)
    extra = "".join(f", {key}={value!r}" for key, value in params.items())
    message = f"{op.name}: {error} (arguments of shape {shapes}{extra})"
    kinds = (np.exceptions.AxisError, np.linalg.LinAlgError, IndexError, TypeError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), ShapeError)
    explained = kind(message)
    explained.parents = tuple(_parent(arg) for arg in args)  # type: ignore[attr-defined]
    return explained


def _value(arg: Any) -> Any:
    return arg._data if isinstance(arg, Handle) else arg
