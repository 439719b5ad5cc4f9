"""Programs: straight lines of calls of primitives, as their own source."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dispatch import Primitive
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
    """Builds a program: an array that an op asks for may be an input or what an op computed.

    Choices shrink towards the oldest values, and those towards inputs that were drawn before all
    steps. So an op comes to use inputs instead of what other ops computed, and Hypothesis can take
    those out: what is left still means the same.
    """

    def __init__(self, draw: Any) -> None:
        super().__init__(draw)
        self.values: list[Array] = []
        self.names: dict[int, str] = {}
        self.inputs: dict[str, Array] = {}
        self.lines: list[str] = []
        self.ops: dict[str, Primitive] = {}
        self.imports: set[str] = set()

    def shape(self, min_dims: int, max_dims: int, max_side: int) -> tuple[int, ...] | None:
        """Choose a shape that a value has already, so that ops meet; None for a new one."""
        known = {
            value.shape: None
            for value in self.values
            if min_dims <= value.ndim <= max_dims and all(0 < n <= max_side for n in value.shape)
        }
        # Three times, lest programs be mere rows of ops that never meet.
        shapes = [*known] * 3
        chosen = self.integer(0, len(shapes)) if shapes else 0
        return shapes[chosen] if chosen < len(shapes) else None

    def array(self, shape: Sequence[int], low: float = -math.inf, high: float = math.inf) -> Array:
        fitting = [
            value
            for value in self.values
            if value.shape == tuple(shape) and _inside(value, low, high)
        ]
        chosen = self.integer(0, len(fitting)) if fitting else 0
        return fitting[chosen] if chosen < len(fitting) else super().array(shape, low, high)

    def add_input(self, shape: Sequence[int]) -> None:
        """Draw an input that steps may use, and that is no part of the program if none does."""
        self.values.append(super().array(shape))

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
        spelled = [self._name_of(arg) if _is_float(arg) else spell(arg) for arg in args]
        spelled += [f"{key}={spell(value)}" for key, value in params.items()]
        name = f"y{len(self.lines)}"
        self.lines.append(f"{name} = {self._spell_op(primitive)}({', '.join(spelled)})")
        self._keep(np.array(y), name)

    def _name_of(self, arg: Array) -> str:
        if id(arg) not in self.names:
            name = f"x{len(self.inputs)}"
            self.inputs[name] = arg
            self._keep(arg, name)
        return self.names[id(arg)]

    def _keep(self, value: Array, name: str) -> None:
        self.names[id(value)] = name
        if not any(value is known for known in self.values):
            self.values.append(value)

    def _spell_op(self, primitive: Primitive) -> str:
        line, name = primitive_name(primitive)
        if not line:
            self.ops[name] = primitive
        elif line != "import tinygrad_hw as tg":
            self.imports.add(line)
        return name

    def program(self, *, whole: bool) -> Program:
        """Give what was built: the ``whole``, or what the last step needs."""
        lines = self.lines if whole else _needed(self.lines)
        used = {word for line in lines for word in _words(line)}
        new = _renumbered(name for name in (*self.inputs, *self.names.values()) if name in used)
        lines = [re.sub(r"\b[xy]\d+\b", lambda found: new[found[0]], line) for line in lines]
        inputs = {new[name]: x for name, x in self.inputs.items() if name in used}
        imports = sorted(line for line in self.imports if line.split()[1] in " ".join(lines))
        return Program("\n".join([*imports, *lines]), self.ops, **inputs)


def _needed(lines: Sequence[str]) -> list[str]:
    """Give the lines that the last one depends on, and it."""
    needed: set[str] = set()
    kept: list[str] = []
    for line in reversed(lines):
        if not kept or line.split(" = ")[0] in needed:
            kept.append(line)
            needed |= _words(line)
    return kept[::-1]


def _renumbered(names: Iterable[str]) -> dict[str, str]:
    """Count inputs and results from 0, in their order."""
    new: dict[str, str] = {}
    for name in dict.fromkeys(names):
        new[name] = f"{name[0]}{sum(other[0] == name[0] for other in new)}"
    return new


def _is_float(arg: Any) -> bool:
    return isinstance(arg, np.ndarray) and arg.dtype.kind == "f"


def _inside(value: Array, low: float, high: float) -> bool:
    """Tell whether values lie in an interval, away from its ends."""
    margin = 1 / 32
    return bool(((value > low + margin) & (value < high - margin)).all())
