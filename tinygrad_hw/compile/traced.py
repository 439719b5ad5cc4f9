"""What stands for an array while a call is recorded, and notes what is done with it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph import Handle, Recorded
from .program import Operation, map_refs, refs_in

if TYPE_CHECKING:
    from .recording import Recorder

# What these say of an array is the same whenever the program fits.
_ABOUT_ARRAYS = frozenset("shape ndim size result_type can_cast iscomplexobj isrealobj".split())
# These write to their first argument.
_IN_PLACE = frozenset("copyto fill_diagonal place put put_along_axis putmask".split())
# The shape of what these give depends on the values of their arguments,
_SIZED = frozenset(
    "nonzero flatnonzero argwhere unique unique_values union1d intersect1d setdiff1d setxor1d "
    "bincount trim_zeros roots polymul".split()
)
# or on those of one argument.
_SIZED_BY = {
    name: parameter
    for parameter, names in {
        "bins": "histogram_bin_edges",
        "condition": "compress extract",
        "k": "diag diagflat rot90",
        "m": "polyder polyint",
        "n": "diff fft ifft rfft irfft hfft ihfft",
        "N": "vander",
        "new_shape": "resize",
        "num": "linspace logspace geomspace",
        "obj": "delete",
        "pad_width": "pad",
        "repeats": "repeat",
        "reps": "tile",
    }.items()
    for name in names.split()
}


class Traced(Recorded):
    """An array that is not known before the program runs; its value is that of this call.

    Writing to it in place gives it another value, as it does an array. It shares ``root`` with
    those that are views of the same array, so that one is not read after another was written to.
    """

    __slots__ = (
        "_note",
        "index",
        "part",
        "recorder",
        "root",
        "scalar",
        "seen",
        "value",
        "written",
    )

    def __init__(self, recorder: Recorder, index: int, value: Any, root: Traced | None) -> None:
        self.recorder, self.index, self.value = recorder, index, value
        self.root = self if root is None else root
        self.written = 0
        self.seen = self.root.written
        # Whether NumPy gave a scalar; what is computed here is kept as an array of one number.
        self.scalar = isinstance(value, np.generic)
        # Of what it is which part, if an index made it.
        self.part: Any = None

    # --- What it is ---------------------------------------------------------------------------

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # A user's function asks isinstance(x, np.ndarray) of what it was given as an array.
        if self.recorder.from_engine():
            return type(self)
        return self.dtype.type if self.scalar else np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.value.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self.value.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        return self.value.size  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        return self.value.nbytes  # type: ignore[no-any-return]

    @property
    def T(self) -> Any:
        return np.transpose(self)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __hash__(self) -> int:
        # A scalar of NumPy has one by its value, by which a dict or a set would find it.
        if self.recorder.recording and not self.recorder.from_engine():
            self.recorder.refuse("a value as a key, or in a set,", self)
        return object.__hash__(self)

    # --- What it computes ---------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Handle) for x in inputs):
            return NotImplemented
        out = kwargs.pop("out", None)
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if method == "at":
            return self._write(function, name, inputs, kwargs)
        if method == "__call__" and out is not None and "where" in kwargs:
            # Where it does not hold, what is there stays.
            self._write(_into(ufunc), name, (*out, *inputs), kwargs)
            return out[0]
        result = self.recorder.emit(Operation(name, function), inputs, kwargs)
        return result if out is None else self.recorder.written_to(out[0], result, name)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = function.__name__
        if name in ("array2string", "array_repr", "array_str"):
            self.recorder.refuse("print", self)
        if name in _ABOUT_ARRAYS:
            return function(*real(args), **real(kwargs))
        if name == "broadcast_to" and args[0] is self and tuple(args[1]) == self.shape:
            return Traced(self.recorder, self.recorder.ref(self).index, self.value, self.root)
        for sizing in refs_in(_sizing(function, args, kwargs), Traced):
            self.recorder.refuse(f"{name}, whose shape depends on values,", sizing)
        if name == "real_if_close" and self.dtype.kind == "c":
            advice = "use np.real"
            self.recorder.refuse(f"{name}, whose dtype depends on values,", self, advice)
        if name in _IN_PLACE and args:
            return self._write(function, name, args, kwargs)
        if name == "nan_to_num" and not _given(function, "copy", args, kwargs, True):
            self._write(function, name, args, kwargs)
            return args[0]
        at = _place_of(function, "out")
        if at is not None and len(args) > at:
            kwargs = {**kwargs, "out": args[at]}
            args = (*args[:at], None, *args[at + 1 :])
        if "out" in kwargs and kwargs["out"] is not None:
            out = kwargs.pop("out")
            result = self.recorder.emit(Operation(name, function), args, kwargs)
            return self.recorder.written_to(out, result, name)
        return self.recorder.emit(Operation(name, function), args, kwargs)

    def _write(self, function: Any, name: str, args: Any, kwargs: Any) -> None:
        """Call a function that writes to its first argument."""
        result = self.recorder.emit(Operation(name, _on_copy(function)), args, kwargs)
        self.recorder.written_to(args[0], result, name)

    def __getitem__(self, index: Any) -> Any:
        part = self.recorder.emit(Operation("getitem", operator.getitem), (self, index), {})
        if isinstance(part, Traced):
            part.part = self, index
        return part

    def __setitem__(self, index: Any, value: Any) -> None:
        result = self.recorder.emit(Operation("setitem", set_item), (self, index, value), {})
        self.recorder.written_to(self, result, "setitem")

    def astype(self, dtype: Any, **options: Any) -> Any:
        if np.dtype(dtype) == self.dtype:
            return self.copy()
        return self.recorder.emit(Operation("astype", as_type), (self,), {"dtype": dtype})

    def copy(self, order: str = "C") -> Any:
        if not self.recorder.recording:
            return np.array(self.value)
        # A value never changes, so its copy is the same value, in an array of its own.
        return Traced(self.recorder, self.recorder.ref(self).index, self.value, None)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def flatten(self, order: Any = "C") -> Any:
        return np.ravel(self, order).copy()

    def reshape(self, *shape: Any, **options: Any) -> Any:
        shape = shape[0] if len(shape) == 1 else shape
        return np.reshape(self, shape, **options)

    def clip(self, min: Any = None, max: Any = None, **options: Any) -> Any:
        return np.clip(self, min, max, **options)

    def transpose(self, *axes: Any) -> Any:
        axes = axes[0] if len(axes) == 1 else axes
        return np.transpose(self, axes or None)

    def view(self, kind: Any = None) -> Any:
        # A view of another class is what `Tensor.data` gives: it notices writes, and so do we.
        if isinstance(kind, type) and issubclass(kind, np.ndarray):
            return self
        self.recorder.refuse("view(dtype)", self)

    def fill(self, value: Any) -> None:
        self[...] = value

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __round__(self, digits: int | None = None) -> Any:
        return int(self) if digits is None else np.round(self, digits)

    # --- What it refuses ----------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.recorder.assumed("np.asarray()", self), dtype=dtype)

    def __bool__(self) -> bool:
        return bool(self.recorder.assumed("bool()", self))

    def __float__(self) -> float:
        return float(self.recorder.assumed("float()", self))

    def __int__(self) -> int:
        return int(self.recorder.assumed("int()", self))

    def __index__(self) -> int:
        return operator.index(self.recorder.assumed("a value as an index or a size", self))

    def item(self, *args: Any) -> Any:
        return self.recorder.assumed(".item()", self).item(*args)

    def tolist(self) -> Any:
        return self.recorder.assumed(".tolist()", self).tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.recorder.assumed("pickle", self).__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return repr(self._shown())

    def __format__(self, spec: str) -> str:
        return format(self._shown(), spec)

    def _shown(self) -> Any:
        """Give the value to show: when the recording is over, or where the engine raises."""
        if self.recorder.recording and not self.recorder.from_engine():
            self.recorder.refuse("print", self)
        return self.value

    def __getattr__(self, name: str) -> Any:
        if not self.recorder.recording:
            return getattr(self.value, name)
        raise AttributeError(
            f"compile: .{name} of an array is not recorded; use a function of NumPy or of "
            "tinygrad_hw instead, or compute it outside"
        )


class Number(Traced):
    """A Python number that may differ at the next call, such as a learning rate."""

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self) if self.recorder.from_engine() else type(self.value)

    def item(self, *args: Any) -> Any:
        return self


class Counter(Traced):
    """A whole number in an optimiser's memory: its ``item()`` is a :class:`Number`."""

    __slots__ = ()

    def item(self, *args: Any) -> Any:
        return self.recorder.number(self)


