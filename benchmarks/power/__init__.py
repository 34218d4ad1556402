"""Detection power: how often the assertions find what was planted in small models, and how often they cry wolf."""
