# A nested model built with list inputs and called with a dict: Keras pairs by name (Functional._standardize_inputs),
# flatten._paired pairs by sorted key order.
import sys

import keras

keras.utils.set_random_seed(0)
z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
inner = keras.Model([z, a], 3.0 * z - a, name="inner")
p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
model = keras.Model([p, q], inner({"z": p, "a": q}))
model.save(sys.argv[1] if len(sys.argv) > 1 else "nested_dict_inputs.keras")
