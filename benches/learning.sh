#!/usr/bin/env bash
# The accuracy that compression costs: a mesh of 4 workers learns the digits with different thresholds and seeds.
# Prints a table: mean and worst accuracy before the end, the same after the residuals have been sent (`--end send`),
# bytes per step, and their share of the size as dense floats. With `--end keep`, the default of every recipe, the
# accuracy after the end is that before it.
#
# usage: benches/learning.sh [SEEDS]      default: 5
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-5}
cargo build --quiet --release --example cluster
echo "| \`cluster --recipe …\` | before the end | worst | after \`end=send\` | worst | bytes a step | of dense |"
echo "|---|---|---|---|---|---|---|"
row() {
    for seed in $(seq 1 "$seeds"); do
        "${CARGO_TARGET_DIR:-target}/release/examples/cluster" --json --end send --seed "$seed" --recipe "$@" 2>/dev/null
    done | awk -v name="$*" '
        function field(key) {
            match($0, "\"" key "\":[-0-9.e]+")
            split(substr($0, RSTART, RLENGTH), part, ":")
            return part[2]
        }
        { b = field("accuracy_before_end"); a = field("accuracy"); before += b; after += a
          if (NR == 1 || a < worst) worst = a
          if (NR == 1 || b < worst_before) worst_before = b
          sent += field("bytes_sent"); dense += field("bytes_dense"); steps += field("steps") }
        END { printf "| `%s` | %.2f%% | %.2f%% | %.2f%% | %.2f%% | %.0f | %.2f%% |\n",
              name, 100 * before / NR, 100 * worst_before, 100 * after / NR, 100 * worst, sent / steps,
              100 * sent / dense }'
}
row mesh --epochs 60 --warmup 1000000
for density in 0.01 0.003 0.001; do
    row mesh --epochs 60 --density "$density" --warmup 30
done
row mesh --epochs 60 --density 0.001 --warmup 30 --scope tensor
row mesh --epochs 60 --density 0.001 --warmup 30 --ramp 100
row mesh --epochs 60 --density 0.001
row mesh --epochs 60 --byte-budget 512 --warmup 30
row mesh --epochs 60 --control band
row strom --epochs 60 --tau 0.001953125
row strom --epochs 60 --tau 0.0625
row strom --epochs 60 --tau 0.5
row mesh --epochs 20 --warmup 1000000
row mesh --epochs 20 --density 0.01 --warmup 30
row mesh --epochs 20 --density 0.003 --warmup 30
row mesh --epochs 20 --density 0.001 --warmup 30
