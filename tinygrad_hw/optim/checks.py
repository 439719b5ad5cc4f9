"""Checks of parameters, settings and states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..graph import Leaf
from ..tensor import Tensor


def leaves_of(op: str, parameters: Iterable[Tensor], *, frozen: bool = False) -> list[Tensor]:
    """List parameters; raise for what could not be trained, or leave out what is frozen."""
    if isinstance(parameters, Tensor):
        raise TypeError(f"{op}: got one Tensor; want a list: {op}([tensor], ...)")
    if hasattr(parameters, "parameters"):
        raise TypeError(
            f"{op}: got a {type(parameters).__name__}; want {op}(module.parameters(), ...)"
        )
    listed = list(parameters)
    if not listed:
        raise ValueError(f"{op}: got no parameters; pass module.parameters() or a list")
    if frozen:
        listed = [p for p in listed if not isinstance(p, Tensor) or p.requires_grad] or listed
    for p in listed:
        if not isinstance(p, Tensor) or not isinstance(p._node, Leaf):
            raise TypeError(f"{op}: got {p!r}; want leaf tensors with requires_grad=True")
    if len({id(p) for p in listed}) < len(listed):
        raise ValueError(f"{op}: a parameter comes twice; pass each once")
    return listed


def numbers(op: str, state: Mapping[str, Any], *keys: str) -> list[float]:
    """Read numbers of a state; one without them is no state, or of something else."""
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(
            f"{op}: the state has no {quoted(missing)}; want what {op}.state_dict() gave"
        )
    return [float(state[key]) for key in keys]


def quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def check(op: str, wanted: str, holds: Any, **setting: Any) -> None:
    """Raise unless it holds; the setting is given as ``name=value``."""
    if not holds:
        ((name, value),) = setting.items()
        raise ValueError(f"{op}: {name} is {value!r}; want {wanted}")


def is_positive(value: Any) -> bool:
    """Tell whether it is a finite number above 0."""
    try:
        return bool(0 < value < math.inf)
    except TypeError:
        return False


def are_shares(betas: Any) -> bool:
    """Tell whether they are two numbers in [0, 1)."""
    try:
        return len(betas) == 2 and all(0 <= b < 1 for b in betas)
    except TypeError:
        return False


def check_eps(op: str, eps: float, parameters: Iterable[Tensor]) -> None:
    """Raise for an ``eps`` that is 0 in the dtype of a parameter: 0 / 0 would be NaN."""
    check(op, "above 0", is_positive(eps), eps=eps)
    for p in parameters:
        wanted = f"above 0 in {p.dtype} too, such as 1e-4"
        check(op, wanted, p.dtype.type(eps) > 0, eps=eps)
