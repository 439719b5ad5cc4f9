"""The operations: one file per family, all of them primitives or plain functions of primitives."""

import functools
from typing import Any

from . import (
    activations,
    constants,
    conv,
    decompositions,
    elementwise,
    exponential,
    index,
    linalg,
    losses,
    moving,
    nn,
    order,
    reduce,
    scan,
    shape,
    special,
)
from .activations import *
from .constants import *
from .conv import *
from .decompositions import *
from .elementwise import *
from .exponential import *
from .index import *
from .linalg import *
from .losses import *
from .moving import *
from .nn import *
from .order import *
from .reduce import *
from .scan import *
from .shape import *
from .special import *

__all__ = ["primitives"]
__all__ += activations.__all__
__all__ += constants.__all__
__all__ += conv.__all__
__all__ += decompositions.__all__
__all__ += elementwise.__all__
__all__ += exponential.__all__
__all__ += index.__all__
__all__ += linalg.__all__
__all__ += losses.__all__
__all__ += moving.__all__
__all__ += nn.__all__
__all__ += order.__all__
__all__ += reduce.__all__
__all__ += scan.__all__
__all__ += shape.__all__
__all__ += special.__all__

FAMILIES = (
    elementwise,
    constants,
    special,
    activations,
    reduce,
    exponential,
    scan,
    order,
    shape,
    index,
    moving,
    linalg,
    decompositions,
    conv,
    nn,
    losses,
)

# Operators of Python, by the name between the underscores.
OPERATORS: dict[str, Any] = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "pow": elementwise.power,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "matmul": linalg.matmul,
    "eq": constants.equal,
    "ne": constants.not_equal,
    "lt": constants.less,
    "le": constants.less_equal,
    "gt": constants.greater,
    "ge": constants.greater_equal,
    "and": constants.bitwise_and,
    "or": constants.bitwise_or,
    "xor": constants.bitwise_xor,
}

# Functions that are methods of tensors too: those of arrays, and the elementwise ones.
METHODS = (
    "sum mean var std prod max min argmax argmin any all cumsum cumprod norm sort argsort "
    "logsumexp softmax log_softmax median topk "
    "reshape transpose swapaxes moveaxis squeeze expand_dims broadcast_to ravel repeat flip roll "
    "tile split diag trace tril triu take take_along_axis dot matmul outer inv det "
    "abs sign square sqrt exp log log1p expm1 sin cos tan tanh sigmoid relu round clip floor ceil "
    "maximum minimum"
).split()


def primitives() -> dict[str, Any]:
    """Give every primitive of the package by name, in the order of the families.

    Examples
    --------
    >>> primitives()["relu"]
    <primitive relu>
    """
    return dict(_primitives())


@functools.cache
def _primitives() -> dict[str, Any]:
    from ..dispatch import Primitive

    found = [p for family in FAMILIES for p in vars(family).values() if isinstance(p, Primitive)]
    return {p.name: p for p in found}
