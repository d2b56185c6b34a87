"""``immunogate config``: look at a file of settings before a gate depends on it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from immunogate.cli.common import add_json, print_json
from immunogate.config import Config, load_config


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("config", help="check a file of settings for immunogate run --config")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="read a file of settings and say what it sets",
        description="Reads the file and checks each field, address and range. Nothing is opened: no camera is asked.",
    )
    check.add_argument("file", type=Path, help="the settings, TOML")
    add_json(check)
    check.set_defaults(run=check_file)


def check_file(arguments: argparse.Namespace) -> int:
    """Read, check, and show without passwords."""
    config = load_config(arguments.file)
    shown = _shown(config)
    if arguments.json:
        print_json(shown)
        return 0
    print(f"{config.path}: in order")
    print(f"  gate: {_words(shown['gate'])}")
    for name, camera in shown["cameras"].items():
        print(f"  {name}: {_words(camera)}")
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _shown(config: Config) -> dict[str, Any]:
    from immunogate.cli.run_cameras import patience_of
    from immunogate.runtime.camera import redact
    from immunogate.runtime.camera.opening import order_for

    cameras = {}
    for name, camera in config.cameras.items():
        order_for(camera.uri, patience_of(camera), fps_cap=camera.fps_cap, transport=camera.rtsp_transport)
        cameras[name] = {"uri": redact(camera.uri), **camera.shown()}
    gate = {name: str(value) if isinstance(value, Path) else value for name, value in vars(config.gate).items()}
    return {
        "file": str(config.path),
        "gate": {name: value for name, value in gate.items() if value is not None},
        "cameras": cameras,
        "warnings": list(config.warnings),
    }


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "all as usual"
