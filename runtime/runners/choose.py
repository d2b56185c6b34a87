"""Which runner runs a network: the one that was named, or the first that can, with the reasons."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from immunogate.errors import ImmunogateError, UsageError
from immunogate.runtime.runners.base import Network, Runner
from immunogate.runtime.runners.check import check_against_cpu, tolerance_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """One way of running networks.

    Attributes:
        what: in a few words, for help and `immunogate doctor`.
        require: raises an `ImmunogateError` where this machine lacks something; opens nothing.
        open: opens one network; raises an `ImmunogateError` where that can not be.
        by_itself: whether ``auto`` may take it. What compiles for minutes may not: a door would wait.
    """

    what: str
    require: Callable[[], None]
    open: Callable[[Network], Runner]
    by_itself: bool = True


def _anywhere() -> None:
    """The CPU is always there."""


def _open_cpu(network: Network) -> Runner:
    from immunogate.runtime.runners.onnx import OnnxRunner

    return OnnxRunner(network.model, network.name, network.threads)


def _require_cuda() -> None:
    from immunogate.runtime.runners.providers import CUDA, require_provider

    require_provider(CUDA)


def _open_cuda(network: Network) -> Runner:
    from immunogate.runtime.runners.providers import open_cuda

    return open_cuda(network)


def _require_ort_tensorrt() -> None:
    from immunogate.runtime.runners.providers import TENSORRT, require_provider

    require_provider(TENSORRT)


def _open_ort_tensorrt(network: Network) -> Runner:
    from immunogate.runtime.runners.providers import open_tensorrt

    return open_tensorrt(network)


def _require_rtx() -> None:
    from immunogate.runtime.runners.rtx import require_rtx

    require_rtx()


def _open_rtx(network: Network) -> Runner:
    from immunogate.runtime.runners.rtx import RtxRunner

    return RtxRunner(network)


def _require_tensorrt() -> None:
    from immunogate.runtime.runners.tensorrt import load_tensorrt

    load_tensorrt()


def _open_tensorrt(network: Network) -> Runner:
    from immunogate.runtime.runners.tensorrt import open_engine_of

    return open_engine_of(network)


KINDS: dict[str, Kind] = {
    "tensorrt": Kind("TensorRT engines of immunogate build", _require_tensorrt, _open_tensorrt),
    "rtx": Kind("TensorRT-RTX in ONNX Runtime, desktop cards", _require_rtx, _open_rtx),
    "cuda": Kind("CUDA in ONNX Runtime", _require_cuda, _open_cuda),
    "ort-tensorrt": Kind(
        "TensorRT in ONNX Runtime, compiles for minutes at its first start",
        _require_ort_tensorrt,
        _open_ort_tensorrt,
        by_itself=False,
    ),
    "cpu": Kind("ONNX Runtime on the CPU", _anywhere, _open_cpu),
}
"""By name, in the order in which ``auto`` tries them; the CPU is the last, and always can."""

RUNNERS: tuple[str, ...] = (*sorted(KINDS), "auto")
"""What may be asked for."""


def open_runner(network: Network, runner: str = "cpu") -> Runner:
    """Open a network on the runner that was asked for. All but the CPU are compared with it first.

    Args:
        network: what to run.
        runner: one of `RUNNERS`; auto takes the first that can be used and gives the CPU's numbers.

    Raises:
        UsageError: an unknown name.
        BundleError: it is no network.
        DeviceError: the runner that was named can not be used here, or gives other numbers than the CPU.
    """
    if runner == "auto":
        return _first(network)
    if runner not in KINDS:
        raise UsageError(f"unknown runner {runner!r}", f"Use one of: {', '.join(RUNNERS)}")
    return _checked(runner, network)


def obstacles() -> dict[str, ImmunogateError | None]:
    """What keeps each runner from being tried on this machine, None where nothing does; no network is opened."""
    return {name: _obstacle(kind) for name, kind in KINDS.items()}


def _first(network: Network) -> Runner:
    passed_over: list[tuple[str, str]] = []
    for name in (name for name, kind in KINDS.items() if kind.by_itself and name != "cpu"):
        try:
            opened = _checked(name, network)
        except ImmunogateError as error:
            log.info("%s does not run %s: %s", name, network.name, error)
            passed_over.append((name, str(error)))
        else:
            break
    else:
        opened = _checked("cpu", network)
    opened.passed_over = tuple(passed_over)
    return opened


def _checked(name: str, network: Network) -> Runner:
    kind = KINDS[name]
    kind.require()
    opened = kind.open(network)
    log.info("%s runs on %s: %s", network.name, name, kind.what)
    if name == "cpu":
        return opened
    cpu = _open_cpu(network)
    try:
        check_against_cpu(opened, cpu, network.largest, tolerance_for(network.model))
    except BaseException:
        opened.close()
        raise
    finally:
        cpu.close()
    return opened


def _obstacle(kind: Kind) -> ImmunogateError | None:
    try:
        kind.require()
    except ImmunogateError as error:
        return error
    return None
