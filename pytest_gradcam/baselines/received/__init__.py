"""What a run has left to be approved: found, checked without trust, and made a baseline of, or discarded."""
