"""Record one call: run it on the real values, and note every operation on them.

While a recorder is active, arrays that may differ at the next call are replaced by ``Traced``
values: in the arguments, in every tensor that the function meets, in the gradients of leaves and
in an optimiser's memory. Operations on them compute as always and leave an instruction. Nothing
that the function writes reaches the real arrays before the call is over, so a recording that
fails changes nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import dispatch, graph
from ..errors import ShapeError
from ..graph import Handle, Leaf
from .errors import CompileError
from .program import Instruction, Operation, Program, Ref, Source, Spec, Write, map_refs, refs_in
from .same import same_array
from .traced import Counter, Number, Traced, as_type, real, with_scalars

_PACKAGE = Path(__file__).resolve().parent.parent
_INSIDE = os.path.join(_PACKAGE, "")
# A value that is asked for here is asked for by the user; elsewhere in the package, by the engine.
_FOR_USERS = tuple(str(_PACKAGE / part) for part in ("tensor.py", "training.py", "commands"))
# Through these an index goes, whoever made it.
_INDEXING = tuple(str(_PACKAGE / part) for part in ("tensor.py", "dispatch.py", "ops/index.py"))
_HERE = Path(__file__).resolve()
_NOT_FRAMES = (str(Path(np.__file__).parent), str(_HERE), str(_HERE.with_name("traced.py")))


# What to do instead of what is refused.
_ADVICE = {
    "np.asarray()": (
        "use an array as it is, x.astype(dtype), x.numpy() of a tensor, tg.stack of a list, "
        "tg.Tensor(table)[x] for rows of a table, np.zeros_like(x) for what is to be filled"
    ),
}


class Recorder:
    """Records one call of a function into a :class:`Program`."""

    def __init__(self) -> None:
        self.program = Program()
        self.values = 0
        # Objects whose content was replaced: how to find it, what it was, what stands for it.
        self.places: dict[Any, tuple[Source, Source | None, Any, Any]] = {}
        self.concrete: dict[int, Any] = {}
        # Arrays from outside by the memory that they are views of.
        self.memories: dict[int, list[Traced]] = {}
        self.optimizers: dict[int, tuple[Any, int, list[dict[str, Any]]]] = {}
        self.steps: list[tuple[Any, int]] = []
        self.tensors: list[Handle] = []
        # Of tensors from outside: their nodes before, and in the recording.
        self.nodes: list[tuple[Handle, Any, Any]] = []
        # Tensors and optimisers that the function makes: they begin anew at each call.
        self.made_here: dict[int, Any] = {}
        # Operations that failed, and with what.
        self.failed: list[tuple[str, Exception]] = []
        self.numbers: dict[int, Ref] = {}
        self.kept: list[Any] = []

    @property
    def recording(self) -> bool:
        """Whether this thread records; another one, or a later call, just computes."""
        return graph.state.recorder is self

    # --- Values -------------------------------------------------------------------------------

    def _new(self, value: Any) -> int:
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            raise CompileError(
                f"compile: an array {value.shape} holds objects of Python; want numbers: "
                "use x.astype(float) outside"
            )
        self.values += 1
        self.program.specs[self.values] = Spec.of(value)
        self.concrete[self.values] = value
        return self.values

    def input(self, source: Source, value: Any, kind: type[Traced] = Traced) -> Traced:
        """Make what stands for a value that comes from outside."""
        there = self.memories.setdefault(id(_memory(value)), [])
        roots = [x.root for x in there if np.may_share_memory(x.value, value)]
        traced = kind(self, self._new(value), value, roots[0] if roots else None)
        there.append(traced)
        self.program.inputs[traced.index] = source
        return traced

    def _own(self, traced: Traced) -> Any:
        """Give what somebody kept of another recording as the array that it is to this one."""
        return traced if traced.recorder is self else traced.value

    def ref(self, traced: Traced) -> Ref:
        """Give the number of a value, if it is still that of the array that it is a view of."""
        if traced.seen != traced.root.written:
            raise CompileError(
                "compile: an array is read after another that shares its memory was written to in "
                "place; compute the view again after the write, or use a copy"
            )
        return Ref(traced.index)

    def constant(self, array: Any) -> Ref:
        """Give the number of an array as it is now; the function may write to it later."""
        known = self.numbers.get(id(array))
        if known is None or not same_array(self.concrete[known.index], array):
            copy = array.copy(order="K")
            known = self.numbers[id(array)] = Ref(self._new(copy))
            self.program.constants[known.index] = copy
            self.kept.append(array)
        return known

    def made(self, thing: Any) -> None:
        """Note a tensor or an optimiser that the function makes."""
        self.made_here[id(thing)] = thing

    def _refs(self, tree_of_values: Any, *, arrays: bool) -> Any:
        def to_ref(value: Any) -> Any:
            if isinstance(value, Traced):
                return self.ref(value)
            return self.constant(value)

        kind: Any = (Traced, np.ndarray) if arrays else Traced
        return map_refs(to_ref, tree_of_values, kind)

    # --- Operations ---------------------------------------------------------------------------

    def emit(self, op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Compute, and note it unless all is known: then the result is an ordinary array."""
        if not self.recording:
            now = graph.state.recorder
            return now.emit(op, args, params) if now else op.forward(*real(args), **real(params))
        args, params = map_refs(self._own, (args, params), Traced)
        y = self._computed(op, args, params)
        involved = refs_in((args, params), Traced)
        if not involved and args:
            return y
        if y is None:
            self.refuse(f"{op.name}, which gives nothing,", involved[0], "call it outside")
        if isinstance(y, (tuple, list)):
            advice = "take the parts one by one, as x[:2] and x[2:]"
            self.refuse(f"{op.name}, with several results,", involved[0], advice)
        for x in involved:
            if x.value is y and isinstance(y, np.ndarray):
                # Nothing was done, as where there is no axis to squeeze.
                return Traced(self, self.ref(x).index, y, x.root)
        scalar = isinstance(y, (np.generic, bool, int)) and isinstance(op, Operation)
        y = np.asarray(y)
        self._check_masks(op, args, params)
        roots = [x.root for x in involved if np.may_share_memory(x.value, y)]
        out = Traced(self, self._new(y), y, roots[0] if roots else None)
        out.scalar = scalar
        if roots or _may_be_view(op):
            self.program.views.add(out.index)
        # Indices stay as they are: only what may differ becomes a value of its own.
        self.program.instructions.append(
            Instruction(
                op, self._refs(args, arrays=True), self._refs(params, arrays=False), out.index
            )
        )
        return out

    def _computed(self, op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        try:
            if op.name in _AT_AN_INDEX:
                # The engine's own take the number of an index that is an array of one.
                return op.forward(*with_scalars(args), **with_scalars(params, every=True))
            return op.forward(*real(args), **real(params))
        except Exception as error:
            self.failed.append((op.name, error))
            raise

    def check_failures(self) -> None:
        """Raise if the function went on where an operation failed for its values."""
        for name, error in self.failed:
            # Shapes and dtypes are the same whenever the program fits.
            if not isinstance(error, (ShapeError, TypeError)):
                raise CompileError(
                    f"compile: {name} failed, the function went on, and with other values it may "
                    "not fail; look for what it fails for outside, or call the function without "
                    f"compile ({type(error).__name__}: {error})"
                ) from error

    def emit_number(self, op: Any, args: tuple[Any, ...]) -> Any:
        """The same for Python numbers."""
        if not self.recording:
            return op.forward(*real(args))
        args = map_refs(self._own, args, Traced)
        y = self._computed(op, args, {})
        out = Number(self, self._new(y), y, None)
        self.program.instructions.append(
            Instruction(op, self._refs(args, arrays=True), {}, out.index)
        )
        return out

    def number(self, traced: Traced) -> Any:
        """Give the number that a 0-d array holds."""
        return self.emit_number(Operation("item", np.ndarray.item), (traced,))

    def _check_masks(self, op: Any, args: Any, params: Any) -> None:
        if op.name not in ("getitem", "insert"):
            return
        masks = [x for x in refs_in((args[1:], params), Traced) if x.dtype == bool]
        if masks:
            # As many as are true: known only if the engine made the mask, as one-hot rows.
            if not self.from_engine(_INDEXING):
                self.refuse("x[mask], whose shape depends on values,", masks[0])
            count: Any = np.count_nonzero(masks[0])
            self.program.checks.append((self.ref(count), count.value[()]))

    def apply(self, primitive: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Compute and record a call of a primitive, in place of the primitive itself."""
        handles = [arg for arg in args if isinstance(arg, Handle)]
        values = tuple(self._value(arg) for arg in args)
        try:
            y = self.emit(primitive, values, params)
        except CompileError:
            raise
        except Exception as error:
            explained = dispatch.explained(error, primitive, real(values), real(params))
            self.failed[-1:] = [(primitive.name, explained)]
            raise explained from error
        if not handles:
            return np.asarray(y) if isinstance(y, np.generic) else y
        if graph.is_recording() and any(handle._node is not None for handle in handles):
            parents = tuple(dispatch.parent_of(arg) for arg in args)
            out = primitive.record(parents, values, params, np.asarray(real(y)))
            if out._node.output is not None:
                out._node.output = y
            out._data = y
            self.made(out)
            return out
        out = object.__new__(Handle.result)
        out._data, out._node, out._constant = y, None, None
        self.made(out)
        return out

    def _value(self, arg: Any) -> Any:
        if not isinstance(arg, Handle):
            return np.asarray(arg) if isinstance(arg, (list, tuple)) else arg
        if not isinstance(arg._data, Traced):
            self.meet(arg)
        return arg._data

    def meet(self, tensor: Any, number: int | None = None) -> None:
        """Replace the values of a tensor, which is perhaps an argument, and its gradient."""
        if id(tensor) in self.made_here:
            value = tensor._data
            tensor._data = Traced(self, self.constant(value).index, value.copy(), None)
            return
        before = tensor._node
        computed = before is not None and not isinstance(before, Leaf)
        if computed:
            # The graph behind it is not ours to walk: it ends here.
            tensor._node = Leaf(tensor._data, tensor.name)
        self.tensors.append(tensor)
        self.nodes.append((tensor, before, tensor._node))
        if number is not None:
            self.program.tensor_arguments.add(number)
        for kind in ("data", "grad"):
            if kind == "data" or (isinstance(tensor._node, Leaf) and not computed):
                place = Source(kind, tensor)
                owner = None if kind == "data" else "grad"
                self._replace(place if number is None else Source("argument", owner, number), place)

    def _replace(self, source: Source, place: Source, kind: type[Traced] = Traced) -> None:
        key = (place.kind, id(place.owner), place.key)
        if key in self.places:
            return
        before = place.read()
        # A gradient that is not there stays away: code asks whether it is None.
        traced = None if before is None else self.input(source, before, kind)
        self.places[key] = (source, place, before, traced)
        place.write(traced)

    def argument(self, array: Any, number: int) -> Any:
        """Make what stands for an array among the arguments, once if it comes more than once."""
        for _, place, known, traced in self.places.values():
            if place is None and known is array:
                return traced
        source = Source("argument", None, number)
        traced = self.input(source, array)
        self.places["argument", number] = (source, None, array, traced)
        return traced

    def enter_parameters(self, optimizer: Any) -> None:
        """Meet what an optimiser changes."""
        for p in optimizer.parameters:
            if not isinstance(p._data, Traced):
                self.meet(p)

    def enter_optimizer(self, optimizer: Any) -> None:
        """Make a learning rate and a memory, which change from step to step, inputs."""
        self.enter_parameters(optimizer)
        if id(optimizer) in self.optimizers or id(optimizer) in self.made_here:
            return
        memory = [dict(entries) for entries in optimizer.memory]
        self.optimizers[id(optimizer)] = (optimizer, optimizer.steps, memory)
        for kind in ("rate", "steps"):
            number = Source(kind, optimizer)
            self._replace(number, number, Number)
        for entries in optimizer.memory:
            for name, array in entries.items():
                if not isinstance(array, (np.ndarray, np.generic)):
                    raise CompileError(
                        f"compile: {type(optimizer).__name__} keeps {name!r} in its memory as "
                        f"{type(array).__name__}; keep an array, such as np.zeros(()), and change "
                        "it in place"
                    )
                whole = array.ndim == 0 and array.dtype.kind == "i"
                entry = Source("entry", entries, name)
                self._replace(entry, entry, Counter if whole else Traced)

    def written_to(self, target: Any, result: Any, name: str) -> Any:
        """Give an array that is written to in place its new value."""
        if not self.recording:
            if (now := graph.state.recorder) is not None:
                return now.written_to(target, result, name)
            np.copyto(real(target), real(result), casting="same_kind")
            return target
        if not isinstance(target, Traced) or target.recorder is not self:
            raise CompileError(
                f"compile: {name} writes a recorded value into an array that is not recorded; "
                "begin with one that is, as np.zeros_like(x); keep what lasts in a tensor and "
                "write to its .data, or pass it as an argument"
            )
        self.ref(target)
        inside = target.root is not target and not self._from_outside(target)
        if inside and target.part is None:
            raise CompileError(
                f"compile: {name} writes in place to a view of an array; write to the array "
                "itself, as x[i] = x[i] + v"
            )
        result = self._fitting(result, target, name)
        if not isinstance(result, Traced):
            target.index = self.constant(np.asarray(result)).index
        else:
            target.index = result.index
        target.value = real(result)
        if inside:
            whole, index = target.part
            whole[index] = result
        else:
            target.root.written += 1
        target.seen = target.root.written
        return target

    def _fitting(self, result: Any, target: Traced, name: str) -> Any:
        """Give a result the dtype and shape of what it is written to."""
        value = real(result)
        if not np.can_cast(value.dtype, target.dtype, "same_kind"):
            raise TypeError(f"{name}: cannot write {value.dtype} into {target.dtype}")
        if value.dtype != target.dtype:
            result = self.emit(Operation("astype", as_type), (result,), {"dtype": target.dtype})
        if value.shape != target.shape:
            op = Operation("broadcast_to", np.broadcast_to)
            result = self.emit(op, (result, target.shape), {})
        return result

    def _from_outside(self, traced: Traced) -> bool:
        """Tell whether something outside has this array, and not the function alone."""
        return any(traced is one for _, _, _, one in self.places.values())

    # --- Values that are asked for ------------------------------------------------------------

    def from_engine(self, through: tuple[str, ...] = ()) -> bool:
        """Tell whether the engine asks for a value, and not the user's function."""
        file = _caller(through).f_code.co_filename
        return file.startswith(_INSIDE) and not file.startswith(_FOR_USERS)

    def assumed(self, what: str, traced: Traced) -> Any:
        """Give the engine a value that it branches on, and have each run check it.

        Where another value comes out, that call is left to the function itself.
        """
        if not self.recording:
            return traced.value
        if not self.from_engine():
            self.refuse(what, traced)
        self.program.checks.append((self.ref(traced), np.array(traced.value)))
        return traced.value

    def refuse(self, what: str, traced: Traced, advice: str = "") -> Any:
        """Raise for a value that is asked for while it is not known."""
        asked = _caller().f_code.co_name
        what = {"__bool__": "bool()", "__float__": "float()", "__int__": "int()"}.get(asked, what)
        frame = _caller((_INSIDE,))
        kind = "number" if isinstance(traced, Number) else f"{traced.dtype}{list(traced.shape)}"
        advice = advice or _ADVICE.get(what, "use tg.where for a choice")
        raise CompileError(
            f"compile: {what} of a recorded {kind} at {frame.f_code.co_filename}:{frame.f_lineno}: "
            "the program is recorded once and its values differ from call to call; "
            f"{advice}, return the value and look at it outside, or call the function without "
            "compile"
        )

    # --- Begin and end ------------------------------------------------------------------------

    @contextmanager
    def active(self) -> Iterator[None]:
        """Record what is called in this thread; leave all places as they were before."""
        mode = graph.state.mode
        # An observer sends the short cuts of primitives through `Primitive.call`, and so to us.
        graph.state.mode = mode._replace(observers=(_nothing,))
        graph.state.recorder = self
        try:
            yield
            self._finish()
        finally:
            graph.state.recorder, graph.state.mode = None, mode
            self._restore()

    def _finish(self) -> None:
        """Note what the function wrote."""
        for tensor, before, node in self.nodes:
            if tensor._node is not node:
                raise CompileError(
                    "compile: a tensor from outside is given another graph, by requires_grad or an "
                    "assignment; do it outside the function"
                )
            if before is not node and isinstance(node, Leaf) and node.grad is not None:
                raise CompileError(
                    "compile: backward() reaches a graph that was made outside the function; call "
                    "it outside, or pass x.detach()"
                )
        for source, place, _, traced in self.places.values():
            now = traced if place is None else place.read()
            if source.kind == "steps":
                continue
            if source.kind == "rate" and now is not traced:
                raise CompileError("compile: a learning rate is set; set it outside the function")
            if now is not traced:
                self.program.writes.append(Write(source, self._result(now), False))
            elif traced is not None and traced.index not in self.program.inputs:
                self.program.writes.append(Write(source, Ref(traced.index), True))
        for optimizer, steps, memory in self.optimizers.values():
            if taken := real(optimizer.steps) - steps:
                self.steps.append((optimizer, taken))
            for entries, before in zip(optimizer.memory, memory, strict=True):
                # In the order in which they were made: a program is the same in every process.
                for name in [name for name in entries if name not in before]:
                    value = self._result(entries[name])
                    self.program.writes.append(Write(Source("entry", entries, name), value, False))

    def _result(self, value: Any) -> Any:
        """Give what stands for a value in the results: a Ref, or a Python object."""
        if isinstance(value, Traced):
            value = self._own(value)
        if isinstance(value, Traced):
            return self.ref(value)
        return self.constant(value) if isinstance(value, np.ndarray) else value

    def _restore(self) -> None:
        # A gradient is put back where it was, in the node of the recording.
        for tensor, _, node in self.nodes:
            tensor._node = node
        for _, place, before, _ in self.places.values():
            if place is not None:
                place.write(before)
        for tensor, before, _ in self.nodes:
            tensor._node = before
        for thing in self.made_here.values():
            if isinstance(thing, Handle):
                _known(thing)
        for optimizer, steps, memory in self.optimizers.values():
            optimizer.steps = steps
            for entries, before in zip(optimizer.memory, memory, strict=True):
                entries.clear()
                entries.update(before)


def _known(tensor: Any) -> None:
    """Leave a tensor that the function made, and somebody may hold, with the values of this call.

    The graph behind it is of recorded values, and goes with the recording.
    """
    tensor._data = real(tensor._data)
    if isinstance(tensor._node, Leaf):
        tensor._node.grad = real(tensor._node.grad)
    else:
        tensor._node = None


def _may_be_view(op: Any) -> bool:
    """Tell whether an operation may return a view where it did not this time."""
    if isinstance(op, Operation):
        return not isinstance(op.forward, np.ufunc) and op.name not in _NEW
    return bool(op.view)


_AT_AN_INDEX = frozenset({"getitem", "setitem", "scatter_add"})
# Functions of NumPy that always make a new array.
_NEW = frozenset(
    "astype setitem sum mean var std prod max min amax amin argmax argmin any all cumsum cumprod "
    "vdot dot where count_nonzero zeros_like ones_like concatenate stack".split()
)


def _memory(value: Any) -> Any:
    """Give the object that owns the memory of an array."""
    while isinstance(value, np.ndarray) and value.base is not None:
        value = value.base
    return value


def _nothing(*args: Any) -> None:
    """Observe a call and do nothing."""


def _caller(through: tuple[str, ...] = ()) -> Any:
    """The frame that asks: the first outside NumPy, the recorder and what is passed through."""
    skipped = (*_NOT_FRAMES, *through)
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(skipped):
        frame = frame.f_back
    return frame
