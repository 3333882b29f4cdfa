"""The line product: parts are judged, each verdict is kept, and the line stops when something is wrong."""
