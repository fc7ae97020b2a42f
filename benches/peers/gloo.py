"""All-reduce by PyTorch's gloo: gloo.py PROCESSES BYTES. Prints median and best time of rank 0 in microseconds."""
import os, sys, time
import torch, torch.distributed as dist, torch.multiprocessing as mp


def run(rank, count, size, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=count)
    x = torch.ones(size // 4)
    rounds = min(2000, max(12, 2_000_000_000 // size))
    times = []
    for _ in range(rounds + rounds // 5 + 1):
        x.fill_(float(rank))
        begun = time.perf_counter()
        dist.all_reduce(x)
        times.append(time.perf_counter() - begun)
        assert x[0].item() == count * (count - 1) / 2
    times = sorted(times[rounds // 5 + 1 :])
    if rank == 0:
        median, best = times[len(times) // 2] * 1e6, times[0] * 1e6
        print(f"{'gloo':>9}  {count:>2}  {size:>11}  {median:>12.1f}  {best:>12.1f}", flush=True)
    dist.barrier()


if __name__ == "__main__":
    count, size = int(sys.argv[1]), int(sys.argv[2])
    mp.spawn(run, args=(count, size, 20000 + os.getpid() % 10000), nprocs=count)
