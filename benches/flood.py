#!/usr/bin/env python3
"""The cost of unauthenticated connections, and whether they keep a node out.

Without --silent: two processes train while a client opens connections at a rate, which send nothing or data of other
protocols, and eight more connections that never read. Prints memory and step time beside those of an undisturbed run.

With --silent: three processes train. A client holds N connections to rank 0 that send nothing, and opens each again when
it is closed. Rank 2 is killed and started again several times. Prints the time from its start to its first step.

Needs `cargo build --release --examples`.
"""
import argparse, json, os, re, resource, selectors, socket, subprocess, sys, tempfile, threading, time

parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("seconds", type=float, nargs="?", default=20, help="approximate duration of a run")
parser.add_argument("--rate", type=int, default=1000, help="connections per second")
parser.add_argument("--silent", type=int, nargs="*", metavar="N", help="numbers of silent connections, such as 64 640 6400")
parser.add_argument("--restarts", type=int, default=5, help="restarts of rank 2, for each number of silent connections")
parser.add_argument("--key", action="store_true", help="the nodes have a key")
args = parser.parse_args()
target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(__file__), "..", "target")
node = os.path.join(target, "release", "examples", "node")
if not os.path.exists(node):
    sys.exit(f"{node}: not built; cargo build --release --examples")
words = [b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(200), b"GRWP" + bytes(124)]
directory = tempfile.TemporaryDirectory()
key = []
if args.key:
    key = ["--key-file", os.path.join(directory.name, "key")]
    subprocess.run([node, "keygen", key[1]], check=True, stdout=subprocess.DEVNULL)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def rss(pid):
    """Resident memory in KiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])


def cpu(pid):
    """Processor time so far in seconds."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def limit():
    """The nodes keep the usual limit of descriptors."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))


def start(rank, count, port, *more):
    command = [node, "--rank", str(rank), "--processes", str(count), "--meet", f"127.0.0.1:{port}", "--recipe", "sync"]
    return subprocess.Popen(command + ["--json", *key, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            preexec_fn=limit)


def run(flood):
    """Trains with two processes, with or without the flood of connections to rank 0."""
    port = free_port()
    pace, batches = 100, 45
    epochs = max(1, int(args.seconds * pace / batches))
    more = ["--quiet", "--pace", str(pace), "--epochs", str(epochs)]
    procs = [start(r, 2, port, *more) for r in range(2)]
    begun, tried, rss_max, stay = time.monotonic(), 0, 0, []
    stop = threading.Event()

    def flood_connections():
        nonlocal tried
        open_ones, first = [], time.monotonic()
        while not stop.is_set():
            due = int((time.monotonic() - first) * args.rate)
            while tried < due and not stop.is_set():
                s = socket.socket()
                s.setblocking(False)
                try:
                    s.connect_ex(("127.0.0.1", port))
                    s.send(words[tried % len(words)])
                except OSError:
                    pass
                open_ones.append(s)
                tried += 1
                # Reset, so that the ports of the client do not run out.
                if len(open_ones) > 200:
                    old = open_ones.pop(0)
                    old.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    old.close()
            time.sleep(0.005)

    if flood:
        time.sleep(0.5)
        stay = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        thread = threading.Thread(target=flood_connections)
        thread.start()
    while procs[0].poll() is None and procs[1].poll() is None:
        try:
            rss_max, used = max(rss_max, rss(procs[0].pid)), cpu(procs[0].pid)
        except (TypeError, OSError):
            break
        time.sleep(0.05)
    stop.set()
    lines = procs[0].communicate()[0].splitlines()
    if not lines or not lines[-1].startswith("{"):
        sys.exit("rank 0 failed:\n" + "\n".join(lines[-5:]))
    took = json.loads(lines[-1])["seconds"]
    procs[1].communicate()
    codes = [p.returncode for p in procs]
    return dict(took=took, ideal=epochs * batches / pace, rss=rss_max, cpu=used, tried=tried, codes=codes)


class Silent:
    """Holds connections that send nothing, and opens each again when it is closed."""

    def __init__(self, port, count):
        self.port, self.opened, self.stop = port, 0, threading.Event()
        self.selector = selectors.DefaultSelector()
        for _ in range(count):
            self.open()
        self.thread = threading.Thread(target=self.hold)
        self.thread.start()

    def open(self):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", self.port))
        self.selector.register(s, selectors.EVENT_READ)
        self.opened += 1

    def hold(self):
        while not self.stop.is_set():
            for item, _ in self.selector.select(0.05):
                s = item.fileobj
                try:
                    ended = not s.recv(4096)
                except BlockingIOError:
                    ended = False
                except OSError:
                    ended = True
                if ended:
                    self.selector.unregister(s)
                    s.close()
                    self.open()

    def end(self):
        self.stop.set()
        self.thread.join()
        for item in list(self.selector.get_map().values()):
            item.fileobj.close()
        self.selector.close()


def first_step(process):
    """Reads output until the first step, and then goes on reading on a thread. Returns the lines if there is no step."""
    said = []
    for line in process.stdout:
        said.append(line)
        if "first step done" in line:
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            return None
    return said


def restarts(count):
    """The times from the start of rank 2 to its first step, with this number of silent connections to rank 0."""
    port = free_port()
    more = ["--pace", "100", "--epochs", "100000"]
    procs = [start(r, 3, port, *more) for r in range(3)]
    silent = None
    try:
        for process in procs:
            if said := first_step(process):
                sys.exit("no step:\n" + "".join(said[-5:]))
        before, silent, times = rss(procs[0].pid), Silent(port, count), []
        time.sleep(1)
        for _ in range(args.restarts):
            procs[2].kill()
            procs[2].wait()
            begun = time.monotonic()
            procs[2] = start(2, 3, port, *more)
            if said := first_step(procs[2]):
                sys.exit("rank 2 is not back:\n" + "".join(said[-5:]))
            times.append(time.monotonic() - begun)
            time.sleep(0.5)
        print(f"{count:>5} silent connections: back after {sorted(times)[len(times) // 2]:.2f} s, at most {max(times):.2f} s;"
              f" memory {rss(procs[0].pid) - before:+d} KiB; {silent.opened} connections opened", flush=True)
    finally:
        if silent:
            silent.end()
        for process in procs:
            process.kill()
            process.wait()


if args.silent is not None:
    for count in args.silent or [0, 64, 640, 6400]:
        restarts(count)
    sys.exit()
calm, flooded = run(False), run(True)
for name, r in ("undisturbed", calm), ("flooded", flooded):
    print(f"{name:<12} {r['took']:.2f} s for {r['ideal']:.2f} s of steps, {r['rss']} KiB at most, "
          f"{r['cpu']:.2f} s of processor time, exit codes {r['codes']}")
slower = 100 * (flooded["took"] / calm["took"] - 1)
each = 1e3 * (flooded["cpu"] - calm["cpu"]) / max(1, flooded["tried"])
more = flooded["rss"] - calm["rss"]
print(f"{flooded['tried']} foreign connections: step time {slower:+.2f} %, memory {more:+d} KiB, "
      f"{each:.3f} ms of processor time each")
