"""What only fine-tuning does: the run, its files and its log."""
