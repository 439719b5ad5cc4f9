"""Optimisers against plain formulas, schedules, clipping, resuming."""

import math

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw import optim

GRADIENTS = np.random.default_rng(0).standard_normal((6, 3))
START = np.array([1.0, -2.0, 0.5])


def run(make, gradients=GRADIENTS, dtype=float):
    w = tg.Tensor(START.astype(dtype), requires_grad=True)
    optimizer = make([w])
    for g in gradients:
        w.grad = g
        optimizer.step()
    return w.numpy()


def scalar_reference(update):
    """Apply an update rule entry by entry, in Python floats."""
    result = []
    for i, w in enumerate(START.tolist()):
        memory = {}
        for t, g in enumerate(GRADIENTS[:, i].tolist(), start=1):
            w = update(w, g, t, memory)
        result.append(w)
    return np.array(result)


def sgd(lr, momentum=0.0, nesterov=False, decay=0.0):
    def update(w, g, t, m):
        g += decay * w
        m["v"] = momentum * m.get("v", 0.0) + g
        return w - lr * (g + momentum * m["v"] if nesterov else m["v"])

    return update


def adam(lr, decay=0.0, decoupled=False, b1=0.9, b2=0.999, eps=1e-8):
    def update(w, g, t, m):
        if decoupled:
            w -= lr * decay * w
        else:
            g += decay * w
        m["m"] = b1 * m.get("m", 0.0) + (1 - b1) * g
        m["v"] = b2 * m.get("v", 0.0) + (1 - b2) * g * g
        mean, square = m["m"] / (1 - b1**t), m["v"] / (1 - b2**t)
        return w - lr * mean / (math.sqrt(square) + eps)

    return update


def rmsprop(lr, decay=0.99, eps=1e-8):
    def update(w, g, t, m):
        m["v"] = decay * m.get("v", 0.0) + (1 - decay) * g * g
        return w - lr * g / (math.sqrt(m["v"]) + eps)

    return update


def lion(lr, wd=0.0, b1=0.9, b2=0.99):
    def update(w, g, t, m):
        mean = m.get("m", 0.0)
        c = b1 * mean + (1 - b1) * g
        m["m"] = b2 * mean + (1 - b2) * g
        return w - lr * (math.copysign(1.0, c) + wd * w)

    return update


CASES = {
    "sgd": (lambda p: optim.SGD(p, lr=0.1), sgd(0.1)),
    "momentum": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), sgd(0.1, 0.9)),
    "nesterov": (
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        sgd(0.1, 0.9, True, 0.1),
    ),
    "adam": (lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1), adam(0.1, 0.1)),
    "adamw": (lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1), adam(0.1, 0.1, True)),
    "rmsprop": (lambda p: optim.RMSprop(p, lr=0.1), rmsprop(0.1)),
    "lion": (lambda p: optim.Lion(p, lr=0.1, weight_decay=0.1), lion(0.1, 0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_updates_are_those_of_the_papers(name):
    make, reference = CASES[name]
    np.testing.assert_allclose(run(make), scalar_reference(reference), rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32_and_gradients_are_left_alone(name):
    make, reference = CASES[name]
    result = run(make, dtype=np.float32)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, scalar_reference(reference), rtol=1e-4)
    w = tg.Tensor(START, requires_grad=True)
    w.grad = GRADIENTS[0]
    make([w]).step()
    np.testing.assert_array_equal(w.grad, GRADIENTS[0])


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_goes_on_bit_for_bit(name, tmp_path):
    make, _ = CASES[name]
    w = tg.Tensor(START, requires_grad=True)
    optimizer = make([w])
    for g in GRADIENTS[:3]:
        w.grad = g
        optimizer.step()
    tg.save(tmp_path / "state.npz", optimizer.state_dict())
    again = tg.Tensor(w.numpy(), requires_grad=True)
    resumed = make([again])
    resumed.load_state_dict(tg.load(tmp_path / "state.npz"))
    for g in GRADIENTS[3:]:
        again.grad = g
        resumed.step()
    np.testing.assert_array_equal(again.numpy(), run(make))


def trained(make):
    w = tg.Tensor(START, requires_grad=True)
    optimizer = make([w])
    w.grad = GRADIENTS[0]
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("taken", "given", "message"),
    [
        ("adam", "momentum", r"Adam: the state has 'velocity' for parameter 0; want 'mean', 'squ"),
        ("momentum", "adam", r"SGD: the state has 'mean', .*; want 'velocity': the state of the s"),
        ("sgd", "momentum", r"SGD: the state has 'velocity' for parameter 0; want nothing"),
        ("rmsprop", "adam", r"RMSprop: .* want 'square'"),
    ],
)
def test_a_state_of_another_optimizer_is_refused_and_changes_nothing(taken, given, message):
    optimizer = trained(CASES[taken][0])
    before = optimizer.state_dict()
    state = {**trained(CASES[given][0]).state_dict(), "lr": 7.0}
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("lr", "the state has no 'lr'; want what Adam"),
        ("steps", "the state has no 'steps'; want what Adam"),
        ("0.mean", "the state has 'square', 'count' for parameter 0; want 'mean', 'square', 'coun"),
        ("0.count", "the state has 'mean', 'square' for parameter 0; want 'mean', 'square', 'cou"),
    ],
)
def test_a_state_that_lacks_an_entry_is_refused(lost, message):
    optimizer = trained(CASES["adam"][0])
    state = optimizer.state_dict()
    del state[lost]
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)


