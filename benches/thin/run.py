#!/usr/bin/env python3
"""Step times on a thin link: gradwire's recipes beside PyTorch's DistributedDataParallel over gloo.

Starts one process per network namespace. A veth pair connects each namespace to a bridge, and `tc ... tbf` limits each
port in both directions. All namespaces are made here and removed at the end. Needs root, ip, and a kernel with tbf;
without them, nothing is measured. The updates are random; nothing is trained, so that a step is communication only.

Rows with "spread" have a server in each process, other rows with servers one beside rank 0.

Columns: the time of a step at rank 0 (median; in asynchronous recipes the mean), the best time, the megabytes of a step
at the busiest port (the larger of sent and received, headers of TCP included), the time that these take at the rate of
the link, and how many times faster the step is than a dense ring and than PyTorch with its bf16 hook. Steps of the
recipe `mesh` do not wait for others; if they are faster than the link, messages are merged, which is counted.

The connections of gradwire are encrypted, as is its default beyond loopback (--insecure-open: they are not); those of
gloo cannot be.
"""
import argparse, json, os, re, shutil, signal, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
# Label, recipe, and the time of a step as a share of that of a dense ring, for n processes. The share only sets the
# number of steps.
ROWS = [
    ("ring", "sync topology=ring", lambda n: 1),
    ("ring-bf16", "ring-bf16", lambda n: 1 / 2),
    ("ring-int8", "ring-int8", lambda n: 1 / 4),
    ("ring sign", "sync topology=ring codec=sign", lambda n: 1 / 32),
    ("tree", "sync", lambda n: n),
    ("sparse", "sparse", lambda n: n / 50),
    ("sync mesh threshold", "sync topology=mesh codec=threshold density=0.01", lambda n: n / 50),
    ("local-sparse", "local-sparse", lambda n: n / 500),
    ("local-bf16", "local-bf16", lambda n: 1 / 40),
    ("mesh", "mesh", lambda n: n / 50),
    ("hardsync", "hardsync", lambda n: n),
    ("hardsync spread", "hardsync shards={8n}", lambda n: 2),
    ("hardsync top-k", "hardsync codec=topk density=0.01 pull=topk pull_density=0.02", lambda n: n / 30),
]
TORCH = [
    ("torch", "none", lambda n: 1),
    ("torch fp16 hook", "fp16", lambda n: 1 / 2),
    ("torch bf16 hook", "bf16", lambda n: 1 / 2),
]

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog="Defaults: 2 and 4 processes, 560000 and 14600000 floats, 100 Mbit/s.")
parser.add_argument("--processes", default="2,4", help="numbers of processes")
parser.add_argument("--floats", default="560000,14600000", help="sizes of the model")
parser.add_argument("--mbit", type=float, default=100, help="rate of each port and direction, in Mbit/s")
parser.add_argument("--seconds", type=float, default=10, help="approximate time of the steps of a row; at least 3 steps")
parser.add_argument("--recipe", action="append", help="measure this recipe instead of the rows; can be repeated")
parser.add_argument("--only", default="", help="labels of the rows to measure, with commas between them")
parser.add_argument("--insecure-open", action="store_true", help="gradwire without a key")
parser.add_argument("--python", default=sys.executable, help="the interpreter that has torch")
parser.add_argument("--json", help="append each row to this file")
args = parser.parse_args()

net = f"thin{os.getpid()}"
namespaces, running = [], []


def tool(*command, check=True):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stdout.strip()}")
    return done.stdout


def limit(namespace, device):
    """Limits what leaves through the device."""
    # The bucket must hold what the link carries between two turns of the timer.
    burst = max(16_000, int(args.mbit * 1e6 / 8 / 1000))
    command = ["tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf"]
    tool(*command, "rate", f"{args.mbit}mbit", "burst", str(burst), "latency", "50ms")


