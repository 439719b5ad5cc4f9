"""What is recorded: the nodes of a graph, and whether calls leave any.

A *node* is one call of a primitive: which one ran, on which parents, and the values that its rule
will ask for. Nodes point only towards inputs and never to the tensors that users hold, so that a
graph has no cycles and its memory goes when the last tensor does.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ContextDecorator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .dispatch import Primitive

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
        What the rule gets as its inputs: the arrays it keeps, elsewhere the parents, and behind
        them a residual, if there is one. None when it keeps none, ``FREED`` after a backward that
        freed the graph.
    output : array or None
        The result, where the rule keeps it.
    index : int
        Creation time. Parents are older, so descending order is a reverse topological order.
    shape, dtype
        Of the result.
    extras : dict or None
        Rare things: the user's name, hooks, a retained gradient, the line that recorded the node,
        the time of the last raw write to the value, and of a constant that is a view, the base.
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
    )
    primitive: Primitive | None
    parents: tuple[Any, ...]
    params: Mapping[str, Any]
    inputs: tuple[Any, ...] | None
    output: Any
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    extras: dict[str, Any] | None

    @property
    def name(self) -> str | None:
        """The user's name for the result, if any."""
        return None if self.extras is None else self.extras.get("name")

    def extra(self) -> dict[str, Any]:
        """Return the extras to write to."""
        if self.extras is None:
            self.extras = {}
        return self.extras

    def kept(self) -> list[tuple[Node, Any]]:
        """Return the parents whose values are kept for the rule, each with its value."""
        pairs = zip(self.parents, self.inputs or (), strict=False)
        return [(p, value) for p, value in pairs if isinstance(p, Node) and value is not p]

    def __repr__(self) -> str:
        op = "leaf" if self.primitive is None else self.primitive.name
        return f"<Node {self.index}: {op} {self.shape} {self.dtype}>"


class Leaf(Node):
    """A node that no primitive made: a variable, which accumulates its gradient."""

    __slots__ = ("grad",)
    primitive = None
    parents = ()
    params: Mapping[str, Any] = MappingProxyType({})
    inputs = output = None
    grad: Any

    def __init__(self, value: Any, name: str | None = None) -> None:
        self.grad = None
        self.index = tick()
        self.shape = value.shape
        self.dtype = value.dtype
        self.extras = None if name is None else {"name": name}


class Constant(Leaf):
    """An input that wants no gradient, recorded so that a picture can show it."""

    __slots__ = ()

    @classmethod
    def of(cls, value: Any) -> Constant:
        """Make one of an array of real numbers."""
        if value.dtype.kind == "c":
            raise TypeError(
                f"gradients are of real numbers; got a constant of dtype {value.dtype}: compute "
                "with its .real and .imag"
            )
        return cls(value)


# The kinds of a node's parents that have gradients; others are constants and Python scalars.
VARIABLES = frozenset({Node, Leaf})


class _Clock:
    """When something last happened to any node that need not show in it."""

    latest_write = 0
    latest_hook = 0


clock = _Clock()


def stamp(nodes: Iterable[Node]) -> None:
    """Note that the values of some nodes were written to."""
    clock.latest_write = now = tick()
    for node in nodes:
        if node.extras is None:
            node.extras = {"written": now}
        else:
            node.extras["written"] = now


def with_bases(node: Node) -> list[Node]:
    """Give a node and those whose memory its value is a view of."""
    nodes = [node]
    while (base := _base_of(nodes[-1])) is not None:
        nodes.append(base)
    return nodes


def _base_of(node: Node) -> Node | None:
    if node.primitive is None:
        base: Any = None if node.extras is None else node.extras.get("base")
        return None if base is None else base()
    parent = node.parents[0] if node.primitive.view else None
    return parent if isinstance(parent, Node) else None


class Handle:
    """What primitives take and return while recording: a value and the node that made it.

    ``tinygrad_hw.Tensor`` is the one subclass; it registers itself here as ``result``, so that the
    engine makes tensors without knowing them.

    Attributes
    ----------
    _data : array
    _node : Node or None
        None for a constant.
    _constant : Constant or None
        What stands for a constant in the graphs that use it.
    """

    __slots__ = ("_constant", "_data", "_node")
    _data: np.ndarray[Any, Any]
    _node: Node | None
    _constant: Constant | None
    result: type[Handle]

    def __init_subclass__(cls) -> None:
        Handle.result = cls


