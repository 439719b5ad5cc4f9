"""One call of a function on fresh variables, and its derivative as a linear map, both ways."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from . import tree
from .cotangents import owned_array
from .errors import ShapeError
from .graph import Handle, Leaf, Node, as_array, enable_grad, is_recording, tick, value_of, wrap
from .ops.elementwise import cast, identity
from .walk import pull, reachable


class Linearized:
    """One call of a function on fresh variables, and the graph that it recorded."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        argnums: int | Sequence[int],
        *,
        op: str,
        has_aux: bool = False,
    ) -> None:
        check_function(op, function)
        several = isinstance(argnums, Iterable)
        numbers = _positions(argnums, args, op)
        chosen = tuple(_numbers_to_array(args[n]) for n in numbers)
        leaves, self.rebuild = tree.flatten(chosen if several else chosen[0])
        self.start = tick()
        # Under no_grad the derivative is computed all the same, but nothing beyond it is recorded.
        self.outer = is_recording()
        with enable_grad():
            self.variables = [_variable(leaf, op) for leaf in leaves]
            new = self.rebuild(iter(self.variables))
            arguments = list(args)
            for n, value in zip(numbers, new if several else (new,), strict=True):
                arguments[n] = value
            result = function(*arguments, **kwargs)
        if has_aux and not (isinstance(result, (tuple, list)) and len(result) == 2):
            raise TypeError(
                f"{op}: with has_aux the function returned a {type(result).__name__}; want a pair, "
                "of which the first is differentiated"
            )
        self.output: Any = result[0] if has_aux else result
        self.aux: Any = result[1] if has_aux else None

    def _seeds(self, cotangents: Sequence[Any]) -> list[tuple[Node, Any]]:
        outputs, _ = tree.flatten(self.output)
        return [
            (y._node, g)
            for y, g in zip(outputs, cotangents, strict=True)
            if isinstance(y, Handle) and y._node is not None
        ]

    def pull(self, cotangents: Sequence[Any]) -> Any:
        """Cotangents of the arguments, in their structure."""
        seeds = self._seeds(cotangents)
        nodes = [x._node for x in self.variables]
        deeper = self.outer and self._reaches_outside(seeds)
        return self.rebuild(iter(pull_to(seeds, nodes, create_graph=deeper)))

    def push(self, outputs: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        """Tangents of the outputs: the pullback of the pullback, which is linear."""
        values = [_uneven(y._data, k) for k, y in enumerate(outputs, 1)]
        probes = [fresh_variable(value) for value in values]
        seeds = self._seeds(probes)
        deeper = self.outer and (
            self._reaches_outside([(node, None) for node, _ in seeds])
            or any(isinstance(t, Handle) and t._node is not None for t in tangents)
        )
        with enable_grad():
            pulled = pull_to(seeds, [x._node for x in self.variables], create_graph=True)
        pairs = [(g._node, t) for g, t in zip(pulled, tangents, strict=True) if g._node is not None]
        return pull_to(pairs, [probe._node for probe in probes], create_graph=deeper)

    def _reaches_outside(self, seeds: list[tuple[Node, Any]]) -> bool:
        """Tell whether anything else that wants a gradient had a part in the outputs.

        These are all leaves but the variables of this call and of derivatives inside it, which are
        younger than the call, unlike those of derivatives around it.
        """
        if any(isinstance(g, Handle) and g._node is not None for _, g in seeds):
            return True
        nodes = reachable([node for node, _ in seeds])[0]
        return any(
            isinstance(node, Leaf)
            and (node.index < self.start or "derivative" not in (node.extras or ()))
            for node in nodes
        )

    def released(self, y: Any) -> Any:
        """Give an output without the graph, unless an outer derivative needs it."""
        if not isinstance(y, Handle) or y._node is None:
            return y
        if self.outer and self._reaches_outside([(y._node, None)]):
            return y
        return wrap(y._data)


def _uneven(y: Any, number: int) -> Any:
    """Give what stands for the cotangent of an output: only the pullback's slope is asked.

    An infinite slope times zeros would be lost, and equal or evenly spaced numbers may cancel.
    """
    n = y.size
    return (n / (n * number + np.arange(n))).reshape(y.shape).astype(y.dtype)


def check_function(op: str, function: Any) -> None:
    if not callable(function):
        advice = "; of a computed tensor, use grad(y, xs)" if isinstance(function, Handle) else ""
        raise TypeError(f"{op}: got a {type(function).__name__}; want a function{advice}")


def check_argnums(op: str, argnums: Any) -> int | tuple[int, ...]:
    """Give one position, or several."""
    try:
        if isinstance(argnums, Iterable):
            return tuple(map(operator.index, argnums))
        return operator.index(argnums)
    except TypeError:
        at = f"; at a point it is {op}(f)(x)" if isinstance(argnums, (np.ndarray, Handle)) else ""
        raise TypeError(
            f"{op}: argnums is {reprlib.repr(argnums)}; want the position of an argument, or "
            f"several{at}"
        ) from None


def _positions(argnums: Any, args: tuple[Any, ...], op: str) -> tuple[int, ...]:
    """Give the positions of the arguments to differentiate by."""
    given = check_argnums(op, argnums)
    numbers = given if isinstance(given, tuple) else (given,)
    if (args and not numbers) or not all(-len(args) <= n < len(args) for n in numbers):
        raise ValueError(
            f"{op}: argnums is {argnums}, but got {len(args)} positional arguments; want one of "
            "their positions or several"
        )
    if len({n % len(args) for n in numbers}) < len(numbers):
        raise ValueError(
            f"{op}: argnums is {argnums}, which names an argument twice; want each once"
        )
    return numbers


def _numbers_to_array(tree_or_list: Any) -> Any:
    """Make arrays of the lists of numbers in a container: they stand for arrays, not containers."""
    if isinstance(tree_or_list, dict):
        return {key: _numbers_to_array(value) for key, value in tree_or_list.items()}
    if isinstance(tree_or_list, tuple) and not hasattr(tree_or_list, "_fields"):
        return tuple(map(_numbers_to_array, tree_or_list))
    if isinstance(tree_or_list, list):
        if _all_numbers(tree_or_list):
            return np.array(tree_or_list)
        return list(map(_numbers_to_array, tree_or_list))
    return tree_or_list


def _all_numbers(items: list[Any]) -> bool:
    return bool(items) and all(
        _all_numbers(item) if isinstance(item, list) else isinstance(item, (int, float, np.number))
        for item in items
    )


def _variable(x: Any, op: str) -> Any:
    """Make what a function is differentiated by: a fresh leaf, or a copy linked to its origin."""
    if isinstance(x, Handle) and x._node is not None:
        return identity(x)
    data = as_array(value_of(x)).copy(order="K")
    if data.dtype.kind == "i" and not isinstance(x, Handle):
        # Whole numbers: the caller means reals.
        data = data.astype(float)
    if data.dtype.kind not in "fiubc":
        raise TypeError(
            f"{op}: cannot differentiate by a {type(x).__name__}; want numbers, arrays of floats, "
            "or containers of them: pass anything else as another argument"
        )
    if data.dtype.kind != "f":
        raise TypeError(
            f"{op}: cannot differentiate by an argument of dtype {data.dtype}; want floats, as in "
            "x.astype(float)"
        )
    return fresh_variable(data)


def fresh_variable(data: np.ndarray[Any, Any]) -> Any:
    """Make a variable that is known to a derivative alone, unlike the leaves of users."""
    variable = wrap(data)
    variable._node = Leaf(data)
    variable._node.extras = {"derivative": True}
    return variable


def check_outputs(outputs: Sequence[Any], op: str) -> None:
    for y in outputs:
        if not isinstance(y, Handle):
            raise TypeError(f"{op}: the function returned a {type(y).__name__}; want a Tensor")


def matching(given: Any, wanted: Any, op: str) -> list[Any]:
    """Flatten cotangents or tangents and check them against the tensors that they belong to."""
    try:
        leaves = tree.leaves_like(given, wanted)
    except ValueError as error:
        raise ValueError(f"{op}: the directions are not built as the tensors: {error}") from None
    matched = []
    for leaf, x in zip(leaves, tree.flatten(wanted)[0], strict=True):
        value: Any = leaf if isinstance(leaf, Handle) else np.asarray(leaf)
        if value.dtype.kind not in "fiub":
            raise TypeError(f"{op}: a direction is {reprlib.repr(leaf)}; want real numbers")
        if value.shape != x._data.shape:
            raise ShapeError(
                f"{op}: a direction has shape {value.shape} for a tensor {x._data.shape}"
            )
        matched.append(value if value.dtype == x._data.dtype else cast(value, dtype=x._data.dtype))
    return matched


def pull_to(seeds: list[tuple[Node, Any]], nodes: list[Node], *, create_graph: bool) -> list[Any]:
    """Cotangents at ``nodes`` as tensors, zeros where they are not reached."""
    if create_graph:
        seeds = [(node, g if isinstance(g, Handle) else wrap(g)) for node, g in seeds]
        with enable_grad():
            cotangents, _ = pull(seeds, nodes, create_graph=True)
    else:
        cotangents, _ = pull([(node, value_of(g)) for node, g in seeds], nodes)
    results = []
    for node in nodes:
        g = cotangents.get(node)
        if g is None:
            results.append(wrap(np.zeros(node.shape, node.dtype)))
        elif isinstance(g, Handle) and g._node is not None:
            results.append(wrap(g._data, g._node))
        else:
            results.append(wrap(owned_array(g, node)))
    return results
