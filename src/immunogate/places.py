"""Where things of the user lie: the XDG base directories, freedesktop.org, version 0.8."""

from __future__ import annotations

import os
from pathlib import Path

from immunogate.errors import UsageError


def user_data() -> Path:
    """The folder for a user's galleries and models; it may not be there yet.

    Raises:
        UsageError: the user has no home, as in some containers.
    """
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    if named.is_absolute():  # the standard says to pass over relative ones
        return named / "immunogate"
    try:
        return Path.home() / ".local" / "share" / "immunogate"
    except RuntimeError as error:
        raise UsageError("this user has no home folder", "Set XDG_DATA_HOME, or name the path with a flag") from error


def user_cache() -> Path:
    """The folder for what can be made again: engines, what a builder measured; it may not be there yet.

    Raises:
        UsageError: the user has no home, as in some containers.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "immunogate"
    try:
        return Path.home() / ".cache" / "immunogate"
    except RuntimeError as error:
        raise UsageError("this user has no home folder", "Set XDG_CACHE_HOME, or name a folder with a flag") from error


def default_gallery() -> Path:
    """The gallery of a user who names none."""
    return user_data() / "gallery.db"


def installed_models() -> Path:
    """Where `immunogate models install` puts what it fetches."""
    return user_data() / "models"
