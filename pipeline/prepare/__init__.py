"""From a Keras model to blocks of calls and operations. Needs TensorFlow."""
