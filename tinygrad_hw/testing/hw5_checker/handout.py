"""What the handout says of each function: its part, arguments, results and their shapes."""

from __future__ import annotations

from typing import NamedTuple

MLP = "Part 1, multi-layer perceptron"
CNN = "Part 2, convolutional neural network"


class Entry(NamedTuple):
    """One function of the handout.

    Attributes
    ----------
    part : str
    parameters, results : tuple of str
    shapes : str
        What the handout says of them.
    uses : tuple of str
        The functions that it is made of.
    """

    part: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]
    shapes: str
    uses: tuple[str, ...] = ()

    def section(self, name: str) -> str:
        """Where the handout asks for the function, and what it says."""
        call = f"{name}({', '.join(self.parameters)}) -> {', '.join(self.results)}"
        return f"{self.part}: {call}; {self.shapes}"


def _entry(part: str, parameters: str, results: str, shapes: str, uses: str = "") -> Entry:
    taken, given, used = (tuple(words.split()) for words in (parameters, results, uses))
    return Entry(part, taken, given, shapes, used)


_UPDATE = "Algorithm 1: w <- w - gamma / R * (sum of dl/dw over the R images of a mini-batch)"


ASSIGNED = {
    "get_mini_batch": _entry(
        MLP,
        "im_train label_train batch_size",
        "mini_batch_x mini_batch_y",
        "im_train (196, N), label_train (1, N); lists of x (196, batch_size) and one-hot "
        "y (10, batch_size), randomly permuted, every image once, the last batch may be smaller",
    ),
    "fc": _entry(MLP, "x w b", "y", "x (m, 1), w (n, m), b (n, 1), y (n, 1)"),
    "fc_backward": _entry(
        MLP, "dl_dy x w b", "dl_dx dl_dw dl_db", "dl_dx (m, 1), dl_dw (n, m), dl_db (n, 1)"
    ),
    "relu": _entry(MLP, "x", "y", "y = max(0, x) entry by entry, for any shape"),
    "relu_backward": _entry(MLP, "dl_dy x", "dl_dx", "dl_dx has the shape of x"),
    "loss_cross_entropy_softmax": _entry(
        MLP, "x y", "l dl_dx", "x and y (m, 1), l a number, dl_dx (m, 1)"
    ),
    "conv": _entry(
        CNN,
        "x w_conv b_conv",
        "y",
        "x (H, W, C1), w_conv (h, w, C1, C2), b_conv (C2, 1), y (H, W, C2); zero padding, stride 1",
    ),
    "conv_backward": _entry(
        CNN, "dl_dy x w_conv b_conv", "dl_dw dl_db", "dl_dw (h, w, C1, C2), dl_db (C2, 1)"
    ),
    "pool2x2": _entry(CNN, "x", "y", "x (H, W, C), y (H/2, W/2, C); maximum, stride 2"),
    "pool2x2_backward": _entry(CNN, "dl_dy x", "dl_dx", "dl_dy (H/2, W/2, C), dl_dx (H, W, C)"),
}
# The course ships these; they are judged where the file has them.
PROVIDED = {
    "flattening": _entry(CNN, "x", "y", "x (H, W, C), y (H*W*C, 1), row by row"),
    "flattening_backward": _entry(CNN, "dl_dy x", "dl_dx", "dl_dx has the shape of x"),
    "infer_mlp": _entry(MLP, "x w1 b1 w2 b2", "y", "x (196, 1), y the class", uses="fc relu"),
    "infer_cnn": _entry(
        CNN,
        "x w_conv b_conv w_fc b_fc",
        "y",
        "x (14, 14, 1), y the class",
        uses="conv relu pool2x2 flattening fc",
    ),
    "train_mlp": _entry(
        MLP,
        "mini_batch_x mini_batch_y",
        "w1 b1 w2 b2 losses",
        _UPDATE,
        uses="fc fc_backward relu relu_backward loss_cross_entropy_softmax",
    ),
    "train_cnn": _entry(
        CNN,
        "mini_batch_x mini_batch_y",
        "w_conv b_conv w_fc b_fc losses",
        _UPDATE,
        uses="fc fc_backward relu relu_backward loss_cross_entropy_softmax conv conv_backward "
        "pool2x2 pool2x2_backward flattening flattening_backward",
    ),
}
HANDOUT = {**ASSIGNED, **PROVIDED}
