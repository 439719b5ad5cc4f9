"""``tinygrad-hw pack``: the zip that the handout asks for."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np

from tinygrad_hw.commands import output_folder
from tinygrad_hw.kernels import hw5
from tinygrad_hw.serialize import load

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp.npz": {"w1": (30, 196), "b1": (30, 1), "w2": (10, 30), "b2": (10, 1)},
    "cnn.npz": {"w_conv": (3, 3, 1, 3), "b_conv": (3, 1), "w_fc": (10, 147), "b_fc": (10, 1)},
}

ADVICE = "make it by `tinygrad-hw writeup`"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        default=Path("submission"),
        help="folder of mlp.npz, cnn.npz and writeup.pdf, by default submission",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("hw5.zip"), help="the zip to write, by default hw5.zip"
    )


def run(options: argparse.Namespace) -> int:
    """Check the parts, and write the zip whole or not at all."""
    parts = {"hw5.py": Path(str(hw5.__file__)).read_bytes()}
    for name, shapes in SHAPES.items():
        path = options.source / name
        _check_weights(path, shapes)
        parts[name] = path.read_bytes()
    pdf = options.source / "writeup.pdf"
    parts["writeup.pdf"] = _read_pdf(pdf)
    if options.out.is_dir():
        raise IsADirectoryError(f"{options.out}: is a folder; want --out to name a zip in it")
    output_folder(options.out.parent)
    with hw5.replacing(options.out) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name, content in parts.items():
            # With a fixed date: the same parts give the same bytes.
            member = zipfile.ZipInfo(f"hw5/{name}")
            member.external_attr = 0o644 << 16
            file.writestr(member, content, zipfile.ZIP_DEFLATED)
    print(f"wrote {options.out}: {', '.join(parts)}")
    return 0


def _check_weights(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {ADVICE}")
    weights = load(path)
    found = {name: array.shape for name, array in weights.items()}
    if found != shapes:
        raise ValueError(f"{path}: holds {found}; want {shapes}: {ADVICE}")
    for name, array in weights.items():
        if array.dtype.kind != "f":
            raise ValueError(f"{path}: {name} has dtype {array.dtype}; want floats: {ADVICE}")
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} has entries that are no finite numbers; {ADVICE}")


def _read_pdf(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {ADVICE}")
    content = path.read_bytes()
    if not content.startswith(b"%PDF-") or b"%%EOF" not in content[-64:]:
        raise ValueError(f"{path}: is no whole PDF; {ADVICE}")
    return content
