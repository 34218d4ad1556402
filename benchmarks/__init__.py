"""Speed and memory against the plain forward and against peers; never collected by the normal test command."""
