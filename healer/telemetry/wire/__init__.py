"""What comes over the wire, as numbers, and the store of newest samples that it fills."""
