"""Programs: straight lines of calls of primitives, as their own source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..graph import Primitive
from .draws import HypothesisDraw
from .spelling import primitive_name, spell

Array = np.ndarray[Any, Any]

# Beyond it, a later op would see nothing but overflow and saturation.
_LARGEST = 64.0


class Program:
    """A function written as lines of Python, together with the arguments to try it on.

    Parameters
    ----------
    source : str
        Assignments, one a line; the variables that no line uses are the outputs.
    ops : mapping, optional
        Primitives that the lines call by a bare name, because no module has them.
    **inputs : array
        By the names that the lines use.

    Examples
    --------
    >>> program = Program("y = tg.exp(x)\\nz = tg.multiply(y, x)", x=np.array([0.0, 1.0]))
    >>> program
    Program('y = tg.exp(x)\\nz = tg.multiply(y, x)', x=np.array([0.0, 1.0]))
    >>> program()
    array([0.        , 2.71828183])
    """

    def __init__(self, source: str, ops: Mapping[str, Any] | None = None, /, **inputs: Any) -> None:
        self.source = source
        self.inputs = inputs
        self._ops = dict(ops or {})
        self.__name__ = "program"
        self._function: Any = None

    @property
    def args(self) -> tuple[Any, ...]:
        """The inputs in order, to call the program on."""
        return tuple(self.inputs.values())

    @property
    def steps(self) -> int:
        """Number of ops."""
        return len([line for line in self.source.splitlines() if "=" in line])

    def __call__(self, *args: Any) -> Any:
        if self._function is None:
            namespace: dict[str, Any] = {"np": np, **self._ops}
            exec(self.definition(), namespace)
            self._function = namespace["program"]
        return self._function(*(args or self.args))

    def __repr__(self) -> str:
        inputs = "".join(f", {name}={spell(x)}" for name, x in self.inputs.items())
        return f"Program({self.source!r}{inputs})"

    def definition(self) -> str:
        """Write the program as a function in Python."""
        lines = [line for line in self.source.splitlines() if line]
        imports = [line for line in lines if line.startswith("import ")]
        body = [line for line in lines if line not in imports]
        parts = [
            "import tinygrad_hw as tg",
            *imports,
            f"def program({', '.join(self.inputs)}):",
            *(f"    {line}" for line in body),
            f"    return {self._outputs(body)}",
        ]
        return "\n".join(parts)

    def _outputs(self, body: Sequence[str]) -> str:
        names = [line.split(" = ")[0] for line in body]
        calls = [line.split(" = ", 1)[1] for line in body]
        used = {word for call in calls for word in _words(call)}
        last = [name for name in names if name not in used]
        return ", ".join(last)

    def script(self, check: str, options: str) -> str:
        """Write the lines that check the program."""
        args = ", ".join(map(spell, self.args))
        return "\n".join(
            [
                "import numpy as np",
                f"from tinygrad_hw.testing import {check}",
                self.definition(),
                f"{check}(program, {args}{options})",
            ]
        )


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


class ProgramDraw(HypothesisDraw):
    """Builds a program: an array that an op asks for may be one that an earlier op computed.

    Back-references count from the latest value, and 0 asks for a new input. So a program from which
    Hypothesis takes a step still makes sense, and the simplest program is one op on new inputs.
    """

    def __init__(self, draw: Any) -> None:
        super().__init__(draw)
        self.values: dict[str, Array] = {}
        self.inputs: dict[str, Array] = {}
        self.lines: list[str] = []
        self.ops: dict[str, Primitive] = {}
        self.imports: set[str] = set()

    def shape(self, min_dims: int, max_dims: int, max_side: int) -> tuple[int, ...] | None:
        """Choose a shape that a value has already, so that ops meet; None for a new one."""
        known = {
            value.shape: None
            for value in reversed(self.values.values())
            if min_dims <= value.ndim <= max_dims and all(0 < n <= max_side for n in value.shape)
        }
        # Three times, lest programs be mere rows of ops that never meet.
        shapes = [*known] * 3
        chosen = self.integer(0, len(shapes)) if shapes else 0
        return shapes[chosen - 1] if chosen else None

    def array(self, shape: Sequence[int], low: float = -math.inf, high: float = math.inf) -> Array:
        fitting = [
            value
            for value in reversed(self.values.values())
            if value.shape == tuple(shape) and _inside(value, low, high)
        ]
        chosen = self.integer(0, len(fitting)) if fitting else 0
        return fitting[chosen - 1] if chosen else super().array(shape, low, high)

    def add(self, primitive: Primitive) -> None:
        """Draw a call of a primitive and append it, unless its result is of no use."""
        args, params = primitive.domain.sample(self)
        with np.errstate(all="ignore"):
            y = np.asarray(primitive.forward(*args, **params))
        usable = y.dtype.kind == "f" and np.isfinite(y).all()
        if not usable or not any(_is_float(a) for a in args):
            return
        if y.size and np.abs(y).max() > _LARGEST:
            return
        inputs = {id(x): name for name, x in self.values.items()}
        spelled = [self._name_of(arg, inputs) for arg in args]
        spelled += [f"{key}={spell(value)}" for key, value in params.items()]
        name = f"y{len(self.lines)}"
        self.lines.append(f"{name} = {self._spell_op(primitive)}({', '.join(spelled)})")
        self.values[name] = y

    def _name_of(self, arg: Any, known: dict[int, str]) -> str:
        if not _is_float(arg):
            return spell(arg)
        if id(arg) not in known:
            name = f"x{len(self.inputs)}"
            self.inputs[name] = self.values[name] = np.array(arg)
            known[id(arg)] = name
        return known[id(arg)]

    def _spell_op(self, primitive: Primitive) -> str:
        line, name = primitive_name(primitive)
        if not line:
            self.ops[name] = primitive
        elif line != "import tinygrad_hw as tg":
            self.imports.add(line)
        return name

    def program(self) -> Program:
        """Give what was built."""
        source = "\n".join([*sorted(self.imports), *self.lines])
        return Program(source, self.ops, **self.inputs)


def _is_float(arg: Any) -> bool:
    return isinstance(arg, np.ndarray) and arg.dtype.kind == "f"


def _inside(value: Array, low: float, high: float) -> bool:
    """Tell whether values lie in an interval, away from its ends."""
    margin = 1 / 32
    return bool(((value > low + margin) & (value < high - margin)).all())
