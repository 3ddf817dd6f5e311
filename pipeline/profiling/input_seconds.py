"""Seconds of the input's own blocks on this machine, for the test picture. A stream's frames say how theirs compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from pipeline.engines import Loaded
from pipeline.engines.pictured import InputSeconds, Pictured
from pipeline.frames.decode import to_normalised
from pipeline.frames.fingerprint import sample_frame
from pipeline.frames.input_blocks import decoded, network_input

_REPEATS = 5


def with_measured_input(model: Loaded) -> Loaded:
    """The model, with what its input's blocks take of a processor here; a few hundredths of a second."""
    if not isinstance(model, Pictured):
        return model
    tensor = network_input(model.graph)
    picture = decoded(sample_frame(), tensor, model.preprocess)
    return replace(
        model,
        seconds=InputSeconds(
            decode=_processor_seconds(lambda: decoded(sample_frame(), tensor, model.preprocess)),
            normalise=_processor_seconds(lambda: to_normalised(picture, tensor, model.preprocess)),
        ),
    )


def _processor_seconds(work: Callable[[], object]) -> float:
    """Median of the processor's own seconds, which neighbours change little."""
    seconds = []
    for _ in range(_REPEATS):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    return statistics.median(seconds)
