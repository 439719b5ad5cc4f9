"""Tensors that remember how they were computed, with the handout's ``hw5.py`` as their kernels.

>>> import tinygrad_hw as tg
>>> w = tg.Tensor([1.0, 2.0], requires_grad=True)
>>> loss = (w * w).sum()
>>> loss.backward()
>>> w.grad
array([2., 4.])
"""

from typing import TYPE_CHECKING, Any

from . import autodiff, nn, ops, optim
from .autodiff import *
from .debugging import debug
from .dispatch import Primitive, primitive
from .errors import GraphError, MissingRuleError, ShapeError
from .graph import is_recording, observe
from .ops import *
from .serialize import load, save
from .tensor import Tensor

if TYPE_CHECKING:
    from . import data as data
    from . import drawing as drawing
    from . import testing as testing
    from .compile import compile_function
    from .drawing import draw as draw

    compile = compile_function

__version__ = "0.1.0"
__all__ = [
    "GraphError",
    "MissingRuleError",
    "Primitive",
    "ShapeError",
    "Tensor",
    "compile",
    "data",
    "debug",
    "draw",
    "drawing",
    "is_recording",
    "load",
    "nn",
    "observe",
    "optim",
    "primitive",
    "save",
    "testing",
]
__all__ += autodiff.__all__
__all__ += ops.__all__


# Loaded when asked for: none of them is needed to compute a gradient.
_LATER = ("compile", "data", "testing", "drawing")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LATER:
        return importlib.import_module(f"tinygrad_hw.{name}")
    if name == "draw":
        return importlib.import_module("tinygrad_hw.drawing").draw
    return importlib.import_module("tinygrad_hw.numpy_protocols").by_other_name(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "draw"})
