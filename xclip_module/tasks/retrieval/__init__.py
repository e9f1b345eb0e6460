"""Which video a sentence means: load, score, judge, write, and what is trained for it."""
