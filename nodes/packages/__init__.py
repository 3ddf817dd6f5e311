"""Packages of models on their way between nodes: published once, fetched in pieces where a plan needs them."""
