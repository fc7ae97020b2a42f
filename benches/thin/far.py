#!/usr/bin/env python3
"""TCP over a link with a long delay: plain connections, and steps of a ring.

Two network namespaces, and between them a relay in user space, which holds every packet back for the delay and lets
them out at the rate of the link, for kernels without netem. Needs root, ip and /dev/net/tun. Prints the megabits per
second that plain connections reach from one namespace to the other, 1 and more at once, after 3 seconds; then the time
of a step of `sync topology=ring` (the bench thin) and the share of the link that it uses. Packets have 9000 bytes: a relay
in Python carries no more of them.
"""
import argparse, collections, ctypes, fcntl, json, os, select, struct, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--mbit", type=float, default=1000)
parser.add_argument("--delay", type=float, default=50, help="milliseconds, one way")
parser.add_argument("--floats", type=int, default=14_600_000)
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--buffer", type=int, help="largest socket buffer in bytes (net.ipv4.tcp_wmem and tcp_rmem)")
parser.add_argument("--connections", default="1,4", help="numbers of plain connections")
args = parser.parse_args()
NAMES = [f"far{os.getpid()}-{side}" for side in "ab"]
MTU = 9000


def enter(name):
    with open(f"/run/netns/{name}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def tunnel(name, address):
    subprocess.run(["ip", "netns", "add", name], check=True)
    enter(name)
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    # IFF_TUN | IFF_NO_PI
    fcntl.ioctl(file, 0x400454CA, struct.pack("16sH", b"eth0", 0x1001))
    for command in [f"addr add {address}/24 dev eth0", f"link set eth0 mtu {MTU} up txqueuelen 5000", "link set lo up"]:
        subprocess.run(["ip"] + command.split(), check=True)
    if args.buffer:
        for direction in "rw":
            with open(f"/proc/sys/net/ipv4/tcp_{direction}mem", "w") as limits:
                limits.write(f"4096 131072 {args.buffer}")
    return file


def relay(files):
    """Carries packets in both directions, for ever. A queue holds 100 ms of the link."""
    rate, delay = args.mbit * 125_000, args.delay / 1e3
    queues = [collections.deque(), collections.deque()]
    free = [0.0, 0.0]
    while True:
        now = time.monotonic()
        for side in (0, 1):
            queue = queues[side]
            while queue and queue[0][0] <= now:
                try:
                    os.write(files[1 - side], queue.popleft()[1])
                except OSError:
                    pass
        dues = [queue[0][0] for queue in queues if queue]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else 1.0
        for file in select.select(files, [], [], wait)[0]:
            side = files.index(file)
            for _ in range(64):
                try:
                    packet = os.read(file, 65536)
                except BlockingIOError:
                    break
                now = time.monotonic()
                if free[side] - now < 0.1:
                    free[side] = max(free[side], now) + len(packet) / rate
                    queues[side].append((free[side] + delay, packet))


def plain(count, port):
    """Megabits per second from the second namespace to the first, over `count` connections."""
    receive = f"""
import socket, sys, threading, time
listener = socket.create_server(("10.78.0.1", {port}))
got = [0] * {count}
def take(at, peer):
    buffer = bytearray(1 << 20)
    while (n := peer.recv_into(buffer)): got[at] += n
for at in range({count}): threading.Thread(target=take, args=(at, listener.accept()[0]), daemon=True).start()
time.sleep(3)
before, begun = sum(got), time.monotonic()
time.sleep(5)
print((sum(got) - before) * 8e-6 / (time.monotonic() - begun))
"""
    send = f"""
import socket, threading
def give():
    peer = socket.create_connection(("10.78.0.1", {port}))
    try:
        while True: peer.sendall(bytes(1 << 20))
    except OSError: pass
for _ in range({count}): threading.Thread(target=give).start()
"""
    start = lambda side, text, **more: subprocess.Popen(
        ["ip", "netns", "exec", NAMES[side], sys.executable, "-c", text], text=True, **more)
    receiver = start(0, receive, stdout=subprocess.PIPE)
    time.sleep(0.5)
    sender = start(1, send)
    mbit = float(receiver.communicate(timeout=60)[0])
    sender.kill()
    return mbit


def ring(node):
    command = [node, "--bench", "--recipe", "sync topology=ring", "--processes", "2", "--floats", str(args.floats)]
    command += ["--meet", "10.78.0.1:29510", "--insecure-open", "--interface", "eth0", "--steps", str(args.steps)]
    start = lambda rank: subprocess.Popen(
        ["ip", "netns", "exec", NAMES[rank]] + command + ["--rank", str(rank)], text=True, stdout=subprocess.PIPE)
    nodes = [start(rank) for rank in (0, 1)]
    return [json.loads(node.communicate(timeout=300)[0].splitlines()[-1]) for node in nodes][0]


def main():
    command = ["cargo", "bench", "--bench", "thin", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = (json.loads(line) for line in built.splitlines() if line.startswith("{"))
    node = [message["executable"] for message in messages if message.get("executable")][-1]
    files = [tunnel(name, f"10.78.0.{at + 1}") for at, name in enumerate(NAMES)]
    child = os.fork()
    if child == 0:
        relay(files)
    try:
        print(f"{args.mbit:g} Mbit/s, {args.delay:g} ms one way")
        for at, count in enumerate(map(int, args.connections.split(","))):
            print(f"plain connections: {count}, {plain(count, 29600 + at):.0f} Mbit/s", flush=True)
        step = ring(node)
        share = step["sent"] * 8e-6 / args.mbit / step["step"]
        print(f"ring, {args.floats * 4e-6:.1f} MB: {step['step'] * 1e3:.0f} ms a step, {share:.2f} of the link")
    finally:
        os.kill(child, 9)
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name])


if os.geteuid() or not os.path.exists("/dev/net/tun"):
    sys.exit("skipped: the bench of far links needs root, ip and /dev/net/tun")
main()
