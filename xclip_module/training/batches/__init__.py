"""What a step of training learns from: clips, sentences and which of them belong together."""
