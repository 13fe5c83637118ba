"""``avseg live``: masks of a camera with a microphone, of a pipe, or of a file at its own speed, while it runs."""
