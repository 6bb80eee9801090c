"""Search for schedulers: trials on shared episode tables (Ray Tune, Optuna), the Pareto front, finalists."""
