"""What students get wrong, as wrong formulas: the one that gives their numbers is the likely one.

Each formula takes the handout's arguments by name and gives the result that the mistake gives.
"""

from __future__ import annotations

import numpy as np

from . import reference as right
from .image_mistakes import IMAGE_MISTAKES, Array, Formula

_LEAKS = (0.01, 0.001, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3)


def _leak_y(slope: float) -> Formula:
    return lambda x: np.where(x > 0, x, slope * x)


def _leak_dx(slope: float) -> Formula:
    return lambda dl_dy, x: np.where(x > 0, dl_dy, slope * dl_dy)


def _top(scores: Array) -> int:
    return int(scores.argmax())


def _log_p(x: Array) -> Array:
    return np.log(right.softmax(x))


def _through_p(x: Array, y: Array) -> Array:
    """The gradient of the loss by the chain rule, as it is where a probability has become 0."""
    p = right.softmax(x)
    slopes: Array = np.diagflat(p) - p @ p.T
    return slopes @ (-y / np.maximum(p, np.finfo(float).tiny))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


_RELU_LAST = "the scores go through a ReLU: the class may be that of a negative one"
_OFF_BY_ONE = "the class is off by one: the first is 0"
_FLAT_SUM = "a flat (n,) or a row and a column (n, 1) were added, which gives a matrix (n, n)"
_SATURATED = (
    "the gradient is lost where a probability has become 0: the softmax's own times -y / p is p - y"
)
_TWO_ORDERS = (
    "of flattening and its backward one goes along the image's rows, the other down its columns"
)
_LEAK = "this is a leaky ReLU: the handout's gives 0 below 0"

