"""When a sentence holds in a long video: load, score, judge, write, and what is trained for it."""
