"""Random programs, compiled and eager: the same values and gradients, call after call."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import tinygrad_hw as tg
from tinygrad_hw.testing import strategies as ts

EXAMPLES = int(os.environ.get("COMPILE_EXAMPLES", "0"))
# Their kernels are compared with eager's to the last digits, but for the order of sums.
RTOL = {np.float64: 1e-9, np.float32: 2e-3}


def with_gradients(program):
    """The function that calls a program on leaves, and goes back from all its outputs."""

    def run(*leaves):
        for leaf in leaves:
            leaf.zero_grad()
        outputs = program(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = 0.0
        for k, y in enumerate(outputs):
            if isinstance(y, tg.Tensor) and y.requires_grad:
                total = total + (y * (0.5 + 0.25 * k)).sum()
        if isinstance(total, tg.Tensor):
            total.backward()
        return outputs

    return run


def leaves_of(args, dtype, shift):
    return [
        tg.Tensor(np.asarray(x + shift, dtype), requires_grad=True)
        if np.asarray(x).dtype.kind == "f"
        else tg.Tensor(x)
        for x in args
    ]


def results(run, leaves):
    with np.errstate(all="ignore"):
        outputs = run(*leaves)
    values = [y.numpy() if isinstance(y, tg.Tensor) else np.asarray(y) for y in outputs]
    return values + [leaf.grad for leaf in leaves]


def check(program, backend):
    run = with_gradients(program)
    compiled = tg.compile(run, backend=backend)
    for dtype, shift in ((np.float64, 0.0), (np.float64, 1 / 16), (np.float32, 0.0)):
        for _ in range(2):
            got = results(compiled, leaves_of(program.args, dtype, shift))
            wanted = results(run, leaves_of(program.args, dtype, shift))
            for a, b in zip(got, wanted, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    assert (a.shape, a.dtype) == (b.shape, b.dtype)
                    largest = np.max(np.abs(b), initial=1.0, where=np.isfinite(b))
                    np.testing.assert_allclose(a, b, RTOL[dtype], RTOL[dtype] * largest)


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=EXAMPLES or 60, **QUIET)
@given(program=ts.programs())
def test_programs_on_numpy(program):
    check(program, "numpy")


@settings(max_examples=EXAMPLES or 30, **QUIET)
@given(program=ts.programs())
def test_programs_on_numpy_block_by_block(program):
    with pytest.MonkeyPatch.context() as patch:
        # As if short arrays were long ones; a block has a few entries.
        patch.setattr("tinygrad_hw.compile.chains.LONG", 17)
        patch.setattr("tinygrad_hw.compile.chains.BLOCK", 24)
        check(program, "numpy")


@settings(max_examples=EXAMPLES or 2, **QUIET)
@given(program=ts.programs())
def test_programs_as_native_code(program):
    pytest.importorskip("numba")
    pytest.importorskip("scipy")
    check(program, "numba")
