"""The names of TensorRT in use are those that were looked up in its real bindings, and the fake has no others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS_OWN = {"ILogger.Severity"}
"""Of the fake alone: what a test needs to stand in for TensorRT's own callers."""


@pytest.fixture(scope="module")
def tool() -> Any:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import tensorrt_names
    finally:
        sys.path.pop(0)
    return tensorrt_names


@pytest.fixture(scope="module")
def kept(tool: Any) -> Any:
    import json

    return json.loads(tool.KEPT.read_text(encoding="utf-8"))


def test_the_kept_names_are_those_that_the_sources_use(tool: Any, kept: Any) -> None:
    used = tool.used()
    assert set(kept["names"]) == set(used), "run tools/tensorrt_names.py again"
    assert kept["looked_for"] == [name for name in used if used[name]]
    assert kept["bindings"] == tool.VERSIONS
    assert {"Builder.build_serialized_network", "IExecutionContext.execute_async_v3", "Runtime"} <= set(used)
    assert len(used) > 50


def test_every_name_is_in_every_version_or_looked_for_first(kept: Any) -> None:
    for name, versions in kept["names"].items():
        assert set(versions) == set(kept["bindings"]) or name in kept["looked_for"], name


def test_the_reader_of_sources_sees_what_it_should(tool: Any, tmp_path: Path) -> None:
    for file in tool.OBJECTS:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("", encoding="utf-8")
    source = (
        "def f(self, trt, config, plan):\n"
        "    kinds = self._trt.BuilderFlag\n"
        "    if hasattr(kinds, 'NEW') and plan.size:\n"
        "        config.set_it(kinds.OLD)\n"
        "    return trt.Deep.Name\n"
    )
    (tmp_path / "export/engine/builder.py").write_text(source, encoding="utf-8")
    found = tool.used(tmp_path)
    assert {name: found[name] for name in found if name not in tool.CALLED_BACK} == {
        "BuilderFlag": False, "BuilderFlag.NEW": True, "BuilderFlag.OLD": False, "IBuilderConfig.set_it": False,
        "Deep": False, "Deep.Name": False,
    }  # fmt: skip


def test_the_fake_has_the_names_of_its_version_and_no_others(kept: Any, make_fake: Callable[..., Any]) -> None:
    for version in kept["bindings"]:
        trt = make_fake(version)
        for name, versions in kept["names"].items():
            owner, _, attribute = name.partition(".")
            there = hasattr(trt, owner) and (not attribute or _has(getattr(trt, owner), attribute))
            assert there == (version in versions), f"{name} in {version}"
        for owner, kind in vars(trt).items():
            if isinstance(kind, type) and not hasattr(kind, "__members__"):
                for attribute in vars(kind):
                    name = f"{owner}.{attribute}"
                    assert attribute.startswith("_") or name in kept["names"] or name in PYTHONS_OWN, name


def _has(kind: Any, attribute: str) -> bool:
    """Of the class, or set by its constructor."""
    return hasattr(kind, attribute) or f"self.{attribute}" in _source(kind)


def _source(kind: Any) -> str:
    import inspect

    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
