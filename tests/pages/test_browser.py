"""Pages in a real browser whose network is off: nothing is asked for, nothing complained about, everything seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up_document import made_up_document

from immunogate.calib.robustness.document import Status
from immunogate.calib.robustness.report import write_report

pytestmark = pytest.mark.integration

WIDTHS = (390, 768, 1280)
SECTIONS = 13
_OUTSIDE = """
[...document.querySelectorAll('body *')].filter(part => {
  if (part.closest('thead') && getComputedStyle(part.closest('thead')).position === 'absolute') return false;
  const box = part.getBoundingClientRect();
  return box.right > innerWidth + 0.5 || box.left < -0.5;
}).map(part => part.outerHTML.slice(0, 80))
"""
_HIDDEN = """
[...document.querySelectorAll('header, section, h1, h2, section p, figure, svg[role=img], img')].filter(part => {
  const box = part.getBoundingClientRect(), style = getComputedStyle(part);
  return box.width < 8 || box.height < 8 || style.visibility !== 'visible' || style.opacity !== '1';
}).map(part => part.outerHTML.slice(0, 80))
"""
_PALE = """
(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(colour).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = part => {
    for (; part; part = part.parentElement) {
      const colour = getComputedStyle(part).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
  };
  const found = [];
  for (const part of document.querySelectorAll('body, body *')) {
    if (![...part.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(part);
    const ink = part.closest('svg') ? style.fill : style.color;
    const pair = [light(ink), light(ground(part))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) found.push([part.outerHTML.slice(0, 80), ratio]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[Status, Path]:
    """A report of made-up figures for each verdict."""
    folder = tmp_path_factory.mktemp("reports")
    paths: dict[Status, Path] = {}
    for status in ("FAULTY", "BROKEN", "WEAK", "HOLDS"):
        paths[status] = folder / f"{status}.html"
        write_report(made_up_document(status=status).to_dict(), paths[status])
    return paths


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_is_whole_at_any_width_and_asks_for_nothing(
    browser: Any, reports: dict[Status, Path], width: int, scheme: str
) -> None:
    browser.open(reports["WEAK"], width, scheme)
    assert browser.asked == [reports["WEAK"].as_uri()]
    assert browser.complaints == []
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(_OUTSIDE) == []
    assert browser.ask(_HIDDEN) == []
    assert browser.ask("document.querySelectorAll('section').length") == SECTIONS
    assert browser.ask("[...document.images].every(image => image.complete && image.naturalWidth === 112)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("status", ["FAULTY", "BROKEN", "WEAK", "HOLDS"])
def test_every_text_stands_out_from_its_ground(
    browser: Any, reports: dict[Status, Path], status: Status, scheme: str
) -> None:
    browser.open(reports[status], 1280, scheme)
    assert browser.ask(_PALE) == []
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(252, 252, 250)") == (scheme == "light")


def test_paper_is_white_in_a_dark_scheme_too_and_holds_the_whole_width(
    browser: Any, reports: dict[Status, Path], tmp_path: Path
) -> None:
    browser.open(reports["WEAK"], 680, "dark", media="print")  # 180 mm of A4 at 96 pixels an inch
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask(_OUTSIDE) == []
    assert browser.ask(_PALE) == []
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_scripts_and_addresses_in_a_document_come_to_nothing(browser: Any, tmp_path: Path) -> None:
    plain = made_up_document().to_dict()
    hostile = (
        "</style><script>document.title='taken'</script><img src=http://a.invalid/x onerror=\"document.title='taken'\">"
    )
    plain["bundle"]["model_id"] = hostile
    plain["verdict"]["words"][0] = hostile
    plain["rows"][0]["note"] = hostile
    plain["environment"] = {hostile: hostile}
    path = tmp_path / "hostile.html"
    write_report(plain, path)
    browser.open(path, 390)
    assert browser.asked == [path.as_uri()]
    assert browser.complaints == []
    assert browser.ask("document.scripts.length") == 0
    assert browser.ask("document.querySelector('h1').textContent") == hostile
    assert browser.ask("document.title") == f"WEAK: robustness of {hostile}"
    assert browser.ask(_OUTSIDE) == []


def test_a_page_that_is_not_as_it_should_be_is_noticed(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><link rel=icon href='data:,'><body style='background:#fff;color:#999'>pale"
        "<div style='width:3000px'>wide</div><img src='http://a.invalid/x.png'><script>undefined()</script>"
        "<section style='display:none'></section></body>",
        encoding="utf-8",
    )
    browser.open(path, 390)
    assert "http://a.invalid/x.png" in browser.asked
    assert browser.complaints
    assert browser.ask("document.documentElement.scrollWidth") > 390
    assert browser.ask(_OUTSIDE)
    assert browser.ask(_HIDDEN)
    assert browser.ask(_PALE)


def test_the_policy_of_a_report_stops_what_would_get_past_the_escaping(
    browser: Any, reports: dict[Status, Path], tmp_path: Path
) -> None:
    text = reports["WEAK"].read_text(encoding="utf-8")
    path = tmp_path / "changed.html"
    bad = "<script>document.title='taken'</script><img src='http://a.invalid/x.png'>"
    path.write_text(text.replace("<h1>", f"{bad}<h1>"), encoding="utf-8")
    browser.open(path, 390)
    assert browser.ask("document.title").startswith("WEAK")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
