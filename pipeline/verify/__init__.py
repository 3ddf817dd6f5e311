"""Verification: split and tiled networks compared bit for bit with the whole one."""
