"""Compiling kernels: what is taken from where, and what is said when it can not be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from immunogate.errors import UsageError
from immunogate.kernels import compile as compiling
from immunogate.kernels import cubins
from immunogate.kernels.compilers import CompileError, Nvcc, Nvrtc, nvcc_places, nvrtc_places

TOY = '#include "toy.cuh"\nextern "C" __global__ void doubled(float *x) { x[threadIdx.x] *= FACTOR; }\n'
HEADER = '#pragma once\n#include "deeper.cuh"\n'
DEEPER = "#define FACTOR 2.0f\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel file of its own with two headers, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "cuda"
    made.mkdir()
    for name, text in (("toy.cu", TOY), ("toy.cuh", HEADER), ("deeper.cuh", DEEPER)):
        (made / name).write_text(text, encoding="utf-8")
    return made


class CountingCompiler:
    """Stands in for nvcc: its machine code is what it was given."""

    name, flags = "counting", ("-O3",)

    def __init__(self, version: str = "counting 1") -> None:
        self.version = version
        self.runs = 0

    def compile(self, name: str, text: str, headers: dict[str, str], architecture: str) -> tuple[bytes, str]:
        self.runs += 1
        return f"{architecture} {text} {sorted(headers.items())}".encode(), f"log of {name}"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Use these compilers and no others."""

    def only(*compilers: CountingCompiler) -> None:
        monkeypatch.setattr(compiling, "_compilers", lambda: compilers)

    return only


def test_a_source_knows_all_its_headers_and_its_hash_each_of_their_letters(folder: Path) -> None:
    source = compiling.read_source("toy", folder)
    assert source.headers == (("deeper.cuh", DEEPER), ("toy.cuh", HEADER))
    before = source.sha256()
    assert compiling.read_source("toy", folder).sha256() == before
    for name in ("toy.cu", "toy.cuh", "deeper.cuh"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text + " ", encoding="utf-8")
        assert compiling.read_source("toy", folder).sha256() != before
        (folder / name).write_text(text, encoding="utf-8")


