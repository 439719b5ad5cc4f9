"""Handwritten digits, found on this machine or downloaded; mini-batches and augmentation."""

from .augmentation import augment, mini_batches
from .digits import Digits, load_digits, load_mnist
from .files import DataError

__all__ = ["DataError", "Digits", "augment", "load_digits", "load_mnist", "mini_batches"]
