"""Optimisers: how each changes its parameters, in place, by their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..graph import Leaf, recorder, stamp
from ..settings import check, check_least, check_positive, check_share
from ..tensor import Tensor
from .checks import check_betas, check_eps, leaves_of, numbers, quoted

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
        self.parameters = leaves_of(name, parameters)
        check_positive(name, "lr", lr)
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
        lr, steps = numbers(name, state, "lr", "steps")
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
                f"{name}: the state has {quoted(entries)} for parameter {i}; want "
                f"{quoted(wanted)}: the state of the same optimizer with the same settings"
            )
        for entry, array in entries.items():
            if array.shape != wanted[entry].shape:
                raise ValueError(
                    f"{name}: '{i}.{entry}' has shape {array.shape}; want {wanted[entry].shape}: "
                    "the state of the same parameters in the same order"
                )
            if not np.can_cast(array.dtype, wanted[entry].dtype, "same_kind"):
                raise ValueError(
                    f"{name}: '{i}.{entry}' has dtype {array.dtype}; want {wanted[entry].dtype}"
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
        check_share("SGD", "momentum", momentum)
        check_least("SGD", "weight_decay", weight_decay, 0)
        check("SGD", "nesterov", nesterov, "False without momentum", lambda on: momentum or not on)
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
        check_betas(name, betas)
        check_eps(name, eps, self.parameters)
        check_least(name, "weight_decay", weight_decay, 0)
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
        check_share("RMSprop", "decay", decay)
        check_eps("RMSprop", eps, self.parameters)
        check_least("RMSprop", "weight_decay", weight_decay, 0)
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
        check_betas("Lion", betas)
        check_least("Lion", "weight_decay", weight_decay, 0)
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
