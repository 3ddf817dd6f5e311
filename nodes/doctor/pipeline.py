"""What `trisect doctor` asks of a running pipeline: who is there, in which version, on which engine; the clocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from broker.errors import BrokerError, RequestTimeout
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.doctor.findings import Finding, ok, warning, wrong
from nodes.protocol import versions
from nodes.protocol.asking import ask
from nodes.protocol.commands import PING
from nodes.protocol.messages import LifeState, MessageError
from nodes.session.presence import guest_session, reply_topic
from nodes.watch import app as view
from nodes.watch.overview.known import RUNNING, STATE_TEXTS

SERVING: Final = frozenset({LifeState.READY.value, LifeState.DRAINING.value})
MOST_OFFSET_S: Final = 1.0
"""Between clocks: logs are hard to read together beyond it. Times in results are corrected either way."""
MOST_SKEW_S: Final = 3600.0
"""Beyond it, certificates seem not valid yet or not any more."""


def look(config: Config, *, timeout_s: float) -> Iterator[Finding]:
    """Findings on all nodes and streams, as far as this member may see them."""
    member = config.broker.credentials
    if member is None or {"operator", "viewer", "planner"} & set(member.roles):
        try:
            snapshot = view.snapshot(config, timeout_s=timeout_s)
        except BrokerError as error:
            yield wrong("pipeline", str(error), "see the broker's log")
            return
        yield from _nodes(snapshot["nodes"])
        yield from _engines(snapshot)
        yield from _streams(snapshot["streams"])
    if member is None or {"node", "planner", "operator"} & set(member.roles):
        yield _clock(config, timeout_s)


def _nodes(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    ours = version("trisect")
    for name, node in nodes.items():
        if node["state"] not in SERVING:
            why = f": {node['message']}" if node["message"] else ""
            yield warning("node", f"{name} is {node['state']}{why}", f"start it, or `trisect forget {name}`")
            continue
        theirs = node["version"]
        if theirs is not None and (refused := versions.refusal(theirs, ours)) is not None:
            yield wrong("version", f"{name}: {refused}", "pip install the same version on both machines")
        else:
            yield ok("node", f"{name} is {node['state']}" + (f", trisect {theirs}" if theirs else ""))
        telemetry = node["telemetry"] or {}
        left_s = telemetry.get("certificate_seconds_left")
        if left_s is not None and left_s < 30 * 86_400:
            yield warning("certificate", f"{name}'s ends in {left_s / 86_400:.0f} days", f"trisect renew {name}")
        if telemetry.get("internal_errors_total"):
            text = f"{name}: {telemetry['internal_errors_total']:.0f} internal errors"
            yield warning("node", text, "see its log, and report them")


def _streams(streams: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    for name, stream in streams.items():
        if stream["state"] != RUNNING:
            text = "; ".join(
                (f"stream {name}: {STATE_TEXTS.get(stream['state'], stream['state'])}", *stream["problems"])
            )
            yield wrong("stream", text, "start what is missing; its log says why it ended")


def _engines(snapshot: Mapping[str, Any]) -> Iterator[Finding]:
    serving = {name: node for name, node in snapshot["nodes"].items() if node["state"] in SERVING and node["engine"]}
    used = {f"{node['engine']} {node['engine_version']}" for node in serving.values()}
    if len(used) > 1:
        shown = ", ".join(f"{name}: {node['engine']} {node['engine_version']}" for name, node in serving.items())
        yield warning("engines", shown, "install one version everywhere, so that plans may mix all nodes")
    elif used:
        yield ok("engines", f"{used.pop()} on all {len(serving)} nodes")


def _clock(config: Config, timeout_s: float) -> Finding:
    """The planner's clock against this one's, to half a round trip."""
    names = Namespace(config.pipeline)
    planner = config.planner.id
    try:
        with guest_session(config, "doctor") as session:
            session.start(timeout_s)
            sent = time.time()
            answers = reply_topic(config, session)
            answer = ask(session, names, planner, PING, {}, reply_topic=answers, timeout_s=timeout_s)
            received = time.time()
    except RequestTimeout:
        return warning("clock", f"{planner} does not answer", "start the planner; without it the last plans go on")
    except (BrokerError, MessageError) as error:
        return wrong("clock", str(error), "see the broker's log")
    read = answer.get("clock_ts")
    if not isinstance(read, int | float):
        return warning("clock", f"{planner} does not say its time", "update it")
    offset_s, error_s = read - (sent + received) / 2, (received - sent) / 2
    text = f"{planner} is {offset_s:+.3f} s ahead of this machine, give or take {error_s:.3f} s"
    remedy = "switch on time synchronisation on both: timedatectl set-ntp true"
    if abs(offset_s) > MOST_SKEW_S:
        return wrong("clock", text, remedy)
    return warning("clock", text, remedy) if abs(offset_s) - error_s > MOST_OFFSET_S else ok("clock", text)
