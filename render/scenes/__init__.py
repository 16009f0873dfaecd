"""Scenes: data structures and one reader per file format."""
