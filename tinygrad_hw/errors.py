"""The errors of the engine; each also belongs to the built-in class that NumPy would raise."""


class ShapeError(ValueError):
    """Shapes that do not fit together, or not the operation."""


class GraphError(RuntimeError):
    """A backward that the graph does not allow: freed, overwritten, or never recorded."""


class MissingRuleError(TypeError):
    """An operation on tensors without a rule for its gradient."""
