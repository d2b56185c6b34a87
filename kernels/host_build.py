"""Builds the host library from the kernels' own headers with the C++ compiler of this machine, once for each CPU.

``IMMUNOGATE_CXX`` names the compiler; ``none`` there means to do without. The library lies in the user's cache folder
under a name that is the hash of the sources, the flags, the compiler and what the compiler knows of this CPU.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from immunogate.errors import ImmunogateError
from immunogate.files import written_whole
from immunogate.kernels.compile import SOURCES, cache_folder

COMPILERS = ("g++", "c++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC")
"""Contraction off: which products and sums are rounded once is the headers' business, see portable.cuh."""

PATIENCE = 300.0
"""Seconds after which a compiler is given up."""


class HostBuildError(ImmunogateError):
    """The host library can not be had; the message says why. Nobody needs it: NumPy gives the same numbers."""


def find_compiler() -> str:
    """Path of the C++ compiler.

    Raises:
        HostBuildError: there is none, or ``IMMUNOGATE_CXX`` says to do without.
    """
    named = os.environ.get("IMMUNOGATE_CXX", "")
    if named == "none":
        raise HostBuildError("IMMUNOGATE_CXX is none")
    for name in (named,) if named else COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    wanted = named or " nor ".join(COMPILERS)
    raise HostBuildError(f"there is no {wanted} on the PATH", "Install g++, or name a compiler in IMMUNOGATE_CXX")


def host_library(folder: Path | None = None, sources: Path = SOURCES) -> Path:
    """The path of the library, built now where it is not in ``folder`` yet (default: the user's cache folder).

    Raises:
        HostBuildError: there is no compiler, it refused (with its whole log), or the folder can not be written.
    """
    compiler = find_compiler()
    try:
        path = (folder or cache_folder()) / f"host.{_key(compiler, sources)}.so"
        if not path.is_file():
            with written_whole(path) as temporary:
                _run([compiler, *FLAGS, "-o", str(temporary), str(sources / "host.cpp")])
    except HostBuildError:
        raise
    except (ImmunogateError, OSError) as error:
        raise HostBuildError(str(error)) from error
    return path


def _key(compiler: str, sources: Path) -> str:
    digest = hashlib.sha256("\n".join((compiler, *FLAGS)).encode())
    digest.update(
        _run([compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull]).encode()
    )  # version, CPU's instructions
    for path in sorted(sources.iterdir()):
        if path.suffix in (".cuh", ".h", ".cpp"):
            data = path.read_bytes()
            digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:32]


def _run(command: list[str]) -> str:
    in_english = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603 - a compiler of the PATH, or one that the user names
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False, env=in_english
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostBuildError(f"{command[0]} can not be run: {error}") from error
    if done.returncode:
        raise HostBuildError(f"{' '.join(command)} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
