"""Machine code for the kernels: the prebuilt one of the package, else the cached one, else nvcc, else NVRTC.

A cached file is named by the hash of everything that went into it: the source and every header it includes, flags,
architecture, compiler and its version. Prebuilt files are bound to their sources by `cubins`; changed sources leave
them aside. The log of a compiler is kept beside what it made, with the registers and the memory of each kernel.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from immunogate.errors import ImmunogateError, UsageError
from immunogate.files import write_whole
from immunogate.kernels import cubins
from immunogate.kernels.compilers import CompileError, Compiler, find_compilers

log = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("cuda")
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A kernel file with all it includes.

    Attributes:
        name: of the file without its ending.
        text: its content.
        headers: name and content of every header that it includes, directly or not, sorted by name.
    """

    name: str
    text: str
    headers: tuple[tuple[str, str], ...]

    def sha256(self) -> str:
        """Over all names and contents."""
        digest = hashlib.sha256()
        for name, text in ((self.name, self.text), *self.headers):
            for part in (name, text):
                data = part.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Compiled:
    """Machine code of one kernel file.

    Attributes:
        code: a cubin.
        origin: package, cache, nvcc or nvrtc.
        log: what the compiler said; empty for prebuilt code.
    """

    code: bytes
    origin: str
    log: str


@dataclass(frozen=True)
class Usage:
    """What one kernel needs, as ptxas counts it.

    Attributes:
        registers: a thread.
        spilled: bytes of registers that did not fit, stores and loads together, and of stack.
        shared: bytes of static shared memory.
    """

    registers: int
    spilled: int
    shared: int


def kernel_names() -> list[str]:
    """The kernel files, by name, sorted."""
    return sorted(path.stem for path in SOURCES.glob("*.cu"))


def read_source(name: str, folder: Path = SOURCES) -> Source:
    """A kernel file and its headers from a folder.

    Raises:
        UsageError: the file is not there.
        CompileError: a header is not there.
    """
    path = folder / f"{name}.cu"
    if not path.is_file():
        raise UsageError(f"there is no kernel file {path}", "Install immunogate again")
    text = path.read_text(encoding="utf-8")
    headers: dict[str, str] = {}
    waiting = _INCLUDE.findall(text)
    while waiting:
        wanted = waiting.pop()
        if wanted not in headers:
            found = folder / wanted
            if not found.is_file():
                raise CompileError(f"{path} includes {wanted}, which is not in {folder}")
            headers[wanted] = found.read_text(encoding="utf-8")
            waiting += _INCLUDE.findall(headers[wanted])
    return Source(name, text, tuple(sorted(headers.items())))


def cubin_for(name: str, architecture: str, folder: Path = SOURCES) -> Compiled:
    """Machine code of a kernel file for an architecture, sm_90 for instance.

    Raises:
        CompileError: a compiler refused the source (with its whole log), or there is neither prebuilt code that fits
            nor a compiler.
        UsageError: there is no such kernel.
    """
    source = read_source(name, folder)
    try:
        return Compiled(cubins.prebuilt(name, architecture, source.sha256(), folder / "cubin"), "package", "")
    except cubins.NoCubinError as error:
        missing = str(error)
    compilers = _compilers()
    if not compilers:
        raise CompileError(
            f"{name} can not be compiled for {architecture}: {missing}, and neither nvcc nor libnvrtc was found",
            "Install a wheel with prebuilt kernels, the CUDA toolkit, or run: pip install nvidia-cuda-nvrtc",
        )
    for compiler in compilers:
        cached = _cached(source, architecture, compiler)
        if cached is not None:
            return cached
    return compiled_by(compilers[0], source, architecture)


def compiled_by(compiler: Compiler, source: Source, architecture: str) -> Compiled:
    """Compile without looking for anything ready-made, and keep the result in the cache.

    Raises:
        CompileError: the compiler refused; the message holds its whole log.
    """
    log.info("compiling %s for %s with %s", source.name, architecture, compiler.version)
    code, said = compiler.compile(source.name, source.text, dict(source.headers), architecture)
    path = _cache_path(source, architecture, compiler)
    try:
        write_whole(path.with_suffix(".log"), lambda temporary: temporary.write_text(said, encoding="utf-8"))
        write_whole(path, lambda temporary: temporary.write_bytes(code))
    except ImmunogateError as error:
        log.warning("the kernel is compiled anew each time: %s", error)
    return Compiled(code, compiler.name, said)


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``XDG_CACHE_HOME``, else ``~/.cache``, and there ``immunogate/kernels``.

    Raises:
        UsageError: the user has no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # the standard says to pass over relative ones
        return named / "immunogate" / "kernels"
    try:
        return Path.home() / ".cache" / "immunogate" / "kernels"
    except RuntimeError as error:
        raise UsageError("this user has no home folder", "Set XDG_CACHE_HOME") from error


def usage_of(said: str) -> dict[str, Usage]:
    """Registers, spilled bytes and shared memory of each kernel, from a compiler's log."""
    found: dict[str, Usage] = {}
    parts = re.split(r"Compiling entry function '(\w+)'", said)[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        used = re.search(r"Used (\d+) registers", text)
        spilled = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text)
        shared = re.search(r"(\d+) bytes smem", text)
        if used:
            found[name] = Usage(
                int(used[1]),
                sum(int(number) for number in spilled.groups()) if spilled else 0,
                int(shared[1]) if shared else 0,
            )
    return found


@lru_cache(maxsize=1)
def _compilers() -> tuple[Compiler, ...]:
    return find_compilers()


def _cache_path(source: Source, architecture: str, compiler: Compiler) -> Path:
    words = "\n".join((source.sha256(), architecture, compiler.version, *compiler.flags))
    key = hashlib.sha256(words.encode()).hexdigest()
    return cache_folder() / f"{source.name}.{architecture}.{key[:32]}.cubin"


def _cached(source: Source, architecture: str, compiler: Compiler) -> Compiled | None:
    path = _cache_path(source, architecture, compiler)
    try:
        return Compiled(path.read_bytes(), "cache", path.with_suffix(".log").read_text(encoding="utf-8"))
    except OSError:
        return None