def _binary(function: Any, ufunc: Any) -> tuple[Any, Any, Any]:
    def forward(self: Traced, other: Any) -> Any:
        if isinstance(other, Handle):
            return NotImplemented
        if isinstance(self, Number) and isinstance(other, (Number, int, float)):
            return self.recorder.emit_number(_NUMBERS[function], (self, other))
        return ufunc(self, other)

    def reflected(self: Traced, other: Any) -> Any:
        if isinstance(self, Number) and isinstance(other, (int, float)):
            return self.recorder.emit_number(_NUMBERS[function], (other, self))
        return ufunc(other, self)

    def in_place(self: Traced, other: Any) -> Any:
        # Numbers do not change: the name gets another one.
        if isinstance(self, Number) or self.scalar:
            return forward(self, other)
        return ufunc(self, other, out=self)

    return forward, reflected, in_place


_OPERATORS: dict[str, tuple[Any, Any]] = {
    "add": (operator.add, np.add),
    "sub": (operator.sub, np.subtract),
    "mul": (operator.mul, np.multiply),
    "truediv": (operator.truediv, np.divide),
    "floordiv": (operator.floordiv, np.floor_divide),
    "mod": (operator.mod, np.remainder),
    "pow": (operator.pow, np.power),
    "matmul": (operator.matmul, np.matmul),
    "and": (operator.and_, np.bitwise_and),
    "or": (operator.or_, np.bitwise_or),
    "xor": (operator.xor, np.bitwise_xor),
    "lshift": (operator.lshift, np.left_shift),
    "rshift": (operator.rshift, np.right_shift),
}
_NUMBERS = {function: Operation(name, function) for name, (function, _) in _OPERATORS.items()}
_COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_UNARIES = {"neg": np.negative, "pos": np.positive, "abs": np.abs, "invert": np.invert}
_METHODS = (
    "sum mean var std prod max min argmax argmin argsort any all cumsum cumprod ravel squeeze "
    "swapaxes repeat take round dot nonzero diagonal trace searchsorted conj"
).split()


