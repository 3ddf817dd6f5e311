"""A new version of a stream's model: old frames finish under the old one, new frames go under the new one."""

from dataclasses import replace

from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from pipeline.wire import FrameKey
from tests.unit.nodes.tier.machine.test_stream import TIMEOUT_S, Stream, running
from tests.unit.nodes.tier.machine.test_tier import CAM, GRAPH, C, D, E, all_of, array, plan

NEW = "chain.0123456789ab"
OTHER = replace(GRAPH, digest="f" * 32)


def go_over(stream: Stream, epoch: int) -> None:
    """The version is here, and all nodes are ready for a plan of it."""
    stream(ev.ModelArrived(NEW, OTHER, (CAM,)))
    stream(ev.PlanArrived(replace(plan(epoch, (D, D, E, C), graph=OTHER), model=NEW, digest=OTHER.digest)))
    stream.apply(1, epoch)
    assert stream.owner.active == epoch


def test_a_frame_that_is_out_is_answered_under_its_version() -> None:
    stream = running()
    at = stream.submit(1)
    go_over(stream, 2)
    (close,) = all_of(do.CloseFrame, stream.answer(at))
    assert (close.epoch, close.model) == (1, "chain")


def test_new_frames_are_decoded_and_answered_under_the_new_version() -> None:
    stream = running()
    go_over(stream, 2)
    (decode,) = all_of(do.DecodeFrame, stream.offer())
    assert decode.model == NEW
    (run,) = all_of(do.Run, stream(ev.FrameDecoded(CAM, 1, {0: array(1)}, 0.1, NEW)))
    assert run.key.epoch == 2
    (close,) = all_of(do.CloseFrame, stream.answer(run.key))
    assert (close.epoch, close.model) == (2, NEW)


def test_a_frame_that_was_decoded_for_the_old_version_is_decoded_again() -> None:
    stream = running()
    (first,) = all_of(do.DecodeFrame, stream.offer())
    stream(ev.ModelArrived(NEW, OTHER, (CAM,)))
    stream(ev.PlanArrived(replace(plan(2, (D, D, E, C), graph=OTHER), model=NEW, digest=OTHER.digest)))
    actions = stream.apply(1, 2)
    (again,) = all_of(do.DecodeFrame, actions)
    assert (first.model, again.model, again.sequence) == ("chain", NEW, 1)
    assert not all_of(do.Run, stream(ev.FrameDecoded(CAM, 1, {0: array(1)}, 0.1, "chain")))
    (run,) = all_of(do.Run, stream(ev.FrameDecoded(CAM, 1, {0: array(7)}, 0.1, NEW)))
    assert run.key.epoch == 2


def resubmitted(stream: Stream) -> tuple[FrameKey, FrameKey]:
    """A frame that is out under the old version, and out again under the new one."""
    at = stream.submit(1)
    go_over(stream, 2)
    actions = stream.tick(TIMEOUT_S + 60.0)
    assert [decode.model for decode in all_of(do.DecodeFrame, actions)] == [NEW]
    (run,) = all_of(do.Run, stream(ev.FrameDecoded(CAM, 1, {0: array(1)}, 0.1, NEW)))
    return at, run.key


def test_an_answer_of_the_old_version_is_none_to_a_frame_that_went_out_again_under_the_new() -> None:
    stream = running()
    old, new = resubmitted(stream)
    assert (old.epoch, new.epoch) == (1, 2)
    assert not all_of(do.CloseFrame, stream.answer(old))
    (close,) = all_of(do.CloseFrame, stream.answer(new))
    assert close.model == NEW


def test_a_version_that_is_gone_back_from_leaves_the_stream_as_it_was() -> None:
    stream = running()
    stream(ev.ModelArrived(NEW, OTHER, (CAM,)))
    assert stream.owner.model == NEW
    stream(ev.ModelArrived("chain", GRAPH, (CAM,)))
    assert stream.owner.model == "chain"
    at = stream.submit(1)
    (close,) = all_of(do.CloseFrame, stream.answer(at))
    assert close.model == "chain"
