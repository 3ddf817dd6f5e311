"""Networks as programs of simple operations, kept in packages, written as LiteRT segments. Needs no TensorFlow."""
