"""Primitives: functions of arrays that know their local gradient, and record their calls.

A *primitive* is a function of arrays that knows its local gradient, its *rule*. Called with plain
arrays it computes and returns an array. Called with tensors it also leaves a node in the graph. The
rule is written in primitives, so it works on arrays (ordinary backward) and on tensors (backward of
the backward).
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from .errors import about_call
from .graph import (
    ORDINARY,
    SEQUENCES,
    VARIABLES,
    Constant,
    Handle,
    Node,
    check_untracked,
    constant_of,
    state,
    tick,
    value_of,
    view_of,
)
from .settings import check
from .signatures import arity_of, keywords_of, parameters_of, with_defaults

Rule = Callable[..., tuple[Any, ...]]

_new, _asarray, _ndarray = object.__new__, np.asarray, np.ndarray
_NO_PARAMS: dict[str, Any] = {}


class Primitive:
    """A function of arrays with a rule for its gradient; made by :func:`primitive`."""

    def __init__(
        self,
        forward: Callable[..., Any],
        name: str,
        domain: Any,
        piece: Callable[..., Any] | None,
        conventions: str,
        view: bool,
        residual: Callable[..., Any] | None = None,
        arity: int | None = None,
    ) -> None:
        self.forward = forward
        self.arity = arity
        self.name = self.__name__ = name
        self.domain = domain
        self.piece = piece
        self.conventions = conventions
        self.view = view
        self.residual = residual
        self.is_entrywise = is_entrywise(forward)
        # Computes the same in less time, where a call has no static parameters.
        self.quicker: Callable[..., Any] | None = None
        self.gradient: Rule | None = None
        self.keeps_inputs: tuple[int, ...] = ()
        self.keeps_all = False
        self.keeps_output = False
        self.asks_needs = False
        self.__doc__ = _ufunc_doc(self) if isinstance(forward, np.ufunc) else forward.__doc__
        # Before NumPy 2.1 its ufuncs did not say where they are from.
        self.__module__ = getattr(forward, "__module__", None) or type(forward).__module__
        self.__wrapped__ = forward

    def rule(self, function: Rule | None = None, *, keeps: str | Sequence[str] = "") -> Any:
        """Declare the local gradient, as a decorator or a call.

        Parameters
        ----------
        function : callable
            ``function(g, y, *inputs, **params)`` takes the cotangent of the output, the output and
            the inputs, and returns a tuple with the cotangent of each input, or None for zero. It
            is written with primitives and operators. Static parameters that a call leaves out are
            the forward's defaults. With a keyword ``needs`` it is told which
            inputs want a gradient, as a tuple of bool.
        keeps : str or sequence of str
            Names of the parameters of ``function``, out of the output and the inputs, whose values
            it uses; in a string, with spaces between. The others are nodes: they have a shape and
            a dtype, but no value. Behind the inputs stands a residual, as an optional parameter.
        """
        if function is None:
            return lambda function: self.rule(function, keeps=keeps)
        required, others, variadic = parameters_of(function)
        names = [name for name in required if name != "needs"]
        check(f"{self.name}.rule", "keeps", keeps, "a name of an input, or several", iter)
        wanted = keeps.split() if isinstance(keeps, str) else list(keeps)
        unknown = [name for name in wanted if name not in names[1:] and name != "*"]
        if unknown or len(names) < 2:
            raise TypeError(
                f"{self.name}.rule: keeps={keeps!r} names {unknown}; "
                f"the rule is {inspect.signature(function)}, want names out of {names[1:]}"
            )
        arity, least, most = self.arity, len(names) - 2, len(names) + len(others) - 2
        if arity is not None and not variadic and not least <= arity <= most:
            raise TypeError(
                f"{self.name}.rule: the rule is {inspect.signature(function)}; it is called with "
                f"the cotangent, the output and {arity} input{'s' * (arity != 1)}, kept or not: "
                f"want {2 + arity} parameters, as in (g, y, {', '.join('abcdefgh'[:arity])})"
            )
        self._check_params(function)
        kept = [names.index(name) - 1 for name in wanted if name != "*"]
        self.keeps_output = 0 in kept
        self.keeps_inputs = tuple(i - 1 for i in kept if i > 0)
        self.keeps_all = "*" in wanted or (
            not variadic and len(self.keeps_inputs) == len(names) - 2 > 0
        )
        self.asks_needs = "needs" in required + others
        self.gradient = with_defaults(function, self.forward)
        return function

    def _check_params(self, function: Rule) -> None:
        """Refuse a rule that takes no notice of a static parameter of the forward."""
        if not (type(self.forward) is type(function) is FunctionType):
            return
        code = function.__code__
        taken = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        lacking = [name for name in keywords_of(self.forward) if name not in taken]
        if lacking and not code.co_flags & inspect.CO_VARKEYWORDS:
            raise TypeError(
                f"{self.name}.rule: the rule is {inspect.signature(function)}; it gets the static "
                f"parameters of a call too: want {', '.join(lacking)} behind a star, as in the "
                "forward, or **params"
            )

    def __call__(self, *args: Any, **params: Any) -> Any:
        return self.call(args, params)

    def on_plain(self, *args: Any, **params: Any) -> Any:
        """Compute without tensors, as rules do in an ordinary backward."""
        compute = self.forward if params or self.quicker is None else self.quicker
        try:
            y = compute(*args, **params)
        except Exception as error:
            raise explained(error, self, args, params) from error
        if type(y) is _ndarray:
            return y
        if type(y) is tuple or y is None:
            raise _no_array(self, y)
        # NumPy makes scalars of 0-d results. Arrays give arrays, as scalars give scalars.
        return np.asarray(y) if _any_array(args) else y

    def call(self, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Compute and, for tensors, record."""
        if state.recorder is not None:
            return state.recorder.apply(self, args, params)
        values: Any = []
        traced = tracked = False
        for arg in args:
            if isinstance(arg, Handle):
                traced = True
                if arg._node is not None:
                    tracked = True
                values.append(arg._data)
            elif type(arg) in SEQUENCES:
                check_untracked(self.name, arg)
                values.append(_array_of(self, arg))
            else:
                values.append(arg)
        if not traced:
            return self.on_plain(*values, **params)
        recording, observers = state.mode
        recording = recording and tracked
        residual = None
        try:
            parents = tuple([parent_of(arg) for arg in args]) if recording else ()
            if recording and self.residual is not None:
                needs = tuple([type(parent) in VARIABLES for parent in parents])
                y, residual = self.residual(*values, needs=needs, **params)
            elif params or self.quicker is None:
                y = self.forward(*values, **params)
            else:
                y = self.quicker(*values)
        except Exception as error:
            raise explained(error, self, args, params) from error
        if type(y) is tuple or y is None:
            raise _no_array(self, y)
        if recording:
            out = self.record(parents, values, params, y)
            if residual is not None:
                out._node.inputs = (*(out._node.inputs or parents), residual)
        else:
            out = _constant_result(y)
            if self.view and isinstance(args[0], Handle):
                out._constant = view_of(args[0], out._data)
        if observers:
            for observer in observers:
                observer(self, args, params, out)
        return out

    def record(self, parents: Any, values: Any, params: dict[str, Any], y: Any) -> Any:
        """Make the tensor of a result, with its node."""
        out = _new(Handle.result)
        out._constant = None
        out._node = node = Node()
        node.primitive = self
        node.parents = parents
        node.params = params
        node.output = y if self.keeps_output else None
        if type(y) is not _ndarray:
            # Ufuncs turn 0-d arrays into scalars, and a scalar would be lifted as a constant. What
            # is kept for the rule is made a scalar, though: NumPy is faster with them.
            y = np.asarray(y)
            values = [v[()] if type(v) is _ndarray else v for v in values]
        if self.keeps_all:
            node.inputs = tuple(values)
        elif self.keeps_inputs:
            kept = list(parents)
            for i in self.keeps_inputs:
                kept[i] = values[i]
            node.inputs = tuple(kept)
        else:
            node.inputs = None
        node.index = tick()
        node.shape = y.shape
        node.dtype = y.dtype
        node.extras = None
        out._data = y
        return out

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        # As a class attribute a primitive is a method, as a function would be.
        return self if instance is None else self.__call__.__get__(instance)

    @property
    def reach(self) -> str:
        """What an entry of the result depends on, see :class:`~tinygrad_hw.domains.Domain`."""
        if self.is_entrywise:
            return "entry"
        return "all" if self.domain is None else str(self.domain.reach)

    def __reduce__(self) -> Any:
        """Copy and pickle it by its name, as a function."""
        from .ops import primitives

        ours = primitives().get(self.name) is self
        return (_by_name, (self.name,)) if ours else self.name

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


