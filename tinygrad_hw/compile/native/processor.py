"""The processor that native code is made for, and how wide its vectors are."""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm


@cache
def features() -> str:
    """What the processor can do, as LLVM is told of it."""
    found: str = llvm.get_host_cpu_features().flatten()
    # On many processors LLVM leaves half of each vector unused, lest they lower their clock; NumPy
    # and BLAS use all of it beside this code.
    return f"{found},-prefer-256-bit" if _wide(found) else found


def _wide(found: str) -> bool:
    return "+avx512vl" in found.split(",")


def vectors() -> tuple[int, int]:
    """Bytes of a vector, and how many vectors there are registers for."""
    return (64, 32) if _wide(features()) else (32, 16)


def name() -> str:
    """The processor and what it can do: code for it may not run on another."""
    return f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} {features()}"


def target_machine() -> Any:
    """LLVM's maker of code for it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features(), opt=3, jit=True
    )
