"""What is known of nodes beyond the graph: names, values and owners of the user's tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..graph import Handle, Node, constant_of
from ..nn.module import Module

_PACKAGE = str(Path(__file__).parents[1])


class Known:
    """Names, values and owners of nodes, from tensors that the user holds.

    Attributes
    ----------
    names : dict of Node to str
    values : dict of Node to array
    parameters : dict of Node to str
        Paths of what belongs to a module, parameters and buffers.
    modules : list of Module
    """

    def __init__(self) -> None:
        self.names: dict[Node, str] = {}
        self.values: dict[Node, Any] = {}
        self.parameters: dict[Node, str] = {}
        self.modules: list[Module] = []

    def add(self, name: str, item: Any, prefix: str = "") -> None:
        """Take in a tensor, a module, or a list, tuple or dict of them."""
        if isinstance(item, Handle):
            node = item._node or item._constant
            if node is not None:
                self.names.setdefault(node, name)
                self.values.setdefault(node, item._data)
        elif isinstance(item, Module):
            self._add_module(prefix, item)
        elif isinstance(item, Mapping):
            self._add_all((f"{name}[{key!r}]", part) for key, part in item.items())
        elif isinstance(item, (list, tuple)):
            self._add_all((f"{name}[{i}]", part) for i, part in enumerate(item))

    def _add_all(self, items: Iterable[tuple[str, Any]]) -> None:
        for name, item in items:
            if isinstance(item, (Handle, Module)):
                self.add(name, item)

    def _add_module(self, prefix: str, module: Module) -> None:
        if any(module is other for other in self.modules):
            return
        self.modules.append(module)
        for path, tensor in module._named_tensors():
            node = tensor._node or constant_of(tensor)
            self.parameters.setdefault(node, prefix + path)
            self.values.setdefault(node, tensor._data)

    def name(self, node: Node) -> str | None:
        """Give a node's name: the user's, the path in its module, or a variable's."""
        return node.name or self.parameters.get(node) or self.names.get(node)


def known(outputs: Iterable[Any], names: Any) -> Known:
    """Gather what is known of nodes.

    Parameters
    ----------
    outputs : tensors
    names : None, Module, or mapping of str to Tensor or Module
        Where names are from; for None the variables of the innermost caller outside this package.
    """
    found = Known()
    for output in outputs:
        found.values[output._node or constant_of(output)] = output._data
    if isinstance(names, Module):
        found.add("", names)
    elif isinstance(names, Mapping):
        for name, item in names.items():
            found.add(str(name), item, f"{name}." if name else "")
    elif names is None:
        _add_variables(found, list(_variables()))
    else:
        raise TypeError(
            f"draw: names is a {type(names).__name__}; want a Module, or a dict of names to "
            "tensors and modules"
        )
    return found


def _add_variables(found: Known, variables: list[tuple[str, Any]]) -> None:
    modules = [item for _, item in variables if isinstance(item, Module)]
    inner = {id(part) for module in modules for part in list(module.modules())[1:]}
    outer = {id(module) for module in modules if id(module) not in inner}
    for name, item in variables:
        if isinstance(item, Module) and id(item) not in outer:
            continue
        # The paths of one model need no more; those of two would be mistaken for each other.
        found.add(name, item, f"{name}." if len(outer) > 1 else "")


def _variables() -> Iterator[tuple[str, Any]]:
    """Give the variables in the user's frame, local ones first, then those of its module."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return
    scopes = [frame.f_locals]
    if frame.f_globals is not frame.f_locals:
        scopes.append(frame.f_globals)
    for scope in scopes:
        for name, item in list(scope.items()):
            if not name.startswith("_"):
                yield name, item
