"""Video, sound and picture files, read and written; videos with PyAV on one clock, in seconds, in constant memory."""
