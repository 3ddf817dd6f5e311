"""From bytes that arrive to a model's inputs, and from its outputs to classes."""
