"""The quality report for people: text for a terminal, and one HTML page that asks nobody anything.

The page holds its style and plots (SVG) in itself: it opens on a machine without a network. Every
word that comes from a file or a mapping is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

__all__ = ["html_report", "text_report"]

Report = Mapping[str, Any]

_MEASURES: Final = ("completeness", "validity", "uniqueness", "consistency")
_STYLE: Final = """\
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto}
body{padding:0 1rem;color:#1b2733}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #dde3e9}
td{font-variant-numeric:tabular-nums}
td.n,th.n{text-align:right}.cards{display:flex;gap:1rem;flex-wrap:wrap}
.card{border:1px solid #dde3e9;border-radius:.5rem;padding:.7rem 1rem;min-width:8rem}
.card b{display:block;font-size:1.5rem}.error{color:#a3261b}.warning{color:#8a6100}
svg text{font:11px system-ui,sans-serif;fill:#55636f}"""


def text_report(reports: Sequence[Report]) -> str:
    """The newest report, and the trend over all of them; newest first."""
    if not reports:
        return "No run yet."
    newest = reports[0]
    lines = [
        f"Source {newest['source']}, run {newest['run_id']}, {newest['at'][:19]}Z",
        f"{newest['state']}: {_counts(newest)}",
        "  ".join(f"{name} {_percent(newest[name])}" for name in _MEASURES),
        _delays(newest["timeliness"]),
    ]
    if newest["columns"]:
        # As wide as a terminal shows it: a Chinese character takes two places.
        width = min(40, max(cell_len(each["column"]) for each in newest["columns"]))
        width = max(width, len("column"))
        lines += ["", f"{'column':<{width}}  complete   valid  distinct"]
        lines += [
            f"{set_cell_size(each['column'], width)}  {_percent(each['completeness']):>8}"
            f"  {_percent(each['validity']):>6}  {each['distinct']:>8}"
            for each in newest["columns"]
        ]
    if newest["rules"]:
        lines += ["", "rule                          units  does"]
        lines += [
            f"{each['rule']:<28}  {each['units']:>5}  {_does(each)}" for each in newest["rules"]
        ]
    if len(reports) > 1:
        lines += ["", "trend, newest first: " + "  ".join(_percent(r["validity"]) for r in reports)]
    return "\n".join(lines)


def html_report(reports: Sequence[Report]) -> str:
    """A whole page; reports newest first, of one source or several."""
    body = "".join(_source(list(group)) for group in _by_source(reports).values())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<title>Fenhe: quality of what came in</title>"
        f"<style>{_STYLE}</style></head><body><h1>Quality of what came in</h1>"
        f"{body or '<p>No run yet.</p>'}</body></html>\n"
    )


def _by_source(reports: Sequence[Report]) -> dict[str, list[Report]]:
    found: dict[str, list[Report]] = {}
    for each in reports:
        found.setdefault(str(each["source"]), []).append(each)
    return found


def _source(reports: Sequence[Report]) -> str:
    newest = reports[0]
    cards = "".join(
        f'<div class="card"><b>{_percent(newest[name])}</b>{name}</div>' for name in _MEASURES
    )
    counts = _counts(newest)
    return (
        f"<h2>{escape(str(newest['source']))}</h2><p>Run {escape(str(newest['run_id']))}, "
        f"{escape(str(newest['at']))}, {escape(str(newest['state']))}. {counts}</p>"
        f'<div class="cards">{cards}</div>'
        + _columns(newest["columns"])
        + _delay_plot(newest["timeliness"])
        + _trend(reports)
        + _rules(newest["rules"])
    )


def _columns(columns: Sequence[Mapping[str, Any]]) -> str:
    if not columns:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(each['column']))}</td>"
        f"<td>{_bar(each['completeness'])}</td><td>{_bar(each['validity'])}</td>"
        f'<td class="n">{each["distinct"]}</td></tr>'
        for each in columns
    )
    return (
        "<h2>Columns</h2><table><tr><th>column</th><th>complete</th><th>valid</th>"
        f'<th class="n">distinct</th></tr>{rows}</table>'
    )


def _bar(share: float | None) -> str:
    width = round(140 * (share or 0))
    return (
        '<svg width="200" height="14" role="img">'
        '<rect width="140" height="14" fill="#e8edf1"/>'
        f'<rect width="{width}" height="14" fill="#2b7a78"/>'
        f'<text x="146" y="11">{_percent(share)}</text></svg>'
    )


def _delay_plot(timeliness: Mapping[str, Any]) -> str:
    classes = timeliness["classes"]
    most = max(classes.values(), default=0)
    if not most:
        return ""
    bars = "".join(
        f'<rect x="{i * 90}" y="{110 - round(90 * count / most)}" width="70" '
        f'height="{round(90 * count / most)}" fill="#2b7a78"/>'
        f'<text x="{i * 90}" y="126">{escape(str(name))}</text>'
        f'<text x="{i * 90}" y="{104 - round(90 * count / most)}">{count}</text>'
        for i, (name, count) in enumerate(classes.items())
    )
    return f'<h2>Days from care to here</h2><svg width="560" height="132" role="img">{bars}</svg>'


def _trend(reports: Sequence[Report]) -> str:
    """Validity and completeness over the runs, oldest to the left."""
    runs = list(reversed(reports))
    if len(runs) < 2:
        return ""
    step = 520 / (len(runs) - 1)
    lines = []
    for name, colour in (("validity", "#2b7a78"), ("completeness", "#b5651d")):
        points = " ".join(
            f"{20 + i * step:.1f},{110 - 90 * (run[name] or 0):.1f}" for i, run in enumerate(runs)
        )
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{20 if name == "validity" else 90}" y="128" fill="{colour}">{name}</text>'
        )
    return (
        f'<h2>Trend over runs</h2><svg width="560" height="132" role="img">{"".join(lines)}</svg>'
    )


def _rules(rules: Sequence[Mapping[str, Any]]) -> str:
    if not rules:
        return ""
    rows = "".join(
        f'<tr><td class="{escape(str(each["severity"]))}">{escape(str(each["rule"]))}</td>'
        f'<td class="n">{each["units"]}</td><td>{_does(each)}</td></tr>'
        for each in rules
    )
    head = '<tr><th>rule</th><th class="n">units</th><th>does</th></tr>'
    return f"<h2>Rules</h2><table>{head}{rows}</table>"


def _counts(report: Report) -> str:
    return (
        f"read {report['read']} = accepted {report['accepted']} + "
        f"quarantined {report['quarantined']}; unchanged {report['unchanged']}, "
        f"warnings {report['warnings']}"
    )


def _does(each: Mapping[str, Any]) -> str:
    return "quarantines" if each["severity"] == "error" else "is noted"


def _delays(timeliness: Mapping[str, Any]) -> str:
    if not timeliness["records"]:
        return "timeliness –"
    classes = ", ".join(f"{name} {count}" for name, count in timeliness["classes"].items() if count)
    return f"timeliness: mean {timeliness['mean_days']} days ({classes})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
