"""The calls by which each function is judged, smallest first.

A case is written as the lines of Python that make its arguments: they are run for the check and
printed in the report, so that what a student can paste is what failed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .handout import HANDOUT


class Case(NamedTuple):
    """One call.

    Attributes
    ----------
    function : str
    lines : tuple of str
        Python that makes the arguments, each under the handout's name.
    keywords : dict
        Further arguments.
    remark : str
        Where set, the case is beyond what the handout asks for: a failure is worth this remark and
        does not make the function wrong.
    unjudged : tuple of str
        Results that do not count.
    watch : float
        Seconds after which a training is stopped; 0 for all other calls.
    images : int
        How many images a mini-batch of that training has.
    again : bool
        Whether it is the call before it once more, which shows what a function keeps of a call.
    forward_first : bool
        Whether the forward function is called before, which shows what a backward one needs of it.
    """

    function: str
    lines: tuple[str, ...]
    keywords: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)
    remark: str = ""
    unjudged: tuple[str, ...] = ()
    watch: float = 0.0
    images: int = 0
    again: bool = False
    forward_first: bool = False

    def named(self) -> dict[str, Any]:
        """The arguments by the handout's names."""
        names: dict[str, Any] = {"np": np}
        exec("\n".join(self.lines), names)
        return {parameter: names[parameter] for parameter in HANDOUT[self.function].parameters}


def cases(function: str) -> list[Case]:
    """The cases of a function that is not for training.

    Examples
    --------
    >>> cases("fc")[0].lines[0]
    'x = np.array([[1.0], [2.0]])'
    """
    first, *others = (case for case in _CASES if case.function == function)
    return [first, first._replace(again=True), *others]


def _rng(seed: int) -> str:
    return f"rng = np.random.default_rng({seed})"


def _numbers(name: str, *shape: int) -> str:
    """A line that draws multiples of 1/8 which are not 0 (so that no ReLU stands on its kink)."""
    return f"{name} = rng.integers(1, 17, {shape}) / 8 * rng.choice([-1, 1], {shape})"


def _distinct(name: str, *shape: int) -> str:
    """A line that draws numbers no two of which are equal, so that every maximum is one entry."""
    size = int(np.prod(shape))
    return f"{name} = (rng.permutation({size}) - {size // 2}).reshape{shape} / 8"


def _both(forward: str, *lines: str, dl_dy: str, **more: Any) -> list[Case]:
    """The same call forward and, with an upstream gradient, backward."""
    return [Case(forward, lines, **more), Case(f"{forward}_backward", (*lines, dl_dy), **more)]


def _batches(n: int, batch_size: int, remark: str = "") -> Case:
    lines = (
        _rng(batch_size),
        f"im_train = rng.integers(0, 256, (196, {n})) / 256",
        f"label_train = rng.permutation(np.arange({n}) % 10).astype(np.uint8)[np.newaxis]",
        f"batch_size = {batch_size}",
    )
    return Case("get_mini_batch", lines, remark=remark)


def _fc(m: int, n: int) -> list[Case]:
    x, w, b = _numbers("x", m, 1), _numbers("w", n, m), _numbers("b", n, 1)
    return _both("fc", _rng(n), x, w, b, dl_dy=_numbers("dl_dy", n, 1))


def _relu(*shape: int) -> list[Case]:
    return _both("relu", _rng(shape[0]), _numbers("x", *shape), dl_dy=_numbers("dl_dy", *shape))


def _loss(x: str, y: str, **more: Any) -> Case:
    return Case("loss_cross_entropy_softmax", (f"x = {x}", f"y = {y}"), **more)


def _conv(height: int, width: int, filters: tuple[int, int, int, int], **more: Any) -> list[Case]:
    *_, c1, c2 = filters
    lines = (
        _rng(height),
        _numbers("x", height, width, c1),
        _numbers("w_conv", *filters),
        _numbers("b_conv", c2, 1),
    )
    return _both("conv", *lines, dl_dy=_numbers("dl_dy", height, width, c2), **more)


