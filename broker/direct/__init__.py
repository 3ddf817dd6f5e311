"""The direct way: tensors go from node to node, in the packets that they would have on their way through the broker.

A node that takes part listens (`listener`); who has something for it connects (`ways`). Who they are and where, nodes
say on the broker, and whatever does not go directly goes through it.
"""
