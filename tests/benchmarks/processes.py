"""How much faster two processes of one thread extract than one: a script, not a test.

    python -m tests.benchmarks.processes --config extract.yaml --repeats 3

The config is one of `dfl extract`. Give it images by the multiple of two shards (of 128 images by
default), so that both processes have the same work. Each command is run once more into the finished
folder, where it starts, reads and checks but has no pass to make: the difference is the time of the
passes alone, whose ratio that of a long run tends to.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def extracted(config: str, devices: int, out: Path) -> float:
    """Run the command; give its seconds, from its start to its end."""
    strategy = ["--strategy=ddp"] if devices > 1 else []
    command = [sys.executable, str(REPOSITORY / "train.py"), "extract", f"--config={config}"]
    command += [f"--out={out}", "--accelerator=cpu", f"--devices={devices}", *strategy]
    start = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds


def ratio(seconds: dict[int, list[float]]) -> float:
    """Say how many times as fast two are."""
    return statistics.median(one / two for one, two in zip(seconds[1], seconds[2], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="a YAML file of dfl extract")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn")
    args = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    passes: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeats):
            features: dict[int, dict[str, bytes]] = {}
            for devices in seconds:
                out = Path(folder) / "features"
                whole = extracted(args.config, devices, out)
                seconds[devices].append(whole)
                passes[devices].append(whole - extracted(args.config, devices, out))
                features[devices] = {file.name: file.read_bytes() for file in out.glob("*.npy")}
                shutil.rmtree(out)
            if features[1] != features[2]:
                raise SystemExit("the features of two processes are not those of one")
    for devices in seconds:
        whole, alone = statistics.median(seconds[devices]), statistics.median(passes[devices])
        print(f"{devices} process(es) of one thread: {whole:.1f} s, without start-up {alone:.1f} s")
    print(
        f"two are {ratio(seconds):.2f} times as fast, without start-up {ratio(passes):.2f} times, "
        "with the same bytes"
    )


if __name__ == "__main__":
    main()
