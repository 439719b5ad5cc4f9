"""The digits: where they are looked for, fetched from and derived from, and damaged files."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import tinygrad_hw as tg
import tinygrad_hw.data.download as download_module
from tinygrad_hw.data import DataError, augment, load_digits, load_mnist, mini_batches
from tinygrad_hw.data.digits import cache_folder
from tinygrad_hw.data.download import DownloadError, download_mnist
from tinygrad_hw.data.files import (
    COURSE_FILES,
    COURSE_SHA256,
    MNIST_FILES,
    course_sha256,
    derive_course,
    read_course,
    read_mnist,
)
from tinygrad_hw.data.files import write_course as write_files

pytest.importorskip("pooch")


def real(variable: str, sibling: str, name: str) -> Path:
    """The folder with the real files, or skip."""
    given = os.environ.get(variable)
    course = os.environ.get("TINYGRAD_HW_DATA")
    if given is None and course is not None:
        given = str(Path(course).parent / sibling)
    if given is None or not (Path(given) / name).is_file():
        pytest.skip(f"{name} is not on this machine; name its folder in ${variable}")
    return Path(given)


@pytest.fixture
def course_folder() -> Path:
    return real("TINYGRAD_HW_DATA", "course", "mnist_train.npz")


@pytest.fixture
def mnist_folder() -> Path:
    return real("TINYGRAD_HW_MNIST", "mnist", "train-images-idx3-ubyte.gz")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without data: an empty folder, no cache, and no mirror but those of a test."""
    for variable in ("TINYGRAD_HW_DATA", "TINYGRAD_HW_MNIST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TINYGRAD_HW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download_module, "MIRRORS", ())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


# --- A small MNIST and its mirrors ------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes(), mtime=0)


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Files of the same names and format with a few random images, and their sums in place."""
    rng = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    course = []
    for (images, labels), n in zip(
        zip(list(MNIST_FILES)[::2], list(MNIST_FILES)[1::2], strict=True), (50, 20), strict=True
    ):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        truth = rng.integers(0, 10, n, dtype=np.uint8)
        files |= {images: idx(pixels), labels: idx(truth)}
        course.append((pixels[::5, 1::2, 1::2], truth[::5]))
    for name, content in files.items():
        monkeypatch.setitem(MNIST_FILES, name, hashlib.md5(content).hexdigest())
    for name, (pixels, truth) in zip(COURSE_FILES, course, strict=True):
        monkeypatch.setitem(COURSE_SHA256, name, course_sha256(pixels, truth))
    return files


class Mirrors:
    """An HTTP server on the loopback interface: one folder for each way to behave."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        self.stop = threading.Event()
        mirrors = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                behaviour, _, name = self.path.strip("/").partition("/")
                mirrors.asked.append(behaviour)
                content = files[name]
                if behaviour == "failing":
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if behaviour == "damaged":
                    content = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
                if behaviour in ("stalling", "cut"):
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    if behaviour == "stalling":
                        mirrors.stop.wait(20)
                    return
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{behaviour}/"

    def close(self) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirrors(small_mnist: dict[str, bytes]) -> Iterator[Mirrors]:
    server = Mirrors(small_mnist)
    yield server
    server.close()


def test_download_gives_the_files_of_a_good_mirror(tmp_path, mirrors, small_mnist):
    assert download_mnist(tmp_path, mirrors=[mirrors.url("good")]) == mirrors.url("good")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == small_mnist


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("failing", "answered 503"),
        ("stalling", "stalled"),
        ("damaged", "served damaged bytes"),
        ("cut", "failed|served damaged bytes|cannot be reached"),
    ],
)
def test_a_bad_mirror_is_left_for_the_next(tmp_path, mirrors, small_mnist, behaviour, reason):
    good, bad = mirrors.url("good"), mirrors.url(behaviour)
    assert download_mnist(tmp_path, mirrors=[bad, good], stall=0.3) == good
    assert mirrors.asked[0] == behaviour
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == small_mnist


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("failing", "answered 503"),
        ("stalling", "stalled"),
        ("damaged", "served damaged bytes"),
        ("cut", "failed|served damaged bytes|cannot be reached"),
    ],
)
def test_without_a_good_mirror_nothing_is_left_behind(tmp_path, mirrors, behaviour, reason):
    with pytest.raises(DownloadError, match=f"no mirror served it: 127.0.0.1 ({reason})"):
        download_mnist(tmp_path, mirrors=[mirrors.url(behaviour)], stall=0.3)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_takes_too_long_in_all_is_given_up(tmp_path, mirrors):
    with pytest.raises(DownloadError, match="stalled"):
        download_mnist(tmp_path, mirrors=[mirrors.url("good")], total=-1.0)
    assert list(tmp_path.iterdir()) == []


