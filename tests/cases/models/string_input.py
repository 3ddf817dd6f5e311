# A string input (StringLookup, TextVectorization): verify ends in a traceback, np.dtype("string").
import sys

import keras

L = keras.layers
keras.utils.set_random_seed(0)
a, c = keras.Input((1,), name="age"), keras.Input((1,), dtype="string", name="thal")
x = L.concatenate([a, L.StringLookup(vocabulary=["normal", "fixed"], output_mode="one_hot")(c)])
keras.Model([a, c], L.Dense(1)(x)).save(sys.argv[1] if len(sys.argv) > 1 else "string_input.keras")
