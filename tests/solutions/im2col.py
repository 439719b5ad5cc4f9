"""A right hw5.py with convolution as a matrix product, in single precision, for an older handout.

That one gives each backward function the forward result as well.
"""

import random

import numpy as np


def get_mini_batch(im_train, label_train, batch_size):
    pairs = [(im_train[:, i : i + 1], int(label_train[0, i])) for i in range(im_train.shape[1])]
    random.shuffle(pairs)
    mini_batch_x, mini_batch_y = [], []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        mini_batch_x.append(np.hstack([x for x, _ in batch]))
        mini_batch_y.append(np.eye(10)[[label for _, label in batch]].T)
    return mini_batch_x, mini_batch_y


def fc(x, w, b):
    return (np.dot(w, x) + b).astype(np.float32)


def fc_backward(dl_dy, x, w, b, y):
    dl_dw = np.outer(dl_dy, x)
    return [np.dot(dl_dy.T, w).T, dl_dw.astype(np.float32), dl_dy.reshape(b.shape)]


def relu(x):
    return np.clip(x, 0, None)


def relu_backward(dl_dy, x, y):
    dl_dx = np.array(dl_dy)
    dl_dx[y <= 0] = 0
    return dl_dx


def loss_cross_entropy_softmax(x, y):
    p = np.exp(x - np.max(x)) / np.sum(np.exp(x - np.max(x)))
    l = -np.dot(y.T, np.log(np.maximum(p, 1e-10)))  # noqa: E741
    return l, p - y


def im2col(x, h, w):
    padded = np.pad(x, ((h // 2, h // 2), (w // 2, w // 2), (0, 0)), "constant")
    columns = [
        padded[i : i + h, j : j + w].reshape(-1)
        for i in range(x.shape[0])
        for j in range(x.shape[1])
    ]
    return np.array(columns, dtype=np.float32)


def conv(x, w_conv, b_conv):
    h, w, _, c2 = w_conv.shape
    y = im2col(x, h, w) @ w_conv.reshape(-1, c2) + b_conv.reshape(1, c2)
    return y.reshape(x.shape[0], x.shape[1], c2)


def conv_backward(dl_dy, x, w_conv, b_conv, y):
    h, w, _, c2 = w_conv.shape
    upstream = dl_dy.reshape(-1, c2)
    dl_dw = im2col(x, h, w).T @ upstream
    return dl_dw.reshape(w_conv.shape), upstream.sum(axis=0).reshape(-1, 1)


def pool2x2(x):
    return np.maximum(
        np.maximum(x[::2, ::2], x[1::2, ::2]), np.maximum(x[::2, 1::2], x[1::2, 1::2])
    )


def pool2x2_backward(dl_dy, x, y):
    dl_dx = np.zeros_like(x)
    for i in range(dl_dy.shape[0]):
        for j in range(dl_dy.shape[1]):
            for c in range(dl_dy.shape[2]):
                tile = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
                a, b = np.unravel_index(np.argmax(tile), tile.shape)
                dl_dx[2 * i + a, 2 * j + b, c] = dl_dy[i, j, c]
    return dl_dx


def flattening(x):
    return x.flatten("F").reshape(-1, 1)


def flattening_backward(dl_dy, x, y):
    return dl_dy.reshape(x.shape, order="F")


def infer_cnn(x, w_conv, b_conv, w_fc, b_fc):
    return int(fc(flattening(pool2x2(relu(conv(x, w_conv, b_conv)))), w_fc, b_fc).argmax())


def train_cnn(mini_batch_x, mini_batch_y, nIters=2000):
    w_conv, b_conv = np.random.randn(3, 3, 1, 3), np.zeros((3, 1))  # noqa: NPY002
    w_fc, b_fc = np.random.randn(10, 147) * 0.1, np.zeros((10, 1))  # noqa: NPY002
    rate = 0.05
    for step in range(nIters):
        x, y = mini_batch_x[step % len(mini_batch_x)], mini_batch_y[step % len(mini_batch_x)]
        totals = [np.zeros_like(p) for p in (w_conv, b_conv, w_fc, b_fc)]
        for n in range(32):
            image = x[:, n].reshape((14, 14, 1), order="F")
            a = conv(image, w_conv, b_conv)
            h = relu(a)
            p = pool2x2(h)
            f = flattening(p)
            s = fc(f, w_fc, b_fc)
            _, dl_ds = loss_cross_entropy_softmax(s, y[:, [n]])
            dl_df, dl_dw_fc, dl_db_fc = fc_backward(dl_ds, f, w_fc, b_fc, s)
            dl_dh = pool2x2_backward(flattening_backward(dl_df, p, f), h, p)
            parts = [*conv_backward(relu_backward(dl_dh, a, h), image, w_conv, b_conv, a)]
            for total, part in zip(totals, [*parts, dl_dw_fc, dl_db_fc], strict=True):
                total += part / 32
        w_conv, b_conv, w_fc, b_fc = (
            p - rate * total for p, total in zip((w_conv, b_conv, w_fc, b_fc), totals, strict=True)
        )
    return w_conv, b_conv, w_fc, b_fc
