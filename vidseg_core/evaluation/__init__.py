"""Schedulers and propagators over labelled clips: one resumable run, one tidy table."""
