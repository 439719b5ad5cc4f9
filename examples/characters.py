"""A character-level model: the next letter from the eight before it, learned from one poem.

Embedding, a hidden layer, softmax (Bengio, Ducharme, Vincent and Jauvin 2003, section 2). It learns
the poem by heart and recites it from its first words.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import tinygrad_hw as tg

# William Blake, Songs of Experience, 1794.
POEM = """Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?

In what distant deeps or skies.
Burnt the fire of thine eyes?
On what wings dare he aspire?
What the hand, dare seize the fire?
"""
CONTEXT = 8


class Reader(tg.nn.Module):
    """Scores of the next character, from the last ``CONTEXT`` ones."""

    def __init__(self, letters: int, rng: np.random.Generator) -> None:
        self.embedding = tg.nn.Embedding(letters, 12, rng=rng)
        self.hidden = tg.nn.Linear(12 * CONTEXT, 96, rng=rng)
        self.out = tg.nn.Linear(96, letters, rng=rng)

    def forward(self, text: Any) -> Any:
        """Give the logits (N, letters) of indices (N, CONTEXT)."""
        h = tg.reshape(self.embedding(text), (len(text), 12 * CONTEXT))
        return self.out(tg.tanh(self.hidden(h)))


def main() -> None:
    """Train and recite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    alphabet = sorted(set(POEM))
    text = np.array([alphabet.index(c) for c in POEM])
    windows = np.lib.stride_tricks.sliding_window_view(text, CONTEXT + 1)
    before, after = windows[:, :-1], windows[:, -1]

    model = Reader(len(alphabet), rng)
    adam = tg.optim.Adam(model.parameters(), lr=0.01)
    for step in range(options.steps):
        batch = rng.integers(0, len(windows), 64)
        loss = tg.softmax_cross_entropy(model(before[batch]), after[batch])
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}")

    spoken = list(text[:CONTEXT])
    with tg.no_grad():
        while len(spoken) < len(text):
            logits = model(np.array([spoken[-CONTEXT:]]))
            spoken.append(int(tg.argmax(logits).item()))
    recited = "".join(alphabet[i] for i in spoken)
    right = np.mean(np.array(spoken) == text)
    print(recited)
    print(f"{100 * right:.0f} % of the characters are the poem's")


if __name__ == "__main__":
    main()
