"""What a network's outputs mean: tasks, their decoders as blocks after the network, and answers in plain values."""
