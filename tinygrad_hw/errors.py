"""The errors of the engine; each also belongs to the built-in class that NumPy would raise."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Failed(Exception):
    """What the error of a call of a primitive carries besides its message.

    Attributes
    ----------
    op : str
        Name of the primitive.
    parents : tuple
        The nodes of its arguments, and its Python scalars.
    """

    op: str
    parents: tuple[Any, ...]

    @property
    def graph(self) -> Any:
        """The picture of all that was computed up to the call that failed."""
        from .drawing.build import failed

        return failed(self.op, self.parents, str(self))


class ShapeError(ValueError):
    """Shapes that do not fit together, or not the operation."""


class GraphError(RuntimeError):
    """A backward that the graph does not allow: freed, overwritten, or never recorded."""


class MissingRuleError(TypeError):
    """An operation on tensors without a rule for its gradient."""


def about_call(
    error: Exception, op: str, values: Sequence[Any], params: Mapping[str, Any]
) -> Failed:
    """Make the error that says which op failed on what, of an error in its forward."""
    shapes = [str(np.shape(value)) for value in values]
    text = str(error)
    strange = [value for value in values if _is_strange(value)]
    if "broadcast together" in text:
        text = f"shapes {' and '.join(shapes)} do not broadcast; want equal sides, or sides of 1"
    elif strange:
        error = TypeError()
        text = f"got {reprlib.repr(strange[0])}; want numbers, arrays or tensors"
    elif not isinstance(error, ShapeError) and not any(shape in text for shape in shapes):
        extra = "".join(f", {key}={reprlib.repr(value)}" for key, value in params.items())
        text += f" (arguments of shape {', '.join(shapes)}{extra})"
    kinds = (np.exceptions.AxisError, np.linalg.LinAlgError, IndexError, TypeError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), ShapeError)
    return _with_graph(kind)(f"{op}: {text}")


def _is_strange(value: Any) -> bool:
    """Tell whether an argument is nothing that one computes with."""
    if value is None or isinstance(value, (str, bytes, dict)):
        return True
    return isinstance(value, np.ndarray) and value.dtype.kind not in "fiubc"


@functools.cache
def _with_graph(kind: type[Exception]) -> type[Failed]:
    """Make the error of that kind that also has ``.graph``."""
    return type(kind.__name__, (Failed, kind), {"__module__": kind.__module__})
