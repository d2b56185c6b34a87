"""Fetches one pinned file over https: resumable, checked before it gets its name, and never more than was pinned.

What has come so far lies in a hidden ``.part`` file beside the target, with the server's entity tag in another. The
next try asks for the rest (RFC 9110, Range and If-Range); a server that does not know ranges, or whose file has
changed, sends the whole, and the file begins anew. Proxies are taken from the environment, as urllib does it.
"""

from __future__ import annotations

import http.client
import logging
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from immunogate import __version__
from immunogate.errors import ImmunogateError, UsageError
from immunogate.files import sha256_of_file, written_whole
from immunogate.partial_file import PartialFile
from immunogate.recipes import Recipe, is_safe

_log = logging.getLogger(__name__)

BLOCK = 1 << 16
Report = Callable[[int], None]
"""Called with the bytes that are there so far; they may become fewer when a file begins anew."""


class DownloadError(ImmunogateError):
    """A file could not be fetched, or is not what was pinned."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        timeout: seconds without a byte after which a connection counts as dead.
        tries: tries in a row that bring nothing before giving up; one that brings something starts the count anew.
        pause: seconds before the second try, doubled each time, 30 at most.
    """

    timeout: float = 30.0
    tries: int = 5
    pause: float = 1.0


class _TryAgainError(Exception):
    """A try that failed in a way that another may not; its text says why."""


class _OtherFileError(Exception):
    """The part that is there does not go with what the server has: begin anew."""


def fetch(
    recipe: Recipe, folder: Path, report: Report = lambda done: None, patience: Patience | None = None
) -> tuple[Path, bool]:
    """Bring a recipe's file into a folder.

    Args:
        recipe: what to fetch.
        folder: where to; made where it is not there.
        report: told of every block.
        patience: with the server.

    Returns:
        The file's path, and whether anything had to be fetched: a file that is there and has the hash is kept.

    Raises:
        UsageError: another file has the name, the folder can not be written, or the disk is full.
        DownloadError: the server can not be reached, or what it has is not what was pinned.
    """
    target = folder / recipe.file
    if is_installed(recipe, target):
        return target, False
    part = PartialFile(folder / f".{recipe.file}.{recipe.sha256[:16]}.part")
    with _writing(folder), part.held():
        _expect_room(folder, recipe.bytes - part.size())
        resumed = part.size() > 0
        _bring(recipe, part, report, patience or Patience())
        if sha256_of_file(part.path) != recipe.sha256 and resumed:
            part.clear()  # the beginning was of another file: once more from the start
            _bring(recipe, part, report, patience or Patience())
        found = sha256_of_file(part.path)
        if found != recipe.sha256:
            part.clear()
            raise DownloadError(
                f"what {recipe.url} sent is not {recipe.name}: expected sha256 {recipe.sha256}, got {found}",
                "It was thrown away. Do not use it; report this to the project",
            )
        part.become(target)
    return target, True


def copy_from(recipe: Recipe, source: Path, folder: Path) -> tuple[Path, bool]:
    """The same from a file on this machine, for gates without a network.

    Raises:
        UsageError: the file can not be read, or as `fetch`.
        DownloadError: it is not what was pinned.
    """
    target = folder / recipe.file
    if is_installed(recipe, target):
        return target, False
    if not source.is_file():
        raise UsageError(f"there is no file {source}", "Name the file that you brought")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as temporary:
            shutil.copyfile(source, temporary)
            found = sha256_of_file(temporary)  # of the bytes that stay, not of those that were looked at
            if found != recipe.sha256:
                raise DownloadError(f"{source} is not {recipe.name}: expected sha256 {recipe.sha256}, got {found}")
    return target, True


def is_installed(recipe: Recipe, target: Path) -> bool:
    """Whether the file is there, with its hash.

    Raises:
        UsageError: something else has its name.
    """
    if not target.exists():
        return False
    if target.is_file() and target.stat().st_size == recipe.bytes and sha256_of_file(target) == recipe.sha256:
        return True
    raise UsageError(f"{target} is there, and is not {recipe.name} or is damaged", "Remove it, and try again")


