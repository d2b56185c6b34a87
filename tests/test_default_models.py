"""Where the shipped bundle and the user's own files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from immunogate.bundle import Bundle, open_bundle
from immunogate.default_models import VARIABLE, default_bundle, shipped_bundle
from immunogate.errors import UsageError
from immunogate.places import default_gallery, installed_models, user_data


def test_the_environment_names_a_bundle_in_the_shipped_ones_place(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tiny_bundle.folder))
    assert default_bundle() == tiny_bundle.folder


def test_a_name_that_leads_nowhere_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match=f"{VARIABLE} names {tmp_path}"):
        default_bundle()


def test_where_nothing_ships_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import immunogate.default_models as default_models

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(default_models, "shipped_bundle", lambda: tmp_path)
    with pytest.raises(UsageError, match=r"--bundle or IMMUNOGATE_BUNDLE, make one with immunogate export"):
        default_bundle()


def test_the_shipped_bundle_is_whole_and_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shipped_bundle() / "manifest.json").is_file():
        pytest.skip("no bundle ships with this checkout yet")
    monkeypatch.delenv(VARIABLE, raising=False)
    bundle = open_bundle(default_bundle())
    bundle.check()
    assert bundle.calibration().status == "measured"
    assert {path.name for path in bundle.folder.iterdir()} == {"manifest.json", *bundle.manifest.files}
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 25 << 20


def test_data_lies_where_the_standard_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_gallery() == tmp_path / "immunogate" / "gallery.db"
    assert installed_models() == tmp_path / "immunogate" / "models"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for relative in ("", "not/absolute"):
        monkeypatch.setenv("XDG_DATA_HOME", relative)
        assert user_data() == tmp_path / "home" / ".local" / "share" / "immunogate"


def test_a_user_without_a_home_is_told_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UsageError, match="XDG_DATA_HOME"):
        user_data()
