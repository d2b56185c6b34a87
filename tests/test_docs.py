"""What the documents say is there, is there: links, pictures, anchors, commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from immunogate.cli import build_parser

ROOT = Path(__file__).parents[1]
HIDDEN = ("out", "dist", "build", "node_modules")

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in HIDDEN for part in path.relative_to(ROOT).parts)
)
_CODE = re.compile(r"^(```|~~~).*?^\1|^ {4}.*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def _text(document: Path) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def _links(text: str) -> list[str]:
    """Targets of links and pictures, without those that lead elsewhere."""
    return [target for target in _LINK.findall(_CODE.sub("", text)) if not _SCHEME.match(target)]


def _anchors(text: str) -> set[str]:
    """Names that headings get on GitHub."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", _CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands(text: str) -> list[str]:
    """Lines that call the command line in code blocks, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```|((?:^ {4}[^\n]*\n)+)", joined, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in "".join(block).splitlines()]
    return [line for line in lines if line.startswith("immunogate ")]


def test_the_readers_of_this_test_work() -> None:
    text = (
        "# A title, with `code`\n[a](b.md#c) ![d](<e.png>) [f](https://g) `[h](i)`\n\n"
        "    immunogate doctor \\\n      --json\n"
    )
    assert _links(text) == ["b.md#c", "e.png"]
    assert "a-title-with-" in _anchors(text) or "a-title-with" in _anchors(text)
    assert _commands(text) == ["immunogate doctor  --json"]
    assert _commands("```sh\n$ immunogate demo\n```\nimmunogate is a gate\n") == ["immunogate demo"]


def test_there_is_a_readme() -> None:
    assert Path("README.md") in DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=Path.as_posix)
def test_every_link_and_picture_leads_somewhere(document: Path) -> None:
    missing = []
    for target in _links(_text(document)):
        path, _, anchor = unquote(target).partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        if not file.exists() or (
            anchor and file.suffix == ".md" and anchor not in _anchors(file.read_text(encoding="utf-8"))
        ):
            missing.append(target)
    assert not missing


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_names_the_commands_that_do_all(command: str) -> None:
    assert re.search(rf"^    {command}\b|^{command}\b", _text(Path("README.md")), re.MULTILINE)
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def _documented() -> list[tuple[str, str]]:
    return [(document.as_posix(), line) for document in DOCUMENTS for line in _commands(_text(document))]


@pytest.mark.parametrize(("document", "line"), _documented())
def test_every_command_in_the_documents_is_one(document: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    ends = [words.index(word) for word in (">", "|", ";", "&&", "2>") if word in words]
    arguments = build_parser().parse_args(words[1 : min(ends, default=len(words))])
    assert callable(arguments.run), document


def test_the_readme_shows_the_commands_of_the_journey() -> None:
    shown = {line.split()[1] for line in _commands(_text(Path("README.md")))}
    assert {"train", "export", "enroll", "run"} <= shown
