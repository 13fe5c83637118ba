"""Building blocks of the models; most of them have a paper of their own."""
