"""The write-up of the assignment as a PDF, with the numbers and pictures of one run."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from .data import Digits
from .kernels import hw5

A4 = (8.27, 11.69)
RATIO = A4[0] / A4[1]
GAP = 0.0057
BLUE, ORANGE = "#20639b", "#d1603d"

ARCHITECTURES = {
    "mlp": "196 pixels, fully connected to 30, ReLU, fully connected to 10, softmax",
    "cnn": "14x14x1, convolution 3x3 to 3 channels, ReLU, max-pooling 2x2, 147 features fully "
    "connected to 10, softmax",
}


def need_matplotlib() -> None:
    """Raise an ImportError that says what to do, unless matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'matplotlib is not installed; run pip install "tinygrad_hw[plot]"'
        ) from error


def write_writeup(
    path: Path, digits: Digits, results: dict[str, hw5.Result], *, seed: int, num_iters: int
) -> None:
    """Write the PDF, whole or not at all; the same run gives the same bytes.

    Parameters
    ----------
    path : Path
    digits : Digits
    results : dict
        Of :func:`hw5.train_and_test`, by the network's name.
    seed, num_iters : int
        Of the run.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    need_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    meta = {"Title": "Handwritten digits with an MLP and a CNN", "CreationDate": None}
    with (
        matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 8.5}),
        hw5.replacing(path) as temporary,
        PdfPages(temporary, metadata=meta) as pdf,
    ):
        for number, network in enumerate(hw5.NETWORKS, start=1):
            result = results[network.name]
            text = _description(network, result, digits, seed=seed, num_iters=num_iters)
            pdf.savefig(_training_page(number, network, result, digits, text))
        pdf.savefig(_pictures_page(len(hw5.NETWORKS) + 1, digits, results))


def _description(
    network: hw5.Network, result: hw5.Result, digits: Digits, *, seed: int, num_iters: int
) -> str:
    n_train, n_test = len(digits.image_train), len(digits.image_test)
    count = sum(w.size for w in result.weights.values())
    wrong = n_test - round(result.accuracy * n_test)
    confused = result.confusion - np.diag(np.diag(result.confusion))
    guess, truth = np.unravel_index(confused.argmax(), confused.shape)
    times = round(float(confused.max()) * n_test)
    mistakes = (
        f"{wrong} are wrong; the most frequent mistake takes a {truth} for a {guess} "
        f"({times} times)."
        if wrong
        else "none is wrong."
    )
    return (
        f"Network: {ARCHITECTURES[network.name]}; {count:,} weights. Training: Algorithm 1, "
        f"stochastic gradient descent on mini-batches of {hw5.BATCH_SIZE} of the {n_train:,} "
        f"training images ({digits.source.split(' in ')[0]}), {num_iters:,} iterations at a "
        f"learning rate of {network.learning_rate}, multiplied by {hw5.DECAY_RATE} at every "
        f"1000th iteration; Gaussian initial weights with a variance of 2 over the number of "
        f"inputs; seed {seed}. The mean loss of the first epoch is "
        f"{result.losses[: result.num_batches].mean():.3f}, of the last "
        f"{result.losses[-result.num_batches :].mean():.3f}. Of the {n_test:,} test images "
        f"{100 * result.accuracy:.2f} % are classified right, {mistakes}"
    )


# --- Pages ------------------------------------------------------------------------------------


def _page(number: int, title: str, text: str) -> Any:
    """An empty page with a heading, a paragraph and a number."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=A4)
    figure.text(0.1, 0.945, title, fontsize=15, weight="bold", va="top")
    figure.add_artist(_line(0.1, 0.9, 0.915))
    figure.text(0.1, 0.9, textwrap.fill(text, 112), va="top", linespacing=1.55, fontsize=8.5)
    figure.text(0.5, 0.035, str(number), ha="center", color="gray")
    return figure


def _line(left: float, right: float, height: float) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([left, right], [height, height], color=BLUE, linewidth=1.2)


def _caption(figure: Any, height: float, text: str) -> None:
    figure.text(0.1, height, textwrap.fill(text, 130), va="top", fontsize=7.5, color="#444444")


def _training_page(
    number: int, network: hw5.Network, result: hw5.Result, digits: Digits, text: str
) -> Any:
    name = network.name.upper()
    title = f"{number}  {name}: {100 * result.accuracy:.2f} % of the test images right"
    figure = _page(number, title, text)
    left = figure.add_axes((0.16, 0.585, 0.3, 0.19))
    right = figure.add_axes((0.6, 0.585, 0.3, 0.19))
    _plot_losses(left, right, result)
    _caption(
        figure,
        0.54,
        f"Figure {number}a. Training loss of the {name}: of each mini-batch with its running mean "
        "(left) and the mean of each epoch (right), on logarithmic axes.",
    )
    axes = figure.add_axes((0.25, 0.125, 0.52, 0.52 * RATIO))
    _plot_confusion(axes, result.confusion, digits.label_classes)
    _caption(
        figure,
        0.08,
        f"Figure {number}b. Confusion matrix of the {name} on the test images, in percent of each "
        "true class. The diagonal is right.",
    )
    return figure


