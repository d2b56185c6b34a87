"""Every error a user can cause: what went wrong, where, and how to mend it.

The command line prints these without a traceback. Exit code 2 means wrong use (a flag, a path, a format),
1 means that the command was right and a check failed (a tampered bundle, a verification past its limit).
"""

from __future__ import annotations


class ImmunogateError(Exception):
    """Base of all errors that carry a remedy.

    Args:
        what: what went wrong and where, one sentence without a full stop.
        mend: what the user can do about it, one sentence; empty where nothing can be done.
    """

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = what
        self.mend = mend
        super().__init__(f"{what}. {mend}".strip() if mend else what)


class UsageError(ImmunogateError):
    """The command or call was wrong: a value out of range, a path that is not there, an unknown name."""

    exit_code = 2


class InputError(ImmunogateError):
    """A file or stream given by the user can not be read as what it should be."""

    exit_code = 2


class CheckpointError(InputError):
    """A training checkpoint does not fit the named architecture, or holds values that are not finite."""


class BundleError(ImmunogateError):
    """A bundle is incomplete, tampered with, or of a version this release does not know."""


class GalleryError(ImmunogateError):
    """A gallery is damaged, can not be written, or belongs to another bundle."""


class AuditError(ImmunogateError):
    """A record of decisions is damaged or was changed, can not be written, or is not one."""


class RelayError(ImmunogateError):
    """What a gate was to set off after an allow failed, or did not end in time."""


class CameraError(ImmunogateError):
    """A camera or video can not be opened or stopped delivering frames."""


class MissingExtraError(UsageError):
    """An optional dependency is needed for this command.

    Args:
        package: the import that failed.
        extra: the extra of this project that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this command needs {package}, which is not installed", f"Run: pip install 'immunogate[{extra}]'"
        )
