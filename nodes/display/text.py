"""Foreign text made harmless: labels, names, ids and errors come from peers and files, and a terminal obeys them.

Everything that nodes print or log goes through here. Knows no message.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

LONGEST = 500
REPLACEMENT = "\ufffd"
_MAX_LINE = 4_000
"""Characters of a log line: a message of megabytes is no news."""


def plain(text: object, longest: int = LONGEST) -> str:
    """One line without what a terminal would obey, and not endless."""
    whole = str(text)
    shown = whole if len(whole) <= longest else whole[: longest - 1] + "…"
    return "".join(char if char.isprintable() else REPLACEMENT for char in shown)


def plain_lines(text: str) -> str:
    """The same for text of ours that has several lines, of any length."""
    return "".join(char if char.isprintable() or char == "\n" else REPLACEMENT for char in text)


def json_line(value: Any) -> str:
    """JSON on one line, letters of all languages as they are, whatever a terminal would obey escaped."""
    return json_text(value)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """The same, with a line for each value where `indent` asks for it."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return re.sub(r"[^\x20-\x7e\n]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    # not json's own escapes: they leave DEL as it is
    return found[0] if found[0].isprintable() else "".join(f"\\u{unit:04x}" for unit in _utf16(found[0]))


def _utf16(char: str) -> Iterable[int]:
    return memoryview(char.encode("utf-16-le", "surrogatepass")).cast("H")


class LogFormatter(logging.Formatter):
    """One line for each record, whatever is in it; a traceback follows, indented, so that it forges none."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return plain(super().formatMessage(record), _MAX_LINE)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"  {plain(line, _MAX_LINE)}" for line in super().formatException(ei).split("\n"))
