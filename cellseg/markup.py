"""HTML from its parts: all that is not HTML already is escaped."""

import base64
import html
from collections.abc import Sequence

VOID = ("br", "img", "meta")
"""elements without an end"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: str) -> Html:
    """The text as it is to be read; HTML stays as it is.

    >>> escaped("<b> & co")
    '&lt;b&gt; &amp; co'
    """
    return text if isinstance(text, Html) else Html(html.escape(text))


def joined(parts: Sequence[str]) -> Html:
    """The parts one after the other, a line each."""
    return Html("\n".join(map(escaped, parts)))


def element(name: str, /, *children: str, **attributes: str) -> Html:
    """An element. Attributes are named as in HTML, with _ for -, and one behind a word of Python's.

    >>> element("p", "a < b ", element("b", "c"), class_="note")
    '<p class="note">a &lt; b <b>c</b></p>'
    """
    named = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{named}>")
    return Html(f"<{name}{named}>{''.join(map(escaped, children))}</{name}>")


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table whose first column names its rows; it scrolls by itself where it is wider than the page."""
    columns = (element("th", each, scope="col") for each in head)
    lines = [
        element(
            "tr", element("th", first, scope="row"), *(each if _is_cell(each) else element("td", each) for each in rest)
        )
        for first, *rest in rows
    ]
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *columns)),
        element("tbody", joined(lines)),
    )
    return element("div", whole, class_="scrolls", role="region", aria_label=caption, tabindex="0")


def picture(content: bytes, alt: str, kind: str = "image/svg+xml") -> Html:
    """An image file of a media type, and in words what it shows."""
    return element("img", src=f"data:{kind};base64,{base64.b64encode(content).decode()}", alt=alt)


def beside(*parts: Html) -> Html:
    """Figures and tables side by side where there is room."""
    return element("div", *parts, class_="beside")


def _is_cell(text: str) -> bool:
    """Whether it is a cell of a table, and not what stands in one."""
    return isinstance(text, Html) and text.startswith("<td")
