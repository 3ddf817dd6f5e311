"""An outbox that hands over what it has to another one, as that of a direct way does to the broker's."""

from __future__ import annotations

import threading

from broker.outbox import Outbox
from broker.packets import outgoing


def test_a_shut_outbox_gives_up_all_in_order_and_takes_nothing_until_it_is_opened() -> None:
    box, heir = Outbox("a", limit_bytes=1 << 20), Outbox("b", limit_bytes=1)
    items = [outgoing("t", bytes([number])) for number in range(4)]
    for item in items:
        assert box.put(item, wait_s=0)
    for mid in (1, 2):
        taken = box.take(8)
        assert taken is not None
        box.sent(mid, taken)
    box.acked(1)
    left = box.shut()
    assert left == items[1:]
    assert box.queued_bytes == 0
    assert box.acked(2) is None
    assert not box.put(items[0], wait_s=None)
    heir.inherit(left)
    assert heir.queued_bytes == sum(item.size for item in left)
    assert [heir.take(8) for _ in range(3)] == left
    box.open()
    assert box.put(items[0], wait_s=0)


def test_whoever_waits_for_room_is_let_go_when_the_outbox_is_shut() -> None:
    box, results = Outbox("a", limit_bytes=1), list[bool]()
    box.put(outgoing("t", b"first"), wait_s=0)
    waiting = threading.Thread(target=lambda: results.append(box.put(outgoing("t", b"second"), wait_s=None)))
    waiting.start()
    box.shut()
    waiting.join(30)
    assert results == [False]


def test_what_a_closed_outbox_inherits_is_settled_as_lost() -> None:
    box, told = Outbox("a", limit_bytes=1), list[bool]()
    box.close()
    item = outgoing("t", b"late")
    item.settled = told.append
    box.inherit([item])
    assert told == [False]