def build(count):
    """A namespace with a bridge, and `count` namespaces with a port of it."""

    def add(namespace):
        # Noted first: a signal can come between the two.
        namespaces.append(namespace)
        tool("ip", "netns", "add", namespace)
        tool("ip", "-n", namespace, "link", "set", "lo", "up")

    switch = f"{net}-sw"
    add(switch)
    tool("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
    tool("ip", "-n", switch, "link", "set", "br0", "up")
    for rank in range(count):
        node, port = f"{net}-{rank}", f"port{rank}"
        add(node)
        tool("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node)
        tool("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
        tool("ip", "-n", node, "addr", "add", f"10.77.0.{rank + 1}/24", "dev", "eth0")
        tool("ip", "-n", node, "link", "set", "eth0", "up")
        limit(switch, port)
        limit(node, "eth0")


def stop():
    """Ends the processes of a row."""
    for process in running:
        if process.poll() is None:
            # Each child leads a process group of its own.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    running.clear()


def clean():
    stop()
    while namespaces:
        tool("ip", "netns", "del", namespaces.pop(), check=False)


def steps_of(share, count, floats):
    """The number of steps to measure, and the expected seconds of a step."""
    dense = 2 * (count - 1) / count * floats * 32 / (args.mbit * 1e6)
    expected = max(1e-3, share(count) * dense)
    return max(3, min(300, int(args.seconds / expected))), expected


def measure(commands, seconds):
    """Runs a command in each namespace. Returns their results, or the text of an error."""
    files = []
    for rank, command in enumerate(commands):
        files.append((tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")))
        command = ["ip", "netns", "exec", f"{net}-{rank}"] + command
        out, err = files[-1]
        # The last line of an error shall be its message.
        quiet = os.environ | {"RUST_BACKTRACE": "0"}
        process = subprocess.Popen(command, stdout=out, stderr=err, env=quiet, start_new_session=True)
        running.append(process)
    end = time.monotonic() + seconds
    ended = lambda: all(process.poll() is not None for process in running)
    while not ended() and not any(process.poll() for process in running) and time.monotonic() < end:
        time.sleep(0.02)
    failed = [rank for rank, process in enumerate(running) if process.poll()]
    late = not failed and not ended()
    stop()
    texts = []
    for pair in files:
        for file in pair:
            file.seek(0)
        texts.append((pair[0].read(), pair[1].read()))
        for file in pair:
            file.close()
    if late:
        return f"no result after {seconds:.0f} s"
    if failed:
        lines = [line for line in texts[failed[0]][1].splitlines() if line.strip() and not line.startswith("note:")]
        return f"rank {failed[0]}: {lines[-1] if lines else 'failed without a message'}"
    return [json.loads(out.splitlines()[-1]) for out, _ in texts]


def rows(count, floats, node, torch):
    """Label, share, and for a number of steps the commands of all ranks."""
    wanted = [word.strip() for word in args.only.split(",") if word.strip()]
    common = ["--processes", str(count), "--floats", str(floats), "--interface", "eth0"]
    # 10.77.0.1 is rank 0.
    common += ["--meet", "10.77.0.1:29510"] + ["--insecure-open"] * args.insecure_open

    def gradwire(recipe):
        # {n}: as many shards as processes, and a server in every process. {2n}: twice as many, and so on.
        text = re.sub(r"{(\d*)n}", lambda found: str(int(found[1] or 1) * count), recipe)
        spread = ["--servers", str(count)] * (text != recipe)
        command = [node, "--bench", "--recipe", text] + spread + common
        return lambda steps: [command + ["--steps", str(steps), "--rank", str(rank)] for rank in range(count)]

    def ddp(hook):
        command = [args.python, os.path.join(HERE, "ddp.py")]
        last = ["eth0", hook]
        return lambda steps: [
            command + [str(rank), str(count), "10.77.0.1:29511", str(floats), str(steps)] + last for rank in range(count)]

    chosen = [(text, text, lambda n: 1 / 4) for text in args.recipe] if args.recipe else ROWS
    found = [(label, share, gradwire(recipe)) for label, recipe, share in chosen]
    found += [(label, share, ddp(hook)) for label, hook, share in TORCH if torch]
    return [row for row in found if not wanted or row[0] in wanted]


def table(count, floats, node, torch):
    print(f"\n{count} processes, {floats} floats ({floats * 4 / 1e6:.2f} MB), {args.mbit:g} Mbit/s per port and direction")
    results = []
    for label, share, commands in rows(count, floats, node, torch):
        steps, expected = steps_of(share, count, floats)
        # All processes begin with the parameters of rank 0, and some recipes end with dense ones.
        around = 6 * count * floats * 32 / (args.mbit * 1e6)
        said = measure(commands(steps), 60 + around + 4 * steps * expected)
        results.append((label, said))
        brief = said if isinstance(said, str) else f"{said[0]['step'] * 1e3:.1f} ms"
        print(f"  {label}: {brief}", file=sys.stderr, flush=True)
        if args.json:
            with open(args.json, "a") as file:
                row = {"processes": count, "floats": floats, "mbit": args.mbit, "row": label, "ranks": said}
                print(json.dumps(row), file=file)
    times = {label: got[0]["step"] for label, got in results if not isinstance(got, str)}
    ratio = lambda label, base: f"{times[base] / times[label]:8.2f}" if base in times else f"{'-':>8}"
    print(f"{'':<20} {'steps':>6} {'step ms':>9} {'best ms':>9} {'MB/step':>9} {'link ms':>9} {'to ring':>8} {'to bf16':>8}")
    for label, got in results:
        if isinstance(got, str):
            print(f"{label:<20} failed: {got}")
            continue
        megabytes = max(max(rank["sent"], rank["received"]) for rank in got) / 1e6
        link = megabytes * 8e3 / args.mbit
        row = f"{label:<20} {got[0]['steps']:>6} {got[0]['step'] * 1e3:>9.1f} {got[0]['best'] * 1e3:>9.1f}"
        row += f" {megabytes:>9.4f} {link:>9.1f} {ratio(label, 'ring')} {ratio(label, 'torch bf16 hook')}"
        merged = sum(rank["merged"] for rank in got)
        print(row + (f"  {merged} messages merged" if merged else ""), flush=True)


def bench():
    """Builds the bench. Returns the path of its program."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "bench", "--bench", "thin", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = (json.loads(line) for line in built.splitlines() if line.startswith("{"))
    return [message["executable"] for message in messages if message.get("executable")][-1]


def main():
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        sys.exit("skipped: the bench of thin links needs root, ip and tc (on Debian: iproute2)")
    node = bench()
    torch = subprocess.run([args.python, "-c", "import torch"], stderr=subprocess.DEVNULL).returncode == 0
    if not torch:
        print(f"skipped: the rows of PyTorch ({args.python} has no torch; see --python)")
    for count in map(int, args.processes.split(",")):
        try:
            build(count)
        except OSError as error:
            sys.exit(f"skipped: the bench of thin links ({error})")
        for floats in map(int, args.floats.split(",")):
            table(count, floats, node, torch)
        clean()


# SIGTERM and SIGHUP end the run as Ctrl-C does: with the namespaces removed.
for number in [signal.SIGTERM, signal.SIGHUP]:
    signal.signal(number, lambda *_: sys.exit(143))
try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
finally:
    clean()
