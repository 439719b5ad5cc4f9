"""What a recorded call is: a list of instructions on numbered values, and what it reads and writes.

A program is plain data. The passes here make a smaller one of it that computes the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Ref:
    """The value with this number."""

    index: int

    def __repr__(self) -> str:
        return f"v{self.index}"


# Bytes of a line of the cache.
LINE = 64


def aligned(size: int) -> Array:
    """Make an array of bytes that begins where a line of the cache does.

    A copy from a place that does to one that lies 16 bytes further in its page, as that of a large
    new array may, takes two to four times as long: the processor takes its reads for what it has
    just written.
    """
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.__array_interface__["data"][0] % LINE
    return raw[start : start + size]


class Spec(NamedTuple):
    """What is known of a value before the program runs.

    ``order`` are its axes as they lie in memory, outermost first; None for a Python number.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...] | None

    @classmethod
    def of(cls, value: Any) -> Spec:
        """Describe a value."""
        if not isinstance(value, np.ndarray):
            return cls((), np.asarray(value).dtype, None)
        order = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))
        return cls(value.shape, value.dtype, tuple(order))

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the entries."""
        return self.size * self.dtype.itemsize

    def empty(self) -> Array:
        """Make an array laid out like the recorded one."""
        order = self.order or ()
        lengths = [self.shape[axis] for axis in order]
        array = np.ndarray(lengths, self.dtype, aligned(self.nbytes))
        return array.transpose(np.argsort(order)) if order else array

    def __str__(self) -> str:
        if self.order is None:
            return "number"
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Operation:
    """A function that is no primitive: one of NumPy's, or of Python numbers."""

    name: str
    forward: Callable[..., Any]


class Instruction(NamedTuple):
    """One call: ``out = op.forward(*args, **params)``, with values in place of each Ref."""

    op: Any
    args: tuple[Any, ...]
    params: dict[str, Any]
    out: int

    def refs(self) -> list[int]:
        """Numbers of the values that it reads."""
        return [ref.index for ref in refs_in((self.args, self.params))]

    @property
    def pure(self) -> bool:
        """Whether the result depends on nothing but its arguments; draws do not."""
        return bool(self.args)


def repeated(array: Array | None) -> Any:
    """Give the entry that all of an array are, by their bytes, since 0 equals -0; else None."""
    entries = b"" if array is None else array.tobytes()
    if array is None or not entries or entries != entries[: array.itemsize] * array.size:
        return None
    return array.flat[0]


# Operations that, of one value, as a rule make a view, whatever its entries are.
VIEWS = frozenset(
    "reshape transpose expand getitem ravel squeeze swapaxes broadcast_to expand_dims".split()
)


class Source(NamedTuple):
    """Where a value comes from, or goes to.

    ``kind`` is "data" or "grad" (of a tensor ``owner``), "entry" (``key`` of a dict), "rate" or
    "steps" (of an optimiser), or "argument" (number ``key``; its gradient if ``owner`` is "grad").
    """

    kind: str
    owner: Any
    key: Any = None

    def _holder(self, leaves: Any) -> tuple[Any, str]:
        """Give the object and the name of its attribute."""
        owner = leaves[self.key] if self.kind == "argument" else self.owner
        if "grad" in (self.kind, self.owner if self.kind == "argument" else None):
            return owner._node, "grad"
        return owner, {"rate": "lr", "steps": "steps"}.get(self.kind, "_data")

    def read(self, leaves: Any = ()) -> Any:
        """Give what is there now; ``leaves`` are those of the arguments."""
        if self.kind == "entry":
            return self.owner[self.key]
        owner, name = self._holder(leaves)
        return owner if isinstance(owner, np.ndarray) else getattr(owner, name)

    def write(self, value: Any, leaves: Any = ()) -> None:
        """Put something else there."""
        if self.kind == "entry":
            self.owner[self.key] = value
        else:
            owner, name = self._holder(leaves)
            setattr(owner, name, value)

    def __str__(self) -> str:
        if self.kind == "argument":
            return f"{'gradient of ' if self.owner else ''}argument {self.key}"
        if self.kind == "entry":
            return f"the optimiser's {self.key}"
        if self.kind in ("rate", "steps"):
            return "learning rate" if self.kind == "rate" else "number of steps"
        if self.kind in ("residual", "cotangent"):
            return f"{self.kind} {self.key}"
        name = self.owner.name or f"tensor {self.owner.shape}"
        return f"gradient of {name}" if self.kind == "grad" else name


class Write(NamedTuple):
    """An effect: a value goes into the array at a place, or takes the place of that array."""

    target: Source
    value: Any
    in_place: bool


