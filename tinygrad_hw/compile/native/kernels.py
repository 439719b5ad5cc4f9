"""Native loops for what is not elementwise, by the operation.

A rule takes a :class:`Writer` and the instruction, writes the code and returns True; or it returns
False before it writes anything, and the call is left to NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...kernels import hw5
from ...ops import conv, index, linalg, scan, shape
from ..images import border, correlation, correlation_dw, pool_dx, spaced, turned
from ..program import Instruction, Spec
from . import matrices, moves, windows
from .writer import Writer

Rule = Callable[[Writer, Instruction], bool]

KERNELS: dict[Any, Rule] = {
    linalg.matmul.forward: matrices.matmul,
    np.matmul: matrices.matmul,
    border: windows.border,
    spaced: windows.spaced,
    turned: windows.turned,
    correlation: windows.correlation,
    correlation_dw: windows.correlation_dw,
    conv.max_pool.forward: windows.pool,
    hw5.pool_winners: windows.winners,
    conv.unpool.forward: windows.unpool,
    pool_dx: windows.pool_dx,
    conv.sum_windows.forward: windows.total,
    conv.spread_windows.forward: windows.spread,
    shape._concatenate.forward: moves.concatenate,
    index._getitem.forward: moves.getitem,
    index._scatter_add.forward: moves.scatter_add,
    index._setitem.forward: moves.setitem,
    scan._cumsum.forward: moves.cumsum,
}
# Results that lie in memory as one of their arguments does, by its number.
LIKE_ARGUMENT = {
    conv.max_pool.forward: 0,
    hw5.pool_winners: 0,
    conv.unpool.forward: 1,
    pool_dx: 1,
    conv.sum_windows.forward: 0,
    conv.spread_windows.forward: 0,
}


def multiplications(instruction: Instruction, specs: dict[int, Spec]) -> int:
    """Count the products of numbers in a product of matrices or a convolution, else 0."""
    forward, out = instruction.op.forward, specs[instruction.out]
    if forward is correlation:
        filters = specs[instruction.args[1].index]
        return out.size * math.prod(filters.shape[:3])
    if forward is correlation_dw:
        return specs[instruction.args[0].index].size * math.prod(out.shape[:3])
    if forward in (linalg.matmul.forward, np.matmul):
        return out.size * specs[instruction.args[0].index].shape[-1]
    return 0
