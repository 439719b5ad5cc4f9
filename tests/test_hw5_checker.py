"""The checker of homework files: wrong ones are named and explained, right ones pass."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import types
import warnings
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from hw5_mutants import HW5, MUTANTS, TRAINING, mutated

from tinygrad_hw.cli import main
from tinygrad_hw.testing.hw5_checker import (
    ASSIGNED,
    HANDOUT,
    CouldNotRun,
    Limits,
    check_file,
    driver,
    worker,
)

SOLUTIONS = Path(__file__).parent / "solutions"
EINSUM = (SOLUTIONS / "einsum.py").read_text()
# To look for its decay takes ten thousand steps.
WITHOUT_DECAY = EINSUM.replace("decay_rate=0.95", "decay=1.0").replace("decay_rate", "decay")
# On a slow machine a thousand steps may take longer than a student's training is given.
PATIENT = Limits(seconds=90.0, train_seconds=60.0)
# One wrong version of each function at a time: they do not see each other.
ROUNDS = [
    [mutant for mutant in mutants if mutant is not None]
    for mutants in zip_longest(
        *([m for m in MUTANTS if m.function == name] for name in HANDOUT if "train" not in name)
    )
]


@pytest.fixture
def check(tmp_path):
    def check(source, functions=None, limits=None):
        path = tmp_path / "hw5.py"
        path.write_text(source)
        return check_file(path, functions, limits)

    return check


@pytest.fixture
def check_here(check, monkeypatch):
    """The same without processes, for files that do no more than compute."""

    def run(job):
        said = []
        monkeypatch.setattr(worker.Absent, "loading", True)
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(None):
            worker.work(job, types.ModuleType("hw5"), lambda *m: said.append(json.dumps(m)))
        return [json.loads(message) for message in said], driver.Outcome()

    monkeypatch.setattr(driver, "run", run)
    monkeypatch.setattr(np.random, "default_rng", np.random.default_rng)
    worker.fix_generators()
    for limit in ("limit_time", "limit_memory"):
        monkeypatch.setattr(worker, limit, lambda most: None)
    return check


def verdicts(report):
    return {function.name: function.verdict for function in report.functions}


def example_of(report, name):
    (function,) = (function for function in report.functions if function.name == name)
    return function.failure


def own_version(name, body):
    """hw5.py with another version of a function, which may call the right one as ``RIGHT``."""
    parameters = ", ".join(HANDOUT[name].parameters)
    source = HW5.read_text().replace('if __name__ == "__main__":', "if False:")
    return f"{source}\nRIGHT = {name}\ndef {name}({parameters}):\n    {body}\n"


# --- Right and wrong --------------------------------------------------------------------------


def test_the_projects_own_file_passes():
    report = check_file(HW5)
    assert verdicts(report) == dict.fromkeys(HANDOUT, "ok")
    assert report.ok
    assert report.seconds < 30


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 90
    assert {mutant.function for mutant in MUTANTS} >= set(ASSIGNED)


@pytest.mark.parametrize("mutants", ROUNDS, ids=range(len(ROUNDS)))
def test_wrong_functions_are_named_and_explained(check_here, mutants):
    # Infer functions are judged only once the functions that they use are right.
    for kind in (False, True):
        chosen = [m for m in mutants if m.function.startswith("infer") is kind]
        if not chosen:
            continue
        names = [m.function for m in chosen]
        report = check_here(mutated(*chosen), names if kind else ASSIGNED | dict.fromkeys(names))
        assert sorted(report.failing) == sorted(names)
        for mutant in chosen:
            failure = example_of(report, mutant.function)
            assert mutant.likely in failure.likely
            assert failure.expected != failure.got


@pytest.mark.parametrize("mutant", TRAINING, ids=lambda mutant: mutant.instead)
def test_wrong_training_is_named_and_explained(check_here, mutant):
    name = "train_cnn" if "g" in mutant.instead else "train_mlp"
    report = check_here(mutated(mutant), [name], PATIENT)
    assert report.failing == [name]
    assert mutant.likely in example_of(report, name).likely


# By what stands in einsum.py, what replaces it, and a word of the sentence about it.
STEPS = [
    ("relu_backward(dl_dh, a)", "dl_dh", "relu_backward is missing"),
    ("h = relu(a)", "h = a", "ReLU is missing"),
    ("relu_backward(dl_dh, a)", "relu_backward(a, dl_dh)", "swapped"),
    ("mini_batch_y[i %", "mini_batch_y[(i + 1) %", "labels"),
    ("total += part", "total[:] = total * (part.shape != (30, 1)) + part", "last image"),
    ("fc_backward(relu_", "fc_backward(0.5 * relu_", "w1 and b1 are 0.5 times"),
    ("p -= learning_rate *", "p -= learning_rate * (1 + (p is w1)) *", "w1 are 2 times"),
    ("total += part", "total += part; w2 -= 0.1 * second[0]", "first step"),
    ("* total / x.shape[1]", "* total / 32", "R is fixed at 32"),
    ("[i % len(mini_batch_x)]", "[2 * i % len(mini_batch_x)]", "only 1 and 3"),
    ("[i % len(mini_batch_x)]", "[i % (len(mini_batch_x) - 1)]", "only 1 and 2 and 3"),
    ("[i % len(mini_batch_x)]", "[min(i, len(mini_batch_x) - 1)]", "number 4 alone"),
    ("p -= learning_rate *", "p -= 0.1 *", "learning_rate changes nothing"),
    ("losses = np", "num_iters = 20; losses = np", "num_iters changes nothing"),
    ("range(num_iters)", "range(min(num_iters, 3))", "no step after number 3"),
    ("w1, b1 = 0.1 *", "w1, b1 = 0.0 *", "Gaussian"),
    ("losses[i] += loss / x.shape[1]", "pass", "losses is not filled in"),
    ("losses[i] += loss", "losses[i] += np.nan * loss", "losses is not filled in"),
    ("w2, b2, losses", "w2, b2, None", "losses is not filled in"),
    ("i % 1000 == 0", "i == 1000", "decays once only"),
    ("i % 1000 == 0", "i % 500 == 0", "other steps"),
    ("p -= learning_rate *", "p -= learning_rate / (1 + i) *", "step 2"),
]


@pytest.mark.parametrize(("line", "instead", "likely"), STEPS)
def test_a_training_that_is_not_algorithm_1_is_wrong_though_its_loss_falls(
    check_here, line, instead, likely
):
    assert line in EINSUM
    report = check_here(EINSUM.replace(line, instead), ["train_mlp"], PATIENT)
    assert report.failing == ["train_mlp"]
    assert likely in example_of(report, "train_mlp").likely


CHOICES = [
    ("k = np.random.randint(len(mini_batch_x))", "order of its own"),
    ("k = np.random.default_rng(i // 4).permutation(len(mini_batch_x))[i % 4]", "order of its own"),
    ("k = (i + 1) % len(mini_batch_x)", ""),
    ("k = -1 - i % len(mini_batch_x)", "order of its own"),
]


@pytest.mark.parametrize(("order", "note"), CHOICES)
def test_another_order_of_the_mini_batches_is_right(check_here, order, note):
    source = EINSUM.replace(
        "        x, y = mini_batch_x[", f"        {order}\n        x, y = mini_batch_x["
    )
    source = source.replace("[i % len(mini_batch_x)]", "[k]")
    report = check_here(source, ["train_mlp"], Limits(train_seconds=1.0))
    assert verdicts(report) == {"train_mlp": "ok"}
    assert note in " ".join(report.functions[0].notes)


def test_mini_batches_put_together_anew_are_right_with_a_note(check_here):
    source = EINSUM
    anew = """
        rng = np.random.default_rng(i)
        chosen = rng.permutation(np.hstack(mini_batch_x).shape[1])[:5]
        x, y = np.hstack(mini_batch_x)[:, chosen], np.hstack(mini_batch_y)[:, chosen]
        totals"""
    report = check_here(source.replace("\n        totals", anew), ["train_mlp"])
    assert verdicts(report) == {"train_mlp": "ok"}
    assert "of its own" in report.functions[0].notes[0]


def test_iterations_over_all_mini_batches_are_right_with_a_note(check_here):
    source = EINSUM
    passes = "range(num_iters * len(mini_batch_x)):"
    source = source.replace("range(num_iters):", passes).replace("losses[i] +=", "losses[0] +=")
    report = check_here(source, ["train_mlp"])
    assert verdicts(report) == {"train_mlp": "ok"}
    assert "passes over all mini-batches" in report.functions[0].notes[0]


@pytest.mark.parametrize(
    ("steps", "note"),
    [("1, num_iters", "one step fewer"), ("-1, num_iters", "one step more")],
)
def test_a_step_more_or_fewer_is_right_with_a_note(check_here, steps, note):
    source = EINSUM
    report = check_here(source.replace("range(num_iters)", f"range({steps})"), ["train_mlp"])
    assert verdicts(report) == {"train_mlp": "ok"}
    assert note in report.functions[0].notes[0]


def test_a_training_that_comes_to_rest_is_right(check_here):
    # With weights that are all positive most ReLUs are off before long.
    source = EINSUM.replace("0.1 * np.random.randn(30, 196)", "np.random.rand(30, 196)")
    assert check_here(source, ["train_mlp"], PATIENT).ok
    stopping = "        if i and losses[i - 1] < 1:\n            break\n        x, y = mini"
    source = EINSUM.replace("i % 1000 == 0", "i % 1000 == 999")
    report = check_here(source.replace("        x, y = mini", stopping), ["train_mlp"], PATIENT)
    assert report.ok
    assert "stops before" in report.functions[0].notes[-1]


def test_a_training_without_end_is_too_slow(check):
    source = EINSUM.replace("for i in range(num_iters):", "i = 0\n    while i < num_iters:")
    report = check(source, ["train_mlp"], Limits(seconds=0.5))
    assert verdicts(report) == {"train_mlp": "too slow"}


@pytest.mark.parametrize(
    ("line", "instead", "note"),
    [
        ("losses = np.zeros((num_iters, 1))", "losses = np.zeros(num_iters)", "shape (5,)"),
        ("loss / x.shape[1]", "loss", "other than the mean loss"),
        ("w2, b2, losses", "w2, b2, losses[::2]", "3 of 5 entries"),
    ],
)
def test_other_losses_are_right_with_a_note(check_here, line, instead, note):
    assert line in WITHOUT_DECAY
    report = check_here(WITHOUT_DECAY.replace(line, instead), ["train_mlp"])
    assert verdicts(report) == {"train_mlp": "ok"}
    assert note in " ".join(report.functions[0].notes)


def test_momentum_is_right_with_a_note(check_here):
    source = EINSUM.replace("    losses = np", "    speeds = [0.0] * 4\n    losses = np", 1)
    plain = "for p, total in zip((w1, b1, w2, b2), totals, strict=True):"
    source = source.replace(plain, "for n, p in enumerate((w1, b1, w2, b2)):")
    step = "p -= learning_rate * total / x.shape[1]"
    moved = "speeds[n] = 0.9 * speeds[n] + totals[n] / x.shape[1]; p -= learning_rate * speeds[n]"
    report = check_here(source.replace(step, moved), ["train_mlp"])
    assert verdicts(report) == {"train_mlp": "ok"}
    assert "momentum 0.9" in report.functions[0].notes[0]
    carried = check_here(source.replace(step, moved.replace("0.9", "1.0")), ["train_mlp"])
    assert "not set to 0" in example_of(carried, "train_mlp").likely


DOWN_COLUMNS = """
def train_cnn(mini_batch_x, mini_batch_y, learning_rate=0.1, num_iters=10):
    w_conv, b_conv = np.random.randn(3, 3, 1, 3), np.zeros((3, 1))
    w_fc, b_fc = np.random.randn(10, 147), np.zeros((10, 1))
    losses = []
    for i in range(num_iters):
        x, y = mini_batch_x[i % len(mini_batch_x)], mini_batch_y[i % len(mini_batch_x)]
        totals = [0.0] * 4
        losses.append([0.0])
        for n in range(x.shape[1]):
            image = x[:, n].reshape((14, 14, 1), order="F")
            a = conv(image, w_conv, b_conv)
            p = pool2x2(relu(a))
            f = p.reshape((-1, 1), order="F")
            loss, dl_dy = loss_cross_entropy_softmax(fc(f, w_fc, b_fc), y[:, [n]])
            losses[-1][0] += loss / x.shape[1]
            dl_df, *second = fc_backward(dl_dy, f, w_fc, b_fc)
            dl_dh = pool2x2_backward(dl_df.reshape(p.shape, order="F"), relu(a))
            first = conv_backward(relu_backward(dl_dh, a), image, w_conv, b_conv)
            totals = [t + part for t, part in zip(totals, [*first, *second])]
        for w, total in zip((w_conv, b_conv, w_fc, b_fc), totals):
            w -= learning_rate / x.shape[1] * total
    return w_conv, b_conv, w_fc, b_fc, losses
