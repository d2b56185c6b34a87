"""The report as a parser reads it: whole, escaped, honest about what was not run, and always the same."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_document import small_document
from made_up_document import NAMES, made_up_document

from immunogate.calib.robustness.document import Alarm, Document, Rate, Sanity, Status, rate_of
from immunogate.calib.robustness.report import report_page, write_report
from immunogate.calib.robustness.report.words import rate_line, share, span
from immunogate.errors import InputError, UsageError
from immunogate.pages.markup import VOID

ORDER = [
    "Attackers who know the defence", "Rate against size of the attack", "Errors on clean faces", "Faces",
    "Latency beside robustness", "Alarm", "Retries", "Sanity", "All rows", "Setting and environment",
    "Commands to repeat", "What was not tested", "Sign-off",
]  # fmt: skip
HOSTILE = "</style></title><script>alert(1)</script><img src=http://a.invalid/ onerror=alert(1)>\"' \u202e"
SHOWN = HOSTILE.replace("\u202e", "\ufffd")


class Page(HTMLParser):
    """Tags, attributes and texts of a page; refuses tags that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def document() -> Document:
    return made_up_document()


@pytest.fixture(scope="module")
def text(document: Document) -> str:
    return report_page(document)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_verdict_comes_first_and_the_sections_in_their_order(page: Page, text: str) -> None:
    assert page.texts["h2"] == ORDER
    assert page.texts["h1"] == ["gateface"]
    assert text.index("Verdict: WEAK") < text.index("mostly gets past it") < text.index("<h2")


@pytest.mark.parametrize(
    ("status", "kind"), [("FAULTY", "fault"), ("BROKEN", "bad"), ("WEAK", "warn"), ("HOLDS", "good")]
)
def test_each_status_is_said_in_a_word_and_has_a_band_of_its_own(status: Status, kind: str) -> None:
    page = Page(report_page(made_up_document(status=status)))
    assert {"class": f"band {kind}"} in page.all("div")
    assert f"Verdict: {status}" in page.texts["strong"][0]
    assert page.texts["title"] == [f"{status}: robustness of gateface"]


def test_a_failed_check_is_said_beside_the_verdict() -> None:
    page = Page(report_page(made_up_document(status="FAULTY")))
    assert "1 of 3 checks of the attacks failed" in page.texts["header"][0]


def test_the_page_loads_nothing_and_runs_nothing(page: Page, text: str) -> None:
    assert not page.all("script")
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", text))
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert "style" not in attributes
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.all("meta"))


def test_same_document_same_bytes(document: Document, text: str, tmp_path: Path) -> None:
    shuffled = dict(reversed(document.to_dict().items()))
    write_report(shuffled, tmp_path / "a" / "report.html")
    assert (tmp_path / "a" / "report.html").read_bytes() == text.encode("utf-8")


def test_every_row_is_in_the_full_table(document: Document, text: str) -> None:
    rest = text[text.index('id="rows"') : text.index('id="setting"')]
    rows = Page("<table>" + "".join(re.findall(r"<tr.*?</tr>", rest)) + "</table>")
    bodies = [words for words in rows.texts["tr"] if not words.startswith("Defence")]
    cases = len({(row.tier, row.goal, row.eps, row.attack, row.attacker) for row in document.rows})
    assert len(bodies) == len(document.rows) + cases
    for row in document.rows:
        name = NAMES[row.configuration]
        rates = [_plain(rate) if rate else "not run" for rate in (row.twin, row.deployed)]
        assert any(words.startswith("".join((name, *rates))) for words in bodies), row


def test_dodging_and_impersonation_share_no_table(text: str) -> None:
    for body in re.findall(r"<table.*?</table>", text):
        assert not ("genuine pairs" in body and "impostor pairs" in body)
    captions = Page(text).texts["caption"]
    assert any("Dodging" in caption and "higher is better" in caption for caption in captions)
    assert any("Impersonation" in caption and "lower is better" in caption for caption in captions)


def test_the_adaptive_row_shows_bundle_fixed_and_none_for_twin_and_deployed(document: Document, text: str) -> None:
    part = text[text.index('id="adaptive"') : text.index('id="curves"')]
    for row in document.rows:
        if row.tier == "adaptive" and row.configuration in ("bundle", "fixed", "none"):
            for rate in (row.twin, row.deployed):
                assert rate is not None
                assert f"{share(rate.low)} to {share(rate.high)}; {rate.accepted} of {rate.of}" in part
    assert "4 bits a pixel" not in part
    assert part.count('class="interval"') == 2 * (2 + 3 * 6 * 2) - 4 + 4


