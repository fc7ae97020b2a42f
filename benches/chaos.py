#!/usr/bin/env python3
"""Kills a random worker every few seconds while processes train, and starts it again:

    benches/chaos.py [--recipe R] [--processes N] [--seconds S] [--every S] [--spare RANK] [--transport T]

Prints how long a killed worker takes until its first step is accepted, how much longer the run takes than one that nobody
disturbs, and what it has learnt beside that one. Needs `cargo build --release --examples`.
"""
import argparse, json, os, random, socket, subprocess, sys, threading, time

parser = argparse.ArgumentParser()
parser.add_argument("--recipe", default="sync")
parser.add_argument("--processes", type=int, default=5)
parser.add_argument("--seconds", type=float, default=300)
parser.add_argument("--every", type=float, default=2)
parser.add_argument("--spare", type=int, default=-1, help="a rank that is never killed")
parser.add_argument("--only", type=int, default=-1, help="the one rank that is killed")
parser.add_argument("--transport", default="tcp")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--apart", action="store_true")
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
    def __init__(self, rank, meet, extra):
        self.rank, self.begun, self.first, self.result, self.said = rank, time.monotonic(), None, None, []
        command = [node, "--rank", str(rank), "--processes", str(args.processes), "--meet", f"127.0.0.1:{meet}", "--json"]
        command += ["--recipe", args.recipe, "--epochs", str(epochs), "--transport", args.transport, "--cluster", f"chaos-{meet}"]
        command += extra + (["--apart"] if args.apart else [])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            began = "first step done" in line or (args.apart and "is here" in line)
            if began and self.first is None:
                self.first = time.monotonic() - self.begun
            if line.startswith("{") and f'"rank":{self.rank},' in line:
                self.result = json.loads(line)


def run(extra, disturb):
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
            print("it does not end:", *[f"{n.rank}: {n.said[-1:]}" for n in nodes], sep="\n  ")
            return None
    for n in nodes:
        n.thread.join()
    first = nodes[0].result or {}
    return dict(seconds=time.monotonic() - begun, kills=kills, latencies=sorted(latencies), accuracy=first.get("accuracy"),
                digests={n.result["digest"] for n in nodes if n.result and n.result["steps"]})


calm = run(["--quiet"], False)
paced = run(["--pace", str(pace)], True)
if paced:
    waits = paced["latencies"] or [float("nan")]
    ideal = epochs * batches / pace
    print(f"{args.recipe}, {args.processes} processes over {args.transport}: {paced['kills']} kills in {paced['seconds']:.0f} s")
    print(f"  start to first accepted step  p50 {waits[len(waits) // 2]:.2f} s  p99 {waits[int(len(waits) * 0.99)]:.2f} s  most {waits[-1]:.2f} s")
    print(f"  time                          {paced['seconds']:.1f} s, undisturbed {ideal:.1f} s: {ideal / paced['seconds']:.2f} of its pace")
    print(f"  accuracy                      {paced['accuracy']:.4f}, undisturbed {calm['accuracy']:.4f}")
    print(f"  parameters                    {'the same' if paced['digests'] == calm['digests'] else 'others'} as undisturbed, "
          f"{'equal' if len(paced['digests']) == 1 else 'not equal'} on all workers")
