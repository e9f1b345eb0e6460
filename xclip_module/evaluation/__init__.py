"""Answers against truth: one file a metric, the controls beside them, and how sure a number is."""
