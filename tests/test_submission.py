"""``tinygrad-hw writeup`` and ``pack``: the submission, whole or not at all, and reproducible."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from small_digits import write_small_digits

import hw5
from tinygrad_hw.cli import main
from tinygrad_hw.data import Digits, load_digits
from tinygrad_hw.kernels import hw5 as kernels
from tinygrad_hw.writeup import write_writeup

SUBMISSION = Path(__file__).parents[1] / "submission"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_small_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def quick(monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(kernels, "NUM_ITERS", 200)


def test_writeup_writes_the_three_parts(data, tmp_path, capsys, quick):
    assert main(["writeup", "--data", str(data), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cnn.npz", "mlp.npz", "writeup.pdf"]
    pdf = (tmp_path / "writeup.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") == 3
    assert re.search(r"MLP: accuracy [01]\.\d{4}\nCNN: accuracy [01]\.\d{4}\n", printed)


def test_without_matplotlib_writeup_says_so_before_it_trains(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(kernels, "train_and_test", None)
    assert main(["writeup", "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "tinygrad_hw[plot]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_run_gives_the_same_bytes(data, tmp_path, quick):
    for folder in "ab":
        assert main(["writeup", "--data", str(data), "--out", str(tmp_path / folder)]) == 0
    for name in ("mlp.npz", "cnn.npz", "writeup.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(("iterations", "n_test"), [(1, 5), (30, 1), (500, 100)])
def test_short_runs_and_small_sets_have_a_write_up(data, tmp_path, quick, iterations, n_test):
    digits = load_digits(data)
    digits = Digits(
        digits.image_train,
        digits.label_train,
        digits.image_test[:n_test],
        digits.label_test[:n_test],
        digits.label_classes,
        digits.source,
    )
    arrays = (digits.image_train, digits.label_train, digits.image_test, digits.label_test)
    results = {
        network.name: kernels.train_and_test(network, *arrays, seed=0, num_iters=iterations)
        for network in kernels.NETWORKS
    }
    write_writeup(tmp_path / "w.pdf", digits, results, seed=0, num_iters=iterations)
    assert (tmp_path / "w.pdf").read_bytes().startswith(b"%PDF-")


def test_writeup_of_no_data_and_of_no_folder(tmp_path, capsys):
    assert main(["writeup", "--seed", "-1"]) == 2
    assert "seed is -1; want at least 0" in capsys.readouterr().err
    assert main(["writeup", "--data", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "none: holds no data" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["writeup", "--out", str(tmp_path / "file")]) == 2
    assert "cannot write there" in capsys.readouterr().err


# --- The zip ----------------------------------------------------------------------------------


def test_pack_makes_the_zip_of_the_handout(tmp_path, capsys):
    target = tmp_path / "hw5.zip"
    assert main(["pack", "--from", str(SUBMISSION), "--out", str(target)]) == 0
    with zipfile.ZipFile(target) as file:
        assert sorted(file.namelist()) == [
            f"hw5/{name}" for name in ("cnn.npz", "hw5.py", "mlp.npz", "writeup.pdf")
        ]
        assert file.read("hw5/hw5.py") == Path(hw5.__file__).read_bytes()
        assert file.read("hw5/mlp.npz") == (SUBMISSION / "mlp.npz").read_bytes()
    first = target.read_bytes()
    assert main(["pack", "--from", str(SUBMISSION), "--out", str(target)]) == 0
    assert target.read_bytes() == first


def copy_submission(folder: Path) -> Path:
    for path in SUBMISSION.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["mlp.npz", "cnn.npz", "writeup.pdf"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_pack_refuses_a_damaged_part(tmp_path, capsys, name, damage):
    source = tmp_path / "source"
    source.mkdir()
    path = copy_submission(source) / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-200] if damage == "cut" else b"")
    assert main(["pack", "--from", str(source), "--out", str(tmp_path / "hw5.zip")]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert damage != "missing" or "make it by `tinygrad-hw writeup`" in error
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_pack_refuses_other_shapes_and_keys(tmp_path, capsys):
    copy_submission(tmp_path)
    np.savez(tmp_path / "mlp.npz", w1=np.zeros((196, 30)))
    assert main(["pack", "--from", str(tmp_path), "--out", str(tmp_path / "hw5.zip")]) == 2
    error = capsys.readouterr().err
    assert "(196, 30)" in error
    assert "(30, 196)" in error
    assert not (tmp_path / "hw5.zip").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, "b1 has entries that are no finite numbers"),
        (np.inf, "b1 has entries that are no finite numbers"),
        (1j, "b1 has dtype complex128; want floats"),
    ],
)
def test_pack_refuses_weights_that_are_no_finite_floats(tmp_path, capsys, bad, message):
    copy_submission(tmp_path)
    with np.load(tmp_path / "mlp.npz") as file:
        weights = {name: file[name] for name in file.files}
    np.savez(tmp_path / "mlp.npz", **{**weights, "b1": weights["b1"] * bad})
    assert main(["pack", "--from", str(tmp_path), "--out", str(tmp_path / "hw5.zip")]) == 2
    assert message in capsys.readouterr().err


def test_pack_says_that_a_folder_is_no_zip(tmp_path, capsys):
    assert main(["pack", "--from", str(SUBMISSION), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


# --- What was committed -----------------------------------------------------------------------


@pytest.mark.parametrize(("network", "least"), [("mlp", 0.93), ("cnn", 0.935)])
def test_the_committed_weights_reach_the_accuracy(network, least):
    try:
        digits = load_digits(download=False)
    except ImportError:
        pytest.skip("no data")
    if len(digits.image_test) != 2000:
        pytest.skip("the course's test images are not on this machine")
    with np.load(SUBMISSION / f"{network}.npz") as file:
        weights = {name: file[name] for name in file.files}
    images = digits.image_test / 255.0
    if network == "mlp":
        classes = [hw5.infer_mlp(image.reshape(196, 1), **weights) for image in images]
    else:
        classes = [hw5.infer_cnn(image[..., np.newaxis], **weights) for image in images]
    assert np.mean(np.array(classes) == digits.label_test.ravel()) >= least


def test_python_m_is_the_command():
    ran = subprocess.run(
        [sys.executable, "-m", "tinygrad_hw", "--help"], capture_output=True, text=True
    )
    assert ran.returncode == 0
    assert all(f"  {name}" in ran.stdout for name in ("train", "writeup", "pack"))
