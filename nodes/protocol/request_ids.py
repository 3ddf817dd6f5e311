"""Which requests have been taken: the same one, heard again, changes nothing a second time."""

from __future__ import annotations

from typing import Final

MOST_IDS: Final = 4_096


class RequestIds:
    """The newest request ids. Whoever asks makes a new one each time, which nobody can know before."""

    def __init__(self) -> None:
        self._known: dict[bytes, None] = {}

    def is_new(self, request_id: bytes | None) -> bool:
        """True at the first call with an id, and always for requests that have none."""
        if request_id is None:
            return True
        if request_id in self._known:
            return False
        self._known[request_id] = None
        if len(self._known) > MOST_IDS:
            del self._known[next(iter(self._known))]
        return True
