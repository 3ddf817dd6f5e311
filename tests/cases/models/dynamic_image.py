# Fully convolutional, height and width left open (None): the usual way to save super-resolution, segmentation, YOLO,
# every keras_hub backbone. trisect refuses and has no option to say the size.
import sys

import keras

L = keras.layers
keras.utils.set_random_seed(0)
i = keras.Input((None, None, 3))
x = L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(i))
keras.Model(i, L.Conv2D(2, 1)(L.ReLU()(x))).save(sys.argv[1] if len(sys.argv) > 1 else "dynamic_image.keras")
