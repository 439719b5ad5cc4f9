"""Modules: objects that hold parameters; what they compute is tensor expressions."""

from typing import TYPE_CHECKING

from . import init
from .layers import *
from .layers import __all__ as _layers
from .module import Module, Sequential, functional_call

__all__ = ["Module", "Sequential", "functional_call", "init"]
__all__ += _layers

# For type checkers a name that is missing is missing.
if not TYPE_CHECKING:

    def __getattr__(name):
        from ..elsewhere import LAYERS, missing

        raise missing(__name__, name, LAYERS.get(name))
