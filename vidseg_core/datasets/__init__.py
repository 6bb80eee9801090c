"""Data with labels: the generated scenes, on demand (`scenes`) or as files (`scene_files`)."""
