"""Video and sound files, read and written with PyAV on one clock, in seconds and in constant memory."""
