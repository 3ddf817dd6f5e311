"""The one tree of errors, named by whose fault each is. Rooms add theirs below: broker, models, session, client.

An error of a library or of the system is translated into one of these once, where it enters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class TrisectError(Exception):
    """Root of all errors that a user can resolve; their text is shown without a traceback.

    Attributes:
        size, limit: the value that was refused and the one that is allowed, in one unit, where it is about sizes.
        node: id of the node that it is about.
        file: path of the file that it is about.
        hint: the way out, which ends the text.
    """

    def __init__(
        self,
        text: str = "",
        *,
        size: float | None = None,
        limit: float | None = None,
        node: str | None = None,
        file: str | Path | None = None,
        hint: str = "",
    ) -> None:
        self.size, self.limit, self.node, self.file, self.hint = size, limit, node, file, hint
        super().__init__(f"{text}; {hint}" if hint else text)


class ConfigError(TrisectError):
    """The configuration is wrong: names the file, the key and what is allowed."""


class ModelError(TrisectError):
    """The model, its file or its manifest cannot be used."""


class UnknownModel(ModelError):
    """No model goes by this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        hint = f"{meant}known: {', '.join(known)}, or a path to a .keras file"
        super().__init__(f"unknown model {name!r:.150}", hint=hint)
        self.name = name


class NotFunctional(ModelError):
    """The model cannot be cut: names the layer, and the reason with the way out where there is one."""

    def __init__(self, model: str, layer: str, reason: str) -> None:
        super().__init__(f"model {model!r} cannot be cut: {layer}: {reason}")
        self.layer = layer


class NoKernel(ModelError):
    """LiteRT cannot run a block: no operation here makes it, nor does TensorFlow's converter."""


class FrameError(TrisectError):
    """A frame's sender: the bytes are no image or array, or its shape does not fit the model."""


class WireError(TrisectError):
    """A peer: the bytes are not a tensor message that this node expects."""


class PlanError(TrisectError):
    """A plan does not fit its graph: a block missing or twice, data flowing backwards, a node unknown."""


class TileError(TrisectError):
    """A stack or a grid of tiles that a model does not have, or that an engine cannot compute without other bits."""


class MessageError(TrisectError):
    """A peer: the payload is not the message that its topic carries."""


class Infeasible(TrisectError):
    """No placement satisfies what was asked."""


class DigestMismatch(TrisectError):
    """Two nodes hold different models under one name."""

    def __init__(self, model: str, digests: Sequence[tuple[str, str]]) -> None:
        held = ", ".join(f"{node} has {digest}" for node, digest in digests)
        super().__init__(
            f"model {model!r} differs between nodes: {held}", hint="give all nodes the same weights and versions"
        )
        self.digests = tuple(digests)
