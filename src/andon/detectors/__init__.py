"""One detector, one file. The file's name is the detector's name; nothing else has to learn it."""
