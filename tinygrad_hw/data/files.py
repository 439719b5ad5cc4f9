"""Read the files of the course and of MNIST, and check all that they say."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels import hw5

Array = np.ndarray[Any, Any]

COURSE_FILES = ("mnist_train.npz", "mnist_test.npz")

# The four files of MNIST with their published MD5 sums: images and labels to train, then to test.
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}

# SHA-256 of the course's pixels and labels: what the derivation from MNIST must give.
COURSE_SHA256 = {
    "mnist_train.npz": "c061454113c53f2ec39735f899cead20d1ac6b5cffc4a1cd4570b0e614350ef2",
    "mnist_test.npz": "b95b04ddfb2b3333a5a1f0c098a05f439b2a239845380b4924a5c52b634a3b71",
}


class DataError(ValueError):
    """A data file that is damaged, or not what its name says."""


def read_course(folder: Path) -> tuple[Array, Array, Array, Array]:
    """Read the course's two files: images uint8 (N, 14, 14) and labels uint8 (N, 1) of each set."""
    try:
        image_train, label_train, image_test, label_test, _ = hw5.get_MNIST_data(folder)
    except (FileNotFoundError, ValueError) as error:
        raise DataError(str(error)) from error
    return image_train, label_train, image_test, label_test


def read_mnist(folder: Path) -> tuple[Array, Array, Array, Array]:
    """Read the four MNIST files: images uint8 (N, 28, 28) and labels uint8 (N,) of each set."""
    image_train, label_train, image_test, label_test = (
        _read_idx(folder / name, checksum) for name, checksum in MNIST_FILES.items()
    )
    for images, labels in ((image_train, label_train), (image_test, label_test)):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{folder}: images {images.shape} and labels {labels.shape}; want (N, 28, 28) and "
                "(N,): delete the files to fetch them again"
            )
    return image_train, label_train, image_test, label_test


def _read_idx(path: Path, checksum: str) -> Array:
    """Read an array in the IDX format: a magic number, the sides, the bytes."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; want all of {', '.join(MNIST_FILES)}")
    packed = path.read_bytes()
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != checksum:
        raise DataError(
            f"{path}: MD5 is {found}; want {checksum}: the file is damaged, delete it to fetch it "
            "again"
        )
    try:
        data = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: no gzip file ({error}); delete it to fetch it again") from error
    ndim = data[3] if data[:3] == b"\x00\x00\x08" else 0
    shape = np.frombuffer(data[4 : 4 + 4 * ndim], ">u4").tolist()
    pixels = data[4 + 4 * ndim :]
    if ndim == 0 or len(shape) != ndim or len(pixels) != math.prod(shape):
        raise DataError(f"{path}: no IDX file of bytes; delete it to fetch it again")
    return np.frombuffer(pixels, np.uint8).reshape(shape)


def derive_course(mnist: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
    """Make the course's data of MNIST: every fifth image, every second pixel from the second."""
    image_train, label_train, image_test, label_test = mnist
    return (
        np.ascontiguousarray(image_train[::5, 1::2, 1::2]),
        label_train[::5, np.newaxis].copy(),
        np.ascontiguousarray(image_test[::5, 1::2, 1::2]),
        label_test[::5, np.newaxis].copy(),
    )


def check_course(data: tuple[Array, Array, Array, Array]) -> None:
    """Raise unless every pixel and label is that of the course's files."""
    for name in unlike_course(data):
        raise DataError(
            f"{name}: derived from MNIST, but its pixels or labels differ from the course's; "
            "report this as a bug"
        )


def unlike_course(data: tuple[Array, Array, Array, Array]) -> list[str]:
    """List the files of which a pixel or a label is not the course's."""
    sets = zip(COURSE_FILES, data[::2], data[1::2], strict=True)
    return [name for name, *pair in sets if course_sha256(*pair) != COURSE_SHA256[name]]


def course_sha256(images: Array, labels: Array) -> str:
    """Digest of the pixels, then the labels."""
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def write_course(folder: Path, data: tuple[Array, Array, Array, Array]) -> None:
    """Write the course's two files, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, images, labels in zip(COURSE_FILES, data[::2], data[1::2], strict=True):
        hw5.save_weights(folder / name, img=images, label=labels)