"""


def test_images_down_their_columns_are_right(check_here):
    source = EINSUM + DOWN_COLUMNS
    report = check_here(source, ["train_cnn"], Limits(train_seconds=1.0))
    assert report.functions[0].line().split() == ["train_cnn", "ok"]


def test_a_training_that_starts_anew_each_time_is_judged_by_its_loss_with_a_note(check):
    source = EINSUM.replace(
        "import numpy as np", "import numpy as np\nRNG = np.random.default_rng()"
    )
    source = source.replace("np.random.randn(30, 196)", "RNG.normal(0, 1, (30, 196))")
    report = check(source, ["train_mlp"], Limits(train_seconds=1.0))
    assert verdicts(report) == {"train_mlp": "ok"}
    assert "judged by its loss alone" in report.functions[0].notes[-1]


def test_a_file_that_lets_underflow_raise_is_compared_step_by_step(check):
    source = WITHOUT_DECAY.replace(
        "    losses = np.zeros", "    np.seterr(all='raise')\n    losses = np.zeros"
    )
    assert check(source, ["train_mlp"]).ok
    wrong = source.replace("relu_backward(dl_dh, a)", "dl_dh")
    assert check(wrong, ["train_mlp"]).failing == ["train_mlp"]


@pytest.mark.parametrize("name", ["fc", "pool2x2_backward"])
def test_only_what_is_wrong_is_named(check_here, name):
    mutant = next(m for m in MUTANTS if m.function == name)
    report = check_here(mutated(mutant))
    assert report.failing == [name]
    users = {user for user, entry in HANDOUT.items() if name in entry.uses}
    assert {n for n, verdict in verdicts(report).items() if verdict == "not judged"} == users


@pytest.mark.parametrize("style", ["loops", "einsum", "im2col"])
def test_right_solutions_of_any_style_pass(style):
    report = check_file(SOLUTIONS / f"{style}.py", limits=Limits(train_seconds=2.0))
    assert set(verdicts(report).values()) == {"ok"}
    assert set(verdicts(report)) >= {*ASSIGNED, "flattening"}


def test_the_example_runs_and_shows_the_mistake(check, tmp_path):
    mutant = next(m for m in MUTANTS if m.function == "conv_backward")
    report = check(mutated(mutant), ["conv_backward"])
    failure = example_of(report, "conv_backward")
    run = subprocess.run(
        [sys.executable, "-c", failure.example], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0
    shown = failure.got.split(":")[1]
    numbers = shown.replace(",", " ").replace("[", " ").replace("]", " ").split()
    assert [float(n) for n in numbers] == [
        float(n) for n in run.stdout.replace("[", " ").replace("]", " ").split()[: len(numbers)]
    ]


P = "p = np.exp(x - x.max()); p = p / p.sum(); "
MISTAKEN = [
    ("fc", "return w @ x + b.ravel()", "a flat (n,)"),
    ("fc", "return w @ x + b.T", "or a row"),
    ("fc", "return w[:, -1:] * x[-1] + b", "only the last input"),
    (
        "loss_cross_entropy_softmax",
        "p = np.exp(x - x.max()); p = p / p.sum(1); return -(y * np.log(p)).sum(), p[:, :1] - y",
        "sums over axis 0",
    ),
    (
        "conv",
        "y = RIGHT(x, w_conv, b_conv); return y[: x.shape[1], : len(x)]",
        "square images only",
    ),
    ("pool2x2", "y = RIGHT(x); y[1:] = 0; return y", "is the return inside it"),
    ("conv", "y = RIGHT(x, w_conv, b_conv); y.flat[1:] = 0; return y", "is the return inside it"),
    ("flattening", "return x.transpose(2, 0, 1).reshape(-1, 1)", "channel by channel"),
    ("get_mini_batch", "return RIGHT(im_train, label_train[[1]], batch_size)", "label_train[0, n]"),
    ("relu", "return numpy.maximum(x, 0)", "an import missing"),
    ("relu", "return np.vectorize(lambda v: v if v > 0 else 0)(x)", "np.vectorize"),
    ("relu", "return x if x > 0 else 0 * x", "whole array"),
    ("loss_cross_entropy_softmax", P + "return -np.log(p[0, 0]), p - y", "np.argmax(y)"),
    (
        "loss_cross_entropy_softmax",
        "p = np.exp(x - x.max(1)[:, None]); p = p / p.sum(); return -(y * np.log(p)).sum(), p - y",
        "taken from itself",
    ),
    (
        "loss_cross_entropy_softmax",
        P + "return -(y * np.log(p + 1e-9)).sum(), (np.diagflat(p) - p @ p.T) @ (-y / p)",
        "without a division",
    ),
    (
        "loss_cross_entropy_softmax",
        P + "return -(y * np.log(p + 1e-9)).sum(), (np.diagflat(p) - p @ p.T) @ (-y / (p + 1e-9))",
        "gradient is lost",
    ),
    (
        "conv",
        "y = RIGHT(x, w_conv, b_conv); y[-1] = 0; y[:, -1] = 0; return y",
        "end one too early",
    ),
    ("conv", "return RIGHT(x, w_conv, b_conv).transpose(2, 0, 1)", "in another order"),
    (
        "conv_backward",
        "g = dl_dy.copy(); g[-1] = 0; g[:, -1] = 0; "
        "return RIGHT(g, x, w_conv, b_conv)[0], dl_dy.sum((0, 1))[:, None]",
        "end one too early",
    ),
    (
        "conv_backward",
        "dw = np.zeros(w_conv.shape); h, w = w_conv.shape[:2]\n"
        "    for i, j in np.ndindex(len(x) - h + 1, x.shape[1] - w + 1):\n"
        "        dw += x[i : i + h, j : j + w, :, None] * dl_dy[i, j]\n"
        "    return dw, dl_dy.sum((0, 1))[:, None]",
        "padding is missing",
    ),
    (
        "conv_backward",
        "return RIGHT(dl_dy, x, w_conv, b_conv)[0], dl_dy.sum((0, 2))[:, None]",
        "wrong axes",
    ),
    (
        "conv_backward",
        "return RIGHT(dl_dy, x, w_conv, b_conv)[0], dl_dy[-1].sum(0)[:, None]",
        "only the last row",
    ),
    (
        "pool2x2",
        "H, W, C = x.shape; return x.reshape(H // 2, W // 2, 2, 2, C).max((2, 3))",
        "memory",
    ),
    ("pool2x2", "return np.zeros((len(x) / 2, 2, 2))", "// divides integers"),
    ("pool2x2_backward", "return RIGHT(dl_dy, np.maximum(x, 0))", "starts from 0"),
    (
        "pool2x2_backward",
        "return RIGHT(dl_dy, 0 * x + x.max(2)[..., None])",
        "all channels at once",
    ),
    (
        "pool2x2_backward",
        "y = 0 * x\n"
        "    for i, j, c in np.ndindex(dl_dy.shape):\n"
        "        k = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].argmax()\n"
        "        y[2 * i + k % 2, 2 * j + k // 2, c] = dl_dy[i, j, c]\n"
        "    return y",
        "are swapped",
    ),
    ("flattening_backward", "return dl_dy.reshape(x.T.shape).T", "down its columns"),
    (
        "get_mini_batch",
        "xs, ys = RIGHT(im_train, label_train, batch_size); "
        "return [a.squeeze() for a in xs], [a.squeeze() for a in ys]",
        "loses an axis",
    ),
    (
        "get_mini_batch",
        "xs, ys = RIGHT(im_train, label_train, batch_size); "
        "return xs, [np.vstack([a, 0 * a[:1]]) for a in ys]",
        "10 rows",
    ),
    (
        "get_mini_batch",
        "xs, ys = RIGHT(im_train, label_train, batch_size); end = im_train.shape[1] % batch_size; "
        "return (xs, ys) if end else ([*xs, xs[0][:, :0]], [*ys, ys[0][:, :0]])",
        "no images",
    ),
    ("get_mini_batch", "return map(str, 'ab'), {}", "no lists"),
]


@pytest.mark.parametrize(("name", "body", "likely"), MISTAKEN)
def test_believable_mistakes_are_explained(check_here, name, body, likely):
    report = check_here(own_version(name, body), [name])
    assert report.failing == [name]
    assert likely in example_of(report, name).likely


NO_FACTOR = [
    (
        "loss_cross_entropy_softmax",
        "p = np.exp(x - x.max()); p = p / p.sum(); return -np.log(p.max()), p - y",
    ),
    ("loss_cross_entropy_softmax", "p = np.exp(x - x.max()); p = p / p.sum(); return 0.7, p - y"),
    ("conv_backward", "dw, db = RIGHT(dl_dy, x, w_conv, b_conv); return dw, np.abs(db)"),
    ("pool2x2_backward", "d = RIGHT(dl_dy, x); return d * 0 if np.ptp(x) == 0 else d"),
]


@pytest.mark.parametrize(("name", "body"), NO_FACTOR)
def test_no_mistake_is_named_that_other_calls_belie(check_here, name, body):
    report = check_here(own_version(name, body), [name])
    assert report.failing == [name]
    likely = example_of(report, name).likely
    assert "factor" not in likely
    assert "slope" not in likely


# --- What the handout leaves open -------------------------------------------------------------

FC = "import numpy as np\ndef fc(x, w, b):\n    return np.dot(w, x) + b\n"
TEMPLATE = f"""
import cv2_that_is_not_here as cv2
import matplotlib.pyplot as plt
import main_functions as main
from tqdm import tqdm
{FC}
    print("never reached")
