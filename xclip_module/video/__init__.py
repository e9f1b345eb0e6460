"""Bytes of a file to pictures at times."""
