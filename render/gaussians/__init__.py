"""Clouds of 3D Gaussians: parameters, densification, files; shared by the methods."""