data = np.load("../data/mnist_train.npz")
main.main_mlp()
for i in tqdm(range(10**9)):
    pass
"""


@pytest.mark.parametrize(
    "body",
    [
        "return (w @ x + b).tolist()",
        "return (w @ x + b).astype(np.float32)",
        "print('x' * 100000); return w @ x + b",
        "return np.matrix(w) * np.matrix(x) + b",
    ],
)
def test_other_forms_of_a_right_result_pass(check_here, body):
    assert check_here(f"import numpy as np\ndef fc(x, w, b):\n    {body}\n", ["fc"]).ok


@pytest.mark.parametrize("form", ["[[l]]", "[l]", "l"])
def test_a_loss_of_any_shape_passes(check_here, form):
    source = f"""
import numpy as np
def loss_cross_entropy_softmax(x, y):
    p = np.exp(x - x.max())
    p = p / p.sum()
    l = -np.log(p[y == 1][0] + 1e-8)
    return np.array({form}), p - y
"""
    assert check_here(source, ["loss_cross_entropy_softmax"]).ok


def test_what_older_numpy_takes_passes_with_a_note(check):
    source = """
import numpy as np
def fc(x, w, b):
    y = np.zeros((len(w), 1))
    for i in range(len(w)):
        y[i, 0] = b[i]
        for j in range(len(x)):
            y[i, 0] += w[i, j] * float(x[j])
    return y
