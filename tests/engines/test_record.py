"""Side-cars, where they lie, and every reason for which an engine is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle
from immunogate.engines import store
from immunogate.engines.compare import check, differences
from immunogate.engines.machine import driver_release, l4t_release
from immunogate.engines.messages import MOST_KEPT, Messages
from immunogate.engines.record import EngineError, EngineRecord, Flags, Machine, Profile
from immunogate.errors import UsageError
from immunogate.files import sha256_of_bytes

PLAN = b"an engine"
ONNX = "a" * 64
MACHINE = Machine("10.3.0", "12.6", "540.4.0", "8.7", "Orin", "Linux", "aarch64", "36.4.3")
SIZES = tuple(Profile((n, 3, 112, 96), (n, 3, 112, 96), (n, 3, 112, 96)) for n in (1, 2))
RECORD = EngineRecord(
    "recogniser", "model", "b" * 64, "recogniser.onnx", ONNX, "fp16", "face", SIZES, Flags(workspace_mib=64), MACHINE,
    sha256_of_bytes(PLAN), len(PLAN), 12.5, "2026-01-01T00:00:00+00:00", "0.1.0",
)  # fmt: skip


def test_a_side_car_is_read_as_it_was_written() -> None:
    assert EngineRecord.from_json(RECORD.to_json(), "x") == RECORD
    plain = json.loads(RECORD.to_json())
    assert plain["machine"]["l4t"] == "36.4.3"
    assert plain["profiles"][1]["opt"] == [2, 3, 112, 96]


def _changed(path: str, value: Any) -> str:
    data = json.loads(RECORD.to_json())
    *outer, last = path.split(".")
    place = data
    for part in outer:
        place = place[int(part) if part.isdigit() else part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is no side-car of an engine"),
        (_changed("schema", 2), "has version 2, this release reads version 1"),
        (_changed("schema", ...), "has version None"),
        (_changed("machine.driver", ...), "not those expected: driver"),
        (_changed("extra", 1), "not those expected: extra"),
        (_changed("engine_bytes", "9"), "expected int, got str"),
        (_changed("engine_bytes", True), "expected int, got bool"),
        (_changed("profiles", {}), "expected a list, got dict"),
        (_changed("profiles.0.min", [1, "2"]), "expected int, got str"),
        (_changed("flags.workspace_mib", "64"), "expected int or NoneType, got str"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_side_car_is_refused(text: str, words: str) -> None:
    with pytest.raises(EngineError, match=rf"side\.json.*{words}.*immunogate build"):
        EngineRecord.from_json(text, "side.json")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Machine)])
def test_every_field_of_the_machine_is_compared_and_named(field: str) -> None:
    other = replace(MACHINE, **{field: "9.9"})
    (found,) = differences(RECORD, ONNX, other)
    assert (found.field, found.built, found.here) == (field, getattr(MACHINE, field), "9.9")
    with pytest.raises(EngineError, match=rf"e\.engine does not fit: {field}: built with .*, here is 9\.9\. Build it"):
        check(RECORD, "e.engine", ONNX, other)


def test_an_engine_of_another_network_is_named_first() -> None:
    found = differences(RECORD, "c" * 64, replace(MACHINE, driver=""))
    assert [item.field for item in found] == ["onnx_sha256", "driver"]
    assert str(found[1]) == "driver: built with 540.4.0, here is none"
    check(RECORD, "e", ONNX, MACHINE)


def test_engines_for_other_gpus_too() -> None:
    ampere = replace(RECORD, flags=Flags(hardware_compatible="ampere+"))
    same = replace(RECORD, flags=Flags(hardware_compatible="sameComputeCapability"))
    another = replace(MACHINE, device_name="RTX 4090", compute_capability="8.9")
    old = replace(MACHINE, device_name="T4", compute_capability="7.5")
    larger = replace(MACHINE, device_name="AGX Orin")
    assert not differences(ampere, ONNX, another)
    assert not differences(ampere, ONNX, replace(another, compute_capability="12.0"))
    assert [item.field for item in differences(ampere, ONNX, old)] == ["compute_capability"]
    assert not differences(same, ONNX, larger)
    assert [item.field for item in differences(same, ONNX, another)] == ["compute_capability"]
    assert [item.field for item in differences(RECORD, ONNX, larger)] == ["device_name"]


def test_profiles_admit_what_lies_between() -> None:
    profile = Profile((1, 3, 32, 32), (1, 3, 384, 640), (1, 3, 640, 640))
    assert profile.admits((1, 3, 640, 32))
    for shape in ((1, 3, 672, 640), (1, 3, 31, 64), (2, 3, 64, 64), (3, 64, 64)):
        assert not profile.admits(shape)


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "engines"
    assert store.read_record(folder, "recogniser") is None
    path = store.write_engine(folder, PLAN, RECORD)
    assert path.name == "recogniser.engine"
    assert sorted(item.name for item in folder.iterdir()) == ["recogniser.engine", "recogniser.engine.json"]
    assert folder.stat().st_mode & 0o077 == 0
    assert store.read_record(folder, "recogniser") == RECORD
    assert store.read_plan(folder, RECORD) == PLAN


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing, its side-car is there"),
        (b"an engine and more", "has 18 bytes, its side-car says 9"),
        (b"an Engine", "does not have the hash in its side-car.*do not use it"),
    ],
)
def test_a_damaged_engine_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = store.write_engine(tmp_path, PLAN, RECORD)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(EngineError, match=words):
        store.read_plan(tmp_path, RECORD)


def test_a_side_car_of_another_network_is_refused(tmp_path: Path) -> None:
    store.write_engine(tmp_path, PLAN, RECORD)
    (tmp_path / "recogniser.engine.json").rename(tmp_path / "analyzer.engine.json")
    with pytest.raises(EngineError, match="side-car of another network: recogniser"):
        store.read_record(tmp_path, "analyzer")


@pytest.mark.parametrize("what", ["", "recogniser.engine", "recogniser.engine.json"])
def test_what_everybody_may_write_is_not_trusted(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "engines"
    store.write_engine(folder, PLAN, RECORD)
    (folder / what).chmod(0o777)
    read = store.read_plan if what == "recogniser.engine" else lambda where, _: store.read_record(where, "recogniser")
    with pytest.raises(EngineError, match=r"can be written by every user.*Run: chmod o-w"):
        read(folder, RECORD)


def test_what_belongs_to_another_user_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_engine(tmp_path, PLAN, RECORD)
    if os.getuid() == 0:
        os.chown(tmp_path / "recogniser.engine", 12345, 0)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(EngineError, match="belongs to another user"):
        store.read_plan(tmp_path, RECORD)


def test_a_folder_that_can_not_be_made_is_a_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"can not be made.*--out FOLDER"):
        store.write_engine(tmp_path / "file" / "engines", PLAN, RECORD)


def test_the_folder_is_of_the_networks_and_the_gpu(tiny_bundle: Bundle) -> None:
    folder = store.engines_folder(tiny_bundle, "8.7")
    assert folder.name.startswith("tiny-")
    assert folder.name.endswith("-sm87")
    assert folder != store.engines_folder(tiny_bundle, "8.9")
    calibrated = replace(tiny_bundle, sha256="0" * 64, manifest=replace(tiny_bundle.manifest, calibration=None))
    assert store.engines_folder(calibrated, "8.7") == folder, "a calibration does not cost a build"
    files = dict(tiny_bundle.manifest.files)
    files["detector.onnx"] = replace(files["detector.onnx"], sha256="1" * 64)
    exchanged = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, files=files))
    assert store.engines_folder(exchanged, "8.7") != folder
    odd = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, model_id="../../etc/x y"))
    assert store.engines_folder(odd, "8.7").parent == folder.parent


def test_the_releases_of_driver_and_jetson(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    release, text, jetson = (tmp_path / name for name in ("version", "text", "nv_tegra_release"))
    release.write_text("580.65.06\n")
    text.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Release Build\n")
    jetson.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n")
    assert driver_release(release, nowhere) == "580.65.06"
    assert driver_release(nowhere, text) in ("570.86.10",)
    assert driver_release(nowhere, nowhere) == ""
    assert l4t_release(jetson) == "36.4.3"
    assert l4t_release(nowhere) == ""


def test_errors_are_told_before_warnings_and_only_the_newest_are_kept() -> None:
    messages = Messages()
    for number in range(MOST_KEPT + 5):
        messages.add("WARNING", f"w{number}")
    messages.add("INFO", "nothing")
    assert messages.take_errors().startswith("w5; w6")
    messages.add("WARNING", "careful")
    messages.add("ERROR", "broken\n  in two")
    assert messages.take_errors() == "broken in two"
    assert messages.take_errors() == "it gives no reason"
