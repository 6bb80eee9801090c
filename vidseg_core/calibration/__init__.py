"""The dial: what a sample of the corpus, run frame by frame, says of schedulers before the job begins. No
Ray."""
