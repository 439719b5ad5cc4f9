"""Schedules: the learning rate of an optimiser from step to step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..settings import check, check_fraction, check_least
from .checks import numbers
from .optimizers import Optimizer

Array = np.ndarray[Any, Any]


class Schedule:
    """Base of the schedules: a factor on the learning rate that depends on the step.

    Parameters
    ----------
    optimizer : Optimizer
        Its ``lr`` when the schedule is made is the one that the factor applies to.

    Notes
    -----
    Call ``step()`` once after each ``optimizer.step()``.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: got a {type(optimizer).__name__}; want an optimizer, such "
                "as optim.SGD(module.parameters())"
            )
        self.optimizer = optimizer
        self.base = optimizer.lr
        self.steps = 0
        self.apply()

    def factor(self, step: int) -> float:
        """Factor on the learning rate at a step, counted from 0."""
        raise NotImplementedError

    def apply(self) -> None:
        """Set the learning rate of the present step."""
        self.optimizer.lr = self.base * self.factor(self.steps)

    def step(self) -> None:
        """Go on to the next step."""
        self.steps += 1
        self.apply()

    def state_dict(self) -> dict[str, Array]:
        """Give what a resumed run needs."""
        return {"base": np.array(self.base), "steps": np.array(self.steps)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        base, steps = numbers(type(self).__name__, state, "base", "steps")
        self.base, self.steps = base, int(steps)
        self.apply()


class StepDecay(Schedule):
    """Times ``decay`` at every ``every``-th step, as in the handout's Algorithm 1.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> sgd = tg.optim.SGD([tg.Tensor(1.0, requires_grad=True)], lr=0.1)
    >>> tg.optim.StepDecay(sgd, decay=0.5, every=1000).factor(2500)
    0.25
    """

    def __init__(self, optimizer: Optimizer, *, decay: float = 0.95, every: int = 1000) -> None:
        check("StepDecay", "decay", decay, "a number in (0, 1]", lambda share: 0 < share <= 1)
        check_least("StepDecay", "every", every, 1)
        self.decay, self.every = decay, every
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return float(self.decay ** (step // self.every))


class Cosine(Schedule):
    """Down to ``final`` over ``total`` steps along half a cosine (Loshchilov and Hutter 2017).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> sgd = tg.optim.SGD([tg.Tensor(1.0, requires_grad=True)], lr=0.1)
    >>> tg.optim.Cosine(sgd, total=100).factor(50)
    0.5
    """

    def __init__(self, optimizer: Optimizer, *, total: int, final: float = 0.0) -> None:
        check_least("Cosine", "total", total, 1)
        check_fraction("Cosine", "final", final)
        self.total, self.final = total, final
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return _cosine(1.0, self.final, min(step / self.total, 1.0))


class OneCycle(Schedule):
    """Up from ``start`` to 1, then down to ``final`` (Smith and Topin 2018).

    Parameters
    ----------
    optimizer : Optimizer
        Its ``lr`` is the highest.
    total : int
        Steps.
    rise : float
        Share of the steps that go up.
    start, final : float
        Factors at both ends.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> sgd = tg.optim.SGD([tg.Tensor(1.0, requires_grad=True)], lr=0.1)
    >>> tg.optim.OneCycle(sgd, total=100, rise=0.3).factor(30)
    1.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total: int,
        rise: float = 0.3,
        start: float = 0.04,
        final: float = 1e-4,
    ) -> None:
        check_least("OneCycle", "total", total, 1)
        check("OneCycle", "rise", rise, "a number in (0, 1)", lambda share: 0 < share < 1)
        check_least("OneCycle", "start", start, 0)
        check_least("OneCycle", "final", final, 0)
        self.total, self.rise, self.start, self.final = total, rise, start, final
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        share = min(step / self.total, 1.0)
        if share < self.rise:
            return _cosine(self.start, 1.0, share / self.rise)
        return _cosine(1.0, self.final, (share - self.rise) / (1 - self.rise))


class WarmUp(Schedule):
    """Up to the full rate over ``total`` steps, in a line; then another schedule, if any.

    Parameters
    ----------
    optimizer : Optimizer
    total : int
        Steps of the way up.
    then : Schedule, optional
        Of the same optimiser; its steps begin when the way up is done.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> sgd = tg.optim.SGD([tg.Tensor(1.0, requires_grad=True)], lr=0.1)
    >>> [tg.optim.WarmUp(sgd, total=4).factor(step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, optimizer: Optimizer, *, total: int, then: Schedule | None = None) -> None:
        check_least("WarmUp", "total", total, 1)
        wanted = "a schedule of the same optimizer"
        check("WarmUp", "then", then, wanted, lambda s: s is None or s.optimizer is optimizer)
        self.total, self.then = total, then
        if then is not None:
            optimizer.lr = then.base
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        if step < self.total:
            return (step + 1) / self.total
        return 1.0 if self.then is None else self.then.factor(step - self.total)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
