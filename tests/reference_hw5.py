"""The handout's ten functions once more, as plain loops over numbers: slow, and nothing shared.

They accept complex arguments where the function is analytic, so that a complex step gives their
derivatives to the last digit.
"""

from __future__ import annotations

import numpy as np


def get_mini_batch(im_train, label_train, batch_size, order):
    xs, ys = [], []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        x = np.zeros((im_train.shape[0], len(chosen)))
        y = np.zeros((10, len(chosen)))
        for column, n in enumerate(chosen):
            x[:, column] = im_train[:, n]
            y[int(label_train[0, n]), column] = 1
        xs.append(x)
        ys.append(y)
    return xs, ys


def fc(x, w, b):
    n, m = w.shape
    y = np.zeros((n, x.shape[1]), np.result_type(x, w, b))
    for column in range(x.shape[1]):
        for i in range(n):
            y[i, column] = b[i, 0]
            for j in range(m):
                y[i, column] += w[i, j] * x[j, column]
    return y


def fc_backward(dl_dy, x, w, b):
    dl_dx, dl_dw, dl_db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(b.shape)
    for column in range(x.shape[1]):
        for i in range(w.shape[0]):
            dl_db[i, 0] += dl_dy[i, column]
            for j in range(w.shape[1]):
                dl_dx[j, column] += w[i, j] * dl_dy[i, column]
                dl_dw[i, j] += dl_dy[i, column] * x[j, column]
    return dl_dx, dl_dw, dl_db


def relu(x):
    y = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        if x[at].real > 0:
            y[at] = x[at]
    return y


def relu_backward(dl_dy, x):
    dl_dx = np.zeros_like(dl_dy)
    for at in np.ndindex(x.shape):
        if x[at] > 0:
            dl_dx[at] = dl_dy[at]
    return dl_dx


def loss_cross_entropy_softmax(x, y):
    loss, dl_dx = 0.0, np.zeros(x.shape, x.dtype)
    for column in range(x.shape[1]):
        top = max(value.real for value in x[:, column])
        total = sum(np.exp(value - top) for value in x[:, column])
        wanted = sum(y[:, column])
        for i in range(x.shape[0]):
            log_p = x[i, column] - top - np.log(total)
            loss = loss - y[i, column] * log_p
            dl_dx[i, column] = wanted * np.exp(log_p) - y[i, column]
    return loss, dl_dx


def padding_of(padding, image, size, stride, dilation):
    """((top, bottom), (left, right)); "same" makes the output as large as image / stride."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        return padding
    both = []
    for n, k, s, d in zip(image, size, stride, dilation, strict=True):
        windows = (n + s - 1) // s
        total = max((windows - 1) * s + d * (k - 1) + 1 - n, 0)
        both.append((total // 2, total - total // 2))
    return tuple(both)


def taps(x_shape, w_shape, stride, padding, dilation):
    """Each product in a convolution of one image: (row, column, i, j, image row, image column)."""
    (height, width), (h, w) = x_shape[:2], w_shape[:2]
    (top, bottom), (left, right) = padding_of(padding, (height, width), (h, w), stride, dilation)
    out_h = (height + top + bottom - dilation[0] * (h - 1) - 1) // stride[0] + 1
    out_w = (width + left + right - dilation[1] * (w - 1) - 1) // stride[1] + 1
    found = []
    for row in range(out_h):
        for column in range(out_w):
            for i in range(h):
                for j in range(w):
                    r = row * stride[0] + i * dilation[0] - top
                    c = column * stride[1] + j * dilation[1] - left
                    if 0 <= r < height and 0 <= c < width:
                        found.append((row, column, i, j, r, c))
    return (out_h, out_w), found


def conv(x, w_conv, b_conv, stride=(1, 1), padding="same", dilation=(1, 1)):
    (out_h, out_w), products = taps(x.shape, w_conv.shape, stride, padding, dilation)
    y = np.zeros((out_h, out_w, w_conv.shape[3]), np.result_type(x, w_conv, b_conv))
    y += b_conv[:, 0]
    for row, column, i, j, r, c in products:
        for c1 in range(w_conv.shape[2]):
            for c2 in range(w_conv.shape[3]):
                y[row, column, c2] += x[r, c, c1] * w_conv[i, j, c1, c2]
    return y


def conv_backward(dl_dy, x, w_conv, b_conv, stride=(1, 1), padding="same", dilation=(1, 1)):
    """dl_dw, dl_db and, which the handout does not ask for, dl_dx."""
    _, products = taps(x.shape, w_conv.shape, stride, padding, dilation)
    dl_dw, dl_db, dl_dx = np.zeros(w_conv.shape), np.zeros(b_conv.shape), np.zeros(x.shape)
    for row, column, i, j, r, c in products:
        for c1 in range(w_conv.shape[2]):
            for c2 in range(w_conv.shape[3]):
                dl_dw[i, j, c1, c2] += x[r, c, c1] * dl_dy[row, column, c2]
                dl_dx[r, c, c1] += w_conv[i, j, c1, c2] * dl_dy[row, column, c2]
    for at in np.ndindex(dl_dy.shape):
        dl_db[at[2], 0] += dl_dy[at]
    return dl_dw, dl_db, dl_dx


def pool(x, size=(2, 2), stride=(2, 2)):
    """The maximum of each window, and where in the image its first maximum stands."""
    out_h = (x.shape[0] - size[0]) // stride[0] + 1
    out_w = (x.shape[1] - size[1]) // stride[1] + 1
    y = np.zeros((out_h, out_w, x.shape[2]), x.dtype)
    where, number = {}, np.zeros(y.shape, int)
    for row, column, channel in np.ndindex(y.shape):
        best = None
        for i in range(size[0]):
            for j in range(size[1]):
                r, c = row * stride[0] + i, column * stride[1] + j
                if best is None or x[r, c, channel].real > best:
                    best = x[r, c, channel].real
                    y[row, column, channel] = x[r, c, channel]
                    where[row, column, channel] = (r, c, channel)
                    number[row, column, channel] = i * size[1] + j
    return y, where, number


def pool2x2(x):
    return pool(x)[0]


def pool2x2_backward(dl_dy, x):
    return unpool(dl_dy, pool(x)[1], x.shape)


def unpool(dl_dy, where, shape):
    dl_dx = np.zeros(shape)
    for at, target in where.items():
        dl_dx[target] += dl_dy[at]
    return dl_dx