def test_a_state_of_another_shape_is_refused():
    optimizer = trained(CASES["momentum"][0])
    state = optimizer.state_dict() | {"0.velocity": np.ones(2)}
    with pytest.raises(ValueError, match=r"'0\.velocity' has shape \(2,\); want \(3,\): the state"):
        optimizer.load_state_dict(state)


def test_a_state_of_complex_numbers_is_refused():
    optimizer = tg.optim.SGD([tg.Tensor([1.0], requires_grad=True)], momentum=0.5)
    state = optimizer.state_dict() | {"0.velocity": np.ones(1, complex)}
    with pytest.raises(ValueError, match=r"SGD: '0\.velocity' has dtype complex128; want float64"):
        optimizer.load_state_dict(state)
    assert optimizer.memory == [{}]


def test_a_state_that_is_none_is_refused():
    optimizer = trained(CASES["adam"][0])
    with pytest.raises(ValueError, match="the state has no 'lr', 'steps'; want what Adam"):
        optimizer.load_state_dict({})
    with pytest.raises(ValueError, match="the state has no 'base', 'steps'; want what Cosine"):
        optim.Cosine(optimizer, total=2).load_state_dict({})


def test_a_state_before_the_first_gradient_fits():
    fresh = CASES["adam"][0]([tg.Tensor(START, requires_grad=True)])
    optimizer = trained(CASES["adam"][0])
    optimizer.load_state_dict(fresh.state_dict())
    assert (optimizer.steps, optimizer.memory) == (0, [{}])


def test_a_parameter_without_a_gradient_is_passed_over():
    a, b = (tg.Tensor(1.0, requires_grad=True) for _ in range(2))
    optimizer = optim.Adam([a, b], lr=0.1)
    a.grad = 1.0
    optimizer.step()
    assert (a.item(), b.item()) == (pytest.approx(0.9), 1.0)
    optimizer.zero_grad()
    assert a.grad is None


def test_a_step_between_forward_and_backward_is_noticed():
    w = tg.Tensor(2.0, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)
    y = w * w
    w.grad = 1.0
    optimizer.step()
    with pytest.raises(tg.GraphError, match="in place"):
        y.backward()


def test_settings_are_checked():
    w = tg.Tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match="no parameters"):
        optim.SGD([], lr=0.1)
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([w, w], lr=0.1)
    with pytest.raises(TypeError, match="requires_grad=True"):
        optim.SGD([tg.Tensor(1.0)], lr=0.1)
    with pytest.raises(TypeError, match="leaf"):
        optim.SGD([w * 2], lr=0.1)
    for bad in (
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr": "fast"},
        {"momentum": 1.0},
        {"momentum": "some"},
        {"weight_decay": np.ones(2)},
        {"nesterov": True},
    ):
        with pytest.raises(ValueError, match="; want "):
            optim.SGD([w], **bad)
    with pytest.raises(ValueError, match=r"unexpected '3\.velocity'"):
        optim.SGD([w]).load_state_dict({"lr": 0.1, "steps": 1, "3.velocity": np.ones(1)})


def schedule_of(make, steps):
    optimizer = optim.SGD([tg.Tensor(1.0, requires_grad=True)], lr=2.0)
    schedule = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.lr)
        schedule.step()
    return rates


