"""Rewrite reading and writing at an index, for native code, so that all of an index are values."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..ops import index
from .program import Instruction, Operation, Ref
from .rewriting import Rewrite, Rewriter
from .traced import set_item


def _index(r: Rewriter, i: Instruction) -> bool:
    """Make arrays of positions in an index values of the program."""
    given = i.params["index"]
    parts = given if isinstance(given, tuple) else (given,)
    named = tuple(r.constant(part) if _is_positions(part) else part for part in parts)
    params = i.params | {"index": named if isinstance(given, tuple) else named[0]}
    r.instructions.append(i._replace(params=params))
    return True


def _is_positions(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind in "iu"


def _writing(r: Rewriter, i: Instruction) -> bool:
    """Make a number that is written at an index a value of the program."""
    (x, v), out = i.args, r.specs[i.out]
    if not isinstance(v, Ref):
        if type(v) not in (int, float) or out.dtype.kind != "f":
            return False
        v = r.constant(np.array(v, out.dtype))
    r.instructions.append(i._replace(args=(x, v)))
    return True


def _bracket_writing(r: Rewriter, i: Instruction) -> bool:
    """Rewrite what is written to an array itself at an index."""
    x, given, v = i.args
    spec = r.spec(v)
    if spec is not None and spec.dtype != r.specs[i.out].dtype:
        return False
    op = Operation(i.op.name, index._setitem.forward)
    return _writing(r, Instruction(op, (x, v), {"index": given}, i.out))


def _brackets(r: Rewriter, i: Instruction) -> bool:
    """Rewrite what an array itself is asked for at an index."""
    x, index_given = i.args
    op = Operation(i.op.name, index._getitem.forward)
    return _index(r, Instruction(op, (x,), {"index": index_given}, i.out))


INDICES: dict[Any, Rewrite] = {
    index._getitem.forward: _index,
    index._scatter_add.forward: _index,
    index._setitem.forward: _writing,
    operator.getitem: _brackets,
    set_item: _bracket_writing,
}
