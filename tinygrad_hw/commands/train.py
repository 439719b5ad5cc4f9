"""``tinygrad-hw train``: train the handout's networks with the engine."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_hw.commands import add_data, output_folder
from tinygrad_hw.data import Digits, load_digits
from tinygrad_hw.drawing import RendererError, draw, renderer
from tinygrad_hw.kernels import hw5
from tinygrad_hw.models import example_loss
from tinygrad_hw.training import Run, backend_for, seconds_a_step, settings_for

COLUMNS = ("model", "epoch", "loss", "train_accuracy", "test_accuracy", "lr")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "model",
        nargs="?",
        choices=("mlp", "cnn", "both"),
        default="both",
        help="the network to train, by default both",
    )
    add_data(parser)
    parser.add_argument("--epochs", type=int, help="by default 40")
    parser.add_argument("--batch-size", type=int, help="by default 32")
    parser.add_argument(
        "--lr", type=float, help="highest learning rate, by default 0.1 for mlp and 0.05 for cnn"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the batches and initial weights, by default 0"
    )
    parser.add_argument(
        "--compile",
        choices=("auto", "numpy", "numba", "off"),
        default="auto",
        help="how a training step runs; auto is numba for long trainings where it is installed, "
        "else numpy",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder for the results, by default runs"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in the folder"
    )


def run(options: argparse.Namespace) -> int:
    """Train; the result is the exit status."""
    names = ("mlp", "cnn") if options.model == "both" else (options.model,)
    settings = [
        settings_for(
            name,
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            seed=options.seed,
        )
        for name in names
    ]
    output_folder(options.out)
    digits = load_digits(options.data)
    print(f"data: {digits.source}")
    summaries = []
    for one in settings:
        backend = backend_for(options.compile, one, len(digits.label_train))
        training = Run(one, digits, backend)
        checkpoint = options.out / f"{one.model}.checkpoint.npz"
        if options.resume and checkpoint.exists():
            training.resume(checkpoint)
            print(f"{one.model.upper()}: resumed after epoch {len(training.rows)}")
        elif options.resume:
            print(f"{one.model.upper()}: no checkpoint in {options.out}, so it starts anew")
        start = time.perf_counter()
        try:
            _train(training, checkpoint, options.out)
        except KeyboardInterrupt as stopped:
            stopped.add_note(_interrupted(training, digits, options.out))
            raise
        accuracy = _write_results(training, digits, options.out)
        seconds = time.perf_counter() - start
        count = len(digits.label_test)
        summaries.append(
            f"{one.model.upper()}: accuracy {accuracy:.4f} on {count} test images ({seconds:.1f} s)"
        )
        if backend != "off":
            summaries.append(_gain(training, digits))
    print("\n".join(summaries))
    print(f"the results are in {options.out}")
    return 0


def _interrupted(training: Run, digits: Digits, out: Path) -> str:
    """Write what there is after whole epochs; say where, and how to go on."""
    text = f"{training.settings.model.upper()}: interrupted in epoch {len(training.rows) + 1}"
    if not training.rows:
        return f"{text}; no epoch is complete, so nothing was written"
    _write_results(training, digits, out)
    return f"{text}; the weights so far are in {out}, go on with --resume"


def _gain(training: Run, digits: Digits) -> str:
    """Say what compiling gained."""
    eager, compiled = (
        seconds_a_step(training.settings, digits, backend) * 1e6
        for backend in ("off", training.backend)
    )
    return (
        f"{training.settings.model.upper()}: a step took {compiled:.0f} us compiled with "
        f"{training.backend}, {eager:.0f} us without: {eager / compiled:.1f} times faster"
    )


def _train(training: Run, checkpoint: Path, out: Path) -> None:
    with _progress(training) as (advance, report):
        while not training.done:
            training.train_epoch(advance)
            training.save(checkpoint)
            _write_metrics(training, out)
            report(training.rows[-1])


@contextmanager
def _progress(
    training: Run,
) -> Iterator[tuple[Callable[[float], None], Callable[[dict[str, float]], None]]]:
    """Show a bar where tqdm is installed, else a line an epoch."""
    name, epochs = training.settings.model.upper(), training.settings.epochs
    try:
        from tqdm import tqdm
    except ImportError:
        yield (
            lambda loss: None,
            lambda row: print(
                f"{name}: epoch {row['epoch']} of {epochs}, loss {row['loss']:.4f}, "
                f"accuracy {row['test_accuracy']:.4f}",
                file=sys.stderr,
            ),
        )
        return
    total = epochs * training.batches
    with tqdm(total=total, initial=len(training.losses), desc=name, mininterval=0.5) as bar:

        def report(row: dict[str, float]) -> None:
            bar.set_postfix(loss=f"{row['loss']:.4f}", accuracy=f"{row['test_accuracy']:.4f}")

        yield lambda loss: bar.update(), report


def _write_results(training: Run, digits: Digits, out: Path) -> float:
    """Write the weights and the figures; return the test accuracy."""
    name = training.settings.model
    hw5.save_weights(out / f"{name}.npz", **training.model.weights())
    confusion, accuracy = hw5.compute_confusion_matrix_and_accuracy(
        training.predictions(), digits.label_test, len(digits.label_classes)
    )
    _draw_graph(training, out)
    try:
        if training.losses:
            hw5.visualize_training_progress(
                np.array(training.losses),
                training.batches,
                title=name.upper(),
                path=out / f"{name}_loss.png",
            )
        hw5.visualize_confusion_matrix(
            confusion,
            accuracy,
            digits.label_classes,
            title=name.upper(),
            path=out / f"{name}_confusion.png",
        )
    except ImportError:
        print(f'{name.upper()}: no figures; for them, pip install "tinygrad_hw[plot]"')
    return accuracy


def _draw_graph(training: Run, out: Path) -> None:
    """Picture the model where a renderer is present; `tinygrad-hw doctor` tells how to get one."""
    if renderer() is None:
        return
    name = training.settings.model
    loss, names = example_loss(training.model)
    try:
        draw(loss, names=names).save(out / f"{name}_graph.png")
    except RendererError as error:
        print(f"{name.upper()}: no picture of the graph: {error}")


def _write_metrics(training: Run, out: Path) -> None:
    """Write the rows of this model, beside those of the other one, whole or not at all."""
    path, name = out / "metrics.csv", training.settings.model
    rows: list[dict[str, Any]] = []
    if path.exists():
        try:
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row.get("model") not in (None, name)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: is no CSV file ({error}); move it away") from error
    rows += [{"model": name, **row} for row in training.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with hw5.replacing(path) as temporary:
        temporary.write_text(text.getvalue())
