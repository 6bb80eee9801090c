"""vidseg: segmentation of video corpora with key frames and propagation, as a resumable Ray job.

This file imports nothing, so that a child process which needs one part of the package (the decoder, say)
does not pay for the others.
"""

__version__ = "0.1.0"