@dataclass
class Program:
    """A recorded call.

    Attributes
    ----------
    specs : dict
        Of every value, by its number.
    inputs : dict
        Number to :class:`Source`.
    constants : dict
        Number to array.
    instructions : list of Instruction
    outputs : list
        A Ref or a Python object for each leaf of what the function returned.
    writes : list of Write
    tensor_arguments : set of int
        Which of the arguments are tensors.
    views : set of int
        Values that may share memory with what they were computed from.
    checks : list of (Ref, value)
        What the recording took for granted. Where it does not hold, nothing is written and the
        call is left to the function itself.
    """

    specs: dict[int, Spec] = field(default_factory=dict)
    inputs: dict[int, Source] = field(default_factory=dict)
    constants: dict[int, Array] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    tensor_arguments: set[int] = field(default_factory=set)
    views: set[int] = field(default_factory=set)
    checks: list[tuple[Ref, Any]] = field(default_factory=list)

    def results(self) -> Iterator[int]:
        """Numbers of the values that must be there at the end."""
        for result in (
            *self.outputs,
            *(w.value for w in self.writes),
            *(c[0] for c in self.checks),
        ):
            if isinstance(result, Ref):
                yield result.index

    def optimized(self) -> Program:
        """Give a program that computes the same with less."""
        return _folded(pruned(self)).merged()

    def merged(self) -> Program:
        """Give a program that computes nothing twice, and nothing that nobody wants."""
        return pruned(_merged(self))

    def __str__(self) -> str:
        lines = [f"v{i}: {self.specs[i]} = {source}" for i, source in self.inputs.items()]
        lines += [f"v{i}: {self.specs[i]} = constant" for i in self.constants]
        for op, args, params, out in self.instructions:
            shown = [_shown(arg) for arg in args]
            shown += [f"{key}={_shown(value)}" for key, value in params.items()]
            lines.append(f"v{out}: {self.specs[out]} = {op.name}({', '.join(shown)})")
        lines += [f"check {ref} is {value!r}" for ref, value in self.checks]
        lines += [
            f"{w.target} {'<-' if w.in_place else '='} {_shown(w.value)}" for w in self.writes
        ]
        lines.append(f"return {', '.join(map(_shown, self.outputs))}")
        return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 1:
        return f"<{value.dtype} {value.shape}>"
    return repr(value)


# --- Containers with references ---------------------------------------------------------------


