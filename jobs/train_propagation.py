"""``python -m jobs.train_propagation`` is ``vidseg train-propagation``."""

from vidseg_core.cli.main import main_of

main = main_of("train-propagation")

if __name__ == "__main__":
    raise SystemExit(main())
