"""From the text of a native function to LLVM's, by numba."""

# mypy: ignore-errors
# Numba's types are not Python's.

from __future__ import annotations

import math

import numpy as np
from numba import config, types
from numba.core import typed_passes, untyped_passes
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target

from . import intrinsics, products

_ARGUMENTS = (types.voidptr, types.CPointer(types.voidptr), types.intp)


def translated(source: str) -> tuple[str, str]:
    """Give LLVM's text for a source of ``native(self, objects, count)``, and the function's name.

    The function has numba's calling convention: it takes where to put the result and where to put
    an exception, then its arguments.
    """
    if config.DISABLE_JIT:
        raise RuntimeError("compile: NUMBA_DISABLE_JIT is set; unset it, or use backend='numpy'")
    names = {"np": np, "math": math, **vars(intrinsics), **vars(products)}
    exec(compile(source, "<native>", "exec"), names)
    with global_compiler_lock:
        typing, target = cpu_target.typing_context, cpu_target.target_context
        typing.refresh()
        target.refresh()
        text = _Text(target.codegen(), "native")
        given = (names["native"], _ARGUMENTS, types.voidptr, _flags(), {}, text, _Translator)
        made = compile_extra(typing, target, *given)
        text.finalize()
    return text.get_llvm_str(), made.fndesc.llvm_func_name


def _flags() -> Flags:
    flags = Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    return flags


class _Translator(CompilerBase):
    """Of numba's passes those that our text needs."""

    def define_pipelines(self):
        passes = PassManager("native")
        for each in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.ReconstructSSA,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            typed_passes.IRLegalization,
            typed_passes.NativeLowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]


class _Text(CPUCodeLibrary):
    """A function and what it calls as LLVM's text, which is optimised once and never loaded."""

    def _optimize_functions(self, module):
        module.data_layout = self._codegen._data_layout

    def _finalize_final_module(self):
        self._finalized = True
