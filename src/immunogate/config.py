"""The settings of a gate and its cameras, read from one TOML file and checked whole before anything is opened.

    [gate]                       # of the gate as a whole; may be left out
    bundle = "door.bundle"
    gallery = "gallery.db"

    [every_camera]               # of all cameras, unless one says otherwise; may be left out
    fps_cap = 10

    [cameras.front]              # at least one; its name goes into every decision
    uri = "rtsp://user:password@10.0.0.7/main"
    threshold = 0.42

Paths are relative to the file. A field that is unknown, of another type or out of its range is named with its line.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from immunogate.errors import InputError
from immunogate.files import read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 1 << 20
"""Most bytes of a file of settings."""

Transport = Literal["tcp", "udp"]

RANGES: Mapping[str, tuple[float, float]] = {
    "threshold": (-1.0, 1.0),
    "alarm": (0.0, 2.0),
    "margin": (0.0, 2.0),
    "confirm_frames": (1, 1000),
    "max_decision_age_ms": (1.0, 60_000.0),
    "min_eye_distance": (0.0, 10_000.0),
    "detector_size": (32, 8192),
    "fps_cap": (0.01, 1000.0),
    "open_timeout_s": (0.1, 600.0),
    "read_timeout_s": (0.1, 600.0),
    "fmr": (0.0, 1.0),
    "threads": (1, 64),
    "seed": (0, 2**64 - 1),
}
"""Least and greatest value of each number."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True)
class CameraSettings:
    """One camera. What is None is left to the gate, and there to the bundle or the usual value.

    Attributes:
        uri: its address, see ``immunogate run --help``.
        threshold: least cosine of the purified face with a person's template.
        alarm: attack score above which a face is an alarm.
        min_eye_distance: pixels between the eyes below which a face is too small.
        detector_size: longest side for the detector in pixels.
        fps_cap: frames per second looked at, at the most.
        rtsp_transport: tcp or udp.
        open_timeout_s: longest that opening may take, in seconds.
        read_timeout_s: longest wait for a frame before it is opened again, in seconds.
    """

    uri: str
    threshold: float | None = None
    alarm: float | None = None
    min_eye_distance: float | None = None
    detector_size: int | None = None
    fps_cap: float | None = None
    rtsp_transport: Transport | None = None
    open_timeout_s: float | None = None
    read_timeout_s: float | None = None

    def __repr__(self) -> str:
        return f"CameraSettings({self.shown()})"

    def shown(self) -> dict[str, Any]:
        """What is set, but for the address, which may hold a password."""
        return {name: value for name, value in vars(self).items() if value is not None and name != "uri"}


@dataclass(frozen=True)
class GateSettings:
    """The gate as a whole. What is None is left to the command line's usual value.

    Attributes:
        bundle, gallery: paths.
        fmr: false match rate whose threshold is used.
        margin: least distance to the runner-up.
        confirm_frames: frames in a row that must agree.
        max_decision_age_ms: older decisions are a deny.
        mode, seed: inference mode, and key of drawn clones, instead of the bundle's.
        backend, runner: where faces are purified, and what runs the networks.
        threads: of each stage.
    """

    bundle: Path | None = None
    gallery: Path | None = None
    fmr: float | None = None
    margin: float | None = None
    confirm_frames: int | None = None
    max_decision_age_ms: float | None = None
    mode: str | None = None
    seed: int | None = None
    backend: str | None = None
    runner: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Config:
    """A whole file of settings.

    Attributes:
        path: of the file.
        gate: settings of the gate.
        cameras: by name, in the order of the file.
        warnings: what is allowed and unwise.
    """

    path: Path
    gate: GateSettings
    cameras: Mapping[str, CameraSettings]
    warnings: tuple[str, ...] = field(default=())


def load_config(path: Path) -> Config:
    """Read and check a file of settings; nothing that it names is opened.

    Raises:
        UsageError: the file can not be read.
        InputError: it is no TOML, or a field is wrong; says line and field.
    """
    data = read_bytes(path, LARGEST)
    try:
        text = data.decode("utf-8")
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", "Save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}", "See https://toml.io") from error
    return _Reader(path, text).config(tables)


