"""Training: the loss, its exact gradient in micro-batches over processes, and what the optimizer does with it."""
