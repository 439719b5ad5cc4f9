"""Modules: objects that hold parameters; what they compute is tensor expressions."""

from . import init
from .layers import *
from .layers import __all__ as _layers
from .module import Module, Sequential, functional_call

__all__ = ["Module", "Sequential", "functional_call", "init"]
__all__ += _layers
