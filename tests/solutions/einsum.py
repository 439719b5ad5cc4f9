"""A right hw5.py in array expressions, with einsum where the handout has sums."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def get_mini_batch(im_train, label_train, batch_size):
    shuffled = np.random.default_rng().permutation(im_train.shape[1])
    cuts = np.arange(batch_size, len(shuffled), batch_size)
    one_hot = (np.arange(10)[:, None] == label_train.reshape(1, -1)).astype(np.float32)
    return (
        np.split(im_train[:, shuffled], cuts, axis=1),
        np.split(one_hot[:, shuffled], cuts, axis=1),
    )


def fc(x, w, b):
    return np.einsum("nm,mk->nk", w, x) + b


def fc_backward(dl_dy, x, w, b):
    return np.einsum("nm,nk->mk", w, dl_dy), np.einsum("nk,mk->nm", dl_dy, x), dl_dy


def relu(x):
    return x * (x > 0)


def relu_backward(dl_dy, x):
    return dl_dy * (x > 0)


def loss_cross_entropy_softmax(x, y):
    log_p = x - x.max() - np.log(np.exp(x - x.max()).sum())
    return -np.einsum("mk,mk->", y, log_p), np.exp(log_p) - y


def _windows(x, h, w):
    padded = np.pad(x, ((h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    return sliding_window_view(padded, (h, w), axis=(0, 1))


def conv(x, w_conv, b_conv):
    return np.einsum("xycij,ijcd->xyd", _windows(x, *w_conv.shape[:2]), w_conv) + b_conv.T


def conv_backward(dl_dy, x, w_conv, b_conv):
    dl_dw = np.einsum("xycij,xyd->ijcd", _windows(x, *w_conv.shape[:2]), dl_dy)
    return dl_dw, np.einsum("xyd->d", dl_dy)[:, None]


def pool2x2(x):
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).max(axis=(1, 3))


def pool2x2_backward(dl_dy, x):
    h, w, c = x.shape
    tiles = x.reshape(h // 2, 2, w // 2, 2, c)
    winners = tiles == tiles.max(axis=(1, 3), keepdims=True)
    # Equal ones share the gradient.
    share = winners / winners.sum(axis=(1, 3), keepdims=True)
    return (share * dl_dy[:, None, :, None]).reshape(x.shape)


def flattening(x):
    return x.reshape(-1, 1)


def flattening_backward(dl_dy, x):
    return dl_dy.reshape(x.shape)


def infer_mlp(x, w1, b1, w2, b2):
    return np.argmax(fc(relu(fc(x, w1, b1)), w2, b2), axis=0)


def infer_cnn(x, w_conv, b_conv, w_fc, b_fc):
    return np.argmax(fc(flattening(pool2x2(relu(conv(x, w_conv, b_conv)))), w_fc, b_fc))


def train_mlp(mini_batch_x, mini_batch_y, learning_rate=0.1, decay_rate=0.95, num_iters=10000):
    w1, b1 = 0.1 * np.random.randn(30, 196), np.zeros((30, 1))  # noqa: NPY002
    w2, b2 = 0.1 * np.random.randn(10, 30), np.zeros((10, 1))  # noqa: NPY002
    losses = np.zeros((num_iters, 1))
    for i in range(num_iters):
        # At the first step, too: no more than another learning rate.
        if i % 1000 == 0:
            learning_rate *= decay_rate
        x, y = mini_batch_x[i % len(mini_batch_x)], mini_batch_y[i % len(mini_batch_x)]
        totals = [np.zeros_like(p) for p in (w1, b1, w2, b2)]
        for xi, yi in zip(x.T[:, :, None], y.T[:, :, None], strict=True):
            a = fc(xi, w1, b1)
            h = relu(a)
            loss, dl_dy = loss_cross_entropy_softmax(fc(h, w2, b2), yi)
            dl_dh, *second = fc_backward(dl_dy, h, w2, b2)
            _, *first = fc_backward(relu_backward(dl_dh, a), xi, w1, b1)
            losses[i] += loss / x.shape[1]
            for total, part in zip(totals, [*first, *second], strict=True):
                total += part
        for p, total in zip((w1, b1, w2, b2), totals, strict=True):
            p -= learning_rate * total / x.shape[1]
    return w1, b1, w2, b2, losses
