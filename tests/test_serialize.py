"""Saving and loading: exact, atomic, never pickle."""

import numpy as np
import pytest

import tinygrad_hw as tg

STATE = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.array(2.5),
    "n": np.array([1, 2], np.int64),
    "layer.0.bias": np.zeros((0, 3)),
}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_round_trip_and_the_same_bytes(tmp_path, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    tg.save(one, {**STATE, "t": tg.Tensor([1.0], requires_grad=True)})
    tg.save(two, {**STATE, "t": tg.Tensor([1.0], requires_grad=True)})
    assert one.read_bytes() == two.read_bytes()
    loaded = tg.load(one)
    for name, value in STATE.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert (loaded[name].dtype, loaded[name].shape) == (value.dtype, value.shape)
    assert loaded["t"].tolist() == [1.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"one.{suffix}", f"two.{suffix}"]


@pytest.mark.parametrize("name", ["weights", "weights.NPZ"])
def test_npz_is_the_default(tmp_path, name):
    tg.save(tmp_path / name, STATE)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert list(tg.load(tmp_path / name)) == list(np.load(tmp_path / name)) == list(STATE)


def test_a_name_that_looks_like_a_members_is_not_mixed_up(tmp_path):
    state = {"w": np.ones(1), "w.npy": np.zeros(1), "w.npy.npy": np.full(1, 2.0)}
    tg.save(tmp_path / "w.npz", state)
    assert tg.load(tmp_path / "w.npz") == state


def test_names_that_are_the_same_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two names are '1' as text; want strings, each once"):
        tg.save(tmp_path / "w.npz", {1: np.ones(1), "1": np.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "w.npz"
    tg.save(path, {"w": np.ones(3)})
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        tg.save(path, {"w": np.zeros(3)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]


def test_what_is_no_archive_is_not_taken_for_a_pickle(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"damaged.* \(no archive\); save it again"):
        tg.load(path)


def test_a_checkpoint_as_elsewhere_says_how_it_is_made_here(tmp_path):
    state = tg.nn.Linear(2, 2, rng=0).state_dict()
    with pytest.raises(ValueError, match=r"'net' is a dict; want one dict .* 'net\.weight', or a"):
        tg.save(tmp_path / "w.npz", {"net": state, "epoch": 3})
    with pytest.raises(TypeError, match=r"got a dict for the path; want save\(path, state\)"):
        tg.save(state, tmp_path / "w.npz")
    assert not list(tmp_path.iterdir())


def test_never_pickle(tmp_path):
    with pytest.raises(ValueError, match="'w' has dtype object"):
        tg.save(tmp_path / "w.npz", {"w": np.array([object()])})
    np.savez(tmp_path / "evil.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"evil\.npz: damaged, or no \.npz file of plain arrays"):
        tg.load(tmp_path / "evil.npz")


def test_bad_files(tmp_path):
    good = tmp_path / "good.npz"
    tg.save(good, {"w": np.arange(1000.0)})
    for cut in (0, 1, 50, 4000, good.stat().st_size - 1):
        bad = tmp_path / "bad.npz"
        bad.write_bytes(good.read_bytes()[:cut])
        with pytest.raises(ValueError, match="damaged"):
            tg.load(bad)
    with pytest.raises(FileNotFoundError, match="no such file"):
        tg.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="make it first"):
        tg.save(tmp_path / "none" / "w.npz", {})
    with pytest.raises(ValueError, match=r"want \.npz or \.safetensors"):
        tg.save(tmp_path / "w.pkl", {})


def test_a_model_is_saved_by_its_state(tmp_path):
    for state in (tg.nn.Linear(2, 1), [np.ones(2)], tg.Tensor([1.0])):
        with pytest.raises(TypeError, match=r"want a dict of arrays, such as model.state_dict\(\)"):
            tg.save(tmp_path / "w.npz", state)
    assert list(tmp_path.iterdir()) == []
