"""Fetching pieces: each asked for once, shared among those that want the same, and asked of others when one is mute."""

import random
from collections import deque
from collections.abc import Iterable

import pytest

from nodes.packages.fetching import (
    MOST_ASKED,
    PATIENCE_S,
    Action,
    Ask,
    Complete,
    Fetcher,
    Subscribe,
    Unsubscribe,
)
from nodes.packages.serving import GATHER_S, Queue

PIECES = 150
PIECE_BYTES = 1_000


def test_all_that_is_wanted_is_subscribed_at_once_and_asked_for_a_few_at_a_time() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.holds("edge", range(PIECES), 0.0)
    actions = fetcher.want("epoch 1", range(10, 30), 0.0)
    assert Subscribe(tuple(range(10, 30))) in actions
    (asked,) = [action for action in actions if isinstance(action, Ask)]
    assert len(asked.pieces) < 20
    assert set(asked.pieces) <= set(range(10, 30))


def test_what_is_here_already_is_complete_at_once() -> None:
    fetcher = Fetcher(PIECE_BYTES, held=range(5))
    assert fetcher.want("epoch 1", [1, 2], 0.0) == [Complete("epoch 1")]


def test_who_wants_it_no_longer_unsubscribes_but_for_what_others_want() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.want("epoch 1", [1, 2, 3], 0.0)
    fetcher.want("epoch 2", [3, 4], 0.0)
    assert fetcher.drop("epoch 1", 0.0) == [Unsubscribe((1, 2))]
    assert fetcher.missing == {3, 4}


def test_a_holder_that_does_not_answer_is_left_for_another() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.holds("dead", range(10), 0.0)
    assert {a.holder for a in fetcher.want("x", range(10), 0.0) if isinstance(a, Ask)} == {"dead"}
    fetcher.holds("alive", range(10), 1.0)
    actions = fetcher.tick(PATIENCE_S + 0.1)
    assert {action.holder for action in actions if isinstance(action, Ask)} == {"alive"}


def test_who_never_answers_is_asked_no_more_while_another_does() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.holds("dead", range(5), 0.0)  # has less, and would be asked rather
    fetcher.want("x", range(PIECES), 0.0)
    fetcher.holds("alive", range(PIECES), 0.0)
    asked: list[str] = []
    pending = fetcher.tick(PATIENCE_S + 0.1)
    while pending:
        action = pending.pop()
        if isinstance(action, Ask):
            asked.append(action.holder)
            for piece in action.pieces if action.holder == "alive" else ():
                pending += fetcher.arrived(piece, "alive", 100.0)  # when nobody is shunned any more
    assert fetcher.missing == set()
    assert set(asked) == {"alive"}


def test_one_who_sends_something_else_is_not_asked_again_for_a_while() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.holds("liar", range(10), 0.0)
    fetcher.holds("honest", range(10), 0.0)
    fetcher.want("x", range(10), 0.0)
    actions = fetcher.refused(0, "liar", 0.1)
    for piece in (5, 6, 7):
        actions += fetcher.arrived(piece, "honest", 0.2)
    assert {a.holder for a in actions if isinstance(a, Ask)} == {"honest"}


def test_nobody_to_ask_is_said_and_heals() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.want("x", [1], 0.0)
    assert fetcher.is_stuck
    assert [a for a in fetcher.holds("edge", [1], 1.0) if isinstance(a, Ask)] == [Ask("edge", (1,))]
    assert not fetcher.is_stuck


def test_the_more_the_line_carries_the_more_is_on_its_way() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.holds("edge", range(PIECES), 0.0)
    on_their_way = sum(len(a.pieces) for a in fetcher.want("x", range(PIECES), 0.0) if isinstance(a, Ask))
    actions = fetcher.arrived(75, "edge", 0.1, rate=1e9)
    assert on_their_way < MOST_ASKED
    assert sum(len(a.pieces) for a in actions if isinstance(a, Ask)) >= MOST_ASKED - on_their_way


def test_what_comes_without_having_been_asked_for_is_not_asked_for() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.want("x", range(20), 0.0)
    for piece in range(15):
        fetcher.arrived(piece, "edge", 0.0)
    assert {p for a in fetcher.holds("edge", range(20), 1.0) if isinstance(a, Ask) for p in a.pieces} <= set(
        range(15, 20)
    )


