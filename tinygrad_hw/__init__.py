"""tinygrad_hw."""
