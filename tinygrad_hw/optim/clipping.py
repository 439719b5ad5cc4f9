"""Clipping of gradients before a step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..graph import Recorded, recorder
from ..settings import check
from ..tensor import Tensor
from .checks import leaves_of


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their norm is at most ``max_norm``.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those without a gradient are passed over.
    max_norm : float

    Returns
    -------
    float
        The norm before (Pascanu et al. 2013, Algorithm 1).

    Raises
    ------
    FloatingPointError
        If the norm is NaN or infinite; the gradients are left alone.
    ValueError, TypeError
        If there are no parameters, one comes twice, or one is not a leaf that requires a gradient.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> tg.optim.clip_grad_norm([w], 1.0), w.grad
    (10.0, array([0.6, 0.8]))
    """
    check("clip_grad_norm", "max_norm", max_norm, "a number above 0", lambda norm: norm > 0)
    leaves: Any = [p._node for p in leaves_of("clip_grad_norm", parameters, frozen=True)]
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    # In float64, since the square of a gradient of float16 or float32 may overflow.
    exact = (g.astype(np.float64, copy=False) for g in gradients)
    norm = np.sqrt(sum((np.vdot(g, g) for g in exact), np.float64(0)))
    if not np.isfinite(norm):
        raise FloatingPointError(
            f"clip_grad_norm: the norm is {norm}; find the op that made it with tg.debug()"
        )
    recording = recorder()
    if recording is None and norm <= max_norm:
        return float(norm)
    # Without a branch, which a recorded step would take the same way at every call.
    scale = 1 / np.maximum(norm / max_norm, 1)
    for g in gradients:
        g *= scale.astype(g.dtype)
    return recording.number(norm) if isinstance(norm, Recorded) else float(norm)
