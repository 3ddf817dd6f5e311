# The commonest tutorial model: a Sequential without Input, built by fit() at the batch size of training. Keras runs it
# with any batch (input_spec ignores the size); the file says batch_shape (4, ...), so trisect refuses it.
import sys

import keras
import numpy as np

L = keras.layers
keras.utils.set_random_seed(0)
model = keras.Sequential([L.Conv2D(4, 3, activation="relu"), L.BatchNormalization(), L.Flatten(), L.Dense(2)])
model.compile("sgd", "mse")
model.fit(np.random.rand(8, 8, 8, 3), np.random.rand(8, 2), batch_size=4, verbose=0)
assert model.predict(np.zeros((1, 8, 8, 3)), verbose=0).shape == (1, 2)
model.save(sys.argv[1] if len(sys.argv) > 1 else "seq_lazy.keras")
