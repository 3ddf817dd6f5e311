"""The numbers of nodes' telemetry as metrics: names, kinds and units as OpenMetrics has them.

Only what stands in these tables is exported, so that nobody who writes telemetry makes new metrics or labels. Counters
are named here without the `_total` that they are exported with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

NODE: Final = "trisect_node_"
STREAM: Final = "trisect_stream_"


@dataclass(frozen=True, slots=True, eq=False)  # each is one row of a table; compared by identity, they are quick keys
class Number:
    """A number of a report: `key` in the telemetry, `name` behind the prefix; `unit` ends the name where there is one.

    `label` is name and value of one more label, for numbers that share a name.
    """

    key: str
    name: str
    kind: Literal["counter", "gauge"]
    help: str
    unit: str = ""
    label: tuple[str, str] | None = None


def _counter(key: str, help_: str, *, name: str = "", unit: str = "") -> Number:
    return Number(key, name or key.removesuffix("_total"), "counter", help_, unit)


def _gauge(key: str, help_: str, *, name: str = "", unit: str = "", label: tuple[str, str] | None = None) -> Number:
    return Number(key, name or key, "gauge", help_, unit, label)


NODE_NUMBERS: Final = (
    _counter("sent_bytes_total", "Bytes sent, to the broker and directly.", unit="bytes"),
    _counter("received_bytes_total", "Payload bytes received, from the broker and directly.", unit="bytes"),
    _counter("direct_sent_bytes_total", "Bytes sent directly to other nodes.", unit="bytes"),
    _counter("direct_received_bytes_total", "Payload bytes received directly from other nodes.", unit="bytes"),
    _counter("direct_sent_again_total", "Messages that a direct way gave up and the broker took."),
    _counter("reconnects_total", "Connections that were lost and made again."),
    _counter("refused_total", "Messages refused for what they held."),
    _counter("missed_messages_total", "Messages that the broker dropped."),
    _counter("internal_errors_total", "Events, jobs and callbacks that raised an error."),
    _counter("frames_total", "Frames computed."),
    _counter("batched_frames_total", "Frames computed together with others."),
    _counter("tiles_total", "Tiles computed."),
    _counter("unsent_tensors_total", "Tensors that the broker did not take in time."),
    _counter("overrun_messages_total", "Tensor messages that found the decode queue full."),
    _counter("wire_errors_total", "Tensor messages that could not be decoded."),
    _counter("stale_tensors_total", "Tensors of frames or epochs that were let go."),
    _counter("stale_tiles_total", "Tiles of frames or epochs that were let go."),
    _counter("unasked_answers_total", "Outputs from nodes that were not asked for them."),
    _counter("duplicate_tiles_ignored_total", "Tiles that came back more than once."),
    _counter("tiles_asked_again_total", "Tiles asked of another worker."),
    _counter("refused_plans_total", "Plans that the node could not prepare."),
    _counter("plans_total", "Plans published by the planner."),
    _counter("clock_steps_total", "Times that a clock was set or stopped."),
    _gauge("resident_bytes", "Memory of the process.", unit="bytes"),
    _gauge("processor_share", "Cores kept busy since the last report; 1 is one core.", name="processor_cores"),
    _gauge("threads", "Threads of the process."),
    _gauge("queue_depth", "Jobs that wait for the compute thread.", name="queued_jobs"),
    _gauge("queued_bytes", "Bytes that the broker has not acknowledged.", unit="bytes"),
    _gauge("clock_offset_seconds", "Seconds to add for the pipeline's clock.", unit="seconds"),
    _gauge("clock_error_seconds", "Bound of the clock offset's error.", unit="seconds"),
    _gauge(
        "certificate_seconds_left",
        "Seconds until the certificate ends.",
        name="certificate_left_seconds",
        unit="seconds",
    ),
    _gauge("link.up_bytes_per_s", "Rate of the way to the broker.", name="link_bytes_per_second", label=("way", "up")),
    _gauge(
        "link.down_bytes_per_s", "Rate of the way to the broker.", name="link_bytes_per_second", label=("way", "down")
    ),
    _gauge("link.round_trip_s", "Round trip to the broker.", name="link_round_trip_seconds", unit="seconds"),
)

STREAM_NUMBERS: Final = (
    _counter("frames_total", "Frames of the stream that the node has computed.", name="computed_frames"),
    _counter("frames_in_total", "Frames that entered."),
    _counter("replayed_total", "Frames taken up after a restart of the device."),
    _counter("results_total", "Frames answered."),
    _counter("error_results_total", "Frames answered with an error."),
    _counter("resubmitted_total", "Attempts after the first."),
    _counter("duplicates_ignored_total", "Outputs that came more than once."),
    _counter("dropped_at_source_total", "Frames of a live source that were dropped before they entered."),
    _counter("plan_changes_total", "Changes of the active plan."),
    _counter("sent_bytes_total", "Tensor bytes sent.", unit="bytes"),
    _counter("received_bytes_total", "Frame and tensor bytes received.", unit="bytes"),
    _gauge("in_flight", "Frames in flight.", name="in_flight_frames"),
    _gauge("backlog", "Frames that wait at the device.", name="backlog_frames"),
    _gauge("epoch", "Epoch that the node has computed last."),
)

STAGES: Final = ("decode", "queue", "compute", "encode", "gather", "tile", "frame_overhead", "latency")
"""Durations that a node reports by stream, as `<stage>_seconds_p50` and `_p95`."""
PERCENTILES: Final = {"p50": "50", "p95": "95"}

FRAME_SECONDS: Final = "trisect_frame_seconds"
NODE_INFO: Final = "trisect_node"
NODE_STATE: Final = "trisect_node_state"
NODE_UP: Final = "trisect_node_up"
REPORT_AGE: Final = "trisect_node_report_age_seconds"
STAGE_SECONDS: Final = "trisect_stage_seconds"
LEG_SECONDS: Final = "trisect_leg_seconds"
PREDICTED_LATENCY: Final = "trisect_plan_predicted_latency_seconds"
PREDICTED_PERIOD: Final = "trisect_plan_predicted_period_seconds"
PLAN_EPOCH: Final = "trisect_plan_epoch"
IGNORED: Final = "trisect_exporter_ignored_messages"
BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the histogram of frames, in seconds."""


def exported(prefix: str, number: Number) -> str:
    """The full name of a number's family, without `_total`."""
    name = prefix + number.name
    return name if not number.unit or name.endswith(number.unit) else f"{name}_{number.unit}"


def sample_names() -> frozenset[str]:
    """Names of all samples that can be exported: what a dashboard or an alert may ask for."""
    named = [(exported(NODE, number), number.kind) for number in NODE_NUMBERS]
    named += [(exported(STREAM, number), number.kind) for number in STREAM_NUMBERS]
    names = {f"{name}_total" if kind == "counter" else name for name, kind in named}
    histogram = {f"{FRAME_SECONDS}_{part}" for part in ("bucket", "count", "sum")}
    gauges = {NODE_STATE, NODE_UP, REPORT_AGE, STAGE_SECONDS, LEG_SECONDS}
    plans = {PREDICTED_LATENCY, PREDICTED_PERIOD, PLAN_EPOCH}
    return frozenset(names | histogram | gauges | plans | {f"{NODE_INFO}_info", f"{IGNORED}_total"})