def test_schedules():
    decay = schedule_of(lambda o: optim.StepDecay(o, decay=0.5, every=2), 5)
    assert decay == [2.0, 2.0, 1.0, 1.0, 0.5]
    cosine = schedule_of(lambda o: optim.Cosine(o, total=4, final=0.1), 7)
    assert cosine[0] == 2.0
    assert cosine[2] == pytest.approx(1.1)
    assert cosine[4:] == pytest.approx([0.2] * 3)
    cycle = schedule_of(lambda o: optim.OneCycle(o, total=10, rise=0.5, start=0.1, final=0.0), 11)
    assert cycle[0] == pytest.approx(0.2)
    assert cycle[5] == 2.0
    assert cycle[10] == pytest.approx(0.0)
    assert cycle[:6] == sorted(cycle[:6])
    warm = schedule_of(lambda o: optim.WarmUp(o, total=2, then=optim.Cosine(o, total=2)), 5)
    assert warm == pytest.approx([1.0, 2.0, 2.0, 1.0, 0.0])


def test_a_schedule_resumes():
    optimizer = optim.SGD([tg.Tensor(1.0, requires_grad=True)], lr=2.0)
    schedule = optim.Cosine(optimizer, total=10)
    for _ in range(4):
        schedule.step()
    other = optim.SGD([tg.Tensor(1.0, requires_grad=True)], lr=9.0)
    resumed = optim.Cosine(other, total=10)
    resumed.load_state_dict(schedule.state_dict())
    assert other.lr == optimizer.lr


def test_clip_grad_norm():
    a, b = tg.Tensor([3.0, 0.0], requires_grad=True), tg.Tensor(4.0, requires_grad=True)
    a.grad, b.grad = [3.0, 0.0], 4.0
    assert optim.clip_grad_norm([a, b], 10.0) == 5.0
    assert b.grad == 4.0
    assert optim.clip_grad_norm([a, b], 1.0) == 5.0
    np.testing.assert_allclose([a.grad[0], b.grad], [0.6, 0.8])
    a.grad = [np.nan, 0.0]
    with pytest.raises(FloatingPointError, match="nan"):
        optim.clip_grad_norm([a, b], 1.0)
    assert b.grad == pytest.approx(0.8)


def test_clip_grad_norm_refuses_what_it_would_pass_over():
    w = tg.Tensor([3.0, 4.0], requires_grad=True)
    w.grad = [3.0, 4.0]
    with pytest.raises(TypeError, match=r"got one Tensor; want a list: clip_grad_norm\(\[tensor"):
        optim.clip_grad_norm(w, 1.0)
    with pytest.raises(TypeError, match=r"want clip_grad_norm\(module\.parameters\(\), \.\.\.\)"):
        optim.clip_grad_norm(tg.nn.Linear(2, 2, rng=0), 1.0)
    with pytest.raises(TypeError, match="want leaf tensors with requires_grad=True"):
        optim.clip_grad_norm([w * 2], 1.0)
    with pytest.raises(ValueError, match="comes twice"):
        optim.clip_grad_norm([w, w], 1.0)


@pytest.mark.parametrize(("dtype", "size"), [(np.float16, 600.0), (np.float32, 1e25)])
def test_clip_grad_norm_of_gradients_whose_squares_overflow(dtype, size):
    w = tg.Tensor(np.ones(2, dtype), requires_grad=True)
    w.grad = np.array([size, 0], dtype)
    assert optim.clip_grad_norm([w], size / 2) == pytest.approx(size)
    assert w.grad.dtype == dtype
    np.testing.assert_allclose(w.grad, [size / 2, 0], rtol=1e-3)


def test_a_frozen_parameter_stays_as_it_is():
    frozen, trained = (tg.Tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = tg.optim.Adam([frozen, trained], lr=0.1)
    frozen.requires_grad = False
    for _ in range(2):
        optimizer.zero_grad()
        (frozen * trained).sum().backward()
        optimizer.step()
    assert frozen.numpy() == 1
    assert trained.numpy() != 1


def test_clipping_at_infinity_only_measures():
    frozen, w = (tg.Tensor([3.0, 4.0], requires_grad=True) for _ in range(2))
    (w * w).sum().backward()
    frozen.requires_grad = False
    assert tg.optim.clip_grad_norm([frozen, w], np.inf) == 10
    np.testing.assert_array_equal(w.grad, [6, 8])


def test_an_optimizer_of_ones_own_takes_its_state_back():
    class Slow(tg.optim.Optimizer):
        def update(self, p, g, memory):
            last = memory.setdefault("last", np.zeros_like(p))
            p -= self.lr / self.steps * (g + last)
            last[...] = g

    w = tg.Tensor([1.0], requires_grad=True)
    optimizer = Slow([w], lr=0.1)
    (w * w).sum().backward()
    optimizer.step()
    other = Slow([w], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    np.testing.assert_array_equal(other.memory[0]["last"], [2])
