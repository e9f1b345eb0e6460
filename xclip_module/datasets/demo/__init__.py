"""The demo data set: drawn operations in the layout of Cholec80."""
