"""Modules, layers, initialisers."""

import re

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw import nn
from tinygrad_hw.testing import check_gradients

RNG = np.random.default_rng(0)


class Net(nn.Module):
    def __init__(self, rng=None):
        rng = np.random.default_rng(rng)
        self.first = nn.Linear(4, 3, rng=rng)
        self.blocks = [nn.Linear(3, 3, rng=rng), nn.BatchNorm(3)]
        self.heads = {"a": nn.Linear(3, 2, rng=rng)}
        self.scale = tg.Tensor(np.float32(2.0), requires_grad=True)

    def forward(self, x):
        h = tg.relu(self.first(x))
        for block in self.blocks:
            h = block(h)
        return self.heads["a"](h) * self.scale


def test_parameters_and_buffers_are_found_in_order_with_their_paths():
    net = Net(0)
    assert [name for name, _ in net.named_parameters()] == [
        "scale",
        "first.weight",
        "first.bias",
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.1.weight",
        "blocks.1.bias",
        "heads.a.weight",
        "heads.a.bias",
    ]
    assert [name for name, _ in net.named_buffers()] == [
        "blocks.1.running_mean",
        "blocks.1.running_var",
    ]
    net.name_parameters()
    assert net.first.weight.name == "first.weight"
    assert "blocks.1: BatchNorm(3)" in repr(net)


def test_a_shared_parameter_comes_once():
    layer = nn.Linear(2, 2, rng=0)
    net = nn.Sequential(layer, tg.tanh, layer)
    assert len(net.parameters()) == 2
    net(np.ones((1, 2), np.float32)).sum().backward()
    assert layer.weight.grad is not None


def test_an_array_in_the_place_of_a_parameter_raises():
    layer, values = nn.Linear(2, 2, rng=0), np.ones(2, np.float32)
    with pytest.raises(TypeError, match=r"Linear\.bias: got an array.*set bias\.data, or give"):
        layer.bias = values
    layer.bias.data = values
    layer.bias = tg.Tensor(values + 1, requires_grad=True)
    with tg.no_grad():
        layer.bias *= 2
    assert len(layer.parameters()) == 2
    assert layer.bias.numpy().tolist() == [4, 4]
    # A frozen one, and what is kept to be looked at, may go.
    layer.bias.requires_grad = False
    layer.bias = values


@pytest.mark.parametrize("compiled", [False, True])
def test_functional_call_differentiates_through_a_step_of_training(compiled):
    net, x = Net(0).eval(), RNG.standard_normal((5, 4)).astype(np.float32)

    def loss(parameters):
        return (nn.functional_call(net, parameters, x) ** 2).mean()

    def stepped(parameters):
        slopes = tg.grad(loss)(parameters)
        return loss({name: p - 0.1 * slopes[name] for name, p in parameters.items()})

    parameters = dict(net.named_parameters())
    check_gradients(stepped, parameters)
    before = loss(parameters).item()
    slopes = (tg.compile(tg.grad(loss)) if compiled else tg.grad(loss))(parameters)
    net.zero_grad()
    (net(x) ** 2).mean().backward()
    for name, p in parameters.items():
        np.testing.assert_allclose(slopes[name].numpy(), p.grad, rtol=1e-5, atol=1e-7)
    assert stepped(parameters).item() < before


def test_functional_call_takes_some_and_puts_its_own_back():
    net, x = nn.Linear(2, 2, rng=0), np.ones((1, 2), np.float32)
    weight, bias = net.weight, net.bias
    expected = net(x).numpy() + 1
    np.testing.assert_array_equal(nn.functional_call(net, {"bias": np.ones(2, "f4")}, x), expected)
    with pytest.raises(tg.ShapeError, match="linear"):
        nn.functional_call(net, {"bias": np.ones(2)}, np.ones((1, 3)))
    assert (net.weight, net.bias) == (weight, bias)
    np.testing.assert_array_equal(net(x).numpy() + 1, expected)
    assert net(x).requires_grad
    # Both are read before one is written.
    square = nn.Sequential(nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1))
    first, second = (layer.weight for layer in square)
    swapped = {"layers.0.weight": second, "layers.1.weight": first}
    np.testing.assert_allclose(
        nn.functional_call(square, swapped, x).numpy(), square[0](square[1](x)).numpy(), rtol=1e-6
    )


def test_functional_call_names_what_does_not_fit():
    net, x = nn.Linear(2, 2, rng=0), np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match=r"Linear has no parameter w; want some of weight, bias"):
        nn.functional_call(net, {"w": net.weight}, x)
    with pytest.raises(tg.ShapeError, match=r"functional_call: bias: got \(1,\); want \(2,\)"):
        nn.functional_call(net, {"bias": [1.0]}, x)
    with pytest.raises(TypeError, match="functional_call: got a list; want a mapping"):
        nn.functional_call(net, net.parameters(), x)


