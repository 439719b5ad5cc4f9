"""Initial weights. Each takes a shape and ``rng`` (None, int or Generator), and gives an array.

The fans of a shape (..., m, n) are m and n times the sizes in front, so that (m, n) is a linear map
of m inputs, and (h, w, C1, C2) a convolution of h*w*C1 inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..ops.shape import _sides

__all__ = [
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "ones",
    "orthogonal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Array = np.ndarray[Any, Any]
Rng: TypeAlias = "int | np.random.Generator | None"


def zeros(shape: Sequence[int], *, rng: Rng = None, dtype: Any = np.float32) -> Array:
    """Zeros.

    Examples
    --------
    >>> zeros((2,))
    array([0., 0.], dtype=float32)
    """
    return np.zeros(_lengths(shape), dtype)


def ones(shape: Sequence[int], *, rng: Rng = None, dtype: Any = np.float32) -> Array:
    """Ones.

    Examples
    --------
    >>> ones((2,))
    array([1., 1.], dtype=float32)
    """
    return np.ones(_lengths(shape), dtype)


def normal(
    shape: Sequence[int], *, std: float = 1.0, rng: Rng = None, dtype: Any = np.float32
) -> Array:
    """Gaussian of mean 0.

    Examples
    --------
    >>> normal((2, 3), rng=0).shape
    (2, 3)
    """
    return np.random.default_rng(rng).normal(0.0, std, _lengths(shape)).astype(dtype)


def uniform(
    shape: Sequence[int], *, bound: float = 1.0, rng: Rng = None, dtype: Any = np.float32
) -> Array:
    """Uniform in [-bound, bound).

    Examples
    --------
    >>> bool(abs(uniform((9,), bound=0.5, rng=0)).max() <= 0.5)
    True
    """
    return np.random.default_rng(rng).uniform(-bound, bound, _lengths(shape)).astype(dtype)


def kaiming_normal(
    shape: Sequence[int], *, gain: float = math.sqrt(2), rng: Rng = None, dtype: Any = np.float32
) -> Array:
    """Gaussian of standard deviation gain / sqrt(inputs), for ReLU (He et al. 2015, section 2.2).

    Examples
    --------
    >>> kaiming_normal((3, 3, 1, 8), rng=0).shape
    (3, 3, 1, 8)
    """
    return normal(shape, std=gain / math.sqrt(_fans(shape)[0]), rng=rng, dtype=dtype)


def kaiming_uniform(
    shape: Sequence[int], *, gain: float = math.sqrt(2), rng: Rng = None, dtype: Any = np.float32
) -> Array:
    """Uniform, with the standard deviation of :func:`kaiming_normal`.

    Examples
    --------
    >>> kaiming_uniform((4, 2), rng=0).dtype
    dtype('float32')
    """
    return uniform(shape, bound=gain * math.sqrt(3 / _fans(shape)[0]), rng=rng, dtype=dtype)


def xavier_normal(shape: Sequence[int], *, rng: Rng = None, dtype: Any = np.float32) -> Array:
    """Gaussian of variance 2 / (inputs + outputs) (Glorot and Bengio 2010, section 4.2.1).

    Examples
    --------
    >>> xavier_normal((4, 2), rng=0).shape
    (4, 2)
    """
    return normal(shape, std=math.sqrt(2 / sum(_fans(shape))), rng=rng, dtype=dtype)


def xavier_uniform(shape: Sequence[int], *, rng: Rng = None, dtype: Any = np.float32) -> Array:
    """Uniform of variance 2 / (inputs + outputs) (Glorot and Bengio 2010, equation 16).

    Examples
    --------
    >>> bool(abs(xavier_uniform((4, 2), rng=0)).max() <= 1)
    True
    """
    return uniform(shape, bound=math.sqrt(6 / sum(_fans(shape))), rng=rng, dtype=dtype)


def orthogonal(
    shape: Sequence[int], *, gain: float = 1.0, rng: Rng = None, dtype: Any = np.float32
) -> Array:
    """Orthonormal rows or columns of the matrix (inputs, outputs) (Saxe et al. 2014).

    Examples
    --------
    >>> q = orthogonal((4, 2), rng=0)
    >>> bool(np.allclose(q.T @ q, np.eye(2), atol=1e-6))
    True
    """
    if not (shape := _lengths(shape)):
        raise ValueError("init: got shape (); want (..., inputs, outputs)")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    a = np.random.default_rng(rng).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(a)
    # The signs make the distribution uniform (Mezzadri 2007).
    q *= np.sign(np.diag(r))
    return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)


def _lengths(shape: int | Sequence[int]) -> tuple[int, ...]:
    lengths = _sides("init", (shape,))
    if min(lengths, default=0) < 0:
        raise ValueError(f"init: got shape {lengths}; want lengths, none negative")
    return lengths


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    shape = _sides("init", (shape,))
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"init: got shape {shape}; want (..., inputs, outputs), none empty")
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]
