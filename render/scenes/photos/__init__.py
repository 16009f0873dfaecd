"""Photographs: decoding, shrinking, masks, lenses, what is kept in memory and on disk."""
