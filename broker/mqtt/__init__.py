"""MQTT 5 for tensors: the packets that a bulk connection needs, without a socket and without a clock.

Bytes in, packets out (`reader`); packets in, buffers out (`packets`, `outgoing`); one connection's state (`client`).
"""
