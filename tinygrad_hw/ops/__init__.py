"""The operations: one file per family, all of them primitives or plain functions of primitives."""

from . import elementwise, index, linalg, nn, reduce, shape
from .elementwise import *
from .index import *
from .linalg import *
from .nn import *
from .reduce import *
from .shape import *
