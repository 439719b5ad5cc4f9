"""The state machine: it passes on the engine, and fails on engines that are broken."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import tinygrad_hw as tg
from tinygrad_hw.testing import GraphMachine
from tinygrad_hw.testing.machine import Naive

QUICK = settings(
    max_examples=40,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

TestGraphs = GraphMachine.TestCase
TestGraphs.settings = QUICK


def assert_it_fails():
    # The failures of several kinds would be minimised and come in a group.
    once = settings(QUICK, max_examples=3000, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError, match=r"Not equal to tolerance|has a gradient of"):
        run_state_machine_as_test(GraphMachine, settings=once)


def test_a_wrong_rule_is_found(monkeypatch):
    monkeypatch.setattr(tg.square, "gradient", lambda g, y, x: (g * x,))
    assert_it_fails()


def test_gradients_that_do_not_add_up_are_found(monkeypatch):
    backward = tg.Tensor.backward

    def forgetting(self, *args, **options):
        for leaf in _leaves(self._node):
            leaf.grad = None
        return backward(self, *args, **options)

    monkeypatch.setattr(tg.Tensor, "backward", forgetting)
    assert_it_fails()


def _leaves(node):
    stack = [node] if node is not None else []
    while stack:
        node = stack.pop()
        if hasattr(node, "grad"):
            yield node
        stack += [parent for parent in node.parents if hasattr(parent, "parents")]


def test_values_that_overflow_are_left_out():
    machine = GraphMachine()
    big = machine.keep(tg.Tensor(800.0), Naive(np.array(800.0)))
    machine.unary(x=big, op="exp", recording=True)
    assert machine.twins == [big]
