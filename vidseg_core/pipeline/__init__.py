"""The job on Ray: plan, keyed branches, engine actors, commits, resume."""
