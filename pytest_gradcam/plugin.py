"""pytest only: options, ini, marker, fixture, hooks. Every decision lives elsewhere."""
