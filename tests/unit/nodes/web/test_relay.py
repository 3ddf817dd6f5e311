"""The relay's way to a broker: where there is none, the page is told why in words."""

from __future__ import annotations

import asyncio

import pytest

from broker.messages import Address
from broker.ports import free_port
from nodes.web.relay import BrokerAway, connect


def test_a_broker_that_is_not_there_is_named_with_the_reason() -> None:
    first, second = free_port("127.0.0.1"), free_port("127.0.0.1")
    with pytest.raises(
        BrokerAway, match=f"127.0.0.1:{first}: Connection refused; 127.0.0.1:{second}: Connection refused"
    ):
        asyncio.run(connect(Address("127.0.0.1", first, alternatives=(("127.0.0.1", second),))))
