"""Property-based testing of gradients: an oracle that knows its own error, and what to feed it."""

from __future__ import annotations

from .check import blame, check_gradients, check_pair
from .oracle import Estimate, numeric_gradient
from .report import Check, Culprit, Entry, GradientError, GradientReport

__all__ = [
    "Check",
    "Culprit",
    "Entry",
    "Estimate",
    "GradientError",
    "GradientReport",
    "blame",
    "check_gradients",
    "check_pair",
    "numeric_gradient",
]
