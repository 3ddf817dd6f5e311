"""An endpoint of the Open Inference Protocol v2 before a pipeline. No TensorFlow."""
