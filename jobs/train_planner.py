"""``python -m jobs.train_planner`` is ``vidseg train-planner``."""

from vidseg_core.cli.main import main_of

main = main_of("train-planner")

if __name__ == "__main__":
    raise SystemExit(main())
