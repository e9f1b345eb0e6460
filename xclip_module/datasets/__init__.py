"""Videos, sentences and moments of every data set. Imports nothing, so that its modules also run as commands."""