def test_missing_sources_and_headers_are_named(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no kernel file .*other\.cu"):
        compiling.read_source("other", folder)
    (folder / "deeper.cuh").unlink()
    with pytest.raises(CompileError, match=r"toy\.cu includes deeper\.cuh, which is not in"):
        compiling.read_source("toy", folder)


def test_what_was_compiled_once_is_kept_until_anything_of_it_changes(folder: Path, use: Callable[..., None]) -> None:
    compiler = CountingCompiler()
    use(compiler)
    first = compiling.cubin_for("toy", "sm_90", folder)
    again = compiling.cubin_for("toy", "sm_90", folder)
    assert (first.origin, again.origin, again.code, again.log) == ("counting", "cache", first.code, "log of toy")
    compiling.cubin_for("toy", "sm_80", folder)
    use(newer := CountingCompiler("counting 2"))
    compiling.cubin_for("toy", "sm_90", folder)
    assert (compiler.runs, newer.runs) == (2, 1)
    (folder / "deeper.cuh").write_text("#define FACTOR 3.0f\n", encoding="utf-8")
    assert compiling.cubin_for("toy", "sm_90", folder).origin == "counting"
    newer.flags = ("-O2",)
    assert compiling.cubin_for("toy", "sm_90", folder).origin == "counting"
    assert newer.runs == 3


def test_a_cache_that_can_not_be_written_costs_time_only(
    folder: Path, use: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    compiler = CountingCompiler()
    use(compiler)
    for _ in range(2):
        assert compiling.cubin_for("toy", "sm_90", folder).origin == "counting"
    assert compiler.runs == 2
    assert "compiled anew each time" in caplog.text


def prebuild(folder: Path, *architectures: str) -> None:
    codes = {architecture: f"code for {architecture}".encode() for architecture in architectures}
    cubins.write_prebuilt(folder / "cubin", "toolkit", {"toy": (compiling.read_source("toy", folder).sha256(), codes)})


def test_prebuilt_code_comes_first(folder: Path, use: Callable[..., None]) -> None:
    compiler = CountingCompiler()
    use(compiler)
    prebuild(folder, "sm_80", "sm_90")
    found = compiling.cubin_for("toy", "sm_90", folder)
    assert (found.code, found.origin, compiler.runs) == (b"code for sm_90", "package", 0)
    assert cubins.carried(folder / "cubin") == ["sm_80", "sm_90"]
    assert compiling.cubin_for("toy", "sm_75", folder).origin == "counting"


@pytest.mark.parametrize(
    ("device", "made"),
    [("sm_86", "sm_86"), ("sm_88", "sm_86"), ("sm_89", "sm_86"), ("sm_87", None), ("sm_75", None), ("sm_90", None),
     ("sm_103", "sm_100"), ("sm_110", None), ("sm_121", "sm_120"), ("sm_130", None)],
)  # fmt: skip
def test_code_runs_on_later_minor_versions_and_on_chips_of_its_own_kind_alone(
    folder: Path, device: str, made: str | None
) -> None:
    prebuild(folder, "sm_80", "sm_86", "sm_100", "sm_120")
    source = compiling.read_source("toy", folder).sha256()
    if made is None:
        with pytest.raises(cubins.NoCubinError, match=f"no prebuilt kernel runs on {device}"):
            cubins.prebuilt("toy", device, source, folder / "cubin")
    else:
        assert cubins.prebuilt("toy", device, source, folder / "cubin") == f"code for {made}".encode()


def test_stale_and_damaged_prebuilt_code_is_refused_and_said(folder: Path, use: Callable[..., None]) -> None:
    use()
    prebuild(folder, "sm_90")
    path = folder / "cubin" / "toy.sm_90.cubin"
    path.write_bytes(b"code for sm_91")
    with pytest.raises(CompileError, match="the prebuilt kernel for sm_90 is damaged, and neither nvcc nor libnvrtc"):
        compiling.cubin_for("toy", "sm_90", folder)
    path.unlink()
    with pytest.raises(CompileError, match="can not be read"):
        compiling.cubin_for("toy", "sm_90", folder)
    prebuild(folder, "sm_90")
    (folder / "deeper.cuh").write_text("#define FACTOR 3.0f\n", encoding="utf-8")
    with pytest.raises(CompileError, match="were made of other sources"):
        compiling.cubin_for("toy", "sm_90", folder)
    for text in ("", "[]", '{"kernels": []}', '{"kernels": {"toy": 3}}'):
        (folder / "cubin" / "manifest.json").write_text(text, encoding="utf-8")
        with pytest.raises(CompileError, match="holds no prebuilt kernels of this name"):
            compiling.cubin_for("toy", "sm_90", folder)


def test_writing_prebuilt_code_takes_the_old_away(folder: Path) -> None:
    prebuild(folder, "sm_80", "sm_90")
    prebuild(folder, "sm_90")
    assert sorted(path.name for path in (folder / "cubin").iterdir()) == ["manifest.json", "toy.sm_90.cubin"]
    manifest = json.loads((folder / "cubin" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["toolkit"] == "toolkit"


SAID = """\
ptxas info    : Compiling entry function 'a' for 'sm_90'
ptxas info    : Function properties for a
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 39 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compiling entry function 'b' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""


def test_registers_spills_and_shared_memory_are_read_from_a_log() -> None:
    assert compiling.usage_of(SAID) == {"a": compiling.Usage(39, 36, 1024), "b": compiling.Usage(8, 0, 0)}
    assert compiling.usage_of("nothing of this kind") == {}


def nvcc() -> Nvcc:
    place = next(nvcc_places(), None)
    if place is None:
        pytest.skip("nvcc is not installed")
    return Nvcc(place)


def nvrtc() -> Nvrtc:
    for place in nvrtc_places():
        try:
            return Nvrtc(place)
        except CompileError:
            continue
    pytest.skip("libnvrtc is not installed")


@pytest.mark.parametrize("make", [nvcc, nvrtc])
def test_real_compilers_make_code_and_say_what_it_needs(folder: Path, make: Callable[[], Nvcc | Nvrtc]) -> None:
    compiled = compiling.compiled_by(make(), compiling.read_source("toy", folder), "sm_90")
    assert compiled.code[:4] == b"\x7fELF"
    assert b"doubled" in compiled.code
    usage = compiling.usage_of(compiled.log)["doubled"]
    assert 0 < usage.registers < 40
    assert usage.spilled == 0


@pytest.mark.parametrize("make", [nvcc, nvrtc])
def test_a_refusal_shows_the_whole_log(folder: Path, make: Callable[[], Nvcc | Nvrtc]) -> None:
    (folder / "toy.cu").write_text(TOY + "int a = nowhere;\nint b = neither;\n", encoding="utf-8")
    with pytest.raises(CompileError, match=r"refused toy\.cu for sm_90") as caught:
        compiling.compiled_by(make(), compiling.read_source("toy", folder), "sm_90")
    assert '"nowhere" is undefined' in str(caught.value)
    assert '"neither" is undefined' in str(caught.value)


def test_what_is_no_compiler_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "nvcc"
    with pytest.raises(CompileError, match="can not be run"):
        Nvcc(program)
    program.write_text("#!/bin/sh\necho hello\n", encoding="utf-8")
    program.chmod(0o755)
    with pytest.raises(CompileError, match="is not a working nvcc"):
        Nvcc(program)
    with pytest.raises(CompileError, match="can not be loaded"):
        Nvrtc(str(program))
