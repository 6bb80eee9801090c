"""What every verb needs around its work: messages, signals, a Ray session, whose output it is, what is missing."""
