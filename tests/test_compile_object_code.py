"""Native code on disk, and how Python calls it."""

import ast
import contextvars
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tinygrad_hw as tg

pytest.importorskip("numba")
pytest.importorskip("scipy")

RNG = np.random.default_rng(0)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A folder of its own, and nothing in memory."""
    from tinygrad_hw.compile.native import store

    monkeypatch.setenv("TINYGRAD_HW_CACHE", str(tmp_path))
    monkeypatch.setattr(store, "_loaded", {})
    return tmp_path


@pytest.fixture
def translations(monkeypatch):
    """The sources that were translated."""
    from tinygrad_hw.compile.native import translation

    asked = []
    translate = translation.translated
    monkeypatch.setattr(
        translation, "translated", lambda source: asked.append(source) or translate(source)
    )
    return asked


def forget(monkeypatch):
    from tinygrad_hw.compile.native import store

    monkeypatch.setattr(store, "_loaded", {})


def check_double():
    x = np.arange(5.0)
    np.testing.assert_allclose(
        tg.compile(lambda x: tg.exp(x) + x, backend="numba")(x), np.exp(x) + x
    )


STEP = """
import sys
import threading
import numpy as np
import tinygrad_hw as tg
w = tg.Tensor(np.ones((3, 2)), requires_grad=True)
adam = tg.optim.Adam([w], lr=0.1)

def learn(x):
    adam.zero_grad()
    tg.tanh(x @ w).sum().backward()
    adam.step()

learn = tg.compile(learn, backend="numba")
for _ in range(4):
    learn(np.arange(12.0).reshape(4, 3))
