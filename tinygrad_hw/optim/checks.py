"""Checks of parameters, settings and states."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from ..graph import Leaf
from ..settings import check, check_positive
from ..tensor import Tensor
from ..tree import check_state


def leaves_of(op: str, parameters: Iterable[Tensor], *, frozen: bool = False) -> list[Tensor]:
    """List parameters; raise for what could not be trained, or leave out what is frozen."""
    if isinstance(parameters, Tensor):
        raise TypeError(f"{op}: got one Tensor; want a list: {op}([tensor], ...)")
    if hasattr(parameters, "parameters"):
        raise TypeError(
            f"{op}: got a {type(parameters).__name__}; want {op}(module.parameters(), ...)"
        )
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{op}: got {parameters!r}; want a list of tensors")
    listed = list(parameters)
    if not listed:
        raise ValueError(f"{op}: got no parameters; pass module.parameters() or a list")
    if frozen:
        listed = [p for p in listed if not isinstance(p, Tensor) or p.requires_grad] or listed
    for p in listed:
        if not isinstance(p, Tensor) or not isinstance(p._node, Leaf):
            groups = "; give each group an optimiser" if isinstance(p, Mapping) else ""
            raise TypeError(
                f"{op}: got {reprlib.repr(p)}; want leaf tensors with requires_grad=True{groups}"
            )
    if len({id(p) for p in listed}) < len(listed):
        raise ValueError(f"{op}: a parameter comes twice; pass each once")
    return listed


def numbers(op: str, state: Mapping[str, Any], *keys: str) -> list[float]:
    """Read numbers of a state; one without them is no state, or of something else."""
    check_state(op, state)
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(
            f"{op}: the state has no {quoted(missing)}; want what {op}.state_dict() gave"
        )
    return [float(state[key]) for key in keys]


def quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def check_betas(op: str, betas: Any) -> None:
    """Raise unless they are two numbers in [0, 1)."""
    wanted = "two numbers in [0, 1)"
    check(op, "betas", betas, wanted, lambda two: len(two) == 2 and all(0 <= b < 1 for b in two))


def check_eps(op: str, eps: float, parameters: Iterable[Tensor]) -> None:
    """Raise for an ``eps`` that is 0 in the dtype of a parameter: 0 / 0 would be NaN."""
    check_positive(op, "eps", eps)
    for p in parameters:
        if not p.dtype.type(eps) > 0:
            wanted = f"a number above 0 in {p.dtype} too, such as 1e-4"
            raise ValueError(f"{op}: eps is {eps!r}; want {wanted}")
