"""Wrong versions of hw5.py: one line of one function replaced, and what the checker should say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

HW5 = Path(__file__).parents[1] / "hw5.py"


class Mutant(NamedTuple):
    """A line of a function, what replaces it, and a word of the sentence about it."""

    function: str
    line: str
    instead: str
    likely: str = ""


def _of(function: str, line: str, *mistakes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(function, line, instead, likely) for instead, likely in mistakes]


BATCH_PARTS = "parts = [order[i : i + batch_size] for i in range(0, n, batch_size)]"
BATCH_ORDER = "order = np.random.default_rng(rng).permutation(n)"
BATCH_RETURN = "return [im_train[:, part] for part in parts], [one_hot[:, part] for part in parts]"
FC = "return w @ x + b"
FC_BACKWARD = "return w.T @ dl_dy, dl_dy @ x.T, dl_dy.sum(axis=1, keepdims=True)"
RELU = '(x,) = _arrays("relu", x=x)'
RELU_BACKWARD = "return masked(dl_dy, x > 0)"
SHIFTED = "shifted = x - x.max(axis=0)"
LOSS = "loss = weight @ np.log(total) - np.vdot(y, finite)"
LOSS_BACKWARD = "exp *= weight / total"
LOSS_RETURN = "return loss, exp"
CONV = "return correlate(x, w_conv, stride=stride, padding=padding) + b_conv[:, 0]"
PATCHES = "np.moveaxis(w_conv.reshape(-1, *w_conv.shape[:2], w_conv.shape[3]), 0, 2),"
MIXED = "return np.moveaxis(y, -1, 0).reshape(y.shape)"
CONV_DW = "dl_dw = correlate_dw(dl_dy, x, size=size, stride=stride, padding=padding)"
CONV_RETURN = "return dl_dw, dl_db[:, np.newaxis]"
POOL = "return max_pool(x, size=size)"
POOL_BACKWARD = "return max_pool_dx(dl_dy, x, size=size)"
TILES = "x.reshape(len(x) // 2, 2, -1, 2, x.shape[2])"
SPREAD = "dl_dy.repeat(2, 0).repeat(2, 1)"
TOP = "max_pool(x).repeat(2, 0).repeat(2, 1)"

MUTANTS = [
    *_of(
        "get_mini_batch",
        BATCH_PARTS,
        (BATCH_PARTS.replace("range(0, n,", "range(0, n - batch_size + 1,"), "dropped"),
        (BATCH_PARTS.replace("i + batch_size]", "i + batch_size - 1]"), "batch_size images"),
        (BATCH_PARTS.replace("order[i : i + batch_size]", "order[:batch_size]"), ""),
    ),
    *_of(
        "get_mini_batch",
        BATCH_ORDER,
        ("order = np.arange(n)", "nothing is shuffled"),
        ("order = np.arange(n)[::-1]", "whole runs"),
        ("order = np.argsort(label_train.ravel(), kind='stable')", "sorted by class"),
        ("order = np.random.default_rng(rng).integers(0, n, n)", "with replacement"),
    ),
    *_of(
        "get_mini_batch",
        BATCH_RETURN,
        (
            BATCH_RETURN.replace("one_hot[:, part]", "one_hot[:, np.sort(part)]"),
            "apart from the images",
        ),
        (BATCH_RETURN.replace("one_hot[:, part]", "one_hot[:, part].T"), "transposed"),
        (BATCH_RETURN.replace("one_hot[:, part]", "label_train[:, part]"), "not one-hot"),
        (BATCH_RETURN.replace("one_hot[:, part]", "np.roll(one_hot, 1, 0)[:, part]"), ""),
        (BATCH_RETURN.replace("im_train[:, part]", "im_train[:, part] / 255"), "changed"),
    ),
    *_of(
        "fc",
        FC,
        ("return w @ x", "bias b is missing"),
        ("return w @ x - b", "subtracted"),
        ("return b - w @ x", "w x is subtracted"),
        ("return w @ x + b + b", "added twice"),
        ("return (w @ x + b).ravel()", "(n,)"),
        ("return (w @ x + b).T", "transposed"),
        ("return w * x.T + b", ""),
        ("x += 1\n    return w @ (x - 1) + b", "changes its own argument x"),
    ),
    *_of(
        "fc_backward",
        FC_BACKWARD,
        ("return dl_dy, dl_dy @ x.T, dl_dy", "w is missing"),
        ("return w.T @ dl_dy, x @ dl_dy.T, dl_dy", "transposed"),
        ("return w.T @ dl_dy, dl_dy @ x.T, np.ones_like(dl_dy)", "dy/db is 1"),
        ("return w.T @ dl_dy, -(dl_dy @ x.T), dl_dy", "sign"),
        ("return w.T @ dl_dy, dl_dy @ x.T / len(x), dl_dy", "factor"),
        ("return w.T @ dl_dy, dl_dy @ x.T, dl_dy.ravel()", "(n,)"),
        ("return dl_dy @ x.T, w.T @ dl_dy, dl_dy", ""),
        ("return w.T @ dl_dy, dl_dy @ x.T", "2 values"),
    ),
    *_of(
        "relu",
        RELU,
        (f"{RELU}\n    return np.where(x > 0, x, 0.01 * x)", "leaky"),
        (f"{RELU}\n    return np.abs(x)", "absolute"),
        (f"{RELU}\n    return np.minimum(x, 0)", "wrong way round"),
        (f"{RELU}\n    return (x > 0) * 1.0", "not x"),
        (f"{RELU}\n    x[x < 0] = 0\n    return x", "changes its own argument"),
        (f"{RELU}\n    return np.clip(x, 0, 6)", "cut off"),
    ),
    *_of(
        "relu_backward",
        RELU_BACKWARD,
        ("return np.where(dl_dy > 0, dl_dy, 0)", "sign of dl_dy"),
        ("return (x > 0) * 1.0", "dl_dy is missing"),
        ("return np.where(x > 0, dl_dy, 0.01 * dl_dy)", "leaky"),
        ("return np.where(x < 0, dl_dy, 0)", "wrong way round"),
        ("return np.maximum(x, 0) * dl_dy", "slope"),
        ("return dl_dy", "everywhere"),
        ("dl_dy[x <= 0] = 0\n    return dl_dy", "changes its own argument"),
    ),
    *_of(
        "loss_cross_entropy_softmax",
        LOSS_RETURN,
        ("return -loss, exp", "minus"),
        ("return loss, -exp", "other way round"),
        ("return loss, exp + y", "label is missing"),
        ("return loss / len(x), exp", "averaged"),
        ("return loss, exp / len(x)", "averaged"),
        ("return loss, x - y", "softmax is missing"),
        ("return loss / np.log(2), exp", "base 2"),
        ("return loss, exp.ravel()", "(n,)"),
        ("return exp, loss", ""),
    ),
    *_of(
        "loss_cross_entropy_softmax",
        SHIFTED,
        (
            f"{SHIFTED}\n    with np.errstate(all='ignore'):\n        p = np.exp(x)\n"
            "        p = p / p.sum()\n        return -(y * np.log(p)).sum(), p - y",
            "overflowing exp",
        ),
    ),
    *_of(
        "conv",
        CONV,
        (CONV.replace("w_conv,", "w_conv[::-1, ::-1],"), "flipped"),
        (CONV.replace("+ b_conv[:, 0]", "+ 0 * b_conv[:, 0]"), "bias is missing"),
        (CONV.replace("padding=padding", "padding=((0, 2), (0, 2))"), "off by the padding"),
        (CONV.replace("padding=padding", "padding=((2, 0), (2, 0))"), "off by the padding"),
        (CONV.replace("padding=padding", "padding='valid'"), "padding is missing"),
        (CONV.replace("w_conv,", "w_conv.swapaxes(0, 1),"), "swapped"),
        (CONV.replace("(x, w_conv", "(x[..., :1], w_conv[:, :, :1]"), "first input channel"),
        (CONV.replace("stride=stride", "stride=2"), ""),
        (CONV.replace("w_conv,", PATCHES), "patches"),
        (f"{CONV.replace('return', 'y =')}; {MIXED}", "transpose it before"),
        (CONV.replace("b_conv[:, 0]", "b_conv[0, 0]"), "bias of one filter"),
        (CONV.replace("b_conv[:, 0]", "x.shape[-1] * b_conv[:, 0]"), "each input channel"),
    ),
    *_of(
        "conv_backward",
        CONV_DW,
        (CONV_DW + "[::-1, ::-1]", "flipped"),
        (CONV_DW.replace("=padding", "=((0, 2), (0, 2))"), "off by the padding"),
        (CONV_DW.replace("(dl_dy,", "(np.ones_like(dl_dy),"), "dl_dy is missing"),
        (CONV_DW + " / dl_dy[..., 0].size", "averaged"),
        (CONV_DW.replace("x,", "0 * x + x[..., :1],"), "first input channel"),
        (f"{CONV_DW}; dl_dw = np.moveaxis(dl_dw, 2, 0).reshape(dl_dw.shape)", "patches"),
    ),
    *_of(
        "conv_backward",
        CONV_RETURN,
        ("return dl_dw, dl_db", "(n,)"),
        ("return dl_dw, dl_dy.mean(axis=(0, 1))[:, np.newaxis]", "averaged"),
        ("return dl_dw, np.full(b_conv.shape, dl_dy.sum())", "over the filters"),
        ("return dl_dw, dl_dy[-1, -1][:, np.newaxis]", "last position"),
        ("return dl_dw.swapaxes(0, 1), dl_db[:, np.newaxis]", "swapped"),
        ("return dl_db[:, np.newaxis], dl_dw", ""),
    ),
    *_of(
        "pool2x2",
        POOL,
        (f"return {TILES}.mean(axis=(1, 3))", "mean"),
        (f"return {TILES}.min(axis=(1, 3))", "minimum"),
        ("return np.maximum(max_pool(x), 0)", "negative entries"),
        ("return x[::2, ::2]", "first entry"),
        ("return max_pool(x, size=2, stride=1)", "overlap"),
        ("return max_pool(x) * 0 + max_pool(x).max(axis=-1, keepdims=True)", "channels"),
    ),
    *_of(
        "pool2x2_backward",
        POOL_BACKWARD,
        (f"return {SPREAD} * (x == {TOP})", "copied to all ties"),
        (f"return {SPREAD}", "all of its entries"),
        (f"return {SPREAD} / 4", "all of its entries"),
        (POOL_BACKWARD.replace(" x,", " -x,"), "minimum"),
        (POOL_BACKWARD.replace("dl_dy,", "np.ones_like(dl_dy),"), "dl_dy is missing"),
        (POOL_BACKWARD.replace(" x,", " 0 * x,"), "first entry"),
        (POOL_BACKWARD + " * x", "slope"),
    ),
    *_of(
        "flattening",
        "return x.reshape(-1, 1).copy()",
        ("return x.reshape(-1).copy()", "(n,)"),
        ("return x.reshape(1, -1).copy()", "transposed"),
    ),
    *_of(
        "flattening_backward",
        "return dl_dy.reshape(x.shape).copy()",
        ("return dl_dy.copy()", "the shape is not"),
        ("return dl_dy.reshape(x.shape[::-1]).copy()", ""),
    ),
    *_of(
        "infer_mlp",
        'return _one_class("infer_mlp", fc(relu(fc(x, w1, b1)), w2, b2))',
        ('return _one_class("infer_mlp", -fc(relu(fc(x, w1, b1)), w2, b2))', ""),
        ("return fc(relu(fc(x, w1, b1)), w2, b2)", "scores"),
        ('return _one_class("infer_mlp", fc(fc(x, w1, b1), w2, b2))', "ReLU"),
        ('return _one_class("infer_mlp", relu(fc(relu(fc(x, w1, b1)), w2, b2)))', "negative one"),
        ('return 1 + _one_class("infer_mlp", fc(relu(fc(x, w1, b1)), w2, b2))', "off by one"),
    ),
    *_of(
        "infer_cnn",
        "features = flattening(pool2x2(relu(conv(x, w_conv, b_conv))))",
        ("features = flattening(pool2x2(conv(x, w_conv, b_conv)))", "ReLU"),
        ("features = flattening(pool2x2(relu(conv(x.swapaxes(0, 1), w_conv, b_conv))))", ""),
    ),
]
# Both trainings take their steps in one function.
TRAINING = [
    Mutant("_sgd", "w -= g", "w += g", "up the gradient"),
    Mutant("_sgd", "g *= learning_rate / y.shape[1]", "g *= learning_rate", "not divided"),
    Mutant(
        "_sgd", "x, y = batches[i % len(batches)]", "x, y = batches[0]", "only the first mini-batch"
    ),
    Mutant("_sgd", "learning_rate *= decay_rate", "pass", "every 1000th"),
    Mutant(
        "_sgd", "if i > 0 and i % 1000 == 0:", "if i > 0 and i % 100 == 0:", "before the 1000th"
    ),
    Mutant("_sgd", "if i > 0 and i % 1000 == 0:", "if i // 1000:", "other steps"),
    Mutant("_sgd", "if i > 0 and i % 1000 == 0:", "if True:", "other steps"),
    Mutant("_sgd", "w -= g", "w -= g if w.shape[1] > 1 else 0", "no step changes"),
    Mutant("_sgd", "losses = np.empty((num_iters, 1))", "return 1 / 0", ""),
]


def mutated(*mutants: Mutant) -> str:
    """The source of hw5.py with a line replaced in each of the mutants' functions."""
    source = HW5.read_text()
    for mutant in mutants:
        start = source.index(f"\ndef {mutant.function}(")
        end = source.find("\ndef ", start + 1)
        body = source[start:end]
        assert body.count(mutant.line) == 1, (mutant.function, mutant.line)
        assert mutant.instead != mutant.line
        source = source[:start] + body.replace(mutant.line, mutant.instead) + source[end:]
    return source
