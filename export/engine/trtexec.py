"""The same build as a command of trtexec, for those who want to see, or to compare.

Options are those of TensorRT 10.3 to 10.16. From 11 on networks are always strongly typed, and the flag does nothing.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from immunogate.engines.record import THIS_GPU, Flags
from immunogate.export.engine.plan import NetworkPlan


def trtexec_command(
    plan: NetworkPlan, flags: Flags, onnx: Path, engine: Path, timing_cache: Path | None = None, device: int = 0
) -> str:
    """One line for a shell.

    Args:
        plan: the network.
        flags: of the builder.
        onnx: the network's file.
        engine: file to write.
        timing_cache: what the builder measured before, or None.
        device: number of the device.
    """
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}", "--stronglyTyped", f"--device={device}"]
    words += [] if flags.tf32 else ["--noTF32"]
    words.append(f"--builderOptimizationLevel={flags.optimization_level}")
    if flags.workspace_mib is not None:
        words.append(f"--memPoolSize=workspace:{flags.workspace_mib}M")
    if flags.version_compatible:
        words.append("--versionCompatible")
    if flags.hardware_compatible != THIS_GPU:
        words.append(f"--hardwareCompatibilityLevel={flags.hardware_compatible}")
    words += [f"--timingCacheFile={timing_cache}"] if timing_cache else []
    for number, profile in enumerate(plan.profiles):
        words.append(f"--profile={number}")
        for kind, shape in (("min", profile.min), ("opt", profile.opt), ("max", profile.max)):
            words.append(f"--{kind}Shapes={plan.input_name}:{'x'.join(map(str, shape))}")
    words.append("--skipInference")
    return shlex.join(words)
