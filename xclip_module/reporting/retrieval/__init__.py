"""Pages, tables and pictures of text-video retrieval."""
