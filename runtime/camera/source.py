"""What every camera is: a context manager that is iterated for frames and may be closed at any moment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from immunogate.structs import Frame

_CameraT = TypeVar("_CameraT", bound="Camera")


class Camera(ABC):
    """A source of frames.

    Attributes:
        name: the source's address without credentials; also `Frame.camera`.
        is_live: True where frames come at the source's own pace and are lost when nobody takes them.
        expected_frames: frames (for a folder: picture files) the source announces, None where it can not know.
        skipped: frames dropped so far because a newer one was there before the consumer asked.
        unreadable: picture files of a folder that could not be decoded, in order; empty for other sources.

    Iterating raises `CameraError` where the source delivers nothing at all or a frame above the pixel limit.
    """

    is_live: bool = False

    def __init__(self, name: str, expected_frames: int | None = None) -> None:
        self.name = name
        self.expected_frames = expected_frames
        self.skipped = 0
        self.unreadable: list[Path] = []

    @abstractmethod
    def __next__(self) -> Frame:
        """The next frame; StopIteration at the end of the source or after `close`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the source; may be called twice and from another thread, and ends an iteration under way."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __enter__(self: _CameraT) -> _CameraT:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
