"""From a Keras model to blocks: flattened, folded, grouped, named by a digest, or refused."""
