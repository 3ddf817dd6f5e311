"""Constants, shapes and order of tensors in a LiteRT file: what moves numbers and computes none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.errors import ModelError
from pipeline.lite.flatfile import ACTIVATIONS, Array, FlatFile, Ref
from pipeline.lite.windows import Pads, Pair


class Shapes:
    """Appends operations to a file. `weights` gives a package's array by its id."""

    def __init__(self, file: FlatFile, weights: Callable[[int], Array]) -> None:
        self.file, self._weights = file, weights

    def array(self, index: int) -> Ref:
        """A package's array as it is."""
        return self.file.constant(self._weights(index), ("array", index))

    def derived(self, index: int, how: object, make: Callable[[Array], Array]) -> Ref:
        """A constant that `make` derives from a package's array, once for each key `how`; None leaves it as it is."""
        if how is None:
            return self.array(index)
        key = ("array", index, how)
        known = self.file.known(key)
        return known if known is not None else self.file.constant(make(self._weights(index)), key)

    def scalar(self, value: float) -> Ref:
        """A constant number."""
        return self.file.constant(np.array(value, np.float32), ("scalar", float(value)))

    def reshape(self, x: Ref, shape: Sequence[int]) -> Ref:
        """The same numbers in another shape."""
        if math.prod(shape) != math.prod(x.shape):
            raise ModelError(f"{x.shape} cannot become {tuple(shape)}")
        if tuple(shape) == x.shape:
            return x
        return self.file.add("RESHAPE", [x, self.file.numbers(*shape)], shape, newShape=list(shape))

    def transpose(self, x: Ref, order: Sequence[int]) -> Ref:
        """The axes in another order."""
        return self.file.add("TRANSPOSE", [x, self.file.numbers(*order)], [x.shape[i] for i in order])

    def concat(self, parts: Sequence[Ref], axis: int) -> Ref:
        """Tensors one after the other along an axis."""
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        none = ACTIVATIONS["none"]
        return self.file.add("CONCATENATION", parts, shape, axis=axis, fusedActivationFunction=none)

    def cast(self, x: Ref, dtype: str) -> Ref:
        """The same numbers in another dtype."""
        return x if x.dtype == dtype else self.file.add("CAST", [x], x.shape, dtype=dtype)

    def gather(self, places: Ref, table: Ref) -> Ref:
        """Rows of a table, one for each integer."""
        shape = (*places.shape, *table.shape[1:])
        return self.file.add("GATHER", [table, places], shape, dtype=table.dtype, axis=0)

    def slice(self, x: Ref, begin: Sequence[int], sizes: Sequence[int]) -> Ref:
        """A part of each axis."""
        if any(b < 0 or n < 1 or b + n > whole for b, n, whole in zip(begin, sizes, x.shape, strict=True)):
            raise ModelError(f"a slice of {tuple(sizes)} from {tuple(begin)} on does not lie in {x.shape}")
        return self.file.add("SLICE", [x, self.file.numbers(*begin), self.file.numbers(*sizes)], sizes)

    def first(self, x: Ref, axis: int) -> Ref:
        """The first of an axis, which stays."""
        return self.slice(x, [0] * len(x.shape), [1 if i == axis else n for i, n in enumerate(x.shape)])

    def _channels(self, x: Ref, begin: int, size: int) -> Ref:
        last = len(x.shape) - 1
        return self.slice(x, [0] * last + [begin], [*x.shape[:last], size])

    def padded(self, x: Ref, pads: Pads, value: float) -> Ref:
        """A map with rows and columns of a value around it."""
        if not any(map(any, pads)):
            return x
        table = self.file.constant(np.array([(0, 0), *pads, (0, 0)], np.int32), ("pads", pads))
        shape = (1, x.shape[1] + sum(pads[0]), x.shape[2] + sum(pads[1]), x.shape[3])
        if value == 0.0:
            return self.file.add("PAD", [x, table], shape)
        return self.file.add("PADV2", [x, table, self.scalar(value)], shape)

    def cut(self, x: Ref, rows: Pair, columns: Pair) -> Ref:
        """Rows and columns of a map, half-open."""
        if (rows, columns) == ((0, x.shape[1]), (0, x.shape[2])):
            return x
        return self.slice(x, (0, rows[0], columns[0], 0), (1, rows[1] - rows[0], columns[1] - columns[0], x.shape[3]))

    def repeated(self, x: Ref, times: Pair) -> Ref:
        """Each row and column of a map several times."""
        if times == (1, 1):
            return x
        sizes = (x.shape[1] * times[0], x.shape[2] * times[1])
        return self.file.add("RESIZE_NEAREST_NEIGHBOR", [x, self.file.numbers(*sizes)], (1, *sizes, x.shape[3]))
