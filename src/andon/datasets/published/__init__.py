"""Published data sets: sources, licences, download, counts."""