"""
    report = check(source, ["fc"])
    assert report.ok
    # Before 2.4 NumPy takes b[i] itself, and there is nothing to note.
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        assert "b[k, 0]" in report.functions[0].notes[0]
    assert check(source.replace("b[i]", "b"), ["fc"]).failing == ["fc"]
    timed = "def timed(f):\n    return lambda *a: f(*a)\n" + source.replace(
        "def fc", "@timed\ndef fc"
    )
    assert check(timed, ["fc"]).ok


@pytest.mark.parametrize(
    "body",
    [
        "y[0, 0], y[1, 0] = w[0] @ x + b[0], w[1] @ x + b[1]",
        "(k, *z[2:]), y[k, 0] = [0], w[0] @ x + b[0]; y[1, 0] = z[1] = w[1] @ x + b[1]",
        "y[0, 0], y[1, 0] = w @ x + b; print('%.3f, %s' % (w[0] @ x, 'and more'))",
        "y[:] = w @ x + b; y[:, 0] += math.log(math.exp(b[0])) - exp(math.log(b[0]))",
    ],
)
def test_what_older_numpy_takes_for_a_number_passes_wherever_it_stands(check_here, body):
    source = f"""
import math
from math import exp
import numpy as np
def fc(x, w, b):
    if len(w) > 2:
        return w @ x + b
    y, z = np.zeros((2, 1)), np.zeros(2)
    {body}
    return y
