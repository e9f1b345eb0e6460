"""Every picture encoded, or kept, once."""
