"""Data with labels, by name (`open`), in one record form (`records`), one by one or through Ray Data
(`ray_source`); and the generated scenes, on demand (`scenes`) or as files (`scene_files`)."""
