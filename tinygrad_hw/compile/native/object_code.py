"""Object code: made from LLVM's text, loaded, and called as a builtin function of Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np

from .processor import target_machine

ENTRY = "tinygrad_hw_native"
_FASTCALL = 0x80


class ObjectCode(NamedTuple):
    """A native function.

    Attributes
    ----------
    needs : list of str
        Functions from elsewhere that it calls.
    code : bytes
        The object file.
    """

    needs: list[str]
    code: bytes


def emitted(text: str) -> ObjectCode:
    """Make object code of LLVM's text of a function named ``ENTRY``."""
    module, machine = llvm.parse_assembly(text), target_machine()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    # It doubles the code and the time to make it, and gains nothing measurable.
    options.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    declared = [f.name for f in module.functions if f.is_declaration]
    needs = [name for name in declared if not name.startswith("llvm.")]
    return ObjectCode(needs, machine.emit_object(module))


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_builtin = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)


def loaded(made: ObjectCode) -> Callable[..., Any]:
    """Load object code; give its function."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    if _missing(made):
        # Numba tells LLVM of functions of C where the system does not.
        from numba.core.registry import cpu_target

        assert cpu_target.target_context
    if missing := _missing(made):
        raise RuntimeError(
            f"compile: native code needs {', '.join(missing)}; numba does not have it"
        )
    engine.add_object_file(llvm.ObjectFileRef.from_data(made.code))
    engine.finalize_object()
    address = engine.get_function_address(ENTRY)
    definition = _MethodDef(b"native", address, _FASTCALL, None)
    # Functions may live on when modules are cleared at the end of the process.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object((engine, definition)))
    # By its self a function knows what is an array.
    function: Callable[..., Any] = _builtin(ctypes.addressof(definition), np.ndarray, None)
    return function


def _missing(made: ObjectCode) -> list[str]:
    return [name for name in made.needs if llvm.address_of_symbol(name) is None]


_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def blas(dtype: np.dtype[Any]) -> int:
    """Give the address of the product of matrices in the BLAS that SciPy comes with."""
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__["sgemm" if dtype.itemsize == 4 else "dgemm"]
    address: int = _capsule_pointer(capsule, _capsule_name(capsule))
    return address