def test_twin_and_deployed_stand_in_their_own_columns(document: Document, text: str) -> None:
    part = Page(text[text.index("<table") : text.index('id="curves"')].partition("</section>")[0])
    cells = dict.fromkeys(("Twin", "Deployed"), "")
    for words, cell in zip(part.texts["td"], part.all("td"), strict=True):
        cells[cell["data-label"] or ""] += words
    chosen = [row for row in document.rows if row.tier == "adaptive" and row.configuration == "bundle"]
    assert len(chosen) == 12
    for goal in ("dodging", "impersonation"):
        for column, rates in (("Twin", [row.twin for row in chosen if row.goal == goal]),
                              ("Deployed", [row.deployed for row in chosen if row.goal == goal])):  # fmt: skip
            assert all(rate and f"{span(rate)}; {rate.accepted} of {rate.of}" in cells[column] for rate in rates)
    assert text.count("mark l0 hollow") >= 12


def _spoken(text: str, section: str, begins: str) -> str:
    (found,) = re.findall(
        rf'aria-label="({begins}[^"]*)"', text[text.index(f'id="{section}"') :].partition("</section>")[0]
    )
    return str(found)


def test_curves_are_of_what_was_deployed_and_begin_without_an_attack(document: Document, text: str) -> None:
    spoken = _spoken(text, "curves", "PGD-100, dodging")
    rows = {row.eps: row for row in document.rows if row.configuration == "bundle" and row.goal in ("none", "dodging")
            and row.attack in ("clean", "PGD-100")}  # fmt: skip
    rates = {eps or 0: row.deployed for eps, row in rows.items()}
    assert sorted(rates) == [0, 2, 4, 8]
    said = ", ".join(f"{share(rate.rate)} at {eps:g}" for eps, rate in sorted(rates.items()) if rate)
    assert f"{NAMES['bundle']} {said}" in spoken
    assert not re.search(r"\d at 0[,;.]", _spoken(text, "curves", "PGD-100, impersonation"))


@pytest.mark.parametrize(("goal", "choose"), [("dodging", min), ("impersonation", max)])
def test_beside_latency_stands_the_worst_rate_for_the_gate(
    document: Document, text: str, goal: str, choose: Callable[[list[float]], float]
) -> None:
    spoken = _spoken(text, "latency", f"{goal.capitalize()} at 4")
    for key in ("none", "fixed", "bundle"):
        rows = [
            row
            for row in document.rows
            if (row.tier, row.goal, row.configuration, row.eps) == ("adaptive", goal, key, 4.0)
        ]
        rates = [rate.rate for row in rows for rate in (row.twin, row.deployed) if rate]
        assert len(rates) == 4
        assert f"{NAMES[key]} {share(choose(rates))} in " in spoken
    assert NAMES["jpeg"] not in spoken, "its time was not taken"


def test_the_trade_off_is_on_probit_axes_and_leaves_out_what_has_no_place(text: str) -> None:
    part = text[text.index('id="det"') :].partition("</section>")[0]
    across = [float(at) for at in re.findall(r'<text x="([\d.]+)" y="244" text-anchor="middle">', part)]
    gaps = [after - before for before, after in itertools.pairwise(across)]
    assert len(gaps) > 4
    assert max(gaps) / min(gaps) < 2.5, (
        "equal decades and halves of the normal deviate are neither linear nor logarithmic"
    )
    assert "rates of 0 and 1: 3 points." in part


def test_a_note_of_all_configurations_is_said_once(document: Document) -> None:
    noted = tuple(dataclasses.replace(row, note="rounded") for row in document.rows if row.tier == "adaptive")
    cases = len({(row.goal, row.eps, row.attack) for row in noted})
    assert report_page(dataclasses.replace(document, rows=noted)).count("rounded") == cases
    odd = (dataclasses.replace(noted[0], note="odd"), *noted[1:])
    text = report_page(dataclasses.replace(document, rows=odd))
    assert text.count("odd<") == 1
    assert text.count("rounded") == cases - 1 + len(NAMES) - 1


