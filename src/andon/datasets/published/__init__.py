"""Published data sets: sources, licences, download and expected numbers of images."""
