"""For mkdocs: a name of the API in backticks, on any page and in any docstring, is a link to its place in the reference."""

import re
from pathlib import Path
from typing import Any

_NAMES = {
    path.rpartition(".")[2]: path
    for path in re.findall(r"^::: (\S+)", (Path(__file__).parent / "reference.md").read_text("utf-8"), re.M)
}
del _NAMES["precision_recall"]  # a chart has that name too
_IN_BACKTICKS = re.compile(r"<code>((?:[a-z_]+\.)?(\w+)((?:\.\w+)*)(?:\(\))?)</code>(?!</a>|</autoref>)")
_SENTENCE_FOR_A_TYPE = re.compile(r"<code>[^<]*`[^<]*</code>")
_NO_DESCRIPTION = re.compile(r"\u2013\s*<div class=\"doc-md-description\">\s*</div>")


def _link(found: re.Match[str]) -> str:
    text, name, member = found.groups()
    if name not in _NAMES:
        return found.group()
    # "optional": a member that the reference does not show stays as it is.
    return f'<autoref identifier="{_NAMES[name]}{member}" optional><code>{text}</code></autoref>'


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    html = _SENTENCE_FOR_A_TYPE.sub(lambda found: found.group().replace("`", ""), _NO_DESCRIPTION.sub("", html))
    return _IN_BACKTICKS.sub(_link, html)