class Unary(Primitive):
    """A primitive of one array without parameters; the same, without the loops."""

    def __call__(self, x: Any) -> Any:
        if not isinstance(x, Handle):
            if type(x) in _PLAIN and state.recorder is None:
                return self.on_plain(x)
            return self.call((x,), {})
        value, parent = x._data, x._node
        if parent is None or state.mode is not ORDINARY:
            return self.call((x,), {})
        if self.is_entrywise and value.ndim == 0:
            value = value[()]  # Ufuncs take a scalar in half the time of a 0-d array.
        try:
            y = self.forward(value)
        except Exception as error:
            raise explained(error, self, (x,), {}) from error
        out = _new(Handle.result)
        out._constant = None
        out._node = node = Node()
        node.primitive = self
        node.parents = (parent,)
        node.params = _NO_PARAMS
        node.output = y if self.keeps_output else None
        if type(y) is not _ndarray:
            if type(y) is tuple or y is None:
                raise _no_array(self, y)
            y = _asarray(y)
            if type(value) is _ndarray:
                value = value[()]
        node.inputs = (value,) if self.keeps_all else None
        node.index = tick()
        node.shape = y.shape
        node.dtype = y.dtype
        node.extras = None
        out._data = y
        return out


class Binary(Primitive):
    """A primitive of two arrays without parameters; the same, without the loops."""

    def __init__(self, forward: Callable[..., Any], *args: Any) -> None:
        super().__init__(forward, *args)
        self.operator = _OPERATORS.get(forward)

    def __call__(self, a: Any, b: Any) -> Any:
        left: Any
        right: Any
        if isinstance(a, Handle):
            left, parent = a._data, a._node
        elif type(a) in _VALUES:
            left, parent = a, None
        else:
            return self.call((a, b), {})
        if isinstance(b, Handle):
            right, other = b._data, b._node
        elif type(b) in _VALUES:
            right, other = b, None
        else:
            return self.call((a, b), {})
        if parent is other is None:
            if left is a and right is b and state.recorder is None:
                return self.on_plain(a, b)
            return self.call((a, b), {})
        if state.mode is not ORDINARY:
            return self.call((a, b), {})
        compute = self.operator
        if compute is None:
            compute = self.forward
        else:
            # On scalars a Python operator takes a tenth of the time of a ufunc on 0-d arrays.
            if type(left) is _ndarray and not left.ndim:
                left = left[()]
            if type(right) is _ndarray and not right.ndim:
                right = right[()]
        try:
            parents = (
                parent_of(a) if parent is None else parent,
                parent_of(b) if other is None else other,
            )
            y = compute(left, right)
        except Exception as error:
            raise explained(error, self, (a, b), {}) from error
        out = _new(Handle.result)
        out._constant = None
        out._node = node = Node()
        node.primitive = self
        node.parents = parents
        node.params = _NO_PARAMS
        node.output = y if self.keeps_output else None
        if type(y) is not _ndarray:
            if type(y) is tuple or y is None:
                raise _no_array(self, y)
            y = _asarray(y)
            if type(left) is _ndarray:
                left = left[()]
            if type(right) is _ndarray:
                right = right[()]
        if self.keeps_all:
            node.inputs = (left, right)
        elif self.keeps_inputs:
            node.inputs = (left, parents[1]) if self.keeps_inputs == (0,) else (parents[0], right)
        else:
            node.inputs = None
        node.index = tick()
        node.shape = y.shape
        node.dtype = y.dtype
        node.extras = None
        out._data = y
        return out


