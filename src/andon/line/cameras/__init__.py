"""Cameras of stations: one protocol, an adapter for each kind, and what takes the images of a station's parts."""
