"""Verdicts in; pictures, lines and records out. Nothing here measures, judges, or knows pytest."""
