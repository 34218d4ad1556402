"""The report of a run as one self-contained page, and its machine-readable twin: records in, files out.

`pictures` runs where verdicts are made, and draws what the page shows of each. `page` and all it needs import the
standard library and Jinja2 alone: with xdist they run in a process that has loaded neither torch nor numpy.
"""
