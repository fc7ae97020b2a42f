#!/usr/bin/env python3
"""Strangers at the door: two processes train while others open 1,000 connections a second and say nothing, or nonsense, and
eight stay and never read. Prints memory and pace beside those of an undisturbed run.

    benches/flood.py [SECONDS]        needs `cargo build --release --examples`
"""
import json, os, re, socket, subprocess, sys, threading, time

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20
target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(os.path.dirname(__file__), "..", "target")
node = os.path.join(target, "release", "examples", "node")
if not os.path.exists(node):
    sys.exit(f"{node}: not built; cargo build --release --examples")
words = [b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(200), b"GRWP" + bytes(124)]


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(flood):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    pace, batches = 100, 45
    epochs = max(1, int(seconds * pace / batches))
    args = ["--processes", "2", "--meet", f"127.0.0.1:{port}", "--recipe", "sync", "--json", "--quiet", "--pace", str(pace), "--epochs", str(epochs)]
    procs = [subprocess.Popen([node, "--rank", str(r)] + args, stdout=subprocess.PIPE, text=True) for r in range(2)]
    begun, tried, most, stay = time.monotonic(), 0, 0, []
    stop = threading.Event()

    def strangers():
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
        thread = threading.Thread(target=strangers)
        thread.start()
    while procs[0].poll() is None and procs[1].poll() is None:
        try:
            most, used = max(most, rss(procs[0].pid)), cpu(procs[0].pid)
        except (TypeError, OSError):
            break
        time.sleep(0.05)
    stop.set()
    took = json.loads(procs[0].communicate()[0].splitlines()[-1])["seconds"]
    procs[1].communicate()
    return dict(took=took, ideal=epochs * batches / pace, rss=most, cpu=used, tried=tried, codes=[p.returncode for p in procs])


calm, flooded = run(False), run(True)
for name, r in ("undisturbed", calm), ("flooded", flooded):
    print(f"{name:<12} {r['took']:.2f} s for {r['ideal']:.2f} s of steps, {r['rss']} KiB at most, {r['cpu']:.2f} s of processor, ended with {r['codes']}")
print(f"{flooded['tried']} connections of strangers: step time {100 * (flooded['took'] / calm['took'] - 1):+.2f} %, "
      f"memory {flooded['rss'] - calm['rss']:+d} KiB, {1e3 * (flooded['cpu'] - calm['cpu']) / max(1, flooded['tried']):.3f} ms of processor each")
