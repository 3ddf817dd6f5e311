# Embedding(mask_zero) into MultiHeadAttention: Keras fills query_mask/value_mask/key_mask from the tensors' masks.
# refusals.check_mask looks only for an argument called `mask`, so the model is taken and the mask is lost.
import sys

import keras

L = keras.layers
keras.utils.set_random_seed(0)
i = keras.Input((12,), dtype="int32")
x = L.Embedding(4, 16, mask_zero=True)(i)
x = L.MultiHeadAttention(2, 8)(x, x)
keras.Model(i, L.Dense(3)(L.Flatten()(x))).save(sys.argv[1] if len(sys.argv) > 1 else "mha_mask.keras")
