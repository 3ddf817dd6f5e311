"""A bound for many sets of nodes at once: the costs of a set that no node offers, the elementwise best of all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.coding import CodecCosts, CodecSpeed
from pipeline.cost import LINKS, Costs, Link
from pipeline.energy import Draw
from pipeline.placement import Tier
from pipeline.shared_cores import joined


def best_of(costs: Sequence[Costs]) -> Costs:
    """Costs of the same tiers, chosen codecs by the same worth, under which no placement is worth more than under any.

    `seconds` that several share are looked at once.
    """
    if len(costs) == 1:
        return costs[0]
    seconds = {}
    for tier in costs[0].seconds:
        distinct = {id(c.seconds[tier]): c.seconds[tier] for c in costs}.values()
        seconds[tier] = tuple(np.min(np.asarray(list(distinct), float), axis=0).tolist())
    prices = {tier: min(c.prices.get(tier, 0.0) for c in costs) for tier in seconds}
    send_receive_overhead = {tier: min(c.send_receive_overhead.get(tier, 0.0) for c in costs) for tier in seconds}
    links = {
        lower: Link(
            max(c.link(lower).bandwidth_bytes_per_s for c in costs), min(c.link(lower).latency_s for c in costs)
        )
        for lower in LINKS
    }
    draws = {
        tier: Draw(
            min(c.draw(tier).watts for c in costs),
            min(c.draw(tier).joules_per_byte for c in costs),
        )
        for tier in seconds
    }
    frame_overhead_s = min(c.frame_overhead_s for c in costs)
    return Costs(
        seconds,
        links[Tier.DEVICE],
        links[Tier.EDGE],
        prices,
        send_receive_overhead,
        frame_overhead_s,
        codecs=_best_codecs([c.codecs for c in costs if c.codecs is not None], by_sums=not costs[0].worth.period),
        worth=costs[0].worth,
        draws=draws,
        cores=joined(c.cores for c in costs),
        is_bound=True,
    )


def _best_codecs(known: Sequence[CodecCosts], *, by_sums: bool) -> CodecCosts | None:
    """Codecs with which no tensor takes more on any way than with any of these.

    Objectives that are sums choose the least, so it is enough that each codec is nowhere slower. By the period a
    quicker coder may be given another codec with more bytes: there coding takes nothing, and the fewest bytes win.
    """
    if not known:
        return None
    ratios: dict[int, dict[str, float]] = {}
    speeds: dict[Tier, dict[str, CodecSpeed]] = {}
    for codecs in known:
        for tensor, by_codec in codecs.ratios.items():
            for codec, ratio in by_codec.items():
                of_tensor = ratios.setdefault(tensor, {})
                of_tensor[codec] = max(ratio, of_tensor.get(codec, 0.0))
        for tier, by_name in codecs.speeds.items():
            of_tier = speeds.setdefault(tier, {})
            for codec, speed in by_name.items():
                best = of_tier.get(codec, speed)
                of_tier[codec] = CodecSpeed(
                    max(best.encode_bytes_per_s, speed.encode_bytes_per_s),
                    max(best.decode_bytes_per_s, speed.decode_bytes_per_s),
                    min(best.encode_call_s, speed.encode_call_s),
                    min(best.decode_call_s, speed.decode_call_s),
                )
    if by_sums:
        return CodecCosts(ratios, speeds)
    at_once = CodecSpeed(math.inf, math.inf)
    return CodecCosts(ratios, {tier: dict.fromkeys(by_name, at_once) for tier, by_name in speeds.items()})
