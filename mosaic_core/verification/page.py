"""A page of scores: HTML that needs no other file, and Markdown without the pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #22262b; background: #fff;
  margin: 2rem auto; max-width: 76rem; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
p { margin: .2rem 0 .6rem; max-width: 52rem; } .flag { color: #a3142e; font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .18rem .7rem; text-align: right; border-bottom: 1px solid #e3e5e8; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; display: block; }
"""


@dataclass(frozen=True)
class Table:
    """Text cells; the first column names the row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and a picture (PNG) or a table."""

    heading: str
    text: str
    picture: bytes | None = None
    table: Table | None = None


@dataclass(frozen=True)
class Page:
    """What stands on a page, from top to bottom."""

    title: str
    subtitle: str
    flags: Sequence[str] = ()
    sections: Sequence[Section] = field(default=())

    def html(self) -> str:
        """One file, pictures included."""
        parts = [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(self.title)}</h1><p>{escape(self.subtitle)}</p>",
            *(f'<p class="flag">{escape(flag)}</p>' for flag in self.flags),
        ]
        for section in self.sections:
            parts.append(f"<h2>{escape(section.heading)}</h2><p>{escape(section.text)}</p>")
            if section.table is not None:
                parts.append(_html_table(section.table))
            if section.picture is not None:
                data = base64.b64encode(section.picture).decode()
                alt = escape(section.heading, quote=True)
                parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
        return "\n".join([*parts, "</body></html>"]) + "\n"

    def markdown(self) -> str:
        """Headings, sentences and tables, for an artifact."""
        parts = [f"# {self.title}", self.subtitle, *(f"**{flag}**" for flag in self.flags)]
        for section in self.sections:
            if section.table is not None:
                parts += [f"## {section.heading}", section.text, _markdown_table(section.table)]
        return "\n\n".join(parts) + "\n"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.heads)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _markdown_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = line(["---", *["---:"] * (len(table.heads) - 1)])
    return "\n".join([line(table.heads), rule, *(line(row) for row in table.rows)])
