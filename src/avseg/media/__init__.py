"""Read and write video, audio and image files; videos with PyAV on one clock in seconds and in constant memory."""
