"""The report of an audit as one self-contained page, and its machine-readable twin: plain values in, files out.

Jinja2 and the standard library only, and what the run's page has of both: this page has its look and its policy.
"""
