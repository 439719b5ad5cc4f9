"""Optimisers, schedules of the learning rate, and clipping of gradients.

An optimiser changes its parameters in place, between a backward and the next forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .graph import Leaf, Recorded, recorder, stamp
from .tensor import Tensor

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Cosine",
    "Lion",
    "OneCycle",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepDecay",
    "WarmUp",
    "clip_grad_norm",
]

Array = np.ndarray[Any, Any]


class Optimizer:
    """Base of the optimisers: it holds the parameters; a subclass says how to change one.

    Parameters
    ----------
    parameters : iterable of Tensor
        Leaves that require a gradient.
    lr : float
        Learning rate, positive; the attribute ``lr`` may be changed at any time.

    Raises
    ------
    ValueError
        If there are no parameters, one comes twice, or a setting is out of range.
    TypeError
        If one is not a leaf tensor that requires a gradient.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        name = type(self).__name__
        self.parameters = _leaves(name, parameters)
        _check(name, "above 0", lr > 0, lr=lr)
        self.lr = lr
        self.steps = 0
        self.memory: list[dict[str, Array]] = [{} for _ in self.parameters]
        if (recording := recorder()) is not None:
            recording.made(self)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        if (recording := recorder()) is not None:
            recording.enter_parameters(self)
        for p in self.parameters:
            if isinstance(p._node, Leaf):
                p._node.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        if (recording := recorder()) is not None:
            recording.enter_optimizer(self)
        self.steps += 1
        # One that is frozen, by requires_grad = False, stays as it is.
        trained = [
            (p._data, p._node, memory)
            for p, memory in zip(self.parameters, self.memory, strict=True)
            if isinstance(p._node, Leaf) and p._node.grad is not None
        ]
        stamp([leaf for _, leaf, _ in trained])
        for data, leaf, memory in trained:
            self.update(data, leaf.grad, memory)

    def update(self, p: Array, g: Array, memory: dict[str, Array]) -> None:
        """Change the array ``p`` in place; ``g`` is left alone."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """Give all that a resumed run needs to go on bit for bit, as named arrays."""
        state = {"lr": np.array(self.lr), "steps": np.array(self.steps)}
        for i, memory in enumerate(self.memory):
            state.update({f"{i}.{name}": array.copy() for name, array in memory.items()})
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, all of it or nothing.

        Raises
        ------
        ValueError
            If it belongs to other parameters or another kind of optimiser.
        """
        name = type(self).__name__
        lr, steps = _numbers(name, state, "lr", "steps")
        memory: list[dict[str, Array]] = [{} for _ in self.parameters]
        for key, value in state.items():
            if key in ("lr", "steps"):
                continue
            number, _, entry = key.partition(".")
            if not number.isdigit() or int(number) >= len(memory):
                raise ValueError(f"{name}: unexpected {key!r} for {len(memory)} parameters")
            memory[int(number)][entry] = np.array(value)
        for i, entries in enumerate(memory):
            # One without entries has had no gradient yet.
            if entries:
                self._check_memory(i, entries)
        self.lr, self.steps = lr, int(steps)
        # In place: a compiled step goes on with it.
        for entries, loaded in zip(self.memory, memory, strict=True):
            entries.clear()
            entries.update(loaded)

    def _check_memory(self, i: int, entries: dict[str, Array]) -> None:
        """Raise unless the entries are those that an update of the i-th parameter would begin."""
        name, p = type(self).__name__, self.parameters[i]
        if type(self).update.__module__ != __name__:
            # Nobody knows what an optimiser of the user's begins, and when.
            return
        wanted: dict[str, Array] = {}
        self.update(np.ones_like(p._data), np.ones_like(p._data), wanted)
        if entries.keys() != wanted.keys():
            raise ValueError(
                f"{name}: the state has {_listed(entries)} for parameter {i}; want "
                f"{_listed(wanted)}: the state of the same optimizer with the same settings"
            )
        for entry, array in entries.items():
            if array.shape != wanted[entry].shape:
                raise ValueError(
                    f"{name}: '{i}.{entry}' has shape {array.shape}; want {wanted[entry].shape}: "
                    "the state of the same parameters in the same order"
                )


