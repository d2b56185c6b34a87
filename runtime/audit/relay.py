"""What a gate sets off when it allows: a door's relay, by a command or by a function of one's own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from typing import Protocol

from immunogate.errors import RelayError, UsageError
from immunogate.structs import Decision

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""What a command sees of the gate's environment, which may hold keys."""

LONGEST_TIMEOUT_S = 60.0


class Relay(Protocol):
    """Sets something off for an allow. `immunogate.runtime.audit.settle.Settlement` alone calls it.

    Attributes:
        name: for the record.
    """

    name: str

    def __call__(self, decision: Decision) -> None:
        """Set it off, and return when that is done.

        Raises:
            RelayError: it failed or took too long. Any other exception counts as a failure too.
        """


class CommandRelay:
    """Runs a command for each allow: an argument list, never a shell. Its output goes to stderr.

    It finds IMMUNOGATE_DECISION_ID, IMMUNOGATE_PERSON and IMMUNOGATE_CAMERA in its environment, and nothing on stdin.

    Args:
        command: one line, split as a POSIX shell would split it and otherwise taken literally.
        timeout_s: seconds after which the command and all that it started are killed.

    Raises:
        UsageError: there is no such program, or the time is out of its range.
    """

    def __init__(self, command: str, timeout_s: float = 2.0) -> None:
        if not 0 < timeout_s <= LONGEST_TIMEOUT_S:
            raise UsageError(f"on-allow-timeout must be above 0 and at most {LONGEST_TIMEOUT_S:g} s, got {timeout_s}")
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--on-allow {command!r} can not be split into words: {error}") from error
        program = shutil.which(words[0]) if words else None
        if program is None:
            raise UsageError(f"--on-allow {command!r}: there is no such program", "Give its path and its arguments")
        self.name = words[0]
        self._words = [os.path.abspath(program), *words[1:]]  # noqa: PTH100 (links are kept: many programs in one)
        self._timeout_s = timeout_s

    def __call__(self, decision: Decision) -> None:
        """Run it.

        Raises:
            RelayError: it could not be started, ended with another status than 0, or did not end in time.
        """
        seen = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        told = {
            "IMMUNOGATE_DECISION_ID": decision.decision_id,
            "IMMUNOGATE_PERSON": decision.person or "",
            "IMMUNOGATE_CAMERA": decision.camera,
        }
        try:
            process = subprocess.Popen(  # noqa: S603 (the user's own words, no shell)
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,
                env={**seen, **told},
                start_new_session=True,  # Ctrl-C is for the gate, and a timeout ends all that it started
            )
        except (OSError, ValueError) as error:  # the latter for a name with a null byte
            raise RelayError(f"{self.name} could not be started: {error}") from error
        try:
            status = process.wait(self._timeout_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise RelayError(f"{self.name} did not end within {self._timeout_s:g} s and was killed") from error
            raise
        if status != 0:
            raise RelayError(f"{self.name} ended with status {status}")
