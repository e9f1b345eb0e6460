"""Cholec80's files: layout, labels, splits and known counts."""
