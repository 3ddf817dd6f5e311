"""What to ask whom for, so that the pieces of one package come that are wanted here. Pure: no socket, no clock.

A node subscribes to all pieces that it wants and asks for a few at a time. Whoever has them publishes each once, and
the broker hands it to all that have subscribed: so nodes that want the same pieces at the same time share the sender's
line. To that end no two of them ask for the same pieces: who finds that the next one has come already, since somebody
else had asked for it, goes on within the longest run that is still missing, each node at another place. Since requests
cross with what is on its way, each says for how long the asker has been listening: who has sent a piece since then
need not send it again (`serving`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

LEAST_ASKED: Final = 2
MOST_ASKED: Final = 32
"""Pieces that may be on their way: all of them come again when the line breaks."""
AHEAD_S: Final = 0.25
"""So many seconds of the line are asked for."""
PATIENCE_S: Final = 5.0
PENALTY_S: Final = 10.0
MOST_PENALTY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Have these pieces come, whoever sends them."""

    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """These have come, or are not wanted any more."""

    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a holder to publish these pieces. All that were published in the last `listening_s` seconds come anyway."""

    holder: str
    pieces: tuple[int, ...]
    listening_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Complete:
    """All that was wanted under this key is here."""

    key: Hashable


Action: TypeAlias = Subscribe | Unsubscribe | Ask | Complete


@dataclass(slots=True)
class _Holder:
    """Somebody who has pieces; `failed` counts what was asked in vain since something last came from there."""

    pieces: frozenset[int]
    failed: int = 0
    shunned_until: float = 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    holder: str
    at: float


class Fetcher:
    """The pieces of one package. `held` are here already; `piece_bytes` are those of a piece.

    `share`, from 0 to 1, is where in what is missing it begins: another one for each node.
    `now` is seconds of any clock that only advances.
    """

    def __init__(self, piece_bytes: int, held: Iterable[int] = (), *, share: float = 0.5) -> None:
        self._piece_bytes, self._share = piece_bytes, share
        self._held = set(held)
        self._wanted: dict[Hashable, frozenset[int]] = {}
        self._missing: set[int] = set()
        self._subscribed: set[int] = set()
        self._listening_since: dict[int, float] = {}
        self._asked: dict[int, _Asked] = {}
        self._holders: dict[str, _Holder] = {}
        self._next = -1
        self._rate: float | None = None

    @property
    def missing(self) -> frozenset[int]:
        """Pieces that are wanted and not here."""
        return frozenset(self._missing)

    @property
    def wanted(self) -> frozenset[int]:
        """Pieces that are waited for, or came for somebody who still waits for others."""
        return frozenset().union(*self._wanted.values())

    @property
    def is_stuck(self) -> bool:
        """True when nobody is known to have any of what is missing."""
        return bool(self._missing) and not any(holder.pieces & self._missing for holder in self._holders.values())

    def want(self, key: Hashable, pieces: Iterable[int], now: float) -> list[Action]:
        """Have these pieces come; `Complete` says when they are here, which may be at once."""
        self._wanted[key] = frozenset(pieces)
        return self._settle(now)

    def drop(self, key: Hashable, now: float) -> list[Action]:
        """Want them no longer, or not for this."""
        self._wanted.pop(key, None)
        return self._settle(now)

    def lost(self, pieces: Iterable[int], now: float) -> list[Action]:
        """These are not here any more."""
        self._held.difference_update(pieces)
        return self._settle(now)

    def holds(self, holder: str, pieces: Collection[int], now: float) -> list[Action]:
        """Take what somebody says that he has."""
        if pieces:
            known = self._holders.setdefault(holder, _Holder(frozenset()))
            known.pieces = frozenset(pieces)
        elif self._holders.pop(holder, None) is not None:
            self._forget_asked(lambda asked: asked.holder == holder)
        return self._ask(now)

    def listens(self, pieces: Iterable[int], now: float) -> None:
        """The broker has confirmed the subscription of these: whoever publishes them from now on is heard."""
        self._listening_since |= dict.fromkeys(self._subscribed.intersection(pieces), now)

    def arrived(self, piece: int, sender: str, now: float, *, rate: float | None = None) -> list[Action]:
        """A piece has come and is the right one; `rate` is what the line is seen to carry, in bytes per second."""
        self._rate = rate or self._rate
        self._held.add(piece)
        self._asked.pop(piece, None)
        if sender in self._holders:
            self._holders[sender].failed = 0
        return self._settle(now)

    def refused(self, piece: int, sender: str, now: float) -> list[Action]:
        """What came as this piece was another: ask somebody else."""
        self._asked.pop(piece, None)
        self._shun(sender, now)
        return self._ask(now)

    def reconnected(self, now: float) -> list[Action]:
        """The line was broken: what was on its way is lost."""
        self._asked.clear()
        self._listening_since.clear()
        return self._ask(now)

    def tick(self, now: float) -> list[Action]:
        """See what does not come."""
        overdue = {asked.holder for asked in self._asked.values() if now - asked.at >= self._patience_s}
        if overdue:
            self._forget_asked(lambda asked: now - asked.at >= self._patience_s)
        for holder in overdue:
            self._shun(holder, now)
        return self._ask(now)

    def validate(self) -> None:
        """Assert what always holds."""
        wanted = set().union(*self._wanted.values())
        assert self._missing == wanted - self._held
        assert self._subscribed == self._missing
        assert self._listening_since.keys() <= self._subscribed
        assert self._asked.keys() <= self._missing
        assert len(self._asked) <= MOST_ASKED

    @property
    def _patience_s(self) -> float:
        if self._rate is None:
            return PATIENCE_S
        return max(PATIENCE_S, 4 * MOST_ASKED * self._piece_bytes / self._rate)

    @property
    def _window(self) -> int:
        ahead = int((self._rate or 0.0) * AHEAD_S / self._piece_bytes)
        return max(LEAST_ASKED, min(MOST_ASKED, ahead))

    def _forget_asked(self, is_over: Callable[[_Asked], bool]) -> None:
        self._asked = {piece: asked for piece, asked in self._asked.items() if not is_over(asked)}

    def _shun(self, holder: str, now: float) -> None:
        known = self._holders.get(holder)
        if known is not None:
            known.failed += 1
            known.shunned_until = now + min(MOST_PENALTY_S, PENALTY_S * 2.0 ** (known.failed - 1))

    def _settle(self, now: float) -> list[Action]:
        """Bring what is missing, and what is subscribed, up to date."""
        done = [key for key, pieces in self._wanted.items() if pieces <= self._held]
        for key in done:
            del self._wanted[key]
        self._missing = set().union(*self._wanted.values()) - self._held
        self._asked = {piece: asked for piece, asked in self._asked.items() if piece in self._missing}
        actions: list[Action] = []
        if more := tuple(sorted(self._missing - self._subscribed)):
            actions.append(Subscribe(more))
        if less := tuple(sorted(self._subscribed - self._missing)):
            actions.append(Unsubscribe(less))
        self._subscribed = set(self._missing)
        self._listening_since = {p: since for p, since in self._listening_since.items() if p in self._missing}
        return [*actions, *self._ask(now), *map(Complete, done)]

    def _ask(self, now: float) -> list[Action]:
        asked: dict[str, list[int]] = {}
        while len(self._asked) < self._window and (choice := self._choose(now)) is not None:
            holder, piece = choice
            self._asked[piece] = _Asked(holder, now)
            asked.setdefault(holder, []).append(piece)
            self._next = piece + 1
        return [Ask(holder, tuple(pieces), self._listening_s(pieces, now)) for holder, pieces in asked.items()]

    def _listening_s(self, pieces: Iterable[int], now: float) -> float:
        """Seconds for which all of these have been listened to."""
        return max(0.0, now - max(self._listening_since.get(piece, now) for piece in pieces))

    def _choose(self, now: float) -> tuple[str, int] | None:
        """The next piece, and from whom; None when there is nothing to ask for, or nobody to ask."""
        willing = {name: holder for name, holder in self._holders.items() if holder.shunned_until <= now}
        there = frozenset().union(*(holder.pieces for holder in willing.values()))
        free = sorted((self._missing - self._asked.keys()) & there)
        if not free:
            return None
        piece = self._next if self._next in set(free) else _within_longest(free, self._share)
        able = [name for name, holder in willing.items() if piece in holder.pieces]
        return min(able, key=lambda name: self._burden(name, willing)), piece

    def _burden(self, name: str, willing: Mapping[str, _Holder]) -> tuple[int, int, int, str]:
        """Whom to ask rather: who has not failed, since what a dead process held stays said; then with the least asked
        for; then who has little, so that who has all is left to others.
        """
        outstanding = sum(asked.holder == name for asked in self._asked.values())
        return willing[name].failed, outstanding // LEAST_ASKED, len(willing[name].pieces), name


def _within_longest(free: list[int], share: float) -> int:
    longest = max(_runs(free), key=len)
    return longest[min(int(len(longest) * share), len(longest) - 1)]


def _runs(free: list[int]) -> Iterator[list[int]]:
    for _, run in itertools.groupby(enumerate(free), key=lambda pair: pair[1] - pair[0]):
        yield [piece for _, piece in run]