MISTAKES: dict[tuple[str, str], list[tuple[str, Formula]]] = {
    ("fc", "y"): [
        ("the bias b is missing", lambda x, w, b: w @ x),
        ("the bias b is subtracted", lambda x, w, b: w @ x - b),
        ("w x is subtracted", lambda x, w, b: b - w @ x),
        ("the bias b is added twice", lambda x, w, b: w @ x + 2 * b),
        ("w is transposed: it is y = w x + b", lambda x, w, b: w.T @ x + b),
        ("w * x multiplies entry by entry: the matrix product is w @ x", lambda x, w, b: w * x + b),
        (_FLAT_SUM, lambda x, w, b: (w @ x).ravel() + b),
        (_FLAT_SUM, lambda x, w, b: w @ x + b.ravel()),
        ("the bias is added once for each input", lambda x, w, b: w @ x + len(x) * b),
        ("the result of w x is overwritten by what is added", lambda x, w, b: b),
        (
            "only the last input counts: add up over all of them (+= where = stands)",
            lambda x, w, b: w[:, -1:] * x[-1] + b,
        ),
    ],
    ("fc_backward", "dl_dx"): [
        ("w is transposed: dl_dx = w.T @ dl_dy", lambda dl_dy, x, w, b: w @ dl_dy),
        ("w is missing: dl_dx = w.T @ dl_dy", lambda dl_dy, x, w, b: dl_dy),
        ("dl_dy is missing: dl_dx = w.T @ dl_dy", lambda dl_dy, x, w, b: w.sum(0)[:, None]),
        (
            "a row is returned where the column (m, 1) is due",
            lambda dl_dy, x, w, b: dl_dy.T @ w,
        ),
        ("the sum over the outputs is missing", lambda dl_dy, x, w, b: w.T * dl_dy.T),
    ],
    ("fc_backward", "dl_dw"): [
        ("it is transposed: dl_dw = dl_dy @ x.T", lambda dl_dy, x, w, b: x @ dl_dy.T),
        (
            "dl_dy is missing: dl_dw = dl_dy @ x.T",
            lambda dl_dy, x, w, b: np.ones_like(dl_dy) @ x.T,
        ),
        ("x is missing: dl_dw = dl_dy @ x.T", lambda dl_dy, x, w, b: dl_dy @ np.ones_like(x.T)),
        ("w stands where x belongs: dl_dw = dl_dy @ x.T", lambda dl_dy, x, w, b: dl_dy * w),
        ("an inner product in place of the outer one", lambda dl_dy, x, w, b: dl_dy.T @ x),
    ],
    ("fc_backward", "dl_db"): [
        ("it is dl_dy itself: dy/db is 1", lambda dl_dy, x, w, b: np.ones_like(dl_dy)),
        ("it is dl_dy, not multiplied by b", lambda dl_dy, x, w, b: dl_dy * b),
        ("it is dl_dy, not its sum over the outputs", lambda dl_dy, x, w, b: dl_dy.sum()),
        (
            "it is dl_dy, not its sum over the outputs",
            lambda dl_dy, x, w, b: dl_dy.sum(keepdims=True),
        ),
        ("it is dl_dy, not b", lambda dl_dy, x, w, b: b),
    ],
    ("relu", "y"): [
        *((_LEAK, _leak_y(slope)) for slope in _LEAKS),
        ("this is the absolute value: below 0 it is 0", lambda x: np.abs(x)),
        ("the comparison is the wrong way round", lambda x: np.minimum(x, 0)),
        ("the comparison is the wrong way round", lambda x: np.maximum(-x, 0)),
        ("it returns where x > 0, not x there", lambda x: (x > 0) * 1.0),
        ("it returns x as it is", lambda x: x),
        (
            "np.max takes the one largest entry: np.maximum compares entry by entry",
            lambda x: np.max(x),
        ),
        ("this is the sigmoid", _sigmoid),
        ("it is cut off above, too", lambda x: np.clip(x, 0, 1)),
        ("it is cut off above, too", lambda x: np.clip(x, 0, 6)),
    ],
    ("relu_backward", "dl_dx"): [
        *((_LEAK, _leak_dx(slope)) for slope in _LEAKS),
        (
            "the sign of dl_dy decides what passes: that of x does",
            lambda dl_dy, x: np.where(dl_dy > 0, dl_dy, 0),
        ),
        ("dl_dy is missing: where x > 0 it passes on", lambda dl_dy, x: (x > 0) * 1.0),
        ("x and dl_dy are swapped", lambda dl_dy, x: np.where(dl_dy > 0, x, 0)),
        ("x is passed on where dl_dy is due", lambda dl_dy, x: np.where(x > 0, x, 0)),
        (
            "the ReLU's value stands for its slope, 1",
            lambda dl_dy, x: np.where(x > 0, x, 0) * dl_dy,
        ),
        ("the slope below 0 is 0, not -1", lambda dl_dy, x: np.sign(x) * dl_dy),
        ("x stands for the slope of the ReLU", lambda dl_dy, x: x * dl_dy),
        ("the comparison is the wrong way round", lambda dl_dy, x: np.where(x < 0, dl_dy, 0)),
        ("dl_dy passes everywhere: it is 0 where x is below 0", lambda dl_dy, x: dl_dy),
    ],
    ("loss_cross_entropy_softmax", "l"): [
        ("the minus of -log(p) is missing", lambda x, y: (y * _log_p(x)).sum()),
        ("it is averaged over the classes: it is a sum", lambda x, y: -(y * _log_p(x)).mean()),
        (
            "all classes count: only the labelled one does, -sum(y * log(p))",
            lambda x, y: -_log_p(x).sum(),
        ),
        ("the logarithm is one to base 2", lambda x, y: -(y * _log_p(x)).sum() / np.log(2)),
        ("the logarithm is one to base 10", lambda x, y: -(y * _log_p(x)).sum() / np.log(10)),
        ("the logarithm is missing", lambda x, y: (y * right.softmax(x)).sum()),
        ("the logarithm is missing", lambda x, y: -(y * right.softmax(x)).sum()),
        (
            "the other classes' log(1 - p) counts too: that is the loss of a sigmoid",
            lambda x, y: -(y * _log_p(x) + (1 - y) * np.log(1 - right.softmax(x))).sum(),
        ),
        (
            "the softmax runs along the wrong axis, over single entries: it sums over axis 0",
            lambda x, y: 0.0,
        ),
        (
            "a column is divided by its flat sums along axis 1, which gives a matrix: the softmax "
            "sums over axis 0",
            lambda x, y: -(y * (x - x.T)).sum(),
        ),
        (
            "the largest logit is sought along the wrong axis, so that each is taken from itself",
            lambda x, y: np.log(len(x)),
        ),
        (
            "the first class is taken for the labelled one: np.argmax(y) without an axis finds it",
            lambda x, y: -_log_p(x)[0, 0],
        ),
        ("the exp is missing from the softmax", lambda x, y: -(y * np.log(x / x.sum())).sum()),
        ("this is the Euclidean loss", lambda x, y: ((right.softmax(x) - y) ** 2).sum()),
        (
            "it is not summed over the classes to one number",
            lambda x, y: -y * _log_p(x),
        ),
        ("x and y are swapped", lambda x, y: -(x * _log_p(y)).sum()),
    ],
    ("loss_cross_entropy_softmax", "dl_dx"): [
        ("the label is missing: dl_dx = p - y", lambda x, y: right.softmax(x)),
        ("it is the other way round: dl_dx = p - y", lambda x, y: y - right.softmax(x)),
        (
            "it is averaged over the classes: dl_dx = p - y",
            lambda x, y: (right.softmax(x) - y) / len(x),
        ),
        (
            "it is the gradient with respect to p: the softmax's own is missing, dl_dx = p - y",
            lambda x, y: -y / right.softmax(x),
        ),
        (_SATURATED, _through_p),
        ("the softmax is missing: dl_dx = p - y", lambda x, y: x - y),
        (
            "the softmax runs along the wrong axis, over single entries: it sums over axis 0",
            lambda x, y: 1.0 - y,
        ),
        ("a sigmoid stands where the softmax belongs", lambda x, y: _sigmoid(x) - y),
        (
            "only the labelled entry has a gradient here: all of p - y counts",
            lambda x, y: y * (right.softmax(x) - y),
        ),
        ("x and y are swapped", lambda x, y: right.softmax(y) - x),
    ],
    **IMAGE_MISTAKES,
    ("flattening", "y"): [
        (
            "it goes channel by channel: x.reshape(-1, 1) keeps the channels of a pixel together",
            lambda x: x.transpose(2, 0, 1).reshape(-1, 1),
        ),
    ],
    ("flattening_backward", "dl_dx"): [
        (_TWO_ORDERS, lambda dl_dy, x: dl_dy.reshape(x.shape, order="F")),
        (_TWO_ORDERS, lambda dl_dy, x: dl_dy.reshape(x.shape)),
    ],
    ("infer_mlp", "y"): [
        ("the ReLU is missing", lambda x, w1, b1, w2, b2: _top(w2 @ (w1 @ x + b1) + b2)),
        ("the biases are missing", lambda x, w1, b1, w2, b2: _top(w2 @ right.relu(w1 @ x))),
        (
            "the class of the smallest score is taken",
            lambda **given: _top(-right.mlp_logits(**given)),
        ),
        (_RELU_LAST, lambda **given: _top(right.relu(right.mlp_logits(**given)))),
        (_OFF_BY_ONE, lambda **given: right.infer_mlp(**given) + 1),
    ],
    ("infer_cnn", "y"): [
        (
            "the ReLU is missing",
            lambda x, w_conv, b_conv, w_fc, b_fc: _top(
                w_fc @ right.flattening(right.pool2x2(right.conv(x, w_conv, b_conv))) + b_fc
            ),
        ),
        (
            "the image is transposed",
            lambda x, **weights: _top(right.cnn_logits(x.swapaxes(0, 1), **weights)),
        ),
        (
            "the image is flattened down its columns: the handout goes along the rows",
            lambda **given: _top(right.cnn_logits(**given, order="F")),
        ),
        (
            "the class of the smallest score is taken",
            lambda **given: _top(-right.cnn_logits(**given)),
        ),
        (_RELU_LAST, lambda **given: _top(right.relu(right.cnn_logits(**given)))),
        (_OFF_BY_ONE, lambda **given: right.infer_cnn(**given) + 1),
    ],
}