def test_state_dict_round_trip_and_its_errors():
    one, two = Net(0), Net(1)
    x = RNG.standard_normal((5, 4)).astype(np.float32)
    one(x)
    two.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.eval()(x).numpy(), two.eval()(x).numpy())
    state = one.state_dict()
    state["first.weight"][:] = 0
    assert np.any(one.first.weight.numpy())
    before = two.state_dict()
    state.pop("scale")
    state["extra"] = np.ones(1)
    state["first.bias"] = np.ones(7)
    with pytest.raises(
        ValueError,
        match=r"missing scale; unexpected extra; of another shape first\.bias: \(7,\) for \(3,\)",
    ):
        two.load_state_dict(state)
    for name, value in two.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("wrong", "dtype"), [(np.full((4, 2), 1j), "complex128"), (np.full((4, 2), "x"), "<U1")]
)
def test_a_state_with_numbers_of_another_kind_changes_nothing(wrong, dtype):
    net = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Linear(4, 2, rng=0))
    before = net.state_dict()
    state = {name: value + 1 for name, value in before.items()} | {"layers.1.weight": wrong}
    with pytest.raises(
        ValueError, match=rf"of another kind layers\.1\.weight: {dtype} for float32"
    ):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_train_and_eval_reach_every_module():
    net = Net(0)
    net.eval()
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_batch_norm_trains_its_running_averages_and_uses_them():
    layer = nn.BatchNorm(3, momentum=1.0)
    x = RNG.normal(3, 2, (64, 5, 3)).astype(np.float32)
    y = layer(x).numpy()
    np.testing.assert_allclose(y.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1)), 1, atol=1e-3)
    np.testing.assert_allclose(layer.running_mean.numpy(), x.mean((0, 1)), rtol=1e-5)
    assert layer.running_var.dtype == np.float32
    before = layer.running_mean.numpy()
    layer.eval()(x * 10)
    np.testing.assert_array_equal(layer.running_mean.numpy(), before)


def test_batch_norm_keeps_the_unbiased_variance_of_a_small_batch():
    layer = nn.BatchNorm(3, momentum=0.1)
    x = RNG.normal(3, 2, (4, 3)).astype(np.float32)
    layer(x)
    expected = 0.9 + 0.1 * x.var(axis=0, ddof=1)
    np.testing.assert_allclose(layer.running_var.numpy(), expected, rtol=1e-6)


def test_dropout_draws_again_at_each_call_and_stops_in_eval():
    layer = nn.Dropout(0.5, rng=0)
    x = np.ones(1000, np.float32)
    one, two = layer(x), layer(x)
    assert np.any(one != two)
    assert abs(one.mean() - 1) < 0.15
    np.testing.assert_array_equal(layer.eval()(x), x)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: nn.Linear(4, 3, rng=0), (2, 5, 4), (2, 5, 3)),
        (lambda: nn.Linear(4, 3, bias=False, rng=0), (4,), (3,)),
        (lambda: nn.Conv2d(2, 4, (3, 5), padding="same", rng=0), (2, 7, 6, 2), (2, 7, 6, 4)),
        (lambda: nn.Conv2d(2, 4, 3, stride=2, groups=2, rng=0), (7, 7, 2), (3, 3, 4)),
        (lambda: nn.MaxPool2d(2), (2, 6, 6, 3), (2, 3, 3, 3)),
        (lambda: nn.AvgPool2d(3, 1), (2, 6, 6, 3), (2, 4, 4, 3)),
        (lambda: nn.LayerNorm((3, 2)), (5, 3, 2), (5, 3, 2)),
        (lambda: nn.Flatten(), (5, 3, 2), (5, 6)),
        (lambda: nn.GELU(), (5, 3), (5, 3)),
        (lambda: nn.LeakyReLU(), (5, 3), (5, 3)),
        (lambda: nn.Softmax(), (5, 3), (5, 3)),
    ],
)
def test_layers_give_float32_of_the_right_shape_and_all_parameters_get_gradients(
    layer, shape, expected
):
    layer = layer()
    x = tg.Tensor(RNG.standard_normal(shape).astype(np.float32), requires_grad=True)
    y = layer(x)
    assert (y.shape, y.dtype) == (expected, np.float32)
    (y * RNG.standard_normal(expected)).sum().backward()
    for t in (x, *layer.parameters()):
        assert t.grad.shape == t.shape
        assert t.grad.dtype == np.float32
        assert np.any(t.grad)


def test_sequential_indexes_and_checks():
    net = nn.Sequential(nn.Linear(2, 3, rng=0), nn.ReLU(), nn.Linear(3, 1, rng=1))
    assert isinstance(net[0], nn.Linear)
    assert len(net[:2]) == 2
    assert len(list(net)) == 3
    with pytest.raises(TypeError, match="want modules or functions"):
        nn.Sequential(3)


