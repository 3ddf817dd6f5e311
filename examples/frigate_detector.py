"""A detector for Frigate (https://frigate.video): its `zmq` detector asks, a pipeline answers.

    pip install pyzmq
    python examples/frigate_detector.py --config pipeline.yaml --stream camera --endpoint ipc:///tmp/cache/zmq_detector

and in Frigate's configuration:

    detectors:
      trisect:
        type: zmq
        endpoint: ipc:///tmp/cache/zmq_detector
        request_timeout_ms: 500
    model:
      {width: 320, height: 320, input_tensor: nhwc, input_pixel_format: rgb, input_dtype: int}

The stream's model has `task: detect` and, if its input is another size, any: the device resizes. Frigate sends two
frames, JSON `{shape, dtype, model_type}` and the tensor's bytes, and wants a float32 array of (20, 6) back: class,
score, top, left, bottom, right, in shares of the picture; rows without an object are zeros. A request that cannot be
answered gets zeros, as Frigate itself takes for a detector that fails, and the reason goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from trisect import Answer, Client, FrameError, TrisectError

ROWS, FIELDS = 20, 6
MOST_BYTES = 64 << 20
PARTS = 2

Array = npt.NDArray[Any]


def tensor_of(parts: Sequence[bytes]) -> Array:
    """The pixels that Frigate sends, uint8 of (height, width, 3). Raises FrameError for anything else."""
    if len(parts) != PARTS:
        raise FrameError(f"a request of {len(parts)} parts; a header and a tensor expected")
    try:
        header = json.loads(parts[0])
        shape, dtype = tuple(int(size) for size in header["shape"]), str(header["dtype"])
    except (ValueError, TypeError, KeyError) as error:
        raise FrameError(f"a header that is none: {str(error)[:100]}") from error
    if dtype != "uint8" or len(shape) != 4 or shape[0] != 1 or 3 not in (shape[1], shape[3]):  # noqa: PLR2004
        raise FrameError(f"a tensor {dtype[:20]}{shape}: set Frigate's input_dtype to int; pictures of 3 colours")
    if min(shape) < 1 or math.prod(shape) != len(parts[1]) or len(parts[1]) > MOST_BYTES:
        raise FrameError(f"{len(parts[1])} bytes for a tensor of {shape}")
    pixels = np.frombuffer(parts[1], np.uint8).reshape(shape)[0]
    return pixels if shape[3] == 3 else pixels.transpose(1, 2, 0)  # noqa: PLR2004


def detections(answer: Answer, height: int, width: int) -> Array:
    """Frigate's (20, 6) float32 of an answer's boxes, the best first."""
    rows = np.zeros((ROWS, FIELDS), np.float32)
    for row, box in zip(rows, answer.boxes, strict=False):
        row[:] = box.index, box.score, box.top / height, box.left / width, box.bottom / height, box.right / width
    return rows


def reply_to(client: Client, parts: Sequence[bytes]) -> list[bytes]:
    """The parts of a reply: detections, or that the model is there, for which Frigate asks first."""
    if (about_model := _about_model(parts)) is not None:
        return [json.dumps(about_model).encode()]
    rows = np.zeros((ROWS, FIELDS), np.float32)
    try:
        pixels = tensor_of(parts)
        rows = detections(client.publish(pixels), *pixels.shape[:2])
    except TrisectError as error:
        print(f"frigate_detector: {error}", file=sys.stderr, flush=True)
    header = {"shape": [ROWS, FIELDS], "dtype": "float32"}
    return [json.dumps(header).encode(), rows.tobytes()]


def _about_model(parts: Sequence[bytes]) -> dict[str, bool] | None:
    """The answer to a question about the model, which is the pipeline's own; None for a tensor."""
    try:
        header = json.loads(parts[0])
    except (ValueError, IndexError):
        return None
    if not isinstance(header, dict) or "shape" in header:
        return None
    if header.get("model_request"):
        return {"model_available": True, "model_loaded": True}
    return {"model_saved": True, "model_loaded": True} if header.get("model_data") else None


def serve(client: Client, endpoint: str) -> None:
    """Answer Frigate's requests, one after the other, until interrupted."""
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        print(f"frigate_detector: {endpoint}", flush=True)
        while True:
            socket.send_multipart(reply_to(client, socket.recv_multipart()))


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description="Answer Frigate's zmq detector from a trisect pipeline.")
    parser.add_argument("--config", required=True, help="the pipeline's configuration, or an enrolment")
    parser.add_argument("--stream", help="a stream whose model has task: detect")
    parser.add_argument("--endpoint", default="ipc:///tmp/cache/zmq_detector")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="seconds without any answer that count as lost")
    options = parser.parse_args()
    with Client(options.config, options.stream, timeout_s=options.timeout_s) as client:
        try:
            serve(client, options.endpoint)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
