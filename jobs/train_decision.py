"""``python -m jobs.train_decision`` is ``vidseg train-decision``."""

from vidseg_core.cli.main import main_of

main = main_of("train-decision")

if __name__ == "__main__":
    raise SystemExit(main())