def test_a_seed_gives_the_same_weights():
    for make in (lambda rng: nn.Linear(5, 4, rng=rng), lambda rng: nn.Conv2d(1, 2, 3, rng=rng)):
        np.testing.assert_array_equal(make(3).weight.numpy(), make(3).weight.numpy())
        rng = np.random.default_rng(3)
        assert np.any(make(rng).weight.numpy() != make(rng).weight.numpy())


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("kaiming_normal", np.sqrt(2 / 200)),
        ("kaiming_uniform", np.sqrt(2 / 200)),
        ("xavier_normal", np.sqrt(2 / 500)),
        ("xavier_uniform", np.sqrt(2 / 500)),
        ("normal", 1.0),
        ("uniform", np.sqrt(1 / 3)),
    ],
)
def test_initialisers_have_the_spread_of_their_papers(name, std):
    w = getattr(nn.init, name)((200, 300), rng=0)
    assert w.dtype == np.float32
    assert w.std() == pytest.approx(std, rel=0.02)
    assert abs(w.mean()) < 0.02 * std * 3


def test_orthogonal_is_orthogonal_and_fans_are_checked():
    q = nn.init.orthogonal((3, 8), rng=0, dtype=float)
    np.testing.assert_allclose(q @ q.T, np.eye(3), atol=1e-12)
    with pytest.raises(ValueError, match="want"):
        nn.init.kaiming_normal((3,))


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="define forward"):
        nn.Module()(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear("3", 2), "Linear: inputs is '3'; want a whole number, at least 1"),
        (lambda: nn.Linear(3, 2.5), "Linear: outputs is 2.5; want a whole number, at least 1"),
        (lambda: nn.Conv2d(0, 2, 3), "Conv2d: inputs is 0; want a whole number, at least 1"),
        (lambda: nn.Conv2d(1, 2, 3, stride=0), "Conv2d: stride is 0; want one or two whole"),
        (lambda: nn.Conv2d(1, 2, 3, dilation=0), "Conv2d: dilation is 0; want one or two whole"),
        (lambda: nn.Conv2d(1, 2, 3, padding="full"), "Conv2d: padding is 'full'; want \"valid\""),
        (lambda: nn.MaxPool2d(0), "MaxPool2d: size is 0; want one or two whole numbers >= 1"),
        (lambda: nn.AvgPool2d(2, stride=0), "AvgPool2d: stride is 0; want one or two whole"),
        (lambda: nn.BatchNorm(3, eps=-1), "BatchNorm: eps is -1; want a number, at least 0"),
        (lambda: nn.BatchNorm(3, momentum="a"), "BatchNorm: momentum is 'a'; want a number in"),
        (lambda: nn.LayerNorm((3, 0)), "LayerNorm: shape is 0; want a whole number, at least 1"),
        (lambda: nn.LayerNorm(3, eps="a"), "LayerNorm: eps is 'a'; want a number, at least 0"),
        (lambda: nn.Dropout("a"), "Dropout: p is 'a'; want a number in [0, 1)"),
        (lambda: nn.Embedding(0, 3), "Embedding: n is 0; want a whole number, at least 1"),
    ],
)
def test_a_layer_checks_its_settings_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_lengths_may_be_numbers_of_numpy():
    assert tg.nn.LayerNorm(np.prod([2, 2]))(np.ones((3, 4))).shape == (3, 4)
    assert tg.nn.Linear(np.int64(2), np.int64(3), rng=0).weight.shape == (2, 3)
    halves = tg.nn.Conv2d(2, 4, 3, groups=np.int64(2), rng=0)
    assert halves(np.ones((1, 5, 5, 2))).shape == (1, 3, 3, 4)


def test_an_activation_that_is_kept_is_no_parameter():
    class Watching(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(3, 2, rng=0)
            self.scale = tg.Tensor(2.0)

        def forward(self, x):
            self.seen = tg.relu(self.fc(x)) * self.scale
            return self.seen

    model, names = Watching(), ["scale", "fc.weight", "fc.bias"]
    for _ in range(2):
        model(np.ones((4, 3), np.float32)).sum().backward()
        assert list(model.state_dict()) == names
        assert [name for name, _ in model.named_parameters()] == names[1:]
        assert [name for name, _ in model.named_buffers()] == names[:1]
        tg.optim.clip_grad_norm(model.parameters(), 1.0)
        model.zero_grad()
    Watching().load_state_dict(model.state_dict())
    assert "8 parameters" in repr(model)
    assert "= seen" in model.graph(np.ones((4, 3), np.float32)).text()


def test_a_module_may_know_the_one_above_it():
    model = nn.Sequential(nn.Linear(2, 1, rng=0))
    model[0].above = model
    assert [name for name, _ in model.named_parameters()] == ["layers.0.weight", "layers.0.bias"]
    assert repr(model).splitlines()[1:] == [
        "  layers.0: Linear(2, 1): 3 parameters",
        "    above: ...",
    ]


def test_no_layer_is_lost_whose_key_is_the_same_text():
    class Keyed(nn.Module):
        def __init__(self):
            self.layers = {1: nn.Linear(2, 1, rng=0), "1": nn.Linear(2, 1, rng=1)}

    assert len(Keyed().parameters()) == 4
    with pytest.raises(ValueError, match=r"two tensors have the path 'layers\.1\.weight'; rename"):
        Keyed().state_dict()
