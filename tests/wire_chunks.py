"""Chunks of one tensor, and an assembler that expects it, for tests of the wire format."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from pipeline.graph import Tensor
from pipeline.reassembly import Assembler
from pipeline.wire import (
    Array,
    Failed,
    FrameKey,
    Received,
    encode,
)

KEY = FrameKey("cam", 3, 17, 1, 15)
ARRAY = np.arange(12, dtype=np.float32).reshape(1, 12)
TENSOR = Tensor(5, "conv1", (1, 12), "float32")
SPARSE = np.maximum(np.random.default_rng(0).normal(size=(1, 16, 16, 8)), 0).astype(np.float32)
MAP = Tensor(5, "relu1", SPARSE.shape, "float32")


def chunks(key: FrameKey = KEY, array: Array = ARRAY, chunk_bytes: int = 20) -> list[bytes]:
    return list(encode(key, 5, array, chunk_bytes=chunk_bytes))


def with_header(payload: bytes, **changed: Any) -> bytes:
    header, data = msgpack.unpackb(payload)
    packed: bytes = msgpack.packb([header | changed, data])
    return packed


def assembler(expected: Tensor | None = TENSOR, limit_bytes: int = 1 << 20) -> Assembler:
    return Assembler(lambda key, tensor: expected, limit_bytes=limit_bytes)


def whole(into: Assembler, sender: str = "edge-1", key: FrameKey = KEY) -> Received | Failed | None:
    return [into.add(sender, chunk) for chunk in chunks(key)][-1]
