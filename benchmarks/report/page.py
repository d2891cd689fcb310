"""One self-contained HTML page: no script, no font and no picture from elsewhere; light, dark and on paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --paper: #ffffff; --band: #f2f4f7; --line: #d5dae1;
  --bar: #3b6fb6; --whole: #7a8594; --mark: #b3432f; --warn: #fff4d6; --warn-ink: #6b4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #a0a9b5; --paper: #14171b; --band: #1e2329;
  --line: #363d47; --bar: #7aa7e8; --whole: #8a94a3; --mark: #f0907c; --warn: #3a2f10; --warn-ink: #f3d98b; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --band: #f2f2f2; --line: #bbb;
  --bar: #3b6fb6; --whole: #7a8594; --mark: #b3432f; --warn: #fff4d6; --warn-ink: #6b4b00; }
  body { padding: 0; max-width: none; } section, tr, figure { break-inside: avoid; } h2 { break-after: avoid; }
  details { display: block; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 760px;
  margin: 0 auto; padding: 24px 16px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; } section + h1 { margin-top: 48px; }
h2 { font-size: 17px; margin: 32px 0 8px; }
p { margin: 6px 0; } .soft { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 18px 0; }
.figure { background: var(--band); border-radius: 6px; padding: 10px 12px; }
.figure b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.figure span { color: var(--soft); font-size: 13px; }
.warn { background: var(--warn); color: var(--warn-ink); border-radius: 6px; padding: 8px 12px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.number, th.number { text-align: right; }
.wrap td { overflow-wrap: anywhere; } .wrap td:first-child { overflow-wrap: break-word; }
td.number { white-space: nowrap; }
figure { margin: 8px 0; } figcaption { color: var(--soft); font-size: 13px; }
svg.chart { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
.chart text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
.chart .note { fill: var(--soft); } .chart .end { text-anchor: end; }
.chart .middle { text-anchor: middle; } .chart .bar { fill: var(--bar); } .chart .whole { fill: var(--whole); }
.chart .grid { stroke: var(--line); stroke-width: 1; } .chart .axis { stroke: var(--soft); }
.chart .mark { stroke: var(--mark); stroke-width: 1.5; } .chart .shade { fill: var(--band); }
.chart .dot { fill: var(--bar); fill-opacity: 0.65; } .chart .out { fill: var(--soft); }
.chart .best { fill: var(--mark); fill-opacity: 1; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document; `parts` are HTML already."""
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def alone(chart: str) -> str:
    """A chart of `svg` as a file of its own, with the page's style and background inside."""
    start, rest = chart.split(">", 1)
    return f'{start}><style>{_STYLE}</style><rect width="100%" height="100%" fill="var(--paper)"/>{rest}\n'


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it; nothing where there is nothing."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def figure(chart: str, caption: str) -> str:
    """A chart with what is to be seen on it."""
    return f"<figure>\n{chart}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def figures(values: Iterable[tuple[str, str]]) -> str:
    """The few numbers that matter: (number, what it is)."""
    inside = "\n".join(
        f'<div class="figure"><b>{escape(number)}</b><span>{escape(what)}</span></div>' for number, what in values
    )
    return f'<div class="figures">\n{inside}\n</div>'


def html_table(rows: Iterable[Sequence[Any]], header: Sequence[str], *, wrap: bool = False) -> str:
    """Rows as a table; numbers to the right, floats with two decimals. wrap: break long words rather than scroll."""
    rows = [list(row) for row in rows]
    numeric = [bool(rows) and all(isinstance(row[place], int | float) for row in rows) for place in range(len(header))]
    head = "".join(_cell("th", text, number) for text, number in zip(header, numeric, strict=True))
    body = "\n".join(
        f"<tr>{''.join(_cell('td', value, number) for value, number in zip(row, numeric, strict=True))}</tr>"
        for row in rows
    )
    kind = ' class="wrap"' if wrap else ""
    return (
        f'<div class="scroll"><table{kind}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
    )


def markdown_table(rows: Iterable[Sequence[Any]], header: Sequence[str]) -> str:
    """Rows as a table of GitHub's Markdown; numbers to the right, floats with two decimals."""
    rows = [list(row) for row in rows]
    numeric = [bool(rows) and all(isinstance(row[place], int | float) for row in rows) for place in range(len(header))]
    lines = [[_plain(text) for text in header], ["---:" if number else "---" for number in numeric]]
    lines += [[_plain(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(text: str, path: Path) -> None:
    """Write a report of whatever kind, creating its folder. Raises UserError when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place for the report.") from error


def _cell(tag: str, value: Any, number: bool) -> str:
    text = _shown(value)
    return f'<{tag} class="number">{escape(text)}</{tag}>' if number else f"<{tag}>{escape(text)}</{tag}>"


def _shown(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> str:
    return " ".join(_shown(value).split()).replace("|", "\\|")
