"""The errors of the engine; each also belongs to the built-in class that NumPy would raise."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Failed(Exception):
    """What the error of a forward carries besides its message.

    Attributes
    ----------
    op : str
        Name of the primitive; empty if a function of primitives raised.
    parents : tuple
        The nodes of its arguments, and its Python scalars.
    """

    op: str = ""
    parents: tuple[Any, ...] = ()

    @property
    def graph(self) -> Any:
        """The picture of all that was computed up to the call that failed.

        Examples
        --------
        >>> import tinygrad_hw as tg
        >>> x = tg.Tensor([1.0, 2.0], requires_grad=True, name="x")
        >>> try:
        ...     tg.exp(x).reshape(3)
        ... except tg.ShapeError as error:
        ...     print(error.graph.text())
        reshape  ! (2,) has 2 entries, (3,) takes 3; want equal sizes, or a side -1
        └─ exp (2,)
           └─ x (2,)  parameter
        1 op; 2 parameters in 1 tensor; 16 bytes kept for backward; 2 FLOPs
        """
        from .drawing.build import failed, tensors_of

        op = self.op or str(self).partition(":")[0]
        return failed(op, self.parents or tensors_of(self), str(self))

    def __reduce__(self) -> Any:
        """Copy or pickle it without the graph, as when a worker process hands it on."""
        made = _WITH_GRAPH.get(type(self).__bases__[1]) is type(self)
        kind = type(self).__bases__[1] if made else type(self)
        return _restored, (kind, self.args, {**vars(self), "parents": ()})


class ShapeError(Failed, ValueError):
    """Shapes that do not fit together, or not the operation."""


class GraphError(RuntimeError):
    """A backward that the graph does not allow: freed, overwritten, or never recorded."""


class MissingRuleError(TypeError):
    """An operation on tensors without a rule for its gradient."""


def _restored(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Failed:
    """Make an error again from what its copy or pickle holds."""
    try:
        same = with_graph(kind)(*args)
    except TypeError:
        same = _unmade(with_graph(kind), args)
    vars(same).update(attributes)
    return same


def _unmade(kind: type[Failed], args: tuple[Any, ...]) -> Failed:
    """Make an error without calling its class, which may want other arguments."""
    same = kind.__new__(kind)
    same.args = args
    return same


def about_call(
    error: Exception, op: str, values: Sequence[Any], params: Mapping[str, Any]
) -> Failed:
    """Make the error that says which op failed on what, of an error in its forward."""
    text = str(error)
    if "inhomogeneous" in text:
        return ShapeError(f"{op}: {text} Want rows of one length.")
    shapes = [str(np.shape(value)) for value in values]
    strange = [value for value in values if _is_strange(value)]
    if "negative integer powers" in text:
        return with_graph(ValueError)(
            f"{op}: {text.rstrip('.')}; make one of them floats, as in x.astype(float)"
        )
    if "unsupported in linalg" in text:
        text = "got float16, which NumPy's linear algebra does not take; use x.astype(np.float32)"
    elif "broadcast together" in text:
        # NumPy's text has the shapes of what is in an index, or bounds, too.
        shapes = [_spaced(shape) for shape in re.findall(r"\([\d,]*\)", text)]
        text = f"shapes {' and '.join(shapes)} do not broadcast; want equal sides, or sides of 1"
    elif strange:
        error = TypeError()
        text = f"got {reprlib.repr(strange[0])}; want numbers, arrays or tensors"
    elif "not supported for the input types" in text:
        dtypes = [str(np.asarray(value).dtype) for value in values]
        whole = op == "invert" or op.startswith("bitwise")
        wanted = "integers or truth values, such as those of x > 0" if whole else "real numbers"
        text = f"got {' and '.join(dtypes)}; want {wanted}"
    elif "integer" in text and isinstance(error, TypeError) and "axis" in params:
        text = _about_axis(params["axis"])
    elif "did not converge" in text:
        text += "; look for NaN and infinities in what it got"
    elif not isinstance(error, ShapeError) and not any(shape in text for shape in shapes):
        extra = "".join(f", {key}={reprlib.repr(value)}" for key, value in params.items())
        text += f" (arguments of shape {', '.join(shapes)}{extra})"
    known = (ValueError, TypeError, IndexError, LookupError, ArithmeticError, MemoryError)
    if not isinstance(error, known):
        return _as_it_is(error, op)
    kinds = (
        np.exceptions.AxisError, np.linalg.LinAlgError, IndexError, TypeError, KeyError,
        FloatingPointError, ZeroDivisionError, ArithmeticError, MemoryError,
    )  # fmt: skip
    kind: type[Exception] = next((k for k in kinds if isinstance(error, k)), ShapeError)
    return with_graph(kind)(f"{op}: {text}")


def _about_axis(axis: Any) -> str:
    several = isinstance(axis, tuple) and all(isinstance(n, int) for n in axis)
    wanted = "one whole number" if several else "a whole number, or several in a tuple"
    return f"axis is {axis!r}; want {wanted}"


def _spaced(shape: str) -> str:
    """Spell a shape as Python does, such as (2,3)."""
    return str(tuple(map(int, re.findall(r"\d+", shape))))


def _as_it_is(error: Exception, op: str) -> Failed:
    """Make an error of a kind that only the user knows, which may take any arguments."""
    same = _unmade(with_graph(type(error)), error.args)
    vars(same).update(vars(error))
    same.add_note(f"raised in {op}")
    return same


def _is_strange(value: Any) -> bool:
    """Tell whether an argument is nothing that one computes with."""
    kind = value.dtype.kind if hasattr(value, "dtype") else np.asarray(value).dtype.kind
    return kind not in "fiubc"


_WITH_GRAPH: dict[type[Exception], type[Failed]] = {}


def with_graph(kind: type[Exception]) -> type[Failed]:
    """Make the error of that kind that also has ``.graph``."""
    if issubclass(kind, Failed):
        return kind
    if kind not in _WITH_GRAPH:
        _WITH_GRAPH[kind] = type(kind.__name__, (Failed, kind), {"__module__": kind.__module__})
    return _WITH_GRAPH[kind]
