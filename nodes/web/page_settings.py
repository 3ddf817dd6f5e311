"""What the page has to know before it can connect: names, the pipeline's members, and what its login may do. Pure."""

from __future__ import annotations

import secrets
from importlib.metadata import version
from typing import Any, Final

from broker.topics import Namespace
from nodes.config.sections import Config
from pipeline.protocol_version import PROTOCOL_VERSION

SETTINGS_PATH: Final = "/settings.json"
RELAY_PATH: Final = "/mqtt"
OPERATOR: Final = "operator"


def page_settings(config: Config) -> dict[str, Any]:
    """The settings of one page, as plain JSON values; each call has another client id, for another tab."""
    member = config.broker.credentials
    client = f"web-{secrets.token_hex(4)}"
    names = Namespace(config.pipeline)
    login = config.broker.username, config.broker.password
    return {
        "version": version("trisect"),
        "protocol": PROTOCOL_VERSION,
        "pipeline": config.pipeline,
        "prefix": names.prefix,
        "broker": ", ".join(f"{host}:{port}" for host, port in config.broker.endpoints),
        "relay": RELAY_PATH,
        "client_id": ".".join((f"trisect.{config.pipeline}.{client}", *([member.secret] if member else []))),
        "reply_client": member.name if member else client,
        "login": {"username": login[0], "password": login[1]} if login[0] is not None else None,
        "member": {"name": member.name, "roles": list(member.roles)} if member else None,
        "why_read_only": why_read_only(config),
        "planner": config.planner.id,
        "telemetry_interval_s": config.telemetry.interval_s,
        "nodes": {str(id_): {"tier": node.tier.label, "role": node.role} for id_, node in config.nodes.items()},
        "streams": {
            str(id_): {"device": stream.device, "model": stream.model} for id_, stream in config.streams.items()
        },
    }


def why_read_only(config: Config) -> str:
    """Why this login may not give commands, in words; empty when it may, or when only the broker knows."""
    member = config.broker.credentials
    if member is None or OPERATOR in member.roles:
        return ""
    return (
        f"{member.name} is enrolled as {', '.join(member.roles)}, and only an operator may give commands; "
        f"to change something, start `trisect web` with an operator's enrolment"
    )