def value_of(x: Any) -> Any:
    """Give the array of a tensor, and what is no tensor as it is."""
    return x._data if isinstance(x, Handle) else x


def wrap(value: np.ndarray[Any, Any], node: Node | None = None) -> Any:
    """Make a tensor of an array without copying it."""
    tensor = object.__new__(Handle.result)
    tensor._data = value
    tensor._node = node
    tensor._constant = None
    if (recording := recorder()) is not None:
        recording.made(tensor)
    return tensor


def constant_of(handle: Handle) -> Constant:
    """Give the node that stands for a constant tensor, always the same one."""
    if handle._constant is None:
        handle._constant = Constant.of(handle._data)
    return handle._constant


def view_of(base: Handle, value: Any) -> Constant | None:
    """Give what stands for a constant that looks into the memory of another tensor, if it does."""
    if value.dtype.kind == "c" or not _shares(value, base._data):
        return None
    constant = Constant(value)
    # Only the last base, and loosely: a constant must not keep the graph of a tensor.
    constant.extras = {"base": weakref.ref(with_bases(base._node or constant_of(base))[-1])}
    return constant


def _shares(value: Any, array: Any) -> bool:
    owner = value.base
    if owner is None:
        return value is array
    # To ask NumPy takes longer than most views.
    return owner is array or owner is array.base or np.may_share_memory(value, array)


FREED: tuple[Any, ...] = ("freed",)


class Mode(NamedTuple):
    """What calls of primitives do besides computing."""

    recording: bool = True
    observers: tuple[Callable[..., None], ...] = ()


class Recorded:
    """What stands for an array while calls are recorded to be compiled; never an ndarray."""

    __slots__ = ()
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def as_array(x: Any) -> Any:
    """Give ``np.asarray(x)``, or what stands for an array."""
    if isinstance(x, Recorded):
        return x.copy() if x.scalar else x
    if type(x) in SEQUENCES:
        check_untracked("array", x)
    return np.asarray(x)


SEQUENCES = (list, tuple)


def check_untracked(op: str, items: Any) -> None:
    """Refuse to make an array of a list of tensors where their gradients are wanted."""
    if is_recording() and _holds_tracked(items):
        raise TypeError(
            f"{op}: the list holds tensors that require a gradient, which a copy would lose; use "
            "stack(list) or concatenate(list)"
        )


def _holds_tracked(items: Any) -> bool:
    # Of a long list of numbers there are few types.
    if not any(issubclass(kind, (list, tuple, Handle)) for kind in set(map(type, items))):
        return False
    return any(
        _holds_tracked(item)
        if type(item) in SEQUENCES
        else isinstance(item, Handle) and item._node is not None
        for item in items
    )


# What holds outside of all blocks: compare with ``is``.
ORDINARY = Mode()


class _State(threading.local):
    def __init__(self) -> None:
        # The modes around, of blocks that this thread is in.
        self.before: list[Mode] = []

    mode = ORDINARY
    # While set, ``recorder.apply(primitive, args, params)`` takes the place of every call.
    recorder: Any = None


def recorder() -> Any:
    """Give what records calls to compile them in this thread, or None."""
    return state.recorder


state = _State()


class _Entered(ContextDecorator):
    """A change of the mode, in a ``with`` block or a decorated function, as often as entered."""

    def __init__(self, change: Callable[[Mode], Mode]) -> None:
        self.change = change

    def __enter__(self) -> None:
        mode = self.change(state.mode)
        state.before.append(state.mode)
        state.mode = ORDINARY if mode == ORDINARY else mode

    def __exit__(self, *error: object) -> None:
        state.mode = state.before.pop()


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
    return _Entered(lambda mode: mode._replace(recording=False))


def enable_grad() -> Any:
    """Record again, inside :func:`no_grad`."""
    return _Entered(lambda mode: mode._replace(recording=True))


def is_recording() -> bool:
    """Tell whether calls of primitives are recorded now, in this thread."""
    return state.mode.recording


def observe(observer: Callable[..., None]) -> Any:
    """Call ``observer(primitive, args, params, result)`` after every primitive, in a ``with``."""
    return _Entered(lambda mode: mode._replace(observers=(*mode.observers, observer)))
