"""Packages in pieces: what they consist of, and files that are filled as pieces come. Knows no network."""