def _bring(recipe: Recipe, part: PartialFile, report: Report, patience: Patience) -> None:
    """Try until the part is as long as it has to be."""
    failures, pause, most = 0, patience.pause, part.size()
    while part.size() != recipe.bytes:
        try:
            _try_once(recipe, part, report, patience.timeout)
            continue
        except _OtherFileError:
            part.clear()
            why = "the file on the server has changed"
        except _TryAgainError as error:
            why = str(error)
        if part.size() > most:  # than ever before, or a server could keep this going for ever
            failures, pause, most = 0, patience.pause, part.size()
        failures += 1
        if failures >= patience.tries:
            raise DownloadError(
                f"{recipe.url} can not be fetched: {why} ({part.size():,} of {recipe.bytes:,} bytes are here)",
                "Try again later, it goes on where it stopped; or bring the file and give --from FILE",
            )
        _log.warning("%s: %s; trying again", recipe.name, why)
        time.sleep(min(pause, 30.0))
        pause *= 2


def _try_once(recipe: Recipe, part: PartialFile, report: Report, timeout: float) -> None:
    """One request, read to its end.

    Raises:
        _TryAgainError: the connection failed or ended early.
        _OtherFileError: the part is of another file.
        DownloadError: the server has something else, or refuses.
    """
    if part.size() > recipe.bytes:
        raise _OtherFileError
    with _open(recipe, part, timeout) as answer:
        _expect_fitting(recipe, part, answer)
        with part.path.open("ab") as stream:
            for block in _blocks(answer):
                if stream.tell() + len(block) > recipe.bytes:
                    stream.truncate(0)
                    raise DownloadError(f"{recipe.url} sends more than the {recipe.bytes:,} bytes pinned", _NOT_IT)
                stream.write(block)
                report(stream.tell())
    if part.size() < recipe.bytes:
        raise _TryAgainError("the connection ended early")


_NOT_IT = "It is not the file that was pinned: report this to the project"


def _open(recipe: Recipe, part: PartialFile, timeout: float) -> Any:
    headers = {"User-Agent": f"immunogate/{__version__}", "Accept-Encoding": "identity"}
    if part.size():
        headers["Range"] = f"bytes={part.size()}-"
        if part.tag():
            headers["If-Range"] = part.tag()
    request = urllib.request.Request(recipe.url, headers=headers)  # noqa: S310 (the recipe has seen to the scheme)
    try:
        return urllib.request.build_opener(_SafeRedirects()).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _OtherFileError from error
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _TryAgainError(f"the server says {error.code} {error.reason}") from error
        raise DownloadError(f"{recipe.url}: the server says {error.code} {error.reason}", _OFFLINE) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{recipe.url}: the server's certificate does not hold: {reason}", _OFFLINE) from error
        raise _TryAgainError(str(reason) or type(error).__name__) from error


_OFFLINE = "Bring the file from elsewhere and give --from FILE"


def _expect_fitting(recipe: Recipe, part: PartialFile, answer: Any) -> None:
    """Check the answer's headers before a byte is written; an answer with the whole file empties the part."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{recipe.url} sends the file encoded, which was not asked for", _NOT_IT)
    if answer.status == http.client.PARTIAL_CONTENT:
        stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not stated or int(stated[1]) != part.size() or stated[2] not in ("*", str(recipe.bytes)):
            raise _OtherFileError
        return
    if answer.status != http.client.OK:
        raise DownloadError(f"{recipe.url}: the server says {answer.status}", _OFFLINE)
    stated_length = answer.headers.get("Content-Length")
    if stated_length is not None and stated_length.strip() != str(recipe.bytes):
        raise DownloadError(f"{recipe.url} has {stated_length} bytes, pinned are {recipe.bytes:,}", _NOT_IT)
    part.begin(answer.headers.get("ETag"))


def _blocks(answer: Any) -> Iterator[bytes]:
    """What comes, as it comes."""
    while True:
        try:
            block: bytes = answer.read1(BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgainError(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect away from https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse plain http, but on this machine when it began there."""
        began_here = req.full_url.startswith("http:")
        if not is_safe(newurl) or (newurl.startswith("http:") and not began_here):
            raise DownloadError(f"{req.full_url} leads to {newurl}, which is not https", _OFFLINE)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _expect_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(f"{folder} has {free:,} bytes free, {needed:,} are needed", "Make room, or give --to FOLDER")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Errors of the disk in our own words; those of the network have been turned before they come here."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{folder} can not be written: {error.strerror or error}", "Give --to FOLDER") from error
