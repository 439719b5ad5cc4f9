"""Derivatives: the functions that are made of one walk back through the graph."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import tree
from .checkpointing import checkpoint
from .cotangents import is_ours, owned_array
from .errors import GraphError, ShapeError
from .graph import Handle, Leaf, Node, as_array, enable_grad, no_grad, value_of, wrap
from .linearize import (
    Linearized,
    check_argnums,
    check_function,
    check_outputs,
    matching,
    pull_to,
)
from .ops.elementwise import cast
from .walk import free, pull

# --- backward ---------------------------------------------------------------------------------

_accumulating = threading.Lock()


def backward(y: Any, cotangent: Any = None, *, retain_graph: bool = False) -> None:
    """Add the gradient of ``y`` to the ``.grad`` of every leaf that it depends on.

    Parameters
    ----------
    y : Tensor
    cotangent : array or Tensor, optional
        Of ``y``'s shape: the gradient is that of ``sum(cotangent * y)``. A scalar ``y`` needs none.
    retain_graph : bool
        Keep the values that the graph kept, so that it can be walked again.

    Raises
    ------
    GraphError
        If ``y`` needs no gradient, is no scalar and comes without a cotangent, if its graph was
        freed, or a value that it kept was overwritten.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([1.0, 2.0], requires_grad=True)
    >>> tg.backward((w * w).sum())
    >>> w.grad
    array([2., 4.])
    """
    seed = _seed(y, cotangent, "backward")
    root = y._node
    cotangents, visited = pull([(root, value_of(seed))])
    # Threads may share leaves: none may lose what another one adds at the same time.
    with _accumulating:
        for node in visited:
            if type(node) is Leaf:
                g = cotangents.pop(node, None)
                if g is None:
                    g = np.zeros(node.shape, node.dtype)
                elif g is seed or not is_ours(g):
                    g = owned_array(g, node)
                # Of 0-d arrays NumPy's sum is no array.
                node.grad = g if node.grad is None else as_array(node.grad + g)
    if not retain_graph:
        free(visited)


def _seed(y: Any, cotangent: Any, op: str) -> Any:
    """Check what a backward starts from, and give its cotangent as an array or tensor."""
    if not isinstance(y, Handle):
        raise TypeError(f"{op}: got a {type(y).__name__}; want a Tensor")
    if y._node is None:
        raise GraphError(
            f"{op}: the tensor {y._data.shape} depends on nothing that requires a gradient; make "
            "a leaf with requires_grad=True, and compute outside no_grad"
        )
    data = y._data
    if cotangent is None:
        if data.size != 1:
            raise GraphError(
                f"{op}: the output has shape {data.shape} and is no scalar; call .sum() or .mean() "
                "first, or pass a cotangent of its shape"
            )
        return np.array(1, data.dtype, ndmin=data.ndim)
    seed: Any = cotangent if isinstance(cotangent, Handle) else as_array(cotangent)
    if seed.shape != data.shape:
        raise ShapeError(
            f"{op}: the cotangent has shape {seed.shape}, the output {data.shape}; want the same"
        )
    if seed.dtype != data.dtype:
        if seed.dtype.kind not in "fiub":
            raise TypeError(f"{op}: the cotangent is of dtype {seed.dtype}; want real numbers")
        seed = cast(seed, dtype=data.dtype)
    return seed


# --- grad and its relatives -------------------------------------------------------------------


def grad(
    y: Any,
    xs: Any = None,
    cotangent: Any = None,
    *,
    create_graph: bool = False,
    argnums: Any = None,
    has_aux: bool = False,
) -> Any:
    """Gradient of a computed tensor, or of a function.

    ``grad(y, xs, cotangent=None, *, create_graph=False)`` gives the gradient of the tensor ``y``
    with respect to ``xs``, one tensor or a container of tensors, in the same container; zeros where
    ``y`` does not depend on one. It leaves the graph and every ``.grad`` as they are.

    ``grad(f, argnums=0)`` gives the function that computes the gradient of a scalar function with
    respect to the positional arguments ``argnums`` (an int or several): arrays, numbers, tensors or
    containers of them. It can be nested to any order.

    Parameters
    ----------
    y : Tensor or callable
    xs : Tensor or container of tensors, or argnums
    cotangent : array, optional
        Of the shape of the tensor ``y``; not needed for a scalar.
    create_graph : bool
        Record the computation of the gradient of a tensor, so that it can be differentiated.
    argnums, has_aux
        Of a function, as in :func:`value_and_grad`; what comes beside its value is dropped.

    Returns
    -------
    Tensor, container of tensors, or callable

    Raises
    ------
    GraphError
        If ``y`` is no scalar and has no cotangent, or depends on nothing that requires a gradient.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor(3.0, requires_grad=True)
    >>> first = tg.grad(x**3, x, create_graph=True)
    >>> first, tg.grad(first, x)
    (Tensor(27., requires_grad=True), Tensor(18.))
    >>> tg.grad(tg.grad(tg.sin))(0.0)
    Tensor(-0.)
    """
    if not isinstance(y, Handle) and callable(y):
        if cotangent is not None or create_graph:
            raise TypeError(
                "grad: cotangent and create_graph are for tensors; of a function, use vjp with a "
                "cotangent, and grad(grad(f)) for the second derivative"
            )
        numbers = check_argnums("grad", argnums if argnums is not None else 0 if xs is None else xs)
        with_value = value_and_grad(y, numbers, has_aux=has_aux)
        return _named(y, "grad", lambda *args, **kwargs: with_value(*args, **kwargs)[1])
    if argnums is not None or has_aux:
        raise TypeError(
            f"grad: argnums and has_aux are for functions; got a {type(y).__name__}: name the "
            "tensors to differentiate by, as in grad(y, [w, b])"
        )
    if xs is None:
        raise TypeError("grad: want the tensors to differentiate by, as in grad(y, [w, b])")
    leaves, rebuild = tree.flatten(xs)
    nodes = [_tracked_node(x, "grad") for x in leaves]
    seed = _seed(y, cotangent, "grad")
    return rebuild(iter(pull_to([(y._node, seed)], nodes, create_graph=create_graph)))


def _tracked_node(x: Any, op: str) -> Node:
    if not isinstance(x, Handle) or x._node is None:
        given = f"a constant Tensor {x._data.shape}" if isinstance(x, Handle) else repr(x)
        raise GraphError(f"{op}: cannot differentiate by {given}; make it with requires_grad=True")
    return x._node


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """Give the function that computes both a scalar function and its gradient.

    Parameters
    ----------
    function : callable
    argnums : int or sequence of int
        Which positional arguments to differentiate by.
    has_aux : bool
        ``function`` returns a pair, of which only the first is differentiated.

    Returns
    -------
    callable
        Returns ``(value, gradient)``; the gradient has the structure of the argument, or is a tuple
        with one for each of ``argnums``. With ``has_aux`` the value is the pair.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.value_and_grad(lambda p: (p["w"] * p["b"]).sum())({"w": [1.0, 2.0], "b": 3.0})
    (Tensor(9.), {'w': Tensor([3., 3.]), 'b': Tensor(3.)})
    """
    check_function("value_and_grad", function)
    argnums = check_argnums("value_and_grad", argnums)

    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        call = Linearized(function, args, kwargs, argnums, has_aux=has_aux, op="grad")
        y = call.output
        if not isinstance(y, Handle):
            raise TypeError(
                f"grad: the function returned a {type(y).__name__}; want a scalar Tensor"
            )
        if y._data.size != 1:
            raise GraphError(
                f"grad: the function returned shape {y._data.shape}, no scalar; take .sum(), or "
                "use jacobian or vjp"
            )
        gradient = call.pull([np.ones(y._data.shape, y._data.dtype)])
        value = call.released(y)
        if has_aux:
            leaves, rebuild = tree.flatten(call.aux)
            released = [call.released(leaf) for leaf in leaves]
            same = all(map(operator.is_, leaves, released))
            value = value, call.aux if same else rebuild(iter(released))
        return value, gradient

    return _named(function, "value_and_grad", value_and_gradient)


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Compute a function and the pullback of its cotangents (reverse mode).

    Returns
    -------
    output : Tensor or container
    pullback : callable
        Takes a cotangent of the structure of ``output``; returns a tuple with the cotangent of
        each of ``primals``. It can be called again and again.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> y, pullback = tg.vjp(tg.multiply, [1.0, 2.0], [3.0, 4.0])
    >>> pullback([1.0, 10.0])
    (Tensor([ 3., 40.]), Tensor([ 1., 20.]))
    """
    call = Linearized(function, primals, {}, tuple(range(len(primals))), op="vjp")
    outputs, rebuild = tree.flatten(call.output)
    check_outputs(outputs, "vjp")

    def pullback(cotangent: Any) -> Any:
        return call.pull(matching(cotangent, call.output, "vjp"))

    return rebuild(iter([call.released(y) for y in outputs])), pullback


