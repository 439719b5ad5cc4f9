"""A recorded program as a picture, in the plain data of ``tinygrad_hw.drawing``."""

from __future__ import annotations

from typing import Any

from .program import Program, Ref


def picture_of(program: Program) -> Any:
    """Give the ``Graph`` of a program: its inputs, its operations, what each writes."""
    from ..drawing.graph import Edge, Graph, Vertex

    ids: dict[int, str] = {}
    nodes: list[Any] = []
    edges: list[Any] = []
    results = {r.index for r in program.outputs if isinstance(r, Ref)}
    writes: dict[int, list[str]] = {}
    for write in program.writes:
        if isinstance(write.value, Ref):
            writes.setdefault(write.value.index, []).append(f"writes {write.target}")

    def add(i: int, kind: str, title: str) -> None:
        ids[i] = f"n{len(nodes)}"
        spec = program.specs[i]
        lines = (str(spec.dtype), *writes.get(i, ()))
        nodes.append(Vertex(ids[i], kind, title, str(spec.shape), lines, output=i in results))

    for i, source in program.inputs.items():
        add(i, "parameter" if source.kind == "data" else "input", str(source))
    for i in program.constants:
        add(i, "constant", "constant")
    for instruction in program.instructions:
        add(instruction.out, "op", instruction.op.name)
        for position, i in enumerate(instruction.refs()):
            edges.append(Edge(ids[i], ids[instruction.out], position, str(program.specs[i].shape)))
    return Graph(tuple(nodes), tuple(edges))
