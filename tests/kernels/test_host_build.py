"""The host library is built once, kept under a name that says all it depends on, and done without where need be."""

from __future__ import annotations

import logging
import shutil
import stat
from pathlib import Path

import pytest

from immunogate.kernels import host
from immunogate.kernels.compile import SOURCES
from immunogate.kernels.host import HostKernels, host_kernels
from immunogate.kernels.host_build import HostBuildError, find_compiler, host_library


@pytest.fixture
def compiler() -> str:
    try:
        return find_compiler()
    except HostBuildError as error:
        pytest.skip(str(error))


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """`host_kernels` looks anew, and the test's finding is forgotten afterwards."""
    monkeypatch.setattr(host, "_found", [])


def test_a_built_library_is_found_again(compiler: str, tmp_path: Path) -> None:
    first = host_library(tmp_path)
    written = first.stat().st_mtime_ns
    assert host_library(tmp_path) == first
    assert first.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize("changed", ["host.cpp", "antibody.cuh", "host_lanes.h"])
def test_another_source_is_another_library(compiler: str, tmp_path: Path, changed: str) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES, sources)
    first = host_library(tmp_path / "out", sources)
    with (sources / changed).open("a", encoding="utf-8") as stream:
        stream.write("// another end\n")
    assert host_library(tmp_path / "out", sources) != first


def test_another_compiler_is_another_library(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = host_library(tmp_path)
    other = script(tmp_path / "other-g++", f'exec {compiler} -DANOTHER "$@"')
    monkeypatch.setenv("IMMUNOGATE_CXX", str(other))
    assert host_library(tmp_path) != first


def test_a_refusal_shows_the_compilers_whole_log(compiler: str, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES, sources)
    with (sources / "host.cpp").open("a", encoding="utf-8") as stream:
        stream.write("int a = no_such_name;\nint b = nor_this;\n")
    with pytest.raises(HostBuildError, match=r"(?s)no_such_name.*nor_this"):
        host_library(tmp_path / "out", sources)
    assert not list((tmp_path / "out").glob("*.so"))


@pytest.mark.parametrize(
    ("named", "message"), [("none", "IMMUNOGATE_CXX is none"), ("no-such-g++", "no no-such-g\\+\\+ on the PATH")]
)
@pytest.mark.usefixtures("forgetful")
def test_without_a_compiler_numpy_does_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, named: str, message: str
) -> None:
    monkeypatch.setenv("IMMUNOGATE_CXX", named)
    with pytest.raises(HostBuildError, match=message):
        find_compiler()
    with caplog.at_level(logging.INFO):
        assert host_kernels() is None
        assert host_kernels() is None
    assert [record.levelname for record in caplog.records] == ["INFO"]  # once
    assert "drawn by NumPy" in caplog.text


@pytest.mark.usefixtures("forgetful")
def test_a_folder_that_can_not_be_written_is_no_failure(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "immunogate").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert host_kernels() is None
    assert "can not be written" in caplog.text


def test_a_broken_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host.so"
    path.write_bytes(b"\x7fELF, but no more")
    with pytest.raises(HostBuildError, match="can not be loaded"):
        HostKernels(path)


def test_a_library_that_computes_wrongly_is_refused(compiler: str, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES, sources)
    header = sources / "philox.cuh"
    text = header.read_text(encoding="utf-8")
    header.write_text(text.replace("0x9E3779B9u", "0x9E3779B8u"), encoding="utf-8")
    with pytest.raises(HostBuildError, match="computes wrongly"):
        HostKernels(host_library(tmp_path / "out", sources))
