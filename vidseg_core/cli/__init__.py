"""The command line: the table of verbs, and what every verb does around its work."""
