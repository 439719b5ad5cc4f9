"""What a picture says: names, values, what is wrong, folding, and that it is always the same."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_hw as tg
from tinygrad_hw import nn

SNAPSHOTS = Path(__file__).parent / "snapshots"


def leaf(values, name=None):
    return tg.Tensor(values, requires_grad=True, name=name)


def box(graph, title):
    (found,) = [v for v in graph.nodes if v.title == title]
    return found


def marks(graph):
    return {mark for v in graph.nodes for mark in v.marks}


class Exact(nn.Module):
    """A layer on whole numbers, whose picture is the same on every machine."""

    def __init__(self):
        self.hidden = nn.Linear(2, 3, rng=0)
        self.hidden.weight.data[...] = [[1, 0, 2], [0, 1, -1]]

    def forward(self, x):
        return tg.relu(self.hidden(x)).sum()


class Step(nn.Module):
    def __init__(self, rng=0):
        self.inner = nn.Linear(4, 4, rng=rng)

    def forward(self, x):
        return x + tg.relu(self.inner(x))


class Deep(nn.Module):
    def __init__(self, layers=12):
        self.first = nn.Linear(5, 4, rng=0)
        self.steps = [Step(i) for i in range(layers)]

    def forward(self, x):
        x = self.first(x)
        for step in self.steps:
            x = step(x)
        return x


# --- Names --------------------------------------------------------------------------------------


def test_names_come_from_tensors_modules_and_variables():
    class Model(nn.Module):
        def __init__(self):
            self.layers = [nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1)]

        def forward(self, x):
            return self.layers[1](self.layers[0](x))

    model, images, given = Model(), np.ones((3, 2)), leaf([1.0, 2.0], "bias of mine")
    loss = (model(images) + given).sum()
    titles = {v.title for v in loss.graph().nodes}
    assert {"layers.0.weight", "layers.1.bias", "images", "bias of mine"} <= titles
    assert box(loss.graph(), "sum").lines == ("= loss",)


def test_layers_in_variables_keep_their_parameters_apart():
    conv, out = nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1)
    titles = {v.title for v in tg.draw(out(conv(np.ones((1, 2))))).nodes}
    assert {"conv.weight", "out.weight", "conv.bias", "out.bias"} <= titles
    groups = [g.title for g in tg.draw(out(conv(np.ones((1, 2))))).groups]
    assert groups == ["conv: Linear", "out: Linear"]


def test_a_program_whose_name_begins_with_the_packages_is_the_users():
    path = f"{Path(tg.__file__).parent}_demo.py"
    code = (
        "import tinygrad_hw as tg\n"
        "weight = tg.Tensor([1.0], requires_grad=True)\n"
        "with tg.debug():\n"
        "    graph = tg.draw(tg.exp(weight), show='source')\n"
    )
    names = {"__name__": "tinygrad_hw_demo"}
    exec(compile(code, path, "exec"), names)
    assert [v.title for v in names["graph"].nodes] == ["weight", "exp"]
    assert box(names["graph"], "exp").lines == ("tinygrad_hw_demo.py:4",)


def test_names_may_be_given():
    hidden = [leaf([1.0]), leaf([2.0])]
    graph = tg.draw(hidden[0] * hidden[1], names={"a": hidden[0], "b": hidden[1]})
    assert [v.title for v in graph.nodes] == ["a", "b", "multiply"]
    for names in ([1], {5: hidden[0]}):
        with pytest.raises(TypeError, match=r"names is [\[{].*; want a dict of strings to tensors"):
            tg.draw(hidden[0] * 2, names=names)


# --- Content ------------------------------------------------------------------------------------


def test_every_use_of_a_value_is_an_arrow():
    x = leaf(3.0, "x")
    graph = tg.draw(x * x)
    assert [(e.tail, e.head, e.position) for e in graph.edges] == [("n0", "n1", 0), ("n0", "n1", 1)]
    assert graph.dot().count("n0 -> n1") == 2


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("dtype", "float64"),
        ("value", "value [1, 4]"),
        ("grad", "grad norm 1.41"),
        ("stats", "1 to 4, mean 2.5"),
        ("saved", "saved (2,), (2,)"),
        ("bytes", "keeps 32 bytes"),
        ("flops", "2 FLOPs"),
    ],
)
def test_labels_show_what_is_asked(what, says):
    x = leaf([1.0, 2.0], "x")
    graph = tg.draw((x * x).sum(), show=what)
    assert box(graph, "multiply").lines == (says,)
    assert says in graph.dot()
    assert not any(edge.label for edge in graph.edges)


def test_shapes_stand_on_the_arrows():
    x = leaf(np.ones((2, 3)), "x")
    assert [e.label for e in tg.draw(tg.relu(x).sum()).edges] == ["", "(2, 3)"]


def test_time_and_the_line_are_shown():
    with tg.debug():
        y = tg.sin(leaf([1.0, 2.0]))
    time, source = tg.draw(y, show=("time", "source")).nodes[-1].lines[-2:]
    assert re.fullmatch(r"\d+ µs", time)
    assert re.fullmatch(r"test_drawing_graph\.py:\d+", source)


def test_lines_that_nobody_noted_are_said_to_be_unknown():
    assert "tg.debug()" in tg.draw(leaf(1.0) * 2, show="source").caption


def test_a_module_draws_itself_on_an_example_with_lines_in_the_tooltips():
    graph = Exact().graph(np.ones((1, 2)))
    assert re.search(r"source: .*test_drawing_graph\.py:\d+", graph.dot())
    assert [g.title for g in graph.groups] == ["Exact", "hidden: Linear"]
    assert box(graph, "hidden.weight").group == graph.groups[1].id


def test_the_caption_counts():
    w = leaf(np.ones((3, 4)), "w")
    graph = tg.draw((np.ones((2, 3)) @ w).sum())
    assert graph.caption == (
        "2 ops; 12 parameters in 1 tensor; 144 bytes kept for backward; 56 FLOPs"
    )


def test_moving_entries_is_no_work():
    x = leaf(np.ones((3, 4)))
    assert tg.draw(x.reshape(4, 3).T[1:]).caption.endswith("; 0 FLOPs")
    three = tg.einsum("bij,bjk->bik", leaf(np.ones((2, 3, 4))), np.ones((2, 4, 5)))
    assert tg.draw(three).nodes[-1].cost.flops == 2 * 2 * 3 * 4 * 5


def test_facts_tell_of_value_gradient_and_histogram():
    x = leaf([1.0, 2.0, 3.0], "x")
    vertex = tg.draw((x * x).sum()).nodes[0]
    facts = dict(vertex.facts)
    assert facts["value"] == "[1, 2, 3]"
    assert facts["grad"] == "norm 7.48: [2, 4, 6]"
    assert (vertex.histogram.least, vertex.histogram.largest) == (1, 3)
    assert sum(vertex.histogram.counts) == 3


# --- What is wrong ------------------------------------------------------------------------------


def test_an_infinity_that_was_given_is_not_said_to_come_from_finite_inputs():
    x = leaf([[1.0, 2.0]], "x")
    hidden = np.array([[False, True]])
    for filling in (-np.inf, np.full((1, 2), -np.inf)):
        graph = tg.where(~hidden, x, filling).graph()
        assert box(graph, "where").marks == ("infinity in 1 of 2",)
    graph = (x + np.where(hidden, -np.inf, 0)).graph()
    assert box(graph, "add").marks == ("infinity in 1 of 2",)
    with np.errstate(over="ignore"):
        graph = tg.exp(x * 1e3).graph()
    assert box(graph, "exp").marks == ("infinity in 2 of 2, from finite inputs",)


def test_nan_and_infinity_are_marked():
    x = leaf([0.0, 1.0, 2.0], "x")
    with np.errstate(all="ignore"):
        y = tg.log(x) * 0.0
    graph = tg.draw(y)
    assert box(graph, "log").marks == ("infinity in 1 of 3, from finite inputs",)
    assert box(graph, "multiply").marks == ("NaN in 1 of 3",)
    assert "! NaN in 1 of 3" in graph.text()
    line = next(line for line in graph.dot().splitlines() if "NaN in 1 of 3" in line)
    assert 'color="#c21807"' in line


def test_nan_is_marked_in_a_graph_too_large_to_show():
    x = leaf([1.0, -1.0], "x")
    with np.errstate(all="ignore"):
        y = tg.log(x)
    for _ in range(3000):
        y = y + 1.0
    graph = tg.draw(y)
    assert len(graph.nodes) <= 200
    assert any("NaN" in mark for mark in marks(graph))


def test_a_dead_relu_is_marked():
    x = leaf([-1.0, -2.0])
    assert marks(tg.draw(tg.relu(x).sum())) == {"dead: all zero"}
    assert marks(tg.draw(tg.relu(-x).sum())) == set()


def test_vanished_and_exploded_gradients_are_marked_before_and_after_backward():
    x, y = leaf(1.0, "x"), leaf(1.0, "y")
    a, b = x, y
    for _ in range(30):
        a, b = tg.sigmoid(a), b * 3.0
    for graph in (tg.draw(a), tg.draw(b), tg.draw(a, order="both")):
        assert any(re.match("gradient (vanished|exploded): ", mark) for mark in marks(graph))
    (a + b).backward()
    assert any("gradient vanished" in mark for mark in box(tg.draw(a), "x").marks)
    assert any("gradient exploded" in mark for mark in box(tg.draw(b), "y").marks)


class Residual(nn.Module):
    def __init__(self):
        self.inner = nn.Linear(3, 3, rng=0)

    def forward(self, x):
        return x + self.inner(x)


def test_an_input_that_is_used_twice_is_one_box():
    graph = Residual().graph(np.ones((2, 3)))
    (constant,) = [v for v in graph.nodes if v.kind == "constant"]
    assert len([e for e in graph.edges if e.tail == constant.id]) == 2


def test_a_model_gets_the_arrays_that_it_is_drawn_with():
    class Prepared(nn.Module):
        def __init__(self):
            self.inner = nn.Linear(3, 3, rng=0)

        def forward(self, x):
            assert isinstance(x, np.ndarray)
            return self.inner(np.nan_to_num(x))

    graph = Prepared().graph(np.full((2, 3), np.nan))
    assert [v.kind for v in graph.nodes].count("constant") == 1


@pytest.mark.parametrize("size", [2, 4, 9])
def test_values_are_shown_as_whole_numbers(size):
    x = tg.Tensor(np.full(size, -1.234e-100), requires_grad=True)
    lines = re.findall(r"value \[[^\]]*\]", tg.draw(x, show=("value",)).dot())
    assert lines == ["value [-1.23e-100, -1.23e-100" + (", …]" if size > 2 else "]")]


@pytest.mark.parametrize(
    ("dtype", "scale", "mark"),
    [
        (np.float64, 1e200, "gradient exploded: 1e+200"),
        (np.float64, 1e-200, "gradient vanished: 1e-200"),
        (np.float32, 1e-30, "gradient vanished: 1e-30"),
    ],
)
def test_gradients_whose_squares_overflow_or_vanish_are_told_by_their_size(dtype, scale, mark):
    x = tg.Tensor(np.zeros(3, dtype), requires_grad=True, name="x")
    loss = (x * np.array([scale, 0, 0], dtype)).sum()
    loss.backward(retain_graph=True)
    found = box(tg.draw(loss, show=("grad",)), "x")
    assert found.marks == (mark,)
    assert dict(found.facts)["grad"].startswith(f"norm {scale:.3g}: ")


def test_patches_that_overlap_in_memory_count_once():
    x, w = np.ones((32, 6, 6, 1)), tg.Tensor(np.ones((3, 3, 1, 2)), requires_grad=True)
    picture = tg.draw(tg.conv2d(x, w, padding="valid"))
    # The images, the filters, and of each of 6 rows what 3 columns meet at 4 places.
    kept = 8 * (32 * 36 + 18 + 6 * 3 * 4 * 32)
    assert f"{kept / 1024:.1f} KiB kept for backward" in picture.caption


def test_a_parameter_without_gradient_is_marked():
    class Forgetful(nn.Module):
        def __init__(self):
            self.used, self.forgotten = nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1)

        def forward(self, x):
            return self.used(x)

    graph = Forgetful().graph(np.ones((1, 2)))
    assert box(graph, "forgotten.weight").marks == ("unused: gets no gradient",)
    assert not box(graph, "used.weight").marks

    x, w = leaf(2.0, "x"), leaf(3.0, "w")
    (x * 2).backward()
    assert box(tg.draw(x * w), "w").marks == ("got no gradient",)


def test_a_healthy_network_has_no_marks():
    model = tg.nn.Sequential(nn.Linear(4, 8, rng=0), tg.relu, nn.Linear(8, 3, rng=1))
    loss = tg.softmax_cross_entropy(model(np.eye(4)), np.array([0, 1, 2, 0]))
    assert marks(loss.graph()) == set()


def test_gradients_that_follow_from_broken_values_do_not_hide_where_it_began():
    x = leaf([[1.0, -1.0]], "x")
    with np.errstate(all="ignore"):
        y = tg.sqrt(tg.tanh(x) * 2.0).sum()
    graph = tg.draw(y)
    assert [v.title for v in graph.nodes if v.marks] == ["sqrt", "sum"]
    assert "NaN in 1 of 2, from finite inputs" in box(graph, "sqrt").marks
    y.backward()
    assert box(tg.draw(y), "x").marks == ("gradient has NaN",)


# --- Gradients in pictures ----------------------------------------------------------------------


def test_drawing_leaves_no_trace():
    x = leaf([1.0, 2.0], "x")
    y = x * x
    y.retain_grad()
    called = []
    y.register_hook(called.append)
    loss = y.sum()
    for order in ("forward", "backward", "both"):
        tg.draw(loss, order=order)
    tg.draw(loss, show="grad")
    assert x.grad is None
    assert y.grad is None
    assert called == []


def test_gradients_after_backward_where_they_were_asked_for():
    x = leaf([1.0, 2.0], "x")
    kept = (x * x).sum()
    kept.backward(retain_graph=True)
    assert "grad norm 1.41" in box(tg.draw(kept, show="grad"), "multiply").lines

    y = x * x
    y.retain_grad()
    loss = y.sum()
    loss.backward()
    assert "grad norm 1.41" in box(tg.draw(loss, show="grad"), "multiply").lines


@pytest.mark.parametrize("options", [{"show": "grad"}, {"order": "backward"}, {"order": "both"}])
def test_gradients_that_are_gone_are_an_error_that_says_how(options):
    x = leaf([1.0, 2.0], "x")
    loss = (x * x).sum()
    loss.backward()
    tg.draw(loss)
    with pytest.raises(tg.GraphError, match="retain_graph=True"):
        tg.draw(loss, **options)


def test_the_backward_pass_is_a_graph():
    x, w = leaf([[1.0, 2.0]], "x"), leaf([[1.0], [1.0]], "w")
    graph = tg.draw(tg.relu(x @ w).sum(), order="backward")
    assert {v.lines[-1] for v in graph.nodes if v.output} == {"= gradient of x", "= gradient of w"}
    assert {v.title for v in graph.nodes if v.kind == "saved"} == {"matmul"}
    both = tg.draw(tg.relu(x @ w).sum(), order="both")
    assert {v.phase for v in both.nodes} == {"forward", "backward"}
    assert [g.title for g in both.groups] == ["backward"]


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "says"),
    [
        ((), {}, TypeError, "got no tensor"),
        ((1.0,), {}, TypeError, "got a float; want a Tensor"),
        ((tg.nn.Linear(1, 1),), {}, TypeError, "got a Linear; .*as model.graph"),
        (None, {"show": "colour"}, ValueError, "names out of shape, dtype"),
        (None, {"direction": "up"}, ValueError, "direction is 'up'"),
        (None, {"order": "sideways"}, ValueError, "order is 'sideways'"),
        (None, {"max_nodes": 1}, ValueError, "max_nodes is 1"),
        (None, {"max_nodes": "all"}, ValueError, "max_nodes is 'all'; want a number, at least 2"),
        (None, {"depth": -1}, ValueError, "depth is -1"),
        (None, {"depth": 1.5}, ValueError, "depth is 1.5; want a whole number, at least 0"),
    ],
)
def test_bad_options_are_named(arguments, options, kind, says):
    arguments = (leaf(1.0) * 2,) if arguments is None else arguments
    with pytest.raises(kind, match=says):
        tg.draw(*arguments, **options)


def test_a_constant_has_no_backward():
    constant = tg.Tensor(1.0)
    assert tg.draw(constant).nodes[0].kind == "constant"
    for options in ({"show": "grad"}, {"order": "backward"}):
        with pytest.raises(tg.GraphError, match="requires no gradient"):
            tg.draw(constant, **options)


# --- Folding and parts --------------------------------------------------------------------------


def test_modules_nest_and_fold_with_their_parameters():
    graph = Deep(2).graph(np.ones((3, 5)))
    titles = {g.title: g.parent for g in graph.groups}
    assert titles["steps.0.inner: Linear"] == graph.groups[2].id
    assert graph.dot().count("subgraph cluster_") == len(graph.groups)

    folded = graph.fold(depth=1)
    assert [v.title for v in folded.nodes if v.kind == "fold"] == [
        "first: Linear", "steps.0: Step", "steps.1: Step",
    ]  # fmt: skip
    first = box(folded, "first: Linear")
    assert first.lines == ("2 ops", "24 parameters")
    assert not [v for v in folded.nodes if v.kind == "parameter"]

    linear = ["first: Linear", "steps.0.inner: Linear", "steps.1.inner: Linear"]
    for patterns, titles in {
        "*Linear": linear,
        "Linear": linear,
        "first": ["first: Linear"],
        "steps.?": ["steps.0: Step", "steps.1: Step"],
        ("first: *", "St*"): ["first: Linear", "steps.0: Step", "steps.1: Step"],
        "inner": [],
    }.items():
        some = graph.fold(patterns=patterns)
        assert [v.title for v in some.nodes if v.kind == "fold"] == titles
    (whole,) = [v for v in graph.fold(depth=0).nodes if v.kind == "fold"]
    assert whole.title == "Deep"


def test_repetitions_fold_into_one_box_with_their_count():
    graph = Deep(12).graph(np.ones((3, 5)))
    folded = graph.fold(repeats=True)
    many = box(folded, "12 \N{MULTIPLICATION SIGN} Step")
    assert many.lines == ("48 ops", "240 parameters")
    model = Deep(12)
    assert tg.draw(model(np.ones((3, 5))), fold="repeats").nodes[-1].title == many.title


def test_shared_parameters_stay_outside_of_a_repetition():
    cell, h = Step(), leaf(np.ones((1, 4)), "h0")
    for _ in range(5):
        h = cell(h)
    folded = tg.draw(h).fold(repeats=True)
    assert {v.title for v in folded.nodes} == {
        "h0",
        "inner.weight",
        "inner.bias",
        "5 \N{MULTIPLICATION SIGN} Step",
    }


def test_parts_that_are_wired_otherwise_are_no_repetition():
    x = leaf(1.0, "x")
    a = x
    for i in range(6):
        b = tg.sin(a)
        c = tg.cos(b if i % 2 else a)
        a = b + c
    assert not [v for v in tg.draw(a).fold(repeats=True).nodes if v.kind == "fold"]


def test_what_leaves_a_box_for_one_op_is_one_arrow():
    x = tg.Tensor(np.ones(3), requires_grad=True)
    graph = tg.stack([x * i for i in range(30)]).graph().fold(repeats=True)
    assert len(graph.edges) == 3
    assert graph.text().count("30 \N{MULTIPLICATION SIGN} reshape") == 1
    layer = nn.Linear(3, 3, rng=0)
    y = layer(np.ones((2, 3)))
    square = tg.draw(y * y, names=layer, depth=0)
    assert len(square.edges) == 2


def test_a_large_graph_folds_by_itself_and_says_so():
    graph = Deep(60).graph(np.ones((3, 5)))
    assert len(graph.nodes) <= 200
    assert re.search(r"folded from (\d+) boxes to \d+; max_nodes=\1 shows all", graph.caption)
    assert len(Deep(60).graph(np.ones((3, 5)), max_nodes=1000).nodes) > 300


def test_a_large_backward_folds_before_the_whole_forward_does():
    sizes = range(3, 12)
    model = nn.Sequential(*(nn.Linear(n, n + 1, rng=n) for n in sizes))
    graph = tg.draw(tg.tanh(model(np.ones((2, 3)))).sum(), order="both", max_nodes=50)
    assert [v.title for v in graph.nodes if v.kind == "fold"] == ["backward"]
    assert {v.title for v in graph.nodes} >= {"layers.0.weight", "layers.8.bias", "tanh"}


def test_marks_survive_folding():
    model = Deep(5)
    model.steps[3].inner.weight.data[...] = np.nan
    (fold,) = [v for v in model.graph(np.ones((3, 5)), depth=0).nodes if v.kind == "fold"]
    assert any("steps.3.inner.weight: NaN in 16 of 16" in mark for mark in fold.marks)


def test_around_and_between_give_parts():
    x = leaf(1.0, "x")
    y = tg.exp(tg.cos(tg.sin(x))) * tg.tan(x)
    graph = tg.draw(y)
    assert {v.title for v in graph.around("cos", 1).nodes} == {"sin", "cos", "exp"}
    assert {v.title for v in graph.between("sin", "multiply").nodes} == {
        "sin", "cos", "exp", "multiply",
    }  # fmt: skip
    with pytest.raises(ValueError, match="no node is called 'relu'; there are cos, exp"):
        graph.around("relu")
    with pytest.raises(ValueError, match="nothing leads from 'multiply' to 'sin'"):
        graph.between("multiply", "sin")


def test_the_caption_of_a_part_says_so():
    x = leaf(1.0, "x")
    graph = tg.draw(tg.cos(tg.sin(x) * x))
    whole = f"in all {graph.caption}"
    assert graph.around("cos", 1).caption == f"2 of 4 boxes; {whole}"
    assert graph.between("sin", "multiply").caption == f"2 of 4 boxes; {whole}"


def test_diff_says_what_was_added_and_removed():
    x = leaf([1.0, 2.0], "x")
    graph = tg.draw(tg.sin(x).sum()).diff(tg.draw(tg.relu(tg.cos(x)).sum()))
    assert {(v.title, v.change) for v in graph.nodes if v.change} == {
        ("cos", "added"), ("relu", "added"), ("sin", "removed"),
    }  # fmt: skip
    assert graph.caption == "2 nodes added, 1 removed"
    assert "+ added" in graph.text()
    assert 'color="#1b7837"' in graph.dot()
    same = tg.draw(x * 2)
    assert not [v for v in same.diff(tg.draw(x * 2)).nodes if v.change]
    with pytest.raises(TypeError, match="diff: got Tensor; want a Graph"):
        same.diff(x * 2)


@st.composite
def networks(draw):
    """Draw outputs of random ops, in modules and outside."""
    values = [leaf(np.ones((2, 4)), "x")]
    steps = [Step(0), Step(1)]
    for _ in range(draw(st.integers(1, 25))):
        a, b = (values[-1 - draw(st.integers(0, min(3, len(values) - 1)))] for _ in "ab")
        kind = draw(st.integers(0, 4))
        ops = (tg.add, lambda a, b: tg.tanh(a), lambda a, b: a * 0.5, lambda a, b: steps[0](a),
               lambda a, b: steps[1](b))  # fmt: skip
        values.append(ops[kind](a, b))
    return values[-1]


@given(networks(), st.booleans(), st.integers(0, 2), st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_folding_keeps_arrows_onward_and_loses_no_op(y, repeats, depth, most):
    graph = tg.draw(y, order="both")
    for folded in (graph.fold(depth=depth, repeats=repeats), tg.draw(y, max_nodes=most)):
        ids = {v.id for v in folded.nodes}
        sorter = TopologicalSorter({id: () for id in ids})
        for edge in folded.edges:
            assert {edge.tail, edge.head} <= ids
            sorter.add(edge.head, edge.tail)
        sorter.prepare()
        assert {v.group for v in folded.nodes} <= {"", *(g.id for g in folded.groups)}
    ops = sum(v.cost.ops for v in graph.nodes)
    assert sum(v.cost.ops for v in graph.fold(depth=depth, repeats=repeats).nodes) == ops


# --- Always the same, and at any size -----------------------------------------------------------


def test_the_dot_of_a_small_model_is_that_of_the_snapshot():
    graph = tg.draw(Exact()(np.array([[1.0, 2.0]])), show=("shape", "value", "grad"))
    path = SNAPSHOTS / "exact.dot"
    assert graph.dot() == path.read_text(), f"if the change is meant, write the DOT to {path}"


PROGRAM = """
import numpy as np
from tinygrad_hw import draw, models, ops
from tinygrad_hw.models import example_loss
for model in (models.MLP(rng=0), models.CNN(rng=0)):
    loss, names = example_loss(model)
    for order in ("forward", "backward", "both"):
        graph = draw(loss, names=names, order=order, show=("shape", "value", "stats", "saved"))
        print(graph.dot(), graph.fold(depth=1, repeats=True).dot(), graph.text())