def map_refs(function: Callable[[Any], Any], tree: Any, kind: type = Ref) -> Any:
    """Apply a function to every Ref in a container."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_refs(function, value, kind) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)([map_refs(function, value, kind) for value in tree])
    return tree


def refs_in(tree: Any, kind: type = Ref) -> list[Any]:
    """Give every Ref in a container."""
    if isinstance(tree, kind):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if type(tree) in (tuple, list):
        return [ref for part in tree for ref in refs_in(part, kind)]
    return []


# --- Passes -----------------------------------------------------------------------------------


def pruned(program: Program) -> Program:
    """Drop what nobody asks for; a draw stays, since it moves its generator on."""
    wanted = set(program.results())
    kept = []
    for instruction in reversed(program.instructions):
        if instruction.out in wanted or not instruction.pure:
            kept.append(instruction)
            wanted.update(instruction.refs())
    return replace(
        program,
        instructions=kept[::-1],
        inputs={i: source for i, source in program.inputs.items() if i in wanted},
        constants={i: array for i, array in program.constants.items() if i in wanted},
    )


def _folded(program: Program) -> Program:
    """Compute now what depends on constants only."""
    constants = dict(program.constants)
    kept = []
    for instruction in program.instructions:
        if instruction.pure and all(i in constants for i in instruction.refs()):
            args, params = map_refs(
                lambda ref: constants[ref.index], (instruction.args, instruction.params)
            )
            with np.errstate(all="ignore"):
                constants[instruction.out] = np.asarray(instruction.op.forward(*args, **params))
        else:
            kept.append(instruction)
    return replace(program, instructions=kept, constants=constants)


def _merged(program: Program) -> Program:
    """Compute what is asked for twice once (common subexpressions)."""
    names: dict[int, Ref] = {}
    first: dict[Any, Ref] = {}
    for i, array in program.constants.items():
        same = ("constant", array.dtype.str, array.shape, array.tobytes())
        names[i] = first.setdefault(same, Ref(i))

    def renamed(tree: Any) -> Any:
        return map_refs(lambda ref: names.get(ref.index, ref), tree)

    kept = []
    memory = aliases(program)
    for op, args, params, out in program.instructions:
        instruction = Instruction(op, renamed(args), renamed(params), out)
        times_one = _factor_beside_ones(instruction, program)
        # Of what lies in memory of others, such as an input, the product may be wanted as a copy.
        if times_one and memory.get(times_one.index) == {times_one.index}:
            names[out] = times_one
            continue
        args = instruction.args
        if op.forward in _COMMUTATIVE and all(isinstance(arg, Ref) for arg in args):
            args = tuple(sorted(args, key=lambda ref: ref.index))
        key = (op.forward, _key(args), _key(instruction.params))
        if instruction.pure and _hashable(key) and key in first:
            names[out] = first[key]
            continue
        if instruction.pure and _hashable(key):
            first[key] = Ref(out)
        kept.append(instruction)
    return replace(
        program,
        instructions=kept,
        outputs=renamed(program.outputs),
        writes=[w._replace(value=renamed(w.value)) for w in program.writes],
        checks=[(renamed(ref), value) for ref, value in program.checks],
    )


_COMMUTATIVE = (np.add, np.multiply)


def _factor_beside_ones(instruction: Instruction, program: Program) -> Ref | None:
    """Give the argument that an instruction multiplies by ones, as the walk back begins."""
    args, out = instruction.args, program.specs[instruction.out]
    if instruction.op.forward is not np.multiply or instruction.params or len(args) != 2:
        return None
    for one, other in (args, args[::-1]):
        if isinstance(one, Ref) and isinstance(other, Ref) and program.specs[other.index] == out:
            entry = repeated(program.constants.get(one.index))
            if entry is not None and entry.dtype == out.dtype and entry == 1:
                return other
    return None


def target_of(program: Program, write: Write) -> int | None:
    """Give the number of the input whose array is written to, if the value fits there."""
    for i, source in program.inputs.items():
        same = source.kind == write.target.kind and source.key == write.target.key
        if same and source.owner is write.target.owner:
            spec, value = program.specs[i], program.specs[write.value.index]
            return i if (spec.shape, spec.dtype) == (value.shape, value.dtype) else None
    return None


def renumbered(program: Program, inputs: Iterable[int]) -> tuple[Program, dict[int, int]]:
    """Number the values in the order in which they are made, after those inputs.

    Programs that compute the same are then the same, whatever was recorded beside. Also gives the
    new number of each old one.
    """
    made = (i.out for i in program.instructions)
    order = dict.fromkeys((*inputs, *program.inputs, *program.constants, *made))
    numbers = {old: new for new, old in enumerate(order)}

    def renamed(tree: Any) -> Any:
        return map_refs(lambda ref: Ref(numbers[ref.index]), tree)

    def moved(values: Mapping[int, Any]) -> dict[int, Any]:
        return {numbers[i]: value for i, value in values.items() if i in numbers}

    return replace(
        program,
        specs=moved(program.specs),
        inputs=moved(program.inputs),
        constants=moved(program.constants),
        instructions=[
            Instruction(op, renamed(args), renamed(params), numbers[out])
            for op, args, params, out in program.instructions
        ],
        outputs=renamed(program.outputs),
        writes=[w._replace(value=renamed(w.value)) for w in program.writes],
        views={numbers[i] for i in program.views if i in numbers},
        checks=[(renamed(ref), value) for ref, value in program.checks],
    ), numbers


def _key(tree: Any) -> Any:
    """Make a key of arguments; numbers of different types, and zeros of both signs, differ."""
    if isinstance(tree, dict):
        return tuple((name, _key(value)) for name, value in sorted(tree.items()))
    if isinstance(tree, (tuple, list)):
        return (type(tree), *map(_key, tree))
    if isinstance(tree, slice):
        return (slice, tree.start, tree.stop, tree.step)
    if isinstance(tree, (np.ndarray, np.generic)):
        return (type(tree), tree.dtype.str, tree.shape, tree.tobytes())
    number = isinstance(tree, (int, float, complex))
    return (type(tree), repr(tree)) if number else (type(tree), tree)


def _hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


# --- Life times -------------------------------------------------------------------------------


def aliases(program: Program) -> dict[int, set[int]]:
    """For each computed value, all those whose memory it may share."""
    same: dict[int, set[int]] = {}
    for instruction in program.instructions:
        owners = {instruction.out}
        if instruction.out in program.views:
            for i in instruction.refs():
                owners |= same.get(i, {i})
        same[instruction.out] = owners
    return same


def last_uses(program: Program) -> dict[int, int]:
    """For each value, the number of the last instruction that needs its memory."""
    same = aliases(program)
    last: dict[int, int] = {}
    for time, instruction in enumerate(program.instructions):
        for i in (*instruction.refs(), instruction.out):
            for owner in same.get(i, {i}):
                last[owner] = time
    end = len(program.instructions)
    for i in program.results():
        for owner in same.get(i, {i}):
            last[owner] = end
    return last
