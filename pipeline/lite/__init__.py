"""Networks as programs of simple operations, kept in packages and written as LiteRT segments; no TensorFlow, no Keras."""
