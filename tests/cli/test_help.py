"""Every command explains itself, without loading anything heavy to do so."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from immunogate import __version__
from immunogate.cli import build_parser

Command = Callable[..., Any]


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every parser by its words, ``calibrate threshold`` for example, found by walking the real one."""
    found: dict[str, argparse.ArgumentParser] = {}

    def walk(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    walk(child, (*words, name))

    walk(build_parser(), ())
    return found


ALL = commands()


def test_every_command_of_the_project_is_there() -> None:
    assert {words.split()[0] for words in ALL if words} == {
        *(
            "config",
            "demo",
            "models",
            "train",
            "export",
            "verify",
            "inspect",
            "bundle",
            "sbom",
            "calibrate",
            "enroll",
            "evaluate",
            "gallery",
            "run",
            "audit",
            "replay",
            "doctor",
            "build",
            "evaluate",
            "profile",
            "report",
        )
    }


@pytest.mark.parametrize("words", ALL)
def test_help_goes_to_stdout_and_exits_0(words: Any, immunogate: Command) -> None:
    done = immunogate(*words.split(), "--help")
    assert done.status == 0
    assert done.err == ""
    assert done.out.startswith(f"usage: immunogate {words}".rstrip())


@pytest.mark.parametrize("words", ALL)
def test_everything_that_can_be_given_is_explained(words: Any) -> None:
    for action in ALL[words]._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, f"{words} {action.dest} has no help"


@pytest.mark.parametrize("words", ALL)
def test_every_default_is_in_the_help(words: Any) -> None:
    for action in ALL[words]._actions:
        if action.default in (None, argparse.SUPPRESS, False) or action.dest == "out":
            continue
        stated = re.search(r"default:? ([^\s,);]+)", action.help or "")
        assert stated, f"{words} --{action.dest} does not state its default {action.default}"
        text = stated.group(1)
        if isinstance(action.default, int | float):
            assert float(text) == action.default, f"{words} --{action.dest}"
        elif action.default != "not stated":
            assert text == str(action.default), f"{words} --{action.dest}"


def test_units_are_named(immunogate: Command) -> None:
    shown = " ".join(immunogate("run", "--help").out.split())
    for phrase in ("default 500 ms", "default 640 pixels", "false match rate"):
        assert phrase in shown


def test_help_says_that_purification_is_no_liveness_detection(immunogate: Command) -> None:
    for words in ((), ("run",)):
        assert "liveness" in " ".join(immunogate(*words, "--help").out.split())


def test_version(immunogate: Command) -> None:
    done = immunogate("--version")
    assert (done.status, done.out) == (0, f"immunogate {__version__}\n")


@pytest.mark.parametrize(
    "words",
    [(), ("bogus",), ("config",), ("gallery",), ("train",), ("doctor", "--bogus"),
     ("run", "--bundle", "b", "--gallery", "g", "--source", "0", "--threshold", "high")],
)  # fmt: skip
def test_wrong_use_is_status_2_and_names_the_usage(words: Any, immunogate: Command) -> None:
    done = immunogate(*words)
    assert done.status == 2
    assert done.err.startswith("usage: immunogate")
    assert done.out == ""


def test_module_and_script_are_the_same(subprocess_of_immunogate: Command) -> None:
    assert subprocess_of_immunogate("--version").out == f"immunogate {__version__}\n"
    assert subprocess_of_immunogate("nonsense").err.startswith("usage: immunogate ")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from immunogate.cli import build_parser; build_parser().format_help(); "
        "print(*{'torch', 'onnx', 'onnxruntime', 'cv2', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
