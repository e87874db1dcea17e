"""Fine-tuning: what the boundary cache saves, what tuning gains, at what cost; and many tasks.

    python benchmarks/finetuning.py                        everything, some hours on two cores
    python benchmarks/finetuning.py --quick                everything small, a few minutes
    python benchmarks/finetuning.py --only epoch accuracy  two sections

Fashion-MNIST comes from Debian's package: ``apt-get install dataset-fashion-mnist``; the digits
come with scikit-learn, the photos with scikit-image. fastai (``pip install fastai``) may be
absent: that is said. What other processes take of the cores meanwhile is told: with much of it,
seconds mean little. This script installs and downloads nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from findings import timed
from measuring import RESULTS, cpu_of_others, machine, write_results
from tuning_accuracy import accuracy
from tuning_epochs import PHOTOS, epoch
from tuning_peers import PEERS, peers
from tuning_tasks import tasks

SECTIONS = {one.__name__: one for one in (epoch, accuracy, peers, tasks)}
FULL = {"networks": [("timm/resnet50", 1), ("efficientnet_lite0", 2),
                     ("timm/vit_small_patch16_224", 2)],
        "rows": 302, "epochs": 5, "passes": 5, "repeats": 3,  # 15 % are for validation
        "train_rows": 6000, "test_rows": 10_000, "seeds": 1, "blocks": [2, 3], "draws": 5,
        "epochs_of_tuning": 0, "limit": 1200, "peer_repeats": 1, "digit_rows": 1000}  # fmt: skip
QUICK = {"networks": [("timm/test_resnet", 1), ("timm/test_vit", 2)],
         "rows": 80, "epochs": 3, "passes": 2, "repeats": 1, "train_rows": 200, "test_rows": 200,
         "blocks": [2], "draws": 1, "epochs_of_tuning": 2, "limit": 20,
         "digit_rows": 200}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--quick", action="store_true", default=False)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, help="turns of epoch and tasks")
    parser.add_argument("--rows", type=int, help="photos of epoch")
    parser.add_argument("--epochs", type=int, help="of each run of epoch")
    parser.add_argument("--blocks", type=int, nargs="+", help="that accuracy trains, one by one")
    parser.add_argument("--seeds", type=int, help="of fine-tuning in accuracy")
    parser.add_argument("--draws", type=int, help="of ten images a class in accuracy")
    parser.add_argument("--train-rows", type=int, help="of accuracy and peers")
    parser.add_argument("--loops", nargs="+", choices=PEERS, default=PEERS, help="of peers")
    parser.add_argument("--limit", type=float, help="seconds after which a peer is stopped")
    parser.add_argument("--peer-repeats", type=int)
    parser.add_argument("--folder", type=Path, default=PHOTOS, help="where the photos lie")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    asked = vars(parser.parse_args())
    given = argparse.Namespace(**{**FULL, **(QUICK if asked["quick"] else {}), **asked})
    warnings.simplefilter("ignore")
    print(machine("cpu")["processor"], f"{torch.get_num_threads()} threads", flush=True)
    with tempfile.TemporaryDirectory(prefix="finetuning-") as folder:
        os.environ["PIPELINE_CACHE_DIR"] = str(Path(folder, "graphs"))
        given.work = Path(folder)
        for name in given.only:
            print(name, file=sys.stderr, flush=True)
            before = cpu_of_others()
            sheet, seconds = timed(lambda name=name: SECTIONS[name](given))
            others = None if before is None else round((cpu_of_others() - before) / seconds, 2)
            sheet.show()
            print(f"  {seconds:.1f} s; cores that other processes kept busy meanwhile: {others}")
            found = {
                "quick": given.quick, "threads": torch.get_num_threads(),
                "seconds": round(seconds, 1), "cores_of_others": others,
            }  # fmt: skip
            path = given.out / f"finetuning_{name}.json"
            write_results(path, f"finetuning, {name}", found | sheet.to_json())


if __name__ == "__main__":
    main()
