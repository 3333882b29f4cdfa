"""The version of andon, for the package, its run-only distribution and everything they write."""

VERSION = "0.1.0"
