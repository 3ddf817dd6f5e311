"""A prepared model's Keras calls as operations of a program, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.graph import Block
from pipeline.lite.package import Draft
from pipeline.lite.program import Op
from pipeline.prepare.foreign import convert
from pipeline.prepare.lowering.block_builder import ArrayPool, BlockBuilder, NoOperation
from pipeline.prepare.lowering.table import lowerer_of

if TYPE_CHECKING:
    from pipeline.prepare.model import PreparedModel


def lower(model: PreparedModel) -> Draft:
    """The operations of every block, and its weights, to be read one after the other. Raises ModelError."""
    arrays = ArrayPool()
    blocks = tuple(_lowered(model, block, arrays) for block in model.graph.blocks)
    return Draft(model.graph, blocks, arrays.makers)


def _lowered(model: PreparedModel, block: Block, arrays: ArrayPool) -> tuple[Op, ...]:
    if block.index == 0:
        return ()
    made = BlockBuilder(model, block, arrays)
    try:
        for call in model.calls[block.index]:
            lowerer_of(call)(made, call)
    except NoOperation:
        content = convert(model, block)
        held = arrays.add(lambda: np.frombuffer(content, np.uint8))
        return (Op("foreign", block.inputs, block.outputs, (held,), {}),)
    return tuple(made.ops)
