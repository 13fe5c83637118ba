"""``avseg bench``: models under one recipe and one budget, and what their difference is worth."""
