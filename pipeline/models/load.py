"""From a source to a model that is ready to be cut: built, weighed and prepared; the same on every node."""

from __future__ import annotations

from pipeline.models.build import build
from pipeline.models.source import ModelSource
from pipeline.prepare.model import PreparedModel, prepared_from


def load(source: ModelSource) -> PreparedModel:
    """Build, weigh and prepare a model. Raises UnknownModel, NotFunctional, ModelError.

    Create the engine first: the first weight fixes TensorFlow's number of threads for the process.
    """
    return prepared_from(build(source))
