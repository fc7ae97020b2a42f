#!/usr/bin/env python3
"""The cost of unauthenticated connections: two processes train while a client opens 1,000 connections a second, which
send nothing or data of other protocols, and eight more connections that never read. Prints memory and step time beside
the values of an undisturbed run.

usage: benches/flood.py [SECONDS]      default: 20; needs `cargo build --release --examples`
"""
import json, os, re, socket, subprocess, sys, threading, time

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20
target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(__file__), "..", "target")
node = os.path.join(target, "release", "examples", "node")
if not os.path.exists(node):
    sys.exit(f"{node}: not built; cargo build --release --examples")
words = [b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(200), b"GRWP" + bytes(124)]


def rss(pid):
    """Resident memory in KiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])


def cpu(pid):
    """Processor time so far in seconds."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(flood):
    """Trains with two processes, with or without the flood of connections to rank 0."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    pace, batches = 100, 45
    epochs = max(1, int(seconds * pace / batches))
    args = ["--processes", "2", "--meet", f"127.0.0.1:{port}", "--recipe", "sync", "--json", "--quiet"]
    args += ["--pace", str(pace), "--epochs", str(epochs)]
    procs = [subprocess.Popen([node, "--rank", str(r)] + args, stdout=subprocess.PIPE, text=True) for r in range(2)]
    begun, tried, rss_max, stay = time.monotonic(), 0, 0, []
    stop = threading.Event()

    def flood_connections():
        nonlocal tried
        open_ones = []
        while not stop.is_set():
            due = int((time.monotonic() - begun) * 1000)
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
            while len(open_ones) > 200:
                open_ones.pop(0).close()
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
    took = json.loads(procs[0].communicate()[0].splitlines()[-1])["seconds"]
    procs[1].communicate()
    codes = [p.returncode for p in procs]
    return dict(took=took, ideal=epochs * batches / pace, rss=rss_max, cpu=used, tried=tried, codes=codes)


calm, flooded = run(False), run(True)
for name, r in ("undisturbed", calm), ("flooded", flooded):
    print(f"{name:<12} {r['took']:.2f} s for {r['ideal']:.2f} s of steps, {r['rss']} KiB at most, "
          f"{r['cpu']:.2f} s of processor time, exit codes {r['codes']}")
slower = 100 * (flooded["took"] / calm["took"] - 1)
each = 1e3 * (flooded["cpu"] - calm["cpu"]) / max(1, flooded["tried"])
more = flooded["rss"] - calm["rss"]
print(f"{flooded['tried']} foreign connections: step time {slower:+.2f} %, memory {more:+d} KiB, "
      f"{each:.3f} ms of processor time each")
