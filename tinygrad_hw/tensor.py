"""Tensor: what the user holds."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import autodiff, numpy_protocols, ops
from .errors import GraphError, ShapeError
from .graph import (
    SEQUENCES,
    Handle,
    Leaf,
    Recorded,
    as_array,
    check_untracked,
    clock,
    constant_of,
    is_recording,
    recorder,
    stamp,
    tick,
    value_of,
    with_bases,
    wrap,
)
from .watched import watched


class Tensor(Handle):
    """An array that remembers how it was computed.

    Parameters
    ----------
    data : array_like
        Copied, in the machine's byte order. Numbers and lists become float64 or integer arrays, as
        in NumPy.
    requires_grad : bool
        Whether to record what is computed from it and to accumulate its gradient; floats only.
    dtype : optional
    name : str, optional
        For pictures and errors.

    Raises
    ------
    TypeError
        If ``requires_grad`` is asked of integers, booleans or complex numbers.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = (x * x).sum()
    >>> y.backward()
    >>> y, x.grad
    (Tensor(14., requires_grad=True), array([2., 4., 6.]))
    """

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        requires_grad: bool = False,
        *,
        dtype: Any = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(requires_grad, (bool, np.bool_, int, type(None))):
            raise TypeError(
                f"Tensor: requires_grad is {requires_grad!r}; want True or False (a dtype goes by "
                "its name: dtype=...)"
            )
        if type(data) in SEQUENCES:
            check_untracked("Tensor", data)
        values = value_of(data)
        if isinstance(values, Recorded):
            self._data = values.copy() if dtype is None else values.astype(dtype)
        else:
            self._data = _numbers(values, dtype)
        self._node = self._constant = None
        if (recording := recorder()) is not None:
            recording.made(self)
        if requires_grad:
            self.requires_grad = True
        if name is not None:
            self.name = name

    # --- What it is ---------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """The array; writing to it in place is noticed by a backward that needed the old values."""
        # The array belongs to the node; the tensor may move on to another.
        node = self._node
        return watched(self._data, self._stamp if node is None else lambda: stamp(with_bases(node)))

    @data.setter
    def data(self, value: Any) -> None:
        array = as_array(value_of(value))
        if array.shape != self._data.shape:
            raise ShapeError(
                f"data: got shape {array.shape} for a tensor {self._data.shape}; want the same"
            )
        if array is self._data:
            return
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"data: got {reprlib.repr(value)} for a tensor of {self.dtype}, which cannot hold "
                "it; make a new tensor"
            )
        if isinstance(array, Recorded) or _place(array) != _place(self._data):
            self._data = array.astype(self._data.dtype)

    def _stamp(self) -> None:
        """Note that the array was written to."""
        if self._node is not None:
            stamp(with_bases(self._node))
        elif self._constant is not None:
            stamp(with_bases(self._constant))

    @property
    def grad(self) -> np.ndarray[Any, Any] | None:
        """What ``backward`` accumulated, of this shape and dtype; None before the first."""
        node = self._node
        if isinstance(node, Leaf):
            grad: np.ndarray[Any, Any] | None = node.grad
            return grad
        return None if node is None or node.extras is None else node.extras.get("retained")

    @grad.setter
    def grad(self, value: Any) -> None:
        if not self.is_leaf or not self.requires_grad:
            raise GraphError("grad: can only be set on a leaf that requires a gradient")
        assert isinstance(self._node, Leaf)
        if value is None:
            self._node.grad = None
            return
        array = as_array(value_of(value))
        if array.shape != self.shape:
            raise ShapeError(f"grad: got shape {array.shape} for a tensor {self.shape}")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"grad: got {reprlib.repr(value)}; want real numbers")
        self._node.grad = array.astype(self.dtype)

    @property
    def requires_grad(self) -> bool:
        """Whether computations with it are recorded."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value == self.requires_grad:
            return
        if not self.is_leaf:
            raise GraphError("requires_grad: cannot be taken from a computed tensor; use .detach()")
        if value and self._data.dtype.kind != "f":
            raise TypeError(
                f"requires_grad: only floats have gradients, this is {self._data.dtype}; "
                "use .astype(float) first"
            )
        if value and self._constant is not None and "base" in (self._constant.extras or ()):
            # Optimisers write to a leaf, which must not reach the tensor that it was a view of.
            self._data = self._data.copy()
        self._node = Leaf(self._data, self.name) if value else None
        self._constant = None

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user and not by an operation."""
        return self._node is None or isinstance(self._node, Leaf)

    @property
    def name(self) -> str | None:
        """The name shown in pictures and errors."""
        node = self._node or self._constant
        return None if node is None else node.name

    @name.setter
    def name(self, value: str | None) -> None:
        if not isinstance(value, (str, type(None))):
            raise TypeError(f"name: got {reprlib.repr(value)}; want a string, as in str(...)")
        (self._node or constant_of(self)).extra()["name"] = value

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        shape: tuple[int, ...] = self._data.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""
        dtype: np.dtype[Any] = self._data.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._data.size

    @property
    def nbytes(self) -> int:
        """Bytes of the entries."""
        return self._data.nbytes

    def __len__(self) -> int:
        if self._data.ndim == 0:
            raise TypeError("len: a 0-d tensor has no length")
        return len(self._data)

    def __repr__(self) -> str:
        text = np.array2string(self._data, separator=", ", prefix="Tensor(")
        parts = [text]
        if self.size == 0 and self.ndim > 1:
            parts.append(f"shape={self.shape}")
        if self._data.dtype not in (np.float64, np.int64, np.bool_):
            parts.append(f"dtype={self._data.dtype}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        if self.requires_grad:
            parts.append("requires_grad=True")
        return f"Tensor({', '.join(parts)})"

    def __format__(self, spec: str) -> str:
        value = self.item() if self._data.size == 1 and spec else str(self)
        try:
            return format(value, spec)
        except ValueError as error:
            if not isinstance(value, str):
                raise
            raise ShapeError(
                f"format: {spec!r} is for one number, the tensor has shape {self.shape}; take one "
                "entry or .mean()"
            ) from error

    def graph(self, **options: Any) -> Any:
        """Picture what this tensor was computed from, see :func:`tinygrad_hw.draw`."""
        from .drawing import draw

        return draw(self, **options)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        from .drawing.notebook import of_tensor

        return of_tensor(self)

    # --- Out of the graph ---------------------------------------------------------------------

    def numpy(self) -> np.ndarray[Any, Any]:
        """Give the values as an array of the caller's own."""
        return self._data.copy()

    def item(self) -> Any:
        """Give the one entry as a Python number."""
        if self._data.size != 1:
            raise ShapeError(f"item: the tensor has shape {self.shape}; want exactly one entry")
        return self._data.item()

    def tolist(self) -> Any:
        """Give the values as nested lists of Python numbers."""
        return self._data.tolist()

    def detach(self) -> Tensor:
        """Give the same values as a constant."""
        return wrap(self._data.copy())  # type: ignore[no-any-return]

    def copy(self) -> Tensor:
        """Give a copy that is part of the graph."""
        return ops.identity(self)  # type: ignore[no-any-return]

    def astype(self, dtype: Any) -> Tensor:
        """Give the values in another dtype: among floats with gradients, else as constants."""
        dtype = np.dtype(dtype)
        if dtype.kind not in "fiubc":
            raise TypeError(f"astype: got dtype {dtype}; want one of numbers")
        if dtype.kind == "c" and self.requires_grad:
            raise TypeError(
                f"astype: got dtype {dtype}; want floats, since complex numbers have no gradients "
                "here: for constants, use x.detach().astype"
            )
        if dtype.kind != "f":
            return wrap(self._data.astype(dtype))  # type: ignore[no-any-return]
        return ops.cast(self, dtype=dtype)  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._data, dtype=dtype, copy=copy is not False)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self._data.__index__()

    def __bool__(self) -> bool:
        if self._data.size != 1:
            raise ValueError(
                f"bool: the truth of a tensor of shape {self.shape} is ambiguous; "
                "use .any() or .all()"
            )
        return bool(self._data.item())

    def __iter__(self) -> Iterator[Tensor]:
        if self._data.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(len(self)))

    __hash__ = object.__hash__

    # --- Gradients ----------------------------------------------------------------------------

    def backward(self, cotangent: Any = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to ``.grad`` of its leaves; see :func:`backward`."""
        autodiff.backward(self, cotangent, retain_graph=retain_graph)

    def zero_grad(self) -> None:
        """Forget the accumulated gradient, or the retained one."""
        node = self._node
        if isinstance(node, Leaf):
            node.grad = None
        elif node is not None and "retained" in (node.extras or ()):
            node.extra()["retained"] = None

    def retain_grad(self) -> None:
        """Have ``backward`` leave the gradient of this computed tensor in ``.grad`` too."""
        if self._node is None:
            raise GraphError("retain_grad: the tensor does not require a gradient")
        if not self.is_leaf:
            self._node.extra().setdefault("retained", None)

    def register_hook(self, hook: Any) -> Any:
        """Call ``hook(gradient)`` when backward has this tensor's gradient.

        Parameters
        ----------
        hook : callable
            Takes the gradient as a Tensor of its own; returns another of the same shape, or None.

        Returns
        -------
        callable
            Call it to remove the hook.

        Examples
        --------
        >>> import tinygrad_hw as tg
        >>> x = tg.Tensor(2.0, requires_grad=True)
        >>> y = x * x
        >>> remove = y.register_hook(lambda g: 10 * g)
        >>> y.backward()
        >>> x.grad
        array(40.)
        """
        if self._node is None:
            raise GraphError("register_hook: the tensor does not require a gradient")
        if not callable(hook):
            raise TypeError(f"register_hook: got {hook!r}; want a function of the gradient")
        hooks = self._node.extra().setdefault("hooks", {})
        clock.latest_hook = key = tick()
        hooks[key] = hook

        def remove() -> None:
            clock.latest_hook = tick()
            hooks.pop(key, None)

        return remove

    def __reduce__(self) -> Any:
        """Copy or pickle a leaf or a constant with its name and gradient, without its hooks."""
        if not self.is_leaf:
            raise GraphError(
                "copy: a computed tensor cannot be copied or pickled with its graph; use "
                ".detach(), or copy the leaves and compute again"
            )
        return _restored, (self._data, self.requires_grad, self.name, self.grad)

    # --- Assignment: the handle moves on to a new node -----------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        self._become(ops.setitem(self, value, index=_constants(index)), "x[i] = v")

    def _become(self, new: Any, how: str) -> Tensor:
        if new._data.shape != self.shape:
            raise ShapeError(
                f"{how}: the result has shape {new._data.shape}, the tensor {self.shape}; an "
                "assignment cannot change the shape"
            )
        if new._data.dtype != self.dtype:
            if not np.can_cast(new._data.dtype, self.dtype, "same_kind"):
                raise TypeError(
                    f"{how}: the result is of dtype {new._data.dtype}, the tensor of {self.dtype}, "
                    "which cannot hold it; use x = x.astype(...) first"
                )
            new = new.astype(self.dtype)
        if isinstance(self._node, Leaf):
            if is_recording():
                raise GraphError(
                    f"{how}: on a leaf that requires a gradient, the gradient would have nowhere "
                    "to go; assign to x.copy(), or inside no_grad() to change its values"
                )
            self._data = new._data
        else:
            self._data, self._node, self._constant = new._data, new._node, None
        return self

    # --- NumPy --------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return numpy_protocols.call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return numpy_protocols.call_function(function, args, kwargs)

    if TYPE_CHECKING:
        # Attached below: the operators, and the functions of `ops.METHODS` as methods.
        T: Tensor
        mT: Tensor

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...


def _restored(data: Any, requires_grad: bool, name: str | None, grad: Any) -> Tensor:
    tensor = Tensor(data, requires_grad, name=name)
    if grad is not None:
        tensor.grad = grad
    return tensor


def _constants(index: Any) -> Any:
    """Give an index with tensors turned to arrays: positions have no gradient."""
    if isinstance(index, tuple):
        return tuple(_constants(part) for part in index)
    return value_of(index)


def _numbers(values: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """Copy numbers, or lists of them, to an array."""
    try:
        array = np.array(values, dtype=dtype)
    except ValueError:
        raise ShapeError(
            f"Tensor: {reprlib.repr(values)} is no array; want lists of equal length, of numbers"
        ) from None
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"Tensor: got {reprlib.repr(values)} of dtype {array.dtype}; want numbers")
    # What is computed is of the machine's byte order, and so are gradients.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _place(array: Any) -> Any:
    return array.__array_interface__


def _method(name: str) -> Any:
    """Make a method of the op of that name."""
    op = getattr(ops, name)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"Tensor.{name}"
    method.__doc__ = f"The function :func:`tinygrad_hw.{name}` of this tensor."
    return method


for _name in ops.METHODS:
    setattr(Tensor, _name, _method(_name))


_SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "matmul": "@",
    "and": "&",
    "or": "|",
    "xor": "^",
}


def _in_place(op: Any, sign: str) -> Any:
    def become(self: Tensor, other: Any) -> Tensor:
        return self._become(op(self, other), f"x {sign}= v")

    return become


def _binary(op: Any) -> tuple[Any, Any]:
    call = op.__call__

    def forward(self: Any, other: Any) -> Any:
        return call(self, other)

    def reflected(self: Any, other: Any) -> Any:
        return call(other, self)

    return forward, reflected


for _name, _op in ops.OPERATORS.items():
    _forward, _reflected = _binary(_op)
    setattr(Tensor, f"__{_name}__", _forward)
    if _name in _SIGNS:
        setattr(Tensor, f"__r{_name}__", _reflected)
        setattr(Tensor, f"__i{_name}__", _in_place(_op, _SIGNS[_name]))


def _getitem(self: Tensor, index: Any) -> Any:
    return ops.getitem(self, index=_constants(index))


_OTHERS: dict[str, Any] = {
    "__getitem__": _getitem,
    "__neg__": _method("negative"),
    "__pos__": lambda self: self,
    "__abs__": _method("abs"),
    "__invert__": _method("invert"),
    "flatten": _method("ravel"),
    "T": property(lambda self: ops.transpose(self)),
    "mT": property(lambda self: ops.swapaxes(self, -1, -2)),
}
for _name, _attribute in _OTHERS.items():
    setattr(Tensor, _name, _attribute)
