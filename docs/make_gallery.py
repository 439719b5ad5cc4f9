"""Draw the pictures of gallery.md, and cnn.png of the README; run it after a change to drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tinygrad_hw as tg
from tinygrad_hw.drawing import Graph

HERE = Path(__file__).parent
rng = np.random.default_rng(0)


def handout(name: str) -> dict[str, Graph]:
    """The handout's networks: forward, backward and both."""
    from tinygrad_hw.models import CNN, MLP, example_loss

    loss, names = example_loss(MLP(rng=0) if name == "mlp" else CNN(rng=0))
    return {
        f"{name}_forward": tg.draw(loss, names=names, direction="TB"),
        f"{name}_backward": tg.draw(loss, names=names, direction="TB", order="backward"),
        f"{name}_both": tg.draw(loss, names=names, direction="TB", order="both"),
    }


class Residual(tg.nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self) -> None:
        self.first = tg.nn.Conv2d(4, 4, 3, padding="same", rng=0)
        self.second = tg.nn.Conv2d(4, 4, 3, padding="same", rng=1)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """Add what the convolutions make of ``x`` to it."""
        return tg.relu(x + self.second(tg.relu(self.first(x))))


def residual() -> Graph:
    """A residual block."""
    x = rng.random((8, 14, 14, 4), dtype=np.float32)
    return Residual().graph(x, direction="TB")


class Cell(tg.nn.Module):
    """One step of a recurrent network."""

    def __init__(self) -> None:
        self.inner = tg.nn.Linear(8, 8, rng=0)
        self.outer = tg.nn.Linear(3, 8, bias=False, rng=1)

    def forward(self, h: tg.Tensor, x: tg.Tensor) -> tg.Tensor:
        """The next state."""
        return tg.tanh(self.inner(h) + self.outer(x))


def recurrent() -> tuple[Graph, Graph]:
    """A recurrent network over four steps, unrolled and folded."""
    cell, h = Cell(), tg.Tensor(np.zeros((2, 8), np.float32), name="h0")
    for step, x in enumerate(rng.random((4, 2, 3), dtype=np.float32), 1):
        h = cell(h, tg.Tensor(x, name=f"x{step}"))
    graph = tg.draw(h, names=cell, direction="TB")
    return graph.fold(depth=1), graph.fold(repeats=True)


def nan_hunt() -> Graph:
    """A logarithm of what relu made zero, and what became of it."""
    x = tg.Tensor([[-1.0, -2.0], [0.5, 2.0]], requires_grad=True, name="x")
    with np.errstate(all="ignore"):
        y = tg.log(tg.relu(x))
        loss = tg.mean(y - tg.max(y, axis=0) + 0 * y)
    return tg.draw(loss, names={"x": x}, show=("shape", "value"), direction="TB")


def double_backward() -> Graph:
    """The second derivative of x * sin(x)."""
    x = tg.Tensor(1.0, requires_grad=True, name="x")
    first = tg.grad(x * tg.sin(x), x, create_graph=True)
    return tg.draw(tg.grad(first, x, create_graph=True), names={"x": x}, direction="TB")


def pictures() -> dict[str, Graph]:
    """Give all pictures by name."""
    unrolled, folded = recurrent()
    return {
        **handout("mlp"),
        **handout("cnn"),
        "residual": residual(),
        "rnn_unrolled": unrolled,
        "rnn_folded": folded,
        "nan_hunt": nan_hunt(),
        "double_backward": double_backward(),
    }


def main() -> None:
    """Write all of them."""
    (HERE / "gallery").mkdir(exist_ok=True)
    for name, graph in pictures().items():
        print(graph.save(HERE / "gallery" / f"{name}.png").name)
        if name == "cnn_forward":
            graph.save(HERE / "cnn.png")


if __name__ == "__main__":
    main()