class _Reader:
    """Checks one file and names lines in what it refuses."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def config(self, tables: dict[str, Any]) -> Config:
        self._expect_known("", tables, ("gate", "every_camera", "cameras"))
        gate = self._values("gate", self._table("gate", tables.get("gate", {})), GateSettings)
        shared = self._table("every_camera", tables.get("every_camera", {}))
        self._values("every_camera", shared, CameraSettings, without=("uri",))
        cameras = self._table("cameras", tables.get("cameras", {}))
        if not cameras:
            raise InputError(f"{self._path} names no camera", 'Add: [cameras.front] and below it uri = "rtsp://..."')
        found = {name: self._camera(name, table, shared) for name, table in cameras.items()}
        return Config(self._path, GateSettings(**gate), found, self._warnings(found))

    def _camera(self, name: str, table: Any, shared: dict[str, Any]) -> CameraSettings:
        where = f"cameras.{name}"
        if not _NAME.fullmatch(name):
            raise self._wrong(where, "", "the name is not 1 to 64 letters, digits, spaces, dots, dashes, underscores")
        own = self._table(where, table)
        address = own.pop("uri_env", None)
        if (address is None) == ("uri" not in own):
            raise self._wrong(where, "", "expected uri, or uri_env with the name of a variable that holds it")
        if address is not None:
            own["uri"] = self._from_environment(where, address)
        return CameraSettings(**self._values(where, shared | own, CameraSettings))

    def _from_environment(self, where: str, name: Any) -> str:
        value = os.environ.get(name) if isinstance(name, str) else None
        if not value:
            raise self._wrong(where, "uri_env", f"the environment has no {name!r}")
        return value

    def _values(self, where: str, table: dict[str, Any], kind: type, without: tuple[str, ...] = ()) -> dict[str, Any]:
        known = {one.name: str(one.type) for one in fields(kind) if one.name not in without}
        self._expect_known(where, table, tuple(known))
        return {name: self._value(where, name, value, known[name]) for name, value in table.items()}

    def _value(self, where: str, name: str, value: Any, kind: str) -> Any:
        if kind.startswith(("float", "int")):
            return self._number(where, name, value, whole=kind.startswith("int"))
        if not isinstance(value, str) or not value:
            raise self._wrong(where, name, f"expected text, got {_named(value)}")
        if kind.startswith("Transport") and value not in get_args(Transport):
            raise self._wrong(where, name, f"expected one of {', '.join(get_args(Transport))}, got {value!r}")
        if kind.startswith("Path"):
            return self._path.parent / Path(value).expanduser()
        return value

    def _number(self, where: str, name: str, value: Any, *, whole: bool) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise self._wrong(where, name, f"expected a {'whole ' if whole else ''}number, got {_named(value)}")
        low, high = RANGES[name]
        if not low <= value <= high:  # also refuses NaN
            raise self._wrong(where, name, f"must be in {low:g} .. {high:g}, got {value}")
        return value if whole else float(value)

    def _table(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(where, "", f"expected a table, got {_named(value)}")
        return dict(value)

    def _expect_known(self, where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
        for name in table:
            if name not in known:
                raise self._wrong(where, name, f"there is no such field; known are {', '.join(known)}")

    def _wrong(self, where: str, name: str, what: str) -> InputError:
        dotted = ".".join(part for part in (where, name) if part)
        line = self._line_of(where, name)
        return InputError(
            f"{self._path}{f', line {line}' if line else ''}: {dotted}: {what}", "Mend it and check again"
        )

    def _line_of(self, where: str, name: str) -> int | None:
        """The line of a field, of its table where it stands inline, None where neither is found."""
        table, header = "", None
        for number, line in enumerate(self._lines, 1):
            if found := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
                table = re.sub(r"[\"']|\s*(?=\.)|(?<=\.)\s*", "", found.group(1))
                header = number if table in (where, where or name) else header
            elif name and table == where and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
                return number
        return header

    def _warnings(self, cameras: Mapping[str, CameraSettings]) -> tuple[str, ...]:
        secret = any(re.match(r"[a-z0-9+.-]+://[^/]*@", camera.uri, re.IGNORECASE) for camera in cameras.values())
        if secret and self._path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            return (f"{self._path} holds a password and others may read it: chmod 600 {self._path}",)
        return ()


def _named(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date")
