"""What fills the frames between keys, beside each other: `python -m benchmarks.propagators`."""
