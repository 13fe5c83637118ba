"""What ``avseg data`` does with data sets on disk, besides loading them: check, prepare."""
