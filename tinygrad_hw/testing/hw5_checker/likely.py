"""The likely mistake behind wrong results: the formula that gives them, or what they look like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .compare import close
from .image_mistakes import Formula
from .mistakes import MISTAKES
from .reference import Array


class Evidence(NamedTuple):
    """A result of one call."""

    arguments: dict[str, Any]
    result: str
    wanted: Array
    got: Array


def explain(function: str, evidence: Sequence[Evidence], passed: Iterable[Evidence]) -> str:
    """The mistake that explains the first wrong result and most of the further ones.

    ``passed`` holds the right results of other calls: a mistake that would show in them is none.
    """
    result = evidence[0].result
    found = [one for one in evidence if one.result == result]
    right = list(passed)
    if not np.isfinite(found[0].got).all():
        return _of_loss(right) if function == "loss_cross_entropy_softmax" else _NOT_FINITE
    known = [
        (sentence, _gives(formula))
        for sentence, formula in MISTAKES.get((function, result), ())
        if all(_unseen(formula, one) for one in right)
    ]
    # Classes have no factors.
    general = [] if function.startswith("infer") else GENERAL
    possible = [(text, explains) for text, explains in general if all(map(explains, right))]
    best, most = "", 0
    for sentence, explains in [*known, *possible]:
        agree = [explains(one) for one in found]
        if agree[0] and sum(agree) > max(most, len(found) // 2):
            best, most = sentence, sum(agree)
    if not best and general and not any(np.any(one.wanted) for one in right) and _factor(found):
        return _FACTOR
    if not best and all(map(_is_whole, found)):
        return _WHOLE
    other_shape = found[0].got.shape != found[0].wanted.shape
    return best or (OTHER_SHAPE if other_shape else "")


def _of_loss(right: Sequence[Evidence]) -> str:
    """What makes a loss or its gradient NaN, where other large logits are right or not."""
    return _NO_P if any(np.max(one.arguments["x"]) > 900 for one in right) else _OVERFLOW


def _value(formula: Formula, one: Evidence) -> Array | None:
    """What a formula gives; None where two shapes do not fit and it would have raised an error."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(formula(**one.arguments))
    except (ValueError, IndexError):
        return None


def _unseen(formula: Formula, one: Evidence) -> bool:
    """Whether a mistake does not show in a result that is right."""
    value = _value(formula, one)
    return value is not None and (close(value, one.wanted) or close(value, one.got))


def _gives(formula: Formula) -> Callable[[Evidence], bool]:
    """Whether a formula, and not the right one, gives what was seen."""

    def gives(one: Evidence) -> bool:
        value = _value(formula, one)
        return value is not None and close(one.got, value) and not close(value, one.wanted)

    return gives


# --- Whatever the function --------------------------------------------------------------------


def _same_numbers(one: Evidence) -> bool:
    return one.got.size == one.wanted.size and close(one.got.ravel(), one.wanted.ravel())


def _flat(one: Evidence) -> bool:
    return one.got.ndim == 1 and one.wanted.ndim == 2 and _same_numbers(one)


def _permuted(one: Evidence) -> bool:
    return any(
        close(one.got, one.wanted.transpose(axes))
        for axes in itertools.permutations(range(one.wanted.ndim))
    )


def _transposed(one: Evidence) -> bool:
    return one.wanted.ndim >= 2 and close(one.got, one.wanted.swapaxes(0, 1))


def _negative(one: Evidence) -> bool:
    return close(one.got, -one.wanted)


def _factor(found: Sequence[Evidence]) -> bool:
    """Whether results are off by a factor: each by its own, or single numbers all by the same."""
    if any(one.got.shape != one.wanted.shape for one in found):
        return False
    pairs = [(one.got, one.wanted) for one in found if one.wanted.size > 1]
    if not pairs:
        pairs = [
            (np.array([o.got.item() for o in found]), np.array([o.wanted.item() for o in found]))
        ]
    return all(_is_multiple(got, wanted) for got, wanted in pairs)


def _is_multiple(got: Array, wanted: Array) -> bool:
    if np.count_nonzero(wanted) < 2 or not np.any(got):
        return False
    at = np.unravel_index(np.argmax(np.abs(wanted)), wanted.shape)
    return close(got, wanted * (got[at] / wanted[at]))


def _cut(one: Evidence) -> bool:
    """Whether an array of integers holds what should be fractions; small ones wrap around."""
    kind = one.got.dtype
    if kind.kind not in "iu" or one.got.shape != one.wanted.shape:
        return False
    with np.errstate(invalid="ignore"):
        return bool(np.array_equal(one.got, one.wanted.astype(np.int64).astype(kind)))


def _is_whole(one: Evidence) -> bool:
    """Whether integers stand where fractions are due."""
    fractions = not np.array_equal(one.wanted, np.trunc(one.wanted))
    return one.got.dtype.kind in "iu" and one.got.shape == one.wanted.shape and fractions


def _zeros(one: Evidence) -> bool:
    return one.got.shape == one.wanted.shape and not np.any(one.got)


def _ends_early(one: Evidence) -> bool:
    """Whether a result is right up to an entry and 0 from there on."""
    if one.got.shape != one.wanted.shape:
        return False
    filled = np.trim_zeros(one.got.ravel(), "b")
    return close(filled, one.wanted.ravel()[: filled.size])


GENERAL: list[tuple[str, Callable[[Evidence], bool]]] = [
    ("the numbers are right, but the shape is (n,) where (n, 1) is due", _flat),
    ("it is transposed", _transposed),
    ("its axes are in another order than the handout's", _permuted),
    ("the numbers are right, but the shape is not", _same_numbers),
    (
        "its array is one of integers, which cuts off fractions and, if unsigned, the sign: make "
        "it with np.zeros(shape), which holds floats",
        _cut,
    ),
    ("the sign is the wrong way round", _negative),
    ("it is still the zeros that it starts with: nothing is written there", _zeros),
    (
        "it is right up to an entry and 0 from there on: does a loop end too early, or is the "
        "return inside it?",
        _ends_early,
    ),
]
_FACTOR = "it is off by a constant factor: an average where a sum is due, or a sum for an average"
_WHOLE = (
    "it gives integers where fractions are due: np.zeros(shape) holds floats, and np.vectorize "
    "takes the type of its first result for all, so return 0.0 and not 0"
)
OTHER_SHAPE = "its shape is not the handout's"
_NOT_FINITE = "it holds NaN or infinity: something is divided by 0, or an exp overflows"
_NO_P = (
    "an exp overflows (it wants x - x.max()), or it divides by a probability that has become 0: "
    "the gradient is p - y, without a division"
)
_OVERFLOW = (
    "the log of an overflowing exp (or a division of two): subtract the largest logit from all of "
    "them first, x - x.max()"
)
