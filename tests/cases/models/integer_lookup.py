# IntegerLookup one_hot: Keras declares float32, its call makes int64; works in Keras, trisect stops when it compiles.
import sys

import keras

keras.utils.set_random_seed(0)
i = keras.Input((1,), dtype="int64")
x = keras.layers.IntegerLookup(vocabulary=[3, 5, 9], output_mode="one_hot")(i)
keras.Model(i, keras.layers.Dense(2)(x)).save(sys.argv[1] if len(sys.argv) > 1 else "integer_lookup.keras")
