"""Optimisers, schedules of the learning rate, and clipping of gradients.

An optimiser changes its parameters in place, between a backward and the next forward.
"""

from typing import TYPE_CHECKING

from .clipping import clip_grad_norm
from .optimizers import SGD, Adam, AdamW, Lion, Optimizer, RMSprop
from .schedules import Cosine, OneCycle, Schedule, StepDecay, WarmUp

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Cosine",
    "Lion",
    "OneCycle",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepDecay",
    "WarmUp",
    "clip_grad_norm",
]

# For type checkers a name that is missing is missing.
if not TYPE_CHECKING:

    def __getattr__(name):
        from ..elsewhere import OPTIMIZERS, missing

        raise missing(__name__, name, OPTIMIZERS.get(name))
