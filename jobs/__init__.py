"""What a person submits from a checkout: ``python -m jobs.segment`` is ``vidseg segment``.

The verbs themselves are in `vidseg_core.cli.verbs`.
"""