def test_checks_and_signals_say_what_the_document_says() -> None:
    document = made_up_document(status="FAULTY")
    text = report_page(document)
    checks = _cells(text, "sanity")
    assert checks[:3] == ["\u2715 failed", "0.004", "0.01"]
    assert checks[-3:] == ["\u2713 passed", "\u2013", "\u2013"]
    assert "The attacks are judged faulty." in text
    alarm = _cells(text, "alarm")
    rows = [row for signal in document.alarm.signals for row in signal.rows]
    assert len(alarm) == 4 * len(rows)
    for index, row in enumerate(rows):
        assert alarm[4 * index + 1] == _plain(row.flagged)
        assert alarm[4 * index + 2] == _plain(row.flagged_or_neutralised)
        bare = row.of_those_that_fool_the_bare
        assert alarm[4 * index + 3] == ("not run" if bare is None else _plain(bare))
    retried = [row for row in document.rows if row.tier == "retries"]
    assert _cells(text, "retries")[2::5] == [str(row.tries) for row in retried]


def _cells(text: str, section: str) -> list[str]:
    part = text[text.index(f'id="{section}"') :].partition("</section>")[0]
    return Page("".join(re.findall("<td.*?</td>", part))).texts["td"]


def _plain(rate: Rate) -> str:
    return f"{share(rate.rate)}{span(rate)}; {rate.accepted} of {rate.of}"


def test_attacks_that_only_show_that_they_work_are_in_the_full_table_alone(document: Document) -> None:
    row = next(row for row in document.rows if row.tier == "adaptive")
    rows = (*document.rows, dataclasses.replace(row, eps=64.0, attack="PGD hopeless"))
    text = report_page(dataclasses.replace(document, rows=rows))
    assert text.count("PGD hopeless") == 1
    assert text.index("PGD hopeless") > text.index('id="rows"')


def test_the_word_of_the_verdict_is_not_said_twice(document: Document) -> None:
    words = ("WEAK: an attacker gets past it.", "Flagged: it hides gradients.")
    verdict = dataclasses.replace(document.verdict, words=words, flags=("it hides gradients.",))
    header = Page(report_page(dataclasses.replace(document, verdict=verdict))).texts["header"][0]
    assert "Verdict: WEAKAn attacker gets past it." in header
    assert header.count("it hides gradients") == 1


def test_what_was_not_run_says_so_and_is_never_zero() -> None:
    document = small_document()
    rows = tuple(dataclasses.replace(row, twin=None, deployed=None) for row in document.rows)
    page = Page(report_page(dataclasses.replace(document, rows=rows, det=(), panels=(), alarm=Alarm(()))))
    cells = [words for words, cell in zip(page.texts["td"], page.all("td"), strict=True)
             if cell.get("data-label") in ("Twin", "Deployed")]  # fmt: skip
    assert cells
    assert set(cells) == {"not run"}


def test_an_adaptive_configuration_without_a_row_was_not_run() -> None:
    text = report_page(small_document())
    part = Page(text[text.index("<table") : text.index('id="curves"')].partition("</section>")[0])
    assert "no defencenot runnot run" in part.texts["tbody"][0]


def test_texts_of_the_document_stay_texts(document: Document) -> None:
    plain = _with_every_text(document.to_dict(), HOSTILE)
    text = report_page(_from(plain))
    page = Page(text)
    clean = Page(report_page(document))
    assert not page.all("script")
    assert {name for name, _ in page.tags} <= {name for name, _ in clean.tags}
    assert page.texts["h1"] == [SHOWN]
    assert SHOWN in page.texts["pre"][0]
    assert "\u202e" not in text
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]


def test_pictures_have_a_text_and_what_is_none_is_said(document: Document) -> None:
    images = Page(report_page(document)).all("img")
    assert len(images) == 6
    assert [image["alt"] for image in images[:3]] == [
        "As attacked: Person 12", "Noise \u00d7 10: Person 12", "Purified: Person 12",
    ]  # fmt: skip
    panel = dataclasses.replace(document.panels[0], words="similarity 0.710 clean, 0.220 attacked: refused")
    captions = Page(report_page(dataclasses.replace(document, panels=(panel,)))).texts["figcaption"]
    assert panel.words in captions
    broken = dataclasses.replace(document.panels[0], input_png='" onerror="x', noise_png="aGk=", purified_png="")
    page = Page(report_page(dataclasses.replace(document, panels=(broken,))))
    assert page.all("img") == []
    assert "Purified: no picture" in page.texts["figure"][-1] or "no picture" in "".join(page.texts["figure"])


