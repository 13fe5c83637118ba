"""``avseg bench``: compare models trained with one recipe and number of steps, with confidence intervals."""
