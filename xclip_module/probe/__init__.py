"""What only the linear probe does: heads on frozen features."""
