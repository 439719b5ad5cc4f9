"""The examples run as scripts, and reach what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_digits import write_small_digits

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> str:
    """What a script prints; warnings in it are errors."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def number(pattern: str, text: str) -> float:
    """The last number that stands for the group of a pattern."""
    return float(re.findall(pattern, text)[-1])


def test_every_example_is_tested():
    tested = set(re.findall(r'run\(\s*"(\w+)"', Path(__file__).read_text()))
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_first_gradient():
    text = run("first_gradient")
    assert "slope (396.0, 200.0)" in text
    assert "we are at (1.0000, 1.0000)" in text


@pytest.fixture
def digits(tmp_path, monkeypatch) -> None:
    """Made-up digits, where there are no others: an example need not go and fetch them."""
    if not os.environ.get("TINYGRAD_HW_DATA"):
        monkeypatch.setenv("TINYGRAD_HW_DATA", str(write_small_digits(tmp_path)))


def test_mlp(digits):
    assert number(r"accuracy ([\d.]+)", run("mlp", "--epochs", "6")) > 0.85


def test_cnn(digits):
    assert number(r"accuracy ([\d.]+)", run("cnn", "--epochs", "6")) > 0.8


def test_lenet():
    if not os.environ.get("TINYGRAD_HW_MNIST"):
        pytest.skip("MNIST is not on this machine; name its folder in $TINYGRAD_HW_MNIST")
    text = run("lenet", "--epochs", "1", "--images", "6000")
    assert number(r"accuracy ([\d.]+)", text) > 0.9


def test_logistic_regression():
    text = run("logistic_regression")
    assert number(r"accuracy ([\d.]+)", text) > 0.8
    assert number(r"step 500: loss ([\d.]+)", text) < 0.35


def test_newton_doubles_the_digits():
    slopes = [float(s) for s in re.findall(r"slope ([\d.e+-]+)", run("newton"))]
    assert slopes[4] < 1e-5
    assert slopes[5] < 10 * slopes[4] ** 2 + 1e-13


def test_pinn_finds_the_sine():
    assert number(r"largest error ([\d.]+)", run("pinn", "--steps", "1000")) < 0.02


def test_own_op():
    text = run("own_op")
    assert "softsign: ok" in text
    assert "order 2: " in text


def test_characters_learn_the_poem():
    text = run("characters")
    assert "Tyger Tyger, burning bright,\nIn the forests of the night;" in text
    assert number(r"(\d+) % of the characters", text) > 90
