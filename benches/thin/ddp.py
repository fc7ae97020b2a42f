"""Steps of PyTorch's DistributedDataParallel over gloo, on the CPU: one process of benches/thin/run.py.

usage: ddp.py RANK PROCESSES HOST:PORT FLOATS STEPS INTERFACE HOOK     HOOK: none, bf16 or fp16
Prints the same line of JSON as main.rs.
"""
import json, os, sys, time

rank, processes, (host, port) = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(":")
floats, steps, interface, hook = int(sys.argv[4]), int(sys.argv[5]), sys.argv[6], sys.argv[7]
os.environ.update(MASTER_ADDR=host, MASTER_PORT=port, RANK=str(rank), WORLD_SIZE=str(processes))
os.environ.update(GLOO_SOCKET_IFNAME=interface, OMP_NUM_THREADS="1")

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

STRIDE = 4099


class Model(torch.nn.Module):
    """One parameter, whose gradient is the input."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(floats))

    def forward(self, gradient):
        return torch.dot(self.weights, gradient)


def traffic():
    """Bytes that the interface has sent and received."""
    with open("/proc/self/net/dev") as table:
        row = next(line for line in table if line.strip().startswith(interface + ":"))
    counters = [int(word) for word in row.split(":")[1].split()]
    return counters[8], counters[0]


torch.set_num_threads(1)
torch.manual_seed(rank)
steps = max(3, steps)
warm_up = 1 + steps // 5
# The distribution of main.rs.
source = torch.exp2(torch.randn(floats + STRIDE * (steps + warm_up)) * 2.3 - 15.0)
source *= torch.sign(torch.randn(source.shape))
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(Model(), gradient_as_bucket_view=True)
if hook != "none":
    model.register_comm_hook(None, getattr(default_hooks, f"{hook}_compress_hook"))
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
times = []
for step in range(warm_up + steps):
    if step == warm_up:
        before = traffic()
    gradient = source[STRIDE * step : STRIDE * step + floats]
    begun = time.perf_counter()
    optimizer.zero_grad(set_to_none=False)
    model(gradient).backward()
    optimizer.step()
    times.append(time.perf_counter() - begun)
sent, received = ((now - then) / steps for now, then in zip(traffic(), before))
times = sorted(times[warm_up:])
result = {"rank": rank, "steps": steps, "step": times[steps // 2], "best": times[0], "sent": sent}
print(json.dumps(result | {"received": received, "merged": 0}), flush=True)
dist.barrier()
dist.destroy_process_group()
