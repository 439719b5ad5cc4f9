"""The errors of the engine; each also belongs to the built-in class that NumPy would raise."""

from typing import Any


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