def test_headings_go_down_one_level_at_a_time_and_anchors_are_unique(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    assert {link["href"] for link in page.all("a")} == {f"#{anchor}" for anchor in anchors}


def test_drawings_say_what_they_show(page: Page) -> None:
    spoken = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(spoken) == 10 + 6 + 1  # five attacks and two goals, three sizes and two goals, the trade-off
    assert all(spoken)
    assert all(svg.get("role") == "img" or svg.get("aria-hidden") == "true" for svg in page.all("svg"))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("rows", 0, "twin", "rate"), 0.99, "document.rows[0].twin: 68 of 100 is not a rate of 0.99"),
        (("configurations", 1, "fmr_measured", "low"), 0.0, "is not the Wilson interval of 1 of 6000"),
        (("det", 0, "fmr"), [0.1], "document.det[0]: expected as many"),
        (("det", 0, "fnmr", 3), 1.5, "document.det[0]: expected as many"),
        (("configurations", 0, "ms_per_face", "p50"), 0.0, "document.configurations[0].ms_per_face"),
        (("rows", 9, "eps"), -1.0, "document.rows[9].eps"),
        (("rows", 9, "eps"), 1e308, "document.rows[9].eps"),
        (("configurations", 0, "ms_per_face", "p99"), 1e308, "document.configurations[0].ms_per_face"),
        (("rows", 9, "eps"), "many", "document.rows[9].eps"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(
    document: Document, path: tuple[Any, ...], value: Any, said: str, tmp_path: Path
) -> None:
    plain = copy.deepcopy(document.to_dict())
    part: Any = plain
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises(InputError) as caught:
        write_report(plain, tmp_path / "report.html")
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_number_breaks_the_drawing() -> None:
    """Whatever stands in a field, the document is refused by name or drawn."""
    plain = small_document().to_dict()
    plain["rows"][2]["eps"] = 2.0
    plain["rows"].append({**plain["rows"][1], "eps": 2.0})
    leaves = [(part, key) for part in _parts(plain) for key, value in _items(part) if isinstance(value, int | float)]
    assert len(leaves) > 100
    for part, key in leaves:
        before = part[key]
        for value in (-1, 0, 5e-324, 1.0, 1e308, 10**300):
            part[key] = value
            try:
                text = report_page(_from(plain))
            except InputError:
                continue
            assert "nan" not in re.sub("<style>.*</style>", "", text, flags=re.DOTALL), (key, value)
        part[key] = before


def test_a_document_with_hardly_anything_in_it_is_drawn(document: Document) -> None:
    empty = dataclasses.replace(
        document, configurations=(), rows=(), det=(), alarm=Alarm(()), sanity=Sanity(False, ()), panels=(),
        not_tested=(), verdict=dataclasses.replace(document.verdict, words=(), flags=()), environment={},
    )  # fmt: skip
    page = Page(report_page(empty))
    assert page.texts["h2"] == ORDER
    assert "No verdict was written." in page.texts["p"]
    Page(report_page(small_document()))


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-7, 0.00017, 0.0095, 0.01, 0.5, 1.0])
def test_rates_are_written_as_numbers_that_come_close(value: float) -> None:
    assert float(share(value)) == pytest.approx(value, rel=0.06, abs=1e-9)


def test_a_rate_in_a_line() -> None:
    assert rate_line(rate_of(3, 4)) == "0.750 (0.301 to 0.954; 3 of 4)"


def test_a_folder_in_the_way_is_an_error_of_use(document: Document, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no regular file"):
        write_report(document.to_dict(), tmp_path)


def test_drawing_a_report_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, immunogate.calib.robustness.report; "
        "print(*({'torch', 'onnx', 'onnxruntime', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def _with_every_text(value: Any, text: str, key: str = "") -> Any:
    """The same plain values with every free text replaced; words that are one of a few stay."""
    fixed = {"tier", "goal", "attacker", "configuration", "key", "status", "protocol", "input_png", "noise_png",
             "purified_png"}  # fmt: skip
    if isinstance(value, dict):
        if key in ("environment", "variants"):
            return dict.fromkeys([text], _with_every_text(next(iter(value.values())), text))
        signal = "limit" in value and "false_alarms" in value
        return {
            name: part if signal and name == "name" else _with_every_text(part, text, name)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_with_every_text(part, text, key) for part in value]
    if isinstance(value, str) and key not in fixed:
        return text
    return value


def _items(part: Any) -> list[tuple[Any, Any]]:
    return list(part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ())


def _parts(value: Any) -> list[Any]:
    """Every dict and list within."""
    return [value, *(found for _, part in _items(value) for found in _parts(part))] if _items(value) else []


def _from(plain: dict[str, Any]) -> Document:
    from immunogate.calib.robustness.document import document_from

    return document_from(plain)
