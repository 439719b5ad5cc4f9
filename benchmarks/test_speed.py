"""Our own times, to compare from one commit to the next.

    pytest benchmarks/test_speed.py --benchmark-autosave
    pytest benchmarks/test_speed.py --benchmark-compare

needs ``pip install ".[bench,test]"``. Nothing here fails because a machine is slow.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import tinygrad_hw as tg
from benchmarks.peers import load
from benchmarks.workloads import WORKLOADS, batch
from tinygrad_hw.kernels import hw5

pytest.importorskip("pytest_benchmark")
RNG = np.random.default_rng(0)


def images(n: int, side: int, channels: int) -> Any:
    """A batch of images with the batch innermost in memory, as the kernels leave them."""
    lying = RNG.normal(size=(channels, side, side, n)).astype(np.float32)
    return lying.transpose(3, 1, 2, 0)


def filters(size: int, c1: int, c2: int) -> Any:
    return RNG.normal(size=(size, size, c1, c2)).astype(np.float32)


# Name: images, side, channels, filter size, filters.
CONVOLUTIONS = {"W2": (32, 14, 1, 3, 3), "W3": (128, 28, 6, 5, 16), "W4": (64, 32, 32, 3, 32)}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("kernel", ["correlate", "correlate_dx", "correlate_dw"])
def test_convolution(benchmark, kernel, name):
    n, side, c1, size, c2 = CONVOLUTIONS[name]
    x, w, g = images(n, side, c1), filters(size, c1, c2), images(n, side, c2)
    calls = {
        "correlate": lambda: hw5.correlate(x, w),
        "correlate_dx": lambda: hw5.correlate_dx(g, w, shape=(side, side)),
        "correlate_dw": lambda: hw5.correlate_dw(g, x, size=(size, size)),
    }
    assert np.isfinite(benchmark(calls[kernel])).all()


KERNELS = ["relu", "relu_backward", "max_pool", "max_pool_dx", "winners", "max_unpool"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(benchmark, kernel):
    x = images(32, 14, 3)
    y, winners = hw5.max_pool(x), hw5.pool_winners(x)
    calls = {
        "relu": lambda: hw5.relu(x),
        "relu_backward": lambda: hw5.relu_backward(x, x),
        "max_pool": lambda: hw5.max_pool(x),
        "max_pool_dx": lambda: hw5.max_pool_dx(y, x, y),
        "winners": lambda: hw5.pool_winners(x, y),
        "max_unpool": lambda: hw5.max_unpool(y, winners, shape=(14, 14)),
    }
    assert benchmark(calls[kernel]).shape in (x.shape, y.shape)


@pytest.mark.parametrize("count", [1000])
def test_node_on_scalars(benchmark, count):
    """Forward and backward of tiny operations: the cost of nodes."""
    value, gradient = benchmark(load("tg").scalars(count))
    assert np.isfinite([value, gradient]).all()


def test_node_on_scalars_of_order_two(benchmark):
    second = tg.grad(tg.grad(lambda x: tg.tanh(x * x)))
    assert np.isfinite(benchmark(lambda: second(tg.Tensor(0.5)).item()))


@pytest.mark.parametrize("workload", ["W1", "W2", "W2b", "W3"])
@pytest.mark.parametrize("contender", ["tg", "tg-numpy", "tg-numba"])
def test_step(benchmark, contender, workload):
    """A training step; ``extra_info`` has the most memory that NumPy held in one."""
    try:
        step = load(contender).train(WORKLOADS[workload].kind, WORKLOADS[workload].batch)
        step()
    except ImportError as error:
        pytest.skip(str(error))
    assert np.isfinite(benchmark(step))
    tracemalloc.start()
    step()
    benchmark.extra_info["peak_bytes"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("workload", ["W1", "W2", "W3"])
def test_compiling(benchmark, workload, monkeypatch, tmp_path):
    """The first two calls of a native step, where there is none on disk."""
    store = pytest.importorskip("tinygrad_hw.compile.native.store")
    monkeypatch.setenv("TINYGRAD_HW_CACHE", str(tmp_path))

    def forget() -> None:
        monkeypatch.setattr(store, "_loaded", {})
        for file in tmp_path.iterdir():
            file.unlink()

    def first_calls() -> Any:
        step = load("tg-numba").train(WORKLOADS[workload].kind, WORKLOADS[workload].batch)
        return step(), step()

    assert np.isfinite(benchmark.pedantic(first_calls, setup=forget, rounds=3)).all()


def test_recording(benchmark):
    """What it takes to record a training step and to make its program."""
    x, labels = batch("cnn", 32)

    def record() -> None:
        w = tg.Tensor(filters(3, 1, 3), requires_grad=True)
        optimizer = tg.optim.SGD([w], lr=0.1)

        @tg.compile
        def step(x: Any, labels: Any) -> Any:
            optimizer.zero_grad()
            h = tg.max_pool2d(tg.relu(tg.conv2d(x, w, padding="same")), 2)
            loss = tg.softmax_cross_entropy(h.reshape(len(x), -1), labels)
            loss.backward()
            optimizer.step()
            return loss

        step(x, labels)

    benchmark(record)
