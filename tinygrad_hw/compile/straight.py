"""The numpy back end: a program as one straight Python function on buffers that it uses again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..ops import linalg, reduce, shape
from ..ops.activations import relu, relu_grad
from .buffered import masked, scratch, with_buffers
from .expand import peak, total
from .program import Instruction, Program, Ref, Spec, aliases, last_uses
from .recycle import maker

Array = np.ndarray[Any, Any]


def _relu_grad(g: Array, x: Array, out: Array, mask: Array) -> Array:
    np.greater(x, 0, mask)
    return masked(g, mask, out)


def _folded(
    ufunc: np.ufunc, x: Array, out: Array, axes: tuple[int, ...], kept: tuple[int, ...]
) -> Array:
    ufunc.reduce(x, axis=axes, out=out.reshape(kept), keepdims=True)
    return out


# Bytes up to which an array of zeros stays in the cache beside what it is compared with.
_MOST_ZEROS = 2**18


class Straight:
    """Runs a program with NumPy.

    Parameters
    ----------
    program : Program

    Attributes
    ----------
    source : str
        The Python function.
    buffers : list of array
        That are used again at every call.
    """

    name = "numpy"
    writes_in_place = False

    def __init__(self, program: Program) -> None:
        self.given, self.program = program, with_buffers(program)
        program = self.program
        self.buffers: list[Array] = []
        self._names: dict[str, Any] = {"np": np}
        self._lasting = lasting(program)
        lines = [f"def run({', '.join(f'v{i}' for i in program.inputs)}):"]
        for i, array in program.constants.items():
            self._names[f"v{i}"] = array
        # The walk back computes slopes that may be infinite where nothing asks for them.
        lines.append("    with np.errstate(all='ignore'):")
        lines += [f"        {line}" for line in [*self._body(), "pass"]]
        pairs = dict(zip(self.given.results(), program.results(), strict=True))
        self.results = list(pairs)
        self.owned: set[int] = set()
        lines.append(f"    return ({''.join(f'v{i}, ' for i in pairs.values())})")
        self.source = "\n".join(lines)
        exec(compile(self.source, "<compiled>", "exec"), self._names)
        self.run: Callable[..., Any] = self._names["run"]

    def explain(self) -> str:
        """Say what memory it takes."""
        size = sum(array.nbytes for array in self.buffers)
        return f"{len(self.buffers)} buffers of {size} bytes, used again at every call"

    def _body(self) -> list[str]:
        program = self.program
        last = last_uses(program)
        free: dict[Spec, list[str]] = {}
        held: dict[int, tuple[Spec, str]] = {}
        lines = []
        for time, instruction in enumerate(program.instructions):
            out = instruction.out
            dying = [i for i in held if last[i] <= time]
            elementwise = isinstance(instruction.op.forward, np.ufunc)
            if elementwise:
                # Entry by entry, the result may take the place of an argument of its layout.
                self._release(dying, held, free)
            scratch: list[tuple[Spec, str]] = []

            def buffer(
                spec: Spec, out: int = out, scratch: list[tuple[Spec, str]] = scratch
            ) -> str:
                if spec is program.specs[out] and out in self._lasting:
                    return self._fresh(spec)
                name = self._buffer(spec, free)
                if spec is program.specs[out]:
                    held[out] = (spec, name)
                else:
                    scratch.append((spec, name))
                return name

            lines.append(f"v{out} = {self._call(instruction, buffer)}")
            for spec, name in scratch:
                free.setdefault(spec, []).append(name)
            if not elementwise:
                self._release(dying, held, free)
        return lines

    def _release(self, values: list[int], held: Any, free: dict[Spec, list[str]]) -> None:
        for i in values:
            if i in held:
                spec, name = held.pop(i)
                free.setdefault(spec, []).append(name)

    def _buffer(self, spec: Spec, free: dict[Spec, list[str]]) -> str:
        if free.get(spec):
            return free[spec].pop()
        array = spec.empty()
        self.buffers.append(array)
        return self._known(array, "b")

    def _fresh(self, spec: Spec) -> str:
        """Spell a new array."""
        call = f"{self._known(maker(spec))}()"
        order = spec.order or ()
        if order == tuple(range(len(order))):
            return call
        return f"{call}.transpose({tuple(np.argsort(order).tolist())})"

    def _known(self, value: Any, prefix: str = "k") -> str:
        """Name an object in the function."""
        name = f"{prefix}{len(self._names)}"
        self._names[name] = value
        return name

    def _shown(self, value: Any) -> str:
        if isinstance(value, Ref):
            return f"v{value.index}"
        if type(value) in (int, float, bool, str, type(None)) and value == value:
            text = repr(value)
            return text if "inf" not in text else self._known(value)
        if type(value) is tuple:
            return f"({''.join(self._shown(part) + ', ' for part in value)})"
        if type(value) is list:
            return f"[{', '.join(map(self._shown, value))}]"
        return self._known(value)

    def _call(self, instruction: Instruction, buffer: Callable[[Spec], str]) -> str:
        """Spell the call, into a buffer where there is a way."""
        op, args, params, out = instruction
        specs = self.program.specs
        shown = [self._shown(arg) for arg in args]
        into = _INTO.get(op.forward)
        if into is not None:
            argument_specs = [specs[a.index] if isinstance(a, Ref) else None for a in args]
            call = into(self, shown, argument_specs, params, specs[out], buffer)
            if call is not None:
                return str(call)
        extra = scratch(instruction, specs)
        if extra is not None:
            shown += [buffer(spec) for spec in (specs[out], *extra)]
        if isinstance(op.forward, np.ufunc) and not params:
            return f"{self._known(op.forward)}({', '.join(shown)}, out={buffer(specs[out])})"
        named = [f"{key}={self._shown(value)}" for key, value in params.items()]
        call = f"{self._known(op.forward)}({', '.join([*shown, *named])})"
        if specs[out].order is None or isinstance(op.forward, np.ufunc):
            return call
        # Kernels may make scalars of 0-d results.
        return call if specs[out].shape else f"np.asarray({call})"


def lasting(program: Program) -> set[int]:
    """Values whose memory outlives the call: no buffer may hold them."""
    same = aliases(program)
    rebound = [w.value for w in program.writes if not w.in_place]
    found: set[int] = set()
    for result in (*program.outputs, *rebound):
        if isinstance(result, Ref):
            found |= same.get(result.index, {result.index})
    return found


# --- Calls that write into a buffer: (names, argument specs, params, spec, buffer) -> call --------


def _into_relu(maker: Any, args: Any, specs: Any, params: Any, spec: Spec, buffer: Any) -> str:
    zero = "0"
    if spec.nbytes <= _MOST_ZEROS:
        # NumPy's maximum with a scalar takes up to three times as long as with an array.
        zero = maker._known(np.zeros_like(spec.empty()))
    return f"np.maximum({args[0]}, {zero}, out={buffer(spec)})"


def _into_relu_grad(maker: Any, args: Any, specs: Any, params: Any, spec: Spec, buffer: Any) -> Any:
    if specs[0] is None or specs[0].dtype != spec.dtype:
        return None
    mask = buffer(spec._replace(dtype=np.dtype(bool)))
    return f"{maker._known(_relu_grad)}({args[0]}, {args[1]}, {buffer(spec)}, {mask})"


def _into_matmul(maker: Any, args: Any, specs: Any, params: Any, spec: Spec, buffer: Any) -> Any:
    if not spec.shape or spec.order != tuple(range(len(spec.shape))):
        return None
    return f"np.matmul({args[0]}, {args[1]}, {buffer(spec)})"


def _into_sum(maker: Any, args: Any, specs: Any, params: Any, spec: Spec, buffer: Any) -> Any:
    if specs[0] is None or specs[0].dtype != spec.dtype:
        return None
    axis = maker._shown(params["axis"])
    return f"np.add.reduce({args[0]}, {axis}, None, {buffer(spec)}, {params['keepdims']})"


def _into_sum_to(maker: Any, args: Any, specs: Any, params: Any, spec: Spec, buffer: Any) -> Any:
    if specs[0] is None or specs[0].dtype != spec.dtype or not specs[0].shape:
        return None
    given, wanted = specs[0].shape, spec.shape
    lead = len(given) - len(wanted)
    kept = (1,) * lead + wanted
    axes = tuple(i for i, side in enumerate(kept) if i < lead or side == 1 != given[i])
    return _fold(maker, np.add, args[0], axes, kept, spec, buffer)


def _into_fold(
    ufunc: np.ufunc, maker: Any, args: Any, specs: Any, params: Any, spec: Spec, buffer: Any
) -> Any:
    axes = params["axis"]
    kept = tuple(1 if i in axes else side for i, side in enumerate(specs[0].shape))
    return _fold(maker, ufunc, args[0], axes, kept, spec, buffer)


def _fold(
    maker: Any, ufunc: np.ufunc, x: str, axes: Any, kept: Any, spec: Spec, buffer: Any
) -> str | None:
    """Spell a reduction; ``kept`` is the shape with the reduced axes as sides of 1."""
    if spec.order != tuple(range(len(spec.shape))):
        return None
    if kept == spec.shape:
        return f"{maker._known(ufunc)}.reduce({x}, {axes}, None, {buffer(spec)}, True)"
    given = f"{maker._known(ufunc)}, {x}, {buffer(spec)}, {axes}, {kept}"
    return f"{maker._known(_folded)}({given})"


_INTO: dict[Any, Any] = {
    relu.forward: _into_relu,
    relu_grad.forward: _into_relu_grad,
    linalg.matmul.forward: _into_matmul,
    np.matmul: _into_matmul,
    reduce._sum.forward: _into_sum,
    shape.sum_to.forward: _into_sum_to,
    total: partial(_into_fold, np.add),
    peak: partial(_into_fold, np.maximum),
}
