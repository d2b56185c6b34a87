"""How pages look: one sheet for light and dark, phone, desk and A4 paper.

Colours are named once for each scheme; every text has a contrast of at least 4.5 to its ground and every line of a
drawing 3 (WCAG 2.2, 1.4.3 and 1.4.11). Ten looks of series differ in colour, mark and dash, so that none is told by its
colour alone.
"""

from __future__ import annotations

LIGHT = {
    "ground": "#fcfcfa", "panel": "#f3f3ee", "ink": "#1b1f23", "muted": "#565f68", "rule": "#d6d6cf", "link": "#0b5394",
    "good": "#1d6b34", "good-ground": "#e6f2e8", "warn": "#7a5000", "warn-ground": "#fbf0d9",
    "bad": "#a3211b", "bad-ground": "#fbe8e6", "fault": "#5c3c8f", "fault-ground": "#efe9f8",
    "s0": "#0b5cad", "s1": "#b3261e", "s2": "#8f5a00", "s3": "#5b6770", "s4": "#7747a8",
    "s5": "#00756a", "s6": "#3f7a20", "s7": "#a81f76", "s8": "#7d5f33", "s9": "#22758f",
}  # fmt: skip
DARK = {
    "ground": "#14181c", "panel": "#1d2329", "ink": "#e7e9ea", "muted": "#a7b1ba", "rule": "#38414a", "link": "#8cc2ff",
    "good": "#8fd6a0", "good-ground": "#16301d", "warn": "#f0c065", "warn-ground": "#33270d",
    "bad": "#ff9a92", "bad-ground": "#3a1a18", "fault": "#c9aef5", "fault-ground": "#2a2140",
    "s0": "#6cb4ff", "s1": "#ff8a80", "s2": "#f0b24a", "s3": "#a8b3bb", "s4": "#c6a3ec",
    "s5": "#4fd0bf", "s6": "#9ad06b", "s7": "#ff8ccb", "s8": "#d8b985", "s9": "#7cc7e0",
}  # fmt: skip
LOOKS = 10
"""Looks of series, 0 to 9: colours s0 to s9."""

DASHES = ("", "7 3", "2 3", "7 3 2 3", "4 4", "1 2", "9 3 1 3 1 3", "5 2", "3 2", "6 4")
"""Of each look's line, in pixels of the drawing."""

_SANS = 'system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans","DejaVu Sans",sans-serif'
_SERIF = 'Charter,"Bitstream Charter","Sitka Text",Cambria,Georgia,"DejaVu Serif",serif'
_MONO = 'ui-monospace,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace'

_TEXT = f"""
*{{box-sizing:border-box}}
html{{color-scheme:light dark;-webkit-text-size-adjust:100%;background:var(--ground)}}
body{{margin:0 auto;max-width:66rem;padding:2.5rem 1.5rem 4rem;background:var(--ground);color:var(--ink);
 font:1rem/1.6 {_SERIF};overflow-wrap:break-word}}
h1,h2,h3,caption,th,td,figcaption,nav,dl,.legend,.pictures,.kicker,.band strong,footer{{font-family:{_SANS}}}
h1{{font-size:1.75rem;line-height:1.25;margin:.2rem 0 .3rem;letter-spacing:-.01em;text-wrap:balance}}
h2{{font-size:1.25rem;line-height:1.3;margin:0 0 .6rem}}
h3{{font-size:1rem;margin:1.8rem 0 .5rem}}
p,ul,ol{{max-width:44rem;margin:.6rem 0}}
ul,ol{{padding-left:1.3rem}}
a{{color:var(--link);text-underline-offset:.15em}}
a:focus-visible{{outline:2px solid var(--link);outline-offset:2px}}
p code{{white-space:nowrap}}
code,pre{{font-family:{_MONO};font-size:.85em}}
pre{{background:var(--panel);padding:.8rem 1rem;border-radius:4px;white-space:pre-wrap;
 overflow-wrap:anywhere;margin:.8rem 0}}
section{{margin-top:3rem;padding-top:1.4rem;border-top:1px solid var(--rule)}}
.kicker{{color:var(--muted);font-size:.875rem;margin:0}}
.muted,figcaption,.note{{color:var(--muted)}}
.note{{font-size:.9rem}}
.hash{{font-family:{_MONO};font-size:.82em;overflow-wrap:anywhere}}
nav{{font-size:.875rem;margin-top:1.6rem}}
nav ol{{list-style:none;padding:0;margin:0;display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;max-width:none}}
dl{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,14rem),1fr));gap:.7rem 1.5rem;font-size:.875rem;
 margin:.8rem 0}}
dt{{color:var(--muted)}} dd{{margin:0;overflow-wrap:anywhere}}
footer{{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--rule);color:var(--muted);font-size:.8125rem}}
.band{{border:1px solid;border-left-width:.55rem;border-radius:4px;padding:1rem 1.3rem;margin:1.2rem 0;max-width:none}}
.band p{{margin:.35rem 0}} .band p.lead{{font-size:1.15rem;line-height:1.45;color:var(--ink)}}
.band strong{{letter-spacing:.06em;font-size:.95rem}}
.band ul{{color:var(--ink);margin:.5rem 0 0}}
.good{{color:var(--good)}} .warn{{color:var(--warn)}} .bad{{color:var(--bad)}} .fault{{color:var(--fault)}}
.band.good{{background:var(--good-ground)}} .band.warn{{background:var(--warn-ground)}}
.band.bad{{background:var(--bad-ground)}} .band.fault{{background:var(--fault-ground)}}
.sign{{display:grid;grid-template-columns:repeat(3,1fr);gap:2rem;margin-top:3.2rem;max-width:none}}
.sign div{{border-top:1px solid var(--ink);padding-top:.3rem;font:.8125rem {_SANS};color:var(--muted)}}
"""