"""
    report = check_here(source, ["fc"])
    assert report.ok
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        assert "b[k, 0]" in report.functions[0].notes[0]
    else:
        assert not report.functions[0].notes


def test_a_long_sum_is_read(check):
    source = FC.replace("+ b", "+ b" + " + 0 * x[0]" * 800)
    assert check(source, ["fc"]).ok


@pytest.mark.parametrize("name", ["slice", "int", "float", "exp"])
def test_a_builtins_name_may_be_the_files_own(check_here, name):
    source = f"""
import numpy as np
def {name}(x, i, j):
    return x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
def pool2x2(x):
    y = np.zeros((len(x) // 2, x.shape[1] // 2, x.shape[2]))
    for i, j, c in np.ndindex(y.shape):
        part = {name}(x, i, j)
        y[i : i + 1, j, c] = part[:, :, c].max()
    return y
"""
    report = check_here(source, ["pool2x2"])
    assert report.ok
    assert not report.functions[0].notes


def test_sizes_of_the_homework_alone_are_told(check):
    source = """
import numpy as np
def pool2x2(x):
    y = np.zeros((7, 7, 3))
    for i, j, c in np.ndindex(7, 7, 3):
        y[i, j, c] = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].max()
    return y
"""
    report = check(source, ["pool2x2"])
    assert verdicts(report) == {"pool2x2": "raised"}
    assert "take all sizes from the arguments" in example_of(report, "pool2x2").likely


def test_a_flattening_down_the_columns_must_be_undone_down_the_columns(check):
    forth = "def flattening(x):\n    return x.reshape((-1, 1), order='F')\n"
    back = "def flattening_backward(dl_dy, x):\n    return dl_dy.reshape(x.shape, order='F')\n"
    names = ["flattening", "flattening_backward"]
    assert check(forth + back, names).ok
    assert check(forth + back.replace("'F'", "'C'"), names).failing == ["flattening_backward"]


def test_batches_in_one_array_pass(check):
    source = """
import numpy as np
def get_mini_batch(im_train, label_train, batch_size):
    order = np.random.permutation(im_train.shape[1])
    x, y = np.empty(-(-len(order) // batch_size), object), []
    for k in range(len(x)):
        part = order[k * batch_size : (k + 1) * batch_size]
        x[k] = im_train[:, part]
        y.append(np.eye(10, dtype=bool)[label_train[0, part]].T)
    return x, tuple(y)
"""
    assert check(source, ["get_mini_batch"]).ok


# --- Files as they come -----------------------------------------------------------------------


def test_a_file_whose_import_fails_is_judged_by_its_definitions(check):
    report = check(TEMPLATE, ["fc"])
    assert verdicts(report) == {"fc": "ok"}
    assert "line 2" in report.notes[0]
    assert any("main_functions" in note for note in report.notes)


def test_settings_of_any_form_are_definitions(check):
    source = """
import math
import numpy as np
import a_module_that_is_not_here
N, table = int(1e2), np.zeros(2)
scale = math.sqrt(float("4")) / 2
table[0] = scale
def fc(x, w, b):
    return w @ x + b * (N / 100) * table[0]
"""
    assert check(source, ["fc"]).ok


@pytest.mark.parametrize("returned", ["[w.T @ dl_dy]", "{1: dl_dy}", "dl_dy[0, 0]"])
def test_one_value_for_three_is_named(check, returned):
    source = f"def fc_backward(dl_dy, x, w, b):\n    return {returned}\n"
    likely = example_of(check(source, ["fc_backward"]), "fc_backward").likely
    assert likely == "it returns one value where 3 are due"


@pytest.mark.parametrize("ending", ["import sys; sys.exit(3)", "import os; os._exit(0)", "1 / 0"])
def test_a_file_that_ends_on_import_is_judged_by_its_definitions(check, ending):
    report = check(FC + ending, ["fc"])
    assert report.ok
    assert "only its definitions were run" in report.notes[0]


def test_a_file_that_trains_on_import_is_judged_by_its_definitions(check):
    report = check(f"{FC}while True:\n    pass\n", ["fc"], Limits(load_seconds=0.5))
    assert report.ok
    assert "took too long" in report.notes[0]


def test_files_that_import_each_other(check, tmp_path):
    helper = "from hw5 import fc\nimport numpy as np\ndef double(x):\n    return 2 * x\n"
    (tmp_path / "main_functions.py").write_text(helper)
    source = FC.replace("def fc", "from main_functions import double\ndef fc")
    report = check(source.replace("+ b", "+ double(b) - b"), ["fc"])
    assert report.ok


@pytest.mark.parametrize(
    "line", ["from . import helpers", "from .helpers import double", "from .. import helpers"]
)
def test_an_import_that_begins_with_a_dot_is_named(check, tmp_path, line):
    (tmp_path / "helpers.py").write_text("def double(x):\n    return 2 * x\n")
    called = "double" if "double" in line else "helpers.double"
    report = check(f"{line}\n{FC}def relu(x):\n    return {called}(x * (x > 0)) / 2\n")
    assert f"`{line}` failed" in report.notes
    assert verdicts(report)["fc"] == "ok"
    failure = example_of(report, "relu")
    assert "without the dot" in failure.likely
    assert "relative import" in failure.got


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def ReLU(x):\n    return x\n", "ReLU"),
        ("class Net:\n    @staticmethod\n    def relu(x):\n        return x\n", "Net.relu"),
        ("class Net:\n    class Layer:\n        def relu(self, x):\n            return x\n", ""),
        ("def conv_forward(x):\n    return x\n", ""),
    ],
)
def test_a_missing_function_is_sought_under_other_names(check, source, found):
    (report,) = check(source, ["relu"]).functions
    assert report.verdict == "missing"
    wanted = [f"there is {found}: is it this one, by another name?"] if found else []
    assert list(report.notes) == wanted


def test_a_file_in_utf_16_is_told(tmp_path):
    path = tmp_path / "hw5.py"
    path.write_text(FC, encoding="utf-16")
    with pytest.raises(CouldNotRun, match=r"UTF-16.*save the file as UTF-8"):
        check_file(path)


def test_another_hw5_does_not_stand_in(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text("try:\n    from hw5 import *\nexcept ImportError:\n    pass\n")
    assert verdicts(check_file(path, ["fc"])) == {"fc": "missing"}


@pytest.mark.parametrize(
    ("body", "verdict", "likely"),
    [
        ("while True: pass", "too slow", "endless loop"),
        ("import time; time.sleep(100)", "too slow", "endless loop"),
        ("import os; os._exit(0)", "raised", ""),
        ("import os; os.abort()", "raised", ""),
        ("exit()", "raised", "exit"),
        ("return [0] * 10**10", "raised", "memory"),
        ("return np.zeros((10**6, 10**6))", "raised", "an array far too large"),
        ("return fc(x, w, b)", "raised", "without end"),
        ("return input()", "raised", "waits for input"),
        ("return w @ x + np.loadtxt('bias.txt')", "raised", "opens a file"),
        ("return undefined", "raised", "not defined"),
        ("return w @ x.T", "raised", "shapes do not fit"),
        ("import not_a_module", "raised", "module that is not here"),
        ("from .helpers import double", "raised", "without the dot"),
        ("pass", "wrong", "return missing"),
        ("return w @ x + np.nan", "wrong", "NaN"),
        ("return 'a'", "wrong", "no array"),
        ("return w @ x + b + 0j", "wrong", "no array of real numbers"),
        ("return np.zeros((2000, 1000))", "wrong", "its shape"),
        ("return (i for i in iter(int, 1))", "wrong", "shape"),
    ],
)
def test_what_a_function_can_do_instead_of_returning(check, body, verdict, likely):
    fc = f"import numpy as np\ndef fc(x, w, b):\n    {body}\n"
    relu = "def relu(x):\n    return x * (x > 0)\n"
    report = check(fc + relu, ["fc", "relu"], Limits(seconds=0.4, bytes=2**28))
    assert verdicts(report) == {"fc": verdict, "relu": "ok"}
    assert likely in example_of(report, "fc").likely


KEEPING = [
    """
total = np.zeros((1, 1))
def fc_backward(dl_dy, x, w, b):
    global total
    total = dl_dy @ x.T + (total if total.shape == w.shape else 0)
    return w.T @ dl_dy, total, dl_dy
""",
    """
def fc_backward(dl_dy, x, w, b, totals={}):
    totals[w.shape] = totals.get(w.shape, 0) + dl_dy @ x.T
    return w.T @ dl_dy, totals[w.shape], dl_dy
""",
]


@pytest.mark.parametrize("source", KEEPING)
def test_what_a_function_keeps_from_call_to_call_is_told(check, tmp_path, source):
    report = check(f"import numpy as np\n{source}", ["fc_backward"])
    assert report.failing == ["fc_backward"]
    failure = example_of(report, "fc_backward")
    assert "from call to call" in failure.likely
    run = [sys.executable, "-c", failure.example]
    shown = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True).stdout
    _, numbers = failure.got.split(":")
    assert "".join(numbers.split()).replace(",", "") in "".join(shown.split())


@pytest.mark.parametrize("name", [n for n in HANDOUT if "train" not in n])
def test_what_is_kept_for_a_shape_is_told(check_here, tmp_path, name):
    body = "key = tuple(map(np.shape, {0})); return KEPT.setdefault(key, RIGHT({1}))"
    names = ", ".join(HANDOUT[name].parameters)
    report = check_here(own_version(name, body.format(f"[{names}]", names)) + "KEPT = {}\n", [name])
    assert report.failing == [name]
    failure = example_of(report, name)
    assert "from call to call" in failure.likely
    assert failure.example.count(f"= {name}(") == 2
    run = [sys.executable, "-c", failure.example]
    assert subprocess.run(run, cwd=tmp_path, capture_output=True).returncode == 0


LEANING = [
    (
        "relu_backward",
        """
mask = None
def relu(x):
    global mask
    mask = x > 0
    return x * mask
def relu_backward(dl_dy, x):
    return dl_dy * mask
""",
        "once relu was called",
    ),
    (
        "relu",
        """
y = None
def relu(x):
    global y
    y = np.zeros(x.shape) if y is None else y
    y[...] = np.maximum(x, 0)
    return y
""",
        "from call to call",
    ),
]


@pytest.mark.parametrize(("name", "source", "likely"), LEANING)
def test_what_a_function_needs_of_other_calls_is_told(check, name, source, likely):
    report = check(f"import numpy as np\n{source}")
    assert verdicts(report)[name] == "raised"
    assert likely in example_of(report, name).likely


@pytest.mark.parametrize("parameters", ["x", "x, dl_dy", "dl_dy, x, y, z"])
def test_wrong_parameters_are_told(check, parameters):
    report = check(f"def relu_backward({parameters}):\n    return x\n", ["relu_backward"])
    likely = example_of(report, "relu_backward").likely
    assert f"its parameters are ({parameters})" in likely
    assert "(dl_dy, x)" in likely


@pytest.mark.parametrize("dtype", ["int", "np.uint8"])
@pytest.mark.parametrize(("name", "body"), [("pool2x2", "RIGHT(x)"), ("relu", "x * (x > 0)")])
def test_arrays_of_integers_are_told(check_here, name, body, dtype):
    source = f"""
import numpy as np
def RIGHT(x):
    return np.maximum(x[:, ::2], x[:, 1::2]).reshape(len(x) // 2, 2, -1, x.shape[2]).max(axis=1)
def {name}(x):
    return ({body}).astype(int).astype({dtype})
"""
    assert "one of integers" in example_of(check_here(source, [name]), name).likely


OF_NO_SIZE = {
    # Any winner is right where all entries of a window are equal.
    "pool2x2_backward": """
def pool2x2_backward(dl_dy, x):
    dl_dx = np.zeros(x.shape)
    for i, j, c in np.ndindex(dl_dy.shape):
        k = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].argmax()
        dl_dx[2 * i + k % 2, 2 * j + k // 2, c] = dl_dy[i, j, c]
    return dl_dx
""",
    # No entry of the larger calls is above 10.
    "relu": "def relu(x):\n    return np.clip(x, 0, 10)\n",
}


@pytest.mark.parametrize("name", OF_NO_SIZE)
def test_numbers_that_are_wrong_in_some_calls_say_nothing_of_sizes(check_here, name):
    report = check_here(f"import numpy as np\n{OF_NO_SIZE[name]}", [name])
    assert verdicts(report) == {name: "wrong"}
    assert "sizes" not in example_of(report, name).likely


def test_weights_in_a_dictionary_are_shown_as_they_came(check):
    source = EINSUM.replace("w1, b1, w2, b2, losses", "{'w1': 1}")
    assert example_of(check(source, ["train_mlp"]), "train_mlp").got == "{'w1': 1}"


def test_training_is_watched(check):
    own = """
def train_mlp(mini_batch_x, mini_batch_y):
    w1, b1 = np.random.default_rng(0).normal(0, 0.1, (30, 196)), np.zeros((30, 1))
    w2, b2 = np.random.default_rng(1).normal(0, 0.1, (10, 30)), np.zeros((10, 1))
    while True:
        for x, y in zip(mini_batch_x, mini_batch_y):
            a = fc(x, w1, b1)
            h = relu(a)
            loss, g = loss_cross_entropy_softmax(fc(h, w2, b2), y)
            g, dw2, db2 = fc_backward(g, h, w2, b2)
            _, dw1, db1 = fc_backward(relu_backward(g, a), x, w1, b1)
            for p, d in ((w1, dw1), (b1, db1), (w2, dw2), (b2, db2)):
                p -= 0.1 / 32 * d
"""
    name = ["train_mlp"]
    source = HW5.read_text().replace('if __name__ == "__main__":', f"{own}\nif False:")
    report = check(source, name, Limits(train_seconds=0.5))
    assert verdicts(report) == {"train_mlp": "ok"}
    assert "stopped after" in report.functions[0].notes[0]
    up = check(source.replace("p -= 0.1", "p += 0.1"), name, Limits(train_seconds=0.5))
    assert verdicts(up) == {"train_mlp": "wrong"}
    straight = check(source.replace("relu_backward(g, a)", "g"), name, Limits(train_seconds=0.5))
    assert "relu_backward is missing" in example_of(straight, "train_mlp").likely
    zeros = source.replace("normal(0, 0.1, (30, 196))", "normal(0, 0.0, (30, 196))")
    equal = check(zeros, name, Limits(train_seconds=0.5))
    assert "all entries of w1 start at the same number" in example_of(equal, "train_mlp").likely


# --- The command ------------------------------------------------------------------------------


def test_the_command_says_one_line_per_function_then_what_is_wrong(capsys, tmp_path):
    path = tmp_path / "hw5.py"
    path.write_text(FC.replace("+ b", "- b"))
    assert main(["check", str(path)]) == 1
    text = capsys.readouterr().out
    assert [line.split()[:2] for line in text.splitlines()[2:12]] == [
        [name, "wrong" if name == "fc" else "missing"] for name in ASSIGNED
    ]
    for part in (
        "Likely: the bias b is subtracted",
        "y = fc(x, w, b)",
        "Expected",
        "Got",
        "Part 1",
    ):
        assert part in text


def test_the_command_gives_json_and_exit_statuses(tmp_path):
    def run(source, *options):
        path = tmp_path / "hw5.py"
        path.write_text(source)
        command = [sys.executable, "-m", "tinygrad_hw", "check", str(path), "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout)

    assert run(FC, "--function", "fc")[0] == 0
    status, found = run(FC.replace("+ b", ""), "--function", "fc")
    assert (status, found["failing"]) == (1, ["fc"])
    assert found["functions"][0]["failure"]["likely"] == "the bias b is missing"
    status, found = run("def fc(x, w, b):\n    print 'Python 2'\n")
    assert status == 2
    assert "line 2" in found["error"]


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize(("source", "status"), [("return x * (x > 0)", 0), ("return x", 1)])
def test_the_command_has_its_status_where_the_shell_has_closed_its_output(tmp_path, source, status):
    path = tmp_path / "hw5.py"
    path.write_text(f"def relu(x):\n    {source}\n")
    command = f"{sys.executable} -m tinygrad_hw check {path} --function relu <&- >&- 2>&-"
    assert subprocess.run(command, shell=True).returncode == status


@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_leaves_nothing_behind_when_it_is_stopped(tmp_path, number):
    scratch, path, mark = (tmp_path / name for name in ("scratch", "hw5.py", "running"))
    scratch.mkdir()
    path.write_text(
        f"import os, pathlib\ndef relu(x):\n"
        f"    pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n    while True: pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygrad_hw", "check", str(path), "--function", "relu"],
        env={**os.environ, "TMPDIR": str(scratch)},
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (number, signal.SIGTERM)],
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (mark.exists() and mark.read_text()):
        time.sleep(0.01)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == "tinygrad-hw check: interrupted\n"
    assert process.returncode == 128 + number
    assert list(scratch.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_the_command_cannot_run_what_is_no_file(capsys, tmp_path):
    assert main(["check", str(tmp_path / "absent.py")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["check", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(HW5), "--function", "absent"])
    assert exit_.value.code == 2


def test_the_value_of_an_assignment_comes_before_its_place(check):
    source = """
import numpy as np

seen = {}


def noted(x):
    seen["x"] = x
    return x


def fc(x, w, b):
    seen.clear()
    seen[len(seen)] = noted(x)  # Python computes the value first, so its number is 1.
    return w @ seen[1] + b
"""
    (fc,) = (function for function in check(source).functions if function.name == "fc")
    assert fc.verdict == "ok"


def test_no_python_is_no_verdict(check):
    with pytest.raises(CouldNotRun, match=r"line 1: .*SyntaxError: ") as caught:
        check("def fc(:\n")
    assert str(caught.value).count("line 1") == 1
    with pytest.raises(CouldNotRun, match=r"line 2: .*notebooks; delete the line"):
        check("import numpy as np\n%matplotlib inline\n" + FC)


def test_a_file_that_python_cannot_decode_is_no_verdict(tmp_path):
    path = tmp_path / "hw5.py"
    path.write_bytes(FC.encode() + b"# caf\xe9\n")
    with pytest.raises(CouldNotRun, match=r"line 4.*save the file as UTF-8"):
        check_file(path)
    path.write_bytes(b"# coding: latin-1\n" + FC.encode() + b"# caf\xe9\n")
    assert check_file(path, ["fc"]).ok
