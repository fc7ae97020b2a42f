#!/usr/bin/env python3
"""Compares the forecasts of `plan` with real processes over links of a given bandwidth.

Every process runs in a network namespace of its own. The namespaces hang on a bridge, and the kernel shapes both
directions of every link. The steps take a fixed time (`node --pace`), so the processors of one machine are enough.
Needs Linux, root, unshare, nsenter, ip and tc, and `cargo build --release --examples`. Prints a row per cell: the
forecast, the measured time of a step, and the error of the forecast. See --help for the options.
"""
import argparse, itertools, json, os, re, subprocess, sys

parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--links", default="50mbit,200mbit,1000mbit", help="bandwidths of each process, both ways")
parser.add_argument("--processes", default="2,4", help="numbers of processes")
parser.add_argument("--recipes", default="sync;averaging period=10;mesh", help="recipes, separated by semicolons")
parser.add_argument("--pace", type=int, default=10, help="steps per second of a worker without communication")
parser.add_argument("--hidden", default="512,512", help="sizes of the hidden layers")
parser.add_argument("--epochs", type=int, default=3, help="length of the longer run; the shorter one has one epoch")
parser.add_argument("--tolerance", type=float, default=0.1, help="largest error of a good forecast")
parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
args = parser.parse_args()

target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(__file__), "..", "target")
program = lambda name: os.path.abspath(os.path.join(target, "release", "examples", name))
for name in ["node", "plan"]:
    if not os.path.exists(program(name)):
        sys.exit(f"{program(name)}: not built; cargo build --release --examples")
if not args.inside:
    trial = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if trial.returncode:
        sys.exit(f"network namespaces need root and unshare: {trial.stderr.strip()}")
    os.execvp("unshare", ["unshare", "--net", sys.executable, os.path.abspath(__file__), "--inside", *sys.argv[1:]])

HIDDEN = [int(n) for n in args.hidden.split(",")]
LAYERS = [64, *HIDDEN, 10]
PARAMS = sum(a * b + b for a, b in itertools.pairwise(LAYERS))


def sh(line):
    subprocess.run(line, shell=True, check=True)


class Hosts:
    """Network namespaces on a bridge, each of which a sleeping process keeps."""

    def __init__(self, count, rate):
        sh("ip link add hub type bridge && ip link set hub up && ip link set lo up")
        self.keepers = [subprocess.Popen(["unshare", "--net", "sleep", "3600"]) for _ in range(count)]
        for i, keeper in enumerate(self.keepers):
            # Until the keeper has its own namespace, moving a link to it does nothing.
            while os.readlink(f"/proc/{keeper.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                pass
            shape = f"root tbf rate {rate} burst 64kb latency 500ms"
            sh(f"ip link add port{i} type veth peer name eth0 netns {keeper.pid}")
            sh(f"ip link set port{i} master hub up && tc qdisc add dev port{i} {shape}")
            self.run(i, f"ip link set lo up && ip addr add 10.0.0.{i + 1}/24 dev eth0 && ip link set eth0 up "
                        f"&& tc qdisc add dev eth0 {shape}").wait()

    def run(self, host, line, **options):
        return subprocess.Popen(["nsenter", "--net", f"--target={self.keepers[host].pid}", "sh", "-c", line], **options)

    def end(self):
        for keeper in self.keepers:
            keeper.kill()
            keeper.wait()
        sh("ip link del hub")


def measure(hosts, count, recipe):
    """Seconds of a step of real processes, without those of the start and the end: the difference of two runs."""
    (short, few), (long, many) = (train(hosts, count, recipe, epochs) for epochs in (1, args.epochs))
    return (long - short) / (many - few)


def train(hosts, count, recipe, epochs):
    """Seconds and steps of a run, both the mean of its workers."""
    line = (f"{program('node')} --processes {count} --meet 10.0.0.1:7000 --insecure-open --json --quiet --pace {args.pace} "
            f"--epochs {epochs} --hidden {args.hidden} --recipe '{recipe}' --rank ")
    nodes = [hosts.run(i, f"exec {line} {i}", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(count)]
    said = [node.communicate() for node in nodes]
    failed = [err for node, (_, err) in zip(nodes, said) if node.returncode]
    if failed:
        sys.exit(f"{recipe}: {failed[0]}")
    results = [json.loads(out.splitlines()[-1]) for out, _ in said]
    return [sum(result[name] for result in results) / count for name in ("seconds", "steps")]


def forecast(count, recipe, link):
    line = [program("plan"), "--json", "--params", str(PARAMS), "--step", f"{1000 / args.pace}ms", "--workers", str(count)]
    out = subprocess.run([*line, "--link", link, "--recipe", recipe], capture_output=True, text=True, check=True).stdout
    return json.loads(out)["groups"][0]["rows"][0]["step"]


print(f"benches/plan.py: {PARAMS} parameters, {args.pace} steps/s without communication\n")
print("link      processes  recipe                forecast  measured   error")
good = cells = 0
for link in args.links.split(","):
    for count in map(int, args.processes.split(",")):
        hosts = Hosts(count, link)
        for recipe in args.recipes.split(";"):
            seconds, expected = measure(hosts, count, recipe), forecast(count, recipe, link)
            error = expected / seconds - 1
            cells, good = cells + 1, good + (abs(error) <= args.tolerance)
            print(f"{link:<9} {count:>9}  {recipe:<20} {1000 * expected:>7.1f} ms {1000 * seconds:>6.1f} ms {error:>+7.1%}", flush=True)
        hosts.end()
print(f"\n{good} of {cells} forecasts within {args.tolerance:.0%}")
