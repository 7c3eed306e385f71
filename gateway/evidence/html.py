"""Pages in one HTML file, without scripts and without links to other files. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #767676; --line: #d4d4d4; --blue: #1f5fbf;
  --sure: #1f7a4d }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --faint: #a0a0a0; --line: #444;
  --blue: #7fb0ff; --sure: #6fd0a0 } body { background: #161616 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } th { font-weight: 600 }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto } figcaption, footer { color: var(--faint) }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif } .wide { overflow-x: auto }
.grid { stroke: var(--line); fill: none } .fixed { stroke: var(--blue); fill: none; stroke-width: 2 }
.dot { fill: var(--blue) } .whisker { stroke: var(--blue) }
.highest { stroke: var(--faint); fill: none; stroke-width: 2; stroke-dasharray: 5 4 }
.lowest { stroke: var(--sure); fill: none; stroke-width: 2 }
.head { stroke: #c96a12; fill: none; stroke-width: 2 }
.bar { fill: var(--blue); opacity: .35 } .zero { stroke: var(--ink) }
pre { overflow-x: auto; font-size: 12px; line-height: 1.35 }
@media screen and (max-width: 45rem) { td { min-width: 6.5rem } }
@media print { body { margin: 0; max-width: none } h2, figure, tr { break-inside: avoid }
  pre { white-space: pre-wrap } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """The whole file. parts: HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def bullets(items: Iterable[str]) -> str:
    """A list of texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def html_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of texts, which scrolls where the screen is narrow."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
