"""Posed photographs: one reader a file format."""
