"""Property-based testing of gradients: an oracle that knows its own error, and what to feed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .check import blame, check_gradients
from .oracle import Estimate, numeric_gradient
from .pairs import check_pair
from .report import Check, Culprit, Entry, GradientError, GradientReport

if TYPE_CHECKING:
    from .machine import GraphMachine
    from .suite import gradients_match, load_profile, op_suite

__all__ = [
    "Check",
    "Culprit",
    "Entry",
    "Estimate",
    "GradientError",
    "GradientReport",
    "GraphMachine",
    "blame",
    "check_gradients",
    "check_pair",
    "gradients_match",
    "load_profile",
    "numeric_gradient",
    "op_suite",
]


def __getattr__(name: str) -> Any:
    # What needs Hypothesis is loaded when asked for, so that a check alone does not.
    import importlib

    if name in ("gradients_match", "load_profile", "op_suite"):
        return getattr(importlib.import_module(".suite", __name__), name)
    if name == "GraphMachine":
        return importlib.import_module(".machine", __name__).GraphMachine
    if name in ("strategies", "machine"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
