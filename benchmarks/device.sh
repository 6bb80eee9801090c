#!/usr/bin/env bash
# What a GPU is worth: lanes, speedup and propagators, within 8 minutes of a machine that has one.
#
#   benchmarks/device.sh OUT [DATA]
#
# From a checkout, in an environment with the package installed. OUT gets what each benchmark prints and its raw
# rows; DATA is the folder of real material, whose street `speedup` takes: without it a scene is drawn. One that takes
# longer than its share is ended, and the others still run; the exit code says how many did not get through.
set -uo pipefail
out=$(realpath -m "${1:?"usage: benchmarks/device.sh OUT [DATA]"}") || exit 2
data=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.." || exit 2
mkdir -p "$out"
python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else exit("no GPU here"))' || exit 2
bad=0

run() { # NAME SECONDS OPTIONS...
    local name=$1 seconds=$2 begun=$SECONDS
    shift 2
    timeout --signal INT --kill-after 10 "$seconds" python -m "benchmarks.$name" --json "$out/$name.json" "$@" \
        >"$out/$name.log" 2>&1 || { echo "$name: not through (exit code $?), see $out/$name.log"; bad=$((bad + 1)); }
    tail -n 25 "$out/$name.log"
    echo "$name: $((SECONDS - begun)) s"
}

run lanes 120 --device cuda --frames 31
run speedup 150 --repeat 1 --frames 200 --clips 4 ${data:+--data "$data"}
run propagators 210 --device cuda --material scenes --steps 200
exit "$bad"