def asked_since(actions: Iterable[Action]) -> list[float]:
    return [action.listening_s for action in actions if isinstance(action, Ask)]


def test_a_request_says_for_how_long_the_confirmed_subscription_has_stood() -> None:
    fetcher = Fetcher(PIECE_BYTES)
    fetcher.holds("edge", range(3), 0.0)
    assert asked_since(fetcher.want("x", range(3), 1.0)) == [0.0]
    fetcher.listens(range(3), 1.5)
    assert asked_since(fetcher.arrived(1, "edge", 4.0)) == [2.5]
    assert asked_since(fetcher.reconnected(5.0)) == [0.0]
    fetcher.validate()


class Several:
    """Three nodes, begun one after the other, and one sender; each message is late by a few rounds of a millisecond."""

    def __init__(self, seed: int, pieces: int, latest: int) -> None:
        self.draw, self.pieces = random.Random(seed), pieces
        names = ("a", "b", "c")
        self.fetchers = {name: Fetcher(PIECE_BYTES, share=self.draw.random()) for name in names}
        self.subscribed: dict[str, set[int]] = {name: set() for name in names}
        self.arriving: dict[str, deque[tuple[int, int]]] = {name: deque() for name in names}
        self.requests: deque[tuple[Ask, int]] = deque()
        self.begin = {name: self.draw.randrange(0, latest) for name in names}
        self.passed: dict[str, int] = {}
        self.done: set[str] = set()
        self.server, self.sent = Queue(), 0

    def perform(self, name: str, actions: Iterable[Action], step: int) -> None:
        for action in actions:
            match action:
                case Subscribe():
                    self.subscribed[name] |= set(action.pieces)
                    self.fetchers[name].listens(action.pieces, step * 0.001)
                case Unsubscribe():
                    self.subscribed[name] -= set(action.pieces)
                case Ask():
                    self.requests.append((action, step + self.draw.randrange(1, 4)))
                case Complete():
                    self.done.add(name)

    def go(self, step: int) -> None:
        now = step * 0.001
        for name, fetcher in self.fetchers.items():
            if step == self.begin[name]:
                self.passed[name] = self.sent
                self.perform(name, fetcher.holds("edge", range(self.pieces), now), step)
                self.perform(name, fetcher.want("x", range(self.pieces), now), step)
            if self.arriving[name] and self.arriving[name][0][1] <= step:
                piece, _ = self.arriving[name].popleft()
                self.perform(name, fetcher.arrived(piece, "edge", now, rate=4e4), step)
            if step % 50 == 0:
                fetcher.validate()

    def send(self, step: int) -> None:
        now = step * 0.001
        while self.requests and self.requests[0][1] <= step:
            asked, _ = self.requests.popleft()
            self.server.ask("p", asked.pieces, now, asked.listening_s)
        if (item := self.server.take(now)) is not None:
            self.sent += 1
            self.server.left(*item, now)
            for name, subscribed in self.subscribed.items():
                if item[1] in subscribed:
                    self.arriving[name].append((item[1], step + self.draw.randrange(2, 6)))

    def run(self) -> None:
        for step in range(20_000):
            self.go(step)
            self.send(step)
            if len(self.done) == len(self.fetchers):
                return
        raise AssertionError(f"only {sorted(self.done)} have all")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pieces", [11, PIECES])
def test_several_that_begin_while_the_first_piece_waits_have_each_sent_once(seed: int, pieces: int) -> None:
    several = Several(seed, pieces, latest=int(GATHER_S * 1_000))
    several.run()
    assert several.sent == pieces


@pytest.mark.parametrize("seed", range(4))
def test_who_begins_later_has_only_that_sent_again_which_had_passed(seed: int) -> None:
    several = Several(seed, PIECES, latest=1)
    several.begin["c"] = int(GATHER_S * 1_000) + 40 + seed * 20
    several.run()
    assert 0 < several.passed["c"] < PIECES
    assert several.sent == PIECES + several.passed["c"]
