"""The names of ImageNet's classes, as Keras has them. Downloads a small file once, so only for `weights: imagenet`."""

from __future__ import annotations

import logging

import numpy as np

from pipeline.tensorflow_runtime import keras

_log = logging.getLogger(__name__)

CLASSES = 1000


def imagenet_labels() -> tuple[str, ...] | None:
    """The thousand names by class index; None, with a message in the log, when the file cannot be had."""
    ascending = np.arange(CLASSES, dtype=np.float32)[None]
    try:
        (ranked,) = keras.applications.imagenet_utils.decode_predictions(ascending, top=CLASSES)
    except Exception as error:  # what a download raises is not told; an answer without names is better than none
        _log.warning("no names for ImageNet's classes: %s; give the model's labels in the configuration", error)
        return None
    return tuple(name for _, name, _ in reversed(ranked))
