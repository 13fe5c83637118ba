"""Drawn things, their sounds and their scenery: the sprites of the built-in benchmark."""