def _method(function: Any) -> Any:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


for _name, (_function, _ufunc) in _OPERATORS.items():
    _forward, _reflected, _in_place = _binary(_function, _ufunc)
    setattr(Traced, f"__{_name}__", _forward)
    setattr(Traced, f"__r{_name}__", _reflected)
    setattr(Traced, f"__i{_name}__", _in_place)
for _name, _ufunc in {**_COMPARISONS, **_UNARIES}.items():
    setattr(Traced, f"__{_name}__", _method(_ufunc))
for _name in _METHODS:
    setattr(Traced, _name, _method(getattr(np, _name)))


def as_type(x: Any, *, dtype: Any) -> Any:
    return np.asarray(x).astype(dtype)


def set_item(x: Any, index: Any, value: Any) -> Any:
    """Give what is there after a value is written at an index."""
    out = np.array(x)
    out[index] = value
    return out


def _on_copy(function: Callable[..., None]) -> Callable[..., Any]:
    """Make a function that writes to its first argument give what would be there instead."""

    def written(x: Any, *args: Any, **kwargs: Any) -> Any:
        out = np.array(x)
        function(out, *args, **kwargs)
        return out

    return written


def _into(ufunc: np.ufunc) -> Callable[..., None]:
    """The function that writes what a ufunc gives to its first argument."""
    return lambda out, *inputs, **kwargs: ufunc(*inputs, out=out, **kwargs)


@cache
def _place_of(function: Any, name: str) -> int | None:
    """Which of a NumPy function's arguments by position has a name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        # Functions of C need not tell, and those of the first NumPy 2 do not.
        return 2 if name == "out" and function in (np.dot, np.concatenate) else None
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in by_position]
    return names.index(name) if name in names else None


def _given(function: Any, name: str, args: Any, kwargs: Any, default: Any = None) -> Any:
    """What a NumPy function is given for a parameter, by position or by name."""
    at = _place_of(function, name)
    return args[at] if at is not None and len(args) > at else kwargs.get(name, default)


def _sizing(function: Any, args: Any, kwargs: Any) -> Any:
    """Give the arguments on whose values the shape of the result depends."""
    name = function.__name__
    if name in _SIZED_BY:
        return _given(function, _SIZED_BY[name], args, kwargs)
    return (args, kwargs) if name in _SIZED else None


def real(tree_of_values: Any) -> Any:
    """Put the values of this call in the place of what stands for them."""
    return map_refs(lambda traced: traced.value, tree_of_values, Traced)


def with_scalars(tree_of_values: Any, *, every: bool = False) -> Any:
    """Do the same, with scalars where NumPy gave some, or for every array of one number.

    At an index that is a scalar NumPy reads a view, at an array of one number a copy.
    """

    def value_of(traced: Traced) -> Any:
        array = isinstance(traced.value, np.ndarray)
        return traced.value[()] if array and (every or traced.scalar) else traced.value

    return map_refs(value_of, tree_of_values, Traced)