def jvp(function: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Push tangents forward through a function.

    The pullback is linear in its cotangent, and the pullback of that linear map is the pushforward,
    so no second table of rules is needed.

    Parameters
    ----------
    function : callable
    primals : tuple
        The arguments of ``function``; one argument need not be in a tuple.
    tangents : tuple
        Of the same structure.

    Returns
    -------
    output, tangent_of_output : Tensor or container

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.jvp(tg.sin, (0.0,), (2.0,))
    (Tensor(0.), Tensor(2.))
    """
    if not isinstance(primals, tuple):
        primals, tangents = (primals,), (tangents,)
    return _pushed(function, primals, tangents, "jvp")


def _pushed(function: Callable[..., Any], primals: Any, tangents: Any, op: str) -> tuple[Any, Any]:
    call = Linearized(function, primals, {}, tuple(range(len(primals))), op=op)
    outputs, rebuild = tree.flatten(call.output)
    check_outputs(outputs, op)
    wanted = call.rebuild(iter(call.variables))
    pushed = call.push(outputs, matching(tangents, wanted, op))
    return (
        rebuild(iter([call.released(y) for y in outputs])),
        tree.flatten(call.output)[1](iter(pushed)),
    )


def hvp(function: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """Multiply the Hessian of a scalar function by a vector, without forming it.

    Parameters
    ----------
    function : callable
    primals, tangents
        The argument of ``function``, or a tuple of them, and as many directions.

    Returns
    -------
    Tensor or container, of the structure of the argument; a tuple for several.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.hvp(lambda x: (x**3).sum(), [1.0, 2.0], [1.0, 1.0])
    Tensor([ 6., 12.])
    """
    check_function("hvp", function)
    if isinstance(primals, tuple):
        return _pushed(grad(function, tuple(range(len(primals)))), primals, tangents, "hvp")[1]
    return _pushed(grad(function), (primals,), (tangents,), "hvp")[1]


def jacobian(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Give the function that computes all derivatives of all outputs.

    Parameters
    ----------
    function : callable
        Returns one tensor.
    argnums : int or sequence of int

    Returns
    -------
    callable
        Returns tensors of shape ``output.shape + argument.shape``, in the structure of the
        argument; a tuple for several of ``argnums``.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.jacobian(lambda x: x * x)([1.0, 2.0])
    Tensor([[2., 0.],
            [0., 4.]])
    """
    check_function("jacobian", function)
    argnums = check_argnums("jacobian", argnums)

    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        from .ops.shape import reshape, stack

        call = Linearized(function, args, kwargs, argnums, op="jacobian")
        y = call.output
        check_outputs([y], "jacobian")
        rows = []
        for i in range(y._data.size):
            one = np.zeros(y._data.shape, y._data.dtype)
            one.flat[i] = 1
            rows.append(tree.flatten(call.pull([one]))[0])
        columns = []
        for k, x in enumerate(call.variables):
            shape = (*y._data.shape, *x._data.shape)
            if rows:
                columns.append(reshape(stack([row[k] for row in rows]), shape))
            else:
                columns.append(wrap(np.zeros(shape, x._data.dtype)))
        return call.rebuild(iter(columns))

    return _named(function, "jacobian", jacobian_of)


def hessian(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Give the function that computes all second derivatives of a scalar function.

    Returns
    -------
    callable
        For one array argument, a tensor of shape ``x.shape + x.shape``; for a container or several
        ``argnums``, nested containers: of the first derivative, then of the second.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.hessian(lambda x: x[0] ** 2 * x[1])([1.0, 3.0])
    Tensor([[6., 2.],
            [2., 0.]])
    """
    check_function("hessian", function)
    argnums = check_argnums("hessian", argnums)

    def hessian_of(*args: Any, **kwargs: Any) -> Any:
        first = grad(function, argnums)
        probe = first(*args, **kwargs)
        parts, rebuild = tree.flatten(probe)
        return rebuild(
            iter(
                [
                    jacobian(lambda *a, k=k, **kw: tree.flatten(first(*a, **kw))[0][k], argnums)(
                        *args, **kwargs
                    )
                    for k in range(len(parts))
                ]
            )
        )

    return _named(function, "hessian", hessian_of)


def _named(
    function: Callable[..., Any], kind: str, derivative: Callable[..., Any]
) -> Callable[..., Any]:
    name = getattr(function, "__name__", "function")
    derivative.__name__ = derivative.__qualname__ = f"{kind}({name})"
    derivative.__doc__ = f"{kind} of {name}."
    return derivative


def stop_gradient(x: Any) -> Any:
    """Give a tensor's value as a constant; the same as ``x.detach()``."""
    return wrap(x._data.copy()) if isinstance(x, Handle) else x


__all__ = [
    "backward",
    "checkpoint",
    "enable_grad",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "no_grad",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]
