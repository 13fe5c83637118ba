"""``index.html``: a list of the results of :func:`avseg.pipeline.batch.predict_many`."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from avseg.pipeline.outcome import Outcome

MARK = '<meta name="generator" content="avseg">'
"""Line by which an index.html of avseg is recognised."""
_MOST_INTERVALS = 5
"""Largest number of intervals listed for one video."""
_HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>avseg: results</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .5em .7em; border-bottom: 1px solid #ddd }}
td {{ overflow-wrap: anywhere }}
a {{ color: #9b1168 }}
img {{ width: 30em; max-width: 45vw; height: auto }}
.failed {{ color: #a40000 }}
@media (max-width: 40em) {{
  tr, td {{ display: block }}
  th {{ display: none }}
  tr {{ padding: .5em 0; border-bottom: 1px solid #ddd }}
  td {{ padding: .2em 0; border: 0 }}
  img {{ width: 100%; max-width: none }}
}}
</style>
</head>
<body>
<h1>Results</h1>
"""


def page(outcomes: Sequence[Outcome], folder: Path) -> str:
    """Return the page as HTML.

    Args:
        outcomes: Rows of the list.
        folder: Folder of the page, to which its links are relative.
    """
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    rows = "\n".join(_row(outcome, folder) for outcome in outcomes)
    return (
        f"{_HEAD}<p>{len(outcomes)} videos, {failed} failed.</p>\n"
        f"<table>\n<tr><th>video</th><th>sounding</th><th></th></tr>\n{rows}\n</table>\n</body>\n</html>\n"
    )


def _row(outcome: Outcome, folder: Path) -> str:
    name = escape(str(outcome.video))
    if outcome.to_open is None:
        return f'<tr><td>{name}</td><td class="failed" colspan="2">failed: {escape(outcome.message)}</td></tr>'
    named = zip(outcome.intervals, outcome.captions, strict=True)
    spans = [f"{start:.2f} to {end:.2f} s {caption}" for (start, end, _), caption in named]
    more = len(spans) - _MOST_INTERVALS
    shown = spans[:_MOST_INTERVALS] + ([f"and {more} more"] if more > 0 else [])
    listed = "<br>".join(map(escape, shown)) or "no sounding object"
    summary = outcome.folder / "summary.png"
    image = ""
    if summary.is_file():
        source = _link(summary, folder)
        image = f'<a href="{source}"><img loading="lazy" alt="summary" src="{source}"></a>'
    links = (
        f'<a href="{_link(outcome.to_open, folder)}">{name}</a><br><a href="{_link(outcome.folder, folder)}/">files</a>'
    )
    return f"<tr><td>{links}</td><td>{listed}</td><td>{image}</td></tr>"


def _link(path: Path, folder: Path) -> str:
    return escape(quote(path.relative_to(folder).as_posix()))
