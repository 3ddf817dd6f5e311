"""Bit for bit: split and tiled networks against the whole one."""
