"""From a source to a model that is ready to be cut: built, weighed and prepared; the same on every node."""

from __future__ import annotations

import gc

from pipeline.models.build import build, make
from pipeline.models.proof import prove, prove_whole
from pipeline.models.source import ModelSource
from pipeline.prepare.flatten import FlatModel
from pipeline.prepare.model import PreparedModel, prepared_with_ids


def load(source: ModelSource) -> PreparedModel:
    """Build, weigh and prepare a model; one out of a file is compared with Keras's own answer, once.

    Raises UnknownModel, NotFunctional, and ModelError, also for a model that would answer otherwise than Keras does.
    Create the engine first: the first weight fixes TensorFlow's number of threads for the process.
    """
    return finished(build(source))


def proved(source: ModelSource) -> PreparedModel:
    """Load a model as `load` does, and compare one of the zoo with Keras's own answer, too, once on a machine.

    That takes seconds more, so it is done where a package is made, whose digest stands for it from then on.
    """
    original, flat = make(source)
    is_traced = flat.trace is not None
    model = finished(flat)
    if not is_traced:
        prove_whole(original, flat, model)
    return model


def finished(flat: FlatModel) -> PreparedModel:
    """Prepare a flattened model and prove it. Raises ModelError.

    The zoo's models have no trace to compare with: they are compared when they are packed (`proved`).
    """
    model, numbers = prepared_with_ids(flat)
    if flat.trace is not None:
        prove(flat, model, numbers)
        gc.collect()  # the trace held the weights that were folded
    return model
