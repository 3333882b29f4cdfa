"""What every other part of andon knows: errors, settings, files, records, images, regions, tiles."""