def test_an_address_where_nobody_listens(tmp_path, mirrors):
    gone = mirrors.url("good")
    mirrors.close()
    with pytest.raises(DownloadError, match="cannot be reached"):
        download_mnist(tmp_path, mirrors=[gone], stall=0.3)


# --- The search order -------------------------------------------------------------------------


def test_digits_are_downloaded_once_and_then_come_from_the_cache(
    empty, mirrors, monkeypatch, capfd
):
    monkeypatch.setattr(download_module, "MIRRORS", (mirrors.url("failing"), mirrors.url("good")))
    fetched = load_digits()
    assert fetched.source.endswith("downloaded from 127.0.0.1")
    assert fetched.image_train.shape == (10, 14, 14)
    assert fetched.label_test.shape == (4, 1)
    asked = len(mirrors.asked)
    cached = load_digits()
    assert str(cache_folder()) in cached.source
    np.testing.assert_array_equal(cached.image_train, fetched.image_train)
    assert len(mirrors.asked) == asked


@pytest.mark.parametrize("left", [[0], [0, 1, 2], [0, 1, 2, 3]])
def test_a_download_that_was_killed_is_completed(empty, mirrors, monkeypatch, small_mnist, left):
    monkeypatch.setattr(download_module, "MIRRORS", (mirrors.url("good"),))
    cache_folder().mkdir(parents=True)
    for i in left:
        name = list(small_mnist)[i]
        (cache_folder() / name).write_bytes(small_mnist[name])
    assert load_digits().image_train.shape == (10, 14, 14)
    assert len(mirrors.asked) == (4 - len(left))


def test_a_cache_that_was_killed_while_it_was_written_is_completed(empty, mirrors, monkeypatch):
    monkeypatch.setattr(download_module, "MIRRORS", (mirrors.url("good"),))
    load_digits()
    (cache_folder() / "mnist_test.npz").unlink()
    assert load_digits().image_test.shape == (4, 14, 14)


def test_without_network_the_small_digits_serve_and_a_line_says_so(empty, capfd):
    pytest.importorskip("sklearn")
    digits = load_digits()
    assert digits.image_train.shape == (1500, 14, 14)
    assert digits.image_test.shape == (297, 14, 14)
    assert digits.image_train.dtype == digits.label_train.dtype == np.uint8
    assert digits.image_train.max() == 255
    assert set(digits.label_test.ravel()) == set(range(10))
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "scikit-learn's handwritten digits" in error


