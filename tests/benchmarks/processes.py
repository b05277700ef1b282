"""How much faster two processes of one thread extract than one: a script, not a test.

    python -m tests.benchmarks.processes --config extract.yaml --repeats 3

The config is one of `dfl extract`. Give it images by the multiple of two shards (of 128 images by
default), so that both processes have the same work.
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
    """Run one extraction; give its seconds, from the command to its end."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="a YAML file of dfl extract")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn")
    args = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeats):
            features: dict[int, dict[str, bytes]] = {}
            for devices, found in seconds.items():
                out = Path(folder) / "features"
                found.append(extracted(args.config, devices, out))
                features[devices] = {file.name: file.read_bytes() for file in out.glob("*.npy")}
                shutil.rmtree(out)
            if features[1] != features[2]:
                raise SystemExit("the features of two processes are not those of one")
    for devices, found in seconds.items():
        print(f"{devices} process(es) of one thread: {statistics.median(found):.1f} s")
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    print(f"two are {statistics.median(ratios):.2f} times as fast, with the same bytes")


if __name__ == "__main__":
    main()
