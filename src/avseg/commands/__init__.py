"""Commands of ``avseg``, by their first word: each reads its arguments, and imports its dependencies when it runs."""
