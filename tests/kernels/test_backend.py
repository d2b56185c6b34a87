"""Which backend is taken, and that another one than the CPU is trusted only where it gives the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.errors import ImmunogateError, UsageError
from immunogate.kernels import backend, clones
from immunogate.kernels.antibody import AntibodySettings, make_antibodies
from immunogate.kernels.backend import CpuBackend, check_against_cpu, open_kernels
from immunogate.kernels.device import DeviceError, DriverState
from immunogate.kernels.reference import CloneKey

NOBODY = DriverState(None, problem="no driver", remedy="Install one")


@pytest.fixture
def parts() -> tuple[Any, Any]:
    draw = np.random.default_rng(4)
    return draw.uniform(-0.5, 0.5, 90).astype(np.float32), np.linalg.qr(draw.normal(size=(90, 40)))[0].T.astype("f4")


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int = 0) -> DriverState:
        raise DeviceError(NOBODY.problem, NOBODY.remedy)

    monkeypatch.setattr(backend, "require_device", refuse)


@pytest.mark.usefixtures("no_device")
def test_without_a_device(parts: tuple[Any, Any]) -> None:
    for name in ("cpu", "auto"):
        kernels = open_kernels(name, *parts, threads=1)
        assert isinstance(kernels, CpuBackend)
        kernels.close()
    with pytest.raises(DeviceError, match=r"no driver\. Install one"):
        open_kernels("cuda", *parts)
    with pytest.raises(UsageError, match=r"unknown backend 'gpu'\. Use one of: cpu, cuda, auto"):
        open_kernels("gpu", *parts)


class Wrong(CpuBackend):
    """Stands in for a device that computes wrongly."""

    fault = ""

    def project(self, faces: Any) -> Any:
        found = super().project(faces)
        return found * (np.nan if self.fault == "nan" else 1.01 if self.fault == "project" else 1)

    def act(self, coefficients: Any, weights: Any, faces: Any = None) -> Any:
        found = super().act(coefficients, weights, faces)
        found[..., -1] += 0.002 if self.fault == "act" else 0
        return found

    def select_clones(self, probabilities: Any, weights: Any, count: int, keep: int, key: Any) -> Any:
        winners, masks = super().select_clones(probabilities, weights, count, keep, key)
        if self.fault == "winner":
            winners = winners[:, ::-1]
        if self.fault == "mask":
            masks[0, 0, 0] ^= 1
        return winners, masks


@pytest.mark.parametrize(
    ("fault", "said"),
    [("", ""), ("project", "other pixels"), ("nan", "other pixels"), ("act", "other pixels"),
     ("winner", "other clones"), ("mask", "other clones")],
)  # fmt: skip
def test_a_device_that_gives_other_numbers_is_refused(
    parts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    with Wrong(*parts, threads=1) as kernels:
        kernels.fault = fault
        if not fault:
            check_against_cpu(kernels, parts[1])
            return
        with pytest.raises(DeviceError, match=f"{said} than the CPU. Use --backend cpu"):
            check_against_cpu(kernels, parts[1])


def test_auto_takes_the_cpu_where_the_device_is_wrong(parts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class WrongDevice(Wrong):
        fault = "mask"

        def __init__(self, mean: Any, basis: Any) -> None:
            super().__init__(mean, basis, threads=1)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr(backend, "require_device", lambda: None)
    monkeypatch.setattr(backend, "binding_versions", lambda: {"fake": "1"})
    monkeypatch.setattr(backend, "CudaKernels", WrongDevice)
    kernels = open_kernels("auto", *parts, threads=1)
    assert type(kernels) is CpuBackend
    kernels.close()
    with pytest.raises(ImmunogateError, match="other clones"):
        open_kernels("cuda", *parts)
    assert len(closed) == 2


@pytest.mark.parametrize("mode", ["sample", "select"])
def test_the_drawer_does_not_change_an_antibody(parts: tuple[Any, Any], mode: str) -> None:
    draw = np.random.default_rng(8)
    p, c = draw.random((3, 40)).astype(np.float32), draw.normal(size=(3, 40)).astype(np.float32)
    key = CloneKey(77, np.arange(3, dtype=np.uint32), np.arange(5, 8, dtype=np.uint32))
    settings = AntibodySettings(mode, clones=50, keep=3, seed=77)
    with CpuBackend(*parts, threads=1) as cpu:
        made = [make_antibodies(settings, c, p, key, 90, drawer) for drawer in (None, clones, cpu)]
    for antibodies in made[1:]:
        assert np.array_equal(antibodies.weights, made[0].weights)
        assert np.array_equal(antibodies.winners, made[0].winners)
