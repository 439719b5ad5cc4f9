"""``tinygrad-hw writeup``: do the assignment with hw5.py and write it up."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tinygrad_hw.commands import add_data, output_folder
from tinygrad_hw.data import load_digits
from tinygrad_hw.kernels import hw5
from tinygrad_hw.writeup import need_matplotlib, write_writeup


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_data(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("submission"),
        help="folder to write to, by default submission",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the batches and initial weights, by default 0"
    )


def run(options: argparse.Namespace) -> int:
    """Train both networks, write the weights and the write-up."""
    if options.seed < 0:
        raise ValueError(f"seed is {options.seed}; want at least 0")
    need_matplotlib()  # Before the work and not after it.
    start = time.perf_counter()
    out = output_folder(options.out)
    digits = load_digits(options.data)
    print(f"data: {digits.source}")
    arrays = (digits.image_train, digits.label_train, digits.image_test, digits.label_test)
    results = {}
    for network in hw5.NETWORKS:
        result = hw5.train_and_test(network, *arrays, seed=options.seed, num_iters=hw5.NUM_ITERS)
        results[network.name] = result
        print(f"{network.name.upper()}: accuracy {result.accuracy:.4f}")
    pdf = out / "writeup.pdf"
    write_writeup(pdf, digits, results, seed=options.seed, num_iters=hw5.NUM_ITERS)
    for name, result in results.items():
        hw5.save_weights(out / f"{name}.npz", **result.weights)
    print(f"wrote mlp.npz, cnn.npz and writeup.pdf to {out} ({time.perf_counter() - start:.1f} s)")
    return 0
