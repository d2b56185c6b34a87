"""Every name of TensorRT in use is in the real bindings of each supported version, over libraries that are empty."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.places import user_cache

VERSIONS = ("10.3", "10.13", "10.16", "11.4")
SIGNATURES = {
    "Builder.build_serialized_network": ("network:", "config:"),
    "Builder.create_network": ("flags:",),
    "IBuilderConfig.create_timing_cache": ("serialized_timing_cache:",),
    "IBuilderConfig.set_memory_pool_limit": ("pool:", "pool_size:"),
    "IBuilderConfig.set_timing_cache": ("cache:", "ignore_mismatch: bool"),
    "ICudaEngine.create_execution_context": ("self:",),
    "IExecutionContext.execute_async_v3": ("stream_handle:",),
    "IExecutionContext.set_input_shape": ("name: str", "shape: tuple"),
    "IExecutionContext.set_optimization_profile_async": ("profile_index:", "stream_handle:"),
    "IExecutionContext.set_tensor_address": ("name: str", "memory:"),
    "IOptimizationProfile.set_shape": ("input: str", "min:", "opt:", "max:"),
    "IProgressMonitor.phase_start": ("phase_name: str", "parent_phase: str", "num_steps:"),
    "IProgressMonitor.step_complete": ("phase_name: str", "step:"),
    "OnnxParser.parse": ("model:",),
    "Runtime.deserialize_cuda_engine": ("serialized_engine:",),
}
"""Arguments of the calls in use, in their order."""

CALLED_BACK = """
import json, os, sys
sys.setdlopenflags(os.RTLD_LAZY)
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings as trt
from immunogate.engines.messages import Messages, make_logger
from immunogate.export.engine.progress import Progress, make_monitor

messages, seen = Messages(), []
logger = make_logger(trt, messages)
for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
    logger.log(getattr(trt.ILogger.Severity, name), name.lower())
monitor = make_monitor(trt, Progress(lambda share, phase: seen.append((share, phase))))
assert isinstance(monitor, trt.IProgressMonitor) and isinstance(logger, trt.ILogger)
monitor.phase_start("all", None, 2)
go_on = monitor.step_complete("all", 0)
monitor.phase_finish("all")
documents = {}
for name in json.loads(sys.argv[2]):
    owner, _, method = name.partition(".")
    documents[name] = getattr(getattr(trt, owner), method).__doc__
print(json.dumps({"kept": messages.take(), "seen": seen, "go_on": go_on, "documents": documents}))
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kept_names_are_those_of_the_real_bindings(tool: Any, fetched: Callable[[str], Path], version: str) -> None:
    fetched(tool.VERSIONS[version])
    kept = json.loads(tool.KEPT.read_text(encoding="utf-8"))
    answer = tool.names_in(tool.VERSIONS[version], list(tool.used()), user_cache() / "wheels")
    assert answer["version"].startswith(f"{version}.")
    assert answer["names"] == {
        name: versions[version] for name, versions in kept["names"].items() if version in versions
    }
    missing = set(tool.used()) - set(answer["names"])
    assert missing <= set(kept["looked_for"])


@pytest.mark.parametrize("version", VERSIONS)
def test_calls_and_callbacks_are_shaped_as_they_are_used(
    tool: Any, fetched: Callable[[str], Path], version: str
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler for the empty libraries")
    unpacked = fetched(tool.VERSIONS[version])
    stubs = tool.make_stubs(unpacked / "tensorrt_bindings" / "tensorrt.so", unpacked / "stubs")
    command = [sys.executable, "-c", CALLED_BACK, str(unpacked), json.dumps(list(SIGNATURES))]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["kept"] == [["INTERNAL_ERROR", "internal_error"], ["ERROR", "error"], ["WARNING", "warning"]]
    assert (answer["seen"], answer["go_on"]) == ([[0.5, "all"]], True)
    for name, arguments in SIGNATURES.items():
        document, at = answer["documents"][name], 0
        for argument in arguments:
            at = document.find(argument, at)
            assert at >= 0, f"{name} of {version} takes no {argument}\n{document}"
