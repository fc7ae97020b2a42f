#!/usr/bin/env python3
"""Kills a random process of a run every few seconds, and starts it again.

Prints the time from the start of a killed process to its first accepted step, and the duration and the accuracy of the
run beside those of an undisturbed run. Needs `cargo build --release --examples`. See --help for the options.
"""
import argparse, json, os, random, socket, subprocess, sys, threading, time

parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--recipe", default="sync", help="recipe of the run")
parser.add_argument("--processes", type=int, default=5, help="number of processes")
parser.add_argument("--seconds", type=float, default=300, help="approximate duration of the run")
parser.add_argument("--every", type=float, default=2, help="seconds between two kills")
parser.add_argument("--spare", type=int, default=-1, help="rank that is never killed; -1: none")
parser.add_argument("--only", type=int, default=-1, help="the only rank that is killed; -1: any")
parser.add_argument("--transport", default="tcp", help="tcp or shm")
parser.add_argument("--seed", type=int, default=1, help="seed of the choice of processes to kill")
parser.add_argument("--apart", action="store_true", help="the servers are processes of their own, with the last ranks")
args = parser.parse_args()
random.seed(args.seed)
target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(__file__), "..", "target")
node = os.path.join(target, "release", "examples", "node")
if not os.path.exists(node):
    sys.exit(f"{node}: not built; cargo build --release --examples")
workers = args.processes - args.apart
pace, share = 40, 1433 // workers
batches = -(-share // 16)
epochs = max(2, int(args.seconds * pace / batches))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    """A process of the run, and a thread that reads its output."""

    def __init__(self, rank, meet, extra):
        self.rank, self.begun, self.first, self.result, self.said = rank, time.monotonic(), None, None, []
        command = [node, "--rank", str(rank), "--processes", str(args.processes), "--meet", f"127.0.0.1:{meet}"]
        command += ["--json", "--recipe", args.recipe, "--epochs", str(epochs)]
        command += ["--transport", args.transport, "--cluster", f"chaos-{meet}"]
        command += extra + (["--apart"] if args.apart else [])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            # A server takes no steps: its first worker counts instead.
            began = "first step done" in line or (args.apart and "has joined" in line)
            if began and self.first is None:
                self.first = time.monotonic() - self.begun
            if line.startswith("{") and f'"rank":{self.rank},' in line:
                self.result = json.loads(line)


def run(extra, disturb):
    """Runs all processes to their end, with kills if `disturb`. Returns None if one fails or the run does not end."""
    meet, begun = free_port(), time.monotonic()
    nodes = [Node(rank, meet, extra) for rank in range(args.processes)]
    latencies, kills, pending = [], 0, None
    due = time.monotonic() + 3
    while any(n.process.poll() is None for n in nodes):
        time.sleep(0.01)
        for n in nodes:
            if n.process.poll() not in (None, 0, -9):
                print(f"rank {n.rank} ended with {n.process.poll()}:", *n.said[-3:], sep="\n  ")
                return None
        if pending and pending.first is not None:
            latencies.append(pending.first)
            pending = None
        # The next kill waits until the process that was killed last has taken a step.
        if disturb and time.monotonic() > due and pending is None and time.monotonic() - begun < args.seconds:
            ranks = [r for r in range(args.processes) if r != args.spare and nodes[r].process.poll() is None]
            ranks = [r for r in ranks if args.only in (-1, r)]
            victim = random.choice(ranks or [0])
            if ranks and nodes[victim].first is not None:
                nodes[victim].process.kill()
                nodes[victim].process.wait()
                kills += 1
                pending = nodes[victim] = Node(victim, meet, extra)
            due = time.monotonic() + args.every
        if time.monotonic() - begun > 3 * args.seconds + 60:
            print("the run does not end; last lines by rank:", *[f"{n.rank}: {n.said[-1:]}" for n in nodes], sep="\n  ")
            return None
    for n in nodes:
        n.thread.join()
    first = nodes[0].result or {}
    digests = {n.result["digest"] for n in nodes if n.result and n.result["steps"]}
    return dict(seconds=time.monotonic() - begun, kills=kills, latencies=sorted(latencies),
                accuracy=first.get("accuracy"), digests=digests)


calm = run(["--quiet"], False)
paced = run(["--pace", str(pace)], True)
if paced:
    waits = paced["latencies"] or [float("nan")]
    ideal = epochs * batches / pace
    p50, p99 = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    same = "the same as" if paced["digests"] == calm["digests"] else "different from"
    equal = "equal" if len(paced["digests"]) == 1 else "not equal"
    seconds, kills = paced["seconds"], paced["kills"]
    print(f"{args.recipe}, {args.processes} processes over {args.transport}: {kills} kills in {seconds:.0f} s")
    print(f"  start to first accepted step  p50 {p50:.2f} s  p99 {p99:.2f} s  longest {waits[-1]:.2f} s")
    print(f"  duration                      {seconds:.1f} s, undisturbed {ideal:.1f} s: pace {ideal / seconds:.2f}")
    print(f"  accuracy                      {paced['accuracy']:.4f}, undisturbed {calm['accuracy']:.4f}")
    print(f"  parameters                    {same} undisturbed, {equal} on all workers")
