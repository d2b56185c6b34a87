"""How long a camera is waited for, and how long before it is opened again."""

from __future__ import annotations

import math
import platform
import random
import zlib
from dataclasses import dataclass

from immunogate.errors import UsageError


@dataclass(frozen=True)
class Patience:
    """Times in seconds of the monotonic clock.

    Attributes:
        open_s: longest that opening a source may take.
        read_s: longest wait for the next frame; above the interval between key frames of most cameras, as a decoder
            that joins a stream in between shows nothing before the next one.
        slack_s: how much longer the watchdog waits than the worker itself, which can say what is wrong.
        start_s: longest that the worker's own start may take, on top of opening; a busy machine starts Python slowly.
        first_delay_s: before the first attempt to reopen.
        longest_delay_s: that the delay doubles up to.
        jitter: share of each delay, in [0, 1), that is drawn: cameras that went away together do not all come back in
            the same instant. A delay is never longer for it.
        grace_s: for a worker that was asked to end before it is killed; some cameras allow few connections, and one
            that is not taken down counts for a minute.
        kill_s: for a killed worker to be gone. A driver that hangs in the kernel may keep it for ever.

    Raises:
        UsageError: a time is not above 0, or the jitter is not in [0, 1).
    """

    open_s: float = 5.0
    read_s: float = 10.0
    slack_s: float = 2.0
    start_s: float = 20.0
    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    jitter: float = 0.25
    grace_s: float = 1.0
    kill_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1:
            raise UsageError(f"jitter must be in [0, 1), got {self.jitter}")
        for name, value in vars(self).items():
            if name != "jitter" and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} must be above 0 seconds, got {value}")


class Backoff:
    """The delays before a camera is opened again: doubled each time up to the longest, drawn a little shorter.

    Args:
        patience: the delays.
        seed: of what is drawn.
    """

    def __init__(self, patience: Patience, seed: int) -> None:
        self._patience = patience
        self._draw = random.Random(seed)
        self._delay_s = patience.first_delay_s

    def next_s(self) -> float:
        """Seconds to wait now."""
        delay_s = min(self._delay_s, self._patience.longest_delay_s)
        self._delay_s = min(2 * delay_s, self._patience.longest_delay_s)
        return delay_s * (1 - self._patience.jitter * self._draw.random())

    def reset(self) -> None:
        """Begin with the shortest delay again: a frame has come."""
        self._delay_s = self._patience.first_delay_s


def usual_seed(name: str) -> int:
    """A seed of this machine and camera: the same each time here, another one elsewhere."""
    return zlib.crc32(f"{platform.node()} {name}".encode())
