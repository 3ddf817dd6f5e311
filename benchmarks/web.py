"""The page of `trisect web` in a real Chromium: first paint, state complete, bytes, processor, and memory after a day.

20 nodes report once a second and 50 streams are played against a real mosquitto (`tests/browser/played.py`); the page
comes over `trisect web`. The processor's share is the renderer's processor time by wall time, in cores. A day of
reports is handed to the page's own entry at speed, 86,400 from each node, with a row for the charts every ten seconds.

Run: python benchmarks/web.py [--rate 4] [--seconds 20] [--hours 24]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from broker.server import Server, ServerSettings  # noqa: E402
from nodes.web.static_files import read_files  # noqa: E402
from pipeline.plan import StreamId  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.browser.chromium import Tab  # noqa: E402
from tests.browser.conftest import web  # noqa: E402
from tests.browser.played import Played, configuration, network, played, write  # noqa: E402

NODES = {
    **{f"device-{i}": "device" for i in range(1, 9)},
    **{f"edge-{i}": "edge" for i in range(1, 7)},
    **{f"cloud-{i}": "cloud" for i in range(1, 7)},
}
STREAMS = {f"camera-{i:02}": f"device-{i % 8 + 1}" for i in range(50)}
BLOCKS = 120
MIB = 1 << 20
SHOWN = "document.querySelectorAll('tbody .state[data-mood=good]').length >= 70"
HOUR_S = 3600
HOUR = """(() => {
  const app = window.trisect, encoder = new TextEncoder();
  const nodes = [...app.state.nodes.keys()];
  for (let second = %d; second < %d; second += 1) {
    const report = Object.fromEntries([['ts', second], ['resident_bytes', 2e8 + second], ['processor_share', 0.1],
      ...Array.from({length: %d}, (_, k) => [`number_${k}_total`, second * k])]);
    const payload = encoder.encode(JSON.stringify(report));
    for (const node of nodes) app.learn(`node/${node}/telemetry`, payload);
    if (second %% 10 === 0) app.sample();
  }
  return true;
})()"""
NUMBERS = 30
"""In a report, besides the three that the page shows; reports of nodes with one stream have about as many."""


def play(pipeline: Played, rate_hz: float, stop: threading.Event) -> None:
    """Reports once a second, results at this rate in each stream."""
    began, ticks = time.monotonic(), 0
    while not stop.wait(max(0.0, began + ticks / rate_hz - time.monotonic())):
        for stream in STREAMS:
            pipeline.result(stream)
        if ticks % max(1, round(rate_hz)) == 0:
            for node in NODES:
                pipeline.telemetry(node)
        ticks += 1


def opened(page: Tab, url: str) -> dict[str, float]:
    """Milliseconds from the start of the navigation to the first paint, and to all nodes and streams shown."""
    page.size(1280, 900)
    page.open(url)
    page.wait(SHOWN)
    complete_ms = page.run("performance.now()")
    paint = page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return {"first_paint_ms": round(paint), "complete_ms": round(complete_ms)}


def renderer(page: Tab) -> psutil.Process:
    """The process of the tab: of all renderers the one that works."""
    children = psutil.Process().children(recursive=True)
    renderers = [one for one in children if "--type=renderer" in one.cmdline()]
    before = {one.pid: sum(one.cpu_times()[:2]) for one in renderers}
    page.run("(() => { const end = performance.now() + 500; while (performance.now() < end); return true; })()")
    return max(renderers, key=lambda one: sum(one.cpu_times()[:2]) - before[one.pid])


def share(process: psutil.Process, seconds: float) -> float:
    """Cores that a process keeps busy."""
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)


def memory(page: Tab, process: psutil.Process) -> dict[str, float]:
    """MiB of the script's heap after a collection, and of the whole process that is its own."""
    page.send("HeapProfiler.collectGarbage")
    heap = page.send("Runtime.getHeapUsage")["usedSize"]
    return {"heap_mib": round(heap / MIB, 1), "process_mib": round(process.memory_full_info().uss / MIB, 1)}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rate", type=float, default=4.0, help="results a second in each of the 50 streams")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the processor is watched, each time")
    parser.add_argument("--hours", type=int, default=24, help="hours of reports handed to the page; 0 for none")
    options = parser.parse_args()
    found: dict[str, object] = {
        "nodes": len(NODES),
        "streams": len(STREAMS),
        "results_per_second": options.rate * len(STREAMS),
    }
    served = {file.tag: file for path, file in read_files().items() if path.startswith(("/js/", "/css/", "/vendor/"))}
    found["page_kb_gzipped"] = round(sum(len(file.compressed) for file in served.values()) / 1e3)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(ServerSettings(persistence_dir=folder / "state")))
        values = configuration(server.port, NODES, STREAMS)
        path = write(folder, values | {"telemetry": {"interval_s": 1.0}})
        graph = network(BLOCKS)
        pipeline = stack.enter_context(played(path, graph))
        for number, stream in enumerate(STREAMS):
            pipeline.publish_plan(pipeline.plan(StreamId(stream), 1, 10 + number, 70))
        stop = threading.Event()
        stack.callback(stop.set)
        threading.Thread(target=play, args=(pipeline, options.rate, stop), daemon=True).start()
        url = stack.enter_context(web(path))
        tab = stack.enter_context(chromium.running(folder / "chromium"))
        runs = []
        for _ in range(5):
            with tab() as page:
                runs.append(opened(page, url))
        for name in ("first_paint_ms", "complete_ms"):
            found[name] = sorted(run[name] for run in runs)[len(runs) // 2]
        with tab() as page:
            opened(page, url)
            process = renderer(page)
            found["cores_all_streams"] = round(share(process, options.seconds), 3)
            page.run("location.hash = '#/stream/camera-07'")
            page.wait(f"document.querySelectorAll('.graph .node').length === {BLOCKS}")
            found["cores_one_stream"] = round(share(process, options.seconds), 3)
            found["before"] = memory(page, process)
            print(json.dumps(found), file=sys.stderr, flush=True)
            began = time.monotonic()
            for hour in range(options.hours):
                # in pieces, so that the page draws and answers in between, as in a day it does
                page.run(HOUR % (hour * HOUR_S, (hour + 1) * HOUR_S, NUMBERS))
                print(f"hour {hour + 1}: {memory(page, process)}", file=sys.stderr, flush=True)
            found |= {"hours": options.hours, "played_in_s": round(time.monotonic() - began)}
            found["after"] = memory(page, process)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
