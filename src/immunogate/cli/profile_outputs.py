"""Writes a profile into a folder, every file whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from immunogate.errors import UsageError
from immunogate.files import write_whole
from immunogate.profiling.chrome_trace import chrome_trace
from immunogate.profiling.recording import Recording
from immunogate.profiling.report_page import profile_page
from immunogate.profiling.tables import frames_csv, trtexec_times


def write_all(folder: Path, document: dict[str, Any], runs: Sequence[Recording]) -> None:
    """profile.json, frames.csv, trace.json, times.json, report.html; said on stderr.

    Raises:
        UsageError: the folder can not be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "Give --out another name")
    title = f"immunogate {document['bundle']['model_id']}"
    texts = {
        "profile.json": json.dumps(document, indent=1, allow_nan=False) + "\n",
        "frames.csv": frames_csv(runs),
        "trace.json": json.dumps(chrome_trace(runs, title), allow_nan=False),
        "times.json": json.dumps(trtexec_times(runs), indent=1, allow_nan=False) + "\n",
        "report.html": profile_page(document, runs),
    }
    for name, text in texts.items():
        write_whole(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    print(f"{folder}: {', '.join(texts)}", file=sys.stderr)
