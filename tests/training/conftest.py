"""Fixtures of the tests beside this file."""

from tests.fakes import fake_method, tiny_scene

__all__ = ["fake_method", "tiny_scene"]
