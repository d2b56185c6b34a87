"""What may import what, what starting costs, and rules that no linter here knows."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immunogate.bundle import Bundle

ROOT = Path(__file__).parents[1]
ROOMS = ("calib", "export", "kernels", "runtime", "training")
LONGEST_FILE = 400
MEDIAN_FILE = 150
HEAVY = ("torch", "onnx", "onnxscript", "matplotlib", "tensorrt", "pycuda", "cuda")

SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in (*ROOMS, "src/immunogate")
    for path in (ROOT / folder).rglob("*.py")
    if not path.relative_to(ROOT).as_posix().startswith(tuple(f"src/immunogate/{room}/" for room in ROOMS))
)


def _tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _imports(tree: ast.AST, *, at_import_time: bool) -> Iterator[str]:
    """Top-level names of imported packages; without those in functions and under TYPE_CHECKING if asked so."""
    for child in ast.iter_child_nodes(tree):
        inside_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if at_import_time and (inside_function or for_types):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield (child.module or "").partition(".")[0]
        yield from _imports(child, at_import_time=at_import_time)


def _python(code: str, *words: object) -> str:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_there_are_sources_to_look_at() -> None:
    names = {path.as_posix() for path in SOURCES}
    assert {"runtime/pipeline.py", "src/immunogate/cli/run.py", "kernels/reference.py"} <= names
    assert len(SOURCES) > 60


def test_importing_the_package_is_quick() -> None:
    bare, fastest = (min(_timed(code) for _ in range(5)) for code in ("pass", "import immunogate"))
    assert fastest < max(0.3, bare + 0.1)  # the second for machines on which Python itself starts slowly


def _timed(code: str) -> float:
    start = time.perf_counter()
    _python(code)
    return time.perf_counter() - start


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = (*HEAVY, "cv2", "onnxruntime", "numpy", "tqdm")
    shown = _python(f"import sys, immunogate; print(*(set({heavy!r}) & set(sys.modules)))")
    assert shown.strip() == ""


def test_a_gate_on_the_cpu_loads_neither_torch_nor_onnx(tiny_bundle: Bundle, tmp_path: Path) -> None:
    from immunogate.runtime.gallery import Gallery

    manifest = tiny_bundle.manifest
    gallery = tmp_path / "g.db"
    Gallery(gallery, manifest.embedding_hash(), manifest.recogniser.embedding_dimension, create=True).close()
    code = (
        "import sys; from immunogate.cli import main\n"
        "status = main(sys.argv[1:])\n"
        f"print(status, *(set({HEAVY!r}) & set(sys.modules)))"
    )
    words = ("run", "--bundle", tiny_bundle.folder, "--gallery", gallery, "--source", _source(), "--json",
             "--max-frames", "10", "--annotate", tmp_path / "seen.mp4")  # fmt: skip
    assert _python(code, *words).splitlines()[-1] == "0"


def _source() -> str:
    from immunogate.files import find_data

    data = find_data()
    return str(data / "video/head-pose-face-detection-male.gif") if data else "synthetic://?frames=10"


TORCH_ROOMS = ("src/immunogate/networks/", "training/", "export/", "calib/robustness/")
ROBUSTNESS_WITHOUT_TORCH = (
    "document",
    "records",
    "protocols",
    "outcome",
    "memory",
    "pairs",
    "clean",
    "flags",
    "verdict",
)
"""What reads and writes evaluations, or asks the deployed gate: without torch."""
TENSORRT_ROOMS = ("export/engine/builder.py", "runtime/runners/tensorrt.py")


def test_a_robustness_document_is_read_and_judged_without_torch() -> None:
    modules = ", ".join(f"immunogate.calib.robustness.{name}" for name in ROBUSTNESS_WITHOUT_TORCH)
    shown = _python(f"import sys, immunogate.cli, {modules}; print(*(set({HEAVY!r}) & set(sys.modules)))")
    assert shown.strip() == ""


@pytest.mark.parametrize("path", SOURCES, ids=Path.as_posix)
def test_the_fences_around_third_parties(path: Path) -> None:
    name = path.as_posix()
    always = set(_imports(_tree(path), at_import_time=False))
    loading = set(_imports(_tree(path), at_import_time=True))
    if not name.startswith((*TORCH_ROOMS, "src/immunogate/cli/")):
        assert "torch" not in always
    if not name.startswith(("export/", "calib/precision/", "src/immunogate/graphs/")):
        assert not {"onnx", "onnxscript"} & always
    assert name.startswith("export/") or "onnxscript" not in always
    if name.startswith("src/immunogate/pages/"):
        assert always <= {*sys.stdlib_module_names, "immunogate"}, "reports are drawn with the standard library"
    if not name.startswith("training/"):
        assert "matplotlib" not in loading
    if name.startswith("src/immunogate/cli/"):
        assert not {"torch", "onnx", "onnxruntime", "matplotlib"} & loading
    if not name.startswith(("runtime/", "export/", "calib/precision/")):
        assert "onnxruntime" not in always
    assert "art" not in loading, "the attack library is an extra"
    assert name == "src/immunogate/networks/attacks/boundary.py" or "art" not in always


@pytest.mark.parametrize("path", SOURCES, ids=Path.as_posix)
def test_the_fences_around_what_needs_a_gpu(path: Path) -> None:
    name = path.as_posix()
    always = set(_imports(_tree(path), at_import_time=False))
    loading = set(_imports(_tree(path), at_import_time=True))
    if name.startswith("runtime/gpu/"):  # whoever runs the networks there comes through a protocol
        assert not {"onnxruntime", "tensorrt"} & always
    if not name.startswith("kernels/device/"):
        assert not {"pycuda", "cuda"} & always
    assert not {"pycuda", "cuda"} & loading
    assert "tensorrt" not in loading, "it crashes where there is no driver: look at that first"
    if name not in TENSORRT_ROOMS:
        assert "tensorrt" not in always
    if name.startswith("export/engine/"):
        assert not {"torch", "onnx", "onnxruntime"} & always, "a Jetson builds engines and has none of them"
    assert "onnxruntime_ep_nv_tensorrt_rtx" not in loading
    if name != "runtime/runners/rtx.py":  # importing it loads NVIDIA's libraries and changes the environment
        assert "onnxruntime_ep_nv_tensorrt_rtx" not in always


PROFILING = [path for path in SOURCES if path.as_posix().startswith("src/immunogate/profiling/")]


@pytest.mark.parametrize("path", PROFILING, ids=Path.as_posix)
def test_what_a_profile_says_takes_no_time_and_opens_no_gate(path: Path) -> None:
    tree = _tree(path)
    assert set(_imports(tree, at_import_time=False)) <= {*sys.stdlib_module_names, "numpy", "immunogate"}
    assert not {"time", "subprocess", "ctypes"} & set(_imports(tree, at_import_time=False))
    own = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    rooms = {name.split(".")[1] for name in own if name.startswith("immunogate.")}
    assert rooms <= {"profiling", "pages", "files", "errors", "structs"}


@pytest.mark.parametrize("path", SOURCES, ids=Path.as_posix)
def test_nothing_is_unpickled_and_nothing_printed(path: Path) -> None:
    tree = _tree(path)
    if path.as_posix() != "src/immunogate/networks/checkpoint.py":  # needs the class of torch's refusal
        assert not {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"} & set(
            _imports(tree, at_import_time=False)
        )
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert called not in {"pickle.load", "pickle.loads", "eval", "exec", "os.system"}
        if called == "torch.load":
            assert options.get("weights_only") == "True"
        if called == "np.load":
            assert options.get("allow_pickle") == "False"
        if called == "print":
            assert path.as_posix().startswith("src/immunogate/cli/")
        assert options.get("shell") != "True"


@pytest.mark.parametrize("path", SOURCES, ids=Path.as_posix)
def test_imports_are_absolute_and_of_this_package(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert (node.module or "").partition(".")[0] not in ROOMS
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & set(ROOMS)


def test_files_are_short() -> None:
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}
    assert statistics.median(lengths.values()) < MEDIAN_FILE


def test_no_work_is_left_for_later() -> None:
    for path in SOURCES:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not [mark for mark in ("TODO", "FIXME", "XXX") if mark in text], path


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_linked_into_the_package(room: str) -> None:
    link = ROOT / "src" / "immunogate" / room
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / room
    assert (link / "__init__.py").is_file()


def test_the_layers_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_the_layers_name_every_part_of_the_package() -> None:
    if sys.version_info < (3, 11):
        import tomli as tomllib
    else:
        import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    package = ROOT / "src" / "immunogate"
    parts = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    parts |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert {f"immunogate.{part}" for part in parts} <= layers
