"""The scripts that make every number in docs/."""
