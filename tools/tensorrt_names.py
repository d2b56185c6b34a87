"""Which names of TensorRT the builder and the runner use, and which of them each supported version has.

`used` reads the sources; `names_in` asks the real bindings, whose wheels are public, over libraries that are empty but
for the symbols that loading needs. The answer is kept beside this file, so that tests know it without a download:

    python tools/tensorrt_names.py            write tensorrt_names.json
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).with_suffix(".json")

VERSIONS = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",  # JetPack 6.1 and 6.2
    "10.13": "tensorrt-cu12-bindings==10.13.3.9",  # JetPack 7.0 and 7.1
    "10.16": "tensorrt-cu13-bindings==10.16.1.11",  # JetPack 7.2
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
"""The bindings of each version that is supported."""

OBJECTS = {
    "export/engine/builder.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "tensor": "ITensor",
        "parser": "OnnxParser",
        "parser_error": "ParserError",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "cache": "ITimingCache",
    },
    "export/engine/progress.py": {},
    "runtime/runners/tensorrt.py": {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
    },
    "runtime/runners/engine_slot.py": {"engine": "ICudaEngine", "context": "IExecutionContext"},
    "src/immunogate/engines/messages.py": {},
    "src/immunogate/engines/host_code.py": {"runtime": "Runtime"},
}
"""In which files TensorRT is used, and which class of it a variable there is of."""

CALLED_BACK = {
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "IProgressMonitor.phase_finish",
    "ILogger.log",
}
"""Methods that TensorRT calls on classes derived here."""

_PROBE = """
import json, os, sys
sys.setdlopenflags(os.RTLD_LAZY)
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings as trt
found = {}
for name in json.loads(sys.argv[2]):
    value = trt
    for part in name.split("."):
        value = getattr(value, part, None)
    if value is not None:
        found[name] = int(value) if hasattr(value, "__int__") and hasattr(type(value), "__members__") else None
print(json.dumps({"version": trt.__version__, "names": found}))
"""


def used(root: Path = ROOT) -> dict[str, bool]:
    """Every name that the sources use, ``Builder.create_network`` for instance, and whether it is looked for first."""
    found = dict.fromkeys(CALLED_BACK, False)
    for file, objects in OBJECTS.items():
        tree = ast.parse((root / file).read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for name, optional in _names(function, objects):
                found[name] = found.get(name, False) or optional
    return dict(sorted(found.items()))


def _names(function: ast.AST, objects: dict[str, str]) -> Iterator[tuple[str, bool]]:
    aliases = dict(objects)
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            of_library = _chain(node.value, {})
            if of_library:
                aliases[node.targets[0].id] = of_library
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute):
            chain = _chain(node, aliases)
            if chain:
                yield chain, False
        looked_for = isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr"
        if looked_for and isinstance(node, ast.Call) and isinstance(node.args[1], ast.Constant):
            owner = _chain(node.args[0], aliases)
            if owner:
                yield f"{owner}.{node.args[1].value}", True


def _chain(node: ast.AST, aliases: dict[str, str]) -> str:
    """``trt.BuilderFlag.TF32`` and what stands for it as ``BuilderFlag.TF32``; nothing for anything else."""
    words = re.fullmatch(r"(?:self\.|slot\.)?(\w+)((?:\.\w+)*)", ast.unparse(node))
    if not words or "__" in words.group(2):
        return ""
    first, rest = words.groups()
    if first in ("trt", "_trt", "tensorrt"):
        return rest.removeprefix(".")
    return f"{aliases[first]}{rest}" if first in aliases else ""


def fetch(requirement: str, folder: Path) -> Path:
    """A wheel, unpacked; downloaded where it is not there yet.

    Raises:
        subprocess.CalledProcessError: pip can not get it.
    """
    target = folder / re.sub(r"[^A-Za-z0-9.]+", "-", requirement)
    if not (target / ".whole").is_file():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "-d", str(target), requirement], check=True, capture_output=True, text=True)
        for wheel in target.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
            wheel.unlink()
        (target / ".whole").touch()
    return target


def make_stubs(extension: Path, folder: Path) -> Path:
    """The libraries that an extension needs, empty but for functions of the names that loading it looks up."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = _output("nm", "--dynamic", "--undefined-only", str(extension))
    names = sorted(set(re.findall(r" U ((?:create|get|init)\w+)$", listed, re.MULTILINE)))
    source = folder / "stub.c"
    source.write_text("".join(f"int {name}() {{ return 0; }}\n" for name in names), encoding="utf-8")
    for library in re.findall(r"\[(libnv[^\]]+)\]", _output("readelf", "-d", str(extension))):
        command = ["cc", "-w", "-shared", "-fPIC", str(source), f"-Wl,-soname,{library}", "-o", str(folder / library)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


def names_in(requirement: str, names: list[str], folder: Path) -> dict[str, Any]:
    """What one version has: its own version, and each name with its number where it is of an enumeration."""
    unpacked = fetch(requirement, folder)
    stubs = make_stubs(unpacked / "tensorrt_bindings" / "tensorrt.so", unpacked / "stubs")
    environment = {"LD_LIBRARY_PATH": str(stubs), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", _PROBE, str(unpacked), json.dumps(names)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Ask every version and write what they have."""
    from immunogate.places import user_cache

    names = used()
    report: dict[str, Any] = {"bindings": VERSIONS, "looked_for": [name for name in names if names[name]], "names": {}}
    for version, requirement in VERSIONS.items():
        answer = names_in(requirement, list(names), user_cache() / "wheels")
        print(f"{version}: {answer['version']}, {len(answer['names'])} of {len(names)} names")
        for name in names:
            if name in answer["names"]:
                report["names"].setdefault(name, {})[version] = answer["names"][name]
    KEPT.write_text(_on_few_lines(report), encoding="utf-8")
    return 0


def _on_few_lines(report: dict[str, Any]) -> str:
    """JSON with one line for each name, so that a change of a version shows as a change of lines."""
    parts = []
    for key, value in report.items():
        if isinstance(value, dict):
            inside = ",\n".join(f"  {json.dumps(name)}: {json.dumps(item)}" for name, item in value.items())
            parts.append(f" {json.dumps(key)}: {{\n{inside}\n }}")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
