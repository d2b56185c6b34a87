"""The builder against a FAKE TensorRT with the surface of every supported version."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from immunogate.bundle import Bundle
from immunogate.engines.record import EngineError, Flags, Profile
from immunogate.errors import UsageError
from immunogate.export.engine.builder import EngineBuilder
from immunogate.export.engine.plan import BuildOptions, plan
from immunogate.export.engine.progress import Progress


@pytest.fixture
def recogniser(tiny_bundle: Bundle) -> Any:
    (found,) = plan(tiny_bundle, BuildOptions(("recogniser",)))
    return found


def build(trt: Any, item: Any, flags: Flags | None = None, *more: Any) -> Any:
    return EngineBuilder(trt, needs_device=False).build(item, flags or Flags(), *more)


def test_one_way_builds_with_every_version(trt: Any, tiny_bundle: Bundle) -> None:
    for item in plan(tiny_bundle, BuildOptions()):
        built = build(trt, item)
        assert built.plan.endswith(item.model)
        assert built.warnings == ("a warning of the build",)
        assert (built.timing_cache, built.foreign_cache) == (None, False)
        shapes = [tuple(tuple(part) for part in shape[1:]) for shape in trt.fake.built[-1]._profiles]
        assert shapes == [(profile.min, profile.opt, profile.max) for profile in item.profiles]


def test_what_a_version_lacks_is_left_out(make_fake: Callable[..., Any], recogniser: Any) -> None:
    """None of today's lacks these; one that is always strongly typed may come."""
    trt = make_fake("11.4", without=("NetworkDefinitionCreationFlag.STRONGLY_TYPED", "BuilderFlag.TF32"))
    assert build(trt, recogniser).plan
    assert trt.fake.built[-1]._flags == set()


def test_flags_reach_the_builder_by_name(trt: Any, recogniser: Any) -> None:
    build(trt, recogniser)
    config = trt.fake.built[-1]
    assert config._flags == set(), "TF32 is on unless it is taken away"
    assert (config.hardware_compatibility_level, config._pools, config.builder_optimization_level) == (None, {}, 3)
    build(trt, recogniser, Flags(True, "ampere+", True, 512, 5))
    config = trt.fake.built[-1]
    assert {flag.name for flag in config._flags} == {"TF32", "VERSION_COMPATIBLE"}
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert config._pools == {trt.MemoryPoolType.WORKSPACE: 512 << 20}
    assert config.builder_optimization_level == 5


def test_a_level_that_a_version_lacks_is_refused(make_fake: Callable[..., Any], recogniser: Any) -> None:
    flags = Flags(hardware_compatible="sameComputeCapability")
    build(make_fake("10.13"), recogniser, flags)
    with pytest.raises(UsageError, match=r"TensorRT 10\.3 does not know .*sameComputeCapability"):
        build(make_fake("10.3"), recogniser, flags)


def test_the_builders_own_words_are_in_the_error(trt: Any, recogniser: Any) -> None:
    trt.fake.refused = "Could not find any implementation for node /conv1"
    with pytest.raises(
        EngineError, match=r"could not build recogniser\.onnx: Could not find any .* /conv1\. If memory"
    ):
        build(trt, recogniser)


def test_the_parsers_own_words_are_in_the_error(trt: Any, recogniser: Any) -> None:
    with pytest.raises(EngineError, match=r"does not accept recogniser\.onnx: In node 3: \w+ \(node 3: Conv /first\)"):
        build(trt, replace(recogniser, model=b"no network"))


def test_another_input_than_planned_is_refused(trt: Any, recogniser: Any) -> None:
    with pytest.raises(EngineError, match=r"sees other inputs in recogniser\.onnx: face; expected picture"):
        build(trt, replace(recogniser, input_name="picture"))


def test_a_profile_that_is_refused_is_named(trt: Any, recogniser: Any) -> None:
    wrong = Profile((2, 3, 112, 96), (1, 3, 112, 96), (1, 3, 112, 96))
    with pytest.raises(EngineError, match=r"refuses the shapes \(2, 3, 112, 96\).*MIN<=OPT<=MAX"):
        build(trt, replace(recogniser, profiles=(wrong,)))


def test_a_timing_cache_is_begun_and_reused(trt: Any, recogniser: Any) -> None:
    first = build(trt, recogniser, None, b"")
    assert first.timing_cache is not None
    again = build(trt, recogniser, None, first.timing_cache)
    assert (again.timing_cache, again.foreign_cache) == (first.timing_cache, False)


@pytest.mark.parametrize("foreign", [b"rubbish", b"fake timing cache of 9.9"])
def test_a_timing_cache_of_elsewhere_is_left_alone(trt: Any, recogniser: Any, foreign: bytes) -> None:
    built = build(trt, recogniser, None, foreign)
    assert (built.timing_cache, built.foreign_cache) == (None, True)
    assert built.plan


def test_asked_to_stop_it_stops_within_the_build(trt: Any, recogniser: Any) -> None:
    seen: list[float] = []

    def show(share: float, phase: str) -> None:
        seen.append(share)
        time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt):
        build(trt, recogniser, None, None, show, lambda: True)
    assert len(seen) < 3, "TensorRT was told to give up at its next step"


def test_an_interrupt_while_waiting_stops_the_build(trt: Any, recogniser: Any) -> None:
    def stop() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(trt, recogniser, None, None, lambda share, phase: time.sleep(0.1), stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("build ")]


def test_progress_is_told_as_one_share_that_never_falls(trt: Any, recogniser: Any) -> None:
    seen: list[tuple[float, str]] = []
    build(trt, recogniser, None, None, lambda share, phase: seen.append((round(share, 3), phase)))
    timing = [(0.125, "Timing"), (0.25, "Timing"), (0.375, "Timing"), (0.5, "Timing")]
    assert seen == [*timing, (0.5, "Building engine"), (1.0, "Building engine")]


def test_progress_survives_phases_that_begin_anew_or_are_unknown() -> None:
    progress = Progress()
    progress.start("all", None, 2)
    assert progress.step("all", 0)
    progress.start("part", "all", 2)
    progress.step("part", 1)
    assert progress.share() == 1.0
    progress.finish("part")
    progress.start("part", "all", 10)
    assert progress.step("part", 0)
    assert progress.share() == 1.0
    progress.step("never begun", 3)
    progress.finish("never begun")
    progress.cancelled = True
    assert not progress.step("part", 1)


def test_the_device_is_made_current_in_the_thread_that_builds(fake_machine: Any, recogniser: Any) -> None:
    EngineBuilder(fake_machine, 0).build(recogniser, Flags())
    assert fake_machine.fake.used_device == [0]
