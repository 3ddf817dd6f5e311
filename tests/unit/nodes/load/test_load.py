"""Windows, stability, percentiles and reports of load tests; no broker."""

from __future__ import annotations

import csv
import io
import itertools
import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
import typer

from nodes.cli.load import levels_of
from nodes.client.answers import Answer
from nodes.load.generator import Level, LoadTest, NotAnswered, Patience, thinned
from nodes.load.measuring import Sample, Window, breakdown, is_stable, spread, summary
from nodes.load.page import page
from nodes.load.report import csv_text, parts_table, read_report, table
from nodes.load.run import frames_of
from pipeline.errors import ConfigError
from tests.unit.nodes.watch.feed import GRAPH, plan_of, result_of

PLAN = plan_of(3).to_json(GRAPH)
PLANS = {3: PLAN}


def window_of(latencies: list[float], epoch: int = 3, *, seconds: float = 1.0, errors: int = 0) -> Window:
    samples = [Sample(0.0, latency, result_of(n, epoch, latency / 2)) for n, latency in enumerate(latencies)]
    failed = [Sample(0.0, 9.0, result_of(n, epoch, error="broken")) for n in range(errors)]
    return Window(10.0, 10.0 + seconds, (*samples, *failed))


def test_three_windows_that_agree_are_stable() -> None:
    same, slow = window_of([0.1] * 10), window_of([0.15] * 10)
    assert not is_stable([same, same], 0.1)
    assert is_stable([slow, same, same, same], 0.1)
    assert not is_stable([same, same, slow], 0.1)  # in latency
    assert not is_stable([same, same, window_of([0.1] * 5)], 0.1)  # in throughput
    assert not is_stable([window_of([])] * 3, 0.1)
    assert not is_stable([window_of([], errors=5)] * 3, 0.1)


def test_percentiles_are_the_nearest_ranks() -> None:
    found = spread([number / 1000 for number in range(1, 101)])
    assert (found["p50"], found["p90"], found["p99"], found["max"]) == (0.05, 0.09, 0.099, 0.1)
    assert spread([0.5])["p99"] == 0.5
    assert spread([]) == {}


def test_frames_that_failed_are_counted_and_not_timed() -> None:
    found = summary(window_of([0.1, 0.3], seconds=2.0, errors=3))
    assert (found["frames"], found["errors"], found["frames_per_second"]) == (2, 3, 1.0)
    assert found["client_seconds"]["mean"] == pytest.approx(0.2)
    assert found["device_seconds"]["mean"] == pytest.approx(0.1)


def test_parts_stand_next_to_the_plans_prediction_for_its_own_epoch() -> None:
    mixed = Window(0.0, 1.0, (*window_of([0.1] * 5, epoch=3).samples, *window_of([0.1] * 2, epoch=2).samples))
    found = breakdown(mixed, PLANS)
    assert (found["epoch"], found["epochs"]) == (3, 2)
    edge = next(stage for stage in found["stages"] if stage["tier"] == "edge")
    assert edge["compute_seconds"]["p50"] == 0.011
    assert edge["predicted_compute_seconds"] == round(PLAN["predicted"]["stages"]["edge"], 6)
    links = {link["link"]: link for link in found["links"]}
    assert links["device_edge"]["predicted_seconds"] == round(PLAN["predicted"]["links"]["device_edge"]["seconds"], 6)
    assert links["return"]["predicted_seconds"] is None
    frame = found["frame"]
    assert frame["predicted_latency_seconds"] == round(PLAN["predicted"]["seconds"], 6)
    assert frame["predicted_period_seconds"] == round(PLAN["predicted"]["period_seconds"], 6)
    other = breakdown(window_of([0.1], epoch=7), PLANS)
    assert other["frame"]["predicted_latency_seconds"] is None


def test_a_curve_keeps_both_ends() -> None:
    ordered = [float(number) for number in range(2_000)]
    assert (len(thinned(ordered)), thinned(ordered)[0], thinned(ordered)[-1]) == (500, 0.0, 1999.0)
    assert thinned([]) == []
    assert thinned([1.0]) == [1.0]


class Instant:
    """A client that answers at once, or never; it counts how many frames were out at the same time."""

    def __init__(self, *, answers: bool = True) -> None:
        self._answers, self._sequence = answers, itertools.count()
        self.sent = 0

    def submit(self, frame: bytes) -> Future[Answer]:
        future: Future[Answer] = Future()
        self.sent += 1
        if self._answers:
            sequence = next(self._sequence)
            future.set_result(Answer("camera", sequence, result_of(sequence, 3)))
        return future


class Nothing:
    """Observes nothing."""

    plans: ClassVar[dict[int, dict[str, Any]]] = {}

    def mark(self) -> None:
        pass

    def rate(self, began_at: float, ended_at: float) -> dict[str, float | None]:
        return {"frames_per_second": None, "seconds": None}


BRIEF = Patience(warm_up_s=0.0, window_s=0.05, most_windows=3, stable_share=1.0, answer_s=0.05)


