"""``python -m jobs.train_segmenter`` is ``vidseg train-segmenter``."""

from vidseg_core.cli.main import main_of

main = main_of("train-segmenter")

if __name__ == "__main__":
    raise SystemExit(main())
