"""A right hw5.py in plain loops, one number at a time, as the handout's formulas read."""

import numpy as np


def get_mini_batch(im_train, label_train, batch_size):
    n = im_train.shape[1]
    order = list(range(n))
    np.random.shuffle(order)  # noqa: NPY002
    mini_batch_x, mini_batch_y = [], []
    start = 0
    while start < n:
        end = min(start + batch_size, n)
        x = np.zeros((im_train.shape[0], end - start))
        y = np.zeros((10, end - start), dtype=int)
        for k in range(start, end):
            x[:, k - start] = im_train[:, order[k]]
            y[label_train[0, order[k]], k - start] = 1
        mini_batch_x.append(x)
        mini_batch_y.append(y)
        start = end
    return mini_batch_x, mini_batch_y


def fc(x, w, b):
    y = np.zeros((w.shape[0], 1))
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            y[i, 0] += w[i, j] * x[j, 0]
        y[i, 0] += b[i, 0]
    return y


def fc_backward(dl_dy, x, w, b):
    dl_dx, dl_dw, dl_db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(b.shape)
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            dl_dx[j, 0] += dl_dy[i, 0] * w[i, j]
            dl_dw[i, j] = dl_dy[i, 0] * x[j, 0]
        dl_db[i, 0] = dl_dy[i, 0]
    return dl_dx, dl_dw, dl_db


def relu(x):
    y = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        y[i] = max(0, x[i])
    return y


def relu_backward(dl_dy, x):
    dl_dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        dl_dx[i] = dl_dy[i] if x[i] > 0 else 0
    return dl_dx


def loss_cross_entropy_softmax(x, y):
    e = np.exp(x - np.max(x))
    p = e / np.sum(e)
    l = np.zeros((1, 1))  # noqa: E741
    for i in range(x.shape[0]):
        l[0, 0] -= y[i, 0] * np.log(p[i, 0] + 1e-8)
    return l, p - y


def conv(x, w_conv, b_conv):
    height, width, c1 = x.shape
    h, w, _, c2 = w_conv.shape
    padded = np.zeros((height + h - 1, width + w - 1, c1))
    padded[h // 2 : h // 2 + height, w // 2 : w // 2 + width] = x
    y = np.zeros((height, width, c2))
    for i in range(height):
        for j in range(width):
            for k in range(c2):
                for a in range(h):
                    for b in range(w):
                        for c in range(c1):
                            y[i, j, k] += padded[i + a, j + b, c] * w_conv[a, b, c, k]
                y[i, j, k] += b_conv[k, 0]
    return y


def conv_backward(dl_dy, x, w_conv, b_conv):
    height, width, c1 = x.shape
    h, w, _, c2 = w_conv.shape
    padded = np.zeros((height + h - 1, width + w - 1, c1))
    padded[h // 2 : h // 2 + height, w // 2 : w // 2 + width] = x
    dl_dw, dl_db = np.zeros(w_conv.shape), np.zeros(b_conv.shape)
    for i in range(height):
        for j in range(width):
            for k in range(c2):
                for a in range(h):
                    for b in range(w):
                        for c in range(c1):
                            dl_dw[a, b, c, k] += padded[i + a, j + b, c] * dl_dy[i, j, k]
                dl_db[k, 0] += dl_dy[i, j, k]
    return dl_dw, dl_db


def pool2x2(x):
    height, width, channels = x.shape
    y = np.zeros((height // 2, width // 2, channels))
    for i in range(height // 2):
        for j in range(width // 2):
            for c in range(channels):
                y[i, j, c] = np.max(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c])
    return y


def pool2x2_backward(dl_dy, x):
    dl_dx = np.zeros(x.shape)
    for i in range(dl_dy.shape[0]):
        for j in range(dl_dy.shape[1]):
            for c in range(dl_dy.shape[2]):
                best = (2 * i, 2 * j)
                for a in range(2):
                    for b in range(2):
                        # The last of equal ones wins.
                        if x[2 * i + a, 2 * j + b, c] >= x[best[0], best[1], c]:
                            best = (2 * i + a, 2 * j + b)
                dl_dx[best[0], best[1], c] += dl_dy[i, j, c]
    return dl_dx


def flattening(x):
    return np.reshape(x, (-1, 1))


def flattening_backward(dl_dy, x):
    return np.reshape(dl_dy, x.shape)


def train_mlp(mini_batch_x, mini_batch_y):
    learning_rate, decay_rate, n_iters = 0.05, 0.9, 10000
    w1, b1 = np.random.randn(30, 196) * 0.1, np.zeros((30, 1))  # noqa: NPY002
    w2, b2 = np.random.randn(10, 30) * 0.1, np.zeros((10, 1))  # noqa: NPY002
    k = 0
    for i in range(1, n_iters + 1):
        if i % 1000 == 0:
            learning_rate = decay_rate * learning_rate
        dL_dw1, dL_db1 = np.zeros(w1.shape), np.zeros(b1.shape)
        dL_dw2, dL_db2 = np.zeros(w2.shape), np.zeros(b2.shape)
        batch_size = mini_batch_x[k].shape[1]
        for n in range(batch_size):
            x, y = mini_batch_x[k][:, n].reshape(-1, 1), mini_batch_y[k][:, n].reshape(-1, 1)
            a1 = fc(x, w1, b1)
            f1 = relu(a1)
            a2 = fc(f1, w2, b2)
            _, dl_da2 = loss_cross_entropy_softmax(a2, y)
            dl_df1, dl_dw2, dl_db2 = fc_backward(dl_da2, f1, w2, b2)
            dl_da1 = relu_backward(dl_df1, a1)
            _, dl_dw1, dl_db1 = fc_backward(dl_da1, x, w1, b1)
            dL_dw1 += dl_dw1
            dL_db1 += dl_db1
            dL_dw2 += dl_dw2
            dL_db2 += dl_db2
        k = (k + 1) % len(mini_batch_x)
        w1 = w1 - learning_rate / batch_size * dL_dw1
        b1 = b1 - learning_rate / batch_size * dL_db1
        w2 = w2 - learning_rate / batch_size * dL_dw2
        b2 = b2 - learning_rate / batch_size * dL_db2
    return w1, b1, w2, b2
