"""Addresses of cameras: taking them apart, and showing them without their credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from immunogate.errors import UsageError

KNOWN = (
    "0, /dev/video0, v4l2:///dev/video0, a path, file://PATH, rtsp://HOST/PATH, rtsps://HOST/PATH, csi://0, "
    "gst:PIPELINE, synthetic://"
)
"""The addresses that `open_camera` understands, as shown in its errors."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Greedy up to the last @: an unescaped @ or / in a password must not leave half of it in a log.
_USERINFO = re.compile(r"^(?!file:)([a-z][a-z0-9+.-]*:/{0,2}).*@", re.DOTALL | re.IGNORECASE)
_EMBEDDED_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@")
_SECRET_VALUE = re.compile(
    r"((?:user(?:name|[-_]id)?|login|pass(?:word|wd|phrase)?|user[-_]pw|pwd|secret|token|auth|api[-_]?key)"
    r"\s*=\s*)(\"[^\"]*\"|'[^']*'|[^&;\s]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Address:
    """A camera's address, taken apart.

    Attributes:
        scheme: path, v4l2, rtsp, csi, gst or synthetic.
        target: what follows: a path, the whole RTSP address, a sensor's number, a pipeline.
        name: the address without credentials.
        options: what followed the question mark of a v4l2, csi or synthetic address.
    """

    scheme: str
    target: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def expect_options(self, *known: str) -> None:
        """Raise UsageError where an option is not one of ``known``."""
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            takes = ", ".join(known) or "none"
            raise UsageError(f"{self.name}: unknown option {unknown[0]!r}", f"It takes: {takes}")

    def integer(self, option: str, default: int, low: int, high: int) -> int:
        """The value of an option as an integer in [low, high]; UsageError where it is not."""
        text = self.options.get(option, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise UsageError(f"{self.name}: {option}={text} is not a whole number from {low} to {high}")
        return int(text)


def redact(uri: str) -> str:
    """A camera's address for logs and names: user and password become ``***``.

    ``rtsp://user:pass@host/path`` becomes ``rtsp://***@host/path``. Values that look like credentials by their
    key (``password=``, ``token=``, GStreamer's ``user-pw=``) become ``***`` as well. It rather hides too much than
    too little: everything up to the last ``@`` goes.
    """
    hidden = _EMBEDDED_USERINFO if uri.startswith("gst:") else _USERINFO
    return _SECRET_VALUE.sub(r"\1***", hidden.sub(r"\1***@", uri))


def parse_address(uri: str) -> Address:
    """Take a camera's address apart; nothing is opened.

    Raises:
        UsageError: the address is empty, its scheme is unknown, or it does not fit its scheme.
    """
    name = redact(uri)
    if not uri.strip() or "\0" in uri:
        raise UsageError(f"{name!r} is not the address of a camera", f"Known are: {KNOWN}")
    if re.fullmatch(r"[0-9]{1,4}", uri):
        return Address("v4l2", f"/dev/video{uri}", name)
    if re.fullmatch(r"/dev/video[0-9]+", uri):
        return Address("v4l2", uri, name)
    if uri.startswith("gst:"):
        return Address("gst", uri.removeprefix("gst:").strip(), name)
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return Address("path", uri, name)
    return _with_scheme(scheme.group(1).lower(), uri[scheme.end() :], uri, name)


def _with_scheme(scheme: str, rest: str, uri: str, name: str) -> Address:
    if scheme == "file":
        return Address("path", _local_path(rest, name), name)
    if scheme in ("rtsp", "rtsps"):
        _expect_host(uri, name)
        return Address("rtsp", uri, name)
    if scheme in ("v4l2", "csi", "synthetic"):
        target, _, query = rest.partition("?")
        return Address(scheme, target, name, dict(parse_qsl(query, keep_blank_values=True)))
    raise UsageError(f"{name}: {scheme}:// is not a known kind of camera", f"Known are: {KNOWN}")


def _local_path(rest: str, name: str) -> str:
    host, slash, path = rest.partition("/")
    if host in ("", "localhost") and slash:
        return unquote("/" + path)
    raise UsageError(f"{name} does not name a file of this machine", "Write file:///PATH with three slashes")


def _expect_host(uri: str, name: str) -> None:
    try:
        parts = urlsplit(uri)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"{name} names no host or no valid port",
            "Write rtsp://USER:PASSWORD@HOST:PORT/PATH and percent-encode special characters of the password",
        )
