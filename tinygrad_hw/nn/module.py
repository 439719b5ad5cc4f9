"""Module: parameters with names, in a tree."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from reprlib import recursive_repr
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np

from ..errors import ShapeError
from ..graph import Node, tick
from ..tensor import Tensor
from ..tree import check_state


class Module:
    """Base of models and layers: finds the parameters and submodules among the attributes.

    A subclass sets tensors, modules, and lists, tuples or dicts of them as attributes, and defines
    ``forward``. Tensors that require a gradient are parameters; other tensors are buffers, such as
    running statistics: saved, but not trained. What was computed from parameters, such as an
    activation that is kept to be looked at, is neither.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> class MLP(tg.nn.Module):
    ...     def __init__(self, rng=None):
    ...         rng = np.random.default_rng(rng)
    ...         self.hidden = tg.nn.Linear(196, 30, rng=rng)
    ...         self.out = tg.nn.Linear(30, 10, rng=rng)
    ...
    ...     def forward(self, x):
    ...         return self.out(tg.relu(self.hidden(x)))
    >>> model = MLP(rng=0)
    >>> model(np.zeros((5, 196), np.float32)).shape
    (5, 10)
    >>> [name for name, _ in model.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    >>> model
    MLP: 6,220 parameters
      hidden: Linear(196, 30): 5,910 parameters
      out: Linear(30, 10): 310 parameters
    """

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; a subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__}: define forward(self, x)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        record = vars(self).get("_record") or self._note_paths()
        start = tick()
        out = self.forward(*args, **kwargs)
        _calls.append((start, tick(), record))
        return out

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            there = vars(self).get(name)
            if isinstance(there, Tensor) and there.requires_grad and there.is_leaf:
                raise TypeError(
                    f"{type(self).__name__}.{name}: got an array for a parameter, which would be "
                    f"trained no more; set {name}.data, or give tg.Tensor(x, requires_grad=True)"
                )
        super().__setattr__(name, value)

    def graph(self, *example: Any, **options: Any) -> Any:
        """Call the module on an example and picture the result, see :func:`tinygrad_hw.draw`.

        The picture knows the line of each op, and says of a parameter if it is not used.
        """
        from ..debugging import lines, one_constant_each
        from ..drawing import draw

        with lines(), one_constant_each(example):
            out = self(*example)
        return draw(*(out if isinstance(out, (tuple, list)) else (out,)), names=self, **options)

    # --- What it holds ------------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """Give the submodules one level down, with their names."""
        return ((name, item) for name, item in _items(vars(self)) if isinstance(item, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Give this module and all below it, with their paths, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [(_join(path, name), child) for name, child in module.children()]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Give this module and all below it."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Give the tensors that require a gradient, with their paths; a shared one once."""
        return ((path, t) for path, t in self._named_leaves() if t.requires_grad)

    def parameters(self) -> list[Tensor]:
        """Give the tensors that require a gradient; a shared one once."""
        return [t for _, t in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Give the tensors that are saved but not trained."""
        return ((path, t) for path, t in self._named_leaves() if not t.requires_grad)

    def _named_leaves(self) -> Iterator[tuple[str, Tensor]]:
        return ((path, t) for path, t in self._named_tensors() if t.is_leaf)

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, item in _items(vars(module)):
                if isinstance(item, Tensor) and id(item) not in seen:
                    seen.add(id(item))
                    yield _join(path, name), item

    def _note_paths(self) -> _Record:
        """Note for pictures what is called how here; of the paths of a module, the longest."""
        for path, module in self.named_modules():
            record = vars(module).setdefault("_record", _Record(type(module).__name__))
            record.path = max(record.path, path, key=len)
        for path, tensor in self._named_tensors():
            node = tensor._node or tensor._constant
            if node is not None:
                _paths[node] = max(_paths.get(node, ""), path, key=len)
        mine: _Record = vars(self)["_record"]
        return mine

    def name_parameters(self) -> Self:
        """Give every parameter its path as its name, for pictures and errors."""
        for path, parameter in self.named_parameters():
            parameter.name = path
        return self

    # --- State --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Give copies of all parameters and buffers, by path."""
        state: dict[str, np.ndarray[Any, Any]] = {}
        for path, t in self._named_leaves():
            if path in state:
                raise ValueError(f"state_dict: two tensors have the path {path!r}; rename one")
            state[path] = t.numpy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, all of it or nothing.

        Raises
        ------
        TypeError
            If it is no mapping.
        ValueError
            If names are missing or unexpected, or shapes or kinds of numbers differ, such as
            complex ones for floats; the message names each.
        """
        check_state("load_state_dict", state)
        tensors = dict(self._named_leaves())
        values = {name: np.asarray(state[name]) for name in tensors if name in state}
        differ = {
            "missing": [name for name in tensors if name not in state],
            "unexpected": [name for name in state if name not in tensors],
            "of another shape": [
                f"{name}: {value.shape} for {tensors[name].shape}"
                for name, value in values.items()
                if value.shape != tensors[name].shape
            ],
            "of another kind": [
                f"{name}: {value.dtype} for {tensors[name].dtype}"
                for name, value in values.items()
                if not np.can_cast(value.dtype, tensors[name].dtype, "same_kind")
            ],
        }
        troubles = [f"{kind} {', '.join(names)}" for kind, names in differ.items() if names]
        if troubles:
            raise ValueError(
                f"load_state_dict: {type(self).__name__} does not fit the state: "
                f"{'; '.join(troubles)}"
            )
        for name, t in tensors.items():
            t.data[...] = values[name]

    def train(self, mode: bool = True) -> Self:
        """Set this module and all below it to training, as dropout and batch norm need it."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set this module and all below it to use, not training."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    # --- Text ---------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        from ..drawing.notebook import of_module

        return of_module(self)

    def extra_repr(self) -> str:
        """Settings to show behind the class's name."""
        return ""

    @recursive_repr()
    def __repr__(self) -> str:
        settings = self.extra_repr()
        count = sum(p.size for p in self.parameters())
        head = f"{type(self).__name__}{f'({settings})' if settings else ''}"
        lines = [f"{head}: {count:,} parameters" if count else head]
        for name, child in self.children():
            lines.extend(f"  {line}" for line in f"{name}: {child!r}".splitlines())
        return "\n".join(lines)


def functional_call(
    module: Module, parameters: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """Call a module with other tensors in the place of its parameters.

    So a function can take a module's parameters as an argument: to differentiate through a
    step of training, to check the gradients of a model, or to have its Hessian.

    Parameters
    ----------
    module : Module
        It keeps its own parameters; those that are not given serve as they are.
    parameters : mapping of str to Tensor or array
        By path, as in ``dict(module.named_parameters())``; buffers go by their paths too.
    *args, **kwargs
        What the module is called with.

    Raises
    ------
    TypeError
        If they are no mapping.
    ValueError
        If the module has no parameter of a name.
    ShapeError
        If one has another shape.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> layer = tg.nn.Linear(2, 1, rng=0)
    >>> x = np.array([[1.0, 2.0]], np.float32)
    >>> loss = lambda parameters: tg.nn.functional_call(layer, parameters, x).sum()
    >>> slopes = tg.grad(loss)(dict(layer.named_parameters()))
    >>> slopes["weight"].numpy().T, slopes["bias"].numpy()
    (array([[1., 2.]], dtype=float32), array([1.], dtype=float32))
    """
    check_state("functional_call", parameters)
    own = dict(module._named_tensors())
    unknown = [name for name in parameters if name not in own]
    if unknown:
        raise ValueError(
            f"functional_call: {type(module).__name__} has no parameter "
            f"{', '.join(map(str, unknown))}; want some of {', '.join(own)}"
        )
    given = {n: t if isinstance(t, Tensor) else Tensor(t) for n, t in parameters.items()}
    for name, t in given.items():
        if t.shape != own[name].shape:
            raise ShapeError(f"functional_call: {name}: got {t.shape}; want {own[name].shape}")
    # All are read before any is written: one may stand in the place of another.
    kept, new = ({n: _state(ts[n]) for n in given} for ts in (own, given))
    try:
        for name, state in new.items():
            _set_state(own[name], state)
        return module(*args, **kwargs)
    finally:
        for name, state in kept.items():
            _set_state(own[name], state)


def _state(tensor: Tensor) -> tuple[Any, ...]:
    return tensor._data, tensor._node, tensor._constant


def _set_state(tensor: Tensor, state: tuple[Any, ...]) -> None:
    tensor._data, tensor._node, tensor._constant = state


class Sequential(Module):
    """Modules, or functions of one tensor, one after the other.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> model = tg.nn.Sequential(tg.nn.Linear(4, 3, rng=0), tg.relu, tg.nn.Linear(3, 2, rng=1))
    >>> model(np.ones((5, 4), np.float32)).shape, len(model)
    ((5, 2), 3)
    """

    def __init__(self, *layers: Any) -> None:
        for layer in layers:
            if not callable(layer):
                raise TypeError(
                    f"Sequential: got {layer!r}; want modules or functions, one by one, as in "
                    "Sequential(*layers)"
                )
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        """Apply the layers in order."""
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: Any) -> Any:
        found = self.layers[index]
        return Sequential(*found) if isinstance(index, slice) else found

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)


class _Record:
    """What a picture says of a module; it outlives the module and its tensors do not hold it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.path = ""


# When the last calls of modules began and ended, for pictures: by these numbers a picture finds the
# module that a node was recorded in. Bounded, and the modules may go.
_calls: deque[tuple[int, int, _Record]] = deque(maxlen=4096)
# The nodes of modules' tensors, for as long as something needs them.
_paths: WeakKeyDictionary[Node, str] = WeakKeyDictionary()


def recent_calls() -> list[tuple[int, int, _Record]]:
    """Give the last calls of modules: the engine's clock before and after, and the module."""
    return list(_calls)


def path_of(node: Node) -> str:
    """Give the path of a tensor in the outermost module that was called; empty if in none."""
    return _paths.get(node, "")


def _items(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give attributes, and the entries of containers among them, in order, with their names."""
    for name, value in attributes.items():
        if isinstance(value, (list, tuple)):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            # One by one: 1 and "1" are the same text.
            for key, item in value.items():
                yield from _items({f"{name}.{key}": item})
        else:
            yield name, value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
