"""A prepared model's Keras calls become operations of a program, which run without Keras.

A block with a call that is not known here becomes one `foreign` operation: its graph as TensorFlow's converter makes
it. LiteRT runs that too, but not in tiles, and with the same bits on one kind of processor only.
"""

from pipeline.prepare.lowering.lower import lower

__all__ = ["lower"]
