"""The LiteRT engine (TensorFlow Lite's interpreter, XNNPACK kernels): an optional extra, made for small machines.

Answers equal those of its own unsplit network bit for bit, and TensorFlow's within 1e-5. Compiling a segment takes
milliseconds, once the model is converted; each segment has its own packed copy of its weights.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from pipeline.backend import quiet_stderr, set_up
from pipeline.engines import Array, BlockTimes
from pipeline.engines.checks import check, fitting, noise, zeros
from pipeline.engines.litert_graph import LiteGraph
from pipeline.errors import ModelError
from pipeline.prepared import PreparedModel