def run(level: Level, client: Instant) -> dict[str, Any]:
    nothing: Any = Nothing()
    made: Any = client
    return LoadTest(made, nothing, [b"frame"], BRIEF).run(level)


def test_a_level_is_measured_to_its_end() -> None:
    found = run(Level(concurrency=2), client := Instant())
    assert found["frames"] > 0
    assert found["frames"] <= client.sent
    assert found["label"] == "2 at once"
    assert len(found["windows"]) == 3


def test_frames_are_sent_at_their_rate_and_not_faster() -> None:
    found = run(Level(rate_hz=1000.0), client := Instant())
    assert found["frames"] > 0
    # at most what was due since it began, and the first one
    assert client.sent <= 1000.0 * (found["seconds"] + 10.0)
    assert found["rate_hz"] == 1000.0


def test_no_answer_is_an_error_and_no_measurement() -> None:
    with pytest.raises(NotAnswered, match="have no answer after"):
        run(Level(concurrency=3), Instant(answers=False))


@pytest.mark.parametrize(
    ("written", "numbers"),
    [("4", [4]), ("1,2,4", [1, 2, 4]), ("1:3", [1, 2, 3]), ("1:9:4", [1, 5, 9]), ("1:2,8", [1, 2, 8])],
)
def test_levels_are_written_as_perf_analyzer_has_them(written: str, numbers: list[int]) -> None:
    assert [level.concurrency for level in levels_of(written, None, is_poisson=False)] == numbers


@pytest.mark.parametrize(
    "written", ["", "0", "-1", "two", "1:", "5:1", "1:9:0", "1:9:1:1", "99999999", "1:99999999999"]
)
def test_levels_that_cannot_be_are_refused(written: str) -> None:
    with pytest.raises(typer.BadParameter, match="whole numbers from 1"):
        levels_of(written, None, is_poisson=False)


@pytest.mark.parametrize("written", ["0", "-5", "nan", "inf", "fast", "1e9"])
def test_rates_that_cannot_be_are_refused(written: str) -> None:
    with pytest.raises(typer.BadParameter, match="frames a second above 0"):
        levels_of("1", written, is_poisson=False)


def report_of(name: str, latency: float = 0.1) -> dict[str, Any]:
    whole = window_of([latency, latency * 2] * 20)
    level = {
        "label": "1 at once",
        "concurrency": 1,
        "rate_hz": None,
        "is_stable": True,
        **summary(whole),
        "device": {"frames_per_second": 40.0, "seconds": 1.0},
        "breakdown": breakdown(whole, PLANS),
        "client_latencies": [latency, latency * 2],
    }
    empty = {**level, **summary(window_of([])), "label": "2 at once", "breakdown": breakdown(window_of([]), PLANS)}
    levels = [level, empty | {"is_stable": False, "client_latencies": []}]
    return {"version": 1, "name": name, "stream": "camera", "model": "tiny", "levels": levels}


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(report_of("before")))
    found = read_report(tmp_path / "run.json")
    assert found["levels"][0]["breakdown"]["stages"] == report_of("before")["levels"][0]["breakdown"]["stages"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no JSON", "not JSON"),
        ("[]", "an? .*version expected"),
        ('{"version": 2}', "version 2, this trisect reads 1"),
        ('{"version": 1, "stream": "camera", "levels": [{}]}', "levels.0"),
    ],
)
def test_another_file_is_refused_with_what_is_wrong(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_report(tmp_path / "run.json")


def test_a_page_of_two_runs_says_what_has_changed_and_holds_no_foreign_html() -> None:
    hostile = report_of("<script>alert(1)</script>", latency=0.2)
    made = page([report_of("before"), hostile])
    assert "<script" not in made
    assert "&lt;script&gt;" in made
    assert '<span class="worse">(+100.0%)</span>' in made
    start, end = made.index("<svg"), made.rindex("</svg>") + len("</svg>")
    for part in made[start:end].split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part[: part.index("</svg>") + len("</svg>")])
    assert "http" not in made.replace("http://www.w3.org/2000/svg", "")


def test_a_page_of_one_run_has_its_parts() -> None:
    made = page([report_of("alone")])
    assert "edge edge-1" in made
    assert "not stable" in made


def test_csv_has_a_line_for_each_level() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(report_of("run")))))
    assert [line["concurrency"] for line in lines] == ["1", "1"]
    assert float(lines[0]["client_seconds_p50"]) == 0.1
    assert lines[1]["client_seconds_p50"] == ""
    assert float(lines[0]["device_frames_per_second"]) == 40.0


def test_tables_show_levels_and_parts() -> None:
    found = report_of("run")
    assert table(found).row_count == 2
    assert parts_table(found["levels"][0]).row_count == 3 + 3 + 3
    assert parts_table(found["levels"][1]).row_count == 2


def test_frames_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing: No such file"):
        frames_of([tmp_path / "missing"])
    with pytest.raises(ConfigError, match="no frames in"):
        frames_of([tmp_path])
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    assert frames_of([tmp_path]) == [b"1", b"2"]