def _other_filters(h: int, w: int) -> list[Case]:
    remark = f"right for filters of 3x3 but not of {h}x{w}: the handout's are h x w"
    return _conv(7, 8, (h, w, 2, 2), remark=remark)


def _pool(height: int, width: int, channels: int) -> list[Case]:
    x = _distinct("x", height, width, channels)
    dl_dy = _numbers("dl_dy", height // 2, width // 2, channels)
    return _both("pool2x2", _rng(height), x, dl_dy=dl_dy)


def _tied(x: str) -> list[Case]:
    return _both("pool2x2", x, dl_dy="dl_dy = np.array([[[7.0]]])")


def _infer(seed: int, bias: int = 0) -> list[Case]:
    mlp = (
        _rng(seed),
        "x = rng.integers(0, 256, (196, 1)) / 256",
        _numbers("w1", 30, 196),
        "b1 = rng.integers(-8, 9, (30, 1)).astype(float)",
        _numbers("w2", 10, 30),
        f"b2 = 4.0 * rng.integers(-8, 9, (10, 1)) + {bias}",
    )
    cnn = (
        _rng(seed),
        "x = rng.integers(0, 256, (14, 14, 1)) / 256",
        _numbers("w_conv", 3, 3, 1, 3),
        "b_conv = rng.integers(-2, 3, (3, 1)).astype(float)",
        _numbers("w_fc", 10, 147),
        f"b_fc = 4.0 * rng.integers(-8, 9, (10, 1)) + {bias}",
    )
    return [Case("infer_mlp", mlp), Case("infer_cnn", cnn)]


# The smallest shapes come twice with other numbers, which shows what is kept for a shape.
_CASES = [
    Case(
        "get_mini_batch",
        (
            "im_train = np.arange(196 * 5).reshape(196, 5) / 980",
            "label_train = np.array([[3, 1, 4, 1, 5]], dtype=np.uint8)",
            "batch_size = 2",
        ),
    ),
    _batches(5, 2),
    _batches(64, 32),
    _batches(120, 16),
    _batches(90, 1, "right for batches of several images but not of one"),
    _batches(12, 20, "right, but not for fewer images than a batch holds"),
    *_both(
        "fc",
        "x = np.array([[1.0], [2.0]])",
        "w = np.array([[1.0, 2.0], [3.0, 5.0]])",
        "b = np.array([[10.0], [20.0]])",
        dl_dy="dl_dy = np.array([[3.0], [-4.0]])",
    ),
    *_both(
        "fc",
        "x = np.array([[1.0], [-2.0], [4.0]])",
        "w = np.array([[1.0, 0.5, 2.0], [-3.0, 5.0, 1.0]])",
        "b = np.array([[10.0], [-20.0]])",
        dl_dy="dl_dy = np.array([[3.0], [-4.0]])",
    ),
    *_fc(2, 2),
    *_fc(196, 30),
    *_fc(30, 10),
    *_fc(147, 10),
    *_both(
        "relu",
        "x = np.array([[-1.0], [-20.0], [30.0], [0.5]])",
        dl_dy="dl_dy = np.array([[5.0], [-6.0], [7.0], [-8.0]])",
    ),
    *_relu(4, 1),
    *_relu(30, 1),
    *_relu(14, 14, 3),
    _loss("np.array([[1.0], [2.0], [0.0]])", "np.array([[0.0], [0.0], [1.0]])"),
    _loss("np.array([[-0.5], [0.25]])", "np.array([[1.0], [0.0]])"),
    Case(
        "loss_cross_entropy_softmax",
        (_rng(10), "x = rng.integers(-8, 9, (10, 1)) / 8", "y = np.eye(10)[:, [3]]"),
    ),
    _loss("np.array([[1000.0], [999.0], [998.0]])", "np.array([[0.0], [1.0], [0.0]])"),
    _loss("np.array([[-1000.0], [-999.0], [-998.0]])", "np.array([[0.0], [1.0], [0.0]])"),
    _loss("np.array([[1000.0], [-1000.0]])", "np.array([[0.0], [1.0]])", unjudged=("l",)),
    _loss(
        "np.array([[1000.0], [-1000.0]])",
        "np.array([[1.0], [0.0]])",
        remark="right, but takes the logarithm of a probability that has become 0 where logits lie "
        "2000 apart: x - max(x) - log(sum(exp(x - max(x)))) does not",
    ),
    *_both(
        "conv",
        "x = np.arange(1.0, 10.0).reshape(3, 3, 1)",
        "w_conv = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 10]).reshape(3, 3, 1, 1)",
        "b_conv = np.array([[100.0]])",
        dl_dy="dl_dy = np.array([1.0, 0, 0, 0, 3, 0, 0, -1, 2]).reshape(3, 3, 1)",
    ),
    *_conv(3, 3, (3, 3, 1, 1)),
    *_conv(5, 4, (3, 3, 1, 2)),
    *_conv(4, 6, (3, 3, 2, 3)),
    *_conv(6, 6, (3, 3, 3, 3)),
    *_conv(14, 14, (3, 3, 1, 3)),
    *_other_filters(5, 5),
    *_other_filters(1, 1),
    *_other_filters(3, 5),
    *_both(
        "pool2x2",
        "x = np.array([[-3.0, -1.0, 4.0, 1.0], [-2.0, -5.0, 2.0, 3.0]]).reshape(2, 4, 1)",
        dl_dy="dl_dy = np.array([7.0, -9.0]).reshape(1, 2, 1)",
    ),
    *_pool(2, 4, 1),
    *_pool(4, 4, 1),
    *_pool(4, 6, 2),
    *_pool(14, 14, 3),
    *_tied("x = np.array([[1.0, 5.0], [5.0, 5.0]]).reshape(2, 2, 1)"),
    *_tied("x = np.zeros((2, 2, 1))"),
    *_both(
        "flattening",
        "x = np.arange(12.0).reshape(2, 2, 3)",
        dl_dy="dl_dy = np.arange(12.0).reshape(12, 1)",
    ),
    *_both("flattening", _rng(2), _distinct("x", 2, 2, 3), dl_dy=_distinct("dl_dy", 12, 1)),
    *_both("flattening", _rng(7), _distinct("x", 7, 7, 3), dl_dy=_distinct("dl_dy", 147, 1)),
    *(case for seed in range(6) for case in _infer(seed)),
    # All scores are negative.
    *(case for seed in range(6, 9) for case in _infer(seed, -400)),
]


# --- Training ---------------------------------------------------------------------------------

_FEW_IMAGES = (
    _rng(5),
    "mini_batch_x = [rng.integers(0, 256, (196, 3)) / 256 for _ in range(4)]",
    "mini_batch_y = [np.eye(10)[:, rng.integers(0, 10, 3)] for _ in range(4)]",
)
_EASY_IMAGES = (
    _rng(6),
    "label = np.arange(32) % 10",
    "kinds = rng.random((196, 10)) < 0.2",
    "images = np.clip(kinds[:, label] + rng.normal(0, 0.1, (196, 32)), 0, 1)",
    "mini_batch_x, mini_batch_y = [images] * 4, [np.eye(10)[:, label]] * 4",
)


def exact_training(
    function: str, learning_rate: float, num_iters: int, decay_rate: float = 1.0
) -> Case:
    """A few steps on a few images, for functions that take the handout's settings."""
    settings = {
        "learning_rate": learning_rate,
        "decay_rate": decay_rate,
        "num_iters": num_iters,
    }
    return Case(function, _FEW_IMAGES, settings)


def easy_training(function: str, settings: dict[str, Any], seconds: float) -> Case:
    """Training on always the same images, on which any step that is not too long lowers the loss.

    There are 32, as in the handout's batches.
    """
    return Case(function, _EASY_IMAGES, settings, watch=seconds, images=32)
