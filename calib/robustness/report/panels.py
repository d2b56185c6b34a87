"""Faces as the attack left them, the noise alone, and what the gate made of them."""

from __future__ import annotations

import base64
import binascii

from immunogate.calib.robustness.document import Document, Panel
from immunogate.pages.markup import Html, element, join
from immunogate.pages.page import Section, figure, figures, paragraph

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""The first bytes of every PNG (W3C, PNG third edition, 5.2)."""


def panels_section(document: Document) -> Section:
    """One figure of three pictures for each panel."""
    if not document.panels:
        return Section("faces", "Faces", paragraph("No pictures were kept.", class_="none"))
    return Section("faces", "Faces", figures(_panel(panel) for panel in document.panels))


def _panel(panel: Panel) -> Html:
    pictures = (
        _picture("As attacked", panel.title, panel.input_png),
        _picture("Noise \u00d7 10", panel.title, panel.noise_png),
        _picture("Purified", panel.title, panel.purified_png),
    )
    clean, attacked = panel.similarity_clean, panel.similarity_attacked
    similarity = f"Similarity to the enrolled face: {clean:.3f} clean, {attacked:.3f} attacked."
    caption = join([panel.words, " ", similarity])
    return figure(element("div", *pictures, class_="pictures"), caption, panel.title)


def _picture(kind: str, title: str, encoded: str) -> Html:
    try:
        held = base64.b64decode(encoded, validate=True).startswith(_SIGNATURE)
    except (binascii.Error, ValueError):
        held = False
    if not held:
        return element("div", element("span", f"{kind}: no picture", class_="none"))
    # Encoded again, so that nothing but a picture's own bytes stands in the address.
    address = f"data:image/png;base64,{base64.b64encode(base64.b64decode(encoded)).decode()}"
    picture = element("img", src=address, alt=f"{kind}: {title}", width=112, height=112)
    return element("div", picture, element("span", kind))
