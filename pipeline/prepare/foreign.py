"""A block that the lowering does not know, as TensorFlow's converter makes it: a TensorFlow Lite file of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipeline.errors import NoKernel
from pipeline.graph import Block
from pipeline.quiet import quiet_stderr
from pipeline.tensorflow_runtime import tf

if TYPE_CHECKING:
    from pipeline.prepare.model import PreparedModel

_LACKING = re.compile(r"(?:tf\.\w+ op|error: )[^\n]*")
_REASON_CHARACTERS = 300


def convert(model: PreparedModel, block: Block) -> bytes:
    """The file that makes the block's outputs from its inputs, in their order. Raises NoKernel."""
    graph = model.graph

    def computed(*arrays: Any) -> list[Any]:
        tensors = dict(zip(block.inputs, arrays, strict=True))
        for call in model.calls[block.index]:
            tensors.update(zip(call.outputs, call.perform(tensors), strict=True))
        return [tensors[i] for i in block.outputs]

    specs = [tf.TensorSpec(graph.tensors[i].shape, graph.tensors[i].dtype) for i in block.inputs]
    try:
        with quiet_stderr():
            function = tf.function(computed, autograph=False).get_concrete_function(*specs)
            converter = tf.lite.TFLiteConverter([function])
            converter.experimental_lower_to_saved_model = False  # through a file, weights and all
            return bytes(converter.convert())
    except Exception as error:
        found = _LACKING.search(str(error))
        reason = (found[0] if found else str(error).strip().split("\n")[0])[:_REASON_CHARACTERS]
        raise NoKernel(
            f"model {graph.name!r}: LiteRT has no kernel for block {block.index} ({block.name!r}, {block.kind}): "
            f"{reason}; use engine tensorflow"
        ) from error
