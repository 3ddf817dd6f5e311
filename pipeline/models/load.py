"""From a source to a model that is ready to be cut: built, weighed and prepared; the same on every node."""

from __future__ import annotations

import gc

from pipeline.models.build import build
from pipeline.models.proof import prove
from pipeline.models.source import ModelSource
from pipeline.prepare.flatten import FlatModel
from pipeline.prepare.model import PreparedModel, prepared_with_ids


def load(source: ModelSource) -> PreparedModel:
    """Build, weigh and prepare a model; one out of a file is compared with Keras's own answer, once.

    Raises UnknownModel, NotFunctional, and ModelError, also for a model that would answer otherwise than Keras does.
    Create the engine first: the first weight fixes TensorFlow's number of threads for the process.
    """
    return finished(build(source))


def finished(flat: FlatModel) -> PreparedModel:
    """Prepare a flattened model and prove it. Raises ModelError.

    The zoo's models have no trace to compare with: `trisect verify` compares them, and so do the tests.
    """
    model, numbers = prepared_with_ids(flat)
    if flat.trace is not None:
        prove(flat, model, numbers)
        gc.collect()  # the trace held the weights that were folded
    return model
