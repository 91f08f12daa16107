"""CUDA sources below `kernels`, compiled by NVIDIA's run-time compiler, which JAX's own packages
bring along; kept as libraries are.
"""

import ctypes
import ctypes.util
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from rnn_dynamics.kernels.build import HERE, kept, macros, name_of

OPTIONS = ("--std=c++17",)


def compiled(source: str, constants: Mapping[str, float], architecture: str) -> tuple[str, bytes]:
    """What its bits depend on, as a word, and the machine code of a source below `kernels`.

    Args:
        source: path of a file below `kernels`, which may include any .cuh beside it.
        constants: macros that it is compiled with.
        architecture: of the GPU, as "sm_90".

    Raises:
        OSError: if there is no compiler, or it fails.
    """
    options = [*OPTIONS, f"--gpu-architecture={architecture}", *macros(constants)]
    sources = [HERE / source, *sorted((HERE / source).parent.glob("*.cuh"))]
    name = name_of(source, [*(path.read_text("utf-8") for path in sources), *options])
    with kept(f"{name}.cubin", lambda path: path.write_bytes(_compile(sources, options))) as path:
        return name, path.read_bytes()


def _compile(sources: list[Path], options: list[str]) -> bytes:
    compiler = find_compiler()
    program = ctypes.c_void_p()
    names, texts = ([path.name.encode() for path in sources], [p.read_bytes() for p in sources])

    def array(items: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
        return (ctypes.c_char_p * len(items))(*items)

    def must(status: int, what: str) -> None:
        if status:
            raise OSError(f"the CUDA compiler fails: {what}")

    headers = array(texts[1:]), array(names[1:])
    must(
        compiler.nvrtcCreateProgram(
            ctypes.byref(program), texts[0], names[0], len(names) - 1, *headers
        ),
        "no program",
    )
    try:
        given = array([option.encode() for option in options])
        failed = compiler.nvrtcCompileProgram(program, len(options), given)
        must(failed, _text(compiler, program).strip().split("\n")[0] if failed else "")
        size = ctypes.c_size_t()
        must(compiler.nvrtcGetCUBINSize(program, ctypes.byref(size)), "no machine code")
        code = ctypes.create_string_buffer(size.value)
        must(compiler.nvrtcGetCUBIN(program, code), "no machine code")
        return code.raw
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def _text(compiler: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value + 1)
    compiler.nvrtcGetProgramLog(program, text)
    return text.value.decode(errors="replace")


def find_compiler() -> ctypes.CDLL:
    """NVIDIA's run-time compiler.

    Raises:
        OSError: if there is none.
    """
    why = "not found"
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            why = str(error)
    raise OSError(f"there is no CUDA compiler (libnvrtc): {why}")


def _candidates() -> Iterator[str]:
    """Where libnvrtc may be: in NVIDIA's Python packages, in CUDA's folder, where the system
    looks.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        yield from map(str, sorted(folder.glob("*/lib/libnvrtc.so.*"), reverse=True))
    for root in filter(
        None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    ):
        yield from map(str, sorted(Path(root).glob("lib64/libnvrtc.so.*"), reverse=True))
    if found := ctypes.util.find_library("nvrtc"):
        yield found
