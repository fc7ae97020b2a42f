#!/usr/bin/env bash
# Compares all-reduce with gloo (of PyTorch, on the CPU) and Open MPI between processes, and with burn between threads, in
# one run, and prints ratios of medians.
#
# usage: benches/peers/run.sh [PROCESSES ...]      default: 2 4
#
# On Debian it installs python3-torch, openmpi-bin and python3-mpi4py if they are missing. It builds burn's collective,
# which takes minutes once. Only this script needs them.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=/usr/bin/python3
if ! $python -c 'import torch, mpi4py, numpy' 2>/dev/null || ! command -v mpirun >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        python3-torch python3-numpy python3-mpi4py openmpi-bin >/dev/null
fi
cargo build --quiet --release --bench allreduce 2>/dev/null || cargo bench --quiet --bench allreduce --no-run
here=benches/peers
results=$(mktemp)
printf '%9s  %2s  %11s  %12s  %12s\n' '' n bytes 'median us' 'best us'
for n in "${@:-2 4}"; do
    for n in $n; do
        for bytes in 65536 1048576 58400000 400000000; do
            {
                $python $here/gloo.py "$n" "$bytes"
                cargo bench --quiet --bench allreduce -- --transport tcp,tcp-owned,shm,shm-owned --processes "$n" \
                    --bytes "$bytes" | tail -n 4 | cut -c1-55
                mpirun --allow-run-as-root --oversubscribe -n "$n" $python $here/mpi.py "$bytes" 2>/dev/null
            } | tee -a "$results"
        done
    done
done
echo
echo 'ratios of medians (2 means twice as fast)'
awk '{ t[$2 " " $3, $1] = $4; key[$2 " " $3] = NR }
     END { row = "%d n=%-2s %11s B   to gloo: tcp %6.2f, owned %6.2f; shm %6.2f   shm to openmpi %6.2f, owned %6.2f\n"
           for (k in key) printf row, key[k],
           substr(k, 1, index(k, " ") - 1), substr(k, index(k, " ") + 1),
           t[k, "gloo"] / t[k, "tcp"], t[k, "gloo"] / t[k, "tcp-owned"], t[k, "gloo"] / t[k, "shm"],
           t[k, "openmpi"] / t[k, "shm"], t[k, "openmpi"] / t[k, "shm-owned"] }' "$results" |
    sort -n | cut -d' ' -f2-
rm -f "$results"

echo
if ! cargo build --quiet --release --manifest-path $here/burn/Cargo.toml; then
    echo "skipped: threads (burn cannot be built)"
    exit
fi
echo 'threads, 58.4 MB: us a step, and the ratio to the fastest strategy of burn'
for n in "${@:-2 4}"; do
    for n in $n; do
        burn=$($here/burn/target/release/burn "$n" 14600000)
        echo "$burn"
        cargo bench --quiet --bench threads -- --workers "$n" --floats 14600000 |
            awk -v burn="$(awk '{ print $4 }' <<<"$burn")" '$2 == 14600000 {
                time = $(NF - 1); sub(/ +[0-9.]+ +[0-9.]+ *$/, ""); printf "%s %12.1f  to burn %6.2f\n", $0, time, burn / time }'
    done
done