def test_the_same_small_digits_in_every_process(empty):
    pytest.importorskip("sklearn")
    digits = load_digits(download=False)
    code = (
        "from tinygrad_hw.data import load_digits; from tinygrad_hw.data.files import *;"
        "d = load_digits(download=False); print(course_sha256(d.image_train, d.label_train))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert output.strip() == course_sha256(digits.image_train, digits.label_train)


def write_course(folder: Path, value: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in COURSE_FILES:
        np.savez(
            folder / name,
            img=np.full((3, 14, 14), value, np.uint8),
            label=np.zeros((3, 1), np.uint8),
        )


def test_the_nearest_folder_wins(empty, tmp_path, monkeypatch):
    def pixel(path=None):
        return load_digits(path).image_train[0, 0, 0]

    write_course(cache_folder(), 1)
    assert pixel() == 1
    write_course(empty / "data", 2)
    assert pixel() == 2
    write_course(tmp_path / "variable", 3)
    monkeypatch.setenv("TINYGRAD_HW_DATA", str(tmp_path / "variable"))
    assert pixel() == 3
    write_course(tmp_path / "given", 4)
    assert pixel(tmp_path / "given") == 4
    assert pixel(str(tmp_path / "given")) == 4


def test_the_course_s_name_is_for_its_digits_alone(course_folder, empty, tmp_path):
    assert load_digits(course_folder).source == f"the course's files in {course_folder}"
    image_train, label_train, image_test, label_test = read_course(course_folder)
    image_test[0, 0, 0] ^= 1
    write_files(tmp_path, (image_train, label_train, image_test, label_test))
    assert load_digits(tmp_path).source == f"digits other than the course's in {tmp_path}"


def test_mnist_files_in_a_named_folder_are_derived(empty, tmp_path, small_mnist):
    for name, content in small_mnist.items():
        (tmp_path / name).write_bytes(content)
    digits = load_digits(tmp_path)
    assert "derived from MNIST" in digits.source
    assert digits.label_train.shape == (10, 1)


@pytest.mark.parametrize("way", ["path", "variable"])
def test_a_named_folder_without_data_is_an_error_not_a_fallback(empty, tmp_path, monkeypatch, way):
    nowhere = tmp_path / "nowhere"
    if way == "variable":
        monkeypatch.setenv("TINYGRAD_HW_DATA", str(nowhere))
    with pytest.raises(DataError, match=r"nowhere: holds no data; want mnist_train.npz and"):
        load_digits(nowhere if way == "path" else None)


# --- Damaged files ----------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def other_keys(path: Path) -> None:
    np.savez(path, images=np.zeros((3, 14, 14), np.uint8), label=np.zeros((3, 1), np.uint8))


def other_shape(path: Path) -> None:
    np.savez(path, img=np.zeros((3, 28, 28), np.uint8), label=np.zeros((3, 1), np.uint8))


def other_count(path: Path) -> None:
    np.savez(path, img=np.zeros((3, 14, 14), np.uint8), label=np.zeros((2, 1), np.uint8))


def wrong_labels(path: Path) -> None:
    np.savez(path, img=np.zeros((3, 14, 14), np.uint8), label=np.full((3, 1), 10, np.uint8))


def pickled(path: Path) -> None:
    np.savez(path, img=np.array([{}]), label=np.zeros((1, 1), np.uint8), allow_pickle=True)


def text(path: Path) -> None:
    path.write_text("<html>404</html>")


def missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", COURSE_FILES)
@pytest.mark.parametrize(
    "damage",
    [truncate, other_keys, other_shape, other_count, wrong_labels, pickled, text, missing],
)
def test_a_damaged_course_file_is_named(empty, tmp_path, name, damage):
    write_course(tmp_path, 1)
    damage(tmp_path / name)
    with pytest.raises(DataError, match=name):
        load_digits(tmp_path)


@pytest.mark.parametrize("position", range(4))
def test_a_damaged_mnist_file_is_named_with_its_checksum(empty, tmp_path, small_mnist, position):
    for name, content in small_mnist.items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / list(small_mnist)[position]
    truncate(path)
    with pytest.raises(DataError, match=f"{path.name}: MD5 is .*; want .*: the file is damaged"):
        load_digits(tmp_path)


# Without the time of compression: a test is named by its parameters, in every process the same.
PACKED = [gzip.compress(data, mtime=0) for data in (b"no idx", b"")]


@pytest.mark.parametrize("content", [b"no gzip", *PACKED])
def test_a_file_of_the_right_sum_and_another_format(
    empty, tmp_path, small_mnist, content, monkeypatch
):
    for name, right in small_mnist.items():
        (tmp_path / name).write_bytes(right)
    first = next(iter(small_mnist))
    (tmp_path / first).write_bytes(content)
    monkeypatch.setitem(MNIST_FILES, first, hashlib.md5(content).hexdigest())
    with pytest.raises(DataError, match=r"no gzip file|no IDX file"):
        load_mnist(tmp_path)


def test_pixels_that_differ_from_the_courses_are_refused(empty, tmp_path, small_mnist, monkeypatch):
    for name, content in small_mnist.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setitem(COURSE_SHA256, "mnist_test.npz", "0" * 64)
    with pytest.raises(DataError, match=r"mnist_test.npz: derived from MNIST, but its pixels"):
        load_digits(tmp_path)


# --- The real files ---------------------------------------------------------------------------


def test_the_derivation_gives_the_courses_pixels(course_folder, mnist_folder, empty):
    course = load_digits(course_folder)
    derived = derive_course(read_mnist(mnist_folder))
    names = ("image_train", "label_train", "image_test", "label_test")
    for name, array in zip(names, derived, strict=True):
        np.testing.assert_array_equal(array, getattr(course, name))
        assert array.dtype == getattr(course, name).dtype
    for name, images, labels in zip(COURSE_FILES, derived[::2], derived[1::2], strict=True):
        assert course_sha256(images, labels) == COURSE_SHA256[name]


def test_the_real_mnist_comes_through_the_download(mnist_folder, empty, monkeypatch):
    server = Mirrors({name: (mnist_folder / name).read_bytes() for name in MNIST_FILES})
    try:
        monkeypatch.setattr(download_module, "MIRRORS", (server.url("damaged"), server.url("good")))
        digits = load_digits()
        full = load_mnist()
    finally:
        server.close()
    assert digits.image_train.shape == (12000, 14, 14)
    assert full[0].shape == (60000, 28, 28)
    assert full[3].shape == (10000,)


def test_full_mnist_without_network_says_what_to_do(empty):
    with pytest.raises(DataError, match="name its folder, or allow the download"):
        load_mnist(download=False)
    with pytest.raises(DataError, match=r"not on this machine \(no mirror .*TINYGRAD_HW_MNIST"):
        load_mnist()


# --- Batches and augmentation -----------------------------------------------------------------


def test_mini_batches_cover_the_data_once_in_a_seeded_order():
    x, y = np.arange(10.0), np.arange(10)
    batches = list(mini_batches(x, y, batch_size=4, rng=0))
    assert [len(b[0]) for b in batches] == [4, 4, 2]
    assert all((bx == by).all() for bx, by in batches)
    assert sorted(np.concatenate([b[1] for b in batches])) == list(range(10))
    again = list(mini_batches(x, y, batch_size=4, rng=0))
    assert all((a[0] == b[0]).all() for a, b in zip(batches, again, strict=True))


def test_mini_batches_of_lists_and_tensors_are_those_of_arrays():
    x, y = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0, 1, 2]
    kinds = [list, np.array, tg.Tensor]
    batches = [next(mini_batches(kind(x), kind(y), 2, rng=0)) for kind in kinds]
    assert len({str(np.asarray(images).tolist()) for images, _ in batches}) == 1
    for size in (0, 2.0, "2"):
        with pytest.raises(ValueError, match=r"batch_size is .*; want a whole number, at least 1"):
            mini_batches(x, y, size)


def test_augmentation_takes_what_makes_an_array_and_refuses_negative_bounds():
    images = np.random.default_rng(0).random((2, 4, 4))
    for other in (images.tolist(), tg.Tensor(images)):
        np.testing.assert_array_equal(augment(other, 0), augment(images, 0))
    for bound in (-1, np.nan, "far"):
        message = rf"augment: max_shift is {bound!r}; want a number, at least 0"
        with pytest.raises(ValueError, match=message):
            augment(images, max_shift=bound)


def test_augmentation_moves_little_and_keeps_the_values_range():
    images = np.zeros((20, 14, 14), np.float32)
    images[:, 5:9, 5:9] = 1
    moved = augment(images, 0, max_shift=1.0, max_rotation=10.0, max_zoom=0.1)
    assert moved.shape == images.shape
    assert moved.dtype == np.float32
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    assert not np.array_equal(moved, images)
    np.testing.assert_array_equal(
        moved, augment(images, 0, max_shift=1.0, max_rotation=10.0, max_zoom=0.1)
    )
    still = augment(images, 0, max_shift=0.0, max_rotation=0.0, max_zoom=0.0)
    np.testing.assert_allclose(still, images, atol=1e-6)


def test_augmentation_shifts_by_linear_interpolation():
    images = np.random.default_rng(1).random((700, 5, 7))
    rng = np.random.default_rng(0)
    rng.uniform(size=(2, 700))
    shifts = rng.uniform(-9, 9, (2, 700))
    expected = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    for image, down, right in zip(expected, *shifts, strict=True):
        for line, shift in [(row, right) for row in image] + [(row, down) for row in image.T]:
            places = np.arange(len(line))
            line[:] = np.interp(places + shift, places, line, left=0, right=0)
    moved = augment(images, 0, max_shift=9.0, max_rotation=0.0)
    np.testing.assert_allclose(moved, expected[:, 1:-1, 1:-1], atol=1e-12)
