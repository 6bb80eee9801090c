"""What every verb needs around its work: messages, signals, a Ray session, claim and check of an output."""
