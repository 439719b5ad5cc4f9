"""What can go wrong while a function is recorded."""

from ..errors import GraphError


class CompileError(GraphError):
    """A function does what cannot be recorded, such as a branch on a value."""
