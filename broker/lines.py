"""Which line a channel has: our own where tensors pass, paho elsewhere."""

from __future__ import annotations

from broker.bulk_line import BulkLine, Place
from broker.line import Line, LineUser
from broker.messages import Address, Limits, Will
from broker.paho_line import PahoLine
from broker.policy import Policy


def new_line(
    address: Address, user: LineUser, *, client_id: str, policy: Policy, limits: Limits, place: Place, will: Will | None
) -> Line:
    """The line of one connection, not opened. Raises ValueError for a will where tensors pass."""
    manual_ack = policy.manual_ack
    if not policy.for_tensors:
        return PahoLine(address, user, client_id=client_id, manual_ack=manual_ack, limits=limits, will=will)
    if will is not None:
        raise ValueError("a will belongs to the connection whose loss means that the node is lost")
    return BulkLine(address, user, client_id=client_id, manual_ack=manual_ack, limits=limits, place=place)
