"""``python -m jobs.train_flow`` is ``vidseg train-flow``."""

from vidseg_core.cli.main import main_of

main = main_of("train-flow")

if __name__ == "__main__":
    raise SystemExit(main())
