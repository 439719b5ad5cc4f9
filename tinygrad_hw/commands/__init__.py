"""The subcommands of ``tinygrad-hw``: modules with ``configure(parser)`` and ``run(options)``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the data, and what there is without it."""
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of the course's mnist_train.npz and mnist_test.npz, or of the four files of "
        "MNIST; without it TINYGRAD_HW_DATA, ./data, the download cache, a download and "
        "scikit-learn's digits are tried",
    )


def output_folder(path: Path) -> Path:
    """Make a folder and try to write there, before the work and not after it.

    Raises
    ------
    OSError
        If that cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OSError(
            f"{path}: cannot write there ({error.strerror}); name another --out"
        ) from None
