# The mask is an explicit tensor argument all the way; trisect still refuses: the LSTM's output carries it as well.
import sys

import keras

L, ops = keras.layers, keras.ops
keras.utils.set_random_seed(0)
i = keras.Input((12,), dtype="int32")
mask = ops.not_equal(i, 0)
x = L.LSTM(8, return_sequences=True)(L.Embedding(4, 16)(i), mask=mask)
x = L.GlobalAveragePooling1D()(x, mask=mask)
keras.Model(i, L.Dense(3)(x)).save(sys.argv[1] if len(sys.argv) > 1 else "explicit_mask.keras")
