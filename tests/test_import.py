"""What importing the package brings in: NumPy, and nothing that takes its time."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "argparse", "difflib", "numpy.random", "tempfile", "zipfile", "dataclasses", "hypothesis",
    "matplotlib", "graphviz", "pygraphviz", "numba", "sklearn", "pooch", "tqdm", "requests",
    "tinygrad_hw.data", "tinygrad_hw.drawing", "tinygrad_hw.testing", "tinygrad_hw.compile",
}  # fmt: skip


def test_import_brings_in_numpy_and_nothing_heavy():
    code = (
        "import sys, numpy; before = set(sys.modules); import tinygrad_hw;"
        "print(*(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) & HEAVY == set()


def test_every_exported_name_is_there():
    code = "import tinygrad_hw as tg; print(*(n for n in tg.__all__ if not hasattr(tg, n)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_what_is_loaded_later_is_listed():
    code = "import tinygrad_hw as tg; print(*{*dir(tg)} & {*tg.__all__})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"compile", "draw", "testing", "data", "drawing", "grad"} <= set(ran.stdout.split())


@pytest.mark.parametrize(
    ("package", "code", "extra"),
    [
        ("hypothesis", "from tinygrad_hw.testing import strategies", "test"),
        ("hypothesis", "tg.testing.gradients_match", "test"),
        ("hypothesis", "tg.testing.GraphMachine", "test"),
        ("llvmlite", "tg.compile(tg.sin, backend='numba')(1.0)", "fast"),
        ("scipy", "tg.compile(tg.sin, backend='numba')(1.0)", "fast"),
        ("safetensors", "tg.save('x.safetensors', {})", "safetensors"),
        ("graphviz", "tg.draw(tg.Tensor(1.0)).digraph()", "draw"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(package, code, extra):
    lines = f"import sys; sys.modules[{package!r}] = None; import tinygrad_hw as tg; {code}"
    ran = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert f'pip install "tinygrad_hw[{extra}]"' in ran.stderr.splitlines()[-1]
