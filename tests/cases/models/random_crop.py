# RandomCrop at inference passes the image through uncropped, whatever it declares.
import sys

import keras

L = keras.layers
keras.utils.set_random_seed(0)
i = keras.Input((64, 64, 3))
x = L.CenterCrop(48, 48)(L.RandomCrop(56, 56)(i))
keras.Model(i, L.Conv2D(4, 3)(x)).save(sys.argv[1] if len(sys.argv) > 1 else "random_crop.keras")