translates = "tinygrad_hw.compile.native.translation" in sys.modules
print(w.numpy().tolist(), translates, "numba" in sys.modules)
"""


def test_a_later_process_does_not_translate_and_none_needs_numba(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_HW_CACHE", str(tmp_path))
    first, second = (
        subprocess.run(
            [sys.executable, "-c", STEP],
            check=True,
            capture_output=True,
            text=True,
            # The order of sets of strings differs from process to process.
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in "12"
    )
    assert first.stdout.endswith("True False\n")
    assert second.stdout == first.stdout.replace("True False", "False False")


def test_what_is_on_disk_is_not_translated_again(cache, translations, monkeypatch):
    check_double()
    forget(monkeypatch)
    check_double()
    assert len(translations) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"[]\n" + content,
        lambda content: b"\xff\xfe",
    ],
    ids=["empty", "half", "another bit", "no facts", "no text"],
)
def test_damaged_files_are_written_anew(damage, cache, translations, monkeypatch):
    check_double()
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    for _ in range(2):
        forget(monkeypatch)
        check_double()
    assert len(translations) == 2
    assert list(cache.iterdir()) == [file]


def test_code_is_made_anew_when_a_file_that_says_how_has_changed():
    from tinygrad_hw.compile.native import store

    folder = Path(store.__file__).parent
    parts = {(folder / name).resolve() for name in store._PARTS}
    for part in parts:
        for node in ast.walk(ast.parse(part.read_text())):
            if part.parent != folder or not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = part.parents[node.level - 1] / (node.module or "").replace(".", "/")
            names = [alias.name for alias in node.names] if node.module is None else [""]
            for name in names:
                assert (base / name).with_suffix(".py") in parts


def test_a_folder_that_cannot_be_written_to_is_done_without(cache, monkeypatch):
    (cache / "file").write_text("")
    monkeypatch.setenv("TINYGRAD_HW_CACHE", str(cache / "file" / "inside"))
    check_double()


NEEDS = """
import sys
import threading
from tinygrad_hw.compile.native import object_code
name = sys.argv[1]
body = f"{{ call void @{name}() ret i64 0 }}"
text = f"declare void @{name}() define i64 @{object_code.ENTRY}() {body}"
object_code.loaded(object_code.emitted(text))
print("numba" in sys.modules)
"""


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("PyErr_Clear", "False"),
        ("numba_gil_ensure", "True"),
        ("nobody_has_this", "native code needs nobody_has_this"),
    ],
)
def test_functions_that_the_process_lacks_come_from_numba(function, answer):
    command = [sys.executable, "-c", NEEDS, function]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer in done.stdout + done.stderr


OUTLIVES = """
import ctypes
import gc
from tinygrad_hw.compile.native import object_code
answer = "declare ptr @PyLong_FromLongLong(i64)"
call = "%x = call ptr @PyLong_FromLongLong(i64 7) ret ptr %x"
text = f"{answer} define ptr @{object_code.ENTRY}(ptr %a, ptr %b, i64 %c) {{ {call} }}"
function = object_code.loaded(object_code.emitted(text.replace("ptr", POINTER)))
vars(object_code).clear()
gc.collect()
others = [ctypes.create_string_buffer(32) for _ in range(10_000)]
gc.collect()
print(function())
"""


def test_a_function_outlives_the_module_that_loaded_it():
    from llvmlite.binding import llvm_version_info

    command = OUTLIVES.replace("POINTER", repr("i8*" if llvm_version_info[0] < 17 else "ptr"))
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert done.stdout == "7\n", done.stderr


# --- Arguments ------------------------------------------------------------------------------------


def strange(x):
    """The same numbers in arrays that native code cannot take as they are."""
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    askew = bytes_[1:].view(x.dtype).reshape(x.shape)
    askew[...] = x
    backwards = x[::-1].copy()[::-1]
    spread = np.repeat(x, 2, axis=0)[::2]
    read_only = x.copy()
    read_only.flags.writeable = False
    of_a_subclass = x.view(np.recarray)
    return {
        "askew": askew,
        "backwards": backwards,
        "spread": spread,
        "by columns": np.asfortranarray(x),
        "read-only": read_only,
        "subclass": of_a_subclass,
    }


def test_arrays_that_lie_otherwise(cache):
    run = tg.compile(lambda x, y: tg.exp(x) * y, backend="numba")
    x, y = RNG.normal(size=(2, 4, 5))
    for name, array in strange(x).items():
        np.testing.assert_allclose(run(array, y), np.exp(x) * y, err_msg=name)


def test_parameters_that_lie_otherwise_are_trained(cache):
    def train(values, wrap):
        w = tg.Tensor(np.zeros_like(values), requires_grad=True)
        w._data = values
        optimizer = tg.optim.SGD([w], lr=0.1)

        def step(x):
            optimizer.zero_grad()
            (tg.exp(w) * x).sum().backward()
            optimizer.step()

        run = wrap(step)
        for _ in range(3):
            run(np.ones((4, 5)))
        return w.numpy()

    start = RNG.normal(size=(4, 5))
    expected = train(start.copy(), lambda step: step)
    for name, array in strange(start).items():
        if name not in ("read-only", "subclass"):
            found = train(array, lambda step: tg.compile(step, backend="numba"))
            np.testing.assert_allclose(found, expected, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_by_blas_in_any_layout(cache, dtype):
    # Beyond what is multiplied in tiles.
    a, b = RNG.normal(size=(40, 250)).astype(dtype), RNG.normal(size=(250, 251)).astype(dtype)

    def products(a, b):
        return [
            a @ b,
            b.T @ a.T,
            a[1:, 2:] @ b[2:, 3:],
            b[:, :7].T @ (a @ b).T[1:],
            b[:, :-1] @ b[:, 1:2],
        ]

    run = tg.compile(products, backend="numba")
    run(a, b)
    assert "gemm" in run._variants[0].executable.sources[0]
    for one, other in ((a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b))):
        for y, expected in zip(run(one, other), products(a, b), strict=True):
            assert y.dtype == dtype
            close = 1e-4 if dtype == np.float32 else 1e-12
            np.testing.assert_allclose(y, expected, rtol=close, atol=close * np.abs(expected).max())


def momentum_step(wrap, size=4096):
    w = tg.Tensor(np.ones(size, np.float32), requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.5, momentum=0.5)

    def step(x):
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    run = wrap(step)
    for _ in range(3):
        run(np.ones(size, np.float32))
    return w, optimizer, run


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_memory_of_another_dtype_is_not_taken_for_what_it_was(cache, dtype):
    found = []
    for wrap in (lambda step: step, lambda step: tg.compile(step, backend="numba")):
        w, optimizer, run = momentum_step(wrap)
        memory = optimizer.memory[0]
        memory["velocity"] = memory["velocity"].astype(dtype)
        run(np.ones(4096, np.float32))
        found.append(w.numpy())
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize("lr", [None, "abc", 1j, 10**400, np.array([0.25, 0.5]), np.array([0.5])])
def test_a_rate_that_is_no_number_does_what_it_does_eagerly(cache, lr):
    found = []
    for wrap in (lambda step: step, lambda step: tg.compile(step, backend="numba")):
        w, optimizer, run = momentum_step(wrap, size=2)
        optimizer.lr = lr
        try:
            run(np.ones(2, np.float32))
        except (TypeError, OverflowError, ValueError, np.exceptions.DTypePromotionError) as error:
            found.append(type(error))
        found.append(w.numpy().tolist())
        optimizer.lr = 0.25
        run(np.ones(2, np.float32))
        found.append(w.numpy().tolist())
    assert found[: len(found) // 2] == found[len(found) // 2 :]


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4"])
def test_arrays_of_the_other_byte_order(cache, dtype):
    x, kept = np.arange(4).astype(dtype), np.arange(1, 5).astype(dtype)
    run = tg.compile(lambda x: x * 2 + kept, backend="numba")
    for _ in range(2):
        np.testing.assert_array_equal(run(x), x * 2 + kept)


def test_subclasses_of_arrays_run_natively(cache):
    x = np.arange(6.0).reshape(2, 3)
    for array in (x.view(np.recarray), tg.Tensor(x).data):
        calls = contextvars.ContextVar("calls", default=0)

        def work(x, calls=calls):
            calls.set(calls.get() + 1)
            return tg.exp(x) * x

        run = tg.compile(work, backend="numba")
        for _ in range(4):
            np.testing.assert_allclose(run(array), np.exp(x) * x)
        assert calls.get() == 1


def test_many_blocks_fit_a_small_stack(cache):
    x = np.linspace(0, 1, 4096)

    def work(x):
        for _ in range(40):
            x = x + 0.01 * tg.sin(x)
        return x

    run = tg.compile(work, backend="numba")
    run(x)
    found = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: found.append(run(x)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    np.testing.assert_allclose(found[0], work(x))
