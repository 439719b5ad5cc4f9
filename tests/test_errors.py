"""Common mistakes, each with the message that a user would want: what was given, and one fix."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

import tinygrad_hw as tg


def leaf(*shape: int) -> tg.Tensor:
    return tg.Tensor(np.ones(shape), requires_grad=True)


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


class OfTheUser(Exception):
    def __init__(self, first, second):
        super().__init__(first)
        self.second = second


@tg.primitive
def with_an_error_of_its_own(x):
    raise OfTheUser(1, 2)


class Net(tg.nn.Module):
    def __init__(self) -> None:
        self.fc = tg.nn.Linear(3, 2, rng=0)

    def forward(self, x):
        return self.fc(x)


def backward_twice():
    y = (leaf(3) * 2).sum()
    y.backward()
    y.backward()


def overwrite_before_backward():
    w = leaf(3)
    y = (w * w).sum()
    w.data[0] = 5
    y.backward()


def log_of_negative_numbers():
    with tg.debug():
        tg.log(leaf(2) * -1.0)


def slope_of_sqrt_at_zero():
    with tg.debug():
        tg.sqrt(leaf(2) * 0.0).sum().backward()


def no_rule():
    @tg.primitive
    def strange(x):
        return x + 1

    strange(leaf(3)).sum().backward()


def backward_in_no_grad():
    w = leaf(3)
    with tg.no_grad():
        y = (w * w).sum()
    y.backward()


def wrong_count_in_rule():
    @tg.primitive
    def half(x):
        return x / 2

    @half.rule
    def _(g, y, x):
        return g / 2, None

    half(leaf(3)).sum().backward()


def with_rule(rule):
    twice = tg.primitive(lambda x: 2 * x, name="twice")
    twice.rule(rule)
    twice(leaf(3)).sum().backward()


def changed_in_checkpoint():
    calls = iter((1.0, 2.0))
    tg.checkpoint(lambda x: x * next(calls), leaf()).backward()


# Of each: what the user did, the error, and what it says.
MISTAKES = {
    # Shapes
    "add": (
        lambda: leaf(2) + leaf(3),
        tg.ShapeError,
        "add: shapes (2,) and (3,) do not broadcast; want equal sides, or sides of 1",
    ),
    "matmul": (
        lambda: leaf(32, 196) @ leaf(30, 10),
        tg.ShapeError,
        "matmul: inner sizes differ: (32, 196) @ (30, 10). The left has 196 columns, the right 30 "
        "rows.",
    ),
    "matmul of a scalar": (
        lambda: leaf(3) @ tg.Tensor(2.0),
        tg.ShapeError,
        "matmul: got shapes (3,) and (); want at least one axis each: use * for scalars",
    ),
    "linear": (
        lambda: tg.linear(leaf(5, 4), leaf(3, 2)),
        tg.ShapeError,
        "linear: x is (5, 4) and w (3, 2); want (..., m) and (m, n)",
    ),
    "bias": (
        lambda: tg.linear(leaf(5, 3), leaf(3, 2), leaf(3)),
        tg.ShapeError,
        "linear: b is (3,) for w (3, 2); want (2,)",
    ),
    "channels": (
        lambda: tg.conv2d(leaf(2, 8, 8, 3), leaf(3, 3, 1, 4)),
        tg.ShapeError,
        "conv2d: x (2, 8, 8, 3) has 3 channels, w (3, 3, 1, 4) takes 1; want (..., H, W, C1) and "
        "(h, w, C1 / groups, C2)",
    ),
    "no channels": (
        lambda: tg.conv2d(leaf(8, 8), leaf(3, 3, 1, 4)),
        tg.ShapeError,
        "add a channel axis with x[..., np.newaxis]",
    ),
    "small image": (
        lambda: tg.conv2d(leaf(2, 2, 2, 1), leaf(3, 3, 1, 4)),
        tg.ShapeError,
        "3x3 is larger than the image 2x2",
    ),
    "padding": (
        lambda: tg.conv2d(leaf(2, 8, 8, 1), leaf(3, 3, 1, 4), padding="full"),
        tg.ShapeError,
        'conv2d: padding is \'full\'; want "valid", "same" or numbers',
    ),
    "reshape": (
        lambda: leaf(2, 3).reshape(4, 2),
        tg.ShapeError,
        "reshape: (2, 3) has 6 entries, (4, 2) takes 8; want equal sizes, or a side -1",
    ),
    "concatenate": (
        lambda: tg.concatenate([leaf(2, 3), leaf(2, 4)]),
        tg.ShapeError,
        "concatenate: shapes (2, 3) and (2, 4) differ beside axis 0; want equal lengths of all "
        "other axes",
    ),
    "reshape with two unknowns": (
        lambda: leaf(6).reshape(-1, -1),
        tg.ShapeError,
        "reshape: (6,) to (-1, -1): -1 comes twice; want one side at most to be found",
    ),
    "reshape that does not divide": (
        lambda: leaf(6).reshape(-1, 4),
        tg.ShapeError,
        "reshape: (6,) to (-1, 4): 6 entries do not divide by 4",
    ),
    "reshape to a negative side": (
        lambda: leaf(6).reshape(-2, 3),
        tg.ShapeError,
        "reshape: (6,) to (-2, 3): a side is negative; want -1 or a length",
    ),
    "reshape to floats": (
        lambda: leaf(6).reshape(6 / 2, 2),
        TypeError,
        "reshape: got (3.0, 2); want whole numbers",
    ),
    "concatenate 0-d tensors": (
        lambda: tg.concatenate([leaf(), leaf()]),
        tg.ShapeError,
        "concatenate: shapes () and () differ beside axis 0; join 0-d tensors with stack",
    ),
    "concatenate without a list": (
        lambda: tg.concatenate(leaf(2), leaf(2)),
        TypeError,
        "concatenate: got tensors one by one; want a list: concatenate([a, b])",
    ),
    "batch axes": (
        lambda: leaf(2, 3, 4) @ leaf(5, 4, 3),
        tg.ShapeError,
        "matmul: batch axes (2,) of (2, 3, 4) and (5,) of (5, 4, 3) do not broadcast; want equal "
        "sides, or sides of 1",
    ),
    "tensordot": (
        lambda: tg.tensordot(leaf(2, 3), leaf(2, 3), axes=1),
        tg.ShapeError,
        "tensordot: axes [1] of (2, 3) and [0] of (2, 3) differ; want equal lengths",
    ),
    "einsum result": (
        lambda: tg.einsum("ij->ik", leaf(2, 3)),
        tg.ShapeError,
        "einsum: 'ij->ik' has 'k' in its result; want letters of the operands, each once",
    ),
    "einsum rank": (
        lambda: tg.einsum("ijk->i", leaf(2, 3)),
        tg.ShapeError,
        "einsum: 'ijk' names 3 axes of an operand that has 2; "
        "want a letter for each, or '...' once",
    ),
    "square": (
        lambda: tg.inv(leaf(2, 3)),
        tg.ShapeError,
        "inv: got shape (2, 3); want square matrices (..., n, n)",
    ),
    "right-hand side": (
        lambda: tg.solve(np.eye(2), leaf(3)),
        tg.ShapeError,
        "solve: a is (2, 2) and b (3,); want (..., n, n) and (n,) or (..., n, k)",
    ),
    "column of labels": (
        lambda: tg.softmax_cross_entropy(leaf(2, 3), [[0], [1]]),
        tg.ShapeError,
        "drop the last axis with labels[..., 0]",
    ),
    "ragged lists": (
        lambda: tg.Tensor([[1, 2], [3]]),
        tg.ShapeError,
        "Tensor: [[1, 2], [3]] is no array; want lists of equal length, of numbers",
    ),
    "concatenate nothing": (
        lambda: tg.concatenate([]),
        tg.ShapeError,
        "concatenate: got no tensors; want at least one",
    ),
    "stack": (
        lambda: tg.stack([leaf(2), leaf(3)]),
        tg.ShapeError,
        "stack: shapes (2,), (3,); want equal ones",
    ),
    "broadcast_to": (
        lambda: tg.broadcast_to(leaf(3), (2, 4)),
        tg.ShapeError,
        "broadcast_to: (3,) does not broadcast to (2, 4)",
    ),
    "einsum lengths": (
        lambda: tg.einsum("ij,jk->ik", leaf(2, 3), leaf(4, 5)),
        tg.ShapeError,
        "einsum: index 'j' is 3 long in one place and 4 in 'jk' of shape (4, 5)",
    ),
    "einsum arrow": (
        lambda: tg.einsum("ij,jk>ik", leaf(2, 3), leaf(3, 5)),
        tg.ShapeError,
        "einsum: 'ij,jk>ik' has >; want letters, commas, '...' and '->'",
    ),
    "split": (
        lambda: tg.split(leaf(5), 2),
        tg.ShapeError,
        "split: 5 entries do not divide into 2 equal parts",
    ),
    "item": (
        lambda: leaf(3).item(),
        tg.ShapeError,
        "item: the tensor has shape (3,); want exactly one entry",
    ),
    "data": (
        lambda: setattr(leaf(3), "data", np.ones(4)),
        tg.ShapeError,
        "data: got shape (4,) for a tensor (3,); want the same",
    ),
    "dtype in the place of requires_grad": (
        lambda: tg.Tensor([1.0], np.float32),
        TypeError,
        "Tensor: requires_grad is <class 'numpy.float32'>; want True or False (a dtype goes by its",
    ),
    # Axes and indices
    "axis": (
        lambda: leaf(2, 3).sum(axis=2),
        np.exceptions.AxisError,
        "sum: axis 2 is out of bounds for array of dimension 2",
    ),
    "axis twice": (
        lambda: leaf(2, 3).sum(axis=(0, 0)),
        tg.ShapeError,
        "sum: duplicate value in 'axis'",
    ),
    "axis in a list": (
        lambda: leaf(2, 3).mean(axis=[0]),
        TypeError,
        "mean: axis is [0]; want a whole number, or several in a tuple",
    ),
    "axis in a list, of a sum": (
        lambda: leaf(2, 3).sum(axis=[0]),
        TypeError,
        "sum: axis is [0]; want a whole number, or several in a tuple",
    ),
    "singular values of NaN": (
        lambda: tg.svdvals(np.full((2, 2), np.nan)),
        np.linalg.LinAlgError,
        "svdvals: SVD did not converge; look for NaN and infinities in what it got",
    ),
    "axis of a constant op": (
        lambda: leaf(2, 3).argmax(axis=2),
        np.exceptions.AxisError,
        "argmax: axis 2 is out of bounds for array of dimension 2",
    ),
    "axes of argsort": (
        lambda: leaf(2, 3).argsort(axis=(0, 1)),
        TypeError,
        "argsort: axis is (0, 1); want one whole number",
    ),
    "axis of topk": (
        lambda: leaf(2, 3).topk(1, axis=2),
        np.exceptions.AxisError,
        "topk: axis 2 is out of bounds for 2 axes; want -2 to 1",
    ),
    "axes of take": (
        lambda: leaf(2, 3).take(0, axis=(0, 1)),
        TypeError,
        "take: axis is (0, 1); want one whole number",
    ),
    "axis of a loss": (
        lambda: tg.nll_loss(leaf(2, 3), [0, 1], axis="classes"),
        TypeError,
        "nll_loss: axis is 'classes'; want a whole number",
    ),
    "axis of layer_norm": (
        lambda: tg.layer_norm(leaf(2, 3), axis=(0, 0)),
        tg.ShapeError,
        "layer_norm: axis (0, 0) names an axis twice; want each once",
    ),
    "a diagonal between two": (
        lambda: tg.diag(leaf(2, 3), 0.5),
        TypeError,
        "diag: k is 0.5; want a whole number",
    ),
    "half a border": (
        lambda: tg.pad(leaf(3), 1.5),
        TypeError,
        "pad: pad_width is 1.5; want whole numbers",
    ),
    "integers to a negative power": (
        lambda: tg.Tensor([1, 2]) ** -1,
        ValueError,
        "power: Integers to negative integer powers are not allowed; make one of them floats",
    ),
    "axis of a method": (
        lambda: leaf(2, 3).swapaxes(0, 2),
        np.exceptions.AxisError,
        "swapaxes: axis (0, 2) is out of bounds for 2 axes; want -2 to 1",
    ),
    "axis of length 3": (
        lambda: leaf(2, 3).squeeze(1),
        tg.ShapeError,
        "squeeze: axis 1 of shape (2, 3) has not length 1; leave it out",
    ),
    "order of axes": (
        lambda: leaf(2, 3).transpose(0, 0),
        tg.ShapeError,
        "transpose: axis (0, 0) names an axis twice; want each once",
    ),
    "index": (
        lambda: leaf(3)[5],
        IndexError,
        "getitem: index 5 is out of bounds for axis 0 with size 3",
    ),
    "float index": (
        lambda: leaf(3)[1.5],
        IndexError,
        "getitem: got an index of dtype float64; want integers or booleans",
    ),
    "many indices": (lambda: leaf(3)[0, 0], IndexError, "getitem: too many indices for array"),
    # Labels and losses
    "label out of range": (
        lambda: tg.softmax_cross_entropy(leaf(4, 10), [0, 1, 2, 10]),
        IndexError,
        "softmax_cross_entropy: label 10 at (3,) is out of range; want 0 to 9",
    ),
    "count of labels": (
        lambda: tg.softmax_cross_entropy(leaf(4, 10), [0, 1, 2]),
        tg.ShapeError,
        "softmax_cross_entropy: labels are (3,) for (4,) rows of 10 classes; want class indices "
        "(4,) or probabilities (4, 10)",
    ),
    "float labels": (
        lambda: tg.softmax_cross_entropy(leaf(4, 10), [0.5, 1, 2, 3]),
        TypeError,
        "each label must be a whole number, these are float64; use .astype(int)",
    ),
    "mse broadcast": (
        lambda: tg.mse_loss(leaf(3), np.ones((3, 1))),
        tg.ShapeError,
        "mse_loss: prediction is (3,), target (3, 1); want equal shapes, since broadcasting would "
        "compare every pair; use reshape",
    ),
    "embedding": (
        lambda: tg.embedding([0, 7], leaf(5, 2)),
        IndexError,
        "embedding: index 7 at (1,) is out of range; want 0 to 4",
    ),
    "dropout": (
        lambda: tg.dropout(leaf(3), p=1.5),
        ValueError,
        "dropout: p is 1.5; want a number in [0, 1)",
    ),
    # Dtypes
    "integers": (
        lambda: tg.Tensor([1, 2], requires_grad=True),
        TypeError,
        "requires_grad: only floats have gradients, this is int64; use .astype(float) first",
    ),
    "booleans": (
        lambda: tg.Tensor([True], requires_grad=True),
        TypeError,
        "requires_grad: only floats have gradients, this is bool",
    ),
    "complex leaf": (
        lambda: tg.Tensor([1j], requires_grad=True),
        TypeError,
        "requires_grad: only floats have gradients, this is complex128",
    ),
    "complex factor": (
        lambda: leaf(2) * 1j,
        TypeError,
        "gradients are of real numbers; got a constant of dtype complex128: compute with its .real "
        "and .imag",
    ),
    "objects": (
        lambda: tg.Tensor([None]),
        TypeError,
        "Tensor: got [None] of dtype object; want numbers",
    ),
    "None": (
        lambda: leaf(2) + None,
        TypeError,
        "add: got None; want numbers, arrays or tensors",
    ),
    "a word": (
        lambda: leaf(2) @ "ab",
        TypeError,
        "matmul: got 'ab'; want numbers, arrays or tensors",
    ),
    "text": (
        lambda: tg.Tensor("abc"),
        TypeError,
        "Tensor: got 'abc' of dtype <U3; want numbers",
    ),
    "a number as name": (
        lambda: tg.Tensor(1.0, name=5),
        TypeError,
        "name: got 5; want a string, as in str(...)",
    ),
    "list of tensors": (
        lambda: tg.Tensor([leaf(), leaf()]),
        TypeError,
        "use stack(list) or concatenate(list)",
    ),
    # Backward
    "no scalar": (
        lambda: (leaf(3) * 2).backward(),
        tg.GraphError,
        "backward: the output has shape (3,) and is no scalar; call .sum() or .mean() first, or "
        "pass a cotangent of its shape",
    ),
    "cotangent": (
        lambda: (leaf(3) * 2).backward(np.ones(2)),
        tg.ShapeError,
        "backward: the cotangent has shape (2,), the output (3,); want the same",
    ),
    "complex cotangent": (
        lambda: (leaf(2) * 2).backward(np.array([1j, 1])),
        TypeError,
        "backward: the cotangent is of dtype complex128; want real numbers",
    ),
    "twice": (
        backward_twice,
        tg.GraphError,
        "was freed by an earlier backward; pass retain_graph=True to that one, or compute the "
        "forward again; .detach() a state that is carried from step to step",
    ),
    "constant": (
        lambda: tg.Tensor(3.0).backward(),
        tg.GraphError,
        "depends on nothing that requires a gradient; make a leaf with requires_grad=True, and "
        "compute outside no_grad",
    ),
    "no_grad": (
        backward_in_no_grad,
        tg.GraphError,
        "depends on nothing that requires a gradient",
    ),
    "overwritten": (
        overwrite_before_backward,
        tg.GraphError,
        "a tensor (3,) was written to in place after 'multiply' used it",
    ),
    "item assignment": (
        lambda: leaf(3).__setitem__(0, 1.0),
        tg.GraphError,
        "assign to x.copy(), or inside no_grad() to change its values",
    ),
    "checkpoint": (
        changed_in_checkpoint,
        tg.GraphError,
        "checkpoint: the function gave other values when it was called again; seed its random",
    ),
    "grad by a constant": (
        lambda: tg.grad((leaf(2) * 2).sum(), [tg.Tensor([1.0, 1.0])]),
        tg.GraphError,
        "grad: cannot differentiate by a constant Tensor (2,); make it with requires_grad=True",
    ),
    "grad of a vector": (
        lambda: tg.grad(lambda x: x * 2)(np.ones(3)),
        tg.GraphError,
        "grad: the function returned shape (3,), no scalar; take .sum(), or use jacobian or vjp",
    ),
    "grad of a number": (
        lambda: tg.grad(lambda x: 3.0)(1.0),
        TypeError,
        "grad: the function returned a float; want a scalar Tensor",
    ),
    "derivative of a tensor by a transform": (
        lambda: tg.jacobian(leaf(3) * 2, leaf(3)),
        TypeError,
        "jacobian: got a Tensor; want a function; of a computed tensor, use grad(y, xs)",
    ),
    "push through a number": (
        lambda: tg.jvp(2.0, 1.0, 1.0),
        TypeError,
        "jvp: got a float; want a function",
    ),
    "no direction": (
        lambda: tg.vjp(lambda x: (x, x), 1.0)[1]((1.0, None)),
        TypeError,
        "vjp: a direction is None; want real numbers",
    ),
    "complex direction": (
        lambda: tg.jvp(tg.sin, 1.0, 1j),
        TypeError,
        "jvp: a direction is 1j; want real numbers",
    ),
    "values of another kind": (
        lambda: setattr(tg.Tensor([1]), "data", [1.5]),
        TypeError,
        "data: got [1.5] for a tensor of int64, which cannot hold it; make a new tensor",
    ),
    "no values": (
        lambda: setattr(leaf(), "data", None),
        TypeError,
        "data: got None for a tensor of float64, which cannot hold it",
    ),
    "complex gradient": (
        lambda: setattr(leaf(), "grad", 1j),
        TypeError,
        "grad: got 1j; want real numbers",
    ),
    "direction": (
        lambda: tg.jvp(lambda x: x * 2, (np.ones(3),), (np.ones(2),)),
        tg.ShapeError,
        "jvp: a direction has shape (2,) for a tensor (3,)",
    ),
    # Rules
    "missing rule": (
        no_rule,
        tg.MissingRuleError,
        "strange: has no rule for its gradient; declare one with @strange.rule, or call .detach()",
    ),
    "count in a rule": (
        wrong_count_in_rule,
        TypeError,
        "half: its rule returned 2 cotangents for 1 inputs; want a tuple with one each, None for "
        "zero",
    ),
    "no tuple in a rule": (
        lambda: with_rule(lambda g, y, x: g * 2),
        TypeError,
        "twice: its rule returned a ndarray for 1 inputs; want a tuple with one each",
    ),
    "value that a rule did not keep": (
        lambda: with_rule(lambda g, y, x: (g * y / x,)),
        TypeError,
        """'float' and 'Node'); name it, as in @twice.rule(keeps="x")""",
    ),
    "shape in a rule": (
        lambda: with_rule(lambda g, y, x: (np.ones(7),)),
        tg.ShapeError,
        "twice: in its rule, sum_to: a cotangent of shape (7,) does not belong to an input of "
        "shape (3,)",
    ),
    "two outputs": (
        lambda: tg.primitive(lambda x: (x, x), name="both")(leaf(3)),
        TypeError,
        "both: the forward returned a tuple of 2; want one array",
    ),
    "no output": (
        lambda: tg.primitive(lambda x: None, name="lost")(leaf(3)),
        TypeError,
        "lost: the forward returned None; want an array: return one",
    ),
    "no output of arrays": (
        lambda: tg.primitive(lambda a, b: None, name="lost")(np.ones(3), 2.0),
        TypeError,
        "lost: the forward returned None; want an array: return one",
    ),
    "NumPy without a rule": (
        lambda: np.interp(leaf(4), [0, 1], [0, 1]),
        tg.MissingRuleError,
        "np.interp: has no rule for gradients on tensors; call it on t.numpy() for a constant",
    ),
    "half precision in linear algebra": (
        lambda: tg.det(np.eye(2, dtype=np.float16)),
        TypeError,
        "det: got float16, which NumPy's linear algebra does not take; use x.astype(np.float32)",
    ),
    "something else as an operand": (
        lambda: tg.hypot(tg.nn.Linear(2, 2), leaf(3)),
        TypeError,
        "hypot: got Linear(2, 2): 6 parameters; want numbers, arrays or tensors",
    ),
    "sort of a number": (
        lambda: tg.sort(leaf()),
        np.exceptions.AxisError,
        "sort: axis -1 is out of bounds for 0 axes",
    ),
    "diagonal of a triangle": (
        lambda: tg.triu(leaf(2, 2), 0.5),
        TypeError,
        "triu: k is 0.5; want a whole number",
    ),
    "shape to scatter to": (
        lambda: tg.scatter_add(leaf(3), index=[0, 1, 2], shape="4"),
        TypeError,
        "scatter_add: got ('4',); want whole numbers",
    ),
    "axes as an order": (
        lambda: tg.norm(leaf(2, 3), (0, 1)),
        ValueError,
        "norm: got ord=(0, 1); want None, 'fro', inf, -inf or a number above 0",
    ),
    "a setting that is no text": (
        lambda: tg.draw(leaf(2), fold=3),
        ValueError,
        "draw: fold is 3; want a pattern, or several",
    ),
    "what to show that is no text": (
        lambda: tg.draw(leaf(2), show=3),
        ValueError,
        "draw: show is 3; want a name, or several",
    ),
    "patterns that are no text": (
        lambda: tg.draw(leaf(2)).fold(patterns=3),
        ValueError,
        "fold: patterns is 3; want a pattern, or several",
    ),
    "keeps that is no text": (
        lambda: tg.primitive(lambda x: x, name="same").rule(lambda g, y, x: (g,), keeps=3),
        ValueError,
        "same.rule: keeps is 3; want a name of an input, or several",
    ),
    "truth": (
        lambda: bool(leaf(3) > 0),
        ValueError,
        "bool: the truth of a tensor of shape (3,) is ambiguous; use .any() or .all()",
    ),
    # NaN and infinity
    "NaN": (
        log_of_negative_numbers,
        FloatingPointError,
        "log: NaN in 2 of 2 values, first at (0,), from finite inputs; recorded at",
    ),
    "infinite slope": (
        slope_of_sqrt_at_zero,
        FloatingPointError,
        "sqrt: the gradient of argument 0 has infinity in 2 of 2 values, first at (0,); recorded",
    ),
    "singular": (
        lambda: tg.solve(leaf(2, 2) * 0, leaf(2)),
        np.linalg.LinAlgError,
        "solve: a matrix of (2, 2) is singular; want full rank: check for equal rows and columns, "
        "or add a small multiple of np.eye(n)",
    ),
    # Modules and optimisers
    "missing key": (
        lambda: Net().load_state_dict({"fc.weight": np.ones((3, 2))}),
        ValueError,
        "load_state_dict: Net does not fit the state: missing fc.bias",
    ),
    "unexpected key": (
        lambda: Net().load_state_dict({**Net().state_dict(), "x": np.ones(2)}),
        ValueError,
        "load_state_dict: Net does not fit the state: unexpected x",
    ),
    "shape of a key": (
        lambda: Net().load_state_dict({**Net().state_dict(), "fc.bias": np.ones(5)}),
        ValueError,
        "fc.bias: (5,) for (2,)",
    ),
    "learning rate": (
        lambda: tg.optim.SGD([leaf(2)], lr=-1),
        ValueError,
        "SGD: lr is -1; want a number above 0",
    ),
    "learning rate in quotes": (
        lambda: tg.optim.SGD([leaf(3)], lr="0.1"),
        ValueError,
        "SGD: lr is '0.1'; want a number above 0",
    ),
    "one beta": (
        lambda: tg.optim.Adam([leaf(3)], betas=0.9),
        ValueError,
        "Adam: betas is 0.9; want two numbers in [0, 1)",
    ),
    "an eps that is 0 in half precision": (
        lambda: tg.optim.Adam([tg.Tensor(np.ones(3, np.float16), requires_grad=True)]),
        ValueError,
        "Adam: eps is 1e-08; want a number above 0 in float16 too, such as 1e-4",
    ),
    "schedule of a model": (
        lambda: tg.optim.Cosine(Net(), total=5),
        TypeError,
        "Cosine: got a Net; want an optimizer, such as optim.SGD(module.parameters())",
    ),
    "half a layer": (
        lambda: tg.nn.Linear(785 / 2, 10),
        ValueError,
        "Linear: inputs is 392.5; want a whole number, at least 1",
    ),
    "a negative number of channels": (
        lambda: tg.nn.BatchNorm(-2),
        ValueError,
        "BatchNorm: channels is -2; want a whole number, at least 1",
    ),
    "a negative number of classes": (
        lambda: tg.one_hot([0], -1),
        ValueError,
        "one_hot: n is -1; want a number of classes, not below 0",
    ),
    "flat number": (
        lambda: tg.nn.Flatten()(1.0),
        tg.ShapeError,
        "Flatten: got a 0-d tensor; want (N, ...)",
    ),
    "orthogonal number": (
        lambda: tg.nn.init.orthogonal(()),
        ValueError,
        "init: got shape (); want (..., inputs, outputs)",
    ),
    "path as a state": (
        lambda: Net().load_state_dict("weights.npz"),
        TypeError,
        "load_state_dict: got a str; want a mapping, as state_dict() or load(path) gives",
    ),
    "no state of an optimizer": (
        lambda: tg.optim.SGD([leaf(2)]).load_state_dict(None),
        TypeError,
        "SGD: got a NoneType; want a mapping, as state_dict() or load(path) gives",
    ),
    "nothing for parameters": (
        lambda: tg.optim.SGD(None),
        TypeError,
        "SGD: got None; want a list of tensors",
    ),
    "tensor as a rate": (
        lambda: tg.optim.SGD([leaf(2)], tg.Tensor(0.1)),
        ValueError,
        "SGD: lr is Tensor(0.1); want a number above 0",
    ),
    "no schedule to follow": (
        lambda: tg.optim.WarmUp(tg.optim.SGD([leaf(2)]), total=3, then=1),
        ValueError,
        "WarmUp: then is 1; want a schedule of the same optimizer",
    ),
    "no target": (
        lambda: tg.mse_loss(leaf(), None),
        TypeError,
        "mse_loss: got a constant of dtype object; want real numbers",
    ),
    "negative number of inputs": (
        lambda: tg.nn.Linear(-1, 3),
        ValueError,
        "Linear: inputs is -1; want a whole number, at least 1",
    ),
    "filter with three sides": (
        lambda: tg.nn.Conv2d(1, 3, (3, 3, 3)),
        tg.ShapeError,
        "Conv2d: size is (3, 3, 3); want one or two whole numbers >= 1",
    ),
    "no parameters": (
        lambda: tg.optim.SGD([], lr=0.1),
        ValueError,
        "SGD: got no parameters; pass module.parameters() or a list",
    ),
    "one parameter": (
        lambda: tg.optim.SGD(leaf(2), lr=0.1),
        TypeError,
        "SGD: got one Tensor; want a list: SGD([tensor], ...)",
    ),
    "module for its parameters": (
        lambda: tg.optim.SGD(tg.nn.Linear(2, 3), lr=0.1),
        TypeError,
        "SGD: got a Linear; want SGD(module.parameters(), ...)",
    ),
    "channels first": (
        lambda: tg.conv2d(leaf(2, 3, 8, 8), leaf(3, 3, 3, 4)),
        tg.ShapeError,
        "(h, w, C1 / groups, C2); use tg.moveaxis(x, -3, -1)",
    ),
    "hook that is none": (
        lambda: leaf(2).register_hook(3),
        TypeError,
        "register_hook: got 3; want a function of the gradient",
    ),
    "constant parameter": (
        lambda: tg.optim.SGD([tg.Tensor([1.0])], lr=0.1),
        TypeError,
        "want leaf tensors with requires_grad=True",
    ),
    "groups of parameters": (
        lambda: tg.optim.SGD([{"params": [tg.Tensor([1.0], requires_grad=True)], "lr": 0.1}]),
        TypeError,
        "want leaf tensors with requires_grad=True; give each group an optimiser",
    ),
    "branch of where that is none": (
        lambda: tg.where([True, False], leaf(2), None),
        TypeError,
        "where: got None; want numbers, arrays or tensors",
    ),
    "condition of where that is a text": (
        lambda: tg.where("x > 0", leaf(2), 0),
        TypeError,
        "where: got 'x > 0'; want numbers, arrays or tensors",
    ),
    "comparison of shapes that do not broadcast": (
        lambda: leaf(2) < np.ones(3),
        tg.ShapeError,
        "less: shapes (2,) and (3,) do not broadcast; want equal sides, or sides of 1",
    ),
    "comparison with a text": (
        lambda: leaf(2) < "a",
        TypeError,
        "less: got 'a'; want numbers, arrays or tensors",
    ),
    "comparison with rows of several lengths": (
        lambda: tg.less(leaf(2), [[1], [2, 3]]),
        tg.ShapeError,
        "Want rows of one length.",
    ),
    "logic of floats": (
        lambda: leaf(2) & True,
        TypeError,
        "bitwise_and: got float64 and bool; want integers or truth values, such as those of x > 0",
    ),
    "logic of complex numbers": (
        lambda: tg.invert(np.array([1j])),
        TypeError,
        "invert: got complex128; want integers or truth values, such as those of x > 0",
    ),
    "angle of a complex number": (
        lambda: tg.arctan2(np.ones(2), 1j),
        TypeError,
        "arctan2: got float64 and complex128; want real numbers",
    ),
    "nothing assigned": (
        lambda: tg.setitem(leaf(2), None, index=0),
        TypeError,
        "setitem: got None; want numbers, arrays or tensors",
    ),
    "cast to integers that would have gradients": (
        lambda: tg.cast(leaf(2), dtype=int),
        TypeError,
        "cast: got dtype int64; want floats: for constants, use x.astype(int64)",
    ),
    "astype to texts": (
        lambda: leaf(2).astype(str),
        TypeError,
        "astype: got dtype <U0; want one of numbers",
    ),
    "part of a place to roll by": (
        lambda: tg.roll(leaf(3), 1.5),
        TypeError,
        "roll: shift is 1.5; want whole numbers",
    ),
    "more axes than shifts": (
        lambda: tg.roll(leaf(3, 2), (1, 2), (0, 1, 0)),
        tg.ShapeError,
        "roll: got 2 shifts for 3 axes; want as many",
    ),
    "half a repetition": (
        lambda: tg.repeat(leaf(3), 1.5),
        TypeError,
        "repeat: repeats is 1.5; want whole numbers",
    ),
    "negative repetitions": (
        lambda: tg.repeat(leaf(3), [1, -1, 2]),
        tg.ShapeError,
        "repeat: repeats is [1, -1, 2]; want no negative number",
    ),
    "repetitions in rows": (
        lambda: tg.repeat(leaf(3), [[1, 2, 3]]),
        tg.ShapeError,
        "repeat: got (1, 3) repeats for 3 places; want 1 or (3,)",
    ),
    "value of a border that mirrors": (
        lambda: tg.pad(leaf(3), 1, "edge", constant_values=3),
        ValueError,
        "pad: constant_values=3 with mode='edge'; leave one of them out",
    ),
    "part of a class": (
        lambda: tg.one_hot([0], 2.5),
        TypeError,
        "one_hot: n is 2.5; want a whole number",
    ),
    "weights of other classes": (
        lambda: tg.binary_cross_entropy_with_logits(leaf(4, 3), np.ones((4, 3)), pos_weight=[1, 2]),
        tg.ShapeError,
        "pos_weight is (2,) for logits (4, 3); want one of that shape, or that broadcasts to it",
    ),
    "padding of all axes": (
        lambda: tg.conv2d(leaf(1, 4, 4, 1), leaf(2, 2, 1, 1), padding=((0, 0),) + ((1, 1),) * 3),
        tg.ShapeError,
        "want ((top, bottom), (left, right)), without the axes of images and channels",
    ),
    "part of an axis to sum over": (
        lambda: tg.tensordot(leaf(2, 2), leaf(2, 2), 1.0),
        tg.ShapeError,
        "tensordot: axes is 1.0; want a number or (those of a, those of b)",
    ),
    "index of arrays that do not broadcast": (
        lambda: leaf(3, 4)[[0, 1], [0, 1, 2]],
        IndexError,
        "getitem: shapes (2,) and (3,) do not broadcast; want equal sides, or sides of 1",
    ),
    "bounds that do not broadcast": (
        lambda: tg.clip(leaf(3, 4), [0, 1], 5),
        tg.ShapeError,
        "clip: shapes (3, 4) and (2,) and () do not broadcast; want equal sides, or sides of 1",
    ),
    "gradients of complex numbers": (
        lambda: leaf(3).astype(complex),
        TypeError,
        "astype: got dtype complex128; want floats, since complex numbers have no gradients here: "
        "for constants, use x.detach().astype",
    ),
    "negative eps": (
        lambda: tg.layer_norm(leaf(3, 4), eps=-1e-5),
        ValueError,
        "layer_norm: eps is -1e-05; want a number, at least 0",
    ),
    "no file": (
        lambda: tg.load("nowhere.npz"),
        FileNotFoundError,
        "load: nowhere.npz: no such file",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_has_its_message(mistake):
    action, kind, message = MISTAKES[mistake]
    with pytest.raises(kind, match=re.escape(message)) as caught:
        action()
    # The class itself, or the one of that name that also carries the graph.
    assert type(caught.value).__name__ == kind.__name__
    assert "\n" not in str(caught.value)


def test_shape_errors_are_value_errors():
    assert issubclass(tg.ShapeError, ValueError)
    assert issubclass(tg.MissingRuleError, TypeError)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize(
    "mistake",
    [
        lambda: leaf(3) + leaf(2),
        lambda: leaf(3)[5],
        lambda: leaf(3).sum(axis=4),
        lambda: tg.inv(np.zeros((2, 2))),
        lambda: with_an_error_of_its_own(leaf(3)),
        log_of_negative_numbers,
    ],
)
def test_an_error_can_be_copied_as_worker_processes_do(mistake, copied):
    with pytest.raises((ValueError, LookupError, ArithmeticError, OfTheUser), match=r".") as caught:
        mistake()
    error = caught.value
    same = copied(error)
    assert (type(same), str(same), same.op) == (type(error), str(error), error.op)
    assert getattr(same, "__notes__", []) == getattr(error, "__notes__", [])
    assert not same.parents


def test_debug_names_the_users_line():
    with pytest.raises(FloatingPointError, match=r"test_errors\.py:\d+"):
        log_of_negative_numbers()


def test_a_failed_call_leaves_the_graph_usable():
    w = leaf(3)
    y = (w * 2).sum()
    with pytest.raises(tg.ShapeError):
        w + leaf(2)
    y.backward()
    np.testing.assert_array_equal(w.grad, [2, 2, 2])


def test_what_is_wrong_with_complex_tensors_is_said():
    a, b = tg.Tensor(np.ones((2, 3)) + 1j), tg.Tensor(np.ones((2, 3)) + 1j)
    with pytest.raises(tg.ShapeError, match="inner"):
        a @ b


def test_a_list_of_bounds_does_not_lose_their_gradients():
    w = tg.Tensor(1.0, requires_grad=True)
    with pytest.raises(TypeError, match="clip: the list holds tensors that require a gradient"):
        tg.clip(tg.Tensor([1.0, 2.0]), [w, 1.0], 5)
