"""Programs against a running pipeline: the client, blocking and awaited, and the README's lines."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nodes.cli import demo
from nodes.client.async_client import AsyncClient
from nodes.client.client import Client
from pipeline.errors import ConfigError
from pipeline.frames.decode import top_k
from tests.system.conftest import PATIENCE_S, Pipeline
from trisect import ClientClosed, FrameError, FrameRefused, TrisectError

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

README = Path(__file__).parents[2] / "README.md"


def the_block_of_the_readme() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "from trisect import Client" in block]
    return str(found)


def test_the_lines_of_the_readme_do_what_they_say(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("configs", "photos"):
        (tmp_path / name).mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text(pipeline.config_path.read_text())
    (tmp_path / "photo.jpg").write_bytes(pipeline.images[0])
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(pipeline.images[number])
    monkeypatch.chdir(tmp_path)
    exec(compile(the_block_of_the_readme(), "README.md", "exec"), {})  # noqa: S102 - the lines that a reader copies
    first, *others = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ \d+\.\d+ \S+", first)
    assert others == ["True {'predictions': (1, 1000)}"] * 3


def test_an_answer_has_the_outputs_of_its_frame_whatever_form_the_frame_has(pipeline: Pipeline) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (224, 224, 3), np.uint8)
    with Client(pipeline.config) as client:
        answers = [client.publish(pipeline.images[0]), client.publish(pixels), client.publish(pixels[None])]
    result = {**answers[0].result, "correlation": "0"}
    outputs = {answers[0].sequence: {result["outputs"][0]["tensor"]: answers[0].outputs["predictions"]}}
    equal, _ = demo.compare(pipeline.config, [result], outputs, pipeline.images)
    assert equal == 1
    assert np.array_equal(answers[1].outputs["predictions"], answers[2].outputs["predictions"])
    best = top_k(answers[1].outputs["predictions"])
    assert [(one.index, one.label) for one in answers[1].top] == [(one.index, one.label) for one in best]


def test_a_stream_keeps_order_and_a_bad_frame_is_an_answer_among_the_others(pipeline: Pipeline) -> None:
    taken = []

    def frames() -> Iterator[bytes]:
        for number in range(8):
            taken.append(number)
            yield pipeline.images[number] if number != 3 else b"no photo"

    with Client(pipeline.config, demo.STREAM) as client, client.subscribe() as everyones:
        seen = []
        for answer in client.stream(frames(), window=2):
            seen.append(answer)
            assert len(taken) <= len(seen) + 2
        sequences = [answer.sequence for answer in seen]
        assert sequences == sorted(sequences)
        assert [answer.ok for answer in seen] == [number != 3 for number in range(8)]
        with pytest.raises(FrameRefused, match=r"8 bytes that begin with 6e 6f 20 70"):
            _ = seen[3].outputs
        watched = [everyones.next(60.0) for _ in range(8)]
    assert {answer.sequence for answer in watched if answer is not None} == set(sequences)
    assert list(everyones) == []


def test_errors_are_typed_and_of_one_tree(pipeline: Pipeline) -> None:
    with Client(pipeline.config) as client:
        with pytest.raises(FrameError, match="no bytes at all") as refused:
            client.publish(b"")
        assert isinstance(refused.value, TrisectError)
        with pytest.raises(ConfigError, match="unknown stream 'yard'"):
            client.publish(b"", stream="yard")
        with pytest.raises(ConfigError, match="a window of 0 frames"):
            next(client.stream([b""], window=0))
        named = client.submit(pipeline.images[0], name=os.fsdecode(b"\xff.jpg"))  # a file's name that is no UTF-8
        assert named.result(PATIENCE_S).result["correlation"].startswith(r"\udcff.jpg#")
    with pytest.raises(ClientClosed):
        client.publish(pipeline.images[0])


def test_awaited_frames_are_answered_side_by_side(pipeline: Pipeline) -> None:
    async def run() -> None:
        async with AsyncClient(pipeline.config) as client:
            one, other = await asyncio.gather(client.publish(pipeline.images[0]), client.publish(pipeline.images[1]))
            assert one.sequence != other.sequence
            assert one.outputs["predictions"].shape == (1, 1000)
            watched = client.subscribe()
            following = asyncio.ensure_future(anext(watched))
            answers = [answer async for answer in client.stream(pipeline.images[:4], window=2)]
            assert [answer.ok for answer in answers] == [True] * 4
            seen = (
                await following
            ).sequence  # the answers to those before may reach a subscriber later than their reply
            assert seen in {answer.sequence for answer in (one, other, *answers)}
            await watched.aclose()  # type: ignore[attr-defined]
            with pytest.raises(FrameRefused):
                await client.publish(b"no photo")

    asyncio.run(run())


def test_a_client_goes_on_after_its_broker_was_restarted(pipeline: Pipeline) -> None:
    with Client(pipeline.config) as client:
        assert client.publish(pipeline.images[0]).ok
        pipeline.server.restart()
        assert client.publish(pipeline.images[1]).ok
