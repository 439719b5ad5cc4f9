"""Checks of settings, such as rates and probabilities, where they are given."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from .errors import with_graph
from .graph import Handle


def check(op: str, name: str, value: Any, wanted: str, holds: Callable[[Any], Any]) -> None:
    """Raise unless ``holds(value)``, which also is not so where it cannot be asked, as of text."""
    try:
        right = bool(holds(value))
    except (TypeError, ValueError, AttributeError):
        right = False
    if not right:
        raise with_graph(ValueError)(f"{op}: {name} is {value!r}; want {wanted}")


def check_share(op: str, name: str, value: Any) -> None:
    """Raise unless it is in [0, 1)."""
    check(op, name, value, "a number in [0, 1)", lambda share: 0 <= share < 1)


def check_fraction(op: str, name: str, value: Any) -> None:
    """Raise unless it is in [0, 1]."""
    check(op, name, value, "a number in [0, 1]", lambda part: 0 <= part <= 1)


def check_positive(op: str, name: str, value: Any) -> None:
    """Raise unless it is a finite number above 0, and no tensor, which others could change."""
    wanted = "a number above 0"
    check(op, name, value, wanted, lambda x: not isinstance(x, Handle) and 0 < x < math.inf)


def check_least(op: str, name: str, value: Any, least: float) -> None:
    """Raise for a number below ``least``, NaN, or what is no number."""
    check(op, name, value, f"a number, at least {least}", lambda number: number >= least)


def check_whole(op: str, name: str, value: Any, least: int) -> None:
    """Raise unless it is a whole number, at least ``least``."""
    wanted = f"a whole number, at least {least}"
    check(op, name, value, wanted, lambda number: operator.index(number) >= least)
