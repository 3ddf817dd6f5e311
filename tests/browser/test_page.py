"""The page in a real browser: what it shows of a pipeline, what can be asked of it, and what cannot harm it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker import topics
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.tiles.tiling import Tiling
from tests.browser.chromium import Tab
from tests.browser.conftest import Lab, Opener, web

pytestmark = pytest.mark.system

CAMERA, DOOR = StreamId("camera"), StreamId("door")
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"


@pytest.fixture(autouse=True)
def _no_complaints(page: Tab) -> Iterator[None]:
    yield
    assert not [line for line in page.complaints() if "WebSocket" not in line and "ERR_" not in line]


def show(page: Tab, where: str) -> None:
    page.run(f"location.hash = '{where}'")


def stream(page: Tab) -> None:
    show(page, "#/stream/camera")
    page.wait("document.querySelector('.strip .handle') && document.querySelectorAll('.graph .node').length === 24")


def test_all_nodes_and_streams_are_shown_with_what_they_report(page: Tab, lab: Lab) -> None:
    show(page, "#/")
    page.wait("document.querySelectorAll('tbody .state[data-mood=good]').length === 7")  # 5 nodes, 2 streams
    lab.pipeline.telemetry("edge-1", resident_bytes=812_000_000.0, processor_share=0.42)
    page.wait("document.body.innerText.includes('812 MB') && document.body.innerText.includes('42 %')")
    text = page.text()
    for word in ("camera", "door", "played", "edge-2", "0.1.0", "20.0 MB/s / 40.0 MB/s", "5 of 5 ready"):
        assert word in text


def test_frames_are_counted_and_their_seconds_are_shown_beside_those_predicted(page: Tab, lab: Lab) -> None:
    stream(page)
    for _ in range(8):
        lab.pipeline.result("camera")
    page.wait("document.body.innerText.includes('medians of 8 frames')")
    page.wait("[...document.querySelectorAll('.figure')].some(f => /Latency p50\\s+\\d/.test(f.innerText))")
    rows = page.text("[aria-label='Predicted and measured']")
    for word in ("device-1", "reading and answering", "whole frame"):
        assert word in rows
    assert "waits at device-1" in page.text("[aria-label='Newest frames']")
    assert "cat 90 %" in page.text("[aria-label='Newest frames']")


def test_a_frame_that_failed_says_why(page: Tab, lab: Lab) -> None:
    stream(page)
    lab.pipeline.result("camera", ok=False, error="no picture at all")
    page.wait("document.body.innerText.includes('failed: no picture at all')")


def test_boxes_are_drawn_on_the_frames_picture(page: Tab, lab: Lab) -> None:
    stream(page)
    found = {"task": "detect", "boxes": [[100, 100, 500, 400]], "classes": [3], "labels": ["dog"], "scores": [0.8]}
    sequence = lab.pipeline.result("camera", **found)
    lab.pipeline.preview("camera", sequence)
    colours = """(() => {
      const canvas = [...document.querySelectorAll('.frame canvas')].find((one) => !one.hidden);
      if (!canvas) return 0;
      const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const seen = new Set();
      for (let i = 0; i < data.length; i += 4) seen.add(`${data[i] >> 4} ${data[i + 1] >> 4} ${data[i + 2] >> 4}`);
      return seen.size > 3;
    })()"""
    page.wait(colours)
    assert "dog" in page.text("[aria-label='Newest frames']")


def test_a_map_of_classes_lies_over_the_frames_picture(page: Tab, lab: Lab) -> None:
    stream(page)
    shares = [{"index": 0, "label": "background", "share": 0.5}, {"index": 2, "label": "road", "share": 0.5}]
    found = {"task": "segment", "shares": shares, "map_box": [160, 0, 480, 480], "top": []}
    sequence = lab.pipeline.result("camera", **found)
    lab.pipeline.preview("camera", sequence)
    lab.pipeline.class_map("camera", sequence)
    # left of the map, in the road, in the background: the middle alone is in another colour than the grey picture
    colours = """(() => {
      const tile = [...document.querySelectorAll('.frame')].find((one) => one.innerText.includes('road 50'));
      const canvas = tile?.querySelector('canvas');
      if (!canvas || canvas.hidden) return null;
      return [0.1, 0.4, 0.7].map((x) => {
        const [red, green, blue] = canvas.getContext('2d').getImageData(canvas.width * x, canvas.height / 2, 1, 1).data;
        return Math.max(red, green, blue) - Math.min(red, green, blue) > 20;
      }).join();
    })()"""
    page.wait(f"{colours} === 'false,true,false'")


def test_a_node_has_one_colour_wherever_it_is_drawn(page: Tab, lab: Lab) -> None:
    show(page, "#/")
    chip = "getComputedStyle([...document.querySelectorAll('tr .chip')].find((one) => one.textContent === '%s')).color"
    page.wait("[...document.querySelectorAll('tr .chip')].some((one) => one.textContent === 'edge-2')")
    colours = [page.run(chip % node) for node in ("edge-1", "edge-2")]
    assert colours[0] != colours[1]
    stream(page)
    # into the page alone: the real planner would replace it
    before = lab.pipeline.plans[CAMERA]
    plan = lab.pipeline.plan(CAMERA, before.epoch, 3, 20)
    tiling = Tiling(4, 9, (14, 14), (28,), (NodeId("edge-1"), NodeId("edge-2")))
    learn(page, replace(plan, tiles=tiling), lab)
    page.wait("document.querySelectorAll('.tiles g').length === 2")
    assert (
        page.run("[...document.querySelectorAll('.tiles g > rect')].map((one) => getComputedStyle(one).stroke)")
        == colours
    )
    page.wait("document.querySelectorAll('.graph .worker').length === 12")
    bars = "[...document.querySelectorAll('.graph .worker')].slice(0, 2).map((one) => getComputedStyle(one).fill)"
    assert page.run(bars) == colours
    learn(page, before, lab)


def learn(page: Tab, plan: Plan, lab: Lab) -> None:
    text = json.dumps(json.dumps(plan.to_json(lab.pipeline.graph)))
    page.run(f"trisect.learn('plan/{plan.stream}', new TextEncoder().encode({text}))")


def test_a_cut_is_priced_as_it_is_moved_then_placed_and_handed_back(page: Tab, lab: Lab) -> None:
    stream(page)
    handle = "document.querySelector('.strip .handle[aria-label^=cloud]')"
    page.run(f"{handle}.focus()")
    priced_again = replace(lab.pipeline.plans[CAMERA], reason="priced once more")  # drawn anew under the hand
    learn(page, priced_again, lab)
    page.wait("document.body.innerText.includes('priced once more')")
    assert page.run(f"document.activeElement === {handle}")
    for key in ("Home", "PageUp"):
        page.press(key)
    page.wait("document.querySelector('[aria-label=\"Price of the cut\"]').innerText.includes('One frame')")
    before = lab.pipeline.plans[CAMERA].epoch
    assert "cloud from 11" in page.text(".strip")
    page.run("[...document.querySelectorAll('button')].find(b => b.textContent === 'Place it so').click()")
    page.wait("document.body.innerText.includes('placed by hand')")
    placed = lab.pipeline.plans[CAMERA]
    assert placed.epoch > before
    assert [tier.label for tier in placed.placement].index("cloud") == 11
    back = "[...document.querySelectorAll('button')].find(b => b.textContent.startsWith('Hand it back'))"
    page.wait(f"!{back}.disabled")
    page.run(f"{back}.click()")
    page.wait("document.body.innerText.includes('exact planner, for latency')")


def test_dragging_a_cut_with_the_mouse_moves_it(page: Tab) -> None:
    stream(page)
    page.run("document.querySelector('.strip').scrollIntoView({block: 'center'})")
    where = page.run("""(() => {
      const handle = document.querySelector('.strip .handle[aria-label^=cloud]').getBoundingClientRect();
      const strip = document.querySelector('.strip').getBoundingClientRect();
      return [handle.left + handle.width / 2, handle.top + 40, strip.left + strip.width / 2];
    })()""")
    page.mouse("mousePressed", where[0], where[1])
    page.mouse("mouseMoved", where[2], where[1])
    page.mouse("mouseReleased", where[2], where[1])
    page.wait("document.querySelector('.strip').innerText.includes('cloud from 12')")
    page.press("Escape")
    page.wait("!document.querySelector('.strip').innerText.includes('cloud from 12')")


def test_objective_and_constraints_are_priced_and_asked_for(page: Tab, lab: Lab) -> None:
    stream(page)
    page.run("""(() => {
      const form = document.querySelector('form');
      form.querySelectorAll('select')[0].value = 'device';
      form.dispatchEvent(new Event('input'));
      [...form.querySelectorAll('button')].find(b => b.textContent.startsWith('What')).click();
    })()""")
    page.wait("document.querySelector('form').parentElement.innerText.includes('One frame')")
    page.wait("!document.querySelector('form button[type=submit]').disabled")
    page.run("document.querySelector('form button[type=submit]').click()")
    page.wait("document.body.innerText.includes('as a person has asked')")
    request = lab.pipeline.plans[CAMERA].plan_request
    assert request is not None
    assert request["constraints"] == {"raw_stays_on": "device"}
    back = "[...document.querySelectorAll('form button')].find(b => b.textContent.startsWith('Back'))"
    page.wait(f"!{back}.disabled")
    page.run(f"{back}.click()")
    page.wait("document.body.innerText.includes('as configured')")


def test_what_the_planner_refuses_is_shown_in_its_words(page: Tab) -> None:
    stream(page)
    page.run("""(() => {
      const form = document.querySelector('form');
      form.querySelector('input').value = 'beauty';
      form.dispatchEvent(new Event('input'));
      form.querySelector('button[type=submit]').click();
    })()""")
    page.wait("document.querySelector('form').parentElement.querySelector('.error').textContent.includes('beauty')")


def test_a_node_is_drained_and_taken_back(page: Tab, lab: Lab) -> None:
    show(page, "#/")
    button = "[...document.querySelectorAll('tr[data-tier=edge] button')].find(b => !b.disabled)"
    page.wait(f"{button}?.textContent === 'Drain'")
    page.run(f"{button}.click()")
    page.wait("document.body.innerText.includes('draining')")
    assert ("edge-1", "drain") in lab.pipeline.commands
    page.wait(f"{button}.textContent === 'Take back'")
    page.run(f"{button}.click()")
    page.wait("!document.body.innerText.includes('draining')")


def test_hostile_names_are_words_and_nothing_else(page: Tab, lab: Lab) -> None:
    pipeline = lab.pipeline
    plan = pipeline.plan(DOOR, pipeline.plans[DOOR].epoch + 1, 3, 9, reason=f"because {HOSTILE}")
    pipeline.publish_plan(plan)
    pipeline.result("door", top=[{"index": 0, "label": HOSTILE, "score": 1.0}])
    pipeline.result("door", ok=False, error=HOSTILE)
    state = {"node": HOSTILE, "tier": HOSTILE, "state": HOSTILE, "session": "x", "host": HOSTILE, "message": HOSTILE}
    topic = f"{pipeline.names.prefix}node/<b onclick='1'>x/state"
    pipeline.say_at(topic, json.dumps(state).encode(), topics.STATE)
    for where in ("#/stream/door", "#/"):
        show(page, where)
        page.wait("document.body.innerText.includes('onerror') || document.body.innerText.includes('<b onclick')")
        assert page.run("document.querySelectorAll('main img, main script, main b[onclick]').length") == 0
    assert page.run("window.hacked") is None
    pipeline.say_at(topic, b"", topics.STATE)


def test_messages_that_cannot_be_read_are_counted_and_change_nothing(page: Tab, lab: Lab) -> None:
    show(page, "#/")
    for payload in (b"{", b"[]", b'{"sequence": -1}', b'{"sequence": 1, "seconds": "now"}', b"\xff\xfe"):
        lab.pipeline.say_at(lab.pipeline.names.topic(topics.RESULT, stream="camera"), payload, topics.RESULT)
    page.wait("document.querySelector('#banner').textContent.includes('unreadable')")
    assert "camera" in page.text("main")


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_nothing_is_cut_off_at_any_width(page: Tab, width: int, tmp_path: Path) -> None:
    for where, ready in (("#/", "tbody tr"), ("#/stream/camera", ".graph .node")):
        page.size(width, 800)
        show(page, where)
        page.wait(f"document.querySelector('{ready}')")
        wider = """[...document.querySelectorAll('body *')]
          .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX === 'visible')
          .map((one) => `${one.tagName}: ${one.textContent.slice(0, 60)}`)"""
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), page.run(wider)
        wide = """[...document.querySelectorAll('main .card, main .figure')]
          .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).length"""
        assert page.run(wide) == 0
    page.size(1280, 900)


def test_a_broker_that_goes_is_named_and_found_again(page: Tab, lab: Lab) -> None:
    show(page, "#/")
    lab.server.stop()
    page.wait("document.querySelector('#banner').textContent.includes('Not connected')")
    assert "camera" in page.text("main")
    lab.server.start()
    page.wait("document.querySelector('#connection').textContent === 'live'")
    page.wait("!document.querySelector('#banner').textContent.includes('Not connected')")


def test_without_the_key_nothing_is_shown_but_the_way_in(lab: Lab, browser: Opener) -> None:
    with browser() as other:
        other.send("Network.clearBrowserCookies")
        other.open(lab.url.partition("?")[0])
        other.wait("document.querySelector('#refused')")
        assert "open the address that `trisect web` printed" in other.text()
        assert "camera" not in other.text()


def test_a_viewer_sees_all_and_why_nothing_can_be_changed(browser: Opener) -> None:
    pytest.importorskip("cryptography")
    from tests.integration import enrolled

    with enrolled.running() as made:
        path = made.folder.enrol("wall", ["viewer"])
        made.server.reload()
        with web(path) as url, browser() as tab:
            tab.open(url)
            tab.wait("document.querySelector('#connection').textContent === 'live'")
            assert "only an operator may give commands" in tab.text("#read-only")
            assert "wall (viewer)" in tab.text("header")
            assert not tab.complaints()
