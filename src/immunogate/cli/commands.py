"""Commands that consist of other commands: they show each one and run it in this process."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.faces_file import AlignedFaces


def do_command(*words: object, stdout: Any = None) -> None:
    """Show a command and run it.

    Args:
        words: what a user would type after ``immunogate``.
        stdout: a file for its results instead of this process's own output.

    Raises:
        UsageError: it ended with another status than 0.
    """
    from immunogate.cli import main

    argv = [str(word) for word in words]
    target = f" > {stdout.name}" if stdout else ""
    print(f"\n$ immunogate {shlex.join(argv)}{target}", flush=True)
    with redirect_stdout(stdout or sys.stdout):
        status = main(argv)
    if status:
        raise UsageError(f"immunogate {argv[0]} ended with {status}")


def save_faces(faces: AlignedFaces, path: Path) -> None:
    """Aligned faces as an ``.npz`` that every command reads."""
    import numpy as np

    from immunogate.files import write_whole

    texts: dict[str, Any] = {} if faces.identities is None else {"identities": faces.identities}
    write_whole(path, lambda to: np.savez(to, images=faces.images, **texts))