class SGD(Optimizer):
    """Stochastic gradient descent, ``w -= lr * g``, as in the handout's Algorithm 1.

    With momentum, ``v = momentum * v + g`` takes the place of ``g``; with Nesterov's,
    ``g + momentum * v`` (Sutskever et al. 2013, section 2). Weight decay adds
    ``weight_decay * w`` to ``g``.

    Parameters
    ----------
    parameters : iterable of Tensor
    lr : float
    momentum : float
        In [0, 1).
    nesterov : bool
    weight_decay : float

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    Tensor([0.8], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 0.1,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        _check("SGD", "in [0, 1)", 0 <= momentum < 1, momentum=momentum)
        _check("SGD", "at least 0", weight_decay >= 0, weight_decay=weight_decay)
        _check("SGD", "False without momentum", momentum or not nesterov, nesterov=nesterov)
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay

    def update(self, p: Array, g: Array, memory: dict[str, Array]) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.momentum:
            v = memory.get("velocity")
            if v is None:
                v = memory["velocity"] = np.zeros_like(p)
            v *= self.momentum
            v += g
            g = g + self.momentum * v if self.nesterov else v
        p -= self.lr * g


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, Algorithm 1); weight decay is part of the gradient.

    Parameters
    ----------
    parameters : iterable of Tensor
    lr : float
    betas : (float, float)
        Decay of the averages of the gradient and of its square.
    eps : float
    weight_decay : float

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy().round(6)
    array([0.9])
    """

    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        name = type(self).__name__
        _check(name, "two numbers in [0, 1)", _are_shares(betas), betas=betas)
        _check(name, "above 0", eps > 0, eps=eps)
        _check(name, "at least 0", weight_decay >= 0, weight_decay=weight_decay)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, p: Array, g: Array, memory: dict[str, Array]) -> None:
        one, two = self.betas
        if self.weight_decay and self.decoupled:
            p *= 1 - self.lr * self.weight_decay
        elif self.weight_decay:
            g = g + self.weight_decay * p
        if not memory:
            memory["mean"], memory["square"] = np.zeros_like(p), np.zeros_like(p)
            # A parameter may get its first gradient late: its averages start then.
            memory["count"] = np.zeros((), np.int64)
        mean, square, count = memory["mean"], memory["square"], memory["count"]
        count += 1
        t = count.item()
        mean *= one
        mean += (1 - one) * g
        square *= two
        square += (1 - two) * (g * g)
        length = np.sqrt(square)
        length /= (1 - two**t) ** 0.5
        length += self.eps
        p -= (self.lr / (1 - one**t)) * (mean / length)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019, Algorithm 2).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([1.0], requires_grad=True)
    >>> tg.optim.AdamW([w], lr=0.1, weight_decay=0.01).weight_decay
    0.01
    """

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5): the gradient over its running size.

    Parameters
    ----------
    parameters : iterable of Tensor
    lr : float
    decay : float
        Of the average of the squared gradient.
    eps : float
    weight_decay : float

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.RMSprop([w], lr=0.01)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy().round(6)
    array([0.9])
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        *,
        decay: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        _check("RMSprop", "in [0, 1)", 0 <= decay < 1, decay=decay)
        _check("RMSprop", "above 0", eps > 0, eps=eps)
        _check("RMSprop", "at least 0", weight_decay >= 0, weight_decay=weight_decay)
        self.decay, self.eps, self.weight_decay = decay, eps, weight_decay

    def update(self, p: Array, g: Array, memory: dict[str, Array]) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p
        square = memory.get("square")
        if square is None:
            square = memory["square"] = np.zeros_like(p)
        square *= self.decay
        square += (1 - self.decay) * (g * g)
        p -= self.lr * (g / (np.sqrt(square) + self.eps))


class Lion(Optimizer):
    """Lion (Chen et al. 2023, Algorithm 2): steps of one size, in the direction of a sign.

    Parameters
    ----------
    parameters : iterable of Tensor
    lr : float
    betas : (float, float)
    weight_decay : float
        Apart from the gradient, as in AdamW.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.Lion([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    Tensor([0.9], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        _check("Lion", "two numbers in [0, 1)", _are_shares(betas), betas=betas)
        _check("Lion", "at least 0", weight_decay >= 0, weight_decay=weight_decay)
        self.betas, self.weight_decay = betas, weight_decay

    def update(self, p: Array, g: Array, memory: dict[str, Array]) -> None:
        one, two = self.betas
        mean = memory.get("mean")
        if mean is None:
            mean = memory["mean"] = np.zeros_like(p)
        direction = np.sign(one * mean + (1 - one) * g)
        if self.weight_decay:
            direction += self.weight_decay * p
        p -= self.lr * direction
        mean *= two
        mean += (1 - two) * g


# --- Schedules --------------------------------------------------------------------------------


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
        base, steps = _numbers(type(self).__name__, state, "base", "steps")
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
        _check("StepDecay", "in (0, 1]", 0 < decay <= 1, decay=decay)
        _check("StepDecay", "at least 1", every >= 1, every=every)
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
        _check("Cosine", "at least 1", total >= 1, total=total)
        _check("Cosine", "in [0, 1]", 0 <= final <= 1, final=final)
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
        _check("OneCycle", "at least 1", total >= 1, total=total)
        _check("OneCycle", "in (0, 1)", 0 < rise < 1, rise=rise)
        _check("OneCycle", "at least 0", start >= 0, start=start)
        _check("OneCycle", "at least 0", final >= 0, final=final)
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
        _check("WarmUp", "at least 1", total >= 1, total=total)
        ours = then is None or then.optimizer is optimizer
        _check("WarmUp", "a schedule of the same optimizer", ours, then=then)
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


# --- Gradients --------------------------------------------------------------------------------


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their norm is at most ``max_norm``.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those without a gradient are passed over.
    max_norm : float

    Returns
    -------
    float
        The norm before (Pascanu et al. 2013, Algorithm 1).

    Raises
    ------
    FloatingPointError
        If the norm is NaN or infinite; the gradients are left alone.
    ValueError, TypeError
        If there are no parameters, one comes twice, or one is not a leaf that requires a gradient.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> w = tg.Tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> tg.optim.clip_grad_norm([w], 1.0), w.grad
    (10.0, array([0.6, 0.8]))
    """
    _check("clip_grad_norm", "above 0", max_norm > 0, max_norm=max_norm)
    leaves: Any = [p._node for p in _leaves("clip_grad_norm", parameters, frozen=True)]
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    # In float64, since the square of a gradient of float16 or float32 may overflow.
    exact = (g.astype(np.float64, copy=False) for g in gradients)
    norm = np.sqrt(sum((np.vdot(g, g) for g in exact), np.float64(0)))
    if not np.isfinite(norm):
        raise FloatingPointError(
            f"clip_grad_norm: the norm is {norm}; find the op that made it with tg.debug()"
        )
    recording = recorder()
    if recording is None and norm <= max_norm:
        return float(norm)
    # Without a branch, which a recorded step would take the same way at every call.
    scale = 1 / np.maximum(norm / max_norm, 1)
    for g in gradients:
        g *= scale.astype(g.dtype)
    return recording.number(norm) if isinstance(norm, Recorded) else float(norm)


def _leaves(op: str, parameters: Iterable[Tensor], *, frozen: bool = False) -> list[Tensor]:
    """List parameters; raise for what could not be trained, or leave out what is frozen."""
    if isinstance(parameters, Tensor):
        raise TypeError(f"{op}: got one Tensor; want a list: {op}([tensor], ...)")
    if hasattr(parameters, "parameters"):
        raise TypeError(
            f"{op}: got a {type(parameters).__name__}; want {op}(module.parameters(), ...)"
        )
    listed = list(parameters)
    if not listed:
        raise ValueError(f"{op}: got no parameters; pass module.parameters() or a list")
    if frozen:
        listed = [p for p in listed if not isinstance(p, Tensor) or p.requires_grad] or listed
    for p in listed:
        if not isinstance(p, Tensor) or not isinstance(p._node, Leaf):
            raise TypeError(f"{op}: got {p!r}; want leaf tensors with requires_grad=True")
    if len({id(p) for p in listed}) < len(listed):
        raise ValueError(f"{op}: a parameter comes twice; pass each once")
    return listed


def _numbers(op: str, state: Mapping[str, Any], *keys: str) -> list[float]:
    """Read numbers of a state; one without them is no state, or of something else."""
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(
            f"{op}: the state has no {_listed(missing)}; want what {op}.state_dict() gave"
        )
    return [float(state[key]) for key in keys]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _check(op: str, wanted: str, holds: Any, **setting: Any) -> None:
    """Raise unless it holds; the setting is given as ``name=value``."""
    if not holds:
        ((name, value),) = setting.items()
        raise ValueError(f"{op}: {name} is {value!r}; want {wanted}")


def _are_shares(betas: tuple[float, float]) -> bool:
    return len(betas) == 2 and all(0 <= b < 1 for b in betas)
