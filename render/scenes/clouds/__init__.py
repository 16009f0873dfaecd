"""Point clouds: one reader a file format, cleaning, and PLY back to disk."""
