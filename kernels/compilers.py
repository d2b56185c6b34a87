"""The two compilers for kernels: nvcc of a CUDA toolkit, and NVRTC, a library that needs no toolkit and no g++."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from immunogate.errors import ImmunogateError

STANDARD = "--std=c++17"
NVCC_FLAGS = ("-O3", STANDARD, "-Xptxas", "-v")
NVRTC_FLAGS = (STANDARD, "--ptxas-options=-v")
TIME_LIMIT = 600
"""Seconds for one file; a compiler that takes longer hangs."""


class CompileError(ImmunogateError):
    """A kernel can not be compiled; the message holds the compiler's whole log."""


class Compiler(Protocol):
    """Turns a kernel file into machine code.

    Attributes:
        name: nvcc or nvrtc.
        version: name and version.
        flags: what it is told besides the architecture.
    """

    name: str
    version: str
    flags: tuple[str, ...]

    def compile(self, name: str, text: str, headers: dict[str, str], architecture: str) -> tuple[bytes, str]:
        """Machine code, and what the compiler said.

        Raises:
            CompileError: it refused.
        """


class Nvcc:
    """The compiler of the CUDA toolkit.

    Args:
        program: path of nvcc.

    Raises:
        CompileError: it does not start, or is none.
    """

    name = "nvcc"
    flags = NVCC_FLAGS

    def __init__(self, program: Path) -> None:
        self._program = str(program)
        said = self._run("--version")
        found = re.search(r"\bV(\d+\.\d+\.\d+)", said.stdout)
        if said.returncode or not found:
            raise CompileError(f"{program} is not a working nvcc: {said.stderr or said.stdout}")
        self.version = f"nvcc {found[1]}"

    def architectures(self) -> list[str]:
        """Those it compiles for, sm_90 for instance."""
        return re.findall(r"^sm_\d+$", self._run("--list-gpu-code").stdout, re.MULTILINE)

    def compile(self, name: str, text: str, headers: dict[str, str], architecture: str) -> tuple[bytes, str]:
        """See `Compiler`. Only the texts that are given are compiled, whatever lies in other folders."""
        with tempfile.TemporaryDirectory(prefix="immunogate-") as place:
            folder = Path(place)
            for file, content in {f"{name}.cu": text, **headers}.items():
                (folder / file).write_text(content, encoding="utf-8")
            words = (f"-arch={architecture}", "-cubin", *self.flags, "-o", f"{name}.cubin", f"{name}.cu")
            done = self._run(*words, folder=folder)
            said = done.stdout + done.stderr
            if done.returncode:
                raise CompileError(_refusal(self.version, name, architecture, said))
            return (folder / f"{name}.cubin").read_bytes(), said

    def _run(self, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [self._program, *words]
        try:
            return subprocess.run(  # noqa: S603
                command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIME_LIMIT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompileError(f"{self._program} can not be run: {error}") from error


class Nvrtc:
    """NVIDIA's compiler as a library, from a toolkit or from the wheel nvidia-cuda-nvrtc.

    Args:
        library: path or name of libnvrtc.

    Raises:
        CompileError: it can not be loaded.
    """

    name = "nvrtc"
    flags = NVRTC_FLAGS

    def __init__(self, library: str) -> None:
        try:
            # It opens its other half by name, which is found where that lies beside it and is loaded already.
            self._other_half = [ctypes.CDLL(str(path)) for path in Path(library).parent.glob("libnvrtc-builtins.so.*")]
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise CompileError(f"{library} can not be loaded: {error}") from error
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"nvrtc {major.value}.{minor.value}"

    def compile(self, name: str, text: str, headers: dict[str, str], architecture: str) -> tuple[bytes, str]:
        """See `Compiler`."""
        names, contents = (_strings(tuple(part)) for part in (headers.keys(), headers.values()))
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), text.encode(), f"{name}.cu".encode(),
            ctypes.c_int(len(headers)), contents, names,
        )  # fmt: skip
        try:
            options = (f"--gpu-architecture={architecture}", *self.flags)
            status = self._library.nvrtcCompileProgram(program, ctypes.c_int(len(options)), _strings(options))
            said = self._read("nvrtcGetProgramLog", program).rstrip(b"\0").decode(errors="replace")
            if status:
                raise CompileError(_refusal(self.version, name, architecture, said or self._why(status)))
            return self._read("nvrtcGetCUBIN", program), said
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{what}Size", program, ctypes.byref(size))
        held = ctypes.create_string_buffer(max(size.value, 1))
        self._call(what, program, held)
        return held.raw[: size.value]

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CompileError(f"{name} failed: {self._why(status)}")

    def _why(self, status: int) -> str:
        text: bytes = self._library.nvrtcGetErrorString(status)
        return text.decode(errors="replace")


def find_compilers() -> tuple[Compiler, ...]:
    """Those that are here and work, the better first."""
    found: list[Compiler] = []
    for make, places in ((Nvcc, nvcc_places()), (Nvrtc, nvrtc_places())):
        for place in places:
            try:
                found.append(make(place))  # type: ignore[arg-type]
                break
            except CompileError:
                continue
    return tuple(found)


def nvcc_places() -> Iterator[Path]:
    """Where nvcc may be: CUDA_HOME, CUDA_PATH, the search path, /usr/local/cuda."""
    named = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    yield from (folder / "bin" / "nvcc" for folder in named if (folder / "bin" / "nvcc").is_file())
    on_path = shutil.which("nvcc")
    if on_path:
        yield Path(on_path)
    if Path("/usr/local/cuda/bin/nvcc").is_file():
        yield Path("/usr/local/cuda/bin/nvcc")


def nvrtc_places() -> Iterator[str]:
    """Where libnvrtc may be: NVIDIA's wheels, CUDA_HOME, the system."""
    spec = find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield from map(str, sorted(Path(place).glob("c*/lib/libnvrtc.so.*"), reverse=True))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        folder = os.environ.get(name)
        if folder:
            yield from map(str, sorted(Path(folder).glob("lib64/libnvrtc.so.*"), reverse=True))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def _refusal(version: str, name: str, architecture: str, said: str) -> str:
    return f"{version} refused {name}.cu for {architecture}:\n{said.strip()}\n"


def _strings(words: tuple[str, ...]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
