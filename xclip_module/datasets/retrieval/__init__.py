"""Annotation files of the text-video retrieval benchmarks."""