def _plot_losses(left: Any, right: Any, result: hw5.Result) -> None:
    losses, n = result.losses.ravel(), result.num_batches
    steps = np.arange(1, losses.size + 1)
    window = max(min(n, losses.size), 1)
    mean = np.convolve(losses, np.ones(window) / window, mode="valid")
    left.plot(steps, np.maximum(losses, 1e-6), color=BLUE, alpha=0.25, linewidth=0.3)
    left.plot(steps[window - 1 :], mean, color=BLUE, linewidth=1.2)
    left.set(xlabel="iteration", ylabel="loss", yscale="log")
    left.set_ylim(max(np.quantile(losses, 0.02), 1e-4), losses.max() * 1.3)
    # A last epoch that was cut short would bend the curve: its batches are too few for a mean.
    epochs = losses[: max(losses.size // n, 1) * n].reshape(-1, min(n, losses.size)).mean(axis=1)
    right.plot(np.arange(1, epochs.size + 1), epochs, color=ORANGE, marker=".", markersize=3)
    right.set(xlabel="epoch", ylabel="mean loss", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)


def _plot_confusion(axes: Any, confusion: Any, classes: list[str]) -> None:
    share = 100 * confusion / np.maximum(confusion.sum(axis=0), np.finfo(float).tiny)
    # The square root shows the few mistakes beside the many right ones.
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=10)
    for i, j in np.ndindex(share.shape):
        if share[i, j] >= 0.05:
            color = "white" if share[i, j] > 35 else "black"
            axes.text(j, i, f"{share[i, j]:.1f}", ha="center", va="center", color=color, size=6.5)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="true class", ylabel="predicted class")
    axes.tick_params(length=0)


def _pictures_page(number: int, digits: Digits, results: dict[str, hw5.Result]) -> Any:
    mlp, cnn = results["mlp"], results["cnn"]
    label = digits.label_test.ravel()
    both = int(np.sum((mlp.pred != label) & (cnn.pred != label)))
    text = (
        "What the networks see and what they learned. Of the test images, "
        f"{int(np.sum(mlp.pred != label))} are too hard for the MLP and "
        f"{int(np.sum(cnn.pred != label))} for the CNN, {both} of them for both."
    )
    figure = _page(number, f"{number}  Digits, mistakes and filters", text)
    right = np.flatnonzero((mlp.pred == label) & (cnn.pred == label))[:12]
    wrong = np.flatnonzero(cnn.pred != label)[:12]
    _digit_row(figure, 0.8, digits, right, cnn.pred, "#2a7f3f")
    _caption(
        figure, 0.79, f"Figure {number}a. Test images that both networks get right: truth, guess."
    )
    _digit_row(figure, 0.68, digits, wrong, cnn.pred, ORANGE)
    _caption(figure, 0.67, f"Figure {number}b. Test images that the CNN gets wrong: truth, guess.")
    filters = cnn.weights["w_conv"][:, :, 0].transpose(2, 0, 1)
    _weight_grid(figure, filters, columns=3, top=0.625, side=0.12)
    _bias_note(figure, cnn.weights["b_conv"])
    _caption(
        figure,
        0.53,
        f"Figure {number}c. The three filters of the CNN's convolution; red adds, blue subtracts.",
    )
    hidden = mlp.weights["w1"].reshape(-1, *hw5.IMAGE_SHAPE)
    _weight_grid(figure, hidden, columns=8, top=0.485, side=0.095)
    _caption(
        figure,
        0.195,
        f"Figure {number}d. The weights of the MLP's {len(hidden)} hidden units, as images: where "
        "ink switches a unit on (red) or off (blue).",
    )
    return figure


def _digit_row(
    figure: Any, bottom: float, digits: Digits, chosen: Any, pred: Any, color: str
) -> None:
    side = 0.8 / 12
    for column, i in enumerate(chosen):
        axes = figure.add_axes((0.1 + column * side, bottom, side * 0.92, side * 0.92 * RATIO))
        axes.imshow(digits.image_test[i], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{digits.label_test[i, 0]}, {pred[i]}", size=7.5, color=color, pad=2)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_linewidth(0.4)


def _weight_grid(figure: Any, images: Any, *, columns: int, top: float, side: float) -> None:
    """Rows of images, downwards from ``top``; lengths are shares of the page's width."""
    limit = float(np.abs(images).max()) or 1.0
    for k, image in enumerate(images):
        row, column = divmod(k, columns)
        left, bottom = 0.1 + column * (side + GAP), top - ((row + 1) * side + row * GAP) * RATIO
        axes = figure.add_axes((left, bottom, side, side * RATIO))
        axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_linewidth(0.4)


def _bias_note(figure: Any, bias: Any) -> None:
    values = ", ".join(f"{b:+.2f}" for b in bias.ravel())
    figure.text(0.5, 0.58, f"biases {values}", fontsize=8, va="center", color="#444444")