def is_entrywise(forward: Any) -> bool:
    """Tell whether each entry of the result comes from one of each argument: not for matmul."""
    return isinstance(forward, np.ufunc) and forward.signature is None


def _by_name(name: str) -> Primitive:
    from .ops import primitives

    op: Primitive = primitives()[name]
    return op


def _constant_result(y: Any) -> Any:
    out = _new(Handle.result)
    out._data = y if type(y) is _ndarray else np.asarray(y)
    out._node = out._constant = None
    return out


def primitive(
    forward: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    domain: Any = None,
    piece: Callable[..., Any] | None = None,
    conventions: str = "",
    view: bool = False,
    residual: Callable[..., Any] | None = None,
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
    view : bool
        The result may share memory with the first argument, so that a write to one reaches both.
    residual : callable, optional
        Takes the place of ``forward`` in calls that are recorded, with ``needs`` as a rule gets it:
        it returns the result and what the rule can use again, or None. The rule gets that behind
        its inputs and has to do without where it is missing, as in a gradient that is
        differentiated itself.

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
            forward,
            name=name,
            domain=domain,
            piece=piece,
            conventions=conventions,
            view=view,
            residual=residual,
        )
    kinds: dict[int | None, type[Primitive]] = {1: Unary, 2: Binary}
    arity = arity_of(forward)
    kind = kinds.get(arity, Primitive) if residual is None else Primitive
    name = name or forward.__name__
    return kind(forward, name, domain, piece, conventions, view, residual, arity)


def constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of arrays without a gradient be one call in what is recorded to compile."""
    op = Primitive(function, function.__name__.strip("_"), None, None, "", view=False)

    def call(*args: Any, **params: Any) -> Any:
        return op.call(args, params)

    return call


def _ufunc_doc(op: Primitive) -> str:
    """Document a primitive that is one of NumPy's ufuncs; NumPy's own text would mislead."""
    names = ("x",) if op.forward.nin == 1 else ("a", "b")  # type: ignore[attr-defined]
    several = "" if len(names) == 1 else ", of shapes that broadcast"
    convention = f"\n\n    Convention: {op.conventions}." if op.conventions else ""
    ones = ", ".join(["np.full(3, 1.0)"] * len(names))
    return f"""NumPy's ``{op.name}``, element by element, with its gradient.{convention}

    Parameters
    ----------
    {", ".join(names)} : array, Tensor or number{several}

    Returns
    -------
    array, or Tensor where an argument is one

    Examples
    --------
    >>> import numpy as np, tinygrad_hw as tg
    >>> tg.{op.name}({ones}).shape
    (3,)
    """


def parent_of(arg: Any) -> Any:
    """Give what a node remembers of an argument: its node, or itself for a Python scalar."""
    if isinstance(arg, Handle):
        return arg._node or constant_of(arg)
    if type(arg) is _ndarray:
        return Constant.of(arg)
    if type(arg) is float or type(arg) is int:
        return arg
    return Constant.of(np.asarray(arg)) if isinstance(arg, _ARRAYS) else arg


_VALUES = frozenset({np.ndarray, np.float64, np.float32, float, int})
_PLAIN = frozenset({np.ndarray, np.float64, np.float32})
_OPERATORS: dict[Any, Callable[[Any, Any], Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
}
_ARRAYS = (np.ndarray, np.generic, list, tuple, complex)


def _any_array(values: Any) -> bool:
    return any([not isinstance(value, (np.generic, float, int)) for value in values])


def explained(error: Exception, op: Primitive, args: Any, params: Any) -> Exception:
    """Say which op failed on what, with the nodes it was called on."""
    explained = about_call(error, op.name, [value_of(arg) for arg in args], params)
    explained.op = op.name
    explained.parents = tuple(map(_shown_parent, args))
    return explained


def _shown_parent(arg: Any) -> Any:
    """As :func:`parent_of`; a picture shows complex numbers too."""
    value = value_of(arg)
    return Constant(np.asarray(value)) if np.iscomplexobj(value) else parent_of(arg)


def _no_array(op: Primitive, y: Any) -> Exception:
    if y is None:
        return TypeError(f"{op.name}: the forward returned None; want an array: return one")
    return TypeError(
        f"{op.name}: the forward returned a tuple of {len(y)}; want one array: make one primitive "
        "of each, or stack them"
    )


def _array_of(op: Primitive, items: Any) -> Any:
    try:
        return np.asarray(items)
    except ValueError as error:
        raise about_call(error, op.name, (), {}) from error
