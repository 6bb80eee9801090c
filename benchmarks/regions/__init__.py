"""Regions with keys of their own: what crops cost a net, what exact schedules win, what real ones keep of it.

`python -m benchmarks.regions PART`; a module per part.
"""
