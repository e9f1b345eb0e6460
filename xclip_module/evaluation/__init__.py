"""Scores to numbers: encoding once, curves, moments, metrics and controls."""
