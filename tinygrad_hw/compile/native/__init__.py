"""The numba back end: the program as native functions, as a rule one.

Elementwise operations of one shape become one loop, with the sums and extremes of what they
compute; large matrix products go to BLAS; small ones, convolution and pooling are loops of their
own. What has no native rule, or is quicker with NumPy, is left to it between two native functions.

A program goes through these modules:

- ``layout`` and ``schedule``: how values lie in memory, and what goes into which loop;
- ``loops``, ``kernels`` and ``scalars``: the loops as text, a small part of Python, in a
  ``writer``;
- ``backend``: the text of whole functions, with their ``arguments``, and what calls them;
- ``translation``: from the text to LLVM's, with ``emission`` for numbers, memory and loops, and
  what the text may call: ``intrinsics``, ``products`` and ``formulas``;
- ``processor``, ``object_code`` and ``store``: what LLVM makes of it for this machine, loaded, and
  kept on disk;
- ``crew``: the threads that run it.

LLVM comes with llvmlite, the library under Numba.
"""

from .backend import Native

__all__ = ["Native"]
