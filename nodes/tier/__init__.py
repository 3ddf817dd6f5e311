"""A tier node (device, edge, cloud or worker): the process that decodes, computes and publishes."""
