"""Sprites of the built-in benchmark: rendered objects, their sounds, and backgrounds."""
