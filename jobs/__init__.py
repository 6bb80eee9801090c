"""What a person submits: one thin file per verb (``python -m jobs.segment`` is ``vidseg segment``)."""