"""


def test_every_process_draws_the_same_bytes():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10_000


def test_doublings_are_walked_once():
    x = leaf(1.0, "x")
    for _ in range(18):
        x = x + x
    graph = tg.draw(x)
    assert (len(graph.nodes), len(graph.edges)) == (19, 36)
    assert graph.dot().count(" -> ") == 36


def test_a_long_chain_does_not_recurse():
    x = leaf(1.0, "x")
    for _ in range(1200):
        x = tg.sin(x)
    graph = tg.draw(x, max_nodes=2000)
    assert len(graph.nodes) == 1201
    assert graph.dot().count(" -> ") == 1200
    assert len(graph.text().splitlines()) == 1202
    assert json.loads(graph.json())["nodes"][-1]["title"] == "sin"


def test_a_hundred_thousand_nodes_fold():
    x = y = leaf(1.0, "x")
    for _ in range(50_000):
        x, y = tg.sin(y), x + y
    graph = tg.draw(x + y)
    assert len(graph.nodes) <= 200
    assert "folded from 100," in graph.caption
    assert graph.dot().count(" -> ") < 1000


@pytest.mark.parametrize("collecting", [True, False])
def test_a_picture_leaves_the_collector_of_cycles_as_it_was(collecting):
    try:
        (gc.enable if collecting else gc.disable)()
        tg.draw(leaf(1.0, "x"))
        with pytest.raises(TypeError):
            tg.draw(3)
        assert gc.isenabled() is collecting
    finally:
        gc.enable()


# --- A forward that raised ----------------------------------------------------------------------


def failing_calls():
    h = tg.relu(leaf(np.ones((2, 3)), "x"))

    @tg.primitive
    def odd(x):
        raise LookupError("odd")

    @tg.primitive
    def odder(x):
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "odder")

    def strict():
        with np.errstate(all="raise"):
            tg.log(h * 0.0)

    def watched():
        with tg.debug():
            tg.log(h - 3.0)

    return {
        "matmul": lambda: h @ h,
        "add": lambda: h + np.ones(5),
        "reshape": lambda: h.reshape(7),
        "getitem": lambda: h[9],
        "transpose": lambda: h.transpose(0, 5),
        "sum": lambda: h.sum(axis=4),
        "softmax_cross_entropy": lambda: tg.softmax_cross_entropy(h, np.array([1, 7])),
        "linear": lambda: nn.Linear(4, 5)(h),
        "stack": lambda: tg.stack([h, h[0]]),
        "odd": lambda: odd(h),
        "odder": lambda: odder(h),
        "log": strict,
        "log ": watched,
    }


@pytest.mark.parametrize("op", failing_calls())
def test_an_error_carries_the_graph_up_to_the_call_that_failed(op):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (of many kinds)
        failing_calls()[op]()
    graph = caught.value.graph
    assert graph.nodes[-1].title == op.strip()
    assert graph.nodes[-1].marks
    assert {"x", "relu"} <= {v.title for v in graph.nodes}
    assert any(edge.head == graph.nodes[-1].id for edge in graph.edges)


def test_an_error_of_a_kind_of_the_users_stays_one():
    class Mine(Exception):
        def __init__(self, code, text):
            super().__init__(code, text)
            self.code = code

    @tg.primitive
    def picky(x):
        raise Mine(7, "no")

    with pytest.raises(Mine) as caught:
        picky(leaf(1.0, "x"))
    assert caught.value.code == 7
    assert [v.title for v in caught.value.graph.nodes] == ["x", "picky"]


def test_values_that_differ_in_their_last_digit_are_drawn():
    x = tg.Tensor([1.0, 1.0, np.nextafter(1.0, 2.0)], requires_grad=True)
    (vertex,) = (v for v in tg.draw(x * 2.0).nodes if v.kind == "parameter")
    assert sum(vertex.histogram.counts) == 3
