# channels_first convolution: Keras on a CPU cannot run it; trisect verify ends in a traceback of TensorFlow's.
import sys

import keras

L = keras.layers
keras.utils.set_random_seed(0)
i = keras.Input((3, 16, 16))
x = L.MaxPooling2D(data_format="channels_first")(L.Conv2D(4, 3, data_format="channels_first")(i))
keras.Model(i, x).save(sys.argv[1] if len(sys.argv) > 1 else "channels_first.keras")
