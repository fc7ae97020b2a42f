#!/usr/bin/env bash
# What compression costs in accuracy: the digits, a mesh of 4 workers, equal examples, several seeds.
# Prints a table: mean and worst accuracy, bytes of a step and their share of dense floats.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-5}
cargo build --quiet --release --example cluster
printf '%-58s %8s %8s %10s %9s\n' "cluster --recipe mesh ..." "accuracy" "worst" "B a step" "of dense"
row() {
    for seed in $(seq 1 "$seeds"); do
        "${CARGO_TARGET_DIR:-target}/release/examples/cluster" --recipe mesh --json --seed "$seed" "$@"
    done | awk -v name="$*" '
        function field(key) { match($0, "\"" key "\":[-0-9.e]+"); split(substr($0, RSTART, RLENGTH), part, ":"); return part[2] }
        { a = field("accuracy"); sum += a; if (NR == 1 || a < worst) worst = a
          sent += field("bytes_sent"); dense += field("bytes_dense"); steps += field("steps") }
        END { printf "%-58s %7.2f%% %7.2f%% %10.0f %8.2f%%\n", name, 100 * sum / NR, 100 * worst, sent / steps, 100 * sent / dense }'
}
row --epochs 60 --warmup 1000000
for density in 0.01 0.003 0.001; do
    row --epochs 60 --density "$density" --warmup 30
done
row --epochs 60 --density 0.001 --warmup 30 --scope tensor
row --epochs 60 --density 0.001 --warmup 30 --ramp 100
row --epochs 60 --density 0.001
row --epochs 60 --byte-budget 512 --warmup 30
row --epochs 60 --control band
row --epochs 60 --tau 0.001953125
row --epochs 60 --tau 0.0625
row --epochs 60 --tau 0.5
row --epochs 20 --warmup 1000000
row --epochs 20 --density 0.01 --warmup 30
row --epochs 20 --density 0.003 --warmup 30
row --epochs 20 --density 0.001 --warmup 30
