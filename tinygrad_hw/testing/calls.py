"""One call of a primitive, as a function of its arrays of floats and as Python that makes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import Primitive
from .spelling import is_large, primitive_name, spell


class Call:
    """A primitive with arguments and parameters.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> call = Call(tg.add, np.array([0.5]), np.array([1.0]))
    >>> call
    Call(tg.add, np.array([0.5]), np.array([1.0]))
    >>> call()
    array([1.5])
    """

    def __init__(self, primitive: Primitive, *args: Any, **params: Any) -> None:
        self.primitive, self.args, self.params = primitive, args, params
        self.__name__ = primitive.name
        self.__wrapped__ = primitive  # Its signature names the arguments.

    @property
    def wrt(self) -> tuple[int, ...]:
        """Positions of the arguments that have gradients."""
        return tuple(
            i
            for i, arg in enumerate(self.args)
            if isinstance(arg, np.ndarray) and arg.dtype.kind == "f"
        )

    def __call__(self, *args: Any) -> Any:
        return self.primitive(*(args or self.args), **self.params)

    def __repr__(self) -> str:
        return f"Call({', '.join([primitive_name(self.primitive)[1], *self._spelled()])})"

    def _spelled(self) -> list[str]:
        params = [f"{name}={spell(value)}" for name, value in self.params.items()]
        return [spell(arg) for arg in self.args] + params

    def script(self, check: str, options: str) -> str:
        """Write the lines that check the call alone."""
        line, name = primitive_name(self.primitive)
        imports = ["import numpy as np", *([line] if line else [])]
        imports.append(f"from tinygrad_hw.testing import {check}")
        if is_large(self.args):
            shapes = ", ".join(str(np.shape(arg)) for arg in self.args)
            return f"# {name}: its arguments, of shape {shapes}, are too large to print"
        names = ", ".join(f"x{i}" for i in range(len(self.args)))
        params = "".join(f", {key}={spell(value)}" for key, value in self.params.items())
        function = f"lambda {names}: {name}({names}{params})" if params else name
        args = ", ".join(map(spell, self.args))
        return "\n".join([*imports, f"{check}({function}, {args}{options})"])