_TABLE = """
table{border-collapse:collapse;width:100%;margin:1rem 0 1.8rem;font-size:.875rem;line-height:1.4;
 font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:0 0 .45rem}
caption .note{font-weight:400}
th,td{text-align:left;padding:.4rem 1.3rem .4rem 0;vertical-align:top;overflow-wrap:anywhere}
tr>:last-child{padding-right:0}
thead th{color:var(--muted);font-weight:500;border-bottom:1.5px solid var(--ink);vertical-align:bottom;
 overflow-wrap:normal}
tbody th{font-weight:400}
tbody tr{border-bottom:1px solid var(--rule)}
tbody th[scope=rowgroup]{padding-top:1rem;font-weight:600}
.number{text-align:right} tr.strong th,tr.strong td{font-weight:600}
td .detail{white-space:nowrap} td .wrapped{white-space:normal}
.detail{display:block;color:var(--muted);font-weight:400;font-size:.8125rem}
.none{color:var(--muted);font-style:italic}
"""

_DRAWING = """
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1.6rem 2rem;margin:1rem 0}
figure{margin:0;max-width:32rem;break-inside:avoid}
figcaption{font-size:.875rem;line-height:1.45;margin-top:.4rem}
figure>h3,figcaption b{color:var(--ink)}
figure>h3{margin:0 0 .3rem}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-family:system-ui,"Segoe UI",Roboto,"Liberation Sans","DejaVu Sans",sans-serif;font-size:11px;
 fill:var(--muted)}
svg .axis{stroke:var(--muted);stroke-width:1} svg .grid{stroke:var(--rule);stroke-width:1}
svg .guide{stroke:var(--muted);stroke-width:1;stroke-dasharray:3 3}
svg .line{fill:none;stroke-width:1.5} svg .line.l0{stroke-width:2.4} svg .whisker{stroke-width:1.1;fill:none}
svg .mark{stroke-width:1.5} svg .hollow{fill:var(--ground)}
.drawn{display:flex;flex-wrap:wrap;align-items:center;gap:.15rem .9rem} .drawn>div{flex:0 0 11rem;min-width:0}
.drawn .detail{white-space:normal}
.drawn .interval{flex:1 1 5rem;min-width:0;max-width:9.4rem;height:14px}
thead .drawn{align-items:flex-end}
.legend{list-style:none;padding:0;margin:.3rem 0 0;display:flex;flex-wrap:wrap;gap:.15rem 1rem;font-size:.8125rem}
.legend li{display:flex;align-items:center;gap:.4rem} .legend svg{width:auto;height:12px;flex:none}
.pictures{display:grid;grid-template-columns:repeat(3,1fr);gap:.6rem}
.pictures img{display:block;width:100%;height:auto;image-rendering:pixelated;border-radius:3px;background:var(--panel)}
.pictures span{font-size:.8125rem;color:var(--muted)}
"""

_PHONE = """
@media screen and (max-width:40rem){
body{padding:1.4rem 1rem 3rem} h1{font-size:1.4rem}
section{margin-top:2.2rem}
.band{padding:.8rem .9rem}
table,tbody,tr,td,tbody th{display:block} caption{display:block}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
tbody tr{padding:.55rem 0}
tbody th,tbody td{padding:.12rem 0} tbody tr>th[scope=row]{font-weight:600;padding-bottom:.25rem}
td[data-label]{display:grid;grid-template-columns:7.2rem minmax(0,1fr);gap:.8rem;text-align:left}
td[data-label]::before{content:attr(data-label);color:var(--muted)}
.sign{grid-template-columns:1fr}
}
"""

_PAPER = """
@page{size:A4;margin:16mm 15mm 18mm;@bottom-right{content:counter(page) " of " counter(pages);font:8pt sans-serif}}
@media print{
:root{--ground:#fff}
html{font-size:10pt} body{padding:0;max-width:none}
nav{display:none} a{color:inherit;text-decoration:none}
section{margin-top:1.6rem} h2,h3,caption{break-after:avoid} tr,.band,dl>div,.sign{break-inside:avoid}
tbody:not(:has(tr:nth-child(6))){break-inside:avoid} tr:has(>th[scope=rowgroup]),thead,thead tr{break-after:avoid}
.drawn{gap:.15rem .5rem} .drawn>div{flex-basis:10.4rem}
thead{display:table-header-group} .figures{grid-template-columns:1fr 1fr}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""


def _named(colours: dict[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{value};" for name, value in colours.items()) + "}\n"


def _looks() -> str:
    """Classes ``l0`` to ``l9`` of drawings: stroke, dash of lines, fill of marks that are not hollow."""
    rules = []
    for look, dash in enumerate(DASHES):
        rules.append(f"svg .l{look}{{stroke:var(--s{look})}} svg .mark.l{look}:not(.hollow){{fill:var(--s{look})}}")
        if dash:
            rules.append(f"svg .line.l{look}{{stroke-dasharray:{dash}}}")
    return "\n".join(rules)


SHEET = (
    _named(LIGHT)
    + f"@media screen and (prefers-color-scheme:dark){{{_named(DARK)}}}"
    + _TEXT + _TABLE + _DRAWING + _looks() + _PHONE + _PAPER
)  # fmt: skip
"""The whole style sheet."""
