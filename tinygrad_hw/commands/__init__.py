"""The subcommands of ``tinygrad-hw``: modules with ``configure(parser)`` and ``run(options)``."""

from __future__ import annotations

import tempfile
from pathlib import Path


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
