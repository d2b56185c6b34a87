"""Runs one network on ONNX Runtime: on the CPU, or on a GPU through one of its execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort

from immunogate.errors import BundleError
from immunogate.kernels.cpu import usable_threads
from immunogate.kernels.device.driver import DeviceError
from immunogate.runtime.runners.base import Array, Runner

CPU = "CPUExecutionProvider"
ASSIGNMENT = "session.record_ep_graph_assignment_info"
"""Has a session say which provider runs what; ONNX Runtime knows it since 1.24 and passes over it before."""


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime.

    Attributes:
        kind: what ``--runner`` calls it.
        name: what ONNX Runtime calls it.
        options: its own options, all text.
        needs: what it needs on this machine, for the error where it does not start.
        built_in: whether it is asked for by name; a plug-in is asked for by device.
    """

    kind: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    built_in: bool = True


ON_CPU = Provider("cpu", CPU)


class OnnxRunner(Runner):
    """One ONNX network on ONNX Runtime.

    ONNX Runtime falls back to the CPU by itself where another provider does not start, and again where it fails in
    the middle of a run, with a notice on stdout. Both are switched off: who asked for a GPU gets it or an error.

    Args:
        model: content of the ONNX file, already verified.
        name: what to call it in errors.
        threads: threads of one run on the CPU.
        provider: what runs it; operators that it does not know are run on the CPU.
        devices: the devices of a provider that is a plug-in.

    Raises:
        BundleError: ONNX Runtime does not accept the network; its words are passed on.
        DeviceError: the provider does not start, or would leave the whole network to the CPU.
    """

    def __init__(
        self,
        model: bytes,
        name: str,
        threads: int | None = None,
        provider: Provider = ON_CPU,
        devices: list[ort.OrtEpDevice] | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_threads()
        options.inter_op_num_threads = 1
        # Idle workers must not spin: the kernels and the camera need the processors between two runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.kind, self.name = provider.kind, name
        if provider is ON_CPU:
            self._session = _session(model, name, options, [CPU])
        else:
            self._session = _on_device(model, name, options, provider, devices)
        self.input_name: str = self._session.get_inputs()[0].name
        self.input_shape: list[int | str] = self._session.get_inputs()[0].shape
        self.output_names: list[str] = [output.name for output in self._session.get_outputs()]
        self.output_shapes: list[list[int | str]] = [output.shape for output in self._session.get_outputs()]

    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name.

        Args:
            batch: float32 of the network's input shape.
        """
        values = self._session.run(self.output_names, {self.input_name: np.ascontiguousarray(batch)})
        return dict(zip(self.output_names, values, strict=True))

    def close(self) -> None:
        """Give back memory and threads; the runner can not run any more."""
        self.__dict__.pop("_session", None)


def _session(model: bytes, name: str, options: ort.SessionOptions, providers: list[object]) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
        raise BundleError(f"ONNX Runtime does not accept {name}: {error}", "Export the bundle again") from error


def _on_device(
    model: bytes, name: str, options: ort.SessionOptions, provider: Provider, devices: list[ort.OrtEpDevice] | None
) -> ort.InferenceSession:
    """A session in which the provider has a part.

    Raises:
        DeviceError: it has none.
    """
    options.add_session_config_entry(ASSIGNMENT, "1")
    settings = dict(provider.options)
    try:
        if provider.built_in:
            given = [(provider.name, settings), CPU]
            session = ort.InferenceSession(model, options, providers=given, enable_fallback=0)
        else:
            options.add_provider_for_devices(devices, settings)
            session = ort.InferenceSession(model, options, enable_fallback=0)
    except Exception as error:  # as above
        said = " ".join(str(error).split())
        raise DeviceError(f"{provider.name} does not start for {name}: {said}", provider.needs) from error
    if provider.name not in session.get_providers():
        raise DeviceError(
            f"{provider.name} does not start for {name}; ONNX Runtime would run it on the CPU instead and says on "
            "stderr why",
            provider.needs,
        )
    if provider.name not in _assigned(session, provider.name):
        raise DeviceError(f"{provider.name} takes no part of {name}; all of it would run on the CPU", provider.needs)
    return session


def _assigned(session: ort.InferenceSession, otherwise: str) -> set[str]:
    """The providers that run something; one that is given where this release of ONNX Runtime can not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {otherwise}
    return {part.ep_name for part in session.get_provider_graph_assignment_info()}
