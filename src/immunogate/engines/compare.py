"""Whether an engine fits this bundle and this machine, and if not, which field says so."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from immunogate.engines.record import AMPERE, ANY_AMPERE, THIS_GPU, EngineError, EngineRecord, Machine


@dataclass(frozen=True)
class Difference:
    """A field of the side-car that is not what it has to be: its name, what was built, what is here."""

    field: str
    built: str
    here: str

    def __str__(self) -> str:
        """In words: ``driver: built with 570.1, here is 580.2``."""
        return f"{self.field}: built with {self.built or 'none'}, here is {self.here or 'none'}"


def differences(record: EngineRecord, onnx_sha256: str, machine: Machine) -> list[Difference]:
    """All that keeps an engine from being used here, the most telling first; empty where it fits.

    An engine for other GPUs too (`Flags.hardware_compatible`) may have been built on another one.

    Args:
        record: its side-car.
        onnx_sha256: of the bundle's network.
        machine: this one, with the TensorRT that would load it.
    """
    found = []
    if record.onnx_sha256 != onnx_sha256:
        found.append(Difference("onnx_sha256", record.onnx_sha256[:16], onnx_sha256[:16]))
    level = record.flags.hardware_compatible
    for field in dataclasses.fields(Machine):
        built, here = str(getattr(record.machine, field.name)), str(getattr(machine, field.name))
        if built == here or (field.name == "device_name" and level != THIS_GPU):
            continue
        if field.name == "compute_capability" and level == ANY_AMPERE and machine.capability >= AMPERE:
            continue
        found.append(Difference(field.name, built, here))
    return found


def check(record: EngineRecord, where: str, onnx_sha256: str, machine: Machine) -> None:
    """Refuse an engine that does not fit here; whether it may carry code is for `immunogate.engines.host_code` to say.

    Args:
        record: its side-car.
        where: its path, for errors.
        onnx_sha256: of the bundle's network.
        machine: this one.

    Raises:
        EngineError: it was built for something else; the field is named.
    """
    found = differences(record, onnx_sha256, machine)
    if found:
        mend = f"Build it again on this device: immunogate build --network {record.network}"
        raise EngineError(f"{where} does not fit: {'; '.join(map(str, found))}", mend)
